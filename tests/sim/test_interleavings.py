"""Interleavings that once went wrong: two drivers, stale flags, waits in between."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from protocols.errors import CopyFailed, Unavailable, Unsupported
from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine import FileState, JobOptions, JobState, Settings, Transfer, urls
from transfer_engine.engine import Engine
from transfer_engine.testing import run


def _broken(storages, pattern="sim://b"):
    c = storages.add_rule(
        Rule(
            match=pattern,
            operations=frozenset({"copy"}),
            attempts=range(1, 2),
            error=lambda: CopyFailed("disk"),
            at_bytes=1000,
        )
    )
    d = storages.add_rule(Rule(match=pattern, operations=frozenset({"delete"}), error=lambda: Unavailable("down")))
    return c, d


def test_remains_of_two_cancellations_are_each_driven_once() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.storage("sim://b")
        _, d = _broken(storages)
        jobs = []
        for n in (1, 2):
            storages.storage("sim://a").add(f"/f{n}", size_bytes=1_000_000)
            jobs.append(
                await engine.submit(
                    Transfer.of(f"sim://a/f{n}", f"sim://b/f{n}"), options=JobOptions(retry_delay_s=900)
                )
            )
        await asyncio.sleep(100)
        storages.remove_rule(d)
        started = Counter()
        real = engine._dispatcher._start

        def spy(order, **more):
            started[order.file_id, order.epoch] += 1
            real(order, **more)

        engine._dispatcher._start = spy
        await asyncio.gather(*(engine.cancel(j) for j in jobs))
        await asyncio.sleep(300)
        assert set(started.values()) == {1}

    run(scenario)


def test_a_retry_leaves_the_file_of_a_later_transfer_alone() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        a = storages.storage("sim://a")
        b = storages.storage("sim://b")
        a.add("/one", size_bytes=1_000_000, seed=1)
        a.add("/two", size_bytes=2_000_000, seed=2)
        _, d = _broken(storages)
        one = await engine.submit(Transfer.of("sim://a/one", "sim://b/f"), options=JobOptions(retry_delay_s=900))
        await asyncio.sleep(100)
        storages.remove_rule(d)
        two = await engine.submit(Transfer.of("sim://a/two", "sim://b/f"), options=JobOptions(overwrite=True))
        assert (await engine.wait(two)).state is JobState.FINISHED
        assert b.files()["/f"].size_bytes == 2_000_000
        await engine.wait(one, 10000)
        assert b.files()["/f"].size_bytes == 2_000_000

    run(scenario)


def test_a_cancelled_retry_leaves_the_file_of_a_later_transfer_alone() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        a = storages.storage("sim://a")
        b = storages.storage("sim://b")
        a.add("/one", size_bytes=1_000_000, seed=1)
        a.add("/two", size_bytes=2_000_000, seed=2)
        _, d = _broken(storages)
        one = await engine.submit(Transfer.of("sim://a/one", "sim://b/f"), options=JobOptions(retry_delay_s=900))
        await asyncio.sleep(100)
        storages.remove_rule(d)
        two = await engine.submit(Transfer.of("sim://a/two", "sim://b/f"), options=JobOptions(overwrite=True))
        assert (await engine.wait(two)).state is JobState.FINISHED
        await engine.cancel(one)
        await asyncio.sleep(300)
        assert "/f" in b.files()

    run(scenario)


@pytest.mark.parametrize("how", ["source fails", "cancel"])
def test_a_stream_that_waits_for_its_slot_removes_nothing(how):
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        a = storages.storage("sim://a", pull=False, push=False)
        b = storages.storage("sim://b", pull=False, push=False)
        a.add("/long", size_bytes=100_000_000_000)
        a.add("/f", size_bytes=1000, seed=3)
        # recorder must not hold 100 GB: rate low instead
        a.add("/long", size_bytes=50_000_000)
        storages.add_rule(Rule(match="sim://*/long", rate_bytes_s=1e5))
        opts = JobOptions(modes=("stream",), retries_max=0)
        await engine.submit(Transfer.of("sim://a/long", "sim://b/long"), options=opts)
        await asyncio.sleep(1)
        job = await engine.submit(Transfer.of("sim://a/f", "sim://b/f"), options=opts)
        await asyncio.sleep(100)
        b.add("/f", size_bytes=77, seed=9)  # somebody else's file, minutes later
        if how == "cancel":
            await engine.cancel(job)
        else:
            storages.rule("sim://a/f", operations={"read"}, error=lambda: Unavailable("gone"))
        await asyncio.sleep(3000)
        assert "/f" in b.files()

    run(scenario, settings=Settings(limits={"streamed": 1}))


def test_a_blocked_priority_does_not_hold_back_the_next() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        a = storages.storage("sim://a")
        storages.storage("sim://b")
        for n in range(3):
            a.add(f"/f{n}", size_bytes=1_000_000_000_000 if n == 0 else 1000)
        await engine.submit(Transfer.of("sim://a/f0", "sim://b/x"))
        await asyncio.sleep(1)
        await engine.submit(Transfer.of("sim://a/f1", "sim://b/x"), priority=5)
        await asyncio.sleep(1)
        free = await engine.submit(Transfer.of("sim://a/f2", "sim://b/y"), priority=3)
        await asyncio.sleep(3000)
        assert (await engine.status(free)).state is JobState.FINISHED

    run(scenario, settings=Settings(limits={"link": 2}))


def test_wait_returns_only_at_the_end_of_the_job() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        a = storages.storage("sim://a")
        storages.storage("sim://b")
        for n in range(2):
            a.add(f"/f{n}", size_bytes=100_000_000_000)
        job = await engine.submit([Transfer.of(f"sim://a/f{n}", f"sim://b/f{n}") for n in range(2)])
        waiting = asyncio.create_task(engine.wait(job))
        await asyncio.sleep(5)
        files = await engine.files(job)
        await engine.cancel(job, [files[0].file_id])
        got = await waiting
        assert got.finished_at is not None, got.state

    run(scenario)


def test_a_mode_that_gives_up_after_bytes_leaves_none_for_the_next() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.storage("sim://a").add("/f", size_bytes=1_000_000)
        storages.storage("sim://b")
        storages.add_rule(
            Rule(
                match="sim://b/f",
                operations=frozenset({"copy"}),
                attempts=range(1, 2),
                error=lambda: Unsupported("failure: not supported"),
                at_bytes=1000,
            )
        )
        job = await engine.submit(Transfer.of("sim://a/f", "sim://b/f"), options=JobOptions(modes=("pull", "push")))
        await asyncio.sleep(3000)
        (f,) = await engine.files(job)
        assert f.state is FileState.FINISHED

    run(scenario)


@pytest.mark.parametrize(
    "pair",
    [
        ("https://h/d/file-1", "https://h/d/file%2D1"),
        ("https://h:443/d/f", "https://h:0443/d/f"),
        ("https://h/d/%7Eu", "https://h/d/~u"),
        ("https://h/d/a%2fb", "https://h/d/a%2Fb"),
        ("https://h/d/f", "https://h/d/f/"),
        ("https://h/d/f", "https://h./d/f"),
    ],
)
def test_spellings_of_one_file_are_one_destination(pair):
    one, two = (urls.destination_key(urls.parse(u, "x")) for u in pair)
    assert one == two
