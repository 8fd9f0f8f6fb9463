"""The HTTP adapter against servers that are broken or mean: every one ends in a classified error, in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from protocols.api import Capabilities, CopyRequest, Credential, Mode, Timeouts
from protocols.credentials import Secret
from protocols.errors import (
    AlreadyExists,
    BadServer,
    CopyFailed,
    Denied,
    Missing,
    OutcomeUnknown,
    Overloaded,
    ParentMissing,
    Refused,
    Stalled,
    TimedOut,
    TransferError,
    Unavailable,
    Unsupported,
)
from protocols.http import HttpAdapter

pytestmark = pytest.mark.asyncio

PATIENT = Timeouts(request_s=20, digest_s=20, first_response_s=20, silence_s=20, stall_s=20)
"""Where a limit is not the matter: nothing fails only because the machine is busy."""
SOON = Timeouts(connect_s=2, request_s=0.3, digest_s=0.3, first_response_s=0.3, silence_s=0.3, stall_s=0.3)
MARKER = b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: 5\nEnd\n"
TOKEN = Credential(token=Secret("CANARY"))

Handler = Callable[["Peer"], Coroutine[Any, Any, None]]


class Peer:
    """One connection of the test's own server, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heads: list[str]) -> None:
        self.reader, self.writer, self.heads = reader, writer, heads

    async def request(self) -> str:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if head.startswith("PROPFIND"):
            await self.reader.readexactly(int(head.lower().partition("content-length: ")[2].split()[0]))
        return head

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def chunked(self, *chunks: bytes, status: str = "201 Created", end: bool = True) -> None:
        await self.send(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for chunk in chunks:
            await self.send(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        if end:
            await self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        self.writer.transport.abort()


class Server:
    def __init__(self) -> None:
        self.heads: list[str] = []
        self.url = ""


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Server]:
    server = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(Peer(reader, writer, server.heads))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()


@asynccontextmanager
async def adapter(**arguments: Any) -> AsyncIterator[HttpAdapter]:
    made = HttpAdapter(**arguments)
    try:
        yield made
    finally:
        await made.aclose()


async def copy(server: Server, *, tpc: bool = True, mode: Mode = Mode.PULL, markers: list | None = None, **more: Any):
    known = {server.url: Capabilities(pull=True, push=True)} if tpc else {}
    pull = mode is Mode.PULL
    there, here = "http://other.invalid/f", f"{server.url}/d/f"
    request = CopyRequest(
        source_url=there if pull else here,
        destination_url=here if pull else there,
        mode=mode,
        timeouts=more.pop("timeouts", PATIENT),
        **more,
    )
    async with adapter(capabilities=known) as http:
        return await http.copy(request, ([] if markers is None else markers).append)


async def copy_error(handler: Handler, **more: Any) -> TransferError:
    async with serving(handler) as server:
        with pytest.raises(TransferError) as caught:
            await copy(server, **more)
    return caught.value


def body(*chunks: bytes, **more: Any) -> Handler:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.chunked(*chunks, **more)
        await peer.reader.read()

    return handler


def status(line: str, text: bytes = b"", *headers: str) -> Handler:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(line, text, *headers)

    return handler


# ---- COPY


@pytest.mark.parametrize("line", ["200 OK", "201 Created", "202 Accepted"])
async def test_success_with_junk_after_it(line):
    markers: list = []
    async with serving(body(MARKER + b"success: Created\nfailure: no\n\x00", status=line)) as server:
        end = await copy(server, markers=markers, source_credential=TOKEN, client_info="job-id=1\nX: y", scitag=65)
    assert (end.message, end.bytes_done, end.n_markers, len(markers)) == ("success: Created", 5, 1, 1)
    head = server.heads[0]
    assert head.startswith("COPY /d/f HTTP/1.1\r\n")
    for header in (
        "Source: http://other.invalid/f",
        "TransferHeaderAuthorization: Bearer CANARY",
        "Overwrite: F",
        "Credential: none",
        "SciTag: 65",
        "ClientInfo: job-id=1 X: y",
        "Accept-Encoding: identity",
    ):
        assert f"{header}\r\n" in head
    assert "\r\nAuthorization:" not in head


@pytest.mark.parametrize(
    ("handler", "error", "unsettled"),
    [
        (body(b"x" * 1_000_000), BadServer, True),
        (body(MARKER), OutcomeUnknown, True),
        (body(), OutcomeUnknown, True),
        (body(MARKER + b"failure: disk on fire"), CopyFailed, False),
        (body(b"\x1f\x8b\x08\x00garbage", status="201 Created\r\nContent-Encoding: gzip"), OutcomeUnknown, True),
        (status("204 No Content"), OutcomeUnknown, True),
        (status("503 Busy", b"", "Retry-After: 5000"), Overloaded, False),
        (status("412 No", b"file exists"), AlreadyExists, False),
        (status("409 No"), ParentMissing, False),
        (status("400 No", b"Unable to create /x; no such file or directory"), ParentMissing, False),
        (status("403 No", b"failure: permission denied"), Denied, False),
        (status("303 Other", b"", "Location: /x"), BadServer, False),
        (status("307 Again", b"", "Location: /d/f"), BadServer, False),
        (status("307 Again", b"", "Location: ftp://x/"), BadServer, False),
    ],
)
async def test_copies_that_do_not_succeed(handler, error, unsettled):
    found = await copy_error(handler)
    assert (type(found), found.unsettled) == (error, unsettled)
    if error is Overloaded:
        assert found.retry_after_s == 900.0


async def test_success_in_a_body_that_breaks_off_is_not_success():
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.chunked(MARKER + b"success: Created\n", end=False)
        peer.writer.close()

    assert type(await copy_error(handler)) is OutcomeUnknown


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"])
async def test_a_reset_after_the_request_is_an_unknown_outcome(before):
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(before)
        peer.reset()

    async with serving(handler) as server:
        with pytest.raises(OutcomeUnknown) as caught:
            await copy(server)
    assert caught.value.unsettled
    assert len(server.heads) == 1, "a COPY is never repeated"


async def test_nobody_there_is_settled():
    async with serving(status("200 OK")) as server:
        pass
    with pytest.raises(Unavailable) as caught:
        await copy(server)
    assert not caught.value.unsettled
    assert caught.value.scope == "DESTINATION"


async def test_headers_that_trickle_in():
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 201 Created\r\nX: ")
        await peer.reader.read()

    found = await copy_error(handler, timeouts=SOON)
    assert (type(found), found.unsettled) == (TimedOut, True)


async def test_markers_without_progress_and_progress_without_markers():
    async def pulse(peer: Peer) -> None:
        await peer.request()
        await peer.chunked(end=False)
        loop = asyncio.get_running_loop()
        while not peer.writer.is_closing():
            await peer.send(f"{len(MARKER):x}\r\n".encode() + MARKER + b"\r\n")
            await _until(loop.time() + 0.02)

    found = await copy_error(pulse, timeouts=Timeouts(stall_s=0.2))
    assert (type(found), found.unsettled) == (Stalled, True)
    assert "bytes moved" in found.message
    found = await copy_error(pulse, timeouts=Timeouts(total_s=0.2))
    assert type(found) is TimedOut
    impatient = Timeouts(first_response_s=2, silence_s=0.1)
    found = await copy_error(body(MARKER, end=False), timeouts=impatient)
    assert (type(found), "marker" in found.message) == (Stalled, True)


async def _until(at_s: float) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_at(at_s, future.set_result, None)
    await future


async def test_cancelling_closes_the_connection():
    closed = asyncio.Event()
    began = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.chunked(MARKER, end=False)
        began.set()
        await peer.reader.read()
        closed.set()

    async with serving(handler) as server, asyncio.timeout(5):
        task = asyncio.ensure_future(copy(server, timeouts=Timeouts()))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closed.wait()


async def test_absurd_counts_are_clamped_to_the_size():
    markers: list = []
    async with serving(body(MARKER.replace(b"5", b"9" * 30) + b"success")) as server:
        end = await copy(server, markers=markers, size_bytes=10)
    assert end.bytes_done == markers[0].bytes_done == 10


@pytest.mark.parametrize("line", ["400 Bad", "404 No", "405 No", "501 No", "502 Bad", "201 Created", "204 No Content"])
async def test_servers_without_third_party_copy(line):
    handler = status(line, b"" if line.startswith("204") else b"<h1>Created</h1>", "Server: nginx/1")
    async with serving(handler) as server, adapter() as http:
        request = CopyRequest(source_url="http://o.invalid/f", destination_url=f"{server.url}/f", mode=Mode.PULL)
        for _ in range(2):
            with pytest.raises(Unsupported):
                await http.copy(request, print)
        assert http.capabilities(server.url) == Capabilities(pull=False, push=False)
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    "name", ["nginx/1.22", "Apache/2.4", "lighttpd/1", "Caddy", "rclone/1", "WsgiDAV/4", "Mystery"]
)
async def test_a_push_is_never_sent_to_a_server_that_would_copy_locally(name):
    async with serving(status("201 Created", b"", f"Server: {name}")) as server, adapter() as http:
        request = CopyRequest(source_url=f"{server.url}/f", destination_url=f"{server.url}/g", mode=Mode.PUSH)
        with pytest.raises(Unsupported):
            await http.copy(request, print)
    assert [head.split()[0] for head in server.heads] == ["OPTIONS"]


