"""The engine as one caller may use it: what the job service has instead of the engine.

Reads show what `Caller.reads` covers and nothing else. Orders about a job need `Caller.writes`: a job
that the caller does not see does not exist, one that is seen but not the caller's to change is refused.
Orders about storages and settings need a role, for one VO or for everybody. Whatever is ordered about
more than the caller's own jobs is recorded with the caller's name.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from transfer_engine.answers import Explanation
from transfer_engine.bans import BanTable
from transfer_engine.callers import Caller, Need, Role, at_least
from transfer_engine.errors import Forbidden
from transfer_engine.model import FileId, JobId, JobRequest
from transfer_engine.places import Ban
from transfer_engine.sealed import AuditEntry
from transfer_engine.store.api import JobFilter
from transfer_engine.store.seen import SeenReader, covers
from transfer_engine.tunable_rows import ANY, Rows
from transfer_engine.views import FileView, JobView, StoredEvent

if TYPE_CHECKING:
    from transfer_engine.clock import Clock
    from transfer_engine.control import Control
    from transfer_engine.decisions import Decisions
    from transfer_engine.engine import Engine
    from transfer_engine.explain import Explainer
    from transfer_engine.figures import LinkStatus, Running
    from transfer_engine.forcing import Start
    from transfer_engine.store.api import Canceled
    from transfer_engine.tunables import Tunables

CANCEL_BLOCK: Final = 500
"""Jobs that are read at once to be cancelled."""
REFUSED: Final = "Not enough permissions"
"""FTS3's sentence."""


