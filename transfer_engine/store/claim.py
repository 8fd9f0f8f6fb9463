"""Claim transfers, announce their copies, and take over what a dead engine left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, bindparam, exists, func, select, text, update
from sqlalchemy.sql import Select

from transfer_engine.model import Assignment, Claim, FileId
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store import news, rows
from transfer_engine.store.api import Forced
from transfer_engine.store.books import Books
from transfer_engine.store.tables import DRIVEN_SQL, HELD_AT, READY_SQL, REMAINS_SQL, jobs, transfers
from transfer_engine.store.tally import Tally

_driven = transfers.alias("driven")

_ORDER: Final = (
    transfers,
    jobs.c.job_id,
    jobs.c.job_type,
    jobs.c.options,
    jobs.c.cred_id,
    jobs.c.submitted_at,
    jobs.c.state.label("job_state"),
)
_JOINED: Final = transfers.join(jobs, jobs.c.ref == transfers.c.job_ref)

_PICK: Final[Select[Any]] = (
    select(*_ORDER)
    .select_from(_JOINED)
    .where(
        transfers.c.queue_id == bindparam("q"),
        transfers.c.priority == bindparam("p"),
        transfers.c.id > bindparam("after"),
        text("transfers." + READY_SQL.replace("AND retry_at", "AND transfers.retry_at")),
        ~exists().where(_driven.c.dest_key == transfers.c.dest_key, text("driven." + DRIVEN_SQL)),
    )
    .order_by(transfers.c.id)
    .limit(bindparam("n"))
)

_NAMED: Final[Select[Any]] = (
    select(*_ORDER)
    .select_from(_JOINED)
    .where(
        transfers.c.id == bindparam("file"),
        transfers.c.state == FileState.SUBMITTED.value,
        func.coalesce(transfers.c.retry_at, 0.0) < HELD_AT,
        ~exists().where(_driven.c.dest_key == transfers.c.dest_key, text("driven." + DRIVEN_SQL)),
    )
)
_UNDELAY: Final = update(transfers).where(transfers.c.id == bindparam("file")).values(retry_at=None)

_START: Final = (
    update(transfers)
    .where(transfers.c.id == bindparam("file"))
    .values(
        state=FileState.ACTIVE.value,
        epoch=transfers.c.epoch + 1,
        owner=bindparam("owner_"),
        claimed_at=bindparam("at_"),
        copying=0,
    )
)
_BEGIN_JOB: Final = (
    update(jobs)
    .where(jobs.c.ref == bindparam("ref_"), jobs.c.state == JobState.SUBMITTED.value)
    .values(state=JobState.ACTIVE.value)
)
_COPYING: Final = (
    update(transfers)
    .where(
        transfers.c.id == bindparam("file"),
        transfers.c.epoch == bindparam("epoch_"),
        transfers.c.state == FileState.ACTIVE.value,
    )
    .values(copying=1, dest_owned=1)
)


_me = transfers.alias("me")
_DISOWN_OTHERS: Final = (
    update(transfers)
    .where(
        transfers.c.dest_key
        == select(_me.c.dest_key)
        .where(_me.c.id == bindparam("file"), _me.c.epoch == bindparam("epoch_"), _me.c.state == FileState.ACTIVE.value)
        .scalar_subquery(),
        text(REMAINS_SQL),
    )
    .values(dest_owned=0)
)
"""Who announces a copy has seen the destination empty, or made it so: what others left there is gone."""


class ClaimTransfers:
    """The operation `claim`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(
        self, connection: Connection, batch: Sequence[tuple[Sequence[Claim], float]]
    ) -> list[list[Assignment]]:
        """For each request the transfers that it really got."""
        taken: set[int] = set()
        return [self._claim(connection, claims, now, taken) for claims, now in batch]

    def _claim(self, connection: Connection, claims: Sequence[Claim], now: float, taken: set[int]) -> list[Assignment]:
        picked: list[Any] = []
        for claim in claims:
            picked += _pick(connection, claim, taken)
        return self.start(connection, picked, now) if picked else []

    def start(self, connection: Connection, picked: Sequence[Any], now: float) -> list[Assignment]:
        """Take rows, of which there are some, to ACTIVE."""
        owner = self._books.incarnation
        connection.execute(_START, [{"file": row.id, "owner_": owner, "at_": now} for row in sorted(picked)])
        fresh = {row.job_ref: row.job_id for row in picked if row.job_state == JobState.SUBMITTED}
        told = [news.entry(now, row.job_id, row.id, FileState.ACTIVE, detail=_begins(row)) for row in picked]
        if fresh:
            connection.execute(_BEGIN_JOB, [{"ref_": ref} for ref in fresh])
            told += [news.entry(now, job_id, None, JobState.ACTIVE) for job_id in fresh.values()]
        news.write(connection, told)
        return [self._assignment(connection, row, now) for row in picked]

    def _assignment(self, connection: Connection, row: Any, now: float) -> Assignment:
        claimed = rows.assignment(row, self._books.queue(connection, row.queue_id))
        return replace(claimed, epoch=claimed.epoch + 1, claimed_at=now, copying=False)


