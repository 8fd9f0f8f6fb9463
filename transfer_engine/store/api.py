"""The store's contract: writes with compare-and-set, and queries that never block them.

The store is the queue: a transfer is accepted when the transaction with its row is committed, and
nobody is told of a change before its commit. Concurrent writes are gathered into one transaction
(group commit); each call returns when its transaction is on disk.

Every write that speaks of a claimed transfer carries the epoch of its claim. If the row's state or
epoch has moved on, the write changes nothing and says so: the caller drops what it knows and
touches nothing at the storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from transfer_engine.callers import EVERYTHING, Sight
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
from transfer_engine.states import FileState, JobState
from transfer_engine.views import AttemptView, FileView, JobView, StoredEvent

NameKind = Literal["dn", "vo", "source", "destination", "storage"]
"""What there are names of."""

LOOKED_AT: Final = 100
"""Transfers of a queue that are looked at to see what choice there is."""

SECRETS_KEPT_S: Final = 86_400.0
"""How long after their end tokens and credentials stay, for whoever asks what became of a transfer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inserted:
    """A stored job; `new` is False when an equal submission was there already."""

    job_id: JobId
    new: bool
    shifts: tuple[Shift, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canceled:
    """What a cancellation did."""

    job_id: JobId
    n_canceled: int
    """Transfers whose state it changed."""
    running: tuple[tuple[FileId, int], ...]
    """(transfer, epoch) of attempts that must be stopped; they are CANCELING now."""
    shifts: tuple[Shift, ...]
    leftovers: bool = False
    """Waiting transfers with remains at their destination are CANCELING now, for `take_over` to return."""
    was_terminal: bool = False
    states: tuple[tuple[FileId, FileState], ...] = ()
    """State of each transfer that was asked for by id, after the cancellation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """What was claimed out of turn."""

    orders: tuple[Assignment, ...]
    shifts: tuple[Shift, ...]
    """Those of them that were ready are not any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits, as counts."""

    shifts: tuple[Shift, ...]
    """Ready transfers per queue and priority."""
    next_due_at: float | None
    """When the earliest retry is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFilter:
    """Which waiting transfers are meant: those that read from or write to an endpoint, of a VO or of all."""

    endpoint: str
    vo: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delayed:
    """How many transfers wait for a retry, and when the first of them is due."""

    n: int
    next_due_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list; None means any."""

    states: frozenset[JobState] | None = None
    open_only: bool = False
    vo: str | None = None
    user_dn: str | None = None
    cred_id: str | None = None
    source_se: str | None = None
    dest_se: str | None = None
    submitted_after: float | None = None
    limit: int = 500
    sight: Sight = EVERYTHING
    """Only those that somebody sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFilter:
    """Which transfers to list; None means any."""

    states: frozenset[FileState] | None = None
    vo: str | None = None
    source_se: str | None = None
    dest_se: str | None = None
    dest_url: str | None = None
    ended_after: float | None = None
    """Of jobs that have ended since; None: of those that have not ended."""
    limit: int = 1000
    sight: Sight = EVERYTHING
    """Only those of jobs that somebody sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCount:
    """Transfers of one link by state."""

    source_se: str
    dest_se: str
    vo: str
    activity: str
    state: FileState
    n: int


class Store(Protocol):
    """Writes. All methods raise StoreUnavailable when nothing was, or could be, changed."""

    async def open(self) -> None:
        """Connect, take the database for this incarnation and bring its schema up to date.

        Raises: StoreLocked: another engine has it. StoreUnavailable: it cannot be opened.
        """

    async def close(self) -> None:
        """Finish what was handed in, then let the database go."""

    async def insert(self, job: PlannedJob) -> Inserted:
        """Accept one job. Raises: Conflict: the id exists with other content, or is not repeatable."""

    async def claim(self, claims: Sequence[Claim], now: float) -> list[Assignment]:
        """Take up to `n` ready transfers per claim from SUBMITTED to ACTIVE, each under a new epoch.

        A transfer whose destination is driven by another attempt is passed over. Order: as claimed.
        """

    async def claim_files(self, file_ids: Sequence[FileId], now: float) -> Forced:
        """Take these from SUBMITTED to ACTIVE, also those that wait for a retry, each under a new epoch.

        Passed over are what is in another state or on hold, and what has its destination driven by another
        attempt. Order: as asked for.
        """

    async def mark_copying(self, file_id: FileId, epoch: int) -> bool:
        """Record that this epoch may write its destination from now on; False: the claim is lost."""

    async def apply(self, change: Change) -> Applied:
        """Apply one change if (state, epoch) still holds; gathered with others into one transaction."""

    async def cancel(
        self, job_id: JobId, now: float, file_ids: Sequence[FileId] | None = None, failure: Failure | None = None
    ) -> Canceled:
        """Cancel a job, or some of its transfers; `failure` says why, None: its user wished it. Raises: NotFound."""

    async def set_priority(self, job_id: JobId, priority: int) -> tuple[Shift, ...]:
        """Give the waiting transfers of a job another priority. Raises: NotFound."""

    async def hold(self, job_id: JobId, *, held: bool) -> tuple[Shift, ...]:
        """Put a job on hold, or let it go on: what waits of it cannot be claimed while it is held.

        What runs goes on; a retry of it waits too. Whatever waits is ready at once afterwards, a retry as
        well. Cancelling and deadlines work as ever. Calling it again changes nothing, and so does a call for
        a job that is over. Raises: NotFound.
        """

    async def put_ban(self, ban: Ban) -> None:
        """Keep a ban; it replaces one of the same endpoint and VO."""

    async def lift_ban(self, endpoint: str, vo: str | None) -> bool:
        """Remove a ban; False when there was none."""

    async def cancel_waiting(self, where: WaitingFilter, now: float, limit: int, failure: Failure) -> list[Canceled]:
        """Cancel what waits for an endpoint, in up to `limit` jobs; what runs is left alone. Empty: none is left.

        Waiting is SUBMITTED, also for a retry or on hold, and NOT_USED. Nothing of a file that is driven, of
        a route with a driven hop, or of a file that is over is touched. Otherwise all rows of a file that wait
        for the endpoint become CANCELED, and the file goes on with the first of its replicas that do not touch
        it, which gets `dest_owned` from the row before; without any, the file is cancelled. A route is
        cancelled as a whole. `n_canceled` counts rows that are CANCELED (or CANCELING, for remains) now.
        """

    async def reroute(self, moves: Sequence[Reroute]) -> tuple[Shift, ...]:
        """Exchange the source of waiting transfers with a better replica that is NOT_USED.

        Rows keep their ids: the two rows of one file exchange `source_url` and queue. The row that waits gets
        the best of its sources, its own or that of a NOT_USED row behind it; among equals it keeps its own,
        otherwise it takes the first. Looked at are ready rows with a replica behind them whose strategy is in
        `prefer`. `orderly` ones, hops, and rows with remains at their destination are left alone.
        """

    async def keep(self, name: str, text: str) -> None:
        """Remember a text under a name; it replaces the earlier one."""

    async def hasten(self, endpoint: str, limit: int) -> tuple[Shift, ...]:
        """Make up to `limit` retries that read from or write to an endpoint ready now, whenever they are due.

        What is on hold stays so. Fewer than `limit`: there are no more.
        """

    async def promote(self, now: float, limit: int) -> Backlog:
        """Make up to `limit` retries that are due by `now` ready again; the shifts are these alone."""

    async def expire(self, now: float, limit: int) -> tuple[list[Canceled], float | None]:
        """Cancel the waiting transfers of up to `limit` jobs whose deadline is over, and say when the next one is."""

    async def take_over(self, now: float, limit: int) -> list[Assignment]:
        """Take up to `limit` transfers that an earlier incarnation left driven, each under a new epoch.

        ACTIVE without a COPY announced becomes SUBMITTED again, uncharged, and is not returned; the
        others become VERIFYING (or stay CANCELING). Empty when there are no more.
        """

    async def backlog(self) -> Backlog:
        """Counts of everything that is ready; read once at start."""

    async def bans(self) -> list[Ban]:
        """All bans, also those that have run out; by endpoint and VO."""

    async def kept(self, name: str) -> str | None:
        """What `keep` remembered; None: nothing."""

    async def choices(self, limit: int, after: tuple[QueueId, int] | None = None) -> list[Choice]:
        """Where ready transfers have a further replica NOT_USED and are not `orderly`: up to `limit` queues.

        Of each the oldest ones are looked at. Args: after: (queue, priority); only those that come behind it.
        """

    async def choice_behind(self, queue_id: QueueId, priority: int, after: FileId, limit: int) -> Choice | None:
        """The same of one queue: up to `limit` transfers behind `after`; None: there are no more."""

    async def put_delegation(self, delegation: Delegation) -> None:
        """Begin a delegation; it replaces one that was begun under the same id."""

    async def delegation(self, delegation_id: str) -> Delegation | None:
        """The delegation that was begun under this id."""

    async def put_credential(self, credential: Delegated) -> None:
        """Keep a delegated credential; it replaces the one of the same id and ends the delegation that was begun."""

    async def credential(self, delegation_id: str) -> Delegated | None:
        """The delegated credential of this id, also one that has ended."""

    async def drop_credential(self, delegation_id: str) -> bool:
        """Forget a delegated credential; False when there was none."""

    async def put_tokens(self, tokens: Sequence[StoredToken], *, renew: bool = False) -> None:
        """Keep tokens; one that is there already under its (id, owner) stays as it is, unless `renew`."""

    async def token(self, token_id: str, cred_id: str) -> StoredToken | None:
        """The token of this id and owner."""

    async def unrenewed_tokens(self, after: float, before: float, limit: int) -> list[StoredToken]:
        """Up to `limit` tokens that open transfers need, are to be renewed, and have nothing to be renewed with yet.

        Those that end between `after` and `before`, the next ones first.
        """

    async def prune_secrets(self, now: float, limit: int) -> int:
        """Forget up to `limit` tokens and credentials that ended more than a day ago and no open transfer needs."""

    async def record(self, entry: AuditEntry) -> None:
        """Add to the record of orders; `seq` is given here, and a digest that covers the row before."""

    async def prune_events(self, keep: int, published: int | None = None) -> None:
        """Drop outbox entries beyond the newest `keep`, but none with a `seq` beyond `published`."""


class Outbox(Protocol):
    """What messages are made from; committed data only, StoreUnavailable when it cannot be read."""

    async def events(
        self, after: int, limit: int, job_id: JobId | None = None, sight: Sight = EVERYTHING
    ) -> list[StoredEvent]:
        """See `Reader.events`."""

    async def last_event(self) -> int:
        """See `Reader.last_event`."""

    async def jobs_by_id(self, job_ids: Sequence[JobId], *, files: bool) -> dict[JobId, tuple[JobView, list[FileView]]]:
        """See `Reader.jobs_by_id`."""

    async def files_by_id(self, file_ids: Sequence[FileId]) -> dict[FileId, FileView]:
        """Those of the transfers that exist."""

    async def files_behind(self, job_id: JobId, after: int, limit: int) -> list[FileView]:
        """Up to `limit` transfers of a job with numbers beyond `after`, in the order submitted; empty: no more."""

    async def kept(self, name: str) -> str | None:
        """See `Store.kept`."""

    async def keep(self, name: str, text: str) -> None:
        """See `Store.keep`."""


class Reader(Protocol):
    """Queries; they see committed data only and raise StoreUnavailable when they cannot be answered."""

    async def job(self, job_id: JobId) -> JobView:
        """One job. Raises: NotFound."""

    async def jobs(self, where: JobFilter) -> list[JobView]:
        """Jobs, newest first."""

    async def jobs_by_id(self, job_ids: Sequence[JobId], *, files: bool) -> dict[JobId, tuple[JobView, list[FileView]]]:
        """Those of the jobs that exist; with `files` each with its transfers in the order submitted, read at once."""

    async def files(self, job_id: JobId) -> list[FileView]:
        """The transfers of a job in the order submitted. Raises: NotFound."""

    async def file(self, file_id: FileId) -> FileView:
        """One transfer. Raises: NotFound."""

    async def file_list(self, where: FileFilter) -> list[FileView]:
        """Transfers, newest first."""

    async def names(self, of: NameKind, prefix: str, limit: int) -> list[str]:
        """Users, VOs or endpoints that there ever was a transfer of, from `prefix` on, in order."""

    async def attempts(self, job_id: JobId, file_id: FileId) -> list[AttemptView]:
        """The attempts of a transfer that failed, oldest first. Raises: NotFound."""

    async def events(
        self, after: int, limit: int, job_id: JobId | None = None, sight: Sight = EVERYTHING
    ) -> list[StoredEvent]:
        """Outbox entries with `seq` beyond `after`, in order; of jobs that somebody sees."""

    async def first_event(self) -> int:
        """`seq` of the oldest outbox entry that is kept; without any, that of the next one."""

    async def last_event(self) -> int:
        """`seq` of the newest outbox entry; 0 when there is none."""

    async def position(self, file_id: FileId) -> Position:
        """Where a waiting transfer stands; nothing is before one that does not wait. Raises: NotFound."""

    async def delayed(self, source_se: str, dest_se: str) -> Delayed:
        """Retries of a link; of an endpoint when both are the same; what is on hold is not counted."""

    async def audit(self, limit: int, vo: str | None = None) -> list[AuditEntry]:
        """The newest entries of the record of orders, newest first; of one VO, or all."""

    async def counts(self) -> list[LinkCount]:
        """Transfers by link, VO, activity and state; a scan, for people and tests."""
