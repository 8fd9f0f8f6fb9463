"""What waits: count it, hold it, let it go on, give it another priority, make due retries ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, text, update

from transfer_engine.errors import NotFound
from transfer_engine.model import JobId, Shift
from transfer_engine.states import DRIVEN, JOB_TERMINAL, TERMINAL, FileState
from transfer_engine.store.api import Backlog
from transfer_engine.store.books import Books
from transfer_engine.store.tables import DELAYED_SQL, HELD_AT, READY_SQL, jobs, queues, transfers
from transfer_engine.store.tally import Tally

_GROUPS: Final = (
    select(transfers.c.queue_id, transfers.c.priority, func.count(), func.sum(transfers.c.size_bytes))
    .where(text(READY_SQL))
    .group_by(transfers.c.queue_id, transfers.c.priority)
)
"""(queue, priority, n, bytes or None) of what is ready."""


class SetPriority:
    """The operation `set_priority`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(
        self, connection: Connection, batch: Sequence[tuple[JobId, int]]
    ) -> list[tuple[Shift, ...] | NotFound]:
        """For each (job, priority): move its waiting transfers."""
        return [self._one(connection, job_id, priority) for job_id, priority in batch]

    def _one(self, connection: Connection, job_id: JobId, priority: int) -> tuple[Shift, ...] | NotFound:
        job = _job(connection, job_id)
        if isinstance(job, NotFound):
            return job
        moved = Tally()
        mine = _GROUPS.where(transfers.c.job_ref == job.ref, transfers.c.priority != priority)
        for queue_id, before, n, n_bytes in connection.execute(mine).all():
            moved.add(queue_id, before, -n, n_bytes)
            moved.add(queue_id, priority, n, n_bytes)
        connection.execute(
            update(transfers)
            .where(transfers.c.job_ref == job.ref, transfers.c.state.not_in([s.value for s in TERMINAL | DRIVEN]))
            .values(priority=priority)
        )
        connection.execute(update(jobs).where(jobs.c.ref == job.ref).values(priority=priority))
        return moved.shifts(connection, self._books)


class Hold:
    """The operation `hold`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(
        self, connection: Connection, batch: Sequence[tuple[JobId, bool]]
    ) -> list[tuple[Shift, ...] | NotFound]:
        """For each (job, held): take what waits of it out of what is ready, or back."""
        return [self._one(connection, job_id, held) for job_id, held in batch]

    def _one(self, connection: Connection, job_id: JobId, held: bool) -> tuple[Shift, ...] | NotFound:
        job = _job(connection, job_id)
        if isinstance(job, NotFound):
            return job
        if job.state in JOB_TERMINAL or bool(job.held) == held:
            return ()
        waiting = transfers.c.job_ref == job.ref, transfers.c.state == FileState.SUBMITTED.value
        moved = Tally()
        if held:
            for queue_id, priority, n, n_bytes in connection.execute(_GROUPS.where(waiting[0])).all():
                moved.add(queue_id, priority, -n, n_bytes)
        connection.execute(update(transfers).where(*waiting).values(retry_at=HELD_AT if held else None))
        connection.execute(update(jobs).where(jobs.c.ref == job.ref).values(held=int(held)))
        if not held:
            for queue_id, priority, n, n_bytes in connection.execute(_GROUPS.where(waiting[0])).all():
                moved.add(queue_id, priority, n, n_bytes)
        return moved.shifts(connection, self._books)


def _job(connection: Connection, job_id: JobId) -> Any | NotFound:
    job = connection.execute(select(jobs.c.ref, jobs.c.state, jobs.c.held).where(jobs.c.job_id == job_id)).one_or_none()
    return NotFound(f"job {job_id} does not exist") if job is None else job


class Promote:
    """The operation `promote`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[tuple[float, int]]) -> list[Backlog]:
        """For each (now, limit): retries that are due can be claimed again."""
        return [self._promote(connection, now, limit) for now, limit in batch]

    def _promote(self, connection: Connection, now: float, limit: int) -> Backlog:
        due = connection.execute(
            select(transfers.c.id, transfers.c.queue_id, transfers.c.priority, transfers.c.size_bytes)
            .where(text(DELAYED_SQL), transfers.c.retry_at <= now, transfers.c.retry_at < HELD_AT)
            .order_by(transfers.c.retry_at)
            .limit(limit)
        ).all()
        if due:
            connection.execute(
                update(transfers).where(transfers.c.id == bindparam("file")).values(retry_at=None),
                [{"file": row.id} for row in due],
            )
        ready = Tally()
        for row in due:
            ready.add(row.queue_id, row.priority, 1, row.size_bytes)
        return Backlog(shifts=ready.shifts(connection, self._books), next_due_at=next_due(connection))


class Hasten:
    """The operation `hasten`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[tuple[str, int]]) -> list[tuple[Shift, ...]]:
        """For each (endpoint, limit): retries that concern it can be claimed again."""
        return [self._hasten(connection, endpoint, limit) for endpoint, limit in batch]

    def _hasten(self, connection: Connection, endpoint: str, limit: int) -> tuple[Shift, ...]:
        concerned = select(queues.c.id).where((queues.c.source_se == endpoint) | (queues.c.dest_se == endpoint))
        found = connection.execute(
            select(transfers.c.id, transfers.c.queue_id, transfers.c.priority, transfers.c.size_bytes)
            .where(text(DELAYED_SQL), transfers.c.queue_id.in_(concerned), transfers.c.retry_at < HELD_AT)
            .order_by(transfers.c.queue_id, transfers.c.id)
            .limit(limit)
        ).all()
        if not found:
            return ()
        connection.execute(
            update(transfers).where(transfers.c.id == bindparam("file")).values(retry_at=None),
            [{"file": row.id} for row in sorted(found)],
        )
        ready = Tally()
        for row in found:
            ready.add(row.queue_id, row.priority, 1, row.size_bytes)
        return ready.shifts(connection, self._books)


def next_due(connection: Connection) -> float | None:
    """When the earliest retry is due; what is on hold is none."""
    return connection.execute(
        select(func.min(transfers.c.retry_at)).where(text(DELAYED_SQL), transfers.c.retry_at < HELD_AT)
    ).scalar()


class LoadBacklog:
    """The operation `backlog`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[None]) -> list[Backlog]:
        """Count what is ready; one pass over its index."""
        ready = Tally()
        for queue_id, priority, n, n_bytes in connection.execute(_GROUPS).all():
            ready.add(queue_id, priority, n, n_bytes)
        found = Backlog(shifts=ready.shifts(connection, self._books), next_due_at=next_due(connection))
        return [found] * len(batch)
