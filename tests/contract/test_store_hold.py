"""What every store promises of jobs on hold, bans, and texts that it keeps."""

from __future__ import annotations

import asyncio
from dataclasses import replace
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
from transfer_engine.errors import NotFound
from transfer_engine.model import JobId, JobOptions
from transfer_engine.places import Ban
from transfer_engine.states import FileState, JobState, JobType

pytestmark = pytest.mark.asyncio
S = FileState


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


# Hold


async def test_what_waits_of_a_held_job_cannot_be_claimed_until_it_goes_on(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, size_bytes=5), transfer(2, size_bytes=7), transfer(3, size_bytes=0))
        inserted = await store.insert(planned)
        assert not (await store.job(planned.job_id)).held
        (gone,) = await store.hold(planned.job_id, held=True)
        assert (gone.n_ready, gone.n_bytes, gone.priority) == (-3, -12, 3)
        assert (await store.job(planned.job_id)).held
        assert [f.retry_at for f in await store.files(planned.job_id)] == [None] * 3
        backlog = await store.backlog()
        assert (backlog.shifts, backlog.next_due_at) == ((), None)
        assert await claim(store, inserted.shifts) == []
        assert (await store.promote(1e300, 10)).shifts == ()
        assert await store.hold(planned.job_id, held=False) == inserted.shifts
        assert not (await store.job(planned.job_id)).held
        assert len(await claim(store, inserted.shifts)) == 3


async def test_to_hold_twice_or_go_on_twice_changes_nothing(database: Stores) -> None:
    async with database.open() as store:
        planned = job()
        await store.insert(planned)
        assert await store.hold(planned.job_id, held=False) == ()
        await store.hold(planned.job_id, held=True)
        assert await store.hold(planned.job_id, held=True) == ()
        assert len(await store.hold(planned.job_id, held=False)) == 1
        assert await store.hold(planned.job_id, held=False) == ()
        with pytest.raises(NotFound):
            await store.hold(JobId("nobody"), held=True)


async def test_a_job_that_is_over_is_not_held(database: Stores) -> None:
    async with database.open() as store:
        ended, canceled = job(transfer(1)), job(transfer(2))
        (order,) = await started(store, ended)
        await settled(store, order, DONE)
        assert await store.hold(ended.job_id, held=True) == ()
        assert not (await store.job(ended.job_id)).held
        await store.insert(canceled)
        await store.hold(canceled.job_id, held=True)
        assert (await store.cancel(canceled.job_id, NOW)).shifts == ()
        view = await store.job(canceled.job_id)
        assert (view.state, view.held) == (JobState.CANCELED, False)


@pytest.mark.parametrize("outcome", [AGAIN, RELEASED])
async def test_what_runs_goes_on_and_its_next_try_waits(database: Stores, outcome: stores.Outcome) -> None:
    async with database.open() as store:
        planned = job(transfer(1, size_bytes=3), transfer(2))
        order, other = await started(store, planned, copying=False)
        assert await store.hold(planned.job_id, held=True) == ()
        applied = await settled(store, order, outcome)
        assert (applied.won, applied.shifts, applied.state) == (True, (), S.SUBMITTED)
        assert (await store.backlog()).next_due_at is None
        assert (await store.file(order.file_id)).retry_at is None
        assert (await settled(store, other, DONE)).won
        (shift,) = await store.hold(planned.job_id, held=False)
        assert (shift.n_ready, shift.n_bytes) == (1, 3)
        (again,) = await claim(store, [shift])
        assert (again.file_id, again.epoch) == (order.file_id, 2)


async def test_a_retry_that_waited_is_ready_when_its_job_goes_on(database: Stores) -> None:
    async with database.open() as store:
        planned = job()
        (order,) = await started(store, planned)
        await settled(store, order, AGAIN)
        assert (await store.file(order.file_id)).retry_at is not None
        assert await store.hold(planned.job_id, held=True) == ()
        assert (await store.promote(NOW + 1e9, 10)).shifts == ()
        assert [s.n_ready for s in await store.hold(planned.job_id, held=False)] == [1]


async def test_what_is_on_hold_does_not_hide_a_retry_that_is_due(database: Stores) -> None:
    async with database.open() as store:
        held = job(transfer(1), vo="held")
        await store.insert(held)
        await store.hold(held.job_id, held=True)
        (order,) = await started(store, job(transfer(2)))
        await settled(store, order, AGAIN)
        due = (await store.backlog()).next_due_at
        assert due is not None
        assert due < NOW + 1e6
        promoted = await store.promote(due, 10)
        assert ([s.n_ready for s in promoted.shifts], promoted.next_due_at) == ([1], None)


async def test_the_next_replica_or_hop_of_a_held_job_waits(database: Stores) -> None:
    async with database.open() as store:
        for planned, outcome in (
            (job(transfer(1, sources=2)), NEVER),
            (job(*route(2), job_type=JobType.MULTIHOP), DONE),
        ):
            (order,) = await started(store, planned)
            await store.hold(planned.job_id, held=True)
            applied = await settled(store, order, outcome)
            assert (applied.shifts, applied.job_ended) == ((), False)
            assert (await states(store, planned))[1] is S.SUBMITTED
            assert await ready(store) == {}
            (second,) = await claim(store, await store.hold(planned.job_id, held=False))
            assert (await settled(store, second, DONE)).job_ended


