"""Copies that stand still or crawl, deadlines of jobs, timeouts of attempts; the whole engine in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import CopyFailed, Overloaded, Unavailable
from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine import (
    FileState,
    JobId,
    JobOptions,
    JobRequest,
    JobState,
    JobType,
    Settings,
    Transfer,
    TransferEngine,
)
from transfer_engine.liveness import Floor
from transfer_engine.testing import EPOCH, run

KB = 1000
COPY = frozenset({"copy"})
Trouble = Callable[[TransferEngine, ScriptedAdapter], Awaitable[None]]


def _file(storages: ScriptedAdapter, size: int = 100_000_000) -> Transfer:
    storages.storage("sim://a").add("/f", size_bytes=size)
    storages.storage("sim://b")
    return Transfer.of("sim://a/f", "sim://b/f")


# The floor


@pytest.mark.parametrize("rate", [100, KB, 9 * KB])
def test_a_copy_that_crawls_is_ended_and_repeated(rate: int) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.add_rule(Rule(match="sim://b/*", operations=COPY, attempts=range(1, 2), rate_bytes_s=rate))
        job_id = await engine.submit(_file(storages))
        job = await engine.wait(job_id, 2000)
        assert job.state is JobState.FINISHED
        (file,) = await engine.files(job_id)
        (attempt,) = await engine.reader.attempts(job_id, file.file_id)
        assert f": {rate} B/s, the floor is 10000 B/s" in attempt.reason
        assert file.n_failed == 1
        assert 900 < asyncio.get_running_loop().time() < 1000

    run(scenario)


def test_a_copy_that_crawls_goes_on_where_there_is_no_floor() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.add_rule(Rule(match="sim://b/*", operations=COPY, rate_bytes_s=KB))
        job = await engine.wait(await engine.submit(_file(storages, 50_000_000)))
        assert job.state is JobState.FINISHED
        assert asyncio.get_running_loop().time() >= 50_000

    run(scenario, settings=Settings.model_validate({"transfer": {"floor_bytes_s": 0}}))


def test_the_next_replica_takes_over_from_one_that_crawls() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        for host in "ac":
            storages.storage(f"sim://{host}").add("/f", size_bytes=100_000_000)
        storages.storage("sim://b")
        storages.add_rule(Rule(match="sim://a/*", operations=COPY, rate_bytes_s=KB))
        transfer = Transfer(sources=("sim://a/f", "sim://c/f"), destination="sim://b/f", selection_strategy="orderly")
        job = await engine.wait(await engine.submit(transfer), 1000)
        assert (job.state, job.source_se) == (JobState.FINISHED, "sim://c")
        states = [file.state for file in await engine.files(job.job_id)]
        assert states == [FileState.FAILED, FileState.FINISHED]

    run(scenario)


def test_a_streamed_copy_that_crawls_is_ended_as_well() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        read = frozenset({"read"})
        # A block of 1 MiB takes longer than what counts as standing still only below 3.5 kB/s.
        storages.add_rule(Rule(match="sim://a/*", operations=read, attempts=range(1, 2), rate_bytes_s=5 * KB))
        job_id = await engine.submit(_file(storages, 20_000_000))
        job = await engine.wait(job_id, 2000)
        (file,) = await engine.files(job_id)
        (attempt,) = await engine.reader.attempts(job_id, file.file_id)
        assert "the floor is 10000 B/s" in attempt.reason
        assert (job.state, file.mode) == (JobState.FINISHED, "stream")

    run(scenario, settings=Settings.model_validate({"transfer": {"modes": ["stream"]}}))


def test_markers_that_repeat_their_number_are_standing_still() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        rule = Rule(match="sim://b/*", operations=COPY, attempts=range(1, 2), stall=True, at_bytes=50_000_000)
        storages.add_rule(rule)
        job_id = await engine.submit(_file(storages))
        assert (await engine.wait(job_id, 400)).state is JobState.FINISHED
        (file,) = await engine.files(job_id)
        (attempt,) = await engine.reader.attempts(job_id, file.file_id)
        assert "no progress for 300 s" in attempt.reason

    run(scenario)


def _ended_at(counts: Iterable[tuple[float, int]], size: int | None = None) -> float | None:
    floor = Floor(bytes_s=10 * KB, span_s=900)
    return next((at for at, n_bytes in counts if floor.heard(n_bytes, size, at)), None)


def test_what_happens_before_the_first_byte_does_not_count() -> None:
    waiting = [(float(at), 0) for at in range(0, 5000, 5)]
    moving = [(5000.0 + at, 20 * KB * at) for at in range(5, 5000, 5)]
    assert _ended_at(waiting + moving) is None


def test_a_pause_is_forgiven_by_what_moved_within_the_span() -> None:
    first = [(float(at), 100 * KB * at) for at in range(5, 300, 5)]
    pause = [(float(at), first[-1][1]) for at in range(300, 900, 5)]
    later = [(float(at), first[-1][1] + 100 * KB * (at - 900)) for at in range(900, 3000, 5)]
    assert _ended_at(first + pause + later) is None


def test_a_copy_that_begins_to_crawl_is_noticed_within_one_and_a_half_spans() -> None:
    fast = [(float(at), 1000 * KB * at) for at in range(5, 10_000, 5)]
    slow = [(10_000.0 + at, fast[-1][1] + KB * at) for at in range(0, 5000, 5)]
    ended = _ended_at(fast + slow)
    assert ended is not None
    assert 900 <= ended - 10_000 <= 1360


def test_a_storage_may_take_its_time_when_all_bytes_are_there() -> None:
    fast = [(float(at), 1000 * KB * at) for at in range(5, 100, 5)]
    size = fast[-1][1]
    assert _ended_at([*fast, *((float(at), size) for at in range(100, 20_000, 5))], size) is None


@given(
    st.lists(st.tuples(st.floats(0.1, 300), st.floats(10_001, 1e9)), max_size=60),
    st.floats(0, 1e6),
)
def test_who_is_always_faster_than_the_floor_is_never_ended(steps: list[tuple[float, float]], start: float) -> None:
    at, moved, counts = start, 1.0, []
    for passed_s, rate in steps:
        at, moved = at + passed_s, moved + passed_s * rate + 1
        counts.append((at, int(moved)))
    assert _ended_at(counts) is None


# Deadlines


async def _late(engine: TransferEngine, transfer: Transfer, seconds: float, **more: object) -> JobId:
    options = JobOptions(deadline_at=EPOCH + asyncio.get_running_loop().time() + seconds, **more)  # type: ignore[arg-type]  # of options
    return await engine.submit(transfer, options=options)


async def _canceled(engine: TransferEngine, job_id: JobId, within_s: float) -> float:
    """It is cancelled with FTS's words; when."""
    job = await engine.wait(job_id, within_s)
    assert job.state is JobState.CANCELED
    reasons = {file.reason for file in await engine.files(job_id) if file.state is FileState.CANCELED}
    assert all(reason is not None and "max-time-in-queue" in reason for reason in reasons), reasons
    return asyncio.get_running_loop().time()


