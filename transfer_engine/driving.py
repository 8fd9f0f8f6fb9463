"""One transfer from its claim to the release of its slots: attempt, look for what was lost, clean up, settle.

Whatever happens to a transfer's task, an error of the engine, a cancellation, the engine's end: its
outcome is committed or the next start finds it, and its slots are given back.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from protocols.api import Mode
from protocols.errors import Again, Phase, Scope, TransferError
from transfer_engine import settle
from transfer_engine.attempt import Attempt, ClaimLostError, Progress, Tools
from transfer_engine.clock import Deps
from transfer_engine.credentials.errors import IssuerAway
from transfer_engine.errors import EngineError, StoreUnavailable
from transfer_engine.model import Applied, Assignment, Change, Cleaned, Failed, Failure, Outcome, Released, Unknown
from transfer_engine.recovery import LOST, Probe
from transfer_engine.retry import RetryPolicy
from transfer_engine.states import FileState, JobType
from transfer_engine.store.api import Canceled, Store
from transfer_engine.store.cancel import EXPIRED

log = logging.getLogger(__name__)

T = TypeVar("T")

ISSUER_WAITS_MAX: Final = 6
"""Doublings of the wait for a token issuer that is away: five minutes or so with the usual settings."""
STORE_RETRY_S: Final = 1.0
"""Pause before a store that could not answer is asked again."""


@dataclass(slots=True)
class Driven:
    """One transfer that this engine drives now."""

    order: Assignment
    since: float
    """Loop time of its start."""
    progress: Progress = field(default_factory=Progress)
    task: asyncio.Task[None] | None = None
    begun: bool = False
    began_at: float = 0.0
    """Instant of its start."""
    moving: bool = False
    """Bytes have been seen to move."""
    told_at: float = 0.0
    """Instant of the last report of bytes."""
    idle: bool = False
    """Its attempt was lost: it holds its slots and moves nothing."""
    n_moved: int = 0
    """Bytes of its finished copy."""
    failure: Failure | None = None
    outcome: Outcome | None = None
    """What was committed last."""
    canceling: bool = False

    def cancel(self) -> None:
        """Stop the attempt; its destination is then cleaned."""
        if self.canceling:
            return
        self.canceling = True
        # A task that is cancelled before its first step would end without one, and keep its slots for ever.
        if self.begun and self.task is not None:
            self.task.cancel("cancelled by the user")


NextReplica = Callable[[Assignment], Mapping[str, Mapping[str, tuple[float, float]]] | None]
"""What the replicas are worth that are left after a failed attempt, as in `Change.prefer`."""


class Watcher(Protocol):
    """Who is told what becomes of a driven transfer."""

    def failed(self, driven: Driven, failure: Failure) -> int:
        """An attempt failed; how many in a row were a storage's trouble that was known already (0: this was not)."""

    def tried_at(self, order: Assignment) -> float | None:
        """When it is this transfer's turn to try a storage that is closed now; None: none is that it uses."""

    def settled(self, driven: Driven, outcome: Outcome, change: Change, applied: Applied) -> None:
        """An outcome was committed."""

    def released(self, driven: Driven) -> None:
        """It holds nothing any more."""

    def canceled(self, canceled: Canceled) -> None:
        """A cancellation was committed."""

    def dropped(self, order: Assignment) -> None:
        """Its result came too late: somebody else has it."""


class Driver:
    """Carries out claimed transfers."""

    def __init__(self, *, store: Store, tools: Tools, retry: RetryPolicy, deps: Deps, watcher: Watcher) -> None:
        self._store = store
        self._tools = tools
        self._retry = retry
        self._deps = deps
        self._watcher = watcher
        self.stopping = False
        """Whatever is cancelled from now on ends with the engine, not for a user."""
        self.next_replica: NextReplica = lambda _order: None

    async def drive(self, driven: Driven, *, recovered: bool) -> None:
        """One transfer from claim to release of its slots."""
        order = driven.order
        driven.begun = True
        try:
            await self._drive_to_end(driven, recovered=recovered)
        except ClaimLostError:
            self._watcher.dropped(order)
        finally:
            self._watcher.released(driven)

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
            if self.stopping or not driven.canceling:
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
                self._watcher.dropped(order)

    async def _attempt(self, driven: Driven) -> Outcome:
        order = driven.order
        deadline_at = order.options.deadline_at
        if deadline_at is not None and deadline_at < self._deps.clock.now():
            return await self._expire(driven)
        try:
            attempt = Attempt(
                order,
                self._tools,
                lambda: insist(lambda: self._store.mark_copying(order.file_id, order.epoch)),
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

    async def _expire(self, driven: Driven) -> Outcome:
        """Its deadline came before its turn: it is cancelled, as if it still waited.

        A next hop, a next replica, or what a crash has queued again can be claimed before the store looks.
        """
        order = driven.order
        canceled = await insist(
            lambda: self._store.cancel(order.job_id, self._deps.clock.now(), [order.file_id], EXPIRED)
        )
        # It ends itself: nobody needs to stop it.
        driven.canceling = True
        self._watcher.canceled(canceled)
        return await self._clean(driven)

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
                policy=self._retry,
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
        change = self._change(driven, outcome)
        applied: Applied = await insist(lambda: self._store.apply(change))
        if applied.won:
            self._watcher.settled(driven, outcome, change, applied)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("settled", extra={"file_id": order.file_id, "outcome": change.event.value})
        return applied

    def _change(self, driven: Driven, outcome: Outcome) -> Change:
        order, now, rng = driven.order, self._deps.clock.now(), self._deps.rng
        n_excused = 0
        if isinstance(outcome, Failed) and outcome.charge:
            n_excused = self._watcher.failed(driven, outcome.failure)
            if outcome.failure.code == IssuerAway.code:
                # However long an issuer is away, its users' transfers wait; claims without a failure are such waits.
                n_excused = min(max(order.epoch - order.n_failed, 1), ISSUER_WAITS_MAX)
        try:
            change = settle.decide(order, outcome, now=now, policy=self._retry, rng=rng, n_excused=n_excused)
        except Exception as error:  # noqa: BLE001 - task boundary: one transfer's bug must not end the others
            failure = replace(self._broken(order, error), again=Again.NEVER)
            failed = Failed(failure=failure, clean=False, started_at=order.claimed_at)
            change = settle.decide(order, failed, now=now, policy=self._retry, rng=rng)
        if change.activate_next and order.job_type is JobType.REPLICAS:
            return replace(change, prefer=self._preferred(order))
        if change.retry_at is not None and change.charge:
            tried_at = self._watcher.tried_at(order)
            if tried_at is not None:
                # It is another transfer's turn to be the next try: one that was every try would fail for all.
                return replace(change, retry_at=max(tried_at, now) + change.retry_at - now)
        return change

    def _preferred(self, order: Assignment) -> Mapping[str, Mapping[str, tuple[float, float]]] | None:
        try:
            return self.next_replica(order)
        except Exception as error:  # noqa: BLE001 - task boundary: the order of the submission will do
            self._broken(order, error)
            return None


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the store until it answers: what is known must not be lost because a disk is full."""
    while True:
        try:
            return await ask()
        except StoreUnavailable as error:
            log.warning("store unavailable", extra={"error": str(error)})
            await asyncio.sleep(STORE_RETRY_S)


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
