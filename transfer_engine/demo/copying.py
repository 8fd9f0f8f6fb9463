"""COPY: two storages, one file, progress on the way (HTTP-TPC)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import aiohttp
from aiohttp import web
from yarl import URL

from transfer_engine.demo.faults import Fault
from transfer_engine.demo.kinds import Kind, WhenGone
from transfer_engine.demo.namespace import Writer
from transfer_engine.demo.site import Ask
from transfer_engine.demo.stream import BrokenOnPurpose, distort, read_blocks
from transfer_engine.demo.wire import marker_text, passed_headers


class CopyBroken(Exception):
    """The copy failed; the text goes into the failure line."""


@dataclass(slots=True, kw_only=True)
class Copying:
    """One copy under way."""

    ask: Ask
    remote: URL
    headers: dict[str, str]
    """For the passive party."""
    pull: bool
    bytes_done: int = 0
    connected: bool = False
    cut: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when the control connection is to be closed though the copy goes on."""

    def cut_now(self) -> None:
        """Have the control connection closed."""
        if not self.cut.done():
            self.cut.set_result(None)

    async def run(self) -> None:
        """Move the bytes.

        Raises: CopyBroken, BrokenOnPurpose.
        Cancel: the partial file stays or goes, as the kind of storage has it.
        """
        if self.pull:
            await self._pull()
        else:
            await self._push()

    async def _pull(self) -> None:
        site = self.ask.site
        writer = site.namespace.open(self.ask.path, method="COPY", name=self.ask.name)
        try:
            await self._fetch_into(writer)
        except BaseException as error:
            site.namespace.abandon(writer, keep=site.behaviour.keeps_partial, note=f"{type(error).__name__}: {error}")
            raise
        site.namespace.commit(writer)

    async def _fetch_into(self, writer: Writer) -> None:
        site = self.ask.site
        try:
            async with site.session.get(self.remote, headers=self.headers) as response:
                self.connected = True
                if response.status != 200:  # noqa: PLR2004 - OK
                    raise CopyBroken(_rejected(site.kind, "GET", self.remote, response))
                blocks = self._distorted(self._arriving(response), response.content_length or 0)
                async for block in blocks:
                    writer.content.append(block)
                    self.bytes_done += len(block)
        except aiohttp.ClientPayloadError as error:
            raise CopyBroken("Transferred a partial file") from error
        except aiohttp.ServerTimeoutError as error:
            raise CopyBroken("Transfer failed because no bytes have been received in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CopyBroken("Couldn't connect to server") from error

    async def _arriving(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        pace = self.ask.site.pace
        async for block in response.content.iter_chunked(pace.block_bytes):
            await pace.take(len(block))
            yield block

    async def _push(self) -> None:
        site = self.ask.site
        stored = site.namespace.file(self.ask.path)
        if stored is None:
            raise CopyBroken("no such file")
        size_bytes = stored.content.size_bytes
        broken: list[BrokenOnPurpose] = []

        async def body() -> AsyncIterator[bytes]:
            blocks = self._distorted(read_blocks(stored.content, 0, size_bytes, site.pace), size_bytes)
            try:
                async for block in blocks:
                    yield block
                    self.bytes_done += len(block)
            except BrokenOnPurpose as error:
                broken.append(error)
                raise

        headers = {**self.headers}
        if self.ask.fault is not Fault.SHORT:
            headers["Content-Length"] = str(size_bytes)
        try:
            async with site.session.put(self.remote, headers=headers, data=body()) as response:
                self.connected = True
                if not response.ok:
                    raise CopyBroken(_rejected(site.kind, "PUT", self.remote, response))
        except (aiohttp.ClientError, OSError) as error:
            if broken:
                raise broken[0] from error
            raise CopyBroken("Server returned nothing (no headers, no data)") from error

    def _distorted(self, blocks: AsyncIterator[bytes], size_bytes: int) -> AsyncIterator[bytes]:
        return distort(
            blocks,
            fault=self.ask.fault,
            faults=self.ask.site.plan.faults,
            size_bytes=size_bytes,
            cut=self.cut_now,
        )


def _rejected(kind: Kind, method: str, url: URL, response: aiohttp.ClientResponse) -> str:
    """How each family words that the passive party said no."""
    match kind:
        case Kind.XROOTD:
            return f"Remote side failed with status code {response.status}; error message: {response.reason!r}"
        case Kind.DCACHE:
            return f"rejected {method}: {response.status} {response.reason}"
        case Kind.STORM:
            return f"Error fetching {url}: {response.status} {response.reason}"


def _remote_url(text: str) -> URL | None:
    """The passive party's URL; None unless it is http on loopback, so that a model never reaches out."""
    try:
        url = URL(text, encoded=True)
        port = url.port
    except ValueError:
        return None
    scheme = {"http": "http", "dav": "http"}.get(url.scheme.lower())
    if scheme is None or (port is None and url.scheme != "dav"):
        return None
    host = "127.0.0.1" if url.host == "localhost" else url.host or ""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        return None
    if not loopback:
        return None
    return URL.build(
        scheme=scheme,
        authority=f"[{host}]:{port or 80}" if ":" in host else f"{host}:{port or 80}",
        path=url.raw_path,
        query_string=url.raw_query_string,
        encoded=True,
    )


def _objection(ask: Ask, *, pull: bool) -> web.Response | None:
    """Why the copy is not even begun."""
    site, headers = ask.site, ask.request.headers
    stored = site.namespace.file(ask.path)
    if not pull:
        return None if stored is not None else web.Response(status=404, text="failure: no such file\n")
    overwrite = headers.get("Overwrite", "T").strip()
    if overwrite not in {"T", "F"} and site.kind is not Kind.XROOTD:
        return web.Response(status=400, text="failure: Overwrite is T or F\n")
    if site.namespace.is_directory(ask.path):
        return web.Response(status=400, text="failure: is a directory\n")
    if stored is not None and overwrite != "T":
        return web.Response(status=site.behaviour.exists, text="failure: file exists\n")
    if not site.parent_ready(ask.path):
        return web.Response(status=site.behaviour.no_parent, text="failure: no such directory\n")
    return None


async def _ask_source(copying: Copying) -> web.Response | None:
    """XRootD 6: a source that does not answer HEAD with success ends the copy, its status is passed on."""
    site = copying.ask.site
    try:
        async with site.session.head(copying.remote, headers=copying.headers) as response:
            if response.ok:
                return None
            text = f"failure: remote host returned '{response.status} {response.reason}' while fetching file size\n"
            return web.Response(status=response.status, text=text)
    except (aiohttp.ClientError, OSError):
        return web.Response(status=500, text="failure: Couldn't connect to server\n")


async def copy(ask: Ask) -> web.StreamResponse:
    """Pull with `Source`, push with `Destination`."""
    source, destination = ask.request.headers.get("Source"), ask.request.headers.get("Destination")
    if (source is None) == (destination is None):
        return web.Response(status=400, text="failure: one of Source and Destination\n")
    remote = _remote_url(source or destination or "")
    if remote is None:
        return web.Response(status=400, text="failure: not a URL of this machine's loopback\n")
    pull = source is not None
    refusal = _objection(ask, pull=pull)
    if refusal is not None:
        return refusal
    copying = Copying(ask=ask, remote=remote, headers=passed_headers(ask.request.headers), pull=pull)
    if pull and ask.site.behaviour.asks_source_first and (refusal := await _ask_source(copying)) is not None:
        return refusal
    response = web.StreamResponse(status=ask.site.behaviour.accepted)
    response.content_type = "text/plain" if ask.site.kind is Kind.XROOTD else "text/perf-marker-stream"
    response.enable_chunked_encoding()
    task = ask.site.spawn(copying.run())
    try:
        await response.prepare(ask.request)
        await _follow(copying, task, response)
    except ConnectionError:
        # The client has gone. Whether the copy ends with it is the family's choice.
        if ask.site.behaviour.when_gone is WhenGone.STOP:
            task.cancel()
            await asyncio.wait({task})
    return response


async def _follow(copying: Copying, task: asyncio.Task[None], response: web.StreamResponse) -> None:
    """Write markers while the copy runs, then its final line."""
    ask, site = copying.ask, copying.ask.site
    if site.behaviour.marks_at_once:
        await response.write(_marker(copying))
    while True:
        await asyncio.wait({task, copying.cut}, timeout=site.marker_period_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done() or copying.cut.done():
            break
        if ask.fault is not Fault.SILENT:
            await response.write(_marker(copying))
        elif ask.request.transport is None or ask.request.transport.is_closing():
            raise ConnectionResetError
    final = None if copying.cut.done() else _final_line(copying, task)
    if final is None:
        if ask.request.transport is not None:
            ask.request.transport.close()
        return
    await response.write(final)
    await response.write_eof()


def _final_line(copying: Copying, task: asyncio.Task[None]) -> bytes | None:
    """The last line; None: the connection is cut instead."""
    fault, behaviour = copying.ask.fault, copying.ask.site.behaviour
    if task.cancelled():
        return None
    error = task.exception()
    if isinstance(error, BrokenOnPurpose):
        if fault is not Fault.FAILURE_LINE:
            return None
        text = "failure: Transfer failed on purpose"
    elif isinstance(error, CopyBroken):
        text = f"failure: {error}"
    elif error is not None:
        raise error
    elif fault is Fault.CUT_DONE:
        return None
    else:
        text = "success: Created"
    return (text + ("\n" if behaviour.ends_line else "")).encode()


def _marker(copying: Copying) -> bytes:
    site, host = copying.ask.site, copying.remote.raw_host or ""
    host = f"[{host}]" if ":" in host else host
    return marker_text(
        at_s=asyncio.get_running_loop().time(),
        bytes_done=copying.bytes_done,
        remote=f"tcp:{host}:{copying.remote.port}" if copying.connected else "",
        margin=site.behaviour.margin,
    )
