"""What waits, in memory: priorities, jobs on hold, retries that are due, counts."""

from __future__ import annotations

from transfer_engine.model import FileId, JobId, Position, Shift
from transfer_engine.states import DRIVEN, JOB_TERMINAL, TERMINAL, FileState
from transfer_engine.store.api import Backlog, Delayed
from transfer_engine.store.memory_rows import Job, Row
from transfer_engine.store.memory_tables import Shifts, Tables


def set_priority(tables: Tables, job_id: JobId, priority: int) -> tuple[Shift, ...]:
    """See `Store.set_priority`."""
    job, shifts = tables.job(job_id), Shifts()
    waiting = [tables.row(job, i) for i, file in enumerate(job.files) if file.state not in TERMINAL | DRIVEN]
    job.priority = priority
    for row in waiting:
        if row.priority == priority:
            continue
        ready = row.is_ready()
        if ready:
            shifts.add(row, -1)
            tables.leave(row)
        row.priority = priority
        if ready:
            shifts.add(row, 1)
            tables.enter(row)
    return shifts.all()


def hold(tables: Tables, job_id: JobId, *, held: bool) -> tuple[Shift, ...]:
    """See `Store.hold`."""
    job, shifts = tables.job(job_id), Shifts()
    if job.held == held or job.state in JOB_TERMINAL:
        return ()
    waiting = [tables.row(job, i) for i, file in enumerate(job.files) if file.state is FileState.SUBMITTED]
    for row in waiting:
        if row.is_ready():
            shifts.add(row, -1)
            tables.leave(row)
        row.retry_at = None
    job.held = held
    for row in waiting:
        if tables.enter(row) is not None:
            shifts.add(row, 1)
    return shifts.all()


def promote(tables: Tables, now: float, limit: int) -> Backlog:
    """See `Store.promote`."""
    shifts = Shifts()
    for _ in range(limit):
        row = tables.pop_due(now)
        if row is None:
            break
        tables.enter(row)
        shifts.add(row, 1)
    return Backlog(shifts=shifts.all(), next_due_at=tables.next_due())


def hasten(tables: Tables, endpoint: str, limit: int) -> tuple[Shift, ...]:
    """See `Store.hasten`."""
    shifts = Shifts()
    for row in tables.delayed(endpoint, limit):
        row.retry_at = None
        tables.enter(row)
        shifts.add(row, 1)
    return shifts.all()


def delayed(tables: Tables, source_se: str, dest_se: str) -> Delayed:
    """See `Reader.delayed`."""
    rows = tables.delayed(source_se)
    if source_se != dest_se:
        rows = [row for row in rows if row.queue.source_se == source_se and row.queue.dest_se == dest_se]
    due = [row.retry_at for row in rows if row.retry_at is not None]
    return Delayed(n=len(rows), next_due_at=min(due, default=None))


def backlog(tables: Tables) -> Backlog:
    """See `Store.backlog`."""
    shifts = tuple(
        Shift(bucket.queue, bucket.priority, bucket.n, bucket.n_bytes)
        for _, bucket in sorted(tables.buckets.items())
        if bucket.n
    )
    return Backlog(shifts=shifts, next_due_at=tables.next_due())


def position(tables: Tables, file_id: FileId) -> Position:
    """See `Reader.position`."""
    row = tables.find(file_id)
    bucket = tables.buckets.get((row.queue.id, row.priority))
    before = 0
    n_bytes = 0
    if bucket is not None and row.state in {FileState.SUBMITTED, FileState.NOT_USED}:
        for number in set(bucket.ids):
            place = tables.ready_in(number, bucket) if number < file_id else None
            if place is not None:
                before += 1
                n_bytes += tables.peek(*place).file.size_bytes or 0
    driving = tables.destinations.get(row.file.dest_key)
    return Position(
        n_before=before,
        bytes_before=n_bytes,
        job_held=row.job.held and row.job.finished_at is None,
        predecessor=_predecessor(tables, row) if row.state is FileState.NOT_USED else None,
        dest_driven_by=driving.id if driving is not None and driving is not row else None,
    )


def _predecessor(tables: Tables, row: Row) -> FileState | None:
    """The state of what comes before it in its job; cancelled replicas are passed over."""
    job: Job = row.job
    for index in range(row.id - job.first - 1, -1, -1):
        file = tables.peek(job, index)
        if file.state is not FileState.CANCELED:
            return file.state
    return None
