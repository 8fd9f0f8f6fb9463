"""Cancel what waits for a storage; a file with other replicas goes on with one of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, or_, select, text, update
from sqlalchemy.sql import Select

from transfer_engine.model import Failure, JobId
from transfer_engine.states import DRIVEN, TERMINAL, Event, FileState, JobType, step
from transfer_engine.store import news
from transfer_engine.store.api import Canceled, WaitingFilter
from transfer_engine.store.books import Books
from transfer_engine.store.cancel import CancelRequest, end_rows, find_leftovers
from transfer_engine.store.settle import JobDelta, settle_jobs
from transfer_engine.store.tables import (
    DELAYED_SQL,
    FOLLOWED_BY_HOP,
    HELD_AT,
    LEADING_SQL,
    READY_SQL,
    jobs,
    queues,
    transfers,
)
from transfer_engine.store.tally import Tally
from transfer_engine.submission import SOURCES_MAX

_REFS_PER_QUERY: Final = 500
"""Well below the number of variables that any SQLite allows in one statement."""

_ACTIVATE: Final = (
    update(transfers)
    .where(transfers.c.id == bindparam("file"))
    .values(state=bindparam("state_"), dest_owned=bindparam("owned_"), retry_at=bindparam("retry_at_"))
)
_END_OF_FILE: Final = update(transfers).where(transfers.c.id == bindparam("file")).values(follows=0)


def _touches(where: WaitingFilter) -> ColumnElement[bool]:
    at_either_end = or_(queues.c.source_se == where.endpoint, queues.c.dest_se == where.endpoint)
    return at_either_end if where.vo is None else and_(at_either_end, queues.c.vo == where.vo)


class Search:
    """Finds jobs with transfers that wait for a storage; reads only.

    Those whose turn it is are found by their queues. That a replica or hop further on touches the storage is
    seen only by looking behind every transfer that others follow: one pass over all of these, which goes on
    where the block before ended.
    """

    def __init__(self) -> None:
        self._passed: dict[WaitingFilter, int] = {}
        """Number of the last job that was found by looking behind."""

    def __call__(self, connection: Connection, where: WaitingFilter, limit: int) -> list[int]:
        """Numbers of up to `limit` jobs; empty: there are none."""
        mine = select(queues.c.id).where(_touches(where))
        if connection.execute(mine.limit(1)).scalar() is None:
            return []
        found: dict[int, None] = {}
        for waiting in (READY_SQL, DELAYED_SQL):
            turn = select(transfers.c.job_ref).distinct().where(transfers.c.queue_id.in_(mine), text(waiting))
            if len(found) < limit:
                found |= dict.fromkeys(connection.execute(turn.limit(limit)).scalars())
        if len(found) < limit:
            found |= dict.fromkeys(self._further(connection, where, limit))
        return list(found)[:limit]

    def _further(self, connection: Connection, where: WaitingFilter, limit: int) -> list[int]:
        passed = self._passed.pop(where, 0)
        found = _behind(connection, where, passed, limit)
        if not found and passed:
            # What came to wait meanwhile may be before where the search went on.
            found = _behind(connection, where, 0, limit)
        if found:
            self._passed[where] = found[-1]
        return found


def _behind(connection: Connection, where: WaitingFilter, after: int, limit: int) -> list[int]:
    row = transfers.alias("row")
    unused = and_(
        row.c.job_ref == transfers.c.job_ref,
        row.c.id > transfers.c.id,
        row.c.state == FileState.NOT_USED.value,
        row.c.queue_id.in_(select(queues.c.id).where(_touches(where))),
    )
    replica = and_(row.c.id < transfers.c.id + SOURCES_MAX, row.c.file_index == transfers.c.file_index)
    query = (
        select(transfers.c.job_ref)
        .distinct()
        .where(
            transfers.c.job_ref > after,
            text("transfers." + LEADING_SQL.replace("AND follows", "AND transfers.follows")),
            or_(
                exists().where(unused, replica),
                and_(transfers.c.follows == FOLLOWED_BY_HOP, exists().where(unused)),
            ),
        )
        .order_by(transfers.c.job_ref)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Jobs to look at, by number, and what to cancel in them."""

    refs: Sequence[int]
    where: WaitingFilter
    now: float
    failure: Failure


@dataclass(slots=True)
class _Plan:
    """What becomes of the rows of one job."""

    job: Any
    gone: list[Any] = field(default_factory=list)
    heirs: list[tuple[Any, int]] = field(default_factory=list)
    """Replicas whose turn it is now, each with `dest_owned` of the row before it."""
    last: list[Any] = field(default_factory=list)
    """Rows that nothing follows any more."""
    ended: list[Any] = field(default_factory=list)
    """Those of `gone` whose file ends with them."""