# ---- redirects and secrets


async def test_secrets_follow_to_another_port_but_not_to_another_host():
    async def final(peer: Peer) -> None:
        await peer.request()
        await peer.chunked(b"success")

    async with serving(final) as target:
        for host, shown in (("127.0.0.1", True), ("localhost", False)):
            location = target.url.replace("127.0.0.1", host) + "/x"
            async with serving(status("307 Go", b"", f"Location: {location}")) as server:
                await copy(server, source_credential=TOKEN, destination_credential=TOKEN)
            head = target.heads.pop()
            assert head.startswith("COPY /x ")
            assert ("\r\nAuthorization: Bearer CANARY" in head) is shown
            assert ("TransferHeaderAuthorization" in head) is shown
            assert "Source: http://other.invalid/f" in head


async def test_hosts_on_the_list_may_see_secrets():
    async with serving(status("200 OK", b"", "Digest: adler32=1")) as target:
        location = target.url.replace("127.0.0.1", "localhost")
        handler = status("302 Go", b"", f"Location: {location}/x")
        async with serving(handler) as server, adapter(credential_hosts=["localhost"]) as http:
            await http.stat(f"{server.url}/f", credential=TOKEN, digest="adler32")
    assert "Authorization: Bearer CANARY" in target.heads[0]


