"""Bans, drain and holds on real stores: what is cancelled, what waits, what a restart remembers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from transfer_engine import submission
from transfer_engine.banning import CANCEL_BLOCK, SWEEP_S, Hooks, Moving
from transfer_engine.clock import Deps
from transfer_engine.control import Control
from transfer_engine.errors import Banned, Conflict, Invalid, NotFound, StoreUnavailable
from transfer_engine.model import Assignment, Claim, JobId, JobRequest, PlannedJob, Shift, Transfer
from transfer_engine.places import Place
from transfer_engine.reasons import Why
from transfer_engine.states import JobState, JobType
from transfer_engine.store.api import Canceled
from transfer_engine.store.memory import MemoryStore
from transfer_engine.store.sqlite import SqliteStore

pytestmark = pytest.mark.asyncio

T = TypeVar("T")
NOW = 1_700_000_000.0
Stores = SqliteStore | MemoryStore


@dataclass
class Clock:
    at: float = NOW

    def now(self) -> float:
        return self.at


@dataclass
class Node:
    """A store and its control, with a dispatcher that only counts."""

    store: Stores
    clock: Clock
    moving: list[Moving] = field(default_factory=list)
    ready: Counter[str] = field(default_factory=Counter)
    told: list[Canceled] = field(default_factory=list)
    n_caps: int = 0
    n_ids: int = 0
    control: Control = field(init=False)

    def __post_init__(self) -> None:
        hooks = Hooks(
            on_caps=self._caps,
            on_shifts=self._shifts,
            on_canceled=self._canceled,
            moving=lambda: list(self.moving),
            write=self._write,
        )
        self.control = Control(store=self.store, reader=self.store, deps=Deps(clock=self.clock), hooks=hooks)

    def _caps(self) -> None:
        self.n_caps += 1

    def _shifts(self, shifts: Sequence[Shift]) -> None:
        for shift in shifts:
            self.ready[shift.queue.source_se] += shift.n_ready

    def _canceled(self, canceled: Canceled) -> None:
        self.told.append(canceled)
        self._shifts(canceled.shifts)
        stopped = {file_id for file_id, _ in canceled.running}
        self.moving = [one for one in self.moving if one.order.file_id not in stopped]

    async def _write(self, write: Callable[[], Awaitable[T]], then: Callable[[T], None]) -> T:
        async def both() -> T:
            result = await write()
            then(result)
            return result

        return await asyncio.shield(asyncio.get_running_loop().create_task(both()))

    def plan(self, *transfers: Transfer, **more: Any) -> PlannedJob:
        self.n_ids += 1
        request = JobRequest(transfers=transfers, **more)
        new_id = f"00000000-0000-4000-8000-{self.n_ids:012}"
        return submission.plan(request, now=self.clock.at, new_id=new_id, schemes={"https", "davs", "root"})

    async def submit(self, *transfers: Transfer, **more: Any) -> JobId:
        planned = self.plan(*transfers, **more)
        self.control.check(planned)
        inserted = await self.store.insert(planned)
        self._shifts(inserted.shifts)
        return inserted.job_id

    async def claim(self, n: int = 100) -> list[Assignment]:
        backlog = await self.store.backlog()
        claims = [Claim(shift.queue.id, shift.priority, n) for shift in backlog.shifts]
        orders = await self.store.claim(claims, self.clock.at)
        for order in orders:
            self.ready[order.queue.source_se] -= 1
            self.moving.append(Moving(order=order, bytes_done=0, size_bytes=None, since_s=0))
        return orders

    async def files(self, job_id: JobId) -> list[str]:
        return [file.state.value for file in await self.store.files(job_id)]

    async def job(self, job_id: JobId) -> JobState:
        return (await self.store.job(job_id)).state


def one(n: int = 0, source: str = "https://a", destination: str = "https://b") -> Transfer:
    return Transfer.of(f"{source}:8443/f{n}", f"{destination}:8443/f{n}")


@asynccontextmanager
async def node(kind: str) -> AsyncIterator[Node]:
    clock = Clock()
    store: Stores
    if kind == "sqlite":
        store = SqliteStore("sqlite://", incarnation="test", now=clock.now, inline=True)
    else:
        store = MemoryStore(incarnation="test", now=clock.now)
    await store.open()
    try:
        made = Node(store, clock)
        await made.control.load()
        yield made
    finally:
        await store.close()


both = pytest.mark.parametrize("kind", ["sqlite", "memory"])


@both
async def test_a_ban_closes_and_lifting_it_opens(kind: str):
    async with node(kind) as at:
        assert at.control.caps(NOW) == {}
        before = at.n_caps
        done = await at.control.ban("HTTPS://A", message="disk broken", by="eva")
        assert (done.ban.endpoint, done.job_ids) == ("https://a", ())
        assert at.n_caps > before
        caps = at.control.caps(NOW)
        assert caps[Place("out", "davs://a")].reason.code is Why.BAN
        assert at.control.caps(NOW + 1) is caps
        assert await at.control.unban("davs://a")
        assert not await at.control.unban("davs://a")
        assert at.control.caps(NOW) == {}


@both
async def test_a_ban_replaces_one_of_the_same_storage_and_vo(kind: str):
    async with node(kind) as at:
        await at.control.ban("https://a", message="first")
        await at.control.ban("davs://a", message="second", for_s=10)
        await at.control.ban("https://a", vo="cms")
        assert [(ban.endpoint, ban.vo, ban.message) for ban in at.control.bans()] == [
            ("davs://a", None, "second"),
            ("https://a", "cms", ""),
        ]
        assert sorted(await at.store.bans(), key=str) == sorted(at.control.bans(), key=str)


@both
async def test_submissions_to_a_banned_storage_are_refused(kind: str):
    async with node(kind) as at:
        await at.control.ban("https://a", vo="cms", message="disk broken")
        await at.submit(one(1))
        with pytest.raises(Banned, match=r"^https://a is banned for VO cms by local since .*: disk broken$"):
            await at.submit(one(2, "https://c"), one(3), vo="cms")
        with pytest.raises(Banned, match=r"^davs://a is banned"):
            at.control.check(JobRequest(transfers=(one(4, "https://c", "davs://a"),), vo="cms"))
        with pytest.raises(Invalid, match="destinations"):
            at.control.check(JobRequest(transfers=(Transfer.of("https://a/x", "nonsense"),), vo="cms"))
        await at.control.ban("https://a", vo="cms", allow_submit=True)
        await at.submit(one(2), vo="cms")


@both
async def test_a_ban_that_cancels_leaves_nothing_waiting(kind: str):
    async with node(kind) as at:
        n = 2 * CANCEL_BLOCK + 7
        ids = [await at.submit(one(i)) for i in range(n)]
        other = await at.submit(one(n, "https://c", "https://d"))
        await at.control.hold(ids[0])
        done = await at.control.ban("davs://b", cancel=True)
        assert set(done.job_ids) == set(ids)
        assert {await at.job(job_id) for job_id in ids} == {JobState.CANCELED}
        (file,) = await at.store.files(ids[0])
        assert file.failure is not None
        assert file.failure["message"] == "Storage banned"
        assert "davs://b is banned by local" in file.failure["hint"]
        assert await at.files(other) == ["SUBMITTED"]
        assert at.ready == {"https://a": 0, "https://c": 1}


@both
async def test_what_runs_is_stopped_too_and_replicas_elsewhere_are_used(kind: str):
    async with node(kind) as at:
        single = await at.submit(one(1))
        (order,) = await at.claim()
        replicas = await at.submit(Transfer(sources=("https://a/r", "https://c/r"), destination="https://b/r"))
        running = await at.submit(Transfer(sources=("https://a/s", "https://c/s"), destination="https://b/s"))
        last = await at.submit(Transfer(sources=("https://c/t", "https://a/t"), destination="https://b/t"))
        route = await at.submit(
            Transfer.of("https://c/u", "https://a/u"),
            Transfer.of("https://a/u", "https://d/u"),
            job_type=JobType.MULTIHOP,
        )
        taken = [one_ for one_ in await at.claim() if one_.job_id == running]
        at.moving = [m for m in at.moving if m.order.job_id in {single, running, route}]
        done = await at.control.ban("https://a", cancel=True)
        assert await at.files(single) == ["CANCELING"]
        assert (order.file_id, order.epoch) in {pair for told in at.told for pair in told.running}
        assert await at.files(running) == ["ACTIVE", "NOT_USED"]
        assert taken
        assert set(await at.files(route)) == {"CANCELING", "CANCELED"}
        assert running not in done.job_ids
        assert {replicas, last}.isdisjoint(done.job_ids)


@both
async def test_waiting_files_go_on_with_another_replica(kind: str):
    async with node(kind) as at:
        job_id = await at.submit(Transfer(sources=("https://a/r", "https://c/r"), destination="https://b/r"))
        lost = await at.submit(Transfer(sources=("https://a/q", "davs://a/q"), destination="https://b/q"))
        done = await at.control.ban("https://a", cancel=True)
        assert set(done.job_ids) == {job_id, lost}
        assert sorted(await at.files(job_id)) == ["CANCELED", "SUBMITTED"]
        assert await at.job(job_id) is JobState.SUBMITTED
        assert await at.job(lost) is JobState.CANCELED
        assert +at.ready == {"https://c": 1}


@both
async def test_a_claim_that_was_under_way_is_seen_by_the_next_look(kind: str):
    async with node(kind) as at:
        first, second = await at.submit(one(1)), await at.submit(one(2))
        late = await at.claim(1)
        hidden, at.moving = at.moving, []
        tell = at._canceled

        def canceled(news: Canceled) -> None:
            tell(news)
            at.moving += hidden
            hidden.clear()

        object.__setattr__(at.control._bans._hooks, "on_canceled", canceled)
        done = await at.control.ban("https://a", cancel=True)
        assert set(done.job_ids) == {first, second}
        assert late[0].file_id in {file_id for told in at.told for file_id, _ in told.running}


@both
async def test_what_comes_to_wait_later_is_cancelled_by_the_timer(kind: str):
    async with node(kind) as at:
        await at.control.ban("https://a", cancel=True)
        assert at.control.next_change_at() == NOW + SWEEP_S
        # A submission whose check was made before the ban.
        inserted = await at.store.insert(at.plan(one(1)))
        at._shifts(inserted.shifts)
        at.clock.at = NOW + SWEEP_S
        await at.control.on_time(at.clock.at)
        assert await at.job(inserted.job_id) is JobState.CANCELED
        assert at.control.next_change_at() == NOW + 2 * SWEEP_S
        await at.control.unban("https://a")
        assert at.control.next_change_at() is None


@both
async def test_a_ban_runs_out_by_itself(kind: str):
    async with node(kind) as at:
        await at.control.ban("https://a", for_s=3600)
        await at.control.ban("https://b", until=NOW + 60)
        assert at.control.next_change_at() == NOW + 60
        at.clock.at = NOW + 60
        assert Place("in", "https://b") not in at.control.caps(NOW + 60)
        # Whoever looks late still learns that something has changed.
        assert at.control.next_change_at() == NOW + 60
        before = at.n_caps
        await at.control.on_time(NOW + 60)
        assert at.n_caps > before
        assert [ban.endpoint for ban in await at.store.bans()] == ["https://a"]
        assert at.control.next_change_at() == NOW + 3600


@both
async def test_drain(kind: str):
    async with node(kind) as at:
        await at.submit(one(1))
        await at.claim()
        order = at.moving[0].order
        at.moving = [
            Moving(order=order, bytes_done=500, size_bytes=1000, since_s=10),
            Moving(order=order, bytes_done=0, size_bytes=2000, since_s=1),
            Moving(order=order, bytes_done=0, size_bytes=None, since_s=1),
        ]
        drain = await at.control.drain(by="eva")
        assert (drain.on, drain.since, drain.by, drain.n_running, drain.eta_s) == (True, NOW, "eva", 3, 40)
        cap = at.control.caps(NOW)[Place("node", "")]
        assert (cap.limit, cap.reason.code) == (0, Why.DRAINING)
        assert "by order of eva since 2023-11-14T22:13:20Z" in cap.reason.text
        at.clock.at = NOW + 5
        assert (await at.control.drain(by="max")).by == "eva"
        at.moving = at.moving[1:]
        assert at.control.draining().eta_s is None
        at.moving = []
        assert at.control.draining().eta_s == 0
        assert not (await at.control.drain(False)).on
        assert at.control.caps(NOW) == {}


@both
async def test_hold_and_resume_change_what_is_ready(kind: str):
    async with node(kind) as at:
        job_id = await at.submit(one(1), one(2))
        await at.control.hold(job_id)
        await at.control.hold(job_id)
        assert +at.ready == {}
        assert await at.claim() == []
        await at.control.resume(job_id)
        await at.control.resume(job_id)
        assert +at.ready == {"https://a": 2}
        with pytest.raises(NotFound):
            await at.control.hold(JobId("nope"))
        await at.store.cancel(job_id, NOW)
        with pytest.raises(Conflict, match="it is CANCELED"):
            await at.control.hold(job_id)


@both
async def test_a_user_is_banned(kind: str):
    async with node(kind) as at:
        mine = await at.submit(one(1), user_dn="/CN=eva")
        yours = await at.submit(one(2), user_dn="/CN=max")
        assert await at.control.ban_user("/CN=eva", message="floods", by="op") == (mine,)
        assert [await at.job(job_id) for job_id in (mine, yours)] == [JobState.CANCELED, JobState.SUBMITTED]
        with pytest.raises(Banned, match=r"^The user has been banned by op since .*: floods$"):
            await at.submit(one(3), user_dn="/CN=eva")
        assert [ban.user_dn for ban in at.control.banned_users()] == ["/CN=eva"]
        assert await at.control.unban_user("/CN=eva")
        assert not await at.control.unban_user("/CN=eva")
        await at.submit(one(3), user_dn="/CN=eva")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"endpoint": "a"}, "endpoint"),
        ({"vo": ""}, "vo"),
        ({"vo": "x" * 256}, "vo"),
        ({"by": ""}, "by"),
        ({"cancel": True, "allow_submit": True}, "allow_submit"),
        ({"for_s": 0}, "for_s"),
        ({"for_s": float("nan")}, "for_s"),
        ({"for_s": float("inf")}, "for_s"),
        ({"until": NOW}, "until"),
        ({"until": float("nan")}, "until"),
        ({"until": float("inf")}, "until"),
        ({"until": NOW + 1, "for_s": 1}, "until"),
        ({"message": "x" * 1001}, "message"),
        ({"message": "\x07"}, "message"),
    ],
)
async def test_bad_orders_name_the_argument(arguments: dict[str, Any], name: str):
    async with node("memory") as at:
        with pytest.raises(Invalid) as caught:
            await at.control.ban(**{"endpoint": "https://a", **arguments})
        assert caught.value.field == name
        assert await at.store.bans() == []


async def test_what_was_ordered_survives_a_restart(tmp_path: Path):
    clock = Clock()
    url = f"sqlite:///{tmp_path / 'queue.db'}"

    def opened(incarnation: str) -> SqliteStore:
        return SqliteStore(url, incarnation=incarnation, now=clock.now, inline=True)

    store = opened("one")
    await store.open()
    first = Node(store, clock)
    await first.control.load()
    await first.control.ban("https://a", message="for ever")
    await first.control.ban("https://c", for_s=10)
    await first.control.ban("https://d", cancel=True)
    await first.control.ban_user("/CN=eva")
    await first.control.drain(by="eva")
    # The process dies between the order and the last block of what it cancels.
    late = (await store.insert(first.plan(one(1, "https://d")))).job_id
    held = (await store.insert(first.plan(one(2, "https://x"), user_dn="/CN=eva"))).job_id
    await store.close()

    clock.at = NOW + 100
    store = opened("two")
    await store.open()
    try:
        second = Node(store, clock)
        await second.control.load()
        assert [ban.endpoint for ban in second.control.bans()] == ["https://a", "https://d"]
        assert [ban.endpoint for ban in await store.bans()] == ["https://a", "https://d"]
        drain = second.control.draining()
        assert (drain.on, drain.since, drain.by) == (True, NOW, "eva")
        assert Place("node", "") in second.control.caps(clock.at)
        assert second.control.banned_users()[0].user_dn == "/CN=eva"
        assert [await second.job(job_id) for job_id in (late, held)] == [JobState.CANCELED] * 2
        assert second.told == []
        assert (await store.backlog()).shifts == ()
    finally:
        await store.close()


class Failing(MemoryStore):
    """Cannot answer while `broken` names the call."""

    broken: str | None = None

    async def put_ban(self, ban: Any) -> None:
        self._fail("put_ban")
        await super().put_ban(ban)

    async def cancel_waiting(self, *args: Any, **more: Any) -> list[Canceled]:
        self._fail("cancel_waiting")
        return await super().cancel_waiting(*args, **more)

    def _fail(self, call: str) -> None:
        if self.broken == call:
            raise StoreUnavailable("the disk is full")


async def test_a_store_that_cannot_answer():
    clock = Clock()
    store = Failing(incarnation="test", now=clock.now)
    await store.open()
    at = Node(store, clock)
    await at.control.load()
    job_id = await at.submit(one(1))
    store.broken = "put_ban"
    with pytest.raises(StoreUnavailable):
        await at.control.ban("https://a", cancel=True)
    assert at.control.caps(NOW) == {}
    store.broken = "cancel_waiting"
    with pytest.raises(StoreUnavailable):
        await at.control.ban("https://a", cancel=True)
    # The ban stands, and what is left of it is done by the timer.
    assert at.control.caps(NOW)
    assert await at.job(job_id) is JobState.SUBMITTED
    store.broken = None
    clock.at = at.control.next_change_at() or 0
    await at.control.on_time(clock.at)
    assert await at.job(job_id) is JobState.CANCELED
    await store.close()


async def test_lifting_a_ban_ends_its_cancelling():
    async with node("memory") as at:
        ids = [await at.submit(one(i)) for i in range(3 * CANCEL_BLOCK)]
        blocks = 0
        plain = at.store.cancel_waiting

        async def counted(*args: Any) -> list[Canceled]:
            nonlocal blocks
            done = await plain(*args)
            if done:
                blocks += 1
                await at.control.unban("https://a")
            return done

        at.store.cancel_waiting = counted  # type: ignore[method-assign]
        done = await at.control.ban("https://a", cancel=True)
        assert blocks == 1
        assert len(done.job_ids) == CANCEL_BLOCK
        assert sum([await at.job(job_id) is JobState.CANCELED for job_id in ids]) == CANCEL_BLOCK


async def test_who_stops_waiting_stops_nothing():
    async with node("memory") as at:
        job_id = await at.submit(one(1))
        task = asyncio.get_running_loop().create_task(at.control.ban("https://a", cancel=True))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(20):
            await asyncio.sleep(0)
        assert await at.job(job_id) is JobState.CANCELED
        assert +at.ready == {}
