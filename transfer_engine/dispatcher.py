"""The only loop that starts transfers: decide, claim, attempt, settle.

It wakes when something changed (a submission, an end, a retry that is due) and never scans the
queue. At most one claim is on its way to the store; slots are counted from its commit until the
transfer is settled, so that no limit is ever exceeded.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from protocols.api import Mode
from protocols.errors import Again, Phase, Scope, TransferError
from transfer_engine import schedule, settle
from transfer_engine.attempt import Attempt, ClaimLostError, Progress, Tools
from transfer_engine.board import Board
from transfer_engine.clock import Deps
from transfer_engine.errors import EngineError, StoreUnavailable
from transfer_engine.limits import LimitTable
from transfer_engine.model import (
    Applied,
    Assignment,
    Change,
    Cleaned,
    Done,
    Failed,
    Failure,
    FileId,
    JobId,
    Outcome,
    Released,
    Shift,
    Unknown,
)
from transfer_engine.recovery import LOST, Probe
from transfer_engine.retry import RetryPolicy
from transfer_engine.shares import ShareTable
from transfer_engine.states import FileState
from transfer_engine.store.api import Canceled, Store
from transfer_engine.store.cancel import EXPIRED

log = logging.getLogger(__name__)

T = TypeVar("T")

STORE_RETRY_S: Final = 1.0
"""Pause before a store that could not answer is asked again."""
PROMOTE_MAX: Final = 1000
EXPIRE_MAX: Final = 100
TAKE_OVER_MAX: Final = 1000
HOUSEKEEPING_S: Final = 30.0


@dataclass(slots=True)
class Driven:
    """One transfer that this engine drives now."""

    order: Assignment
    since: float
    """Loop time of its start."""
    progress: Progress = field(default_factory=Progress)
    task: asyncio.Task[None] | None = None
    begun: bool = False
    canceling: bool = False

    def cancel(self) -> None:
        """Stop the attempt; its destination is then cleaned."""
        if self.canceling:
            return
        self.canceling = True
        # A task that is cancelled before its first step would end without one, and keep its slots for ever.
        if self.begun and self.task is not None:
            self.task.cancel("cancelled by the user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decisions are made by."""

    limits: LimitTable
    shares: ShareTable
    retry: RetryPolicy
    events_keep: int


OnCommit = Callable[[JobId | None], None]
"""Called after each commit that users may wait for; with a job that has just ended."""


