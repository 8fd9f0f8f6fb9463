"""Every method but COPY: one storage, one path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError

from transfer_engine.demo.faults import Fault
from transfer_engine.demo.journal import Event
from transfer_engine.demo.kinds import Kind
from transfer_engine.demo.namespace import Stored, Writer, parent_of
from transfer_engine.demo.site import Ask
from transfer_engine.demo.stream import BrokenOnPurpose, distort, read_blocks, short_length
from transfer_engine.demo.wire import byte_range, digest_header, listing, repr_digest_header, wanted_algorithm

ALLOW: Final = "OPTIONS, HEAD, GET, PUT, DELETE, MKCOL, PROPFIND, COPY"

GONE_POLL_S: Final = 0.1
"""How often a stalled download looks whether anybody still waits for it."""

GONE: Final = (ConnectionError, PayloadEncodingError, web.RequestPayloadError)
"""How a client that closes its connection shows."""


def _not_cut() -> None:
    """A plain request has no control connection besides its own."""


def _digests(ask: Ask, stored: Stored) -> dict[str, str]:
    """The digest headers of a GET or HEAD."""
    if ask.fault is Fault.NO_DIGEST:
        return {}
    behaviour, headers = ask.site.behaviour, ask.request.headers
    found = {}
    if (want := headers.get("Want-Digest")) is not None or behaviour.digest_unasked:
        checksum = stored.content.checksum(wanted_algorithm(want or "", behaviour))
        found["Digest"] = digest_header(checksum, behaviour)
    if (want := headers.get("Want-Repr-Digest")) is not None:
        found["Repr-Digest"] = repr_digest_header(stored.content.checksum(wanted_algorithm(want, behaviour)))
    return found


async def options(_ask: Ask) -> web.StreamResponse:
    """What is understood here."""
    return web.Response(headers={"Allow": ALLOW, "DAV": "1"})


async def head(ask: Ask) -> web.StreamResponse:
    """Size, and digest when asked for; a file that is still being written is there already."""
    stored = ask.site.namespace.file(ask.path)
    if stored is None:
        if not ask.site.namespace.is_directory(ask.path):
            return web.Response(status=404)
        size_bytes, found = 4096, {}
    else:
        size_bytes, found = stored.content.size_bytes, _digests(ask, stored)
    response = web.StreamResponse(headers={"Content-Length": str(size_bytes), "Accept-Ranges": "bytes", **found})
    await response.prepare(ask.request)
    await response.write_eof()
    return response


async def get(ask: Ask) -> web.StreamResponse:
    """The bytes, or a range of them."""
    stored = ask.site.namespace.file(ask.path)
    if stored is None:
        directory = ask.site.namespace.is_directory(ask.path)
        return web.Response(
            status=403 if directory else 404, text="is a directory\n" if directory else "no such file\n"
        )
    size_bytes = stored.content.size_bytes
    wanted = byte_range(ask.request.headers.get("Range"), size_bytes)
    if wanted is None:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size_bytes}"})
    start, stop = wanted
    partial = (start, stop) != (0, size_bytes)
    length = short_length(stop - start) if ask.fault is Fault.SHORT else stop - start
    response = web.StreamResponse(status=206 if partial else 200, headers=_digests(ask, stored))
    response.content_length = length
    response.content_type = "application/octet-stream"
    if partial:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    await response.prepare(ask.request)
    blocks = distort(
        read_blocks(stored.content, start, stop, ask.site.pace),
        # The stream breaks where it is to stall; `_send` then keeps the connection open.
        fault=Fault.CUT_PARTIAL if ask.fault is Fault.STALL else ask.fault,
        faults=ask.site.plan.faults,
        size_bytes=stop - start,
        cut=_not_cut,
    )
    return await _send(ask, response, blocks, length)


async def _send(
    ask: Ask, response: web.StreamResponse, blocks: AsyncIterator[bytes], length: int
) -> web.StreamResponse:
    """Write `blocks`; anything but `length` bytes ends in a closed connection, never in a false end of file."""
    n_sent = 0
    try:
        async for block in blocks:
            await response.write(block)
            n_sent += len(block)
    except BrokenOnPurpose:
        if ask.fault is Fault.STALL:
            await _until_gone(ask.request)
    except ConnectionError:
        pass
    if n_sent == length:
        await response.write_eof()
    elif ask.request.transport is not None:
        ask.request.transport.close()
    return response


async def _until_gone(request: web.Request) -> None:
    """Wait for the client to close; aiohttp tells a handler only when it writes."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - no event says it
        await asyncio.sleep(GONE_POLL_S)


