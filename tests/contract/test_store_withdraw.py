"""What every store promises of cancelling what waits for a storage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from protocols.errors import Again
from tests.contract import stores
from tests.contract.stores import (
    AGAIN,
    DONE,
    KINDS,
    NEVER,
    NOW,
    UNCHARGED,
    AnyStore,
    Stores,
    claim,
    job,
    ready,
    route,
    settled,
    started,
    states,
    transfer,
)
from transfer_engine.model import Cleaned, PlannedJob, Transfer
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store.api import Canceled, WaitingFilter

pytestmark = pytest.mark.asyncio
S = FileState
SRC = [f"https://src{n}.org" for n in range(5)]
BANNED = stores.failure(Again.NEVER, code="BANNED", message="Storage banned")


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


async def banned(store: AnyStore, endpoint: str, vo: str | None = None, limit: int = 100) -> list[Canceled]:
    """All of it, block by block; what is ready is always what the shifts say."""
    every: list[Canceled] = []
    before = await ready(store)
    while block := await store.cancel_waiting(WaitingFilter(endpoint=endpoint, vo=vo), NOW + 1, limit, BANNED):
        assert len({one.job_id for one in block}) == len(block) <= limit
        every += block
        for shift in (shift for one in block for shift in one.shifts):
            key = (shift.queue.id, shift.priority)
            before[key] = before.get(key, 0) + shift.n_ready
        assert {key: n for key, n in before.items() if n} == await ready(store)
    assert await store.cancel_waiting(WaitingFilter(endpoint=endpoint, vo=vo), NOW + 1, limit, BANNED) == []
    return every


def replicas(*places: int, n: int = 1, **more: object) -> Transfer:
    sources = tuple(f"{SRC[place]}/f{n}" for place in places)
    return Transfer(sources=sources, destination=f"https://dst.org/f{n}", **more)  # type: ignore[arg-type]


async def sources(store: AnyStore, planned: PlannedJob) -> Sequence[tuple[str, FileState]]:
    return [(file.source_se, file.state) for file in await store.files(planned.job_id)]


@pytest.mark.parametrize("endpoint", ["https://src0.org", "https://dst.org"])
async def test_what_waits_is_cancelled_at_either_end_and_what_runs_goes_on(database: Stores, endpoint: str) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n, size_bytes=10) for n in range(5)))
        other = job(Transfer.of("https://x.org/f", "https://y.org/f"))
        await store.insert(other)
        running, retrying, lost = await claim(store, (await store.insert(planned)).shifts, 3)
        await settled(store, retrying, AGAIN)
        await settled(store, lost, stores.UNKNOWN)
        (canceled,) = await banned(store, endpoint)
        assert (canceled.job_id, canceled.n_canceled, canceled.running) == (planned.job_id, 3, ())
        assert (canceled.leftovers, canceled.was_terminal) == (False, False)
        assert [(s.n_ready, s.n_bytes) for s in canceled.shifts] == [(-2, -20)]
        assert await states(store, planned) == [S.ACTIVE, S.CANCELED, S.VERIFYING, S.CANCELED, S.CANCELED]
        assert await states(store, other) == [S.SUBMITTED]
        file = (await store.files(planned.job_id))[4]
        assert (file.reason, file.finished_at) == ("TRANSFER [5] Storage banned", NOW + 1)
        view = await store.job(planned.job_id)
        assert (view.state, view.n_canceled, view.cancel_requested) == (JobState.ACTIVE, 3, False)
        await settled(store, running, DONE)
        assert (await settled(store, lost, DONE)).job_ended
        assert (await store.job(planned.job_id)).state is JobState.CANCELED
        assert (await store.backlog()).next_due_at is None


async def test_a_job_ends_with_its_last_transfer_that_waits(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1))
        await store.insert(planned)
        last = await store.last_event()
        await banned(store, SRC[0])
        view = await store.job(planned.job_id)
        assert (view.state, view.finished_at) == (JobState.CANCELED, NOW + 1)
        assert [(e.kind, e.state, e.reason) for e in await store.events(last, 10)][:1] == [
            ("transfer", "CANCELED", BANNED.reason)
        ]


async def test_of_one_vo_only(database: Stores) -> None:
    async with database.open() as store:
        one, two = job(transfer(1), vo="one"), job(transfer(2), vo="two")
        await store.insert(one)
        await store.insert(two)
        assert [c.job_id for c in await banned(store, SRC[0], "two")] == [two.job_id]
        assert await states(store, one) == [S.SUBMITTED]
        assert await banned(store, SRC[0], "three") == []


async def test_what_is_on_hold_waits_too(database: Stores) -> None:
    async with database.open() as store:
        planned, other = job(transfer(1)), job(replicas(0, 1))
        for one in (planned, other):
            await store.insert(one)
            await store.hold(one.job_id, held=True)
        assert [c.shifts for c in await banned(store, SRC[0])] == [(), ()]
        assert await states(store, planned) == [S.CANCELED]
        assert await states(store, other) == [S.CANCELED, S.SUBMITTED]
        assert await ready(store) == {}
        (shift,) = await store.hold(other.job_id, held=False)
        assert shift.queue.source_se == SRC[1]


async def test_in_blocks_of_so_many_jobs(database: Stores) -> None:
    async with database.open() as store:
        for n in range(5):
            await store.insert(job(transfer(n), transfer(n + 10)))
        for n in range(20, 24):
            await store.insert(job(replicas(1, 0, n=n)))
        sizes = []
        while block := await store.cancel_waiting(WaitingFilter(endpoint=SRC[0]), NOW, 2, BANNED):
            sizes.append(sum(one.n_canceled for one in block))
        assert (sum(sizes), max(sizes)) == (14, 4)


# Replicas


async def test_a_file_goes_on_with_the_next_replica_elsewhere(database: Stores) -> None:
    async with database.open() as store:
        planned = job(replicas(0, 1, 2, size_bytes=7))
        await store.insert(planned)
        (canceled,) = await banned(store, SRC[0])
        assert canceled.n_canceled == 1
        assert {s.queue.source_se: (s.n_ready, s.n_bytes) for s in canceled.shifts} == {
            SRC[0]: (-1, -7),
            SRC[1]: (1, 7),
        }
        assert await sources(store, planned) == [(SRC[0], S.CANCELED), (SRC[1], S.SUBMITTED), (SRC[2], S.NOT_USED)]
        view = await store.job(planned.job_id)
        assert (view.state, view.n_canceled) == (JobState.SUBMITTED, 0)
        (order,) = await claim(store, canceled.shifts)
        assert (order.queue.source_se, order.follows) == (SRC[1], True)
        (last,) = await claim(store, (await settled(store, order, NEVER)).shifts)
        assert not last.follows
        assert (await settled(store, last, DONE)).job_ended
        view = await store.job(planned.job_id)
        assert (view.state, view.source_se, view.n_finished) == (JobState.FINISHED, SRC[2], 1)


async def test_a_replica_that_was_cancelled_is_passed_over(database: Stores) -> None:
    async with database.open() as store:
        planned = job(replicas(0, 1, 2, 3), replicas(0, 1, n=2))
        (shift,) = (await store.insert(planned)).shifts
        files = await store.files(planned.job_id)
        (canceled,) = await banned(store, SRC[1])
        assert (canceled.n_canceled, canceled.shifts) == (2, ())
        assert await states(store, planned) == [
            S.SUBMITTED,
            S.CANCELED,
            S.NOT_USED,
            S.NOT_USED,
            S.SUBMITTED,
            S.CANCELED,
        ]
        assert (await store.position(files[2].file_id)).predecessor is S.SUBMITTED
        order, other = await claim(store, [shift])
        assert (order.follows, other.follows) == (True, False)
        (second,) = await claim(store, (await settled(store, order, NEVER)).shifts)
        assert (second.file_id, second.queue.source_se) == (files[2].file_id, SRC[2])
        assert not (await settled(store, other, NEVER)).shifts
        await claim(store, (await settled(store, second, NEVER)).shifts)
        view = await store.job(planned.job_id)
        assert (view.state, view.n_failed, view.n_canceled) == (JobState.ACTIVE, 1, 0)


async def test_the_last_replica_that_is_left_has_none_behind_it(database: Stores) -> None:
    async with database.open() as store:
        planned = job(replicas(0, 1, 0, 2, 0))
        (shift,) = (await store.insert(planned)).shifts
        assert (await store.choices(10))[0].n == 1
        await banned(store, SRC[0])
        assert await states(store, planned) == [S.CANCELED, S.SUBMITTED, S.CANCELED, S.NOT_USED, S.CANCELED]
        await banned(store, SRC[2])
        assert await store.choices(10) == []
        (order,) = await claim(store, (await store.backlog()).shifts)
        assert not order.follows
        assert (await settled(store, order, NEVER)).job_ended
        view = await store.job(planned.job_id)
        assert (view.state, view.n_failed) == (JobState.FAILED, 1)
        assert shift.queue.source_se == SRC[0]


async def test_a_file_without_another_replica_is_cancelled(database: Stores) -> None:
    async with database.open() as store:
        planned = job(replicas(0, 1), replicas(0, 0, n=2))
        (one, _two) = await started(store, planned)
        await settled(store, one, NEVER)
        other = job(replicas(2, 1, n=5))
        await store.insert(other)
        assert len(await banned(store, "https://dst.org")) == 2
        assert await states(store, planned) == [S.FAILED, S.CANCELED, S.ACTIVE, S.NOT_USED]
        assert await states(store, other) == [S.CANCELED, S.CANCELED]
        assert (await store.job(other.job_id)).n_canceled == 1


async def test_the_replicas_of_a_file_that_runs_or_is_over_are_left_alone(database: Stores) -> None:
    async with database.open() as store:
        planned = job(replicas(0, 1), replicas(0, 1, n=2))
        one, two = await started(store, planned)
        await settled(store, one, DONE)
        assert await banned(store, SRC[1]) == []
        assert await states(store, planned) == [S.FINISHED, S.NOT_USED, S.ACTIVE, S.NOT_USED]
        await settled(store, two, NEVER)
        (canceled,) = await banned(store, SRC[1])
        assert canceled.n_canceled == 1
        assert (await store.job(planned.job_id)).state is JobState.CANCELED


async def test_what_an_attempt_left_goes_to_the_replica_or_is_cleaned(database: Stores) -> None:
    async with database.open() as store:
        several, single = job(replicas(0, 1), vo="several"), job(replicas(0, n=2), vo="single")
        for planned in (several, single):
            (order,) = await started(store, planned)
            await settled(store, order, UNCHARGED)
        canceled = {one.job_id: one for one in await banned(store, SRC[0])}
        assert [canceled[planned.job_id].leftovers for planned in (several, single)] == [False, True]
        assert await states(store, several) == [S.CANCELED, S.SUBMITTED]
        assert await states(store, single) == [S.CANCELING]
        (order,) = await claim(store, canceled[several.job_id].shifts)
        assert order.dest_owned
        (left,) = await store.take_over(NOW, 10)
        assert (left.job_id, left.canceling) == (single.job_id, True)
        assert (await settled(store, left, Cleaned(clean=True))).state is S.CANCELED


# Routes


@pytest.mark.parametrize("host", [0, 1, 2, 3])
async def test_a_route_is_cancelled_as_a_whole_by_any_of_its_ends(database: Stores, host: int) -> None:
    async with database.open() as store:
        planned = job(*route(3), job_type=JobType.MULTIHOP)
        await store.insert(planned)
        (canceled,) = await banned(store, f"https://h{host}.org")
        assert (canceled.n_canceled, [s.n_ready for s in canceled.shifts]) == (3, [-1])
        assert await states(store, planned) == [S.CANCELED] * 3
        view = await store.job(planned.job_id)
        assert (view.state, view.n_canceled) == (JobState.CANCELED, 3)


async def test_a_route_under_way_is_left_alone(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*route(3), job_type=JobType.MULTIHOP)
        (first,) = await started(store, planned)
        assert await banned(store, "https://h3.org") == []
        assert (await settled(store, first, DONE)).won
        assert await banned(store, "https://h0.org") == [], "what is done is done"
        (canceled,) = await banned(store, "https://h3.org")
        assert canceled.n_canceled == 2
        assert await states(store, planned) == [S.FINISHED, S.CANCELED, S.CANCELED]
        assert (await store.job(planned.job_id)).state is JobState.CANCELED
