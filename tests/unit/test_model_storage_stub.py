"""The benchmark's stub answers as a storage would, in order, however the bytes arrive."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
import pytest_asyncio

from benchmarks.stub import NUMBER_MAX, Connection, Stub, bind, file_name, parse_name, parse_times


@pytest_asyncio.fixture
async def started() -> AsyncIterator[Callable]:
    servers = []

    async def start(**options) -> tuple[Stub, str, int]:
        loop = asyncio.get_running_loop()
        stub = Stub(**options)
        (listening,) = bind(1, 0)
        server = await loop.create_server(lambda: Connection(stub, loop), sock=listening)
        servers.append(server)
        return stub, *listening.getsockname()

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.mark.asyncio
async def test_a_transfer_as_an_engine_does_it(started):
    stub, host, port = await started()
    base, name = f"http://{host}:{port}", file_name(7, 1234)
    began = time.monotonic()
    async with aiohttp.ClientSession() as client:
        async with client.head(f"{base}/src/{name}", headers={"Want-Digest": "adler32"}) as response:
            assert (response.status, response.content_length) == (200, 1234)
            assert response.headers["Digest"] == f"adler32={name.split('-')[2]}"
        async with client.head(f"{base}/dst/d/{name}") as response:
            assert response.status == 404
        async with client.request("MKCOL", f"{base}/dst/d/") as response:
            assert response.status == 201
        async with client.request("COPY", f"{base}/dst/d/{name}", headers={"Source": f"{base}/src/{name}"}) as response:
            assert response.status == 201
            body = await response.text()
            assert body.startswith("Perf Marker\n")
            assert body.endswith("End\nsuccess: Created")
        async with client.head(f"{base}/dst/d/{name}") as response:
            assert (response.status, response.content_length) == (200, 1234)
        async with client.request("PROPFIND", f"{base}/dst/d/{name}", data=b"<x/>") as response:
            assert response.status == 207
            assert "<D:getcontentlength>1234<" in await response.text()
        for status in (200, 404):
            async with client.delete(f"{base}/dst/d/{name}") as response:
                assert response.status == status
        async with client.get(f"{base}/.times") as response:
            times = parse_times(await response.read())
            assert list(times) == [7]
            assert began <= times[7] <= time.monotonic()
        async with client.get(f"{base}/.times") as response:
            assert await response.read() == b""
        async with client.get(f"{base}/.usage") as response:
            usage = json.loads(await response.read())
            assert usage["cpu_s"] > 0
            assert (usage["n_copies"], usage["n_held"]) == (1, 0)
    assert stub.n_requests == usage["n_requests"]


def requests() -> bytes:
    name = file_name(3).encode()
    return b"".join(
        (
            b"HEAD /dst/%b HTTP/1.1\r\nHost: x\r\n\r\n" % name,
            b"PROPFIND /dst/%b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nHEAD / \r\n" % name,
            b"COPY /dst/%b HTTP/1.1\r\nHost: x\r\n\r\n" % name,
            b"HEAD /dst/%b HTTP/1.1\r\nHost: x\r\n\r\n" % name,
            b"OPTIONS / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [{}, {"latency_s": 0.002}, {"hold_s": 0.004, "marker_period_s": 0.002}])
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_pipelined_requests_in_any_pieces(started, options, step):
    stub, host, port = await started(**options)
    reader, writer = await asyncio.open_connection(host, port)
    data = requests()
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
        await asyncio.sleep(0)
    answer = await reader.read()
    writer.close()
    statuses = [line.split(b" ")[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1")]
    assert statuses == [b"404", b"404", b"201", b"200", b"200"]
    assert (stub.n_requests, stub.n_held) == (5, 0)


@pytest.mark.asyncio
async def test_a_held_copy_that_loses_its_client_is_not_done(started):
    stub, host, port = await started(hold_s=60, marker_period_s=0.002)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"COPY /dst/%b HTTP/1.1\r\n\r\n" % file_name(5).encode())
    for _ in range(3):
        await reader.readuntil(b"End\n")
    assert (stub.n_held, stub.is_done(5)) == (1, False)
    writer.close()
    await writer.wait_closed()
    while stub.n_connections:  # noqa: ASYNC110 - the stub has no event to wait for
        await asyncio.sleep(0)
    assert (stub.n_held, stub.is_done(5)) == (0, False)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "head", [b"PUT /dst/x HTTP/1.1\r\nTransfer-Encoding: chunked", b"X / HTTP/1.1\r\nContent-Length: x"]
)
async def test_bodies_that_are_not_understood_end_the_connection(started, head):
    _, host, port = await started()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(head + b"\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


def test_one_port_on_many_addresses():
    sockets = bind(13, 0)
    names = [one.getsockname() for one in sockets]
    for one in sockets:
        one.close()
    assert [host for host, _ in names] == [f"127.0.0.{n}" for n in range(1, 14)]
    assert len({port for _, port in names}) == 1


def test_names():
    assert parse_name(b"/src/a/" + file_name(12, 34).encode()) == (12, b"34", file_name(12).split("-")[2].encode())
    assert parse_name(b"/dst/dir/") is None
    assert parse_name(b"/dst/a-b-c") is None
    assert parse_name(b"/dst/%d-1-0" % (NUMBER_MAX + 1)) is None


def test_what_is_done_costs_a_bit():
    stub = Stub()
    stub.set_done(1_000_001)
    assert stub.is_done(1_000_001)
    assert not stub.is_done(1_000_000)
    assert len(stub.done) < 1_000_001 // 8 + 8192
    assert stub.clear_done(1_000_001)
    assert not stub.clear_done(1_000_001)
