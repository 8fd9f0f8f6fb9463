"""What model storages do wrong is exactly what was asked for, and the journal tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from transfer_engine.demo.faults import Fault, FaultPlan, Faults, Rule
from transfer_engine.demo.journal import Event
from transfer_engine.demo.kinds import BEHAVIOURS, Kind
from transfer_engine.demo.storage import ModelStorage

SIZE = 40_000


@pytest_asyncio.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture
async def source() -> AsyncIterator[ModelStorage]:
    async with ModelStorage(name="source", seed=1) as storage:
        storage.add_file("/f", SIZE, 5)
        yield storage


def broken(fault: Fault, kind: str = "xrootd", **more) -> ModelStorage:
    faults = Faults(rules=(Rule(fault=fault),), zombie_s=0.02, **more)
    return ModelStorage(name="b", kind=kind, marker_period_s=0.01, faults=faults)


async def pull(client, source, b) -> tuple[int, str]:
    async with client.request("COPY", b.url + "/f", headers={"Source": source.url + "/f"}) as response:
        return response.status, (await response.read()).decode()


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110 - the storage has no event to wait for
        await asyncio.sleep(0)


@pytest.mark.asyncio
@pytest.mark.parametrize(("fault", "status"), [(Fault.UNAVAILABLE, 503), (Fault.REFUSE, 403)])
async def test_refusals(client, source, fault, status):
    async with broken(fault, retry_after_s=3) as b:
        async with client.request("COPY", b.url + "/f", headers={"Source": source.url + "/f"}) as response:
            assert response.status == status
            assert response.headers.get("Retry-After") == ("3" if status == 503 else None)
        assert b.files() == {}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", list(Kind))
async def test_a_failure_line_leaves_what_the_family_leaves(client, source, kind):
    async with broken(Fault.FAILURE_LINE, kind) as b:
        status, body = await pull(client, source, b)
        assert status in {201, 202}
        assert body.rstrip().splitlines()[-1].startswith("failure: ")
        if BEHAVIOURS[kind].keeps_partial:
            assert b.files()["/f"][0] == SIZE // 2
            assert b.partial_files() == ["/f"]
            assert b.journal.entries[-1].event is Event.PARTIAL
        else:
            assert b.files() == {}
            assert b.journal.entries[-1].event is Event.DISCARDED


@pytest.mark.asyncio
@pytest.mark.parametrize(("fault", "size"), [(Fault.CUT_DONE, SIZE), (Fault.CUT_PARTIAL, SIZE // 2)])
async def test_the_connection_is_cut(client, source, fault, size):
    async with broken(fault) as b:
        with pytest.raises(aiohttp.ClientPayloadError):
            await pull(client, source, b)
        assert b.files()["/f"][0] == size
        assert (b.files() == source.files()) is (fault is Fault.CUT_DONE)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", list(Kind))
async def test_a_zombie_finishes_after_its_connection(client, source, kind):
    async with broken(Fault.CUT_ZOMBIE, kind) as b:
        with pytest.raises(aiohttp.ClientPayloadError):
            await pull(client, source, b)
        assert b.files()["/f"][0] == SIZE // 2
        assert b.n_copies == 1
        await until(lambda: not b.n_copies)
        assert b.files() == source.files()
        assert b.journal.entries[-1].event is Event.CREATED


@pytest.mark.asyncio
async def test_what_is_deleted_under_a_zombie_does_not_come_back(client, source):
    async with broken(Fault.CUT_ZOMBIE) as b:
        with pytest.raises(aiohttp.ClientPayloadError):
            await pull(client, source, b)
        async with client.delete(b.url + "/f") as response:
            assert response.status == 200
        await until(lambda: not b.n_copies)
        assert b.files() == {}
        assert [entry.event for entry in b.journal.entries] == [Event.DELETED, Event.DISCARDED]
        assert "was writing" in b.journal.entries[0].note


@pytest.mark.asyncio
@pytest.mark.parametrize(("fault", "size"), [(Fault.CORRUPT, SIZE), (Fault.SHORT, SIZE * 9 // 10)])
async def test_lies(client, source, fault, size):
    async with broken(fault) as b:
        assert "success: Created" in (await pull(client, source, b))[1]
        got = b.files()["/f"]
        assert got[0] == size
        assert got != source.files()["/f"]
        truth = source.read_file("/f")
        assert sum(x != y for x, y in zip(b.read_file("/f"), truth, strict=False)) == (fault is Fault.CORRUPT)


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", [Fault.CORRUPT, Fault.SHORT])
async def test_lies_of_a_pusher(client, source, fault):
    source.faults = Faults(rules=(Rule(fault=fault),))
    async with ModelStorage(name="b") as b:
        async with client.request("COPY", source.url + "/f", headers={"Destination": b.url + "/f"}) as response:
            assert "success: Created" in await response.text()
        assert b.files() != source.files()
        assert b.partial_files() == []


@pytest.mark.asyncio
async def test_a_pusher_that_fails_leaves_a_partial_file(client, source):
    source.faults = Faults(rules=(Rule(fault=Fault.FAILURE_LINE),))
    async with ModelStorage(name="b") as b:
        async with client.request("COPY", source.url + "/f", headers={"Destination": b.url + "/f"}) as response:
            assert "failure: " in await response.text()
        await until(lambda: b.journal.entries)
        assert b.journal.entries[-1].event is Event.PARTIAL


@pytest.mark.asyncio
async def test_a_source_that_dies_makes_the_copy_fail(client, source):
    source.faults = Faults(rules=(Rule(fault=Fault.CUT_PARTIAL, method="GET"),))
    async with ModelStorage(name="b") as b:
        assert "failure: Transferred a partial file" in (await pull(client, source, b))[1]
        assert b.partial_files() == ["/f"]


@pytest.mark.asyncio
async def test_a_source_that_stalls_makes_the_copy_fail(client, source):
    source.faults = Faults(rules=(Rule(fault=Fault.STALL, method="GET"),))
    async with ModelStorage(name="b", silence_s=0.02) as b:
        assert "failure: Transfer failed because no bytes" in (await pull(client, source, b))[1]
        assert b.files()["/f"][0] == SIZE // 2


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", [Fault.STALL, Fault.SILENT])
async def test_a_stalled_copy_ends_with_its_client(client, source, fault):
    async with broken(fault) as b:
        async with client.request("COPY", b.url + "/f", headers={"Source": source.url + "/f"}) as response:
            await response.content.readuntil(b"End\n")
            await until(lambda: b.files()["/f"][0] == SIZE // 2)
            if fault is Fault.STALL:
                await response.content.readuntil(f"Transferred: {SIZE // 2}\n".encode())
            response.close()
        await until(lambda: not b.n_copies)
        assert b.partial_files() == ["/f"]


@pytest.mark.asyncio
async def test_storm_goes_on_without_its_client(client):
    async with (
        ModelStorage(name="slow", bandwidth_bytes_s=1_000_000) as slow,
        ModelStorage(name="b", kind="storm", marker_period_s=0.005) as b,
    ):
        slow.add_file("/f", SIZE)
        async with client.request("COPY", b.url + "/f", headers={"Source": slow.url + "/f"}) as response:
            await response.content.readuntil(b"End\n")
            response.close()
        await until(lambda: b.journal.entries)
        assert b.files() == slow.files()


@pytest.mark.asyncio
async def test_slow(client, source):
    async with broken(Fault.SLOW, slow_bytes_s=1_000_000) as b:
        began = asyncio.get_running_loop().time()
        assert "success" in (await pull(client, source, b))[1]
        assert asyncio.get_running_loop().time() - began >= SIZE / 1_000_000 * 0.9


@pytest.mark.asyncio
async def test_missing_digest(client, source):
    source.faults = Faults(head_rates={Fault.NO_DIGEST: 1.0})
    async with client.head(source.url + "/f", headers={"Want-Digest": "adler32"}) as response:
        assert response.status == 200
        assert "Digest" not in response.headers


@pytest.mark.asyncio
async def test_an_upload_that_ends_early_is_partial():
    async with ModelStorage(name="b") as b:
        host, port = b.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PUT /f HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        await writer.drain()
        await until(lambda: b.files().get("/f", (0,))[0] == 5)
        writer.close()
        await until(lambda: b.journal.entries)
        assert b.partial_files() == ["/f"]
        assert b.journal.entries[-1].event is Event.PARTIAL


def test_rules_count_requests():
    plan = FaultPlan(
        Faults(
            rules=(
                Rule(fault=Fault.REFUSE, path="/a/*", nth=2),
                Rule(fault=Fault.STALL, path="/b", times=1),
                Rule(fault=Fault.UNAVAILABLE, method="HEAD"),
            )
        ),
        seed="s",
    )
    asked = ["/a/1", "/a/2", "/a/3", "/b", "/b"]
    assert [plan.decide("COPY", path) for path in asked] == [None, Fault.REFUSE, None, Fault.STALL, None]
    assert plan.decide("HEAD", "/x") is Fault.UNAVAILABLE


def test_chance_does_not_depend_on_the_order():
    faults = Faults(rates={Fault.CORRUPT: 0.3, Fault.STALL: 0.2}, attempts_max=2)
    paths = [f"/f{n}" for n in range(400)]
    one, two = FaultPlan(faults, seed="s"), FaultPlan(faults, seed="s")
    first = {path: one.decide("COPY", path) for path in paths}
    assert {path: two.decide("COPY", path) for path in reversed(paths)} == first
    n_corrupt = list(first.values()).count(Fault.CORRUPT)
    assert 80 < n_corrupt < 160
    for path in paths:
        one.decide("COPY", path)
        assert one.decide("COPY", path) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Rule(fault=Fault.STALL, method="HEAD"),
        lambda: Rule(fault=Fault.NO_DIGEST),
        lambda: Faults(rates={Fault.CORRUPT: 0.6, Fault.SHORT: 0.6}),
        lambda: Faults(head_rates={Fault.STALL: 0.1}),
    ],
)
def test_impossible_faults_are_rejected(wrong):
    with pytest.raises(ValueError):
        wrong()
