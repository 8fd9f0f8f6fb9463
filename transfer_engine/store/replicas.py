"""Which replica a waiting transfer reads from: where there is a choice, and take a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, text, update
from sqlalchemy.sql import Select

from transfer_engine.model import Choice, Reroute, Shift
from transfer_engine.states import FileState
from transfer_engine.store.books import Books, queue_of
from transfer_engine.store.tables import CHOICE_SQL, queues, transfers
from transfer_engine.store.tally import Tally
from transfer_engine.submission import SOURCES_MAX

_EXCHANGE: Final = (
    update(transfers)
    .where(transfers.c.id == bindparam("file"))
    .values(source_url=bindparam("source_"), queue_id=bindparam("queue_"))
)


def choices(connection: Connection, limit: int) -> list[Choice]:
    """Up to `limit` queues in which there is a choice; one pass over the index of those transfers."""
    n = func.count().label("n")
    groups = (
        select(transfers.c.queue_id, transfers.c.priority, n)
        .where(text(CHOICE_SQL))
        .group_by(transfers.c.queue_id, transfers.c.priority)
        .order_by(transfers.c.queue_id, transfers.c.priority)
        .limit(limit)
        .subquery()
    )
    found = connection.execute(
        select(queues, groups.c.priority, groups.c.n)
        .select_from(groups.join(queues, queues.c.id == groups.c.queue_id))
        .order_by(groups.c.queue_id, groups.c.priority)
    )
    return [Choice(queue_of(row), row.priority, row.n) for row in found]


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
                best = _best(own, others, move.prefer[own.selection_strategy])
                if best is own:
                    continue
                writes.append({"file": own.id, "source_": best.source_url, "queue_": best.queue_id})
                writes.append({"file": best.id, "source_": own.source_url, "queue_": own.queue_id})
                if best.queue_id != own.queue_id:
                    moved.add(own.queue_id, move.priority, -1, own.size_bytes)
                    moved.add(best.queue_id, move.priority, 1, own.size_bytes)
            if writes:
                connection.execute(_EXCHANGE, writes)
        return moved.shifts(connection, self._books)


def _best(own: Any, others: Sequence[Any], costs: Mapping[str, tuple[float, float]]) -> Any:
    """The row with the least predicted seconds; among equals its own, then the first."""

    def seconds(row: Any) -> float:
        cost = costs.get(row.source_se)
        # A source that is not listed is never taken, and left as soon as there is another.
        return math.inf if cost is None else cost[0] + cost[1] * (own.size_bytes or 0)

    return min((own, *others), key=seconds)
