"""Cancel jobs, transfers, what is too late and what waits for a storage; in memory."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from transfer_engine.model import Failure, FileId
from transfer_engine.states import DRIVEN, JOB_TERMINAL, TERMINAL, Event, FileState, JobType, step
from transfer_engine.store.api import Canceled, WaitingFilter
from transfer_engine.store.cancel import BY_USER, EXPIRED, LOOK_AGAIN_S, CancelRequest
from transfer_engine.store.memory_rows import Gone, Job, Row
from transfer_engine.store.memory_settle import activate, settle_job
from transfer_engine.store.memory_tables import Shifts, Tables
from transfer_engine.views import NO_DETAIL, EventDetail

UNUSED: Final = EventDetail(unused=True)
GOES_ON: Final = EventDetail(next=True)


def cancel(tables: Tables, request: CancelRequest) -> Canceled:
    """See `Store.cancel`."""
    job = tables.job(request.job_id)
    if job.state in JOB_TERMINAL:
        return Canceled(
            job_id=job.job_id,
            n_canceled=0,
            running=(),
            shifts=(),
            was_terminal=True,
            states=_states(_asked(tables, job, request.file_ids)),
        )
    asked = _asked(tables, job, request.file_ids)
    affected = _affected(tables, job, request)
    running = tuple((row.id, row.epoch) for row in affected if row.state in DRIVEN)
    leftovers = _leftovers(tables, affected)
    shifts = Shifts()
    if request.file_ids is None and request.failure is BY_USER:
        job.cancel_requested = True
    _cancel_rows(tables, affected, leftovers, request, shifts)
    if affected:
        n_canceled = len({row.file.file_index for row in affected})
        settle_job(tables, job, request.now, n_canceled=n_canceled, why=request.failure.message)
    return Canceled(
        job_id=job.job_id,
        n_canceled=len(affected),
        running=running,
        shifts=shifts.all(),
        leftovers=bool(leftovers),
        states=_states(asked),
    )


def _asked(tables: Tables, job: Job, file_ids: Sequence[FileId] | None) -> list[Row]:
    if file_ids is None:
        return []
    found = range(job.first, job.first + len(job.files))
    return [
        tables.row(job, number - job.first)
        for number in sorted(set(file_ids))
        if number in found and not isinstance(job.files[number - job.first], Gone)
    ]


def _states(rows: Sequence[Row]) -> tuple[tuple[FileId, FileState], ...]:
    return tuple((row.id, row.state) for row in rows)


def _affected(tables: Tables, job: Job, request: CancelRequest) -> list[Row]:
    """The rows that change: those that are open, of files that are not over."""
    found = [tables.row(job, i) for i, file in enumerate(job.files) if file.state not in TERMINAL]
    rows = [row for row in found if row.state is not FileState.CANCELING]
    wanted = None if request.file_ids is None else set(request.file_ids)
    if job.job_type is JobType.MULTIHOP:
        # All open hops or none: a route without one of its hops leads nowhere.
        if request.waiting_only and any(row.state in DRIVEN for row in found):
            return []
        return rows if wanted is None or any(row.id in wanted for row in rows) else []
    if request.waiting_only:
        driven = {row.file.file_index for row in rows if row.state in DRIVEN}
        rows = [row for row in rows if row.file.file_index not in driven]
    if wanted is not None:
        rows = [row for row in rows if row.id in wanted]
    # The unused replicas of a file that is over stay as they are.
    live = {row.file.file_index for row in rows if row.state is not FileState.NOT_USED}
    return [row for row in rows if row.file.file_index in live]


def _leftovers(tables: Tables, affected: Sequence[Row]) -> frozenset[int]:
    """Waiting transfers whose earlier attempt may have left a file: it has to go before they are over.

    They become CANCELING without an owner, for `take_over` to find. Where another transfer drives the
    same destination by now, what lies there is its business.
    """
    owned = {row.file.dest_key: row.id for row in affected if row.state is FileState.SUBMITTED and row.dest_owned}
    return frozenset(number for key, number in owned.items() if key not in tables.destinations)


def _cancel_rows(
    tables: Tables,
    rows: Sequence[Row],
    leftovers: frozenset[int],
    request: CancelRequest,
    shifts: Shifts,
    *,
    goes_on: bool = False,
) -> None:
    for row in rows:
        detail = UNUSED if row.state is FileState.NOT_USED else GOES_ON if goes_on else NO_DETAIL
        if row.is_ready():
            shifts.add(row, -1)
            tables.leave(row)
        if row.state is FileState.SUBMITTED and row.dest_owned:
            tables.forget_remains(row)
        row.retry_at = None
        row.failure = request.failure
        if row.id in leftovers:
            row.state = FileState.CANCELING
            row.owner = ""
            row.copying = True
            tables.drive(row)
        else:
            row.state = step(row.state, Event.CANCEL)
        row.finished_at = request.now if row.state is FileState.CANCELED else None
        tables.tell(request.now, row.job.job_id, row.id, row.state, request.failure.reason, detail)


def expire(tables: Tables, now: float, limit: int) -> tuple[list[Canceled], float | None]:
    """See `Store.expire`."""
    done: list[Canceled] = []
    following = _next_deadline(tables)
    while following is not None and following <= now and len(done) < limit:
        job = tables.by_ref[heapq.heappop(tables.deadlines)[1]]
        done.append(cancel(tables, CancelRequest(job.job_id, now, None, waiting_only=True, failure=EXPIRED)))
        if job.finished_at is None:
            # What is under way goes on; while it does, the job is looked at again now and then.
            job.deadline_at = now + LOOK_AGAIN_S
            heapq.heappush(tables.deadlines, (job.deadline_at, job.ref))
        following = _next_deadline(tables)
    return done, following


def _next_deadline(tables: Tables) -> float | None:
    while tables.deadlines:
        at, ref = tables.deadlines[0]
        job = tables.by_ref.get(ref)
        if job is not None and job.finished_at is None and job.deadline_at == at:
            return at
        heapq.heappop(tables.deadlines)
    return None


def cancel_waiting(tables: Tables, where: WaitingFilter, now: float, limit: int, failure: Failure) -> list[Canceled]:
    """See `Store.cancel_waiting`."""
    found: list[Canceled] = []
    for job in list(tables.by_ref.values()):
        if len(found) >= limit:
            break
        if job.state in JOB_TERMINAL or where.vo not in {None, job.vo} or not _concerns(tables, job, where):
            continue
        request = CancelRequest(job.job_id, now, None, waiting_only=True, failure=failure)
        canceled = _cancel_in_job(tables, job, where, request)
        if canceled is not None:
            found.append(canceled)
    return found


def _concerns(tables: Tables, job: Job, where: WaitingFilter) -> bool:
    waiting = {FileState.SUBMITTED, FileState.NOT_USED}
    return any(
        file.state in waiting and _touches(tables.peek(job, index), where) for index, file in enumerate(job.files)
    )


def _touches(row: Row, where: WaitingFilter) -> bool:
    return where.endpoint in {row.queue.source_se, row.queue.dest_se}


def _cancel_in_job(tables: Tables, job: Job, where: WaitingFilter, request: CancelRequest) -> Canceled | None:
    rows = [tables.row(job, index) for index, file in enumerate(job.files) if not isinstance(file, Gone)]
    route = job.job_type is JobType.MULTIHOP
    shifts, n_rows, n_files, leftovers = Shifts(), 0, 0, False
    activated: list[tuple[Row, bool]] = []
    for _, group in groupby(rows, key=lambda row: 0 if route else row.file.file_index):
        file = list(group)
        gone, follower = _to_cancel(file, where, route=route)
        if not gone:
            continue
        waiting = next((row for row in gone if row.state is FileState.SUBMITTED), None)
        owned = waiting is not None and waiting.dest_owned
        remain = frozenset() if follower is not None else _leftovers(tables, gone)
        leftovers = leftovers or bool(remain)
        # Whether the one that stays can be chosen for depends on those that go.
        stays = [row for row in file if row.is_ready() and row not in gone]
        for row in stays:
            tables.leave(row)
        _cancel_rows(tables, gone, remain, request, shifts, goes_on=follower is not None)
        for row in stays:
            tables.enter(row)
        n_rows += len(gone)
        if follower is not None:
            activated.append((follower, owned))
        elif waiting is not None:
            n_files += len({row.file.file_index for row in gone})
    if not n_rows:
        return None
    for row, owned in activated:
        for _ in activate(tables, row, request.now, dest_owned=owned):
            shifts.add(row, 1)
    if n_files:
        settle_job(tables, job, request.now, n_canceled=n_files, why=request.failure.message)
    return Canceled(job_id=job.job_id, n_canceled=n_rows, running=(), shifts=shifts.all(), leftovers=leftovers)


def _to_cancel(file: Sequence[Row], where: WaitingFilter, *, route: bool) -> tuple[list[Row], Row | None]:
    """The rows of one file (or the whole route) that go, and the replica that it goes on with instead."""
    if any(row.state in DRIVEN for row in file):
        return [], None
    waiting = next((row for row in file if row.state is FileState.SUBMITTED), None)
    if waiting is None:
        return [], None
    open_rows = [row for row in file if row.state in {FileState.SUBMITTED, FileState.NOT_USED}]
    gone = [row for row in open_rows if _touches(row, where)]
    if route:
        return (open_rows if gone else []), None
    if waiting not in gone:
        return gone, None
    follower = next((row for row in open_rows if not _touches(row, where)), None)
    return gone, follower
