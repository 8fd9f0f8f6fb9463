"""Bans of storages, kept and carried out: where that is ordered, what waits for a banned storage is cancelled."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from protocols.errors import Again, Phase, Scope
from transfer_engine.bans import BanTable, is_active, sentence, spellings, storage_key
from transfer_engine.clock import Deps
from transfer_engine.model import Assignment, Failure, FileId, JobId, Shift
from transfer_engine.places import Ban
from transfer_engine.states import JobType
from transfer_engine.store.api import Canceled, Store, WaitingFilter

log = logging.getLogger(__name__)

T = TypeVar("T")
Tell = Callable[[Canceled], None]

CANCEL_BLOCK: Final = 100
"""Jobs cancelled in one transaction, so that a ban does not hold up everybody's commits."""
SWEEP_S: Final = 60.0
"""How often a ban that cancels looks for what has come to wait since: retries, next replicas, next hops."""
PASSES_MAX: Final = 10
"""Most looks at what runs in one sweep; the next sweep goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A transfer that is being driven."""

    order: Assignment
    bytes_done: int
    size_bytes: int | None
    since_s: float
    """Seconds since its claim."""
    canceling: bool = False


class Write(Protocol):
    """Do `write`, then `then` with its result, also when the caller gives up waiting."""

    def __call__(self, write: Callable[[], Awaitable[T]], then: Callable[[T], None], /) -> Awaitable[T]:
        """The result of `write`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the engine does for its operators.

    Attributes:
        on_caps: what `caps` answers, and `next_change_at`, has changed.
        on_shifts: committed changes of what is ready.
        on_canceled: a cancellation was committed: stop the attempts that it concerns.
        moving: what is being driven now.
    """

    on_caps: Callable[[], None]
    on_shifts: Callable[[Sequence[Shift]], None]
    on_canceled: Callable[[Canceled], None]
    moving: Callable[[], Sequence[Moving]]
    write: Write


@dataclass(frozen=True, slots=True, kw_only=True)
class Banning:
    """A ban that is in force, and the jobs of which it cancelled something."""

    ban: Ban
    job_ids: tuple[JobId, ...]


