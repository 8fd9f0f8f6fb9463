"""What every store promises of cancelling, deadlines, priorities, and of what a dead engine left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.stores import (
    AGAIN,
    DONE,
    DURABLE,
    KINDS,
    NEVER,
    NOW,
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
from transfer_engine.model import Cleaned, FileId, JobOptions
from transfer_engine.states import FileState, JobState, JobType

pytestmark = pytest.mark.asyncio
S = FileState
LATE = JobOptions(deadline_at=NOW + 100)


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


# Cancel


async def test_cancel_of_a_waiting_job_ends_it_and_takes_back_what_was_ready(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1), transfer(2))
        await store.insert(planned)
        canceled = await store.cancel(planned.job_id, NOW + 1)
        assert (canceled.n_canceled, canceled.running, canceled.was_terminal) == (2, (), False)
        assert [s.n_ready for s in canceled.shifts] == [-2]
        assert await ready(store) == {}
        view = await store.job(planned.job_id)
        assert (view.state, view.n_canceled, view.finished_at) == (JobState.CANCELED, 2, NOW + 1)
        assert view.cancel_requested
        again = await store.cancel(planned.job_id, NOW + 2)
        assert (again.n_canceled, again.was_terminal, again.shifts) == (0, True, ())


async def test_cancel_of_every_state(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n) for n in range(7)))
        shift = (await store.insert(planned)).shifts
        finished, failed, lost, active, retrying, gone = await claim(store, shift, 6)
        await settled(store, finished, DONE)
        await settled(store, failed, NEVER)
        await settled(store, lost, UNKNOWN)
        await settled(store, retrying, AGAIN)
        await store.cancel(planned.job_id, NOW, [gone.file_id])
        assert await states(store, planned) == [
            S.FINISHED, S.FAILED, S.VERIFYING, S.ACTIVE, S.SUBMITTED, S.CANCELING, S.SUBMITTED,
        ]  # fmt: skip
        canceled = await store.cancel(planned.job_id, NOW)
        assert canceled.n_canceled == 4
        assert set(canceled.running) == {(lost.file_id, 1), (active.file_id, 1)}
        assert [s.n_ready for s in canceled.shifts] == [-1]
        assert await states(store, planned) == [
            S.FINISHED, S.FAILED, S.CANCELING, S.CANCELING, S.CANCELED, S.CANCELING, S.CANCELED,
        ]  # fmt: skip
        view = await store.job(planned.job_id)
        assert (view.state, view.n_finished, view.n_failed, view.n_canceled) == (JobState.FINISHEDDIRTY, 1, 1, 5)
        for order in (lost, active, gone):
            late = await settled(store, order, DONE)
            assert (late.won, late.state) == (False, S.CANCELING)
            assert (await settled(store, order, Cleaned(clean=True))).state is S.CANCELED
        assert (await store.job(planned.job_id)).n_canceled == 5
        assert (await store.backlog()).next_due_at is None


async def test_cancel_of_some_says_their_states_and_leaves_the_others(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1), transfer(2))
        await store.insert(planned)
        one, two = await store.files(planned.job_id)
        canceled = await store.cancel(planned.job_id, NOW, [one.file_id, FileId(999)])
        assert canceled.states == ((one.file_id, S.CANCELED),)
        view = await store.job(planned.job_id)
        assert (view.state, view.n_canceled, view.cancel_requested) == (JobState.SUBMITTED, 1, False)
        await store.cancel(planned.job_id, NOW, [two.file_id])
        assert (await store.job(planned.job_id)).state is JobState.CANCELED


async def test_the_replicas_of_one_file_are_cancelled_as_one(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=3))
        (order,) = await started(store, planned)
        await settled(store, order, NEVER)
        await store.cancel(planned.job_id, NOW)
        assert await states(store, planned) == [S.FAILED, S.CANCELED, S.CANCELED]
        view = await store.job(planned.job_id)
        assert (view.state, view.n_canceled, view.n_failed) == (JobState.CANCELED, 1, 0)


async def test_the_unused_replicas_of_a_finished_file_stay_unused(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=2), transfer(2, sources=2))
        one, _two = await started(store, planned)
        await settled(store, one, DONE)
        await store.cancel(planned.job_id, NOW)
        assert await states(store, planned) == [S.FINISHED, S.NOT_USED, S.CANCELING, S.CANCELED]
        assert (await store.job(planned.job_id)).state is JobState.CANCELED


@pytest.mark.parametrize("hop", [0, 1, 2])
async def test_cancelling_any_hop_ends_the_whole_route(database: Stores, hop: int) -> None:
    """A route without one of its hops leads nowhere, and the hop before it must not wake it up."""
    async with database.open() as store:
        planned = job(*route(3), job_type=JobType.MULTIHOP)
        (first,) = await started(store, planned)
        files = await store.files(planned.job_id)
        canceled = await store.cancel(planned.job_id, NOW, [files[hop].file_id])
        assert canceled.running == ((first.file_id, 1),)
        assert await states(store, planned) == [S.CANCELING, S.CANCELED, S.CANCELED]
        view = await store.job(planned.job_id)
        assert (view.state, view.n_canceled) == (JobState.CANCELED, 3)
        assert not (await settled(store, first, DONE)).won
        assert (await settled(store, first, Cleaned(clean=True))).won


async def test_cancel_after_a_hop_keeps_what_is_done(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*route(3), job_type=JobType.MULTIHOP)
        (first,) = await started(store, planned)
        await settled(store, first, DONE)
        await store.cancel(planned.job_id, NOW)
        assert await states(store, planned) == [S.FINISHED, S.CANCELED, S.CANCELED]
        assert (await store.job(planned.job_id)).state is JobState.CANCELED


# Deadlines


async def test_what_waits_at_its_deadline_is_cancelled_and_what_runs_goes_on(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n) for n in range(3)), options=LATE)
        running, retrying = await claim(store, (await store.insert(planned)).shifts, 2)
        await settled(store, retrying, AGAIN)
        assert await store.expire(NOW + 99, 10) == ([], NOW + 100)
        (canceled,), following = await store.expire(NOW + 100, 10)
        assert (canceled.n_canceled, canceled.running, following) == (2, (), NOW + 130)
        assert await states(store, planned) == [S.ACTIVE, S.CANCELED, S.CANCELED]
        assert (await store.job(planned.job_id)).state is JobState.ACTIVE
        assert (await settled(store, running, DONE)).job_ended
        view = await store.job(planned.job_id)
        assert (view.state, view.cancel_requested) == (JobState.CANCELED, False)


async def test_expire_takes_so_many_jobs_at_a_time(database: Stores) -> None:
    async with database.open() as store:
        for n in range(5):
            await store.insert(job(transfer(n), options=JobOptions(deadline_at=NOW + n)))
        first, following = await store.expire(NOW + 3, 2)
        assert (len(first), following) == (2, NOW + 2)
        second, following = await store.expire(NOW + 3, 10)
        assert (len(second), following) == (2, NOW + 4)


async def test_what_comes_to_wait_after_its_deadline_is_cancelled_too(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=2), options=LATE)
        (order,) = await started(store, planned)
        assert await store.expire(NOW + 100, 10) != ([], None)
        await settled(store, order, NEVER)
        (canceled,), following = await store.expire(NOW + 130, 10)
        assert (canceled.n_canceled, sum(s.n_ready for s in canceled.shifts), following) == (1, -1, None)
        assert (await store.job(planned.job_id)).state is JobState.CANCELED


@pytest.mark.parametrize("n_done", [0, 1])
async def test_a_route_under_way_outlives_its_deadline(database: Stores, n_done: int) -> None:
    async with database.open() as store:
        planned = job(*route(3), job_type=JobType.MULTIHOP, options=LATE)
        (order,) = await started(store, planned)
        for _ in range(n_done):
            (order,) = await claim(store, (await settled(store, order, DONE)).shifts)
        await store.expire(NOW + 100, 10)
        assert (await store.job(planned.job_id)).state is JobState.ACTIVE
        while not (applied := await settled(store, order, DONE)).job_ended:
            (order,) = await claim(store, applied.shifts)
        assert (await store.job(planned.job_id)).state is JobState.FINISHED


async def test_a_replica_that_runs_at_the_deadline_keeps_its_successors(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=2), options=LATE)
        (order,) = await started(store, planned)
        await store.expire(NOW + 100, 10)
        (second,) = await claim(store, (await settled(store, order, NEVER)).shifts)
        assert (await settled(store, second, DONE)).job_ended


# Priorities


async def test_a_new_priority_moves_what_waits(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1), transfer(2, sources=2), transfer(3))
        (shift,) = (await store.insert(planned)).shifts
        assert shift.n_ready == 3
        (order,) = await claim(store, [shift], 1)
        shifts = await store.set_priority(planned.job_id, 5)
        assert sum(s.n_ready for s in shifts) == 0
        assert {p for _, p in await ready(store)} == {5}
        assert await claim(store, [shift]) == []
        released = await settled(store, order, NEVER)
        assert released.won
        assert (await store.set_priority(planned.job_id, 5)) == ()


async def test_a_new_priority_is_kept_through_a_retry(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1))
        (order,) = await started(store, planned)
        await settled(store, order, AGAIN)
        assert await store.set_priority(planned.job_id, 1) == ()
        (shift,) = (await store.promote(NOW + 10_000, 10)).shifts
        assert shift.priority == 1
        assert len(await claim(store, [shift])) == 1


# Take-over


async def test_what_a_dead_engine_left_is_taken_over(durable: Stores) -> None:
    async with durable.open("one") as store:
        planned = job(*(transfer(n) for n in range(6)))
        shifts = (await store.insert(planned)).shifts
        unbegun, copying, lost, canceling, canceling_unbegun = await claim(store, shifts, 5)
        for order in (copying, lost, canceling):
            assert await store.mark_copying(order.file_id, order.epoch)
        await settled(store, lost, UNKNOWN)
        await store.cancel(planned.job_id, NOW, [canceling.file_id, canceling_unbegun.file_id])
        assert await store.take_over(NOW, 10) == []
        last = await store.last_event()

    async with durable.open("two") as store:
        taken = {order.file_id: order for order in await store.take_over(NOW + 1, 10)}
        assert set(taken) == {copying.file_id, lost.file_id, canceling.file_id, canceling_unbegun.file_id}
        assert await states(store, planned) == [
            S.SUBMITTED, S.VERIFYING, S.VERIFYING, S.CANCELING, S.CANCELING, S.SUBMITTED,
        ]  # fmt: skip
        assert {o.epoch for o in taken.values()} == {2}
        assert [o.copying for o in taken.values()] == [True, True, True, False], "in the order of their numbers"
        assert [o.canceling for o in taken.values()] == [False, False, True, True]
        assert await store.take_over(NOW + 1, 10) == []
        assert list((await ready(store)).values()) == [2]
        (freed, *_) = await store.files(planned.job_id)
        assert (freed.n_failed, freed.owner) == (0, None)
        told = [(e.file_id, e.state) for e in await store.events(last, 100)]
        assert (unbegun.file_id, "SUBMITTED") in told
        assert (copying.file_id, "VERIFYING") in told

        for order in (unbegun, copying, lost):
            assert not (await settled(store, order, DONE)).won
            assert not await store.mark_copying(order.file_id, order.epoch)
        assert (await settled(store, taken[copying.file_id], DONE)).won
        assert (await settled(store, taken[canceling.file_id], Cleaned(clean=False))).state is S.CANCELED


async def test_take_over_comes_in_blocks(durable: Stores) -> None:
    async with durable.open("one") as store:
        await started(store, job(*(transfer(n) for n in range(7))))
    async with durable.open("two") as store:
        sizes = []
        while block := await store.take_over(NOW, 3):
            sizes.append(len(block))
        assert sizes == [3, 3, 1]


async def test_an_earlier_copy_is_not_forgotten_when_the_next_attempt_dies_early(durable: Stores) -> None:
    """What attempt 1 may have left is attempt 3's to take care of, though attempt 2 never began."""
    async with durable.open("one") as store:
        (order,) = await started(store, job(transfer(1)))
        dirty = await settled(store, order, UNCHARGED)
        (second,) = await claim(store, dirty.shifts)
        assert second.dest_owned
    async with durable.open("two") as store:
        assert await store.take_over(NOW, 10) == []
        (third,) = await claim(store, (await store.backlog()).shifts)
        assert third.dest_owned
        assert third.epoch > second.epoch
