"""Add up what became ready and what is ready no more, as the shifts of one write."""

from __future__ import annotations

from sqlalchemy import Connection

from transfer_engine.model import QueueId, Shift
from transfer_engine.store.books import Books


class Tally:
    """Sums by queue, priority and direction; what comes and what goes are told apart, so that signs agree."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int, bool], list[int]] = {}

    def add(self, queue_id: int, priority: int, n_ready: int, n_bytes: int | None) -> None:
        """`n_ready` more (or, below zero, fewer) with altogether `n_bytes`, which is not negative; None: unknown."""
        comes = n_ready > 0
        sums = self._sums.setdefault((queue_id, priority, comes), [0, 0])
        sums[0] += n_ready
        sums[1] += (n_bytes or 0) if comes else -(n_bytes or 0)

    def shifts(self, connection: Connection, books: Books) -> tuple[Shift, ...]:
        """The sums so far."""
        return tuple(
            Shift(books.queue(connection, QueueId(queue_id)), priority, n_ready, n_bytes)
            for (queue_id, priority, _comes), (n_ready, n_bytes) in self._sums.items()
        )