class Withdraw:
    """The operation `cancel_waiting`, for jobs that were found."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[Withdrawal]) -> list[list[Canceled]]:
        """For each request the jobs in which it cancelled something."""
        return [self._one(connection, request) for request in batch]

    def _one(self, connection: Connection, request: Withdrawal) -> list[Canceled]:
        plans = [
            plan for job, rows in _load(connection, request.refs) if (plan := _plan(job, rows, request.where)).gone
        ]
        if not plans:
            return []
        leftovers = find_leftovers(connection, [row for plan in plans for row in plan.ended])
        tallies = {plan.job.job_id: Tally() for plan in plans}
        told = end_rows(
            connection,
            {plan.job.job_id: plan.gone for plan in plans},
            leftovers,
            CancelRequest(plans[0].job.job_id, request.now, None, waiting_only=True, failure=request.failure),
            tallies,
        )
        going_on = {row.id for plan in plans for row in plan.gone} - {row.id for plan in plans for row in plan.ended}
        for item in told:
            if item["file_id"] in going_on and item["detail"] is None:
                item["detail"] = {"next": True}
        told += _go_on(connection, plans, request.now, tallies)
        deltas = {
            plan.job.ref: JobDelta(canceled=len({row.file_index for row in plan.ended}), why=request.failure.message)
            for plan in plans
            if plan.ended
        }
        settle_jobs(connection, self._books, deltas, at=request.now, events=told)
        news.write(connection, told)
        return [
            Canceled(
                job_id=JobId(plan.job.job_id),
                n_canceled=len(plan.gone),
                running=(),
                shifts=tallies[plan.job.job_id].shifts(connection, self._books),
                leftovers=any(row.id in leftovers for row in plan.ended),
            )
            for plan in plans
        ]


def _load(connection: Connection, refs: Sequence[int]) -> Iterator[tuple[Any, list[Any]]]:
    """Each job that is open, with its open rows in order."""
    for start in range(0, len(refs), _REFS_PER_QUERY):
        part = refs[start : start + _REFS_PER_QUERY]
        about = select(jobs.c.ref, jobs.c.job_id, jobs.c.job_type, jobs.c.held)
        found = {row.ref: row for row in connection.execute(about.where(jobs.c.ref.in_(part)))}
        for ref, rows in groupby(connection.execute(_open_rows(part)), key=lambda row: int(row.job_ref)):
            yield found[ref], list(rows)


def _open_rows(refs: Sequence[int]) -> Select[Any]:
    return (
        select(
            transfers.c.id,
            transfers.c.job_ref,
            transfers.c.file_index,
            transfers.c.follows,
            transfers.c.state,
            transfers.c.queue_id,
            transfers.c.priority,
            transfers.c.retry_at,
            transfers.c.dest_owned,
            transfers.c.dest_key,
            transfers.c.size_bytes,
            queues.c.source_se,
            queues.c.dest_se,
            queues.c.vo,
        )
        .select_from(transfers.join(queues, queues.c.id == transfers.c.queue_id))
        .where(transfers.c.job_ref.in_(refs), transfers.c.state.not_in([s.value for s in TERMINAL]))
        .order_by(transfers.c.job_ref, transfers.c.id)
    )


def _plan(job: Any, rows: Sequence[Any], where: WaitingFilter) -> _Plan:
    plan = _Plan(job)
    if job.job_type == JobType.MULTIHOP:
        if any(_concerns(row, where) for row in rows) and _waits(rows):
            plan.gone += rows
            plan.ended += rows
        return plan
    for _, group in groupby(rows, key=lambda row: int(row.file_index)):
        file = list(group)
        if _waits(file):
            _plan_file(plan, file, where)
    return plan


def _waits(rows: Sequence[Any]) -> bool:
    """Whether it is some row's turn, and none is driven."""
    states = {row.state for row in rows}
    return FileState.SUBMITTED in states and not states & DRIVEN


def _concerns(row: Any, where: WaitingFilter) -> bool:
    return where.endpoint in {row.source_se, row.dest_se} and where.vo in {None, row.vo}


def _plan_file(plan: _Plan, file: Sequence[Any], where: WaitingFilter) -> None:
    gone = [row for row in file if _concerns(row, where)]
    if not gone:
        return
    plan.gone += gone
    stay = [row for row in file if not _concerns(row, where)]
    if not stay:
        plan.ended += gone
        return
    plan.heirs += [(stay[0], row.dest_owned) for row in gone if row.state == FileState.SUBMITTED]
    if stay[-1].follows:
        plan.last.append(stay[-1])


def _go_on(
    connection: Connection, plans: Sequence[_Plan], now: float, tallies: dict[str, Tally]
) -> list[dict[str, Any]]:
    """Give the replicas that are left their turn; the news of it."""
    writes: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for plan in plans:
        for row, owned in plan.heirs:
            after = step(FileState(row.state), Event.ACTIVATE)
            retry_at = HELD_AT if plan.job.held else None
            writes.append({"file": row.id, "state_": after.value, "owned_": owned, "retry_at_": retry_at})
            told.append(news.entry(now, plan.job.job_id, row.id, after))
            if retry_at is None:
                tallies[plan.job.job_id].add(row.queue_id, row.priority, 1, row.size_bytes)
    if writes:
        connection.execute(_ACTIVATE, writes)
    if last := [{"file": row.id} for plan in plans for row in plan.last]:
        connection.execute(_END_OF_FILE, last)
    return told
