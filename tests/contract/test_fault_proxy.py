"""The fault proxy does what it says, in front of a real XRootD: a fake must be right before it proves anything."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

import aiohttp
import pytest

from tests.storages.faults import (
    Answer,
    Busy,
    Corrupt,
    Cut,
    Delay,
    FaultProxy,
    Hang,
    Loop,
    LoseAnswer,
    Reset,
    Stall,
)

pytestmark = [pytest.mark.real, pytest.mark.asyncio]

DATA = bytes(range(256)) * 1200


async def ask(
    method: str, url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes, Mapping[str, str]]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.request(method, url, data=data, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


async def test_without_rules_it_only_relays(storages):
    storage = storages["xrootd-a"]
    storage.put("relay.bin", DATA)
    async with FaultProxy(storage.url) as proxy:
        status, body, headers = await ask("GET", f"{proxy.url}/relay.bin", headers={"Want-Digest": "adler32"})
        assert (status, body) == (200, DATA)
        assert headers["Digest"] == f"adler32={zlib.adler32(DATA):08x}"
        status, _, _ = await ask("PUT", f"{proxy.url}/up.bin", data=DATA)
        assert status in {200, 201}
        assert [seen.method for seen in proxy.seen] == ["GET", "PUT"]
    assert storage.read("up.bin") == DATA


async def test_a_copy_through_it_succeeds(storages):
    source, destination = storages["xrootd-a"], storages["xrootd-b"]
    source.put("tpc.bin", DATA)
    async with FaultProxy(source.url) as front, FaultProxy(destination.url) as active:
        status, body, _ = await ask("COPY", f"{active.url}/tpc.bin", headers={"Source": f"{front.url}/tpc.bin"})
        assert status == 201
        assert body.splitlines()[-1].startswith(b"success")
        assert front.count("GET") >= 1
    assert destination.read("tpc.bin") == DATA


async def test_a_body_is_cut_and_corrupted_where_told(storages):
    storage = storages["xrootd-a"]
    storage.put("body.bin", DATA)
    async with FaultProxy(storage.url) as proxy:
        proxy.add(Cut(after_bytes=1000), methods={"GET"}, times=1)
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask("GET", f"{proxy.url}/body.bin")
        proxy.add(Corrupt(offset=70_000), methods={"GET"}, times=1)
        _, body, _ = await ask("GET", f"{proxy.url}/body.bin")
        assert [i for i, (a, b) in enumerate(zip(body, DATA, strict=True)) if a != b] == [70_000]
        _, body, _ = await ask("GET", f"{proxy.url}/body.bin")
        assert body == DATA
        proxy.add(Corrupt(offset=5), methods={"PUT"}, times=1)
        await ask("PUT", f"{proxy.url}/corrupt-up.bin", data=DATA)
    assert [i for i, (a, b) in enumerate(zip(storage.read("corrupt-up.bin"), DATA, strict=True)) if a != b] == [5]


@pytest.mark.parametrize("fault", [Stall(after_bytes=1000), Hang()])
async def test_a_stalled_body_and_a_hang_keep_the_connection(storages, fault):
    storage = storages["xrootd-a"]
    storage.put("stall.bin", DATA)
    async with FaultProxy(storage.url) as proxy:
        proxy.add(fault)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask("GET", f"{proxy.url}/stall.bin")


async def test_answers_of_its_own(storages):
    storage = storages["xrootd-a"]
    async with FaultProxy(storage.url) as proxy:
        proxy.add(Busy(7), methods={"COPY"})
        proxy.add(Loop(), methods={"GET"})
        proxy.add(Answer(507, "Insufficient Storage"), methods={"PUT"})
        proxy.add(Reset(), methods={"DELETE"})
        status, _, headers = await ask("COPY", f"{proxy.url}/x", headers={"Source": f"{storage.url}/x"})
        assert (status, headers["Retry-After"]) == (503, "7")
        status, _, headers = await ask("GET", f"{proxy.url}/x")
        assert (status, headers["Location"]) == (307, f"{proxy.url}/x")
        assert (await ask("PUT", f"{proxy.url}/never", data=DATA))[0] == 507
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask("DELETE", f"{proxy.url}/x")
    assert "never" not in storage.names()


@pytest.mark.parametrize("keep_head", [False, True])
async def test_a_lost_answer_leaves_the_copy_done(storages, keep_head):
    source, destination = storages["xrootd-a"], storages["xrootd-b"]
    name = f"lost-{keep_head}.bin"
    source.put(name, DATA)
    async with FaultProxy(destination.url) as proxy:
        proxy.add(LoseAnswer(keep_head=keep_head), methods={"COPY"}, times=1)
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
            await ask("COPY", f"{proxy.url}/{name}", headers={"Source": f"{source.url}/{name}"})
    assert destination.read(name) == DATA


async def test_chance_comes_from_the_seed(storages):
    storage = storages["xrootd-a"]
    storage.put("chance.bin", b"x")

    async def run(seed: int) -> list[int]:
        async with FaultProxy(storage.url, seed=seed) as proxy:
            proxy.add(Busy(), chance=0.5)
            return [(await ask("GET", f"{proxy.url}/chance.bin"))[0] for _ in range(12)]

    first = await run(1)
    assert set(first) == {200, 503}
    assert await run(1) == first


async def test_a_delay_passes_the_request_on(storages):
    storage = storages["xrootd-a"]
    storage.put("delay.bin", b"late")
    async with FaultProxy(storage.url) as proxy:
        proxy.add(Delay(0.05))
        began = asyncio.get_running_loop().time()
        assert (await ask("GET", f"{proxy.url}/delay.bin"))[1] == b"late"
        assert asyncio.get_running_loop().time() - began >= 0.05


async def test_a_stalled_copy_goes_on_when_released(storages):
    source, destination = storages["xrootd-a"], storages["xrootd-b"]
    source.put("release.bin", DATA)
    async with FaultProxy(source.url) as proxy:
        proxy.add(Stall(after_bytes=1000), methods={"GET"}, times=1)
        async with asyncio.TaskGroup() as group:
            copy = group.create_task(
                ask("COPY", f"{destination.url}/release.bin", headers={"Source": f"{proxy.url}/release.bin"})
            )
            await proxy.stalled()
            assert not copy.done()
            proxy.release()
    assert copy.result()[1].splitlines()[-1].startswith(b"success")
    assert destination.read("release.bin") == DATA
