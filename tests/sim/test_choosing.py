"""Which replica a file is copied from: the whole engine in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import CopyFailed, Missing, Overloaded
from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine import (
    FileState,
    JobId,
    JobOptions,
    JobRequest,
    JobState,
    Settings,
    Transfer,
    TransferEngine,
)
from transfer_engine.selection import STRATEGIES
from transfer_engine.testing import engine as engine_on
from transfer_engine.testing import run, run_virtual

MB = 1_000_000
COPY = frozenset({"copy"})
SPEEDS = {"slow": 4 * MB, "middle": 20 * MB, "fast": 100 * MB}


def _limited(*, optimizer: bool = False, **limits: int) -> Settings:
    given = {"endpoint_outbound": 4, "endpoint_inbound": 1000} | limits
    return Settings.model_validate({"limits": given, "optimizer": {"enabled": optimizer}})


def _storages(storages: ScriptedAdapter, speeds: dict[str, int], n: int, size: int = 100 * MB) -> None:
    storages.storage("sim://here")
    for host, rate in speeds.items():
        storages.add_rule(Rule(match=f"sim://{host}/*", operations=COPY, rate_bytes_s=rate))
        for number in range(n):
            storages.storage(f"sim://{host}").add(f"/{number}", size_bytes=size)


def _transfers(
    hosts: Iterable[str], numbers: Iterable[int], strategy: str = "auto", size: int | None = 100 * MB
) -> Any:
    return [
        Transfer(
            sources=tuple(f"sim://{host}/{n}" for host in hosts),
            destination=f"sim://here/{n}",
            size_bytes=size,
            selection_strategy=strategy,
        )
        for n in numbers
    ]


async def _sources(engine: TransferEngine, job_id: JobId, *states: FileState) -> Counter[str]:
    files = await engine.files(job_id)
    return Counter(file.source_se for file in files if file.state in (states or {FileState.FINISHED}))


def _makespan(strategy: str, n: int = 400, settings: Settings | None = None, *, size: int | None = 100 * MB) -> float:
    """Part of the time that these files take at best, when all sources give all they can."""

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> float:
        _storages(storages, SPEEDS, n)
        job = await engine.wait(await engine.submit(_transfers(SPEEDS, range(n), strategy, size)))
        assert job.state is JobState.FINISHED
        best_s = n * 100 * MB / (4 * sum(SPEEDS.values()))
        return asyncio.get_running_loop().time() / best_s

    return float(run(scenario, settings=settings or _limited()))


# When the files are there


def test_a_batch_from_three_sources_takes_about_as_long_as_it_must() -> None:
    ratio = _makespan("auto")
    assert ratio <= 1.15
    assert ratio < _makespan("queue") / 1.1
    assert ratio < _makespan("orderly") / 10


@pytest.mark.slow
def test_a_batch_takes_about_as_long_with_the_optimizer_that_has_to_learn() -> None:
    assert _makespan("auto", 1200, _limited(optimizer=True)) <= 1.15


def test_files_of_unknown_length_are_spread_as_well() -> None:
    assert _makespan("auto", size=None) <= 1.2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_brings_every_file(strategy: str) -> None:
    assert _makespan(strategy, 20) > 0


def test_many_jobs_of_one_file_are_spread_like_one_of_many() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> float:
        _storages(storages, SPEEDS, 400)
        jobs = [await engine.submit(transfer) for transfer in _transfers(SPEEDS, range(400))]
        for job_id in jobs:
            assert (await engine.wait(job_id)).state is JobState.FINISHED
        return asyncio.get_running_loop().time() / (400 * 100 * MB / (4 * sum(SPEEDS.values())))

    assert run(scenario, settings=_limited()) <= 1.15


def test_the_users_order_is_kept_whatever_it_costs() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages, SPEEDS, 30)
        job_id = await engine.submit(_transfers(SPEEDS, range(30), "orderly"))
        await engine.wait(job_id)
        assert await _sources(engine, job_id) == {"sim://slow": 30}

    run(scenario, settings=_limited())


def test_equal_sources_share_and_files_do_not_go_back_and_forth() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = dict.fromkeys(("a", "b", "c"), 10 * MB)
        _storages(storages, speeds, 300)
        job_id = await engine.submit(_transfers(speeds, range(300)))
        before, moved = await _where(engine, job_id), 0
        while (await engine.job(job_id)).state is not JobState.FINISHED:
            await asyncio.sleep(5)
            now = await _where(engine, job_id)
            moved += sum(before[file_id] != source for file_id, source in now.items())
            before = now
        assert all(90 <= n <= 110 for n in (await _sources(engine, job_id)).values())
        assert moved <= 30

    run(scenario, settings=_limited())


async def _where(engine: TransferEngine, job_id: JobId) -> dict[int, str]:
    files = await engine.files(job_id)
    return {file.file_index: file.source_se for file in files if file.state is not FileState.NOT_USED}


# A source that cannot give anything now


async def _waiting_at(engine: TransferEngine, job_id: JobId) -> Counter[str]:
    return await _sources(engine, job_id, FileState.SUBMITTED)


@pytest.mark.parametrize("vo", [None, "atlas"])
def test_what_waits_for_a_banned_source_goes_elsewhere_within_seconds(vo: str | None) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = {"a": 10 * MB, "b": 10 * MB}
        _storages(storages, speeds, 100)
        request = JobRequest(transfers=tuple(_transfers(speeds, range(80))), vo="atlas")
        job_id = await engine.submit(request)
        await asyncio.sleep(12)
        assert (await _waiting_at(engine, job_id))["sim://a"] > 20
        await engine.control.ban("sim://a", vo=vo, allow_submit=True)
        await asyncio.sleep(6)
        assert (await _waiting_at(engine, job_id))["sim://a"] == 0
        late = await engine.submit(JobRequest(transfers=tuple(_transfers(speeds, range(80, 90))), vo="atlas"))
        assert (await _sources(engine, late, FileState.SUBMITTED, FileState.ACTIVE))["sim://a"] == 0
        assert (await engine.wait(job_id)).state is JobState.FINISHED

    run(scenario, settings=_limited())


def test_a_ban_that_ends_brings_the_source_back() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = {"a": 10 * MB, "b": 10 * MB}
        _storages(storages, speeds, 200)
        await engine.control.ban("sim://a", allow_submit=True, for_s=60)
        job_id = await engine.submit(_transfers(speeds, range(200)))
        await engine.wait(job_id)
        found = await _sources(engine, job_id)
        # 200 files of 10 s, 4 at a time from each source; one of them 60 s later.
        assert found["sim://a"] == pytest.approx(88, abs=8)

    run(scenario, settings=_limited())


def test_a_ban_that_cancels_leaves_what_has_a_replica_elsewhere() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = {"a": 10 * MB, "b": 10 * MB}
        _storages(storages, speeds, 40)
        several = await engine.submit(_transfers(speeds, range(20)))
        alone = await engine.submit(_transfers(["a"], range(20, 40)))
        await asyncio.sleep(1)
        await engine.control.ban("sim://a", cancel=True)
        assert (await engine.wait(several)).state is JobState.FINISHED
        assert (await engine.wait(alone)).state is JobState.CANCELED

    run(scenario, settings=_limited())


def test_what_waits_for_a_source_that_does_not_answer_goes_elsewhere() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = {"a": 10 * MB, "b": 10 * MB}
        storages.add_rule(Rule(match="sim://a", operations=frozenset({"stat"}), error=lambda: Overloaded("down")))
        _storages(storages, speeds, 100)
        job_id = await engine.submit(_transfers(speeds, range(100)))
        job = await engine.wait(job_id)
        assert job.state is JobState.FINISHED
        # 100 files of 10 s from one source, 4 at a time.
        assert asyncio.get_running_loop().time() < 250 * 1.15

    run(scenario, settings=_limited())


def test_a_source_that_wants_a_rest_is_left_alone_meanwhile() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = {"a": 10 * MB, "b": 10 * MB}
        busy = Rule(match="sim://a/*", operations=COPY, error=lambda: Overloaded("busy", retry_after_s=600))
        storages.add_rule(busy)
        _storages(storages, speeds, 100)
        job_id = await engine.submit(_transfers(speeds, range(100)))
        assert (await engine.wait(job_id, 400)).state is JobState.FINISHED

    run(scenario, settings=_limited())


@pytest.mark.parametrize(("silent", "within_s"), [(False, 25), (True, 90)])
def test_what_waits_for_a_source_that_slows_down_goes_elsewhere_before_a_copy_has_ended(
    silent: bool, within_s: float
) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        slow = Rule(match="sim://a/*", operations=COPY, attempts=range(1, 2), rate_bytes_s=MB // 10, silent=silent)
        speeds = {"a": 20 * MB, "b": 20 * MB}
        _storages(storages, speeds, 200)
        job_id = await engine.submit(_transfers(speeds, range(200)))
        await asyncio.sleep(30)
        storages._rules.insert(0, slow)
        before = await _waiting_at(engine, job_id)
        assert before["sim://a"] > 50
        await asyncio.sleep(within_s)
        assert (await _waiting_at(engine, job_id))["sim://a"] < before["sim://a"] / 5
        assert (await _sources(engine, job_id, FileState.ACTIVE))["sim://a"] == 4

    run(scenario, settings=_limited())


# After a failure


def test_after_a_failure_the_best_replica_that_is_left_is_the_next_one() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = {"first": 100 * MB, "slow": MB, "fast": 100 * MB}
        bad = Rule(
            match="sim://first/0", operations=COPY, rate_bytes_s=MB, at_bytes=50 * MB, error=lambda: CopyFailed("disk")
        )
        storages.add_rule(bad)
        _storages(storages, speeds, 20)
        for host in ("slow", "fast"):
            await engine.wait(await engine.submit(_transfers([host], range(1, 6) if host == "slow" else range(6, 12))))
        await engine.control.ban("sim://fast", allow_submit=True)
        job_id = await engine.submit(_transfers(speeds, range(1)))
        await asyncio.sleep(10)
        assert [file.source_se for file in await engine.files(job_id)] == ["sim://first", "sim://slow", "sim://fast"]
        await engine.control.unban("sim://fast")
        job = await engine.wait(job_id, 200)
        assert (job.state, job.source_se) == (JobState.FINISHED, "sim://fast")
        assert Counter(file.state for file in await engine.files(job_id)) == {
            FileState.FAILED: 1,
            FileState.FINISHED: 1,
            FileState.NOT_USED: 1,
        }

    run(scenario, settings=_limited())


def test_every_replica_is_tried_once() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        hosts = dict.fromkeys("abcde", 10 * MB)
        storages.rule("sim://*", operations={"copy"}, error=lambda: Missing("gone"))
        _storages(storages, hosts, 3)
        job_id = await engine.submit(_transfers(hosts, range(3)))
        assert (await engine.wait(job_id)).state is JobState.FAILED
        files = await engine.files(job_id)
        assert {file.state for file in files} == {FileState.FAILED}
        assert sorted(file.source_url for file in files) == sorted(f"sim://{h}/{n}" for h in hosts for n in range(3))

    run(scenario, settings=_limited())


# Other engines, other jobs


def test_what_an_earlier_engine_took_is_chosen_anew(tmp_path: Path) -> None:
    async def main() -> None:
        storages = ScriptedAdapter()
        speeds = {"a": 10 * MB, "b": 10 * MB}
        _storages(storages, speeds, 40)
        database = str(tmp_path / "t.db")
        async with engine_on(storages, settings=_limited(), database=database) as engine:
            await engine.control.drain()
            job_id = await engine.submit(_transfers(speeds, range(40)))
            assert (await _waiting_at(engine, job_id))["sim://a"] == 20
        async with engine_on(storages, seed=1, settings=_limited(), database=database) as engine:
            await engine.control.ban("sim://a", allow_submit=True)
            await asyncio.sleep(6)
            assert await _waiting_at(engine, job_id) == {"sim://b": 40}
            await engine.control.drain(False)
            assert (await engine.wait(job_id)).state is JobState.FINISHED

    run_virtual(main)


def test_the_same_submission_is_the_same_job_also_when_another_source_is_best_by_now() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = {"a": 10 * MB, "b": 10 * MB}
        _storages(storages, speeds, 10)
        await engine.control.drain()
        job_id = await engine.submit(_transfers(speeds, range(10)), key="once")
        await engine.control.ban("sim://a", allow_submit=True)
        assert await engine.submit(_transfers(speeds, range(10)), key="once") == job_id
        assert len(await engine.files(job_id)) == 20

    run(scenario)


def test_copies_within_one_storage_have_a_choice_too() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        for n in range(10):
            for host in ("here", "a"):
                storages.storage(f"sim://{host}").add(f"/old/{n}", size_bytes=MB)
        transfers = [
            Transfer(sources=(f"sim://here/old/{n}", f"sim://a/old/{n}"), destination=f"sim://here/new/{n}")
            for n in range(10)
        ]
        await engine.control.drain()
        job_id = await engine.submit(transfers)
        await asyncio.sleep(60)
        await engine.control.drain(False)
        assert (await engine.wait(job_id)).state is JobState.FINISHED

    run(scenario)


def test_a_retry_that_waits_is_looked_at_when_it_is_ready_again() -> None:
    """Nothing has a choice for a while, and then something has."""

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        speeds = {"a": 10 * MB, "b": 10 * MB}
        _storages(storages, speeds, 10)
        options = JobOptions(retry_delay_s=300, retries_max=5)
        storages.rule("sim://here", operations={"stat"}, attempts=range(1, 3), error=lambda: Overloaded("later"))
        job_id = await engine.submit(_transfers(speeds, range(4)), options=options)
        await asyncio.sleep(200)
        await engine.control.drain()
        await engine.control.ban("sim://a", allow_submit=True)
        await asyncio.sleep(1000)
        assert (await _waiting_at(engine, job_id)) == {"sim://b": 4}

    run(scenario, settings=_limited())
