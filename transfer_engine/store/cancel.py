"""Cancel jobs and transfers, expire jobs."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, text, update

from protocols.errors import Again, Phase, Scope
from transfer_engine.errors import NotFound
from transfer_engine.model import Failure, FileId, JobId, Shift
from transfer_engine.states import DRIVEN, JOB_TERMINAL, TERMINAL, Event, FileState, JobType, step
from transfer_engine.store import news
from transfer_engine.store.api import Canceled
from transfer_engine.store.books import Books
from transfer_engine.store.rows import dump_failure
from transfer_engine.store.settle import JobDelta, settle_jobs
from transfer_engine.store.tables import DRIVEN_SQL, jobs, transfers
from transfer_engine.store.tally import Tally

BY_USER: Final = Failure(
    code="CANCELED",
    again=Again.NEVER,
    scope=Scope.AGENT,
    phase=Phase.PREPARATION,
    errno=errno.ECANCELED,
    message="Job canceled by the user",
    hint="submit it again if that was not intended",
)
EXPIRED: Final = Failure(
    code="EXPIRED",
    again=Again.NEVER,
    scope=Scope.AGENT,
    phase=Phase.PREPARATION,
    errno=errno.ETIMEDOUT,
    message=("Job has been canceled because it stayed in the queue for too long (max-time-in-queue timeout)"),
    hint="raise max_time_in_queue, or ask why the link is behind",
)

LOOK_AGAIN_S: Final = 30.0
"""What ran when its deadline came may come to wait again (next replica, next hop, a crash): looked at so often."""

_SET: Final = (
    update(transfers)
    .where(transfers.c.id == bindparam("file"))
    .values(
        state=bindparam("state_"),
        finished_at=bindparam("finished_"),
        failure=bindparam("failure_"),
        retry_at=None,
    )
)

_DISOWN: Final = update(transfers).where(transfers.c.id == bindparam("file")).values(owner="", copying=1)

_KEYS_PER_QUERY: Final = 500
"""Well below the number of variables that any SQLite allows in one statement."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """What to cancel, and why."""

    job_id: JobId
    now: float
    file_ids: Sequence[FileId] | None
    waiting_only: bool = False
    """Leave transfers that are under way alone (a deadline that is over)."""
    failure: Failure = BY_USER


class CancelJobs:
    """The operation `cancel`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[CancelRequest]) -> list[Canceled | NotFound]:
        """Cancel each; waiting transfers end at once, driven ones become CANCELING."""
        return [self.one(connection, request) for request in batch]

    def one(self, connection: Connection, request: CancelRequest) -> Canceled | NotFound:
        """Cancel one job, or some of its transfers."""
        job = connection.execute(select(jobs).where(jobs.c.job_id == request.job_id)).one_or_none()
        if job is None:
            return NotFound(f"job {request.job_id} does not exist")
        if job.state in JOB_TERMINAL:
            return Canceled(
                job_id=request.job_id,
                n_canceled=0,
                running=(),
                shifts=(),
                was_terminal=True,
                states=self._states(connection, job.ref, request.file_ids),
            )
        affected = self._affected(connection, job, request)
        leftovers = find_leftovers(connection, affected)
        canceled = self._write(connection, job, request, affected, leftovers)
        if request.file_ids is None and request.failure is BY_USER:
            connection.execute(update(jobs).where(jobs.c.ref == job.ref).values(cancel_requested=1))
        return Canceled(
            job_id=request.job_id,
            n_canceled=len(affected),
            running=tuple((FileId(r.id), r.epoch) for r in affected if r.state in DRIVEN),
            shifts=canceled,
            leftovers=bool(leftovers),
            states=self._states(connection, job.ref, request.file_ids),
        )

    @staticmethod
    def _affected(connection: Connection, job: Any, request: CancelRequest) -> list[Any]:
        """The rows that change: those that are open, of files that are not over."""
        found = connection.execute(
            select(
                transfers.c.id,
                transfers.c.file_index,
                transfers.c.state,
                transfers.c.epoch,
                transfers.c.queue_id,
                transfers.c.priority,
                transfers.c.retry_at,
                transfers.c.dest_owned,
                transfers.c.dest_key,
                transfers.c.size_bytes,
            ).where(transfers.c.job_ref == job.ref, transfers.c.state.not_in([s.value for s in TERMINAL]))
        ).all()
        rows = [r for r in found if r.state != FileState.CANCELING]
        if job.job_type == JobType.MULTIHOP:
            return _of_route(found, rows, request)
        if request.waiting_only:
            driven = {r.file_index for r in rows if r.state in DRIVEN}
            rows = [r for r in rows if r.file_index not in driven]
        if request.file_ids is not None:
            wanted = set(request.file_ids)
            rows = [r for r in rows if r.id in wanted]
        # The unused replicas of a file that is over stay as they are.
        live = {r.file_index for r in rows if r.state != FileState.NOT_USED}
        return [r for r in rows if r.file_index in live]

    def _write(
        self,
        connection: Connection,
        job: Any,
        request: CancelRequest,
        affected: Sequence[Any],
        leftovers: frozenset[int],
    ) -> tuple[Shift, ...]:
        if not affected:
            return ()
        gone = Tally()
        told = end_rows(connection, {job.job_id: affected}, leftovers, request, {job.job_id: gone})
        delta = JobDelta(canceled=len({row.file_index for row in affected}), why=request.failure.message)
        settle_jobs(connection, self._books, {job.ref: delta}, at=request.now, events=told)
        news.write(connection, told)
        return gone.shifts(connection, self._books)

    @staticmethod
    def _states(
        connection: Connection, ref: int, file_ids: Sequence[FileId] | None
    ) -> tuple[tuple[FileId, FileState], ...]:
        if file_ids is None:
            return ()
        # Filtered here: a list of ids may be longer than any statement.
        wanted = set(file_ids)
        rows = connection.execute(
            select(transfers.c.id, transfers.c.state).where(transfers.c.job_ref == ref).order_by(transfers.c.id)
        )
        return tuple((FileId(row.id), FileState(row.state)) for row in rows if row.id in wanted)