async def _banned(engine: TransferEngine, storages: ScriptedAdapter) -> None:
    del storages
    await engine.control.ban("sim://b", allow_submit=True)


async def _drained(engine: TransferEngine, storages: ScriptedAdapter) -> None:
    del storages
    await engine.control.drain()


async def _broken(engine: TransferEngine, storages: ScriptedAdapter) -> None:
    """The destination does not answer, and its breaker is open."""
    storages.rule("sim://b", error=lambda: Unavailable("down"))
    for n in range(10):
        storages.storage("sim://a").add(f"/{n}", size_bytes=KB)
        await engine.submit(Transfer.of(f"sim://a/{n}", f"sim://b/{n}"))
    await asyncio.sleep(60)


async def _busy(engine: TransferEngine, storages: ScriptedAdapter) -> None:
    storages.storage("sim://a").add("/long", size_bytes=100_000_000_000)
    await engine.submit(Transfer.of("sim://a/long", "sim://b/long"))
    await asyncio.sleep(1)


@pytest.mark.parametrize("trouble", [_banned, _drained, _broken, _busy])
def test_what_waits_is_cancelled_at_its_deadline_whatever_it_waits_for(trouble: Trouble) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        transfer = _file(storages)
        await trouble(engine, storages)
        began = asyncio.get_running_loop().time()
        job_id = await _late(engine, transfer, 600, retry_delay_s=1.0)
        assert await _canceled(engine, job_id, 700) - began < 601

    # More retries than there are tries of a closed storage in that time: each of them is charged.
    run(scenario, settings=Settings.model_validate({"limits": {"endpoint_inbound": 1}, "retry": {"retries_max": 100}}))


