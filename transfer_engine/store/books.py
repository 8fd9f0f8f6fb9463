"""What the writing thread remembers between transactions: who writes, numbers, queues.

Everything here can be read again from the database; a transaction that fails is followed by
`forget`, so that memory never runs ahead of what is committed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update

from transfer_engine.model import Queue, QueueId
from transfer_engine.store.tables import counters, queues

QueueKey = tuple[str, str, str, str, int]
"""(source_se, dest_se, vo, activity, size class)"""


def queue_of(row: Any) -> Queue:
    """A row of `queues`."""
    return Queue(QueueId(row.id), row.source_se, row.dest_se, row.vo, row.activity, row.size_class)


class Books:
    """Caches of one writing connection."""

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self._by_key: dict[QueueKey, Queue] = {}
        self._by_id: dict[int, Queue] = {}
        self._next: dict[str, int] = {}

    def forget(self) -> None:
        """Drop everything that a failed transaction may have put here."""
        self._by_key.clear()
        self._by_id.clear()
        self._next.clear()

    def take(self, connection: Connection, name: str, n: int) -> int:
        """Reserve `n` consecutive numbers; the first one. They are never given again."""
        if name not in self._next:
            found = connection.execute(select(counters.c.next).where(counters.c.name == name)).scalar()
            if found is None:
                connection.execute(insert(counters).values(name=name, next=1))
            self._next[name] = found or 1
        first = self._next[name]
        self._next[name] = first + n
        connection.execute(update(counters).where(counters.c.name == name).values(next=first + n))
        return first

    def queue(self, connection: Connection, queue_id: int) -> Queue:
        """The queue with this number, which exists."""
        queue = self._by_id.get(queue_id)
        if queue is None:
            row = connection.execute(select(queues).where(queues.c.id == queue_id)).one()
            queue = self._remember(queue_of(row))
        return queue

    def queue_for(self, connection: Connection, key: QueueKey) -> Queue:
        """The queue of this key; a new one when there is none."""
        queue = self._by_key.get(key)
        if queue is not None:
            return queue
        source_se, dest_se, vo, activity, of_size = key
        found = connection.execute(
            select(queues.c.id).where(
                queues.c.source_se == source_se,
                queues.c.dest_se == dest_se,
                queues.c.vo == vo,
                queues.c.activity == activity,
                queues.c.size_class == of_size,
            )
        ).scalar()
        if found is None:
            found = self.take(connection, "queues", 1)
            connection.execute(
                insert(queues).values(
                    id=found, source_se=source_se, dest_se=dest_se, vo=vo, activity=activity, size_class=of_size
                )
            )
        return self._remember(Queue(QueueId(found), *key))

    def _remember(self, queue: Queue) -> Queue:
        self._by_key[queue.source_se, queue.dest_se, queue.vo, queue.activity, queue.size_class] = queue
        self._by_id[queue.id] = queue
        return queue
