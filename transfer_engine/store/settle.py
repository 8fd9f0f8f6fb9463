"""Apply changes: compare-and-set on (state, epoch), job counts, the next replica or hop, the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from transfer_engine.model import Applied, Change, QueueId, Shift
from transfer_engine.states import JOB_TERMINAL, TERMINAL, Event, FileState, JobState, JobType, roll_up, step
from transfer_engine.store import news
from transfer_engine.store.books import Books
from transfer_engine.store.replicas import Heir, next_replica
from transfer_engine.store.rows import dump_failure
from transfer_engine.store.tables import HELD_AT, attempts, jobs, transfers

DETAILS_REASON: Final = "One or more files failed. Please have a look at the details for more information"
"""FTS's reason of a job that did not finish cleanly; clients show it."""

_WRITE: Final = (
    update(transfers)
    .where(transfers.c.id == bindparam("file"))
    .values(
        {
            name: bindparam(f"{name}_")
            for name in (
                "state",
                "n_failed",
                "retry_at",
                "dest_owned",
                "started_at",
                "finished_at",
                "failure",
                "mode",
                "seen_bytes",
                "seen_checksum",
                "evidence",
                "transfer_s",
            )
        }
    )
)
_COUNT: Final = (
    update(jobs)
    .where(jobs.c.ref == bindparam("ref_"))
    .values(
        n_finished=jobs.c.n_finished + bindparam("finished_"),
        n_failed=jobs.c.n_failed + bindparam("failed_"),
        n_canceled=jobs.c.n_canceled + bindparam("canceled_"),
    )
)
_CURRENT: Final = select(
    transfers.c.id,
    transfers.c.state,
    transfers.c.epoch,
    transfers.c.n_failed,
    transfers.c.started_at,
    transfers.c.failure,
    transfers.c.file_index,
    transfers.c.size_bytes,
    jobs.c.job_id,
    jobs.c.job_type,
    jobs.c.held,
    transfers.c.owner,
).select_from(transfers.join(jobs, jobs.c.ref == transfers.c.job_ref))

_JOB_ROW: Final = select(
    jobs.c.ref,
    jobs.c.job_id,
    jobs.c.job_type,
    jobs.c.state,
    jobs.c.n_files,
    jobs.c.n_finished,
    jobs.c.n_failed,
    jobs.c.n_canceled,
)


@dataclass(slots=True)
class JobDelta:
    """How many files of one job ended, and on which queue the last one finished."""

    finished: int = 0
    failed: int = 0
    canceled: int = 0
    queue_id: int | None = None
    why: str | None = None
    """Why the cancelled ones were."""


@dataclass(slots=True)
class _Work:
    """Everything that one transaction writes, gathered for few statements."""

    writes: list[dict[str, Any]] = field(default_factory=list)
    failed_attempts: list[dict[str, Any]] = field(default_factory=list)
    news: list[dict[str, Any]] = field(default_factory=list)
    deltas: dict[int, JobDelta] = field(default_factory=dict)
    results: list[Applied] = field(default_factory=list)


