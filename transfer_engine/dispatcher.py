"""The only loop that starts transfers: decide, claim, attempt, settle.

It wakes when something changed (a submission, an end, a retry that is due) and never scans the
queue. At most one claim is on its way to the store; slots are held from the decision until the
transfer is settled, so that no limit is ever exceeded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from transfer_engine.attempt import Tools
from transfer_engine.board import Board
from transfer_engine.clock import Deps
from transfer_engine.driving import STORE_RETRY_S, Driven, Driver, insist
from transfer_engine.errors import StoreUnavailable
from transfer_engine.governor import Governor
from transfer_engine.health import Health
from transfer_engine.limits import LimitTable
from transfer_engine.model import Applied, Assignment, Change, Done, Failed, Failure, FileId, JobId, Outcome, Shift
from transfer_engine.optimizer import Optimizer
from transfer_engine.outlook import Foresight
from transfer_engine.retry import RetryPolicy
from transfer_engine.shares import ShareTable
from transfer_engine.states import FileState
from transfer_engine.store.api import Canceled, Forced, Store

log = logging.getLogger(__name__)

PROMOTE_MAX: Final = 1000
EXPIRE_MAX: Final = 100
TAKE_OVER_MAX: Final = 1000
PRUNE_MAX: Final = 1000
HOUSEKEEPING_S: Final = 30.0
LEARN_EVERY: Final = 20
"""So many times of housekeeping between two times that what was learned is written down."""
LEARNED: Final = "learned"
REST_S: Final = 60.0
"""How long a duty is left alone that broke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decisions are made by."""

    limits: LimitTable
    shares: ShareTable
    retry: RetryPolicy
    health: Health
    optimizer: Optimizer
    events_keep: int


class Duty(Protocol):
    """Something that has to be done now and then."""

    def next_change_at(self) -> float | None:
        """When; None: not before `expect` is called."""

    async def on_time(self, now: float) -> None:
        """Do what is due. Raises: StoreUnavailable: to be called again."""


OnCommit = Callable[[JobId | None], None]
"""Called after each commit that users may wait for; with a job that has just ended."""


class Dispatcher:
    """Drives every transfer of one engine."""

    def __init__(self, *, store: Store, tools: Tools, rules: Rules, deps: Deps, on_commit: OnCommit) -> None:
        self._store = store
        self._tools = tools
        self._deps = deps
        self._on_commit = on_commit
        self.board = Board(rules.limits, rules.shares)
        self.governor = Governor(
            board=self.board,
            limits=rules.limits,
            health=rules.health,
            optimizer=rules.optimizer,
            now=deps.clock.now,
            wake=self.changed,
        )
        self.foresight = Foresight(
            board=self.board, measures=self.governor.measures, shares=rules.shares, now=deps.clock.now
        )
        self.driver = Driver(store=store, tools=tools, retry=rules.retry, deps=deps, watcher=self)
        self._events_keep = rules.events_keep
        self._loop_now = _now
        self._wake = asyncio.Event()
        self._timer = asyncio.Event()
        self._due_at: float | None = None
        self._deadline_at: float | None = None
        self._sleeps_until = 0.0
        self._accepting = True
        self._left: list[Assignment] = []
        """Lost attempts whose probing has not begun."""
        self._group: asyncio.TaskGroup | None = None
        self.published: Callable[[], int | None] = lambda: None
        """`seq` of the last event that was told to whom it may not be lost for; None: there is nobody."""
        self.duties: list[Duty] = []
        self.prepare: Callable[[Assignment], Assignment] = lambda order: order
        """Gives a claimed transfer what its job does not say."""
        self._retuned: tuple[LimitTable, ShareTable] | None = None
        """Limits and shares that are to be in force when no decision is on its way to the store."""
        self._resting: dict[Duty, float] = {}
        """Duties that broke → when they are tried again."""
        self.driven: dict[FileId, Driven] = {}
        self.n_stale = 0
        """Results that were dropped because the transfer had moved on."""
        self.store_trouble: str | None = None
        """Why nothing could be claimed when that was tried last."""
        self.ready = False

    # Life cycle

    async def load(self) -> None:
        """Count what waits; to be done before anything can be submitted. Raises: StoreUnavailable."""
        self._loop_now = asyncio.get_running_loop().time
        self._retune()
        self.governor.load(await self._store.kept(LEARNED))
        self._left = await self._store.take_over(self._deps.clock.now(), TAKE_OVER_MAX)
        backlog = await self._store.backlog()
        self.absorb(backlog.shifts)
        self._due_at = backlog.next_due_at
        self._deadline_at = 0.0

    async def run(self) -> None:
        """Take over what an earlier engine left, then dispatch until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._recover()
            self.ready = True
            group.create_task(self._keep_time(), name="timers")
            await self._dispatch()

    def stop_claiming(self) -> None:
        """Start nothing more; what runs goes on."""
        self._accepting = False

    def interrupt(self) -> None:
        """Whatever is cancelled from here on ends with the engine, not for a user."""
        self.driver.stopping = True

    async def _recover(self) -> None:
        """Drive what nobody drives: attempts of an earlier engine, remains of cancelled transfers."""
        left, self._left = self._left, []
        while True:
            for order in left:
                self.board.hold(order, _now())
                self._start(order, recovered=True)
            left = await insist(lambda: self._store.take_over(self._deps.clock.now(), TAKE_OVER_MAX))
            if not left:
                return

    # What others tell

    def absorb(self, shifts: Sequence[Shift]) -> None:
        """Take in committed changes of what waits, and decide again."""
        if shifts:
            self.board.shift(shifts, self._loop_now())
            self._wake.set()

    def changed(self) -> None:
        """What bounds the scheduler, or when it has to be looked at, has changed."""
        self._wake.set()
        self.expect()

    def expect(self) -> None:
        """Something may be due earlier than was thought."""
        at = self._next_at()
        if at is not None and at < self._sleeps_until:
            self._timer.set()

    def retune(self, limits: LimitTable, shares: ShareTable) -> None:
        """Decide by these limits and shares from the next decision on."""
        self._retuned = limits, shares
        self._wake.set()

    def _retune(self) -> None:
        if self._retuned is not None:
            (limits, shares), self._retuned = self._retuned, None
            self.board.retune(limits, shares, self._loop_now())
            self.governor.retune(limits)
            self.foresight.retune(shares)

    def forced(self, forced: Forced) -> None:
        """Transfers were claimed by order: they start now, past limits and turns."""
        assert self._group is not None, "run() has opened the task group"
        self.absorb(forced.shifts)
        for order in forced.orders:
            self.board.force(order, self._loop_now())
            self._start(order)
        if forced.orders:
            self._on_commit(None)

    async def remember(self) -> None:
        """Write down what was learned of storages. Raises: StoreUnavailable."""
        await self._store.keep(LEARNED, self.governor.dump())

    def submitted(self, shifts: Sequence[Shift], deadline_at: float | None) -> None:
        """A job was accepted."""
        self.absorb(shifts)
        self._expect_deadline(deadline_at)

    def canceled(self, canceled: Canceled) -> None:
        """A cancellation was committed: stop the attempts that it concerns."""
        self.absorb(canceled.shifts)
        for file_id, epoch in canceled.running:
            driven = self.driven.get(file_id)
            if driven is not None and driven.order.epoch == epoch:
                driven.cancel()
        if canceled.leftovers and self._group is not None:
            self._group.create_task(self._recover(), name="leftovers")
        self._on_commit(canceled.job_id)

    # Decide and claim

    async def _dispatch(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._retune()
            if not self._accepting:
                continue
            starts = self.board.decide(self._loop_now())
            if not starts:
                continue
            try:
                orders = await self._store.claim(self.board.claims(starts), self._deps.clock.now())
            except StoreUnavailable as error:
                self.store_trouble = str(error)
                self.board.unclaimed(starts, _now())
                await asyncio.sleep(STORE_RETRY_S)
                self._wake.set()
                continue
            self.store_trouble = None
            self.board.claimed(starts, orders, self._loop_now())
            for order in orders:
                self._start(order)
            if orders:
                self._on_commit(None)
            self._wake.set()

    def _start(self, order: Assignment, *, recovered: bool = False) -> None:
        assert self._group is not None, "run() has opened the task group"
        driven = Driven(self.prepare(order), self._loop_now())
        driven.canceling = order.canceling
        driven.progress.copying = order.copying
        driven.progress.tell = partial(self.governor.told, driven)
        self.driven[order.file_id] = driven
        self.governor.started(driven, recovered=recovered)
        driven.task = self._group.create_task(self.driver.drive(driven, recovered=recovered))

    # What becomes of it (driving.Watcher)

    def failed(self, driven: Driven, failure: Failure) -> int:
        """See `Watcher.failed`."""
        return self.governor.failed(driven, failure)

    def tried_at(self, order: Assignment) -> float | None:
        """See `Watcher.tried_at`."""
        return self.governor.tried_at(order)

    def settled(self, driven: Driven, outcome: Outcome, change: Change, applied: Applied) -> None:
        """See `Watcher.settled`."""
        order = driven.order
        if isinstance(outcome, Done):
            driven.n_moved = outcome.bytes_moved
        self.governor.settled(driven, outcome, change)
        self.absorb(applied.shifts)
        self._count(order, outcome, applied)
        if change.retry_at is not None:
            self._due(change.retry_at)
        self._on_commit(order.job_id if applied.job_ended else None)

    def released(self, driven: Driven) -> None:
        """See `Watcher.released`."""
        order = driven.order
        if self.driven.get(order.file_id) is driven:
            del self.driven[order.file_id]
        # Both lead back to `driven`: the garbage collector would be busy with nothing else.
        driven.task = driven.progress.tell = None
        self.governor.released(driven)
        self.board.release(order, self._loop_now(), driven.n_moved)
        self._wake.set()

    def dropped(self, order: Assignment) -> None:
        """See `Watcher.dropped`."""
        self.n_stale += 1
        log.warning("stale result dropped", extra={"file_id": order.file_id, "epoch": order.epoch})

    def _count(self, order: Assignment, outcome: Outcome, applied: Applied) -> None:
        tally = self.board.tally(order)
        if isinstance(outcome, Done):
            tally.finished += 1
            tally.bytes_done += outcome.bytes_moved
        elif applied.state is FileState.FAILED:
            tally.failed += 1
        elif isinstance(outcome, Failed):
            tally.retried += 1

    # Time

    def _due(self, at: float) -> None:
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self.expect()

    def _next_at(self) -> float | None:
        dues = map(self._duty_at, self.duties)
        known = [at for at in (self._due_at, self._deadline_at, self.governor.next_at(), *dues) if at is not None]
        return min(known) if known else None

    async def _keep_time(self) -> None:
        """Promote retries that are due, expire jobs, let caps follow, tidy; one timer for all of them."""
        # By the loop's time: a clock that is set back must not stop it.
        tidy_at = self._loop_now() + HOUSEKEEPING_S
        n_tidied = 0
        while True:
            now = self._deps.clock.now()
            at = self._next_at()
            wait_s = tidy_at - self._loop_now()
            if at is not None:
                wait_s = min(wait_s, at - now)
            if wait_s > 0:
                await self._sleep(wait_s, now)
                continue
            try:
                await self._on_time(now)
                if tidy_at <= _now():
                    tidy_at = _now() + HOUSEKEEPING_S
                    n_tidied += 1
                    self.board.unblock_all(_now())
                    self._wake.set()
                    await self._store.prune_events(self._events_keep, self.published())
                    if n_tidied % LEARN_EVERY == 0:
                        await self._store.prune_secrets(now, PRUNE_MAX)
                        self.governor.measures.forget(now)
                        await self.remember()
            except StoreUnavailable:
                await asyncio.sleep(STORE_RETRY_S)

    async def _sleep(self, wait_s: float, now: float) -> None:
        self._timer.clear()
        self._sleeps_until = now + wait_s
        try:
            async with asyncio.timeout(wait_s):
                await self._timer.wait()
        except TimeoutError:
            pass
        self._sleeps_until = 0.0

    async def _on_time(self, now: float) -> None:
        self.governor.on_time(now)
        while self.governor.recovered:
            endpoint = min(self.governor.recovered)
            shifts = await self._store.hasten(endpoint, PROMOTE_MAX)
            self.absorb(shifts)
            if sum(shift.n_ready for shift in shifts) < PROMOTE_MAX:
                self.governor.recovered.discard(endpoint)
        for duty in self.duties:
            due_at = self._duty_at(duty)
            if due_at is not None and due_at <= now:
                await self._do(duty, now)
        if self._due_at is not None and self._due_at <= now:
            # What becomes due while the store answers is kept beside its answer.
            self._due_at = None
            try:
                backlog = await self._store.promote(now, PROMOTE_MAX)
            except StoreUnavailable:
                self._due(now)
                raise
            if backlog.next_due_at is not None:
                self._due(backlog.next_due_at)
            self.absorb(backlog.shifts)
        if self._deadline_at is not None and self._deadline_at <= now:
            self._deadline_at = None
            try:
                expired, following = await self._store.expire(now, EXPIRE_MAX)
            except StoreUnavailable:
                self._expect_deadline(now)
                raise
            self._expect_deadline(following)
            for canceled in expired:
                self.canceled(canceled)

    def _duty_at(self, duty: Duty) -> float | None:
        at, rests_until = duty.next_change_at(), self._resting.get(duty)
        return at if at is None or rests_until is None else max(at, rests_until)

    async def _do(self, duty: Duty, now: float) -> None:
        try:
            await duty.on_time(now)
        except StoreUnavailable:
            raise
        except Exception:  # task boundary: a mistake in one duty must not end the engine
            log.exception("a duty broke", extra={"duty": type(duty).__name__})
            self._resting[duty] = now + REST_S
        else:
            self._resting.pop(duty, None)

    def _expect_deadline(self, at: float | None) -> None:
        if at is not None and (self._deadline_at is None or at < self._deadline_at):
            self._deadline_at = at
            self.expect()


def _now() -> float:
    """The event loop's time: what slots are accounted by."""
    return asyncio.get_running_loop().time()
