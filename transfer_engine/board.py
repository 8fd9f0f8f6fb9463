"""What the engine knows by heart: counts of what waits and of what runs. Never the queue itself.

Memory grows with the number of queues (link, VO, activity) that have work, not with the number of
transfers in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from transfer_engine.limits import Active
from transfer_engine.model import Assignment, Claim, Link, Queue, QueueId, Shift
from transfer_engine.schedule import Waiting


@dataclass(slots=True)
class _Line:
    """One queue with ready transfers."""

    queue: Queue
    link: Link
    ready: dict[int, int] = field(default_factory=dict)
    served_at: int = 0
    blocked: set[int] = field(default_factory=set)
    """The last claim got fewer than it asked for: the rest waits for a destination that is being written."""


@dataclass(slots=True)
class LinkTally:
    """What a link did since the engine started."""

    finished: int = 0
    failed: int = 0
    retried: int = 0
    bytes_done: int = 0


class Board:
    """Counts, kept in step with commits."""

    def __init__(self) -> None:
        self.active = Active()
        self._lines: dict[QueueId, _Line] = {}
        self._blocked: dict[str, set[QueueId]] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self.tallies: dict[Link, LinkTally] = {}
        self.reasons: dict[int, str] = {}
        """Queue id → the limit it waits for, as of the last decision."""
        self._turn = 0

    def link(self, queue: Queue) -> Link:
        """The link of a queue; one object per link."""
        key = (queue.source_se, queue.dest_se)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = Link(*key)
        return link

    def shift(self, shifts: Iterable[Shift]) -> None:
        """Take in committed changes of what is ready."""
        for shift in shifts:
            line = self._lines.get(shift.queue.id)
            if line is None:
                line = self._lines[shift.queue.id] = _Line(shift.queue, self.link(shift.queue))
            self._add(line, shift.priority, shift.n_ready)
            if shift.n_ready > 0:
                self._unblock(line)

    def _add(self, line: _Line, priority: int, n: int) -> None:
        after = line.ready.get(priority, 0) + n
        if after:
            line.ready[priority] = after
        else:
            line.ready.pop(priority, None)
        if not line.ready:
            del self._lines[line.queue.id]
            self._unblock(line)

    def _unblock(self, line: _Line) -> None:
        if line.blocked:
            line.blocked.clear()
            self._blocked[_host(line.link.dest_se)].discard(line.queue.id)

    def waiting(self) -> list[Waiting]:
        """The queues that a decision may serve."""
        return [
            Waiting(line.queue, line.link, positive, line.served_at)
            for line in self._lines.values()
            if (positive := {p: n for p, n in line.ready.items() if n > 0 and p not in line.blocked})
        ]

    def claimed(self, claims: Sequence[Claim], orders: Sequence[Assignment]) -> None:
        """Take in what a claim really got: slots are held from here on."""
        self._turn += 1
        got: dict[tuple[QueueId, int], int] = {}
        for order in orders:
            got[order.queue.id, order.priority] = got.get((order.queue.id, order.priority), 0) + 1
            self.hold(order)
        for claim in claims:
            n = got.get((claim.queue_id, claim.priority), 0)
            line = self._lines.get(claim.queue_id)
            if line is None:
                if n:
                    queue = next(order.queue for order in orders if order.queue.id == claim.queue_id)
                    self.shift([Shift(queue, claim.priority, -n)])
                continue
            line.served_at = self._turn
            if n < claim.n:
                line.blocked.add(claim.priority)
                self._blocked.setdefault(_host(line.link.dest_se), set()).add(claim.queue_id)
            if n:
                self._add(line, claim.priority, -n)

    def hold(self, order: Assignment) -> None:
        """Count a driven transfer."""
        queue = order.queue
        self.active.add(self.link(queue), queue.vo, queue.activity, 1)

    def release(self, order: Assignment) -> None:
        """A driven transfer is settled: its slots are free, its destination may be claimed again."""
        queue = order.queue
        self.active.add(self.link(queue), queue.vo, queue.activity, -1)
        for queue_id in self._blocked.pop(_host(queue.dest_se), ()):
            line = self._lines.get(queue_id)
            if line is not None:
                line.blocked.clear()

    def tally(self, order: Assignment) -> LinkTally:
        """The running totals of a transfer's link."""
        return self.tallies.setdefault(self.link(order.queue), LinkTally())

    def ready_by_link(self) -> dict[Link, int]:
        """Link → ready transfers."""
        found: dict[Link, int] = {}
        for line in self._lines.values():
            found[line.link] = found.get(line.link, 0) + sum(line.ready.values())
        return found

    @property
    def n_ready(self) -> int:
        """All transfers that could be claimed if there were room."""
        return sum(sum(line.ready.values()) for line in self._lines.values())

    def unblock_all(self) -> None:
        """Let every queue be tried again."""
        for line in self._lines.values():
            line.blocked.clear()
        self._blocked.clear()


def _host(se: str) -> str:
    """A destination can be written under another scheme's name: `davs://host` is `https://host`."""
    return se.partition("://")[2]
