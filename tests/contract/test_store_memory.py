"""What the store in memory can do beside the contract: forget."""

from __future__ import annotations

import pytest

from tests.contract.stores import AGAIN, DONE, NOW, claim, failure, job, settled, started, states, transfer
from transfer_engine.errors import Invalid, NotFound
from transfer_engine.model import Cleaned
from transfer_engine.states import FileState, JobState
from transfer_engine.store.api import JobFilter, WaitingFilter
from transfer_engine.store.memory import SIMULATION_URL, URL, MemoryStore

pytestmark = pytest.mark.asyncio


async def opened(url: str) -> MemoryStore:
    store = MemoryStore.of(url, incarnation="one", now=lambda: NOW)
    await store.open()
    return store


async def test_what_is_over_loses_its_transfers_at_once_and_itself_later() -> None:
    store = await opened(f"{URL}?jobs=2")
    done = [job(transfer(n)) for n in range(4)]
    for planned in done:
        (order,) = await started(store, planned)
        assert (await settled(store, order, DONE)).job_ended
        view = await store.job(planned.job_id)
        assert (view.state, view.n_finished) == (JobState.FINISHED, 1)
        assert await store.files(planned.job_id) == []
        with pytest.raises(NotFound):
            await store.file(order.file_id)
    assert {view.job_id for view in await store.jobs(JobFilter())} == {planned.job_id for planned in done[2:]}
    with pytest.raises(NotFound):
        await store.job(done[0].job_id)


async def test_a_cancelled_job_is_kept_until_its_attempts_have_ended() -> None:
    store = await opened(f"{URL}?jobs=0")
    planned = job(transfer(1), transfer(2))
    running, other = await started(store, planned)
    await settled(store, other, AGAIN)
    await store.cancel(planned.job_id, NOW)
    assert await states(store, planned) == [FileState.CANCELING, FileState.CANCELED]
    assert (await settled(store, running, Cleaned(clean=True))).won
    with pytest.raises(NotFound):
        await store.job(planned.job_id)
    assert (await store.backlog()).next_due_at is None
    assert store.tables.by_ref == {}


async def test_a_transfer_that_is_over_goes_before_its_job() -> None:
    store = await opened(f"{URL}?jobs=1")
    planned = job(*(transfer(n) for n in range(4)))
    one, two, three = (await claim(store, (await store.insert(planned)).shifts))[:3]
    await settled(store, one, DONE)
    await settled(store, two, DONE)
    assert await states(store, planned) == [FileState.ACTIVE, FileState.ACTIVE]
    for ask in (store.file(one.file_id), store.position(one.file_id), store.attempts(one.job_id, one.file_id)):
        with pytest.raises(NotFound):
            await ask
    late = await settled(store, one, DONE)
    assert (late.won, late.state) == (False, None)
    canceled = await store.cancel(planned.job_id, NOW, [one.file_id, three.file_id])
    assert canceled.states == ((three.file_id, FileState.CANCELING),)
    assert await store.set_priority(planned.job_id, 5) == ()
    assert await store.hold(planned.job_id, held=True) == ()
    where = WaitingFilter(endpoint="https://dst.org")
    assert await store.cancel_waiting(where, NOW, 10, failure()) == []
    await store.cancel(planned.job_id, NOW)
    view = await store.job(planned.job_id)
    assert (view.n_finished, view.n_canceled, view.state) == (2, 2, JobState.CANCELED)


async def test_numbers_go_on_after_what_was_forgotten() -> None:
    store = await opened(f"{URL}?jobs=0")
    (order,) = await started(store, job(transfer(1)))
    await settled(store, order, DONE)
    (following,) = await started(store, job(transfer(1)))
    assert following.file_id > order.file_id
    assert (await store.file(following.file_id)).state is FileState.ACTIVE


async def test_without_events_there_are_none() -> None:
    store = await opened(f"{URL}?events=no")
    (order,) = await started(store, job())
    await settled(store, order, DONE)
    assert await store.events(0, 100) == []
    assert await store.last_event() == 0


async def test_what_is_no_longer_ready_does_not_pile_up() -> None:
    store = await opened(URL)
    planned = job(*(transfer(n) for n in range(100)))
    await store.insert(planned)
    for _ in range(50):
        await store.hold(planned.job_id, held=True)
        (shift,) = await store.hold(planned.job_id, held=False)
    (bucket,) = store.tables.buckets.values()
    assert shift.n_ready == bucket.n == 100
    assert len(bucket.ids) < 300
    assert [order.file_index for order in await claim(store, [shift])] == list(range(100))


@pytest.mark.parametrize("url", [URL, SIMULATION_URL, f"{URL}?jobs=5", f"{URL}?events=yes"])
async def test_urls(url: str) -> None:
    await (await opened(url)).close()


@pytest.mark.parametrize("url", ["memory://x", "memory://?jobs=-1", "memory://?jobs=", "memory://?events=1", "memory:"])
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(Invalid):
        MemoryStore.of(url, incarnation="one", now=lambda: NOW)
