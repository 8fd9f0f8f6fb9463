"""What every store promises: see `transfer_engine.store.api`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.contract import stores
from tests.contract.stores import (
    AGAIN,
    DONE,
    DURABLE,
    KINDS,
    NEVER,
    NOW,
    RELEASED,
    UNCHARGED,
    UNKNOWN,
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
from transfer_engine.errors import Conflict, NotFound, StoreLocked, StoreUnavailable
from transfer_engine.model import Claim, Cleaned, FileId, JobId, QueueId
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store.api import JobFilter

pytestmark = pytest.mark.asyncio
S = FileState
DAV = ("https://dst.org/f", "davs://dst.org/f", "https://dst.org:443/f", "https://dst.org//f", "HTTPS://DST.org/f")


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


# Acceptance


async def test_acceptance_is_durable(durable: Stores) -> None:
    planned = job(transfer(1), transfer(2), vo="cms", metadata={"a": [1]}, priority=4)
    async with durable.open() as store:
        inserted = await store.insert(planned)
        assert inserted.new
        before = await store.files(planned.job_id)
    async with durable.open("two") as store:
        assert await store.files(planned.job_id) == before
        view = await store.job(planned.job_id)
        assert (view.state, view.vo, view.metadata, view.n_files) == (JobState.SUBMITTED, "cms", {"a": [1]}, 2)
        assert (await store.backlog()).shifts == inserted.shifts


async def test_the_same_key_is_the_same_job_and_other_content_a_conflict(database: Stores) -> None:
    async with database.open() as store:
        first, again, other = job(key="k"), job(key="k"), job(transfer(9), key="k")
        assert (await store.insert(first)).new
        repeated = await store.insert(again)
        assert (repeated.new, repeated.job_id, repeated.shifts) == (False, first.job_id, ())
        with pytest.raises(Conflict):
            await store.insert(other)
        assert len(await store.jobs(JobFilter())) == 1


async def test_an_id_without_a_key_is_not_repeatable(database: Stores) -> None:
    async with database.open() as store:
        await store.insert(job(job_id=JobId("one")))
        with pytest.raises(Conflict):
            await store.insert(job(job_id=JobId("one")))


async def test_equal_keys_in_one_transaction_are_one_job(database: Stores) -> None:
    async with database.open() as store, asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.insert(job(key="k"))) for _ in range(5)]
    assert sorted(task.result().new for task in tasks) == [False] * 4 + [True]


async def test_numbers_are_never_given_twice(durable: Stores) -> None:
    seen: list[int] = []
    for incarnation in ("one", "two", "three"):
        async with durable.open(incarnation) as store:
            planned = job(transfer(1), transfer(2))
            await store.insert(planned)
            seen += [file.file_id for file in await store.files(planned.job_id)]
    assert seen == sorted(set(seen))


# Claim


async def test_claims_are_served_oldest_first_and_never_beyond_their_number(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n) for n in range(10)))
        (shift,) = (await store.insert(planned)).shifts
        first = await claim(store, [shift], 4)
        second = await claim(store, [shift], 100)
        assert [o.file_index for o in first] == [0, 1, 2, 3]
        assert [o.file_index for o in second] == [4, 5, 6, 7, 8, 9]
        assert {o.epoch for o in first + second} == {1}
        assert await claim(store, [shift], 5) == []
        assert (await store.job(planned.job_id)).state is JobState.ACTIVE
        assert await ready(store) == {}


async def test_a_claim_takes_its_queue_and_priority_only(database: Stores) -> None:
    async with database.open() as store:
        low, high = job(transfer(1), priority=1), job(transfer(2), priority=5)
        other = job(transfer(3), vo="other")
        (shift,) = (await store.insert(low)).shifts
        await store.insert(high)
        await store.insert(other)
        (order,) = await store.claim([Claim(shift.queue.id, 5, 10)], NOW)
        assert order.job_id == high.job_id
        assert await store.claim([Claim(QueueId(999), 5, 10)], NOW) == []


async def test_concurrent_claims_share_nothing(database: Stores) -> None:
    async with database.open() as store:
        (shift,) = (await store.insert(job(*(transfer(n) for n in range(20))))).shifts
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(claim(store, [shift], 7)) for _ in range(5)]
        ids = [order.file_id for task in tasks for order in task.result()]
        assert len(ids) == 20 == len(set(ids))


@pytest.mark.parametrize("second", DAV)
async def test_one_destination_is_claimed_once_whatever_its_spelling(database: Stores, second: str) -> None:
    async with database.open() as store:
        one = await store.insert(job(transfer(1, destination=DAV[0])))
        two = await store.insert(job(transfer(2, destination=second)))
        together = await claim(store, [*one.shifts, *two.shifts])
        assert len(together) == 1
        assert await claim(store, [*one.shifts, *two.shifts]) == []
        await settled(store, together[0], DONE)
        assert len(await claim(store, [*one.shifts, *two.shifts])) == 1


async def test_waiting_for_a_destination_holds_back_nothing_behind_it(database: Stores) -> None:
    """Many transfers to one destination at the head of a queue: the claim goes on to those behind them."""
    async with database.open() as store:
        same = [transfer(n, destination="https://dst.org/same") for n in range(8)]
        (shift,) = (await store.insert(job(*same, *(transfer(n) for n in range(8, 12))))).shifts
        orders = await claim(store, [shift], 5)
        assert [o.file_index for o in orders] == [0, 8, 9, 10, 11]


async def test_a_lost_or_cancelled_attempt_keeps_its_destination(database: Stores) -> None:
    async with database.open() as store:
        (order,) = await started(store, job(transfer(1)))
        other = await store.insert(job(transfer(1)))
        await settled(store, order, UNKNOWN)
        assert await claim(store, other.shifts) == []
        await store.cancel(order.job_id, NOW)
        assert await claim(store, other.shifts) == []
        assert (await settled(store, order, Cleaned(clean=True))).won
        assert len(await claim(store, other.shifts)) == 1


# Settle


async def test_a_stale_epoch_changes_nothing(database: Stores) -> None:
    async with database.open() as store:
        planned = job()
        (old,) = await started(store, planned, copying=False)
        assert (await settled(store, old, RELEASED)).won
        (new,) = await claim(store, (await store.backlog()).shifts)
        assert new.epoch == old.epoch + 1
        before = await stores.snapshot(store)
        for outcome in (DONE, AGAIN, NEVER, UNCHARGED, UNKNOWN, Cleaned(clean=True), RELEASED):
            applied = await settled(store, old, outcome)
            assert (applied.won, applied.state, applied.shifts) == (False, None, ())
        assert not await store.mark_copying(old.file_id, old.epoch)
        assert await stores.snapshot(store) == before
        assert await store.mark_copying(new.file_id, new.epoch)


async def test_a_change_is_applied_once(database: Stores) -> None:
    async with database.open() as store:
        planned = job()
        (order,) = await started(store, planned)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(settled(store, order, DONE)) for _ in range(3)]
        assert sorted(task.result().won for task in tasks) == [False, False, True]
        view = await store.job(planned.job_id)
        assert (view.state, view.n_finished) == (JobState.FINISHED, 1)
        assert not (await settled(store, order, NEVER)).won


async def test_a_retry_waits_for_its_time(database: Stores) -> None:
    async with database.open() as store:
        (order,) = await started(store, job())
        assert (await settled(store, order, AGAIN)).shifts == ()
        backlog = await store.backlog()
        assert backlog.shifts == ()
        assert backlog.next_due_at is not None
        assert (await store.promote(backlog.next_due_at - 0.1, 10)).shifts == ()
        promoted = await store.promote(backlog.next_due_at, 10)
        assert [s.n_ready for s in promoted.shifts] == [1]
        assert promoted.next_due_at is None
        (again,) = await claim(store, promoted.shifts)
        assert (again.epoch, again.n_failed, again.copying) == (2, 1, False)
        (attempt,) = await store.attempts(order.job_id, order.file_id)
        assert (attempt.epoch, attempt.reason, attempt.owner) == (1, "TRANSFER [5] disk", "one")


async def test_promote_takes_the_earliest_first_and_says_when_the_next_is_due(database: Stores) -> None:
    async with database.open() as store:
        orders = await started(store, job(*(transfer(n) for n in range(6))))
        for n, order in enumerate(orders):
            await settled(store, order, AGAIN, now=NOW + 100 * n)
        promoted = await store.promote(NOW + 10_000, 4)
        assert sum(s.n_ready for s in promoted.shifts) == 4
        assert promoted.next_due_at is not None
        assert promoted.next_due_at > NOW + 400
        assert [o.file_index for o in await claim(store, promoted.shifts)] == [0, 1, 2, 3]


async def test_the_uncharged_and_the_released_are_ready_at_once(database: Stores) -> None:
    async with database.open() as store:
        for outcome, owned in ((UNCHARGED, True), (RELEASED, False)):
            (order,) = await started(store, job(transfer(7)), copying=outcome is UNCHARGED)
            applied = await settled(store, order, outcome)
            assert [s.n_ready for s in applied.shifts] == [1]
            (again,) = await claim(store, applied.shifts)
            assert (again.n_failed, again.dest_owned) == (0, owned)
            await settled(store, again, DONE)


async def test_counts_and_states_of_a_job_follow_its_files(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n) for n in range(4)))
        one, two, three, four = await started(store, planned)
        await settled(store, one, DONE)
        await settled(store, two, NEVER)
        await settled(store, three, UNKNOWN)
        view = await store.job(planned.job_id)
        assert (view.state, view.finished_at, view.n_finished, view.n_failed) == (JobState.ACTIVE, None, 1, 1)
        assert not (await settled(store, three, DONE)).job_ended
        last = await settled(store, four, DONE, now=NOW + 5)
        assert last.job_ended
        view = await store.job(planned.job_id)
        assert (view.state, view.finished_at, view.n_finished) == (JobState.FINISHEDDIRTY, NOW + 5, 3)
        assert view.reason is not None


async def test_the_next_replica_gets_its_turn_in_the_same_transaction(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=3))
        (order,) = await started(store, planned)
        applied = await settled(store, order, NEVER)
        assert not applied.job_ended
        assert await states(store, planned) == [S.FAILED, S.SUBMITTED, S.NOT_USED]
        (second,) = await claim(store, applied.shifts)
        assert second.queue.source_se == "https://src1.org"
        assert (await settled(store, second, DONE)).job_ended
        view = await store.job(planned.job_id)
        assert (view.state, view.source_se, view.n_finished, view.n_failed) == (
            JobState.FINISHED,
            "https://src1.org",
            1,
            0,
        )
        assert await states(store, planned) == [S.FAILED, S.FINISHED, S.NOT_USED]


async def test_the_last_replica_that_fails_fails_its_file_once(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=2))
        (order,) = await started(store, planned)
        (last,) = await claim(store, (await settled(store, order, NEVER)).shifts)
        assert (await settled(store, last, NEVER)).job_ended
        view = await store.job(planned.job_id)
        assert (view.state, view.n_failed) == (JobState.FAILED, 1)


async def test_what_one_replica_left_is_known_to_the_next(database: Stores) -> None:
    async with database.open() as store:
        (order,) = await started(store, job(transfer(1, sources=2)))
        dirty = stores.Failed(failure=stores.failure(), clean=False, started_at=NOW)
        (second,) = await claim(store, (await settled(store, order, dirty)).shifts)
        assert second.dest_owned


async def test_hops_follow_one_another_and_a_broken_one_ends_the_route(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*route(), job_type=JobType.MULTIHOP)
        (first,) = await started(store, planned)
        applied = await settled(store, first, DONE)
        assert await states(store, planned) == [S.FINISHED, S.SUBMITTED, S.NOT_USED]
        (second,) = await claim(store, applied.shifts)
        assert (await settled(store, second, NEVER)).job_ended
        assert await states(store, planned) == [S.FINISHED, S.FAILED, S.NOT_USED]
        assert (await store.job(planned.job_id)).state is JobState.FAILED


# Events


async def test_events_are_in_commit_order_and_resume_from_a_cursor(database: Stores) -> None:
    async with database.open() as store:
        planned = job()
        (order,) = await started(store, planned)
        await settled(store, order, DONE)
        every = await store.events(0, 100)
        assert [(e.kind, e.state) for e in every] == [
            ("job", "SUBMITTED"),
            ("transfer", "ACTIVE"),
            ("job", "ACTIVE"),
            ("transfer", "FINISHED"),
            ("job", "FINISHED"),
        ]
        assert [e.seq for e in every] == sorted({e.seq for e in every})
        assert await store.events(every[1].seq, 2) == every[2:4]
        assert await store.last_event() == every[-1].seq
        await store.insert(job(transfer(2)))
        assert await store.events(0, 100, planned.job_id) == every


async def test_pruning_keeps_the_newest_and_never_turns_the_cursor_back(database: Stores) -> None:
    async with database.open() as store:
        for n in range(10):
            await store.insert(job(transfer(n)))
        newest = await store.last_event()
        await store.prune_events(3)
        assert [e.seq for e in await store.events(0, 100)] == [newest - 2, newest - 1, newest]
        await store.prune_events(0)
        assert await store.events(0, 100) == []
        await store.insert(job(transfer(11)))
        assert await store.last_event() == newest + 1


# Others


async def test_what_does_not_exist_is_said_so(database: Stores) -> None:
    async with database.open() as store:
        nobody = JobId("nobody")
        for ask in (
            store.job(nobody),
            store.files(nobody),
            store.file(FileId(1)),
            store.attempts(nobody, FileId(1)),
            store.cancel(nobody, NOW),
            store.set_priority(nobody, 3),
        ):
            with pytest.raises(NotFound):
                await ask
        assert await store.jobs_by_id([nobody], files=True) == {}


async def test_jobs_are_found_by_what_they_are(database: Stores) -> None:
    async with database.open() as store:
        await store.insert(job(transfer(1), vo="cms"))
        ended = job(transfer(2), vo="atlas")
        (order,) = await started(store, ended)
        await settled(store, order, DONE)
        vos = {view.vo for view in await store.jobs(JobFilter(open_only=True))}
        assert vos == {"cms"}
        (found,) = await store.jobs(JobFilter(states=frozenset({JobState.FINISHED})))
        assert found.job_id == ended.job_id
        assert len(await store.jobs(JobFilter(dest_se="https://dst.org"))) == 2
        assert len(await store.jobs(JobFilter(limit=1))) == 1


async def test_a_database_serves_one_engine(durable: Stores) -> None:
    async with durable.open():
        with pytest.raises(StoreLocked):
            await durable.make("two").open()
    async with durable.open("two"):
        pass


async def test_a_closed_store_says_so(database: Stores) -> None:
    async with database.open() as store:
        await store.insert(job(transfer(1)))
    with pytest.raises(StoreUnavailable):
        await store.insert(job(transfer(2)))
