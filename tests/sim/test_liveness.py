"""Copies that stand still or crawl, deadlines of jobs, timeouts of attempts; the whole engine in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine import FileState, JobState, Settings, Transfer, TransferEngine
from transfer_engine.liveness import Floor
from transfer_engine.testing import run

KB = 1000
COPY = frozenset({"copy"})


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