class ClaimFiles:
    """The operation `claim_files`."""

    def __init__(self, books: Books, claim: ClaimTransfers) -> None:
        self._books = books
        self._claim = claim

    def __call__(self, connection: Connection, batch: Sequence[tuple[Sequence[FileId], float]]) -> list[Forced]:
        """For each (transfers, now) those that could be claimed."""
        return [self._one(connection, file_ids, now) for file_ids, now in batch]

    def _one(self, connection: Connection, file_ids: Sequence[FileId], now: float) -> Forced:
        picked: dict[int, Any] = {}
        gone = Tally()
        for file_id in dict.fromkeys(file_ids):
            row = connection.execute(_NAMED, {"file": file_id}).one_or_none()
            if row is not None and row.dest_key not in picked:
                picked[row.dest_key] = row
                if row.retry_at is None:
                    gone.add(row.queue_id, row.priority, -1, row.size_bytes)
        if not picked:
            return Forced(orders=(), shifts=())
        rows_ = list(picked.values())
        connection.execute(_UNDELAY, [{"file": row.id} for row in rows_])
        shifts = gone.shifts(connection, self._books)
        return Forced(orders=tuple(self._claim.start(connection, rows_, now)), shifts=shifts)


def _pick(connection: Connection, claim: Claim, taken: set[int]) -> list[Any]:
    """Up to `n` rows, each of another destination than those in `taken`, which grows.

    Several waiting rows of one destination may be found before one of them is driven: the search goes
    on behind those that are passed over.
    """
    picked: list[Any] = []
    after = 0
    while (n := claim.n - len(picked)) > 0:
        found = connection.execute(_PICK, {"q": claim.queue_id, "p": claim.priority, "after": after, "n": n}).all()
        for row in found:
            if row.dest_key not in taken:
                taken.add(row.dest_key)
                picked.append(row)
        if len(found) < n:
            break
        after = found[-1].id
    return picked


def _begins(row: Any) -> dict[str, Any] | None:
    """What the event of a claim keeps: `EventDetail.retry`, and `source` where it may become another one."""
    detail = {"retry": row.n_failed} if row.n_failed else {}
    if row.job_type == JobType.REPLICAS:
        detail["source"] = row.source_url
    return detail or None


def mark_copying(connection: Connection, batch: Sequence[tuple[int, int]]) -> list[bool]:
    """The operation `mark_copying`: inputs are (transfer, epoch)."""
    values = [{"file": file_id, "epoch_": epoch} for file_id, epoch in sorted(batch)]
    n = connection.execute(_COPYING, values).rowcount
    connection.execute(_DISOWN_OTHERS, values)
    if n == len(batch):
        return [True] * len(batch)
    held = {
        (row.id, row.epoch)
        for row in connection.execute(
            select(transfers.c.id, transfers.c.epoch).where(
                transfers.c.id.in_([file_id for file_id, _ in batch]), transfers.c.state == FileState.ACTIVE.value
            )
        )
    }
    return [pair in held for pair in batch]


class TakeOver:
    """The operation `take_over`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[tuple[float, int]]) -> list[list[Assignment]]:
        """For each (now, limit) a block of transfers that need probing; all those without a COPY are released first."""
        return [self._take(connection, now, limit) for now, limit in batch]

    def _take(self, connection: Connection, now: float, limit: int) -> list[Assignment]:
        mine = self._books.incarnation
        self._release(connection, now)
        found = connection.execute(
            select(*_ORDER)
            .select_from(_JOINED)
            .where(text("transfers." + DRIVEN_SQL), transfers.c.owner != mine)
            .order_by(transfers.c.id)
            .limit(limit)
        ).all()
        if not found:
            return []
        after = {FileState.CANCELING.value: FileState.CANCELING}
        connection.execute(
            update(transfers)
            .where(transfers.c.id == bindparam("file"))
            .values(state=bindparam("state_"), epoch=transfers.c.epoch + 1, owner=mine, claimed_at=now),
            [{"file": r.id, "state_": after.get(r.state, FileState.VERIFYING).value} for r in found],
        )
        news.write(
            connection, [news.entry(now, r.job_id, r.id, after.get(r.state, FileState.VERIFYING)) for r in found]
        )
        return [
            replace(
                rows.assignment(r, self._books.queue(connection, r.queue_id)),
                epoch=r.epoch + 1,
                claimed_at=now,
                canceling=r.state == FileState.CANCELING,
            )
            for r in found
        ]

    def _release(self, connection: Connection, now: float) -> None:
        """Give back what was claimed and not begun."""
        unbegun = connection.execute(
            select(transfers.c.id, jobs.c.job_id, jobs.c.held)
            .select_from(_JOINED)
            .where(
                text("transfers." + DRIVEN_SQL),
                transfers.c.state == FileState.ACTIVE.value,
                transfers.c.copying == 0,
                transfers.c.owner != self._books.incarnation,
            )
            .order_by(transfers.c.id)
        ).all()
        if not unbegun:
            return
        connection.execute(
            update(transfers)
            .where(transfers.c.id == bindparam("file"))
            .values(state=FileState.SUBMITTED.value, retry_at=bindparam("retry_at_"), owner=None, claimed_at=None),
            [{"file": row.id, "retry_at_": HELD_AT if row.held else None} for row in unbegun],
        )
        news.write(connection, [news.entry(now, row.job_id, row.id, FileState.SUBMITTED) for row in unbegun])
