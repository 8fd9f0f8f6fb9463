"""Which replica a waiting transfer reads from: where there is a choice, and take a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, literal, select, text, tuple_, update
from sqlalchemy.sql import Select, Subquery

from transfer_engine.model import Change, Choice, FileId, QueueId, Reroute, Shift
from transfer_engine.states import FileState
from transfer_engine.store.api import LOOKED_AT
from transfer_engine.store.books import Books, queue_of
from transfer_engine.store.tables import CHOICE_SQL, queues, transfers
from transfer_engine.store.tally import Tally
from transfer_engine.submission import SOURCES_MAX

_EXCHANGE: Final = (
    update(transfers)
    .where(transfers.c.id == bindparam("file"))
    .values(source_url=bindparam("source_"), src_token_id=bindparam("token_"), queue_id=bindparam("queue_"))
)


_KEY: Final = tuple_(transfers.c.queue_id, transfers.c.priority)
_LEFT: Final = select(
    transfers.c.id,
    transfers.c.state,
    transfers.c.source_url,
    transfers.c.src_token_id,
    transfers.c.queue_id,
    transfers.c.priority,
    transfers.c.size_bytes,
    transfers.c.selection_strategy,
    queues.c.source_se,
).join(queues, queues.c.id == transfers.c.queue_id)


def choices(connection: Connection, limit: int, after: tuple[QueueId, int] | None) -> list[Choice]:
    """See `Store.choices`. Goes from queue to queue in the index of those transfers and reads the first of each."""
    found: list[Choice] = []
    while len(found) < limit:
        query = select(transfers.c.queue_id, transfers.c.priority).where(text(CHOICE_SQL))
        if after is not None:
            query = query.where(tuple_(*map(literal, after)) < _KEY)
        key = connection.execute(query.order_by(transfers.c.queue_id, transfers.c.priority).limit(1)).one_or_none()
        if key is None:
            break
        after = (QueueId(key.queue_id), key.priority)
        choice = choice_behind(connection, *after, FileId(0), LOOKED_AT)
        if choice is not None:
            found.append(choice)
    return found


def choice_behind(connection: Connection, queue_id: QueueId, priority: int, after: FileId, limit: int) -> Choice | None:
    """See `Store.choice_behind`."""
    first = (
        select(transfers.c.id, transfers.c.job_ref, transfers.c.file_index, transfers.c.selection_strategy)
        .where(
            transfers.c.queue_id == queue_id,
            transfers.c.priority == priority,
            text(CHOICE_SQL),
            transfers.c.id > after,
        )
        .order_by(transfers.c.id)
        .limit(limit)
    )
    rows = connection.execute(first).all()
    if not rows:
        return None
    own = connection.execute(select(queues).where(queues.c.id == queue_id)).one()
    return Choice(
        queue=queue_of(own),
        priority=priority,
        n=len(rows),
        last=FileId(rows[-1].id),
        sources=_further_sources(connection, first.subquery("first")),
        strategies=frozenset(row.selection_strategy for row in rows),
    )


def _further_sources(connection: Connection, first: Subquery) -> frozenset[str]:
    row = transfers.alias("row")
    further = (
        select(row.c.queue_id)
        .distinct()
        .select_from(first.join(row, row.c.id.between(first.c.id + 1, first.c.id + SOURCES_MAX - 1)))
        .where(
            row.c.job_ref == first.c.job_ref,
            row.c.file_index == first.c.file_index,
            row.c.state == FileState.NOT_USED.value,
        )
    )
    return frozenset(connection.execute(select(queues.c.source_se).where(queues.c.id.in_(further))).scalars())


def _with_sources(move: Reroute) -> Select[Any]:
    """The transfers to look at, each followed by the replicas behind it that are not used."""
    first = (
        select(
            transfers.c.id,
            transfers.c.job_ref,
            transfers.c.file_index,
            transfers.c.selection_strategy,
            transfers.c.size_bytes,
        )
        .where(
            transfers.c.queue_id == move.queue_id,
            transfers.c.priority == move.priority,
            transfers.c.id > move.after,
            text(CHOICE_SQL),
            transfers.c.selection_strategy.in_(list(move.prefer)),
            transfers.c.dest_owned == 0,
        )
        .order_by(transfers.c.id)
        .limit(move.n)
        .subquery("first")
    )
    row = transfers.alias("row")
    return (
        select(
            row.c.id,
            row.c.source_url,
            row.c.src_token_id,
            row.c.queue_id,
            first.c.id.label("first_id"),
            first.c.selection_strategy,
            first.c.size_bytes,
            queues.c.source_se,
        )
        .select_from(
            first.join(row, row.c.id.between(first.c.id, first.c.id + SOURCES_MAX - 1)).join(
                queues, queues.c.id == row.c.queue_id
            )
        )
        .where(
            row.c.job_ref == first.c.job_ref,
            row.c.file_index == first.c.file_index,
            (row.c.id == first.c.id) | (row.c.state == FileState.NOT_USED.value),
        )
        .order_by(row.c.id)
    )


class ReRoute:
    """The operation `reroute`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[Sequence[Reroute]]) -> list[tuple[Shift, ...]]:
        """For each list of moves what it did; a later one sees what the earlier ones did."""
        return [self._all(connection, moves) for moves in batch]

    def _all(self, connection: Connection, moves: Sequence[Reroute]) -> tuple[Shift, ...]:
        moved = Tally()
        for move in moves:
            sources: dict[int, list[Any]] = {}
            for row in connection.execute(_with_sources(move)):
                sources.setdefault(row.first_id, []).append(row)
            writes: list[dict[str, Any]] = []
            for own, *others in sources.values():
                best = _best(own, others, move.prefer[own.selection_strategy], own.size_bytes)
                if best is own:
                    continue
                writes += _exchanged(own, best)
                if best.queue_id != own.queue_id:
                    moved.add(own.queue_id, move.priority, -1, own.size_bytes)
                    moved.add(best.queue_id, move.priority, 1, own.size_bytes)
            if writes:
                connection.execute(_EXCHANGE, writes)
        return moved.shifts(connection, self._books)


