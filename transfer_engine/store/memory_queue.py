"""What waits, in memory: priorities, jobs on hold, retries that are due, counts, the choice among replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transfer_engine.model import Choice, FileId, JobId, Position, Reroute, Shift
from transfer_engine.states import DRIVEN, JOB_TERMINAL, TERMINAL, FileState
from transfer_engine.store.api import Backlog
from transfer_engine.store.memory_rows import Bucket, Job, Row, further_replicas
from transfer_engine.store.memory_tables import ORDERLY, Shifts, Tables


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


def backlog(tables: Tables) -> Backlog:
    """See `Store.backlog`."""
    shifts = tuple(
        Shift(bucket.queue, bucket.priority, bucket.n, bucket.n_bytes)
        for _, bucket in sorted(tables.buckets.items())
        if bucket.n
    )
    return Backlog(shifts=shifts, next_due_at=tables.next_due())


def choices(tables: Tables, limit: int) -> list[Choice]:
    """See `Store.choices`."""
    found = (Choice(b.queue, b.priority, b.n_choosable) for _, b in sorted(tables.buckets.items()) if b.n_choosable)
    return [choice for _, choice in zip(range(limit), found, strict=False)]


def reroute(tables: Tables, moves: Sequence[Reroute]) -> tuple[Shift, ...]:
    """See `Store.reroute`."""
    shifts = Shifts()
    for move in moves:
        bucket = tables.buckets.get((move.queue_id, move.priority))
        if bucket is not None and bucket.n_choosable:
            for row in _candidates(tables, bucket, move):
                best = _best(tables, row, move.prefer[row.file.selection_strategy])
                if best is not None:
                    _exchange(tables, row, best, shifts)
    return shifts.all()


def _candidates(tables: Tables, bucket: Bucket, move: Reroute) -> list[Row]:
    """The oldest ready transfers that may be looked at."""
    found: list[Row] = []
    for file_id in sorted(set(bucket.ids)):
        if len(found) >= move.n:
            break
        place = tables.ready_in(file_id, bucket)
        if place is None:
            continue
        row = tables.peek(*place)
        strategy = row.file.selection_strategy
        if strategy in move.prefer and strategy != ORDERLY and not row.dest_owned and tables.is_choosable(row):
            found.append(tables.row(*place))
    return found


def _best(tables: Tables, row: Row, prefer: Mapping[str, tuple[float, float]]) -> Row | None:
    """The replica that would be there sooner than the row's own; None: there is none."""
    size = row.file.size_bytes or 0
    places = further_replicas(row.job, row.id - row.job.first)
    others = [tables.row(row.job, i) for i in places if row.job.files[i].state is FileState.NOT_USED]
    own = prefer.get(row.queue.source_se)
    best, best_s = None, None if own is None else own[0] + own[1] * size
    for other in others:
        cost = prefer.get(other.queue.source_se)
        if cost is not None and (best_s is None or cost[0] + cost[1] * size < best_s):
            best, best_s = other, cost[0] + cost[1] * size
    return best


def _exchange(tables: Tables, row: Row, other: Row, shifts: Shifts) -> None:
    shifts.add(row, -1)
    tables.leave(row)
    row.source_url, other.source_url = other.source_url, row.source_url
    row.queue, other.queue = other.queue, row.queue
    tables.enter(row)
    shifts.add(row, 1)


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
