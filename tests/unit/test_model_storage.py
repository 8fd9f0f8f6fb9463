"""Model storages do what the protocol says, with real bytes: every claim is checked over a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from protocols.checksum import compute, parse_digest_header, parse_repr_digest_header
from transfer_engine.demo.content import BLOCK_BYTES, ArrivedContent, Budget, SeededContent
from transfer_engine.demo.journal import Event
from transfer_engine.demo.kinds import Kind
from transfer_engine.demo.storage import ModelStorage
from transfer_engine.demo.wire import byte_range

SIZE = 3 * BLOCK_BYTES + 17


@pytest_asyncio.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture(params=list(Kind))
async def pair(request) -> AsyncIterator[tuple[ModelStorage, ModelStorage]]:
    async with (
        ModelStorage(name="a", kind=request.param, seed=1, marker_period_s=0.02) as a,
        ModelStorage(name="b", kind=request.param, seed=2, marker_period_s=0.02, host="127.0.0.2") as b,
    ):
        yield a, b


@pytest_asyncio.fixture
async def storage() -> AsyncIterator[ModelStorage]:
    async with ModelStorage(name="one", expose_journal=True) as storage:
        yield storage


async def copy(client, active, path, **headers) -> tuple[int, str]:
    async with client.request("COPY", active.url + path, headers=headers) as response:
        return response.status, (await response.read()).decode()


@pytest.mark.asyncio
async def test_pull_moves_the_bytes(client, pair):
    a, b = pair
    checksum = a.add_file("/src/f", SIZE, 7)
    async with client.request("MKCOL", b.url + "/dst/"):
        pass
    status, body = await copy(client, b, "/dst/f", Source=a.url + "/src/f", ClientInfo="job-id=1")
    assert status in {201, 202}
    assert body.splitlines()[-1] == "success: Created"
    assert b.files() == {"/dst/f": (SIZE, checksum.value)}
    assert b.read_file("/dst/f") == a.read_file("/src/f")
    entry = b.journal.of("/dst/f")[-1]
    assert (entry.event, entry.size_bytes, entry.adler32) == (Event.CREATED, SIZE, checksum.value)
    assert entry.writer.endswith("job-id=1")
    assert b.partial_files() == []


@pytest.mark.asyncio
async def test_push_moves_the_bytes(client, pair):
    a, b = pair
    checksum = a.add_file("/f", SIZE, 7)
    status, body = await copy(client, a, "/f", Destination=b.url + "/f")
    assert status in {201, 202}
    assert body.rstrip().endswith("success: Created")
    assert b.files() == {"/f": (SIZE, checksum.value)}
    assert [entry.method for entry in b.journal.entries] == ["PUT"]


@pytest.mark.asyncio
async def test_an_empty_file_is_copied(client, pair):
    a, b = pair
    a.add_file("/empty", 0)
    _, body = await copy(client, b, "/empty", Source=a.url + "/empty")
    assert "success: Created" in body
    assert b.files() == {"/empty": (0, "00000001")}


@pytest.mark.asyncio
async def test_a_missing_source_fails(client, pair):
    a, b = pair
    status, body = await copy(client, b, "/f", Source=a.url + "/f")
    assert "failure:" in body
    assert "404" in body
    assert status in {404, 202}
    assert (await copy(client, a, "/f", Destination=b.url + "/f"))[0] == 404


@pytest.mark.asyncio
async def test_overwriting_can_be_refused(client, pair):
    a, b = pair
    a.add_file("/f", 100, 1)
    before = b.add_file("/f", 50, 2)
    status, _ = await copy(client, b, "/f", Source=a.url + "/f", Overwrite="F")
    assert status in {412, 500}
    assert b.files() == {"/f": (50, before.value)}
    await copy(client, b, "/f", Source=a.url + "/f", Overwrite="T")
    assert b.files() == a.files()
    assert [entry.event for entry in b.journal.entries] == [Event.OVERWRITTEN]


@pytest.mark.asyncio
async def test_parents(client, pair):
    a, b = pair
    a.add_file("/f", 10)
    status, body = await copy(client, b, "/x/y/f", Source=a.url + "/f")
    if "success" not in body:
        assert status in {400, 409}
        assert b.files() == {}
    async with ModelStorage(name="c", creates_parents=True) as c:
        _, body = await copy(client, c, "/x/y/f", Source=a.url + "/f")
        assert "success" in body
    async with ModelStorage(name="d", creates_parents=False, kind="storm") as d:
        assert (await copy(client, d, "/x/y/f", Source=a.url + "/f"))[0] == 409


@pytest.mark.asyncio
async def test_headers_reach_the_other_side(client, storage):
    seen = asyncio.get_running_loop().create_future()

    async def passive(reader, writer):
        seen.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(passive, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/f?x=%2B"
        headers = {"Source": url, "TransferHeaderAuthorization": "Bearer T"}
        assert (await copy(client, storage, "/f", **headers))[0] == 403
    text = (await seen).decode()
    assert text.startswith("HEAD /f?x=%2B ")
    assert "Authorization: Bearer T" in text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Source": "http://127.0.0.1:1/f", "Destination": "http://127.0.0.1:1/f"},
        {"Source": "http://192.0.2.1/f"},
        {"Source": "http://storage.invalid/f"},
        {"Source": "ftp://127.0.0.1:1/f"},
        {"Source": "http://127.0.0.1:99999/f"},
    ],
)
async def test_copies_it_will_not_begin(client, storage, headers):
    assert (await copy(client, storage, "/f", **headers))[0] == 400


@pytest.mark.asyncio
async def test_markers_report_progress(client):
    async with (
        ModelStorage(name="slow", bandwidth_bytes_s=600_000) as source,
        ModelStorage(name="b", marker_period_s=0.01) as b,
    ):
        source.add_file("/f", 64 * 1024)
        _, body = await copy(client, b, "/f", Source=source.url + "/f")
    lines = body.splitlines()
    done = [int(line.rpartition(" ")[2]) for line in lines if line.startswith("Stripe Bytes")]
    assert lines[0] == "Perf Marker"
    assert len(done) > 2
    assert done[0] == 0
    assert done == sorted(done)
    assert done[-1] > 0
    assert any(line.startswith("RemoteConnections: tcp:127.0.0.1:") for line in lines)


@pytest.mark.asyncio
async def test_plain_methods(client, storage):
    url = storage.url
    data = b"0123456789" * 1000
    async with client.put(url + "/d/f x", data=data) as response:
        assert response.status == 201
    async with client.put(url + "/d/f x", data=data) as response:
        assert response.status == 201
    assert [entry.event for entry in storage.journal.entries] == [Event.CREATED, Event.OVERWRITTEN]
    async with client.head(url + "/d/f x", headers={"Want-Digest": "md5"}) as response:
        assert response.content_length == len(data)
        assert parse_digest_header(response.headers["Digest"])["md5"] == compute("md5", data)
    async with client.head(url + "/d/f x", headers={"Want-Digest": "nonsense, crc32c;q=1"}) as response:
        assert parse_digest_header(response.headers["Digest"])["crc32c"] == compute("crc32c", data)
    async with client.head(url + "/d/f x", headers={"Want-Repr-Digest": "md5=1"}) as response:
        assert parse_repr_digest_header(response.headers["Repr-Digest"])["md5"] == compute("md5", data)
    async with client.get(url + "/d/f x") as response:
        assert await response.read() == data
    async with client.get(url + "/d/f x", headers={"Range": "bytes=5-14"}) as response:
        assert (response.status, await response.read()) == (206, b"5678901234")
        assert response.headers["Content-Range"] == "bytes 5-14/10000"
    async with client.get(url + "/d/f x", headers={"Range": "bytes=10000-"}) as response:
        assert response.status == 416
    async with client.request("PROPFIND", url + "/d", headers={"Depth": "1"}) as response:
        body = await response.text()
        assert response.status == 207
        assert "<D:href>/d/f x</D:href>" in body
        assert "<D:getcontentlength>10000</D:getcontentlength>" in body
        assert body.count("<D:collection/>") == 1
    async with client.request("MKCOL", url + "/e/g") as response:
        assert response.status == 201
    async with client.delete(url + "/d") as response:
        assert response.status == 409
    async with client.delete(url + "/d/f x") as response:
        assert response.status == 200
    async with client.delete(url + "/d/f x") as response:
        assert response.status == 404
    async with client.head(url + "/d/f x") as response:
        assert response.status == 404
    async with client.options(url + "/") as response:
        assert "COPY" in response.headers["Allow"]
    async with client.request("LOCK", url + "/") as response:
        assert response.status == 405


@pytest.mark.asyncio
async def test_the_journal_can_be_asked_for_and_is_written_through(client, tmp_path):
    path = tmp_path / "journal"
    async with ModelStorage(name="j", expose_journal=True, journal_file=path) as storage:
        async with client.put(storage.url + "/f", data=b"abc"):
            pass
        async with client.get(storage.url + "/.journal") as response:
            (entry,) = await response.json()
        async with client.get(storage.url + "/.files") as response:
            assert await response.json() == {"/f": [3, compute("adler32", b"abc").value]}
        assert json.loads(path.read_text()) == entry
        assert (entry["event"], entry["path"], entry["size_bytes"]) == ("created", "/f", 3)
    async with ModelStorage(name="closed") as storage, client.get(storage.url + "/.journal") as response:
        assert response.status == 404


@pytest.mark.asyncio
async def test_two_writers_of_one_path_are_a_violation(client):
    async with (
        ModelStorage(name="slow", bandwidth_bytes_s=400_000) as source,
        ModelStorage(name="b") as b,
    ):
        source.add_file("/f", 20_000)
        await asyncio.gather(*(copy(client, b, "/f", Source=source.url + "/f") for _ in range(2)))
        (violation,) = b.journal.violations()
        assert "concurrent writers" in violation.note
        assert b.files() == source.files()


@pytest.mark.asyncio
async def test_stopping_leaves_nothing(client):
    source = ModelStorage(name="slow", bandwidth_bytes_s=1000)
    b = ModelStorage(name="b", marker_period_s=0.01)
    await source.start()
    await b.start()
    source.add_file("/f", 100_000)
    before = asyncio.all_tasks()
    copying = asyncio.create_task(copy(client, b, "/f", Source=source.url + "/f"))
    while not b.n_copies:  # noqa: ASYNC110 - the storage has no event to wait for
        await asyncio.sleep(0)
    await b.stop()
    await source.stop()
    with pytest.raises(aiohttp.ClientError):
        await copying
    assert asyncio.all_tasks() <= before


@pytest.mark.asyncio
async def test_a_port_that_is_taken_leaves_nothing(storage):
    port = int(storage.url.rpartition(":")[2])
    other = ModelStorage(name="late")
    with pytest.raises(OSError, match="in use"):
        await other.start(port)
    with pytest.raises(RuntimeError, match="not started"):
        _ = other.url


@pytest.mark.asyncio
async def test_ipv6(client):
    async with ModelStorage(name="six", host="::1") as a, ModelStorage(name="b", marker_period_s=0.001) as b:
        checksum = a.add_file("/f", 5000)
        _, body = await copy(client, b, "/f", Source=a.url + "/f")
        assert "success" in body
        assert b.files() == {"/f": (5000, checksum.value)}


def test_only_loopback():
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(ValueError, match="loopback"):
            ModelStorage(name="x", host=host)
    assert ModelStorage(name="x", host="127.9.9.9").host == "127.9.9.9"


def test_seeded_bytes_do_not_depend_on_how_they_are_read():
    content = SeededContent(size_bytes=SIZE, seed=3)
    whole = content.read(0, SIZE)
    assert len(whole) == SIZE
    assert b"".join(content.read(at, 1000) for at in range(0, SIZE, 1000)) == whole
    assert content.read(BLOCK_BYTES - 5, 10) == whole[BLOCK_BYTES - 5 : BLOCK_BYTES + 5]
    assert content.read(SIZE, 10) == b""
    assert content.checksum("md5") == compute("md5", whole)
    assert len({whole[at : at + BLOCK_BYTES] for at in range(0, SIZE, BLOCK_BYTES)}) == 4
    assert SeededContent(size_bytes=SIZE, seed=4).read(0, 100) != whole[:100]


def test_what_does_not_fit_memory_goes_to_disk():
    budget = Budget(memory_max_bytes=10)
    first, second = ArrivedContent(budget=budget), ArrivedContent(budget=budget)
    first.append(b"12345678")
    second.append(b"abc")
    second.append(b"def")
    assert budget.used_bytes == 8
    assert (first.read(2, 3), second.read(2, 3)) == (b"345", b"cde")
    assert second.checksum("adler32") == compute("adler32", b"abcdef")
    spooled = budget.next_path().parent
    first.close()
    second.close()
    assert budget.used_bytes == 0
    budget.close()
    assert not spooled.exists()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=4-", (4, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=8-99", (8, 10)),
        ("bytes=10-", None),
        ("bytes=1-2,4-5", (0, 10)),
        ("lines=1-2", (0, 10)),
    ],
)
def test_ranges(header, expected):
    assert byte_range(header, 10) == expected
