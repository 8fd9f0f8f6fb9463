"""Apply changes in memory: compare-and-set on (state, epoch), job counts, the next replica or hop, the outbox."""

from __future__ import annotations

from transfer_engine.model import Applied, Change, Queue, Shift
from transfer_engine.states import DRIVEN, JOB_TERMINAL, TERMINAL, Event, FileState, JobState, JobType, roll_up, step
from transfer_engine.store.memory_replicas import next_replica
from transfer_engine.store.memory_rows import Gone, Job, Row
from transfer_engine.store.memory_tables import Tables
from transfer_engine.store.settle import detail_of, reason_of_job
from transfer_engine.views import NO_DETAIL, AttemptView, EventDetail


def apply(tables: Tables, change: Change) -> Applied:
    """See `Store.apply`."""
    row = tables.driven.get(change.file_id) or _not_driven(tables, change)
    if row is None or row.epoch != change.epoch:
        return Applied(won=False)
    if row.state not in change.expect:
        return Applied(won=False, state=row.state)
    after = step(row.state, change.event)
    follower = _follower(tables, row, change) if change.activate_next else None
    reason = change.failure.reason if change.failure else None
    if change.failure is not None and change.event in {Event.RETRY, Event.FAIL}:
        _remember_attempt(row, change, reason or "")
    job, shifts = row.job, []
    _write(tables, row, change, after)
    detail = NO_DETAIL
    if tables.keeps_events and (kept := detail_of(change, after, row.n_failed)):
        detail = EventDetail(**kept)
    tables.tell(change.at, job.job_id, row.id, after, reason, detail)
    if after is FileState.SUBMITTED:
        shifts += _wait(tables, row)
    closes = after in {FileState.FINISHED, FileState.FAILED}
    if follower is not None:
        shifts += activate(tables, follower, change.at, dest_owned=change.dest_owned)
        # A replica that failed leaves its file open for the next one; a hop that finished is done.
        closes = closes and after is FileState.FINISHED
    ended = False
    if closes:
        n = int(after is FileState.FINISHED)
        ended = settle_job(tables, job, change.at, n_finished=n, n_failed=1 - n, queue=row.queue)
    elif after in TERMINAL and job.state in JOB_TERMINAL:
        tables.ended(job)
    if after in TERMINAL:
        tables.forget(row)
    return Applied(won=True, shifts=tuple(shifts), state=after, job_ended=ended)


def _not_driven(tables: Tables, change: Change) -> Row | None:
    place = tables.place(change.file_id)
    if place is None or isinstance(place[0].files[place[1]], Gone):
        return None
    return tables.row(*place)


def _follower(tables: Tables, row: Row, change: Change) -> Row:
    """The next hop, or the next replica that was not cancelled."""
    job = row.job
    if job.job_type is not JobType.MULTIHOP:
        return next_replica(tables, row, change.prefer)
    follower = tables.row(job, row.id - job.first + 1)
    step(follower.state, Event.ACTIVATE)
    return follower


def _write(tables: Tables, row: Row, change: Change, after: FileState) -> None:
    if row.state in DRIVEN and after not in DRIVEN:
        tables.let_go(row)
    elif row.is_ready():
        tables.leave(row)
    if row.dest_owned and row.state is FileState.SUBMITTED:
        tables.forget_remains(row)
    row.state = after
    row.n_failed += change.charge
    row.retry_at = None if row.job.held else change.retry_at
    row.dest_owned = change.dest_owned
    if change.started_at is not None:
        row.started_at = change.started_at
    row.finished_at = change.at if after in TERMINAL else None
    row.done = change.done
    if change.done is not None:
        row.failure = None
    elif change.failure is not None:
        row.failure = change.failure


def _wait(tables: Tables, row: Row) -> list[Shift]:
    """A transfer waits again: what became ready of it."""
    if row.dest_owned:
        tables.remember_remains(row)
    if row.retry_at is not None:
        tables.delay(row, row.retry_at)
        return []
    shift = tables.enter(row)
    return [] if shift is None else [shift]


def activate(tables: Tables, row: Row, at: float, *, dest_owned: bool) -> list[Shift]:
    """A further replica or hop gets its turn; what an earlier attempt left lies where it is to go."""
    row.state = step(row.state, Event.ACTIVATE)
    row.dest_owned = dest_owned
    tables.tell(at, row.job.job_id, row.id, row.state)
    return _wait(tables, row)


def _remember_attempt(row: Row, change: Change, reason: str) -> None:
    view = AttemptView(file_id=row.id, epoch=change.epoch, at=change.at, reason=reason, owner=row.owner)
    if row.attempts is None:
        row.attempts = []
    row.attempts.append(view)


def settle_job(
    tables: Tables,
    job: Job,
    at: float,
    *,
    n_finished: int = 0,
    n_failed: int = 0,
    n_canceled: int = 0,
    queue: Queue | None = None,
    why: str | None = None,
) -> bool:
    """Add up what ended and set the state of its job; True when the job is over by it.

    Args: queue: the one that delivered last. why: why those that were cancelled were.
    """
    job.n_finished += n_finished
    job.n_failed += n_failed
    job.n_canceled += n_canceled
    if job.state in JOB_TERMINAL:
        tables.ended(job)
        return False
    state = roll_up(
        job.job_type,
        n_files=job.n_files,
        n_finished=job.n_finished,
        n_failed=job.n_failed,
        n_canceled=job.n_canceled,
        begun=job.state is not JobState.SUBMITTED,
    )
    if state is job.state:
        return False
    job.state = state
    over = state in JOB_TERMINAL
    if over:
        job.finished_at = at
        job.reason = reason_of_job(state, why)
        if job.job_type is JobType.REPLICAS and state is JobState.FINISHED and queue is not None:
            # FTS shows the storage that delivered as the source of a job with replicas.
            job.source_se = queue.source_se
    if over:
        tables.tell_over(job)
    tables.tell(at, job.job_id, None, state, job.reason if over else None)
    if over:
        tables.ended(job)
    return over
