"""What users see of jobs and transfers. Data only; instants (`_at`) are seconds since the epoch, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from transfer_engine.model import FileId, JobId, JobOptions, Metadata
from transfer_engine.states import FileState, JobState, JobType


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDetail:
    """What a change was when it happened, as far as its transfer's row does not say it for ever."""

    retry: int = 0
    """Attempts that had failed by then; of a transfer that goes on."""
    source: str | None = None
    """Where an attempt that begins reads from, when the row may get another source later."""
    job: str | None = None
    """State of the job, when this was its last transfer."""
    next: bool = False
    """Its next replica or hop has its turn now."""
    unused: bool = False
    """A replica or hop that was cancelled before its turn."""
    shown: bool = False
    """A cancellation that was to be seen before: it has been carried out now."""


NO_DETAIL: Final = EventDetail()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One entry of the outbox: a state change, in commit order."""

    seq: int
    """Cursor: strictly increasing."""
    at: float
    kind: str
    """`job` or `transfer`."""
    job_id: JobId
    file_id: FileId | None
    state: str
    reason: str | None = None
    detail: EventDetail = NO_DETAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class FileView:
    """One transfer as users see it."""

    file_id: FileId
    job_id: JobId
    file_index: int
    state: FileState
    source_url: str
    dest_url: str
    source_se: str
    dest_se: str
    vo: str
    activity: str
    priority: int
    size_bytes: int | None
    """As the user declared it."""
    checksum: str | None
    metadata: Metadata
    scitag: int | None
    selection_strategy: str
    n_failed: int
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    retry_at: float | None
    """When it may be claimed again; None: now, or not before its job is told to go on."""
    reason: str | None
    failure: Mapping[str, Any] | None
    """`Failure` as a mapping, with code, scope, phase, errno, message, hint, and `dst_file` where there is one."""
    seen_bytes: int | None
    seen_checksum: str | None
    evidence: str | None
    transfer_s: float | None
    mode: str | None
    owner: str | None
    epoch: int
    claimed_at: float | None = None
    """When its last attempt began."""
    src_token_id: str | None = None
    dst_token_id: str | None = None
    """Names of the transfer's own tokens, which tell nothing of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job as users see it."""

    job_id: JobId
    state: JobState
    job_type: JobType
    vo: str
    user_dn: str
    cred_id: str
    priority: int
    submitted_at: float
    finished_at: float | None
    reason: str | None
    source_se: str | None
    dest_se: str | None
    metadata: Metadata
    options: JobOptions
    params: Mapping[str, Any]
    cancel_requested: bool
    n_files: int
    n_finished: int
    n_failed: int
    n_canceled: int
    held: bool = False
    """What waits of it stays where it is until the job is told to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One attempt that did not finish its transfer."""

    file_id: FileId
    epoch: int
    at: float
    reason: str
    owner: str | None