async def put(ask: Ask) -> web.StreamResponse:
    """Store what arrives."""
    site, request = ask.site, ask.request
    if site.namespace.is_directory(ask.path):
        return web.Response(status=409, text="is a directory\n")
    exists = site.namespace.file(ask.path) is not None
    # XRootD writes over the file all the same.
    if exists and request.headers.get("If-None-Match") == "*" and site.kind is not Kind.XROOTD:
        return web.Response(status=412)
    if not site.parent_ready(ask.path):
        return web.Response(status=409, text="no such directory\n")
    writer = site.namespace.open(ask.path, method="PUT", name=ask.name)
    try:
        complete = await _receive(ask, writer)
    except BaseException as error:
        site.namespace.abandon(writer, keep=site.behaviour.keeps_partial, note=f"upload ended: {type(error).__name__}")
        if isinstance(error, GONE):
            return web.Response(status=400)
        raise
    if not complete:
        site.namespace.abandon(writer, keep=site.behaviour.keeps_partial, note="upload cut short")
        return web.Response(status=400, text="body cut short\n")
    site.namespace.commit(writer)
    return web.Response(status=site.behaviour.replaced if exists else 201)


async def _receive(ask: Ask, writer: Writer) -> bool:
    """Take the body in; False when it is shorter than announced."""
    announced = ask.request.content_length
    n_received = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal n_received
        async for block in ask.request.content.iter_chunked(ask.site.pace.block_bytes):
            n_received += len(block)
            await ask.site.pace.take(len(block))
            yield block

    stream = distort(body(), fault=ask.fault, faults=ask.site.plan.faults, size_bytes=announced or 0, cut=_not_cut)
    async for block in stream:
        writer.content.append(block)
    return ask.fault is Fault.SHORT or announced is None or n_received == announced


async def delete(ask: Ask) -> web.StreamResponse:
    """Remove a file or an empty directory."""
    namespace = ask.site.namespace
    if namespace.is_directory(ask.path):
        removed = namespace.remove_directory(ask.path)
        return web.Response(status=ask.site.behaviour.deleted if removed else 409)
    if not namespace.delete(ask.path, name=ask.name):
        return web.Response(status=404)
    return web.Response(status=ask.site.behaviour.deleted)


async def mkcol(ask: Ask) -> web.StreamResponse:
    """Make a directory."""
    site = ask.site
    if site.namespace.is_directory(ask.path):
        return web.Response(status=site.behaviour.directory_exists)
    if site.namespace.file(ask.path) is not None:
        return web.Response(status=405)
    if not site.creates_parents and not site.namespace.is_directory(parent_of(ask.path)):
        return web.Response(status=409)
    if not site.namespace.make_directories(ask.path):
        return web.Response(status=409)
    site.journal.add(Event.DIRECTORY, method="MKCOL", path=ask.path, writer=ask.name)
    return web.Response(status=201)


async def propfind(ask: Ask) -> web.StreamResponse:
    """The properties of one path, and with `Depth: 1` of what is directly in it."""
    namespace = ask.site.namespace
    depth = ask.request.headers.get("Depth", "infinity")
    if depth not in {"0", "1"}:
        return web.Response(status=403, text="Depth is 0 or 1 here\n")

    def size_of(path: str) -> int | None:
        stored = namespace.file(path)
        return None if stored is None else stored.content.size_bytes

    if size_of(ask.path) is None and not namespace.is_directory(ask.path):
        return web.Response(status=404)
    paths = [ask.path]
    if depth == "1" and namespace.is_directory(ask.path):
        paths += namespace.children(ask.path)
    body = listing(((p, size_of(p)) for p in paths), encodes_href=ask.site.behaviour.encodes_href)
    return web.Response(status=207, body=body, content_type="application/xml", charset="utf-8")


HANDLERS: Final[Mapping[str, Callable[[Ask], Awaitable[web.StreamResponse]]]] = {
    "OPTIONS": options,
    "HEAD": head,
    "GET": get,
    "PUT": put,
    "DELETE": delete,
    "MKCOL": mkcol,
    "PROPFIND": propfind,
}