class ApplyChanges:
    """The operation `apply`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[Change]) -> list[Applied]:
        """Apply each change that still holds; the others are dropped and told so."""
        rows = connection.execute(_CURRENT.where(transfers.c.id.in_([change.file_id for change in batch])))
        current: dict[int, Any] = {row.id: row for row in rows}
        work = _Work()
        spent: set[int] = set()
        for change in batch:
            row = current.get(change.file_id)
            if row is None or change.file_id in spent or row.epoch != change.epoch or row.state not in change.expect:
                held = row is not None and row.epoch == change.epoch and change.file_id not in spent
                work.results.append(Applied(won=False, state=FileState(row.state) if held and row else None))
                continue
            spent.add(change.file_id)
            work.results.append(self._one(connection, change, row, work))
        self._write(connection, work)
        ended = settle_jobs(connection, self._books, work.deltas, at=batch[0].at, events=work.news)
        news.write(connection, work.news)
        if ended:
            return [
                applied if change.job_ref not in ended or not applied.won else _with_job_ended(applied)
                for applied, change in zip(work.results, batch, strict=True)
            ]
        return work.results

    def _one(self, connection: Connection, change: Change, row: Any, work: _Work) -> Applied:
        after = step(FileState(row.state), change.event)
        retry_at = HELD_AT if row.held and after is FileState.SUBMITTED else change.retry_at
        work.writes.append(_values(change, row, after, retry_at))
        reason = change.failure.reason if change.failure else None
        detail = detail_of(change, after, row.n_failed + change.charge)
        work.news.append(news.entry(change.at, row.job_id, change.file_id, after, reason, detail))
        if change.failure is not None and change.event in {Event.RETRY, Event.FAIL}:
            work.failed_attempts.append(
                {
                    "file_id": change.file_id,
                    "epoch": change.epoch,
                    "at": change.at,
                    "reason": change.failure.reason,
                    "owner": row.owner,
                }
            )
        shifts: list[Shift] = []
        if after is FileState.SUBMITTED and retry_at is None:
            queue = self._books.queue(connection, change.queue_id)
            shifts.append(Shift(queue, change.priority, 1, row.size_bytes or 0))
        closes = after in {FileState.FINISHED, FileState.FAILED}
        if change.activate_next:
            shifts += self._activate(connection, change, row, work)
            # A replica that failed leaves its file open for the next one; a hop that finished is done.
            closes = closes and after is FileState.FINISHED
        if closes:
            delta = work.deltas.setdefault(change.job_ref, JobDelta())
            delta.finished += after is FileState.FINISHED
            delta.failed += after is FileState.FAILED
            delta.queue_id = change.queue_id
        return Applied(won=True, shifts=tuple(shifts), state=after)

    def _activate(self, connection: Connection, change: Change, row: Any, work: _Work) -> list[Shift]:
        hops = row.job_type == JobType.MULTIHOP
        heir = _next_hop(connection, change) if hops else next_replica(connection, change, row)
        after = step(FileState(heir.state), Event.ACTIVATE)
        # What this attempt left behind lies where the next replica is to go.
        connection.execute(
            update(transfers)
            .where(transfers.c.id == heir.id)
            .values(state=after.value, dest_owned=int(change.dest_owned), retry_at=HELD_AT if row.held else None)
        )
        work.news.append(news.entry(change.at, row.job_id, heir.id, after))
        if row.held:
            return []
        return [Shift(self._books.queue(connection, heir.queue_id), heir.priority, 1, heir.size_bytes or 0)]

    @staticmethod
    def _write(connection: Connection, work: _Work) -> None:
        if work.writes:
            work.writes.sort(key=lambda values: values["file"])
            connection.execute(_WRITE, work.writes)
        if work.failed_attempts:
            connection.execute(insert(attempts), work.failed_attempts)


_HEIR: Final = select(
    transfers.c.id, transfers.c.state, transfers.c.queue_id, transfers.c.priority, transfers.c.size_bytes
)


def _next_hop(connection: Connection, change: Change) -> Heir:
    at = (transfers.c.id == change.file_id + 1, transfers.c.job_ref == change.job_ref)
    return Heir(*connection.execute(_HEIR.where(*at)).one())


def _with_job_ended(applied: Applied) -> Applied:
    return Applied(won=True, shifts=applied.shifts, state=applied.state, job_ended=True)


def _values(change: Change, row: Any, after: FileState, retry_at: float | None) -> dict[str, Any]:
    done = change.done
    over = after in {FileState.FINISHED, FileState.FAILED, FileState.CANCELED}
    checksum = done.evidence.checksum if done else None
    return {
        "file": change.file_id,
        "state_": after.value,
        "n_failed_": row.n_failed + change.charge,
        "retry_at_": retry_at,
        "dest_owned_": int(change.dest_owned),
        "started_at_": change.started_at if change.started_at is not None else row.started_at,
        "finished_at_": change.at if over else None,
        "failure_": _failure_text(change, row),
        "mode_": done.mode if done else None,
        "seen_bytes_": done.evidence.size_bytes if done else None,
        "seen_checksum_": str(checksum) if checksum else None,
        "evidence_": _evidence_text(change),
        "transfer_s_": done.transfer_s if done else None,
    }


def _failure_text(change: Change, row: Any) -> str | None:
    if change.done is not None:
        return None
    if change.failure is not None:
        return dump_failure(change.failure)
    return None if row.failure is None else str(row.failure)


def _evidence_text(change: Change) -> str | None:
    if change.done is None:
        return None
    evidence = change.done.evidence
    return f"adopted {evidence.method}" if evidence.adopted else evidence.method


def detail_of(change: Change, after: FileState, n_failed: int) -> dict[str, Any] | None:
    """What the event of a change keeps, see `EventDetail`. Args: n_failed: with this attempt."""
    if change.activate_next:
        return {"next": True}
    if change.event is Event.CLEANED:
        return {"shown": True}
    return {"retry": n_failed} if n_failed and after not in TERMINAL else None


def settle_jobs(
    connection: Connection, books: Books, deltas: dict[int, JobDelta], *, at: float, events: list[dict[str, Any]]
) -> set[int]:
    """Add up what ended and set the state of the jobs it concerns; the refs of the jobs that are over now.

    Args: events: of the transfers that ended; those of the jobs are added.
    """
    if not deltas:
        return set()
    connection.execute(
        _COUNT,
        [
            {"ref_": ref, "finished_": d.finished, "failed_": d.failed, "canceled_": d.canceled}
            for ref, d in deltas.items()
        ],
    )
    ended: set[int] = set()
    over: dict[str, str] = {}
    told: list[dict[str, Any]] = []
    for row in connection.execute(_JOB_ROW.where(jobs.c.ref.in_(list(deltas)))).all():
        state = _job_state(row)
        if state.value == row.state:
            continue
        values: dict[str, Any] = {"state": state.value}
        if state in JOB_TERMINAL:
            ended.add(row.ref)
            over[row.job_id] = state.value
            values["finished_at"] = at
            values["reason"] = reason_of_job(state, deltas[row.ref].why)
            queue_id = deltas[row.ref].queue_id
            if row.job_type == JobType.REPLICAS and state is JobState.FINISHED and queue_id is not None:
                # FTS shows the storage that delivered as the source of a job with replicas.
                values["source_se"] = books.queue(connection, QueueId(queue_id)).source_se
        connection.execute(update(jobs).where(jobs.c.ref == row.ref).values(values))
        told.append(news.entry(at, row.job_id, None, state, values.get("reason")))
    news.job_over(events, over)
    events += told
    return ended


def reason_of_job(state: JobState, why: str | None) -> str | None:
    """FTS's reason of a job that is over.

    Args: why: what cancelled the files that ended it.
    """
    if state is JobState.FINISHED:
        return None
    return why if why is not None and state is JobState.CANCELED else DETAILS_REASON


def _job_state(row: Any) -> JobState:
    if row.state in JOB_TERMINAL:
        return JobState(row.state)
    return roll_up(
        JobType(row.job_type),
        n_files=row.n_files,
        n_finished=row.n_finished,
        n_failed=row.n_failed,
        n_canceled=row.n_canceled,
        begun=row.state != JobState.SUBMITTED,
    )