async def test_a_held_job_gets_another_priority_and_meets_its_deadline(database: Stores) -> None:
    async with database.open() as store:
        planned = job(options=JobOptions(deadline_at=NOW + 5))
        await store.insert(planned)
        await store.hold(planned.job_id, held=True)
        assert await store.set_priority(planned.job_id, 5) == ()
        (shift,) = await store.hold(planned.job_id, held=False)
        assert shift.priority == 5
        await store.hold(planned.job_id, held=True)
        (canceled,), _ = await store.expire(NOW + 6, 10)
        assert (canceled.n_canceled, canceled.shifts) == (1, ())


async def test_a_hold_outlives_the_engine_and_so_does_what_was_claimed(durable: Stores) -> None:
    async with durable.open("one") as store:
        planned = job(transfer(1), transfer(2))
        (shift,) = (await store.insert(planned)).shifts
        await claim(store, [shift], 1)
        await store.hold(planned.job_id, held=True)
    async with durable.open("two") as store:
        assert await store.take_over(NOW, 10) == []
        assert await states(store, planned) == [S.SUBMITTED] * 2
        backlog = await store.backlog()
        assert (backlog.shifts, backlog.next_due_at) == ((), None)
        assert (await store.job(planned.job_id)).held
        assert [s.n_ready for s in await store.hold(planned.job_id, held=False)] == [2]


# Bans


BAN = Ban(
    endpoint="https://src0.org",
    vo=None,
    cancel=False,
    allow_submit=True,
    until=NOW + 60,
    message="broken disks",
    by="the operator",
    since=NOW,
)


async def test_bans_are_kept_by_endpoint_and_vo(durable: Stores) -> None:
    atlas = replace(BAN, vo="atlas", cancel=True, allow_submit=False, until=None)
    other = replace(BAN, endpoint="https://a.org")
    async with durable.open("one") as store:
        assert await store.bans() == []
        for ban in (BAN, atlas, other):
            await store.put_ban(ban)
    async with durable.open("two") as store:
        assert await store.bans() == [other, BAN, atlas]
        changed = replace(BAN, message="still broken", until=None)
        await store.put_ban(changed)
        assert await store.bans() == [other, changed, atlas]
        assert await store.lift_ban(BAN.endpoint, None)
        assert not await store.lift_ban(BAN.endpoint, None)
        assert not await store.lift_ban(BAN.endpoint, "cms")
        assert await store.bans() == [other, atlas]
        assert await store.lift_ban(BAN.endpoint, "atlas")
        assert await store.bans() == [other]


# Texts


async def test_the_last_text_of_a_name_is_kept(durable: Stores) -> None:
    async with durable.open("one") as store:
        assert await store.kept("optimizer") is None
        await store.keep("optimizer", "{}")
        await store.keep("optimizer", '{"a": "é"}')
        await store.keep("other", "")
    async with durable.open("two") as store:
        assert await store.kept("optimizer") == '{"a": "é"}'
        assert await store.kept("other") == ""


async def test_of_what_comes_together_the_last_stays(database: Stores) -> None:
    async with database.open() as store:
        async with asyncio.TaskGroup() as group:
            for n in range(4):
                group.create_task(store.keep("name", f"text {n}"))
                group.create_task(store.put_ban(replace(BAN, message=f"message {n}")))
        assert await store.kept("name") == "text 3"
        assert [ban.message for ban in await store.bans()] == ["message 3"]


# Retries that need not wait


async def test_retries_of_an_endpoint_are_counted_and_called_back(database: Stores) -> None:
    async with database.open() as store:
        first = job(transfer(1, size_bytes=5), transfer(2, size_bytes=7))
        orders = await started(store, first)
        for order in orders:
            await settled(store, order, AGAIN)
        held = job(transfer(3, size_bytes=9))
        (order,) = await started(store, held)
        await settled(store, order, AGAIN)
        await store.hold(held.job_id, held=True)
        queue = orders[0].queue
        for ends in ((queue.source_se, queue.source_se), (queue.dest_se, queue.dest_se)):
            assert (await store.delayed(*ends)).n == 2
        of_link = await store.delayed(queue.source_se, queue.dest_se)
        due = [file.retry_at for file in await store.files(first.job_id) if file.retry_at is not None]
        assert (of_link.n, of_link.next_due_at) == (2, min(due))
        assert (await store.delayed(queue.dest_se, queue.source_se)).n == 0
        assert await store.hasten("https://elsewhere.org", 10) == ()
        (one,) = await store.hasten(queue.dest_se, 1)
        (other,) = await store.hasten(queue.dest_se, 10)
        assert (one.n_ready + other.n_ready, one.n_bytes + other.n_bytes) == (2, 12)
        assert (await store.delayed(queue.dest_se, queue.dest_se)).n == 0
        assert len(await claim(store, [one, other], 5)) == 2