def find_leftovers(connection: Connection, affected: Sequence[Any]) -> frozenset[int]:
    """Waiting transfers whose earlier attempt may have left a file: it has to go before they are over.

    They become CANCELING without an owner, for `take_over` to find. Where another transfer drives
    the same destination by now, what lies there is its business.
    """
    owned = {r.dest_key: r.id for r in affected if r.state == FileState.SUBMITTED and r.dest_owned}
    keys = list(owned)
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        driven = select(transfers.c.dest_key).where(transfers.c.dest_key.in_(part), text(DRIVEN_SQL))
        for key in connection.execute(driven).scalars():
            del owned[key]
    return frozenset(owned.values())


def end_rows(
    connection: Connection,
    affected: Mapping[str, Sequence[Any]],
    leftovers: frozenset[int],
    request: CancelRequest,
    gone: Mapping[str, Tally],
) -> list[dict[str, Any]]:
    """Cancel rows of some jobs, whose ids are the keys; what is not ready any more goes to their tallies.

    Returns: the news of it, to be written with those of the jobs.
    """
    failure = dump_failure(request.failure)
    writes: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for job_id, rows in affected.items():
        for row in rows:
            after = FileState.CANCELING if row.id in leftovers else step(FileState(row.state), Event.CANCEL)
            over = after is FileState.CANCELED
            writes.append(
                {
                    "file": row.id,
                    "state_": after.value,
                    "finished_": request.now if over else None,
                    "failure_": failure,
                }
            )
            unused = {"unused": True} if row.state == FileState.NOT_USED else None
            told.append(news.entry(request.now, job_id, row.id, after, request.failure.reason, unused))
            if row.state == FileState.SUBMITTED and row.retry_at is None:
                gone[job_id].add(row.queue_id, row.priority, -1, row.size_bytes)
    connection.execute(_SET, writes)
    if leftovers:
        connection.execute(_DISOWN, [{"file": file_id} for file_id in sorted(leftovers)])
    return told


def _of_route(found: Sequence[Any], rows: Sequence[Any], request: CancelRequest) -> list[Any]:
    """All open hops or none: a route without one of its hops leads nowhere.

    A deadline leaves a route alone while one of its hops is under way, as FTS does.
    """
    if request.waiting_only and any(row.state in DRIVEN for row in found):
        return []
    if request.file_ids is not None and not {row.id for row in rows} & set(request.file_ids):
        return []
    return list(rows)


class Expire:
    """The operation `expire`."""

    def __init__(self, cancel: CancelJobs) -> None:
        self._cancel = cancel

    def __call__(
        self, connection: Connection, batch: Sequence[tuple[float, int]]
    ) -> list[tuple[list[Canceled], float | None]]:
        """For each (now, limit): cancel what waits in jobs whose deadline is over."""
        return [self._expire(connection, now, limit) for now, limit in batch]

    def _expire(self, connection: Connection, now: float, limit: int) -> tuple[list[Canceled], float | None]:
        due = connection.execute(
            select(jobs.c.ref, jobs.c.job_id)
            .where(jobs.c.deadline_at.is_not(None), jobs.c.finished_at.is_(None), jobs.c.deadline_at <= now)
            .limit(limit)
        ).all()
        done = []
        for row in due:
            request = CancelRequest(JobId(row.job_id), now, None, waiting_only=True, failure=EXPIRED)
            outcome = self._cancel.one(connection, request)
            if isinstance(outcome, Canceled):
                done.append(outcome)
            # What is under way goes on; while it does, the job is looked at again now and then.
            connection.execute(update(jobs).where(jobs.c.ref == row.ref).values(deadline_at=now + LOOK_AGAIN_S))
        following = connection.execute(
            select(func.min(jobs.c.deadline_at)).where(jobs.c.deadline_at.is_not(None), jobs.c.finished_at.is_(None))
        ).scalar()
        return done, following
