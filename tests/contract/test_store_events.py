"""What events keep of their moment, and what messages are made from: the same in every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.stores import (
    AGAIN,
    DONE,
    KINDS,
    NEVER,
    NOW,
    RELEASED,
    AnyStore,
    Stores,
    claim,
    failure,
    job,
    route,
    settled,
    started,
    transfer,
)
from transfer_engine.model import Cleaned, JobId, PlannedJob
from transfer_engine.states import JobType
from transfer_engine.store.api import WaitingFilter
from transfer_engine.views import NO_DETAIL, EventDetail

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyStore]:
    async with Stores(request.param, tmp_path).open() as opened:
        yield opened


async def told(store: AnyStore, planned: PlannedJob) -> list[tuple[str, EventDetail]]:
    """The events of a job's transfers."""
    return [(e.state, e.detail) for e in await store.events(0, 1000, planned.job_id) if e.file_id is not None]


def detail(**more: Any) -> EventDetail:
    return EventDetail(**more)


async def test_the_last_transfer_ends_the_job(store: AnyStore) -> None:
    planned = job(transfer(0), transfer(1))
    one, two = await started(store, planned)
    await settled(store, one, DONE)
    await settled(store, two, NEVER)
    assert await told(store, planned) == [
        ("ACTIVE", NO_DETAIL),
        ("ACTIVE", NO_DETAIL),
        ("FINISHED", NO_DETAIL),
        ("FAILED", detail(job="FINISHEDDIRTY")),
    ]


async def test_retries_are_counted(store: AnyStore) -> None:
    planned = job()
    (order,) = await started(store, planned)
    await settled(store, order, AGAIN)
    shifts = (await store.promote(NOW + 9999, 10)).shifts
    (order,) = await claim(store, shifts)
    await settled(store, order, RELEASED)
    assert await told(store, planned) == [
        ("ACTIVE", NO_DETAIL),
        ("SUBMITTED", detail(retry=1)),
        ("ACTIVE", detail(retry=1)),
        ("SUBMITTED", detail(retry=1)),
    ]


async def test_replicas_say_where_they_came_from_and_whether_another_follows(store: AnyStore) -> None:
    planned = job(transfer(sources=2))
    (order,) = await started(store, planned)
    applied = await settled(store, order, NEVER)
    (order,) = await claim(store, applied.shifts)
    await settled(store, order, NEVER)
    assert await told(store, planned) == [
        ("ACTIVE", detail(source="https://src0.org/f0")),
        ("FAILED", detail(next=True)),
        ("SUBMITTED", NO_DETAIL),
        ("ACTIVE", detail(source="https://src1.org/f0")),
        ("FAILED", detail(job="FAILED")),
    ]


async def test_hops_say_whether_another_follows(store: AnyStore) -> None:
    planned = job(*route(2), job_type=JobType.MULTIHOP)
    (order,) = await started(store, planned)
    applied = await settled(store, order, DONE)
    (order,) = await claim(store, applied.shifts)
    await settled(store, order, DONE)
    assert await told(store, planned) == [
        ("ACTIVE", NO_DETAIL),
        ("FINISHED", detail(next=True)),
        ("SUBMITTED", NO_DETAIL),
        ("ACTIVE", NO_DETAIL),
        ("FINISHED", detail(job="FINISHED")),
    ]


async def test_cancellations_say_what_was_never_used_and_what_was_seen_before(store: AnyStore) -> None:
    planned = job(transfer(sources=2))
    (order,) = await started(store, planned)
    await store.cancel(planned.job_id, NOW)
    await settled(store, order, Cleaned(clean=True))
    assert await told(store, planned) == [
        ("ACTIVE", detail(source="https://src0.org/f0")),
        ("CANCELING", NO_DETAIL),
        ("CANCELED", detail(unused=True, job="CANCELED")),
        ("CANCELED", detail(shown=True)),
    ]


async def test_a_replica_that_is_withdrawn_says_that_another_follows(store: AnyStore) -> None:
    planned = job(transfer(sources=3))
    await store.insert(planned)
    await store.cancel_waiting(WaitingFilter(endpoint="https://src0.org"), NOW, 10, failure())
    await store.cancel_waiting(WaitingFilter(endpoint="https://src2.org"), NOW, 10, failure())
    assert await told(store, planned) == [
        ("CANCELED", detail(next=True)),
        ("SUBMITTED", NO_DETAIL),
        ("CANCELED", detail(unused=True)),
    ]


async def test_transfers_by_id_and_a_few_at_a_time(store: AnyStore) -> None:
    planned = job(*(transfer(n) for n in range(7)))
    (first, *_) = await started(store, planned)
    files = await store.files(planned.job_id)
    ids = [file.file_id for file in files]
    assert await store.files_by_id([*ids[:2], 10**9]) == {file.file_id: file for file in files[:2]}  # type: ignore[list-item]
    assert files[0].claimed_at == first.claimed_at == NOW
    assert await store.files_behind(planned.job_id, 0, 3) == files[:3]
    assert await store.files_behind(planned.job_id, ids[2], 10) == files[3:]
    assert await store.files_behind(planned.job_id, ids[-1], 10) == []
    assert await store.files_behind(JobId("none"), 0, 10) == []


async def test_what_is_not_published_is_not_pruned(store: AnyStore) -> None:
    assert (await store.first_event(), await store.last_event()) == (1, 0)
    await started(store, job(*(transfer(n) for n in range(8))))
    assert (await store.first_event(), await store.last_event()) == (1, 10)
    for keep, published, first in ((4, 2, 3), (4, None, 7), (0, 9, 10), (0, 10, 11)):
        await store.prune_events(keep, published)
        assert await store.first_event() == first
    assert await store.last_event() == 10, "numbers are not used again"
    await store.prune_events(0)
    await store.insert(job(transfer(99)))
    assert [event.seq for event in await store.events(0, 10)] == [11]
