"""What the store in memory keeps: a job, a transfer that something happened to, the ready ones of one queue.

A transfer that only waits is its `PlannedFile` and nothing else: it becomes a `Row` when it is first
touched. Millions that wait therefore cost what their URLs cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from protocols import checksum as checksums
from transfer_engine.model import Assignment, Done, Failure, FileId, PlannedFile, PlannedJob, Queue
from transfer_engine.states import TERMINAL, FileState, JobState, JobType
from transfer_engine.store.rows import dump_failure, load_json, load_options
from transfer_engine.views import AttemptView, FileView, JobView


class Job:
    """One job and its transfers; `held` and the counts change, what was submitted does not."""

    __slots__ = (
        "cancel_requested",
        "cred_id",
        "deadline_at",
        "dest_se",
        "files",
        "fingerprint",
        "finished_at",
        "first",
        "held",
        "job_id",
        "job_type",
        "metadata",
        "n_canceled",
        "n_driven",
        "n_failed",
        "n_files",
        "n_finished",
        "options",
        "params",
        "priority",
        "reason",
        "ref",
        "source_se",
        "state",
        "submitted_at",
        "user_dn",
        "vo",
    )

    def __init__(self, planned: PlannedJob, ref: int, first: int) -> None:
        """Args: first: the number of its first transfer; the others follow."""
        self.ref = ref
        self.first = first
        self.job_id = planned.job_id
        self.job_type = planned.job_type
        self.vo = planned.vo
        self.user_dn = planned.user_dn
        self.cred_id = planned.cred_id
        self.priority = planned.priority
        self.options = planned.options
        self.params = planned.params
        self.metadata = planned.metadata
        self.submitted_at = planned.submitted_at
        self.deadline_at = planned.deadline_at
        self.fingerprint = planned.fingerprint
        self.n_files = planned.n_files
        self.state = JobState.SUBMITTED
        self.finished_at: float | None = None
        self.reason: str | None = None
        self.cancel_requested = False
        self.held = False
        self.n_finished = self.n_failed = self.n_canceled = self.n_driven = 0
        self.files: list[PlannedFile | Row | Gone] = list(planned.files)
        route = planned.job_type is JobType.MULTIHOP
        head, last = planned.files[0], planned.files[-1]
        one_source = route or all(file.source_se == head.source_se for file in planned.files)
        one_destination = route or all(file.dest_se == head.dest_se for file in planned.files)
        self.source_se = head.source_se if one_source else None
        self.dest_se = last.dest_se if one_destination else None

    def view(self) -> JobView:
        """As users see it."""
        return JobView(
            job_id=self.job_id,
            state=self.state,
            job_type=self.job_type,
            vo=self.vo,
            user_dn=self.user_dn,
            cred_id=self.cred_id,
            priority=self.priority,
            submitted_at=self.submitted_at,
            finished_at=self.finished_at,
            reason=self.reason,
            source_se=self.source_se,
            dest_se=self.dest_se,
            metadata=load_json(self.metadata),
            options=load_options(self.options),
            params=load_json(self.params) or {},
            cancel_requested=self.cancel_requested,
            n_files=self.n_files,
            n_finished=self.n_finished,
            n_failed=self.n_failed,
            n_canceled=self.n_canceled,
            held=self.held and self.finished_at is None,
        )


class Row:
    """A transfer that something has happened to."""

    __slots__ = (
        "attempts",
        "claimed_at",
        "copying",
        "dest_owned",
        "done",
        "epoch",
        "failure",
        "file",
        "finished_at",
        "id",
        "job",
        "n_failed",
        "owner",
        "priority",
        "queue",
        "retry_at",
        "source_url",
        "src_token_id",
        "started_at",
        "state",
    )

    def __init__(self, job: Job, index: int, file: PlannedFile, queue: Queue) -> None:
        self.id = FileId(job.first + index)
        self.job = job
        self.file = file
        self.queue = queue
        self.state = file.state
        self.priority = job.priority
        self.source_url = file.source_url
        self.src_token_id = file.src_token_id
        self.epoch = 0
        self.n_failed = 0
        self.copying = self.dest_owned = False
        self.owner: str | None = None
        self.retry_at: float | None = None
        self.claimed_at: float | None = None
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.failure: Failure | None = None
        self.done: Done | None = None
        self.attempts: list[AttemptView] | None = None

    def is_ready(self) -> bool:
        """Whether it can be claimed."""
        return self.state is FileState.SUBMITTED and self.retry_at is None and not self.job.held

    def _is_followed(self) -> bool:
        """Whether a replica or hop waits for it; further replicas may have been cancelled."""
        job = self.job
        if not self.file.follows or job.job_type is JobType.MULTIHOP:
            return self.file.follows
        return any(job.files[i].state is FileState.NOT_USED for i in further_replicas(job, self.id - job.first))

    def assignment(self, now: float, *, copying: bool = False, canceling: bool = False) -> Assignment:
        """The work order of its attempt."""
        job, file = self.job, self.file
        return Assignment(
            file_id=self.id,
            epoch=self.epoch,
            job_id=job.job_id,
            job_ref=job.ref,
            job_type=job.job_type,
            file_index=file.file_index,
            queue=self.queue,
            priority=self.priority,
            source_url=self.source_url,
            dest_url=file.dest_url,
            size_bytes=file.size_bytes,
            checksum=None if file.checksum is None else checksums.parse(file.checksum),
            options=load_options(job.options),
            scitag=file.scitag,
            n_failed=self.n_failed,
            follows=self._is_followed(),
            dest_owned=self.dest_owned,
            copying=copying,
            submitted_at=job.submitted_at,
            claimed_at=now,
            canceling=canceling,
            cred_id=job.cred_id,
            src_token_id=self.src_token_id,
            dst_token_id=file.dst_token_id,
        )

    def view(self) -> FileView:
        """As users see it."""
        job, file, done, failure = self.job, self.file, self.done, self.failure
        evidence = done.evidence if done else None
        return FileView(
            file_id=self.id,
            job_id=job.job_id,
            file_index=file.file_index,
            state=self.state,
            source_url=self.source_url,
            dest_url=file.dest_url,
            source_se=self.queue.source_se,
            dest_se=self.queue.dest_se,
            vo=self.queue.vo,
            activity=self.queue.activity,
            priority=self.priority,
            size_bytes=file.size_bytes,
            checksum=file.checksum,
            metadata=load_json(file.metadata),
            scitag=file.scitag,
            selection_strategy=file.selection_strategy,
            n_failed=self.n_failed,
            submitted_at=job.submitted_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            retry_at=self.retry_at,
            reason=failure.reason if failure else None,
            failure=_as_mapping(failure),
            seen_bytes=evidence.size_bytes if evidence else None,
            seen_checksum=str(evidence.checksum) if evidence and evidence.checksum else None,
            evidence=_method(done),
            transfer_s=done.transfer_s if done else None,
            mode=done.mode if done else None,
            owner=self.owner,
            epoch=self.epoch,
            claimed_at=self.claimed_at,
            src_token_id=self.src_token_id,
            dst_token_id=file.dst_token_id,
        )


def _as_mapping(failure: Failure | None) -> Any:
    return json.loads(dump_failure(failure)) if failure else None


def _method(done: Done | None) -> str | None:
    if done is None:
        return None
    return f"adopted {done.evidence.method}" if done.evidence.adopted else done.evidence.method


@dataclass(frozen=True, slots=True)
class Gone:
    """What is left of a transfer that is over and was forgotten before its job is."""

    state: FileState


GONE: Final = {state: Gone(state) for state in TERMINAL}


class Bucket:
    """The ready transfers of one queue and priority."""

    __slots__ = ("ids", "n", "n_bytes", "n_choosable", "priority", "queue")

    def __init__(self, queue: Queue, priority: int) -> None:
        self.queue = queue
        self.priority = priority
        self.ids: list[int] = []
        """A heap of numbers; those that are no longer ready here stay until they come up."""
        self.n = 0
        self.n_bytes = 0
        self.n_choosable = 0
        """How many of them could come from another replica as well."""


def further_replicas(job: Job, index: int) -> Iterator[int]:
    """Places of the replicas behind this one, of the same file."""
    if job.job_type is JobType.MULTIHOP:
        return
    files = job.files
    while planned(files[index]).follows:
        index += 1
        yield index


def planned(file: PlannedFile | Row | Gone) -> PlannedFile:
    """A transfer, which is not gone, as it was submitted."""
    assert not isinstance(file, Gone)
    return file.file if isinstance(file, Row) else file