async def test_endless_redirects():
    async def handler(peer: Peer) -> None:
        number = 0
        while True:
            await peer.request()
            number += 1
            await peer.answer("307 Go", b"", f"Location: /{len(peer.heads)}")

    async with serving(handler) as server:
        with pytest.raises(BadServer, match="5 redirects"):
            await copy(server)
    assert len(server.heads) == 6


async def test_no_secret_in_any_error():
    text = b"failure: https://h/x?authz=Bearer%20CANARY denied for Bearer CANARY"
    for line in ("400 Bad", "401 No", "500 Oops"):
        found = await copy_error(status(line, text), source_credential=TOKEN, destination_credential=TOKEN)
        assert "CANARY" not in f"{found!r}{found.__dict__}"


# ---- metadata


async def stat(handler: Handler, **more: Any):
    async with serving(handler) as server, adapter() as http:
        try:
            return await http.stat(f"{server.url}/f", timeouts=PATIENT, **more), server.heads
        except TransferError as failure:
            return failure, server.heads


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (status("404 No"), Missing),
        (status("410 Gone"), Missing),
        (status("401 No"), Denied),
        (status("503 Busy"), Overloaded),
    ],
)
async def test_a_plain_refusal_costs_one_request(handler, error):
    found, heads = await stat(handler, digest="adler32")
    assert (type(found), len(heads)) == (error, 1)


async def test_a_digest_proves_a_file_in_one_request():
    found, heads = await stat(status("200 OK", b"", "Digest: adler32=12"), digest="ADLER32")
    assert found.checksums["adler32"].value == "00000012"
    assert len(heads) == 1
    assert "Want-Digest: adler32" in heads[0]


async def test_without_a_digest_propfind_decides_and_is_remembered_when_missing():
    async def handler(peer: Peer) -> None:
        while True:
            head = await peer.request()
            await peer.answer("405 No" if head.startswith("PROPFIND") else "200 OK")

    async with serving(handler) as server, adapter() as http:
        for _ in range(3):
            assert not (await http.stat(f"{server.url}/f")).is_directory
    assert [head.split()[0] for head in server.heads] == ["HEAD", "PROPFIND", "HEAD", "HEAD"]


