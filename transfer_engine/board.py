"""What the engine knows by heart: what waits and what runs, in step with commits. Never the queue itself.

Memory grows with the number of queues (link, VO, activity) that have work, not with the number of
transfers in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transfer_engine import retuning
from transfer_engine.lanes import Lane
from transfer_engine.limits import LimitTable
from transfer_engine.model import Assignment, Claim, FileId, Queue, QueueId, Shift
from transfer_engine.places import Link, Place
from transfer_engine.schedule import LaneKey, Scheduler, Start
from transfer_engine.shares import ShareTable

TIDY_ABOVE = 1000
"""Lanes without work are forgotten when there are more than this."""


@dataclass(slots=True)
class LinkTally:
    """What a link did since the engine started."""

    finished: int = 0
    failed: int = 0
    retried: int = 0
    bytes_done: int = 0


@dataclass(slots=True)
class _Slot:
    """What a driven transfer holds."""

    since: float
    bytes_s: float
    lane: Lane | None = None
    """None: nothing of it moves, its outcome is looked for."""


class Board:
    """Counts. All `now` are the event loop's time."""

    def __init__(self, limits: LimitTable, shares: ShareTable) -> None:
        self.scheduler = Scheduler(limits, shares)
        self.tallies: dict[Link, LinkTally] = {}
        self._links: dict[QueueId, Link] = {}
        self._slots: dict[tuple[FileId, int], _Slot] = {}
        """(transfer, epoch) → what it holds: the next claim may be told before the last attempt's end."""
        self._blocked: dict[str, set[LaneKey]] = {}
        """Host → lanes whose transfers wait for destinations there that are being written."""
        self._freed: set[str] = set()
        """Hosts where a transfer has ended since the last decision."""

    def link(self, queue: Queue) -> Link:
        """The link of a queue; one object per link."""
        link = self._links.get(queue.id)
        if link is None:
            link = self._links[queue.id] = self.scheduler.link(queue.source_se, queue.dest_se)
        return link

    def shift(self, shifts: Iterable[Shift], now: float) -> None:
        """Take in committed changes of what is ready."""
        for shift in shifts:
            self.scheduler.ready(shift.queue, shift.priority, shift.n_ready, shift.n_bytes, now)

    # From decision to release

    def decide(self, now: float) -> list[Start]:
        """What to claim; slots are held from here on."""
        self._freed.clear()
        return self.scheduler.decide(now)

    @staticmethod
    def claims(starts: Sequence[Start]) -> list[Claim]:
        """The same in the store's words."""
        return [Claim(start.lane.queue.id, start.lane.priority, start.n) for start in starts]

    def claimed(self, starts: Sequence[Start], orders: Sequence[Assignment], now: float) -> None:
        """Take in what a claim really got; the slots of the rest are given back."""
        by_lane: dict[LaneKey, list[Assignment]] = {}
        for order in orders:
            by_lane.setdefault((order.queue.id, order.priority), []).append(order)
        for start in starts:
            lane = start.lane
            key = (lane.queue.id, lane.priority)
            got = by_lane.get(key, [])
            for order in got:
                self._slots[order.file_id, order.epoch] = _Slot(now, start.bytes_s, lane)
                lane.n_bytes -= order.size_bytes or 0
            if len(got) < start.n:
                self.scheduler.returned(lane, start.n - len(got), now, start.bytes_s)
                self._block(lane, key, now)

    def _block(self, lane: Lane, key: LaneKey, now: float) -> None:
        host = _host(lane.queue.dest_se)
        if host in self._freed:
            # What the store saw being written may have ended before its answer came.
            self.scheduler.unblock(lane, now)
        else:
            self._blocked.setdefault(host, set()).add(key)

    def unclaimed(self, starts: Sequence[Start], now: float) -> None:
        """The store did not answer: nothing was claimed, everything may be tried again."""
        for start in starts:
            self.scheduler.returned(start.lane, start.n, now, start.bytes_s)
            self.scheduler.unblock(start.lane, now)

    def hold(self, order: Assignment, now: float) -> None:
        """Count a driven transfer that no decision of this engine started."""
        self.scheduler.hold(order.queue, order.priority, now)
        self._slots[order.file_id, order.epoch] = _Slot(now, 0.0)

    def force(self, order: Assignment, now: float) -> None:
        """Count a transfer that starts by order, whatever its limits are."""
        lane = self.scheduler.lane(order.queue, order.priority)
        bytes_s = self.scheduler.need(lane)
        self.scheduler.hold(order.queue, order.priority, now, bytes_s)
        self._slots[order.file_id, order.epoch] = _Slot(now, bytes_s, lane)

    def retune(self, limits: LimitTable, shares: ShareTable, now: float) -> None:
        """Let these be in force; not between a decision and what became of its claims."""
        slots = [(slot, slot.lane) for slot in self._slots.values() if slot.lane is not None]
        reserved = retuning.retune(self.scheduler, limits, shares, [lane for _, lane in slots], now)
        for slot, lane in slots:
            slot.bytes_s = reserved.get(lane, slot.bytes_s)

    def release(self, order: Assignment, now: float, n_bytes: int = 0) -> None:
        """A driven transfer is settled: its slots are free, its destination may be claimed again.

        Args: n_bytes: what it moved.
        """
        slot = self._slots.pop((order.file_id, order.epoch))
        held_s = max(now - slot.since, 1e-6)
        self.scheduler.learn(order.queue, held_s, n_bytes / held_s)
        self.scheduler.release(order.queue, order.priority, now, slot.bytes_s)
        host = _host(order.queue.dest_se)
        self._freed.add(host)
        blocked = self._blocked.pop(host, None)
        if blocked:
            self._unblock(blocked, now)

    def _unblock(self, keys: Iterable[LaneKey], now: float) -> None:
        for key in sorted(keys):
            lane = self.scheduler.lanes.get(key)
            if lane is not None:
                self.scheduler.unblock(lane, now)

    def unblock_all(self, now: float) -> None:
        """Let every lane be tried again, and forget lanes without work."""
        blocked, self._blocked = self._blocked, {}
        for keys in blocked.values():
            self._unblock(keys, now)
        if len(self.scheduler.lanes) > TIDY_ABOVE:
            self.scheduler.tidy()

    # Figures

    def tally(self, order: Assignment) -> LinkTally:
        """The running totals of a transfer's link."""
        link = self.link(order.queue)
        tally = self.tallies.get(link)
        if tally is None:
            tally = self.tallies[link] = LinkTally()
        return tally

    def ready_by_link(self) -> dict[Link, int]:
        """Link → ready transfers."""
        found: dict[Link, int] = {}
        for lane in self.scheduler.lanes.values():
            if lane.n_ready > 0:
                found[lane.link] = found.get(lane.link, 0) + lane.n_ready
        return found

    def ready_by_sharer(self) -> dict[tuple[Link, str, str], int]:
        """(link, VO, activity) → transfers that could be claimed now if there were room."""
        found: dict[tuple[Link, str, str], int] = {}
        for lane in self.scheduler.lanes.values():
            if lane.n_ready > 0 and not lane.blocked:
                key = (lane.link, lane.queue.vo, lane.queue.activity)
                found[key] = found.get(key, 0) + lane.n_ready
        return found

    def active_by_link(self) -> Mapping[Link, int]:
        """Link → transfers that hold a slot now."""
        return {
            self.scheduler.link(place.name, place.other): room.used
            for place, room in self.scheduler.rooms.items()
            if place.kind == "link" and room.used
        }

    def capped(self) -> dict[Place, int]:
        """Place → what bounds it now, where that is less than the configured limit."""
        return {place: room.limit for place, room in self.scheduler.rooms.items() if room.is_capped}

    @property
    def n_active(self) -> int:
        """All transfers that hold a slot."""
        return self.scheduler.node.used

    @property
    def n_ready(self) -> int:
        """All transfers that could be claimed if there were room."""
        return self.scheduler.n_ready


def _host(se: str) -> str:
    """A destination can be written under another scheme's name: `davs://host` is `https://host`."""
    return se.partition("://")[2]
