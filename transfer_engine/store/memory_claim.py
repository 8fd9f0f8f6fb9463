"""Accept jobs, claim transfers, announce their copies, take over what a dead engine left; in memory."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from transfer_engine.errors import Conflict
from transfer_engine.model import Assignment, Claim, FileId, PlannedJob, Shift
from transfer_engine.sizes import size_class
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store.api import Forced, Inserted
from transfer_engine.store.memory_rows import Bucket, Job, Row
from transfer_engine.store.memory_tables import Shifts, Tables
from transfer_engine.views import NO_DETAIL, EventDetail


def insert(tables: Tables, planned: PlannedJob) -> Inserted:
    """See `Store.insert`."""
    known = tables.by_id.get(planned.job_id)
    if known is not None:
        if planned.repeatable and known.fingerprint == planned.fingerprint:
            return Inserted(job_id=planned.job_id, new=False, shifts=())
        raise Conflict(f"job {planned.job_id} exists already")
    job = Job(planned, tables.next_ref, tables.next_file_id)
    tables.add_job(job)
    for token in planned.tokens:
        tables.tokens.setdefault((token.token_id, token.cred_id), token)
    tables.tell(job.submitted_at, job.job_id, None, JobState.SUBMITTED)
    return Inserted(job_id=job.job_id, new=True, shifts=_enqueue(tables, job, planned))


def _enqueue(tables: Tables, job: Job, planned: PlannedJob) -> tuple[Shift, ...]:
    """Make ready what is; the hot path of a submission, so it makes no rows."""
    buckets: dict[tuple[str, str, str, int], Bucket] = {}
    before: dict[Bucket, tuple[int, int]] = {}
    for file_id, file in enumerate(planned.files, job.first):
        of_size = size_class(file.size_bytes)
        key = (file.source_se, file.dest_se, file.activity, of_size)
        bucket = buckets.get(key)
        if bucket is None:
            queue = tables.queue_for(file.source_se, file.dest_se, job.vo, file.activity, of_size)
            bucket = buckets[key] = tables.bucket(queue, job.priority)
        if file.state is not FileState.SUBMITTED:
            continue
        if bucket not in before:
            before[bucket] = (bucket.n, bucket.n_bytes)
        heapq.heappush(bucket.ids, file_id)
        bucket.n += 1
        bucket.n_bytes += file.size_bytes or 0
        if file.follows:
            bucket.n_choosable += tables.is_choosable(tables.peek(job, file_id - job.first))
    return tuple(
        Shift(bucket.queue, bucket.priority, bucket.n - n, bucket.n_bytes - n_bytes)
        for bucket, (n, n_bytes) in before.items()
    )


def claim(tables: Tables, claims: Sequence[Claim], now: float, owner: str) -> list[Assignment]:
    """See `Store.claim`."""
    picked: list[Row] = []
    for wanted in claims:
        bucket = tables.buckets.get((wanted.queue_id, wanted.priority))
        if bucket is not None and bucket.n:
            _pick(tables, bucket, wanted.n, picked)
    return _start(tables, picked, now, owner)


def _start(tables: Tables, picked: Sequence[Row], now: float, owner: str) -> list[Assignment]:
    begun: dict[int, Job] = {}
    for row in picked:
        row.state = FileState.ACTIVE
        row.epoch += 1
        row.owner = owner
        row.claimed_at = now
        row.copying = False
        if row.job.state is JobState.SUBMITTED:
            begun[row.job.ref] = row.job
        tables.tell(now, row.job.job_id, row.id, FileState.ACTIVE, detail=_begins(row))
    for job in begun.values():
        job.state = JobState.ACTIVE
        tables.tell(now, job.job_id, None, JobState.ACTIVE)
    return [row.assignment(now) for row in picked]


def _begins(row: Row) -> EventDetail:
    replica = row.job.job_type is JobType.REPLICAS
    if not replica and not row.n_failed:
        return NO_DETAIL
    return EventDetail(retry=row.n_failed, source=row.source_url if replica else None)


def claim_files(tables: Tables, file_ids: Sequence[FileId], now: float, owner: str) -> Forced:
    """See `Store.claim_files`."""
    picked: list[Row] = []
    shifts = Shifts()
    for file_id in dict.fromkeys(file_ids):
        place = tables.place(file_id)
        file = None if place is None else place[0].files[place[1]]
        if place is None or file is None or file.state is not FileState.SUBMITTED or place[0].held:
            continue
        row = tables.row(*place)
        if row.file.dest_key in tables.destinations:
            continue
        if row.is_ready():
            shifts.add(row, -1)
            tables.leave(row)
        row.retry_at = None
        _drive(tables, row)
        picked.append(row)
    return Forced(orders=tuple(_start(tables, picked, now, owner)), shifts=shifts.all())


def _drive(tables: Tables, row: Row) -> None:
    tables.drive(row)
    if row.dest_owned:
        tables.forget_remains(row)
    # It is not ready any more: a second number of it in the same heap must not be taken.
    row.state = FileState.ACTIVE


def _pick(tables: Tables, bucket: Bucket, n: int, picked: list[Row]) -> None:
    """Drive up to `n` transfers, oldest first; those whose destination is driven stay where they are."""
    passed_over: list[int] = []
    while n > 0 and bucket.ids:
        file_id = heapq.heappop(bucket.ids)
        place = tables.ready_in(file_id, bucket)
        if place is None:
            continue
        row = tables.row(*place)
        if row.file.dest_key in tables.destinations:
            passed_over.append(file_id)
            continue
        tables.leave(row)
        _drive(tables, row)
        picked.append(row)
        n -= 1
    for file_id in passed_over:
        heapq.heappush(bucket.ids, file_id)


def mark_copying(tables: Tables, file_id: FileId, epoch: int) -> bool:
    """See `Store.mark_copying`."""
    row = tables.driven.get(file_id)
    if row is None or row.epoch != epoch or row.state is not FileState.ACTIVE:
        return False
    row.copying = row.dest_owned = True
    # Who announces a copy has seen the destination empty, or made it so: what others left there is gone.
    tables.disown(row.file.dest_key)
    return True


def take_over(tables: Tables, now: float, limit: int, owner: str) -> list[Assignment]:
    """See `Store.take_over`."""
    lost = [row for _, row in sorted(tables.driven.items()) if row.owner != owner]
    for row in lost:
        if row.state is FileState.ACTIVE and not row.copying:
            _release(tables, row, now)
    taken = [row for row in lost if row.owner is not None][:limit]
    for row in taken:
        if row.state is not FileState.CANCELING:
            row.state = FileState.VERIFYING
        row.epoch += 1
        row.owner = owner
        row.claimed_at = now
        tables.tell(now, row.job.job_id, row.id, row.state)
    return [row.assignment(now, copying=row.copying, canceling=row.state is FileState.CANCELING) for row in taken]


def _release(tables: Tables, row: Row, now: float) -> None:
    """Give back what was claimed and not begun."""
    tables.let_go(row)
    row.state = FileState.SUBMITTED
    row.retry_at = row.owner = row.claimed_at = None
    if row.dest_owned:
        tables.remember_remains(row)
    tables.enter(row)
    tables.tell(now, row.job.job_id, row.id, FileState.SUBMITTED)
