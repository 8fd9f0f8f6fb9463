"""Transfers that are claimed by their numbers, out of turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocols.errors import Again, Phase, Scope
from tests.contract.stores import KINDS, NOW, Stores, change_of, job, ready, settled, started, transfer
from transfer_engine.model import Claim, Failed, Failure, FileId
from transfer_engine.states import FileState, JobState

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=KINDS)
def stores(request, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


FAILED = Failed(
    failure=Failure(
        code="UNAVAILABLE",
        again=Again.SOON,
        scope=Scope.SOURCE,
        phase=Phase.TRANSFER,
        errno=5,
        message="down",
        hint=None,
    ),
    clean=True,
    started_at=NOW,
)


async def test_named_transfers_are_claimed_and_taken_off_what_is_ready(stores: Stores) -> None:
    async with stores.open() as store:
        planned = job(*(transfer(n) for n in range(5)))
        await store.insert(planned)
        files = [file.file_id for file in await store.files(planned.job_id)]
        forced = await store.claim_files([files[3], files[1], files[3]], NOW + 5)
        assert [order.file_id for order in forced.orders] == [files[3], files[1]]
        assert all(order.epoch == 1 and order.claimed_at == NOW + 5 and not order.copying for order in forced.orders)
        assert [shift.n_ready for shift in forced.shifts] == [-2]
        assert list((await ready(store)).values()) == [3]
        assert (await store.job(planned.job_id)).state is JobState.ACTIVE
        assert (await store.file(files[3])).state is FileState.ACTIVE
        assert (await store.claim_files([files[3]], NOW)).orders == ()
        assert [event.state for event in await store.events(0, 100, planned.job_id)][1:] == ["ACTIVE"] * 3


async def test_one_that_waits_for_a_retry_is_claimed_and_was_not_ready(stores: Stores) -> None:
    async with stores.open() as store:
        planned = job(transfer(), transfer(1))
        order, _ = await started(store, planned)
        await settled(store, order, FAILED)
        forced = await store.claim_files([order.file_id], NOW)
        assert [found.epoch for found in forced.orders] == [2]
        assert forced.shifts == ()
        assert (await store.backlog()).next_due_at is None
        assert (await store.apply(change_of(forced.orders[0], FAILED))).won


async def test_what_is_held_over_or_not_its_turn_is_passed_over(stores: Stores) -> None:
    async with stores.open() as store:
        held, hops = job(transfer(7)), job(transfer(8, sources=2))
        await store.insert(held)
        await store.insert(hops)
        await store.hold(held.job_id, held=True)
        (waits,) = await store.files(held.job_id)
        _, unused = await store.files(hops.job_id)
        assert unused.state is FileState.NOT_USED
        forced = await store.claim_files([waits.file_id, unused.file_id, FileId(999_999), FileId(0)], NOW)
        assert (forced.orders, forced.shifts) == ((), ())


async def test_a_destination_that_is_driven_is_not_driven_twice(stores: Stores) -> None:
    async with stores.open() as store:
        driven = job(transfer(1))
        await started(store, driven)
        same, twice = job(transfer(1)), [job(transfer(2)), job(transfer(2))]
        for planned in (same, *twice):
            await store.insert(planned)
        files = [(await store.files(planned.job_id))[0].file_id for planned in (same, *twice)]
        forced = await store.claim_files(files, NOW)
        assert [order.file_id for order in forced.orders] == [files[1]]


async def test_one_that_was_claimed_by_its_number_is_not_claimed_in_its_turn(stores: Stores) -> None:
    async with stores.open() as store:
        planned = job(transfer(1), transfer(2))
        inserted = await store.insert(planned)
        first, second = [file.file_id for file in await store.files(planned.job_id)]
        await store.claim_files([first], NOW)
        queue = inserted.shifts[0].queue
        orders = await store.claim([Claim(queue.id, planned.priority, 10)], NOW)
        assert [order.file_id for order in orders] == [second]