@pytest.mark.parametrize(
    "reply",
    [
        b'<!DOCTYPE x [<!ENTITY a "b">]><D:multistatus xmlns:D="DAV:"/>',
        b"not xml",
        b'<D:multistatus xmlns:D="DAV:"/>',
        b"<x>" * 1_000_000,
    ],
)
async def test_a_listing_that_may_not_be_read(reply):
    async with serving(status("207 Multi", reply)) as server, adapter() as http:
        if b"multistatus xmlns" in reply and b"DOCTYPE" not in reply:
            assert await http.list_directory(f"{server.url}/d") == []
            return
        with pytest.raises(BadServer):
            await http.list_directory(f"{server.url}/d")


async def test_an_idle_connection_that_was_closed_is_not_an_error():
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.answer("201 Created")
        await peer.request()
        peer.heads.append("dropped")

    async with serving(once) as server, adapter() as http:
        await http.make_parents(f"{server.url}/a/f")
        await http.make_parents(f"{server.url}/b/f")
    assert [head.split()[1] for head in server.heads if head != "dropped"] == ["/a/", "/b/", "/b/"]


async def test_answers_that_are_no_http():
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"SSH-2.0-OpenSSH_9\r\n")

    assert isinstance((await stat(handler))[0], BadServer)
    found, _ = await stat(status("200 OK", b"", "X: " + "y" * 40_000))
    assert isinstance(found, BadServer)


async def test_a_thousand_files_in_one_directory_cost_one_request():
    async with serving(status("201 Created")) as server, adapter() as http, asyncio.TaskGroup() as group:
        for number in range(1000):
            group.create_task(http.make_parents(f"{server.url}/a/b/{number}"))
    assert len(server.heads) == 1


async def test_parents_are_made_from_the_top():
    made: set[str] = {"/"}

    async def handler(peer: Peer) -> None:
        while True:
            path = (await peer.request()).split()[1]
            above = path.rstrip("/").rpartition("/")[0] + "/"
            if above in made:
                made.add(path)
            await peer.answer("201 Created" if path in made else "409 Conflict")

    async with serving(handler) as server, adapter() as http:
        await http.make_parents(f"{server.url}/a/b/c/f")
    assert made == {"/", "/a/", "/a/b/", "/a/b/c/"}
    assert len(server.heads) == 5


async def test_urls_with_a_directory_are_not_deleted():
    async with serving(status("204 Gone")) as server, adapter() as http:
        with pytest.raises(Refused):
            await http.delete(f"{server.url}/d/")
    assert server.heads == []


# ---- contents


async def test_a_body_that_is_cut_short():
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")

    async with serving(handler) as server, adapter() as http, http.read(f"{server.url}/f") as stream:
        assert stream.size_bytes == 100
        with pytest.raises(CopyFailed):
            assert [block async for block in stream] == [b"abc"]


async def test_a_body_that_stops():
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await peer.reader.read()

    async with serving(handler) as server, adapter() as http, http.read(f"{server.url}/f", timeouts=SOON) as stream:
        with pytest.raises(Stalled):
            assert [block async for block in stream] == []


async def blocks(n_bytes: int) -> AsyncIterator[bytes]:
    for start in range(0, n_bytes, 1 << 16):
        yield bytes(min(1 << 16, n_bytes - start))


async def test_an_upload_is_redirected_and_sent_again_from_its_start():
    received: list[int] = []

    async def final(peer: Peer) -> None:
        await peer.request()
        received.append(len(await peer.reader.readexactly(1_000_000)))
        await peer.answer("201 Created")

    async def head_node(peer: Peer) -> None:
        await peer.request()
        await peer.answer("307 Go", b"", f"Location: {target.url}/x")

    async with serving(final) as target, serving(head_node) as server, adapter() as http:
        await http.write(f"{server.url}/f", blocks(1_000_000), size_bytes=1_000_000, overwrite=True)
    assert received == [1_000_000]
    assert "Content-Length: 1000000" in target.heads[0]


async def test_the_error_of_the_blocks_passes_through():
    failure = OSError(5, "source")

    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise failure

    async with serving(status("201 Created")) as server, adapter() as http:
        with pytest.raises(OSError) as caught:
            await http.write(f"{server.url}/f", failing(), size_bytes=10, overwrite=True)
    assert caught.value is failure