def test_a_job_on_hold_is_cancelled_at_its_deadline() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        transfer = _file(storages)
        await engine.control.drain()
        job_id = await _late(engine, transfer, 600)
        await engine.control.hold(job_id)
        await engine.control.drain(False)
        assert await _canceled(engine, job_id, 700) < 601

    run(scenario)


def test_a_retry_that_waits_is_cancelled_at_its_deadline() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://b/*", operations={"copy"}, error=lambda: Overloaded("later", retry_after_s=400))
        job_id = await _late(engine, _file(storages), 900, retries_max=100)
        job = await engine.wait(job_id, 1000)
        # A retry that would come too late is not waited for.
        assert job.state in {JobState.CANCELED, JobState.FAILED}
        assert asyncio.get_running_loop().time() < 901

    run(scenario)


def test_what_runs_at_its_deadline_goes_on() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await _late(engine, _file(storages, 100_000_000_000), 30)
        job = await engine.wait(job_id)
        assert job.state is JobState.FINISHED
        assert asyncio.get_running_loop().time() > 900

    run(scenario)


@pytest.mark.parametrize("banned", [False, True])
def test_the_next_replica_after_the_deadline_does_not_wait_for_ever(*, banned: bool) -> None:
    """The first one runs over the deadline and fails."""

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.storage("sim://c").add("/f", size_bytes=100_000_000)
        transfer = replace(_file(storages), sources=("sim://a/f", "sim://c/f"), selection_strategy="orderly")
        storages.add_rule(
            Rule(
                match="sim://a/*", operations=COPY, rate_bytes_s=200 * KB, at_bytes=50_000_000,
                error=lambda: CopyFailed("disk"),
            )
        )  # fmt: skip
        job_id = await _late(engine, transfer, 30)
        await asyncio.sleep(60)
        if banned:
            await engine.control.ban("sim://c", allow_submit=True)
        assert await _canceled(engine, job_id, 1000) < 400
        assert storages.storage("sim://b").files() == {}

    run(scenario)


@pytest.mark.parametrize("banned", [False, True])
def test_a_route_ends_with_the_hop_that_ran_at_the_deadline(*, banned: bool) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        first = _file(storages, 10_000_000_000)
        storages.storage("sim://c")
        route = (first, Transfer.of("sim://b/f", "sim://c/f"))
        options = JobOptions(deadline_at=EPOCH + 30)
        job_id = await engine.submit(JobRequest(transfers=route, options=options, job_type=JobType.MULTIHOP))
        await asyncio.sleep(60)
        if banned:
            await engine.control.ban("sim://c", allow_submit=True)
        assert await _canceled(engine, job_id, 1000) < 200
        assert [file.state for file in await engine.files(job_id)] == [FileState.FINISHED, FileState.CANCELED]
        assert storages.storage("sim://c").files() == {}

    run(scenario)


# The time of one attempt


@pytest.mark.parametrize("modes", [("pull",), ("push",), ("stream",)])
def test_an_attempt_that_takes_too_long_has_failed_and_is_repeated(modes: tuple[str, ...]) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        slow = Rule(match="sim://a/*", operations=COPY | {"read"}, attempts=range(1, 2), rate_bytes_s=100 * KB)
        storages.add_rule(slow)
        options = JobOptions(timeout_s=120, modes=modes)
        job_id = await engine.submit(_file(storages), options=options)
        job = await engine.wait(job_id, 1000)
        assert job.state is JobState.FINISHED
        (file,) = await engine.files(job_id)
        (attempt,) = await engine.reader.attempts(job_id, file.file_id)
        assert "120 s" in attempt.reason
        assert file.n_failed == 1

    run(scenario)


def test_an_attempt_that_always_takes_too_long_fails_in_the_end() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.add_rule(Rule(match="sim://b/*", operations=COPY, rate_bytes_s=100 * KB))
        options = JobOptions(timeout_s=60, retries_max=2)
        job_id = await engine.submit(_file(storages), options=options)
        job = await engine.wait(job_id, 5000)
        (file,) = await engine.files(job_id)
        assert (job.state, file.n_failed) == (JobState.FAILED, 3)
        assert file.failure is not None
        assert file.failure["code"] == "TIMED_OUT"
        assert storages.storage("sim://b").files() == {}

    run(scenario)
