"""The nouns of the engine: jobs, transfers, queues, claims, outcomes, changes. Data only.

Units end names (`_s`, `_bytes`); instants (`_at`) are seconds since the epoch, UTC, as floats: the
service and the command line turn them into text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from protocols.checksum import Checksum
from protocols.credentials import Secret
from protocols.errors import Again, Phase, Scope, TransferError
from transfer_engine.sealed import StoredToken
from transfer_engine.states import Event, FileState, JobType

JobId = NewType("JobId", str)
"""UUID of a job, in text form."""
FileId = NewType("FileId", int)
"""Number of a transfer, unique in a store and never used again."""
QueueId = NewType("QueueId", int)


Metadata = Any
"""A JSON value that belongs to the user and comes back as it was sent."""

PRIORITY_DEFAULT, PRIORITY_MIN, PRIORITY_MAX = 3, 1, 5


class Verify(StrEnum):
    """Which checksums are compared, FTS's `verify_checksum`."""

    NONE = "none"
    SOURCE = "source"
    TARGET = "target"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How the transfers of one job are to be done; the same for all of them."""

    verify: Verify = Verify.BOTH
    overwrite: bool = False
    """A file that is at the destination may be replaced."""
    overwrite_on_retry: bool = False
    """The same from a transfer's second attempt on; FTS's `overwrite_on_retry`."""
    overwrite_hops: bool = False
    """The same at every hop of a route but the last; FTS's `overwrite_hop`."""
    dst_file_report: bool = False
    """A transfer that fails because its destination exists says what is there."""
    strict_copy: bool = False
    """The copy alone: no look at a source of declared size, no checksums. The destination's size is still compared."""
    keep_remains: bool = False
    """What a failed or cancelled attempt left is not removed, but by the next attempt; FTS's `disable_cleanup`."""
    retries_max: int | None = None
    """Attempts beyond the first; None: the engine's setting; 0: none."""
    retry_delay_s: float | None = None
    """Shortest wait before a retry; None: the engine's setting."""
    timeout_s: float | None = None
    """For one attempt as a whole; None: progress alone decides."""
    deadline_at: float | None = None
    """Transfers that still wait then are cancelled; None: they wait for ever."""
    n_streams: int | None = None
    modes: tuple[str, ...] | None = None
    """Copy modes in order of preference; None: the engine's setting."""
    own_credential: bool = False
    """Storages are shown tokens of the job and the proxy of its user alone, never the engine's own credential."""
    no_credential: bool = False
    """Without a token of the job storages are shown nothing: whoever submitted it may not use the engine's own."""

    @property
    def compares(self) -> Verify:
        """Which checksums are really compared."""
        return Verify.NONE if self.strict_copy else self.verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One file to be at one place: what a user of the library submits.

    Attributes:
        sources: one or more replicas, tried in this order.
        destination: where the file shall be.
        size_bytes: expected length, or None.
        checksum: expected `ALGORITHM:HEX`, or None.
        activity: what it is for; shares are set between activities.
        metadata: any JSON value, given back unchanged.
        source_tokens: one for each of the sources, in the same order; or none.
        destination_token: for the destination's storage, or None.
    """

    sources: tuple[str, ...]
    destination: str
    size_bytes: int | None = None
    checksum: str | None = None
    activity: str = "default"
    metadata: Metadata = None
    scitag: int | None = None
    selection_strategy: str = "auto"
    # A renewed token makes no other transfer: it is no part of what a repeated submission is known by.
    source_tokens: tuple[Secret, ...] = field(default=(), repr=False)
    destination_token: Secret | None = field(default=None, repr=False)

    @classmethod
    def of(cls, source: str, destination: str, **more: Any) -> Transfer:
        """The usual case: one source, one destination."""
        return cls(sources=(source,), destination=destination, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A job as it was asked for, before planning."""

    transfers: tuple[Transfer, ...]
    options: JobOptions = field(default_factory=JobOptions)
    job_type: JobType | None = None
    """None: replicas or normal, by the number of sources."""
    vo: str = "local"
    user_dn: str = "local"
    cred_id: str = ""
    priority: int = PRIORITY_DEFAULT
    metadata: Metadata = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Wire parameters that are only shown again."""
    job_id: JobId | None = None
    """Chosen by the client (FTS's deterministic ids); None: a new one."""
    key: str | None = None
    """Idempotency key: the same key with the same content is the same job."""
    unmanaged_tokens: bool = False
    """Its tokens are used as they are: neither exchanged nor refreshed."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One row of the queue to be: a source, a destination, and what follows it."""

    file_index: int
    source_url: str
    dest_url: str
    dest_key: int
    """`urls.destination_key`: equal for all URLs of one file."""
    source_se: str
    dest_se: str
    activity: str
    size_bytes: int | None
    checksum: str | None
    metadata: str | None
    """JSON text."""
    scitag: int | None
    selection_strategy: str
    state: FileState
    follows: bool
    """The next row of the job is its next replica or next hop."""
    src_token_id: str | None = None
    dst_token_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """A job ready to be stored: everything checked, every row decided."""

    job_id: JobId
    job_type: JobType
    vo: str
    user_dn: str
    cred_id: str
    priority: int
    options: str
    """`JobOptions` as JSON text."""
    params: str | None
    metadata: str | None
    submitted_at: float
    deadline_at: float | None
    fingerprint: str
    """Digest of the content, to tell a repeated submission from a different one."""
    n_files: int
    """Distinct file indices."""
    files: list[PlannedFile]
    repeatable: bool = False
    """A second submission with the same id and fingerprint is the same job, not a conflict."""
    tokens: tuple[StoredToken, ...] = ()
    """Those that its files name, to be kept with it."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Transfers that wait for the same things: one link, one VO, one activity, files of similar length."""

    id: QueueId
    source_se: str
    dest_se: str
    vo: str
    activity: str
    size_class: int = 0
    """Of the files in it, see `sizes`; 0: any."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Decided: start `n` transfers of this queue at this priority, oldest first."""

    queue_id: QueueId
    priority: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A claimed transfer: all that an attempt needs to know."""

    file_id: FileId
    epoch: int
    job_id: JobId
    job_ref: int
    job_type: JobType
    file_index: int
    queue: Queue
    priority: int
    source_url: str
    dest_url: str
    size_bytes: int | None
    checksum: Checksum | None
    options: JobOptions
    scitag: int | None
    n_failed: int
    """Attempts that failed before this one."""
    follows: bool
    dest_owned: bool
    """An earlier attempt may have left its own file at the destination."""
    copying: bool
    """A COPY was announced in this or a lost epoch; the destination may have been written."""
    submitted_at: float
    claimed_at: float
    canceling: bool = False
    """Taken over in the middle of a cancellation."""
    cred_id: str = ""
    """Names the credential of whoever submitted it."""
    src_token_id: str | None = None
    dst_token_id: str | None = None
    """Tokens of its own for the two storages; None: it has none."""

    @property
    def overwrites(self) -> bool:
        """May this attempt replace a file that is not its own?"""
        options = self.options
        if options.overwrite or (options.overwrite_on_retry and self.n_failed > 0):
            return True
        return options.overwrite_hops and self.job_type is JobType.MULTIHOP and self.follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen at the destination after the copy; without it nothing is FINISHED."""

    size_bytes: int
    checksum: Checksum | None
    method: str
    """`size+checksum` or `size`: what was compared."""
    adopted: bool = False
    """Found complete by a probe, not reported by the attempt itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed attempt as data."""

    code: str
    again: Again
    scope: Scope
    phase: Phase
    errno: int
    message: str
    hint: str
    retry_after_s: float | None = None
    dst_file: Mapping[str, Any] | None = None
    """What is at a destination that exists, in FTS's words, when the job asked for it (`dst_file_report`)."""

    @classmethod
    def of(cls, error: TransferError) -> Failure:
        """The data of an error."""
        return cls(
            code=error.code,
            again=error.again,
            scope=error.scope,
            phase=error.phase,
            errno=error.errno,
            message=error.message,
            hint=error.hint,
            retry_after_s=error.retry_after_s,
        )

    @property
    def reason(self) -> str:
        """FTS's one-line form, `SCOPE [errno] message`, which Rucio and people read."""
        return f"{self.scope} [{self.errno}] {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The destination has the right bytes."""

    evidence: Evidence
    mode: str
    bytes_moved: int
    transfer_s: float
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt failed and nothing is being written any more."""

    failure: Failure
    clean: bool
    """The destination holds nothing of this attempt."""
    started_at: float
    charge: bool = True
    """False: the engine's own death ended it, which is not the transfer's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nobody knows whether the destination is, or will become, complete."""

    failure: Failure
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """A cancelled attempt has ended; `clean` when its destination was seen without our file."""

    clean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The attempt did not begin: nothing was sent."""


Outcome = Done | Failed | Unknown | Cleaned | Released


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One state change of one transfer, valid only while (expect, epoch) holds."""

    file_id: FileId
    job_ref: int
    queue_id: QueueId
    priority: int
    expect: frozenset[FileState]
    epoch: int
    event: Event
    at: float
    failure: Failure | None = None
    done: Done | None = None
    retry_at: float | None = None
    charge: bool = False
    """Count this attempt as failed."""
    dest_owned: bool = False
    activate_next: bool = False
    """The next row (replica or hop) becomes SUBMITTED in the same transaction."""
    prefer: Mapping[str, Mapping[str, tuple[float, float]]] | None = None
    """Which of the replicas that are left is the next one, as in `Reroute`; None: the first."""
    started_at: float | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """Committed: `n_ready` more (or fewer) transfers of a queue can be claimed now."""

    queue: Queue
    priority: int
    n_ready: int
    n_bytes: int = 0
    """How many bytes they have, as far as sizes were declared; of the same sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a batch of changes did."""

    won: bool
    """False: state or epoch had moved on and nothing was changed."""
    shifts: tuple[Shift, ...] = ()
    state: FileState | None = None
    """The state now; None when the epoch is no longer the change's."""
    job_ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reroute:
    """Look again at which replica is best for transfers that wait in one queue.

    Attributes:
        n: at most so many are looked at, oldest first.
        prefer: strategy → source endpoint → (seconds, seconds per byte): the source with the least
            `seconds + seconds_per_byte · size` is taken; one that is not listed is never taken.
        after: only those behind this one.
    """

    queue_id: QueueId
    priority: int
    n: int
    prefer: Mapping[str, Mapping[str, tuple[float, float]]]
    after: FileId = FileId(0)


@dataclass(frozen=True, slots=True)
class Choice:
    """Ready transfers of one queue that have further replicas and a strategy that may choose among them.

    Attributes:
        n: how many were looked at, oldest first.
        last: the youngest of these.
        sources: endpoints of their further replicas.
        strategies: that they were submitted with.
    """

    queue: Queue
    priority: int
    n: int
    last: FileId
    sources: frozenset[str]
    strategies: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a waiting transfer stands."""

    n_before: int
    """Ready transfers of the same queue and priority that are older."""
    bytes_before: int
    job_held: bool
    predecessor: FileState | None
    """State of the replica or hop before it, for one that is NOT_USED; cancelled replicas are passed over."""
    dest_driven_by: FileId | None
    """Another transfer that is writing the same destination."""