class Bans:
    """The bans of one engine."""

    def __init__(self, *, store: Store, deps: Deps, hooks: Hooks) -> None:
        self._store = store
        self._deps = deps
        self._hooks = hooks
        self._lock = asyncio.Lock()
        self._sweep_at: float | None = None
        self._stopping = False
        self.table = BanTable()

    async def load(self) -> None:
        """See `Control.load`."""
        self.table = BanTable.of(await self._store.bans())
        now = self._deps.clock.now()
        await self._drop(now)
        for ban in self._cancelling(now):
            await self._cancel_waiting(ban, tell=nobody)
        self._plan_sweep(now)

    def stop(self) -> None:
        """Cancel no further block."""
        self._stopping = True

    def next_change_at(self) -> float | None:
        """When `on_time` is to be called; None: not before something is ordered."""
        # Bans that have run out are in the table until they are dropped: their time has come.
        ends = self.table.next_change_at(-math.inf)
        return min((at for at in (ends, self._sweep_at) if at is not None), default=None)

    async def on_time(self, now: float) -> None:
        """See `Control.on_time`."""
        await self._drop(now)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._plan_sweep(now)
            for ban in self._cancelling(now):
                await self._sweep(ban)

    async def order(self, new: Ban) -> tuple[JobId, ...]:
        """Keep a ban and carry it out; the jobs of which it cancelled something."""
        async with self._lock:
            await self._store.put_ban(new)
            same = [ban for ban in self.table.of_storage(new.endpoint) if ban.vo == new.vo]
            self._set([*(ban for ban in self.table.bans if ban not in same), new])
            for ban in same:
                if ban.endpoint != new.endpoint:
                    await self._store.lift_ban(ban.endpoint, ban.vo)
        log.warning("storage banned", extra={"event": "ban", "endpoint": new.endpoint, "vo": new.vo, "by": new.by})
        return tuple(await self._sweep(new)) if new.cancel else ()

    async def lift(self, endpoint: str, vo: str | None, by: str) -> bool:
        """Lift the ban of a storage and VO, however it is spelt; False: there was none."""
        async with self._lock:
            same = [ban for ban in self.table.of_storage(endpoint) if ban.vo == vo]
            for ban in same:
                await self._store.lift_ban(ban.endpoint, ban.vo)
            if same:
                self._set([ban for ban in self.table.bans if ban not in same])
        if same:
            log.warning("ban lifted", extra={"event": "unban", "endpoint": endpoint, "vo": vo, "by": by})
        return bool(same)

    async def _drop(self, now: float) -> None:
        """Forget the bans that have run out."""
        if all(is_active(ban, now) for ban in self.table.bans):
            return
        async with self._lock:
            for ban in self.table.bans:
                if not is_active(ban, now):
                    await self._store.lift_ban(ban.endpoint, ban.vo)
            self._set(self.table.active(now))

    def _set(self, bans: Iterable[Ban]) -> None:
        self.table = BanTable.of(bans)
        self._plan_sweep(self._deps.clock.now())
        self._hooks.on_caps()

    def _plan_sweep(self, now: float) -> None:
        self._sweep_at = now + SWEEP_S if self._cancelling(now) else None

    def _cancelling(self, now: float) -> list[Ban]:
        return [ban for ban in self.table.active(now) if ban.cancel]

    async def _sweep(self, ban: Ban) -> list[JobId]:
        """Cancel what waits and what runs; the jobs that it concerned."""
        found: dict[JobId, None] = {}
        for _ in range(PASSES_MAX):
            waiting = await self._cancel_waiting(ban, tell=self._hooks.on_canceled)
            # A claim that was on its way to the store when the ban came is seen in the next pass.
            running = await self._cancel_running(ban)
            found.update(dict.fromkeys([*waiting, *running]))
            if not waiting and not running:
                break
        return list(found)

    def _holds(self, ban: Ban) -> bool:
        """A ban that is lifted meanwhile cancels nothing more."""
        return ban in self.table.bans and not self._stopping

    async def _cancel_waiting(self, ban: Ban, tell: Tell) -> list[JobId]:
        found: list[JobId] = []
        for endpoint in spellings(ban.endpoint):
            where = WaitingFilter(endpoint=endpoint, vo=ban.vo)
            while self._holds(ban):
                done = await self._store.cancel_waiting(where, self._deps.clock.now(), CANCEL_BLOCK, _failure(ban))
                for canceled in done:
                    tell(canceled)
                    found.append(canceled.job_id)
                if not any(canceled.n_canceled for canceled in done):
                    break
        return found

    async def _cancel_running(self, ban: Ban) -> list[JobId]:
        by_job: dict[JobId, list[FileId]] = {}
        for moving in self._hooks.moving():
            if not moving.canceling and _concerns(ban, moving.order):
                by_job.setdefault(moving.order.job_id, []).append(moving.order.file_id)
        found: list[JobId] = []

        async def stop(job_id: JobId, file_ids: Sequence[FileId]) -> None:
            canceled = await self._store.cancel(job_id, self._deps.clock.now(), file_ids, _failure(ban))
            self._hooks.on_canceled(canceled)
            if canceled.n_canceled:
                found.append(job_id)

        jobs = list(by_job.items())
        for at in range(0, len(jobs), CANCEL_BLOCK):
            if not self._holds(ban):
                break
            await _together(stop(*job) for job in jobs[at : at + CANCEL_BLOCK])
        return found


def nobody(_: Canceled) -> None:
    """Who is told before the engine has counted what waits."""


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once, to share a commit. The first failure is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def _concerns(ban: Ban, order: Assignment) -> bool:
    """Is it to be stopped?

    A copy from one of several replicas is left to end: stopping it would end the file, which may go on
    with another replica when this one fails.
    """
    queue, banned = order.queue, storage_key(ban.endpoint)
    if ban.vo not in {None, queue.vo}:
        return False
    if storage_key(queue.dest_se) == banned:
        return True
    elsewhere = order.job_type is JobType.REPLICAS and order.follows
    return storage_key(queue.source_se) == banned and not elsewhere


def _failure(ban: Ban) -> Failure:
    """What a cancelled transfer says: FTS's sentence."""
    return Failure(
        code="BANNED",
        again=Again.NEVER,
        scope=Scope.AGENT,
        phase=Phase.PREPARATION,
        errno=errno.ECANCELED,
        message="Storage banned",
        hint=sentence(ban),
    )