class Dispatcher:
    """Drives every transfer of one engine."""

    def __init__(self, *, store: Store, tools: Tools, rules: Rules, deps: Deps, on_commit: OnCommit) -> None:
        self._store = store
        self._tools = tools
        self._rules = rules
        self._deps = deps
        self._on_commit = on_commit
        self._wake = asyncio.Event()
        self._timer = asyncio.Event()
        self._due_at: float | None = None
        self._deadline_at: float | None = None
        self._stopping = False
        self._accepting = True
        self._left: list[Assignment] = []
        """Lost attempts whose probing has not begun."""
        self._group: asyncio.TaskGroup | None = None
        self.board = Board()
        self.driven: dict[FileId, Driven] = {}
        self.n_stale = 0
        """Results that were dropped because the transfer had moved on."""
        self.ready = False

    # Life cycle

    async def load(self) -> None:
        """Count what waits; to be done before anything can be submitted. Raises: StoreUnavailable."""
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
        self._stopping = True

    async def _recover(self) -> None:
        """Drive what nobody drives: attempts of an earlier engine, remains of cancelled transfers."""
        left, self._left = self._left, []
        while True:
            for order in left:
                self.board.hold(order)
                self._start(order, recovered=True)
            left = await self._insist(lambda: self._store.take_over(self._deps.clock.now(), TAKE_OVER_MAX))
            if not left:
                return

    # What others tell

    def absorb(self, shifts: Sequence[Shift]) -> None:
        """Take in committed changes of what waits, and decide again."""
        if shifts:
            self.board.shift(shifts)
            self._wake.set()

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
            if not self._accepting:
                continue
            waiting = self.board.waiting()
            decision = schedule.decide(waiting, self.board.active, self._rules.limits, self._rules.shares)
            self.board.reasons = dict(decision.reasons)
            if not decision.claims:
                continue
            try:
                orders = await self._store.claim(decision.claims, self._deps.clock.now())
            except StoreUnavailable:
                await asyncio.sleep(STORE_RETRY_S)
                self._wake.set()
                continue
            self.board.claimed(decision.claims, orders)
            for order in orders:
                self._start(order)
            if orders:
                self._on_commit(None)
            self._wake.set()

    def _start(self, order: Assignment, *, recovered: bool = False) -> None:
        assert self._group is not None, "run() has opened the task group"
        driven = Driven(order, asyncio.get_running_loop().time())
        driven.canceling = order.canceling
        driven.progress.copying = order.copying
        self.driven[order.file_id] = driven
        driven.task = self._group.create_task(self._drive(driven, recovered=recovered))

    # Attempt and settle

    async def _drive(self, driven: Driven, *, recovered: bool) -> None:
        """One transfer from claim to release of its slots."""
        order = driven.order
        driven.begun = True
        try:
            await self._drive_to_end(driven, recovered=recovered)
        except ClaimLostError:
            self._drop(order)
        finally:
            if self.driven.get(order.file_id) is driven:
                del self.driven[order.file_id]
            self.board.release(order)
            self._wake.set()

    async def _drive_to_end(self, driven: Driven, *, recovered: bool) -> None:
        order = driven.order
        try:
            if driven.canceling:
                outcome: Outcome = await self._clean(driven)
            elif recovered:
                outcome = await self._probe(driven, LOST, order.claimed_at, charge=False)
            else:
                outcome = await self._attempt(driven)
            applied = await self._settle(driven, outcome)
            if applied.won and isinstance(outcome, Unknown):
                found = await self._probe(driven, outcome.failure, outcome.started_at, charge=True)
                applied = await self._settle(driven, found)
        except asyncio.CancelledError:
            if self._stopping or not driven.canceling:
                await self._leave(driven)
                raise
            # The cancellation was meant for the attempt, not for this task, which still has to clean up.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await self._finish_cancel(driven)
            return
        if not applied.won:
            if applied.state is FileState.CANCELING:
                await self._finish_cancel(driven)
            else:
                self._drop(order)

    async def _attempt(self, driven: Driven) -> Outcome:
        order = driven.order
        deadline_at = order.options.deadline_at
        if deadline_at is not None and deadline_at < self._deps.clock.now():
            # The job expired while this transfer ran; a crash has queued it again.
            return Failed(failure=EXPIRED, clean=not order.dest_owned, started_at=order.claimed_at)
        try:
            attempt = Attempt(
                order,
                self._tools,
                lambda: self._insist(lambda: self._store.mark_copying(order.file_id, order.epoch)),
                driven.progress,
            )
            return await attempt.run()
        except ClaimLostError:
            return Released()
        except Exception as error:  # noqa: BLE001 - task boundary: one transfer's bug must not end the others
            failure = self._broken(order, error)
            if driven.progress.copying:
                return Unknown(failure=failure, started_at=order.claimed_at)
            return Failed(failure=failure, clean=not order.dest_owned, started_at=order.claimed_at)

    async def _probe(self, driven: Driven, failure: Failure, started_at: float, *, charge: bool) -> Outcome:
        driven.progress.phase = "looking for the outcome"
        try:
            return await Probe(driven.order, self._tools).run(failure, started_at, charge=charge)
        except Exception as error:  # noqa: BLE001 - task boundary: the same for looking
            found = self._broken(driven.order, error)
            await self._quarantine()
            return Failed(failure=found, clean=False, started_at=started_at, charge=charge)

    async def _clean(self, driven: Driven) -> Outcome:
        driven.progress.phase = "cancelling"
        if driven.progress.replaces or not (driven.progress.copying or driven.order.dest_owned):
            return Cleaned(clean=True)
        try:
            return await Probe(driven.order, self._tools).clean(ended=driven.progress.mode is Mode.STREAM)
        except Exception as error:  # noqa: BLE001 - task boundary: the same for cleaning
            self._broken(driven.order, error)
            await self._quarantine()
            return Cleaned(clean=False)

    async def _quarantine(self) -> None:
        """Nobody can look at a destination: give whoever may still write it the time to end."""
        await asyncio.sleep(self._tools.settings.quarantine_s)

    @staticmethod
    def _broken(order: Assignment, error: Exception) -> Failure:
        if isinstance(error, TransferError):
            return Failure.of(error)
        log.error("attempt broke", exc_info=error, extra={"file_id": order.file_id, "job_id": order.job_id})
        return _bug(error)

    async def _finish_cancel(self, driven: Driven) -> None:
        driven.canceling = True
        await self._settle(driven, await self._clean(driven))

    async def _leave(self, driven: Driven) -> None:
        """The engine stops: what was not begun is given back, the rest is for the next start to look at."""
        if not driven.progress.copying and not driven.order.canceling and not driven.canceling:
            change = settle.decide(
                driven.order,
                Released(),
                now=self._deps.clock.now(),
                policy=self._rules.retry,
                rng=self._deps.rng,
            )
            try:
                await self._store.apply(change)
            except EngineError:
                log.warning("claim not given back", extra={"file_id": driven.order.file_id})

    async def _settle(self, driven: Driven, outcome: Outcome) -> Applied:
        """Turn an outcome into a committed change; repeated until the store takes it."""
        order = driven.order
        driven.progress.phase = "settling"
        change = settle.decide(order, outcome, now=self._deps.clock.now(), policy=self._rules.retry, rng=self._deps.rng)
        applied: Applied = await self._insist(lambda: self._store.apply(change))
        if not applied.won:
            return applied
        self.absorb(applied.shifts)
        self._count(order, outcome, applied)
        if change.retry_at is not None:
            self._due(change.retry_at)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("settled", extra={"file_id": order.file_id, "outcome": change.event.value})
        self._on_commit(order.job_id if applied.job_ended else None)
        return applied

    def _decide(self, order: Assignment, outcome: Outcome) -> Change:
        now, rng = self._deps.clock.now(), self._deps.rng
        try:
            return settle.decide(order, outcome, now=now, policy=self._rules.retry, rng=rng)
        except Exception as error:  # noqa: BLE001 - task boundary: one transfer's bug must not end the others
            failure = replace(self._broken(order, error), again=Again.NEVER)
            failed = Failed(failure=failure, clean=False, started_at=order.claimed_at)
            return settle.decide(order, failed, now=now, policy=self._rules.retry, rng=rng)

    def _count(self, order: Assignment, outcome: Outcome, applied: Applied) -> None:
        tally = self.board.tally(order)
        if isinstance(outcome, Done):
            tally.finished += 1
            tally.bytes_done += outcome.bytes_moved
        elif applied.state is FileState.FAILED:
            tally.failed += 1
        elif isinstance(outcome, Failed):
            tally.retried += 1

    def _drop(self, order: Assignment) -> None:
        self.n_stale += 1
        log.warning("stale result dropped", extra={"file_id": order.file_id, "epoch": order.epoch})

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the store until it answers: what is known must not be lost because a disk is full."""
        while True:
            try:
                return await ask()
            except StoreUnavailable as error:
                log.warning("store unavailable", extra={"error": str(error)})
                await asyncio.sleep(STORE_RETRY_S)

    # Time

    def _due(self, at: float) -> None:
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self._timer.set()

    async def _keep_time(self) -> None:
        """Promote retries that are due, expire jobs, tidy; one timer for all of them."""
        tidy_at = self._deps.clock.now() + HOUSEKEEPING_S
        while True:
            now = self._deps.clock.now()
            next_at = min(at for at in (self._due_at, self._deadline_at, tidy_at) if at is not None)
            if next_at > now:
                self._timer.clear()
                try:
                    async with asyncio.timeout(next_at - now):
                        await self._timer.wait()
                except TimeoutError:
                    pass
                continue
            try:
                await self._on_time(now)
                if tidy_at <= now:
                    tidy_at = now + HOUSEKEEPING_S
                    self.board.unblock_all()
                    self._wake.set()
                    await self._store.prune_events(self._rules.events_keep)
            except StoreUnavailable:
                await asyncio.sleep(STORE_RETRY_S)

    async def _on_time(self, now: float) -> None:
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

    def _expect_deadline(self, at: float | None) -> None:
        if at is not None and (self._deadline_at is None or at < self._deadline_at):
            self._deadline_at = at
            self._timer.set()


def _bug(error: Exception) -> Failure:
    return Failure(
        code="ENGINE_BUG",
        again=Again.FEW,
        scope=Scope.AGENT,
        phase=Phase.TRANSFER,
        errno=errno.EFAULT,
        message=f"the engine failed: {type(error).__name__}",
        hint="report it with the engine's log",
    )