class Gate:
    """Gives each caller what is theirs of one engine."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def of(self, caller: Caller) -> Guarded:
        """The engine as this caller may use it."""
        return Guarded(self._engine, caller, self._clock)

    def why_not_ready(self) -> str | None:
        """See `Engine.why_not_ready`: anybody may know."""
        return self._engine.why_not_ready()

    async def why_not_written(self) -> str | None:
        """See `Engine.why_not_written`."""
        return await self._engine.why_not_written()

    def troubles(self) -> bool:
        """Whether something beside the transfers does not work (messages wait); the log says what."""
        return bool(self._engine.companions.troubles())

    def is_banned(self, caller: Caller) -> bool:
        """Has an operator banned this user?"""
        return any(ban.user_dn == caller.user_dn for ban in self._engine.control.banned_users())

    def left_s(self, caller: Caller) -> float | None:
        """How long the credential that the caller has shown still holds; None: it does not end."""
        return None if caller.expires_at is None else max(caller.expires_at - self._clock.now(), 0.0)


class Guarded:
    """One engine, one caller."""

    def __init__(self, engine: Engine, caller: Caller, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self.caller = caller
        self.reader = SeenReader(engine.reader, caller.reads)
        """What the caller sees."""

    @cached_property
    def _bans(self) -> BanTable:
        return BanTable.of(self._engine.control.bans())

    # Jobs

    async def submit(self, job: JobRequest) -> JobId:
        """See `Engine.submit`. The job is the caller's: in one of the caller's VOs, with the caller's credential."""
        caller = self.caller
        if job.vo not in caller.vos or job.user_dn != caller.user_dn or job.cred_id != caller.delegation_id:
            raise Forbidden(REFUSED)
        return await self._engine.submit(job)

    async def cancel(self, job_id: JobId, file_ids: Sequence[FileId] | None = None) -> Canceled:
        """See `Engine.cancel`. Raises: NotFound: also for one that the caller does not see. Forbidden."""
        job = await self.writable(job_id)
        canceled = await self._engine.cancel(job_id, file_ids)
        if not self._is_own(job):
            await self.audit("cancel", job_id, {"files": None if file_ids is None else list(file_ids)})
        return canceled

    async def cancel_all(self, vo: str | None) -> tuple[int, int]:
        """Cancel whatever has not ended of a VO, or (None) of everybody: (jobs, transfers) that this changed.

        What is submitted meanwhile may be among them or not.

        Raises: Forbidden. StoreUnavailable: not all is cancelled.
        """
        self.need(Role.VO_OPERATOR if vo is not None else Role.OPERATOR, vo)
        await self.audit("cancel-all", vo or "*")
        done: dict[JobId, int] = {}
        while True:
            # Those that are being stopped have not ended yet and are listed again.
            where = JobFilter(vo=vo, open_only=True, limit=len(done) + CANCEL_BLOCK)
            new = [job.job_id for job in await self.reader.jobs(where) if job.job_id not in done]
            if not new:
                return sum(map(bool, done.values())), sum(done.values())
            for job_id in new:
                done[job_id] = (await self._engine.cancel(job_id)).n_canceled

    async def set_priority(self, job_id: JobId, priority: int) -> None:
        """See `Engine.set_priority`. Raises: NotFound, Forbidden."""
        job = await self.writable(job_id)
        await self._engine.set_priority(job_id, priority)
        if not self._is_own(job):
            await self.audit("priority", job_id, {"priority": priority})

    async def hold(self, job_id: JobId, *, held: bool) -> None:
        """See `Control.hold`, `Control.resume`. Raises: NotFound, Forbidden."""
        job = await self.writable(job_id)
        await (self._engine.control.hold(job_id) if held else self._engine.control.resume(job_id))
        if not self._is_own(job):
            await self.audit("hold" if held else "resume", job_id)

    async def writable(self, job_id: JobId) -> JobView:
        """A job that the caller may change. Raises: NotFound, Forbidden."""
        job = await self.reader.job(job_id)
        if not covers(self.caller.writes, job):
            raise Forbidden(REFUSED)
        return job

    def _is_own(self, job: JobView) -> bool:
        return job.cred_id == self.caller.delegation_id

    async def events(
        self, after: int | None = None, job_id: JobId | None = None, *, gather_s: float = 0.0
    ) -> AsyncIterator[StoredEvent]:
        """See `Engine.events`; of jobs that the caller sees. Raises: NotFound: no such job for this caller."""
        if job_id is not None:
            await self.reader.job(job_id)
        async for event in self._engine.events(after, job_id, self.caller.reads, gather_s=gather_s):
            yield event

    # Why

    async def explain_file(self, file_id: FileId) -> Explanation:
        """See `Explainer.file`. Raises: NotFound."""
        return await self._engine.explainer.file(await self.reader.file(file_id))

    @property
    def explainer(self) -> Explainer:
        """About storages and links, which are nobody's; transfers only as views that came from `reader`."""
        return self._engine.explainer

    def links(self) -> list[LinkStatus]:
        """See `Engine.links`: numbers of transfers, of everybody."""
        return self._engine.links()

    def running(self) -> list[Running]:
        """See `Engine.running`. Raises: Forbidden: for who sees everything only."""
        self.need(Role.OPERATOR)
        return self._engine.running()

    def configured(self) -> Rows:
        """What operators have set; rows of VOs that the caller does not look after are left out."""
        rows = self._engine.tunables.rows

        def seen(vo: str) -> bool:
            return self.looks_after(None if vo == ANY else vo)

        return rows.model_copy(
            update={
                "operations": tuple(row for row in rows.operations if seen(row.vo)),
                "shares": tuple(row for row in rows.shares if seen(row.vo)),
                "activities": {vo: row for vo, row in rows.activities.items() if seen(vo)},
                "globals": {vo: row for vo, row in rows.globals.items() if seen(vo)},
                "authorize": rows.authorize if self.caller.may(Need.READ) else (),
            }
        )

    @property
    def decisions(self) -> Decisions:
        """Of the optimizer: numbers of transfers, of everybody."""
        return self._engine.decisions

    def on_hold(self, file: FileView) -> bool:
        """Does a transfer that is queued wait for the end of a ban? Everybody may know that of what they see."""
        return self._bans.keeps(file.source_se, file.dest_se, file.vo, self._clock.now())

    # Orders

    def tunables(self, vo: str | None) -> Tunables:
        """For settings of one VO, or (None, `*`) of everybody. Raises: Forbidden."""
        own = None if vo == ANY else vo
        self.need(Role.VO_OPERATOR if own is not None else Role.OPERATOR, own)
        return self._engine.tunables

    def authorizing(self) -> Tunables:
        """For who may do what. Raises: Forbidden: the caller is no administrator."""
        self.need(Role.ADMIN)
        return self._engine.tunables

    async def force(self, file_ids: Sequence[FileId]) -> list[Start]:
        """See `Forcing.start`. Raises: Forbidden, Conflict."""
        self.need(Role.ADMIN)
        started = await self._engine.forcing.start(file_ids)
        await self.audit("force-start", "files", {one.file_id: one.error or "started" for one in started})
        return started

    @property
    def engine(self) -> Engine:
        """For orders that concern everybody. Raises: Forbidden: the caller does not operate the node."""
        self.need(Role.OPERATOR)
        return self._engine

    def control(self, vo: str | None) -> Control:
        """For orders that concern one VO, or (None) everybody. Raises: Forbidden."""
        self.need(Role.VO_OPERATOR if vo is not None else Role.OPERATOR, vo)
        return self._engine.control

    def bans(self) -> list[Ban]:
        """The bans of storages in force; which of them the caller may know is for `looks_after` to say."""
        return self._engine.control.bans()

    def need(self, least: Role, vo: str | None = None) -> None:
        """Raises: Forbidden: the caller has not this role, for a VO or (None) for everybody."""
        if not at_least(self.caller.role_in(vo), least):
            raise Forbidden(REFUSED)

    def looks_after(self, vo: str | None) -> bool:
        """Do orders and settings of a VO concern the caller: as a member, or who monitors it? None: of everybody."""
        return vo is None or vo in self.caller.vos or at_least(self.caller.role_in(vo), Role.VO_MONITOR)

    async def audit(self, action: str, about: str, detail: Any = None) -> None:
        """Record an order of this caller. Raises: StoreUnavailable."""
        caller = self.caller
        await self._engine.record(
            AuditEntry(
                at=self._clock.now(),
                user_dn=caller.user_dn,
                vo=caller.vo if caller.vos else "",
                action=action,
                object=about[:1000],
                detail="" if detail is None else json.dumps(detail, ensure_ascii=False, default=str)[:4000],
            )
        )
