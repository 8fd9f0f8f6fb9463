"""A store without a database: plain Python objects, gone with the process.

It keeps every promise of `transfer_engine.store.api` but durability. Nothing is written anywhere, so
each call is carried out at once and returns without giving way to other tasks; a transfer costs some
microseconds from its submission to its end. Simulations run on it, and so may anybody whose transfers
need not survive the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Self
from urllib.parse import parse_qsl

from transfer_engine.callers import EVERYTHING, Sight
from transfer_engine.errors import Invalid, StoreLocked, StoreUnavailable
from transfer_engine.model import (
    Applied,
    Assignment,
    Change,
    Choice,
    Claim,
    Failure,
    FileId,
    JobId,
    PlannedJob,
    Position,
    QueueId,
    Reroute,
    Shift,
)
from transfer_engine.places import Ban
from transfer_engine.sealed import AuditEntry, Delegated, Delegation, StoredToken
from transfer_engine.store import (
    memory_cancel,
    memory_claim,
    memory_queries,
    memory_queue,
    memory_replicas,
    memory_secrets,
    memory_settle,
)
from transfer_engine.store.api import (
    Backlog,
    Canceled,
    Delayed,
    FileFilter,
    Forced,
    Inserted,
    JobFilter,
    LinkCount,
    NameKind,
    WaitingFilter,
)
from transfer_engine.store.cancel import BY_USER, CancelRequest
from transfer_engine.store.memory_tables import Tables
from transfer_engine.views import AttemptView, FileView, JobView, StoredEvent

URL: Final = "memory://"
"""What names this store where others are named by the URL of a database."""
SIMULATION_URL: Final = f"{URL}?events=no&jobs=1000"
"""One that forgets what is over, so that millions of transfers fit."""


class MemoryStore:
    """`Store` and `Reader` in memory. See `transfer_engine.store.api` for the contract."""

    def __init__(
        self,
        *,
        incarnation: str,
        now: Callable[[], float],
        events: bool = True,
        jobs_keep: int | None = None,
        tables: Tables | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            events: False: keep no outbox; `events` and `last_event` then answer as if nothing had happened.
            jobs_keep: jobs that are over stay until so many others are over, and lose their transfers at
                once (their counts stay); those without replicas and hops lose each transfer when it is over.
                None: for ever, with everything.
            tables: what an earlier store left (`tables` of it), to go on with; None: nothing.
        """
        del now
        self.tables = tables if tables is not None else Tables(events=events, jobs_keep=jobs_keep)
        self._incarnation = incarnation
        self._opened = False

    @classmethod
    def of(cls, url: str, *, incarnation: str, now: Callable[[], float]) -> Self:
        """The store of a URL: `memory://`, with `?events=no`, `?jobs=N` (`jobs_keep`) or both joined by `&`.

        Raises: Invalid: it says something else.
        """
        options = dict(parse_qsl(url.removeprefix(URL).removeprefix("?"), keep_blank_values=True))
        events, jobs = options.pop("events", "yes"), options.pop("jobs", None)
        well = events in {"yes", "no"} and (jobs is None or jobs.isdecimal())
        if not url.startswith(URL) or options or not well or (url != URL and not url.startswith(f"{URL}?")):
            raise Invalid(f"{url!r} is not {URL}, nor {URL}?events=no&jobs=N", field="database")
        return cls(
            incarnation=incarnation, now=now, events=events == "yes", jobs_keep=None if jobs is None else int(jobs)
        )

    # Life cycle

    async def open(self) -> None:
        """See `Store.open`."""
        if self.tables.opened:
            raise StoreLocked("another engine has these transfers in memory")
        self.tables.opened = self._opened = True

    async def close(self) -> None:
        """See `Store.close`."""
        if self._opened:
            self.tables.opened = self._opened = False

    def _use(self) -> Tables:
        if not self._opened:
            raise StoreUnavailable("the store is closed")
        return self.tables

    # Writes

    async def insert(self, job: PlannedJob) -> Inserted:
        """See `Store.insert`."""
        return memory_claim.insert(self._use(), job)

    async def claim(self, claims: Sequence[Claim], now: float) -> list[Assignment]:
        """See `Store.claim`."""
        return memory_claim.claim(self._use(), claims, now, self._incarnation)

    async def claim_files(self, file_ids: Sequence[FileId], now: float) -> Forced:
        """See `Store.claim_files`."""
        return memory_claim.claim_files(self._use(), file_ids, now, self._incarnation)

    async def mark_copying(self, file_id: FileId, epoch: int) -> bool:
        """See `Store.mark_copying`."""
        return memory_claim.mark_copying(self._use(), file_id, epoch)

    async def apply(self, change: Change) -> Applied:
        """See `Store.apply`."""
        return memory_settle.apply(self._use(), change)

    async def cancel(
        self, job_id: JobId, now: float, file_ids: Sequence[FileId] | None = None, failure: Failure | None = None
    ) -> Canceled:
        """See `Store.cancel`."""
        return memory_cancel.cancel(self._use(), CancelRequest(job_id, now, file_ids, failure=failure or BY_USER))

    async def set_priority(self, job_id: JobId, priority: int) -> tuple[Shift, ...]:
        """See `Store.set_priority`."""
        return memory_queue.set_priority(self._use(), job_id, priority)

    async def hold(self, job_id: JobId, *, held: bool) -> tuple[Shift, ...]:
        """See `Store.hold`."""
        return memory_queue.hold(self._use(), job_id, held=held)

    async def put_ban(self, ban: Ban) -> None:
        """See `Store.put_ban`."""
        self._use().bans[ban.endpoint, ban.vo] = ban

    async def lift_ban(self, endpoint: str, vo: str | None) -> bool:
        """See `Store.lift_ban`."""
        return self._use().bans.pop((endpoint, vo), None) is not None

    async def cancel_waiting(self, where: WaitingFilter, now: float, limit: int, failure: Failure) -> list[Canceled]:
        """See `Store.cancel_waiting`."""
        return memory_cancel.cancel_waiting(self._use(), where, now, limit, failure)

    async def reroute(self, moves: Sequence[Reroute]) -> tuple[Shift, ...]:
        """See `Store.reroute`."""
        return memory_replicas.reroute(self._use(), moves)

    async def keep(self, name: str, text: str) -> None:
        """See `Store.keep`."""
        self._use().kept[name] = text

    async def hasten(self, endpoint: str, limit: int) -> tuple[Shift, ...]:
        """See `Store.hasten`."""
        return memory_queue.hasten(self._use(), endpoint, limit)

    async def promote(self, now: float, limit: int) -> Backlog:
        """See `Store.promote`."""
        return memory_queue.promote(self._use(), now, limit)

    async def expire(self, now: float, limit: int) -> tuple[list[Canceled], float | None]:
        """See `Store.expire`."""
        return memory_cancel.expire(self._use(), now, limit)

    async def take_over(self, now: float, limit: int) -> list[Assignment]:
        """See `Store.take_over`."""
        return memory_claim.take_over(self._use(), now, limit, self._incarnation)

    async def backlog(self) -> Backlog:
        """See `Store.backlog`."""
        return memory_queue.backlog(self._use())

    async def bans(self) -> list[Ban]:
        """See `Store.bans`."""
        return [ban for _, ban in sorted(self._use().bans.items(), key=lambda item: (item[0][0], item[0][1] or ""))]

    async def kept(self, name: str) -> str | None:
        """See `Store.kept`."""
        return self._use().kept.get(name)

    async def choices(self, limit: int, after: tuple[QueueId, int] | None = None) -> list[Choice]:
        """See `Store.choices`."""
        return memory_replicas.choices(self._use(), limit, after)

    async def choice_behind(self, queue_id: QueueId, priority: int, after: FileId, limit: int) -> Choice | None:
        """See `Store.choice_behind`."""
        return memory_replicas.choice_behind(self._use(), queue_id, priority, after, limit)

    async def put_delegation(self, delegation: Delegation) -> None:
        """See `Store.put_delegation`."""
        self._use().delegations[delegation.delegation_id] = delegation

    async def delegation(self, delegation_id: str) -> Delegation | None:
        """See `Store.delegation`."""
        return self._use().delegations.get(delegation_id)

    async def put_credential(self, credential: Delegated) -> None:
        """See `Store.put_credential`."""
        memory_secrets.put_credential(self._use(), credential)

    async def credential(self, delegation_id: str) -> Delegated | None:
        """See `Store.credential`."""
        return self._use().credentials.get(delegation_id)

    async def drop_credential(self, delegation_id: str) -> bool:
        """See `Store.drop_credential`."""
        return self._use().credentials.pop(delegation_id, None) is not None

    async def put_tokens(self, tokens: Sequence[StoredToken], *, renew: bool = False) -> None:
        """See `Store.put_tokens`."""
        memory_secrets.put_tokens(self._use(), tokens, renew=renew)

    async def token(self, token_id: str, cred_id: str) -> StoredToken | None:
        """See `Store.token`."""
        return self._use().tokens.get((token_id, cred_id))

    async def unrenewed_tokens(self, after: float, before: float, limit: int) -> list[StoredToken]:
        """See `Store.unrenewed_tokens`."""
        return memory_secrets.unrenewed(self._use(), after, before, limit)

    async def prune_secrets(self, now: float, limit: int) -> int:
        """See `Store.prune_secrets`."""
        return memory_secrets.prune(self._use(), now, limit)

    async def record(self, entry: AuditEntry) -> None:
        """See `Store.record`."""
        memory_secrets.record(self._use(), entry)

    async def prune_events(self, keep: int, published: int | None = None) -> None:
        """See `Store.prune_events`."""
        events = self._use().events
        n = len(events) - keep
        if published is not None and events:
            n = min(n, published + 1 - events[0].seq)
        del events[: max(n, 0)]

    # Queries

    async def job(self, job_id: JobId) -> JobView:
        """See `Reader.job`."""
        return self._use().job(job_id).view()

    async def jobs(self, where: JobFilter) -> list[JobView]:
        """See `Reader.jobs`."""
        return memory_queries.job_list(self._use(), where)

    async def jobs_by_id(self, job_ids: Sequence[JobId], *, files: bool) -> dict[JobId, tuple[JobView, list[FileView]]]:
        """See `Reader.jobs_by_id`."""
        return memory_queries.jobs_by_id(self._use(), job_ids, with_files=files)

    async def files(self, job_id: JobId) -> list[FileView]:
        """See `Reader.files`."""
        tables = self._use()
        return memory_queries.files(tables, tables.job(job_id))

    async def files_by_id(self, file_ids: Sequence[FileId]) -> dict[FileId, FileView]:
        """See `Outbox.files_by_id`."""
        return memory_queries.files_by_id(self._use(), file_ids)

    async def files_behind(self, job_id: JobId, after: int, limit: int) -> list[FileView]:
        """See `Outbox.files_behind`."""
        return memory_queries.files_behind(self._use(), job_id, after, limit)

    async def file(self, file_id: FileId) -> FileView:
        """See `Reader.file`."""
        return self._use().find(file_id).view()

    async def file_list(self, where: FileFilter) -> list[FileView]:
        """See `Reader.file_list`."""
        return memory_queries.file_list(self._use(), where)

    async def names(self, of: NameKind, prefix: str, limit: int) -> list[str]:
        """See `Reader.names`."""
        return memory_queries.names(self._use(), of, prefix, limit)

    async def attempts(self, job_id: JobId, file_id: FileId) -> list[AttemptView]:
        """See `Reader.attempts`."""
        return memory_queries.attempts(self._use(), job_id, file_id)

    async def events(
        self, after: int, limit: int, job_id: JobId | None = None, sight: Sight = EVERYTHING
    ) -> list[StoredEvent]:
        """See `Reader.events`."""
        return memory_queries.events(self._use(), after, limit, job_id, sight)

    async def first_event(self) -> int:
        """See `Reader.first_event`."""
        tables = self._use()
        return tables.events[0].seq if tables.events else tables.last_seq + 1

    async def last_event(self) -> int:
        """See `Reader.last_event`."""
        return memory_queries.last_event(self._use())

    async def position(self, file_id: FileId) -> Position:
        """See `Reader.position`."""
        return memory_queue.position(self._use(), file_id)

    async def delayed(self, source_se: str, dest_se: str) -> Delayed:
        """See `Reader.delayed`."""
        return memory_queue.delayed(self._use(), source_se, dest_se)

    async def audit(self, limit: int, vo: str | None = None) -> list[AuditEntry]:
        """See `Reader.audit`."""
        return memory_secrets.audit(self._use(), limit, vo)

    async def counts(self) -> list[LinkCount]:
        """See `Reader.counts`."""
        return memory_queries.counts(self._use())
