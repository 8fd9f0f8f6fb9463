"""The engine as its users see it: submit, wait, follow, cancel. Life cycle and the write API."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol, Self, TypeVar

from protocols.api import Capabilities
from transfer_engine import figures, submission
from transfer_engine.attempt import Tools
from transfer_engine.banning import Hooks
from transfer_engine.callers import EVERYTHING, Sight
from transfer_engine.choosing import Chooser
from transfer_engine.clock import Deps
from transfer_engine.companions import Companion, Companions
from transfer_engine.control import Control
from transfer_engine.credentials.keeper import TokenKeeper
from transfer_engine.decisions import Decisions
from transfer_engine.dispatcher import Dispatcher, Rules
from transfer_engine.errors import EngineError, Invalid, StoreUnavailable
from transfer_engine.explain import Explainer
from transfer_engine.figures import LinkStatus, Running
from transfer_engine.following import Following
from transfer_engine.forcing import Forcing
from transfer_engine.model import (
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    PRIORITY_MIN,
    FileId,
    JobId,
    JobOptions,
    JobRequest,
    PlannedJob,
    Transfer,
)
from transfer_engine.places import Link, Place
from transfer_engine.sealed import AuditEntry
from transfer_engine.states import JOB_TERMINAL
from transfer_engine.store.api import Canceled, Inserted, Reader, Store
from transfer_engine.tunables import Tunables, Tuned
from transfer_engine.views import FileView, JobView, StoredEvent
from transfer_engine.writing import Writes

log = logging.getLogger(__name__)

T = TypeVar("T")

PLAN_INLINE_MAX: Final = 2000
"""Largest job that is checked on the event loop, in transfers: about 25 ms."""


class Closable(Protocol):
    """Something to close when the engine ends."""

    async def aclose(self) -> None:
        """Close it."""


class Engine:
    """Moves files. Open it with `async with`; everything it started ends with the block."""

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        store: Store,
        reader: Reader,
        tools: Tools,
        rules: Rules,
        deps: Deps,
        schemes: Collection[str],
        closing: Sequence[Closable] = (),
        companions: Sequence[Companion] = (),
        tokens: TokenKeeper | None = None,
        on_capabilities: Callable[[Mapping[str, Capabilities]], None] | None = None,
        grace_s: float = 0.0,
        threads: bool = True,
    ) -> None:
        """Use `TransferEngine` of the package's top level; this one takes its parts.

        Args: on_capabilities: told what operators say that storages can do; the whole of it.
        """
        self.reader = reader
        self._store = store
        self._write = Writes(store, deps.clock.now)
        self._deps = deps
        self._schemes = frozenset(schemes)
        self._closing = tuple(closing)
        self._grace_s = grace_s
        self._threads = threads
        self._dispatcher = Dispatcher(store=store, tools=tools, rules=rules, deps=deps, on_commit=self._committed)
        self.control = Control(
            store=store,
            reader=reader,
            deps=deps,
            hooks=Hooks(
                on_caps=self._ordered,
                on_shifts=self._dispatcher.absorb,
                on_canceled=self._dispatcher.canceled,
                moving=lambda: figures.moving(self._dispatcher.driven.values()),
                write=self._write,
            ),
        )
        """Bans, drain, holds."""
        self._chooser = Chooser(
            store=store,
            board=self._dispatcher.board,
            measures=self._dispatcher.governor.measures,
            foresight=self._dispatcher.foresight,
            now=deps.clock.now,
            on_shifts=self._dispatcher.absorb,
            running=self._dispatcher.driven.values,
        )
        self.tunables = Tunables(
            store=store,
            limits=rules.limits,
            shares=rules.shares,
            modes=tools.settings.modes,
            apply=self._retuned,
            write=self._write,
        )
        """Limits, shares and defaults that are set while the engine runs."""
        self._on_capabilities = on_capabilities
        self._dispatcher.duties.append(self._chooser)
        self._dispatcher.driver.next_replica = self._chooser.next_replica
        self._dispatcher.foresight.follow(self._dispatcher.driven.values, threads=threads)
        self.explainer = Explainer(reader=reader, sight=self._dispatcher, now=deps.clock.now)
        """Why something does not move."""
        self.decisions = Decisions(self._dispatcher.board, self._dispatcher.governor)
        """What the optimizer decides."""
        self._dispatcher.duties.append(self.control)
        self.forcing = Forcing(
            store=store,
            reader=reader,
            orders=self.control.caps,
            now=deps.clock.now,
            write=self._write,
            started=self._dispatcher.forced,
            why_not=self.why_not_ready,
        )
        """Transfers that are started out of turn."""
        self.companions = Companions(companions)
        """Who follows what is committed: messages."""
        self._dispatcher.published = self.companions.position
        self._tokens = tokens
        if tokens is not None:
            self._dispatcher.duties.append(tokens)
        self._loop_task: asyncio.Task[None] | None = None
        self._ended = False
        self._waiters: dict[JobId, set[asyncio.Future[None]]] = {}
        self._following = Following(reader)

    # Life cycle

    async def __aenter__(self) -> Self:
        """Open the store and start. Raises: StoreLocked, StoreUnavailable."""
        await self._store.open()
        try:
            await self.tunables.load()
            await self.control.load()
            self._ordered()
            await self.companions.open()
            await self._dispatcher.load()
            if self._tokens is not None:
                self._tokens.begin()
        except BaseException:
            await self._store.close()
            raise
        self._loop_task = asyncio.get_running_loop().create_task(self._dispatcher.run(), name="dispatcher")
        self._loop_task.add_done_callback(self._dispatcher_ended)
        self.companions.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Start nothing more, let transfers run for the grace time, then leave the rest for the next start."""
        await self.close()

    async def close(self, grace_s: float | None = None) -> None:
        """Stop. What runs after `grace_s` is interrupted; its outcome is looked for at the next start."""
        task, self._loop_task = self._loop_task, None
        if task is None:
            return
        self.control.stop()
        self._dispatcher.stop_claiming()
        await self._wait_for_driven(self._grace_s if grace_s is None else grace_s)
        await self._write.ended()
        self._dispatcher.interrupt()
        task.cancel()
        # What broke the dispatcher has been logged and told to those who wait.
        await asyncio.wait([task])
        self._tell_the_end("the engine was closed")
        try:
            await self._dispatcher.remember()
        except StoreUnavailable:
            log.warning("what was learned of storages is not kept")
        await self.companions.finish()
        await self._store.close()
        for closable in self._closing:
            await closable.aclose()

    def _tell_the_end(self, why: str) -> None:
        self._ended = True
        for waiters in self._waiters.values():
            for future in waiters:
                if not future.done():
                    future.set_exception(EngineError(why))
        self._following.end()

    async def _wait_for_driven(self, grace_s: float) -> None:
        tasks = [driven.task for driven in self._dispatcher.driven.values() if driven.task is not None]
        if tasks and grace_s > 0:
            await asyncio.wait(tasks, timeout=grace_s)

    def _dispatcher_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        log.critical("dispatcher ended", exc_info=task.exception())
        self._tell_the_end("the engine has stopped after an internal error")

    def why_not_ready(self) -> str | None:
        """None when transfers are being accepted and started; else the reason in words."""
        if self._loop_task is None:
            return "the engine is not open"
        if self._loop_task.done():
            return "the engine has stopped after an internal error"
        return None if self._dispatcher.ready else "the engine is taking over what an earlier one left"

    async def why_not_written(self) -> str | None:
        """Why nothing can be accepted: the last write failed, and so does another one now. None: it does not."""
        return await self._write.why_not()

    @property
    def ready(self) -> bool:
        """Whether transfers are being accepted and started."""
        return self.why_not_ready() is None

    @property
    def schemes(self) -> frozenset[str]:
        """URL schemes that can be submitted."""
        return self._schemes

    # Writes

    async def submit(
        self,
        transfers: JobRequest | Transfer | Sequence[Transfer],
        *,
        options: JobOptions | None = None,
        vo: str = "local",
        priority: int = PRIORITY_DEFAULT,
        metadata: Any = None,
        key: str | None = None,
    ) -> JobId:
        """Accept one job; when this returns, it is on disk and will be carried out.

        Args:
            transfers: what to move, or a whole `JobRequest` (the other arguments are then not used).
            priority: 1 (last) to 5 (first) among the transfers of the same activity.
            key: idempotency key: submitting the same content under the same key again is the same job.

        Raises:
            Invalid: names the field and what was expected; nothing was stored.
            Conflict: the key or id was used for something else.
            Banned: an operator has banned the user or a storage.
            StoreUnavailable: nothing was stored; the same call may be repeated.
        """
        if isinstance(transfers, JobRequest):
            request = transfers
        else:
            several = (transfers,) if isinstance(transfers, Transfer) else tuple(transfers)
            request = JobRequest(
                transfers=several,
                options=options or JobOptions(),
                vo=vo,
                priority=priority,
                metadata=metadata,
                key=key,
            )
        planned = await self._plan(self.tunables.tuned.defaults.queued(request, self._deps.clock.now()))
        self.control.check(planned)
        planned = await self._chooser.arrange(planned)
        self._dispatcher.expect()

        def accepted(inserted: Inserted) -> None:
            self._dispatcher.submitted(inserted.shifts, planned.deadline_at if inserted.new else None)
            self._committed(None)

        return (await self._write(lambda: self._store.insert(planned), accepted)).job_id

    async def _plan(self, request: JobRequest) -> PlannedJob:
        plan = functools.partial(
            submission.plan,
            request,
            now=self._deps.clock.now(),
            new_id=self._deps.new_id(),
            schemes=self._schemes,
        )

        def plan_and_seal() -> PlannedJob:
            job = plan()
            return job if self._tokens is None else self._tokens.seal(request, job)

        # A job of 100,000 files takes a second to check: meanwhile the loop has copies to watch.
        if self._threads and len(request.transfers) > PLAN_INLINE_MAX:
            return await asyncio.to_thread(plan_and_seal)
        return plan_and_seal()

    async def cancel(self, job_id: JobId, file_ids: Sequence[FileId] | None = None) -> Canceled:
        """Cancel a job or some of its transfers; running copies are stopped and their remains removed.

        A transfer that has ended already keeps its state: who commits first wins.

        Raises: NotFound, StoreUnavailable.
        """
        now = self._deps.clock.now()
        return await self._write(lambda: self._store.cancel(job_id, now, file_ids), self._dispatcher.canceled)

    async def set_priority(self, job_id: JobId, priority: int) -> None:
        """Change the priority of what still waits in a job. Raises: Invalid, NotFound, StoreUnavailable."""
        if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
            raise Invalid(f"expected {PRIORITY_MIN} to {PRIORITY_MAX}, got {priority}", field="priority")
        await self._write(lambda: self._store.set_priority(job_id, priority), self._dispatcher.absorb)

    # Reads

    async def status(self, job_id: JobId) -> JobView:
        """One job as it is now. Raises: NotFound, StoreUnavailable."""
        return await self.reader.job(job_id)

    async def job(self, job_id: JobId) -> JobView:
        """The same as `status`."""
        return await self.reader.job(job_id)

    async def files(self, job_id: JobId) -> list[FileView]:
        """The transfers of a job in the order submitted. Raises: NotFound, StoreUnavailable."""
        return await self.reader.files(job_id)

    async def wait(self, job_id: JobId, timeout_s: float | None = None) -> JobView:
        """Wait until a job has ended.

        Raises: TimeoutError: it goes on after `timeout_s` seconds. NotFound. EngineError: the engine stopped.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    job = await self.reader.job(job_id)
                    if job.state in JOB_TERMINAL:
                        return job
                    if self._ended:
                        raise EngineError("the engine has ended, the job has not")
                    await future
                    self._waiters[job_id].discard(future)
                    future = asyncio.get_running_loop().create_future()
                    self._waiters[job_id].add(future)
        finally:
            waiters = self._waiters.get(job_id, set())
            waiters.discard(future)
            if not waiters:
                self._waiters.pop(job_id, None)

    def events(
        self,
        after: int | None = None,
        job_id: JobId | None = None,
        sight: Sight = EVERYTHING,
        *,
        gather_s: float = 0.0,
    ) -> AsyncIterator[StoredEvent]:
        """Every state change in commit order, for ever; none is lost between two calls with a cursor.

        Args:
            after: `seq` of the last event that was dealt with; 0: from the oldest kept; None: from now on.
            job_id: only the changes of one job; ends with the job's own terminal event.
            sight: only those of jobs that somebody sees.
            gather_s: how late an event may be, so that those who are many ask the store less often.

        Ends with the engine; the cursor leads on in the next one.
        """
        return self._following.events(after, job_id, sight, gather_s)

    @property
    def secrets(self) -> Store:
        """Where delegated credentials are kept, encrypted; for whoever takes delegations."""
        return self._store

    async def record(self, entry: AuditEntry) -> None:
        """Add to the record of orders. Raises: StoreUnavailable."""
        await self._store.record(entry)

    def running(self) -> list[Running]:
        """The transfers that are being driven now."""
        return figures.running(self._dispatcher.driven.values(), self._dispatcher.board)

    def links(self) -> list[LinkStatus]:
        """Every link with work now or since the start."""
        return figures.links(self._dispatcher.board)

    def active(self) -> dict[Link, int]:
        """Link → transfers that hold a slot now."""
        return dict(self._dispatcher.board.active_by_link())

    def limits(self) -> dict[Place, int]:
        """Place → most that may run there now, where something bounds it beside the configuration."""
        return self._dispatcher.board.capped()

    def backlog(self) -> dict[tuple[Link, str, str], int]:
        """(link, VO, activity) → transfers that could be claimed now if there were room."""
        return self._dispatcher.board.ready_by_sharer()

    def _retuned(self, tuned: Tuned) -> None:
        """What operators have set has changed."""
        self._dispatcher.prepare = tuned.defaults.fill
        self._dispatcher.retune(tuned.limits, tuned.shares)
        if self._on_capabilities is not None:
            self._on_capabilities(tuned.capabilities)

    def _ordered(self) -> None:
        """What operators have ordered has changed."""
        self._dispatcher.governor.order(self.control.caps(self._deps.clock.now()))
        self._dispatcher.changed()

    def _committed(self, ended: JobId | None) -> None:
        if ended is not None and ended in self._waiters:
            for future in self._waiters[ended]:
                if not future.done():
                    future.set_result(None)
        self.companions.tell()
        self._following.tell()