@dataclass(frozen=True, slots=True)
class Heir:
    """Whose turn comes with a change."""

    id: int
    state: str
    queue_id: QueueId
    priority: int
    size_bytes: int | None


def next_replica(connection: Connection, change: Change, row: Any) -> Heir:
    """The next row of a file that is NOT_USED, which is there; it gets the best source of those that are left.

    Some before it may have been cancelled. Args: row: the one that `change` is of.
    """
    left = connection.execute(
        _LEFT.where(
            transfers.c.id.between(change.file_id + 1, change.file_id + SOURCES_MAX - 1),
            transfers.c.job_ref == change.job_ref,
            transfers.c.file_index == row.file_index,
            transfers.c.state == FileState.NOT_USED.value,
        ).order_by(transfers.c.id)
    ).all()
    first = left[0]
    costs = None if change.prefer is None else change.prefer.get(first.selection_strategy)
    best = first if costs is None else _best(first, left[1:], costs, first.size_bytes)
    if best is not first:
        connection.execute(_EXCHANGE, _exchanged(first, best))
    return Heir(first.id, first.state, QueueId(best.queue_id), first.priority, first.size_bytes)


def _exchanged(row: Any, other: Any) -> list[dict[str, Any]]:
    return [
        {"file": to.id, "source_": of.source_url, "token_": of.src_token_id, "queue_": of.queue_id}
        for to, of in ((row, other), (other, row))
    ]


def _best(own: Any, others: Sequence[Any], costs: Mapping[str, tuple[float, float]], size_bytes: int | None) -> Any:
    """The row with the least predicted seconds; among equals its own, then the first."""

    def seconds(row: Any) -> float:
        cost = costs.get(row.source_se)
        # A source that is not listed is never taken, and left as soon as there is another.
        return math.inf if cost is None else cost[0] + cost[1] * (size_bytes or 0)

    return min((own, *others), key=seconds)
