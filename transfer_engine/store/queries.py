"""Questions to the store, as functions of a connection; nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, false, func, or_, select, text, true
from sqlalchemy.sql import Select

from transfer_engine.callers import EVERYTHING, Sight
from transfer_engine.errors import NotFound
from transfer_engine.model import FileId, JobId, Position
from transfer_engine.states import FileState, JobType
from transfer_engine.store import rows
from transfer_engine.store.api import Delayed, JobFilter, LinkCount
from transfer_engine.store.tables import (
    DELAYED_SQL,
    DRIVEN_SQL,
    HELD_AT,
    READY_SQL,
    attempts,
    events,
    jobs,
    queues,
    transfers,
)
from transfer_engine.submission import SOURCES_MAX
from transfer_engine.views import AttemptView, FileView, JobView, StoredEvent

_IDS_PER_QUERY: Final = 500
"""Well below the number of variables that any SQLite allows in one statement."""

FILES: Final[Select[Any]] = select(
    transfers,
    jobs.c.job_id,
    jobs.c.submitted_at,
    queues.c.source_se,
    queues.c.dest_se,
    queues.c.vo,
    queues.c.activity,
).select_from(transfers.join(jobs, jobs.c.ref == transfers.c.job_ref).join(queues, queues.c.id == transfers.c.queue_id))
"""What `rows.file_view` is made from."""


def job(connection: Connection, job_id: JobId) -> JobView:
    """One job. Raises: NotFound."""
    row = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).one_or_none()
    if row is None:
        msg = f"job {job_id} does not exist"
        raise NotFound(msg)
    return rows.job_view(row)


def jobs_by_id(
    connection: Connection, job_ids: Sequence[JobId], with_files: bool
) -> dict[JobId, tuple[JobView, list[FileView]]]:
    """Those of the jobs that exist, each with its transfers in the order submitted."""
    found: dict[JobId, tuple[JobView, list[FileView]]] = {}
    for start in range(0, len(job_ids), _IDS_PER_QUERY):
        part = job_ids[start : start + _IDS_PER_QUERY]
        refs = []
        for row in connection.execute(select(jobs).where(jobs.c.job_id.in_(part))):
            found[JobId(row.job_id)] = rows.job_view(row), []
            refs.append(row.ref)
        if with_files and refs:
            query = FILES.where(transfers.c.job_ref.in_(refs)).order_by(transfers.c.id)
            for row in connection.execute(query):
                found[JobId(row.job_id)][1].append(rows.file_view(row))
    return found


def job_list(connection: Connection, where: JobFilter) -> list[JobView]:
    """Jobs, newest first."""
    query = select(jobs).order_by(jobs.c.submitted_at.desc()).limit(where.limit)
    if where.open_only:
        query = query.where(jobs.c.finished_at.is_(None))
    if where.states is not None:
        query = query.where(jobs.c.state.in_([state.value for state in where.states]))
    for column, value in (
        (jobs.c.vo, where.vo),
        (jobs.c.user_dn, where.user_dn),
        (jobs.c.cred_id, where.cred_id),
        (jobs.c.source_se, where.source_se),
        (jobs.c.dest_se, where.dest_se),
    ):
        if value is not None:
            query = query.where(column == value)
    if where.submitted_after is not None:
        query = query.where(jobs.c.submitted_at >= where.submitted_after)
    if not where.sight.everything:
        query = query.where(seen(where.sight))
    return [rows.job_view(row) for row in connection.execute(query)]


def seen(sight: Sight) -> ColumnElement[bool]:
    """Which rows of `jobs` somebody sees: `Sight.covers` in SQL."""
    if sight.everything:
        return true()
    owned: list[ColumnElement[bool]] = [jobs.c.vo.in_(sorted(sight.vos))] if sight.vos else []
    if sight.cred_id is not None:
        owned.append(jobs.c.cred_id == sight.cred_id)
    if sight.user_dn is not None:
        owned.append(jobs.c.user_dn == sight.user_dn)
    return or_(false(), *owned)


def files(connection: Connection, job_id: JobId) -> list[FileView]:
    """The transfers of a job in the order submitted. Raises: NotFound."""
    found = connection.execute(FILES.where(jobs.c.job_id == job_id).order_by(transfers.c.id)).all()
    if not found:
        job(connection, job_id)
    return [rows.file_view(row) for row in found]


def files_by_id(connection: Connection, file_ids: Sequence[FileId]) -> dict[FileId, FileView]:
    """Those of the transfers that exist."""
    found: dict[FileId, FileView] = {}
    for start in range(0, len(file_ids), _IDS_PER_QUERY):
        part = file_ids[start : start + _IDS_PER_QUERY]
        for row in connection.execute(FILES.where(transfers.c.id.in_(part))):
            found[FileId(row.id)] = rows.file_view(row)
    return found


def files_behind(connection: Connection, job_id: JobId, after: int, limit: int) -> list[FileView]:
    """Transfers of a job with numbers beyond `after`, in order."""
    query = FILES.where(jobs.c.job_id == job_id, transfers.c.id > after).order_by(transfers.c.id).limit(limit)
    return [rows.file_view(row) for row in connection.execute(query)]


def file(connection: Connection, file_id: FileId) -> FileView:
    """One transfer. Raises: NotFound."""
    row = connection.execute(FILES.where(transfers.c.id == file_id)).one_or_none()
    if row is None:
        msg = f"transfer {file_id} does not exist"
        raise NotFound(msg)
    return rows.file_view(row)


def failed_attempts(connection: Connection, job_id: JobId, file_id: FileId) -> list[AttemptView]:
    """The attempts of a transfer that failed, oldest first. Raises: NotFound."""
    if file(connection, file_id).job_id != job_id:
        msg = f"transfer {file_id} does not belong to job {job_id}"
        raise NotFound(msg)
    found = connection.execute(select(attempts).where(attempts.c.file_id == file_id).order_by(attempts.c.epoch))
    return [rows.attempt_view(row) for row in found]


def event_list(
    connection: Connection, after: int, limit: int, job_id: JobId | None, sight: Sight = EVERYTHING
) -> list[StoredEvent]:
    """Outbox entries with `seq` beyond `after`, in order."""
    query = select(events).where(events.c.seq > after).order_by(events.c.seq).limit(limit)
    if job_id is not None:
        query = query.where(events.c.job_id == job_id)
    if not sight.everything:
        query = query.where(events.c.job_id.in_(select(jobs.c.job_id).where(seen(sight))))
    return [rows.stored_event(row) for row in connection.execute(query)]


def first_event(connection: Connection) -> int:
    """See `Reader.first_event`."""
    first = connection.execute(select(func.min(events.c.seq))).scalar()
    return last_event(connection) + 1 if first is None else int(first)


def last_event(connection: Connection) -> int:
    """`seq` of the newest outbox entry; 0 when there was none."""
    newest = connection.execute(select(func.max(events.c.seq))).scalar()
    return newest if newest is not None else _last_number(connection)


def _last_number(connection: Connection) -> int:
    """What the newest entry had, when all are gone; kept by SQLite for tables that never use a number again."""
    if connection.dialect.name != "sqlite":
        return 0
    return connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'events'")).scalar() or 0


def counts(connection: Connection) -> list[LinkCount]:
    """Transfers by link, VO, activity and state; a scan of the table."""
    found = connection.execute(
        select(queues, transfers.c.state, func.count().label("n"))
        .select_from(transfers.join(queues, queues.c.id == transfers.c.queue_id))
        .group_by(transfers.c.queue_id, transfers.c.state)
    )
    return [
        LinkCount(
            source_se=row.source_se,
            dest_se=row.dest_se,
            vo=row.vo,
            activity=row.activity,
            state=FileState(row.state),
            n=row.n,
        )
        for row in found
    ]


def position(connection: Connection, file_id: FileId) -> Position:
    """Where a waiting transfer stands. Raises: NotFound."""
    row = connection.execute(
        select(transfers, jobs.c.job_type, jobs.c.held, jobs.c.finished_at.label("job_finished_at"))
        .select_from(transfers.join(jobs, jobs.c.ref == transfers.c.job_ref))
        .where(transfers.c.id == file_id)
    ).one_or_none()
    if row is None:
        msg = f"transfer {file_id} does not exist"
        raise NotFound(msg)
    n_before, bytes_before = 0, 0
    if row.state in {FileState.SUBMITTED, FileState.NOT_USED}:
        n_before, bytes_before = connection.execute(
            select(func.count(), func.coalesce(func.sum(transfers.c.size_bytes), 0)).where(
                transfers.c.queue_id == row.queue_id,
                transfers.c.priority == row.priority,
                transfers.c.id < file_id,
                text(READY_SQL),
            )
        ).one()
    driver = connection.execute(
        select(transfers.c.id).where(transfers.c.dest_key == row.dest_key, transfers.c.id != file_id, text(DRIVEN_SQL))
    ).scalar()
    return Position(
        n_before=n_before,
        bytes_before=int(bytes_before),
        job_held=bool(row.held) and row.job_finished_at is None,
        predecessor=_predecessor(connection, row) if row.state == FileState.NOT_USED else None,
        dest_driven_by=None if driver is None else FileId(driver),
    )


def _predecessor(connection: Connection, row: Any) -> FileState | None:
    """State of the hop before, or of the last replica before that was not cancelled."""
    before = select(transfers.c.state).where(
        transfers.c.id.between(row.id - SOURCES_MAX + 1, row.id - 1), transfers.c.job_ref == row.job_ref
    )
    if row.job_type != JobType.MULTIHOP:
        before = before.where(transfers.c.file_index == row.file_index, transfers.c.state != FileState.CANCELED.value)
    found = connection.execute(before.order_by(transfers.c.id.desc()).limit(1)).scalar()
    return None if found is None else FileState(found)


def delayed(connection: Connection, source_se: str, dest_se: str) -> Delayed:
    """See `Reader.delayed`."""
    concerned = (queues.c.source_se == source_se) & (queues.c.dest_se == dest_se)
    if source_se == dest_se:
        concerned = (queues.c.source_se == source_se) | (queues.c.dest_se == dest_se)
    n, at = connection.execute(
        select(func.count(), func.min(transfers.c.retry_at)).where(
            text(DELAYED_SQL),
            transfers.c.retry_at < HELD_AT,
            transfers.c.queue_id.in_(select(queues.c.id).where(concerned)),
        )
    ).one()
    return Delayed(n=n, next_due_at=at)
