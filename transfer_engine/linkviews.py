"""What the engine knows of links, as the choice among replicas needs it: `selection.LinkView` for each source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from transfer_engine.board import Board
from transfer_engine.driving import Driven
from transfer_engine.forecast import Outlook, start_of
from transfer_engine.lanes import Lane
from transfer_engine.measures import Measures
from transfer_engine.places import Link, Place
from transfer_engine.reasons import Why
from transfer_engine.rooms import Room
from transfer_engine.schedule import LaneKey
from transfer_engine.selection import LinkView
from transfer_engine.sizes import UNKNOWN

SLOT_S_MIN: Final = 0.01
MOVING_S: Final = 5.0
"""A copy that runs for so long and moves shows how fast it is,"""
STILL_S: Final = 10.0
"""and one that does not move, that it is slow."""
SLOWED: Final = 2.0
"""Less than so many times slower than usual is chance."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who is to wait: files of one class of sizes, for one destination."""

    dest_se: str
    vo: str
    activity: str
    priority: int
    size_class: int


class LinkViews:
    """Views as of one moment. What is decided by them is told to them, and counts for the next decision."""

    def __init__(
        self,
        *,
        board: Board,
        measures: Measures,
        outlooks: Mapping[LaneKey, Outlook],
        now: float,
        slowed: Mapping[Link, float] | None = None,
    ) -> None:
        """Args: outlooks: may be older than what the board says.  slowed: see `slowed_links`."""
        self._board = board
        self._measures = measures
        self._outlooks = outlooks
        self._now = now
        self._slowed = slowed or {}
        self._lanes: dict[tuple[str, str], list[tuple[LaneKey, Lane]]] = {}
        for key, lane in board.scheduler.lanes.items():
            if lane.n_ready > 0:
                self._lanes.setdefault((lane.link.source_se, lane.link.dest_se), []).append((key, lane))
        self._made: dict[tuple[str, str], dict[Wanted, LinkView]] = {}
        self._more: dict[tuple[str, str], int] = {}
        """Link → files that were decided to go there and are not on the board yet."""

    def of(self, source_se: str, wanted: Wanted) -> LinkView:
        """The link from one source."""
        made = self._made.setdefault((source_se, wanted.dest_se), {})
        view = made.get(wanted)
        if view is None:
            view = made[wanted] = self._view(source_se, wanted)
        return view

    def queued(self, source_se: str, wanted: Wanted, n: int, size_bytes: float) -> None:
        """So many files have been decided to go there."""
        link = (source_se, wanted.dest_se)
        made = self._made.setdefault(link, {})
        for other, view in made.items():
            made[other] = _longer(view, n, size_bytes, same=other == wanted)
        self._more[link] = self._more.get(link, 0) + n

    def _view(self, source_se: str, wanted: Wanted) -> LinkView:
        link = Link(source_se, wanted.dest_se)
        own, now = self._measures.of(link), self._now
        of_source = own or self._measures.out_of(source_se)
        cost = None if own is None else own.cost()
        rooms = list(self._rooms(link, wanted.vo))
        lanes = [(key, lane) for key, lane in self._lanes.get((source_se, wanted.dest_se), ())]
        same = [row for row in lanes if _stands_before(row[1], wanted)]
        times = self._slowed.get(link, 1.0)
        slot_s = max(self._measures.slot_s(link), SLOT_S_MIN)
        start_s, rate = self._start(same, rooms, slot_s)
        view = LinkView(
            source_se=source_se,
            ready=sum(lane.n_ready for _, lane in lanes if lane.queue.vo == wanted.vo),
            ready_bytes=sum(lane.n_bytes for _, lane in lanes if _shares(lane, wanted)),
            active=next((room.used for room in rooms if room.place.kind == "link"), 0),
            success=None if of_source is None else of_source.success(now),
            goodput_bytes_s=None if own is None else own.goodput_bytes_s(now),
            file_bytes_s=1 / (times * cost[1]) if cost is not None and cost[1] > 0 else None,
            overhead_s=0.0 if cost is None else times * cost[0],
            slot_s=times * slot_s,
            start_s=max(times * start_s, self._paused_s(rooms)),
            starts_s=rate / times,
            blocked=any(room.limit == 0 and room.reason().code is not Why.PAUSE for room in rooms),
        )
        more = self._more.get((source_se, wanted.dest_se), 0)
        return _longer(view, more, 0.0, same=False) if more else view

    def _rooms(self, link: Link, vo: str) -> Iterator[Room]:
        places = (
            Place("out", link.source_se),
            Place("link", link.source_se, link.dest_se),
            Place("vo-out", link.source_se, vo),
        )
        for place in places:
            room = self._board.scheduler.rooms.get(place)
            if room is not None:
                yield room

    def _paused_s(self, rooms: list[Room]) -> float:
        """Until a storage may be asked again that wanted a rest."""
        ends = [room.reason().until for room in rooms if room.limit == 0]
        return max((until - self._now for until in ends if until is not None), default=0.0)

    def _start(self, lanes: list[tuple[LaneKey, Lane]], rooms: list[Room], slot_s: float) -> tuple[float, float]:
        """(seconds until one more would start, starts per second of those like it)."""
        free = min((max(room.limit - room.used, 0) for room in rooms), default=1)
        held = sum(lane.n_held for _, lane in lanes)
        rate = max(held, free, 1) / slot_s
        if not lanes:
            return max((_turn_s(room, slot_s) for room in rooms), default=0.0), rate
        waits = [self._wait(key, lane, slot_s) for key, lane in lanes]
        start_s = max(waits)
        n_ready = sum(lane.n_ready for _, lane in lanes)
        return start_s, n_ready / start_s if start_s > 0 else rate

    def _wait(self, key: LaneKey, lane: Lane, slot_s: float) -> float:
        """How long who comes last waits; the forecast may be older than those who wait now."""
        outlook = self._outlooks.get(key)
        if outlook is None or outlook.drained_s is None:
            # Not foreseen yet; or it waits for what all sources wait for, as a drained node.
            return lane.n_ready * slot_s / max(lane.n_held, 1)
        start_s = start_of(outlook, lane.n_ready) if outlook.last_rate > 0 else None
        return outlook.drained_s if start_s is None else start_s


def slowed_links(running: Iterable[Driven], measures: Measures, now: float) -> dict[Link, float]:
    """Link → how many times slower it is now than what has ended there says.

    What ended shows a change only when copies end, which takes long where they have become slow or stand
    still. A link counts as slower when at least half of what runs there shows anything at all, and the
    fastest of these is slow: a single straggler says nothing.
    """
    rows: dict[Link, list[float | None]] = {}
    for driven in running:
        queue = driven.order.queue
        link = Link(queue.source_se, queue.dest_se)
        own = measures.of(link)
        cost = None if own is None else own.cost()
        if cost is not None:
            rows.setdefault(link, []).append(_times_slower(driven, cost, now))
    found = {}
    for link, times in rows.items():
        told = [one for one in times if one is not None]
        if 2 * len(told) >= len(times) and min(told) >= SLOWED:
            found[link] = min(told)
    return found


def _times_slower(driven: Driven, cost: tuple[float, float], now: float) -> float | None:
    """By the time that a copy will have taken; None: it is too early to say."""
    size_bytes, done = driven.progress.size_bytes or driven.order.size_bytes, driven.progress.bytes_done
    since_s = now - driven.began_at
    if not size_bytes or since_s < (MOVING_S if done else STILL_S):
        return None
    usual_s = max(cost[0] + cost[1] * size_bytes, SLOT_S_MIN)
    return since_s / usual_s * (max(size_bytes / done, 1.0) if done else 1.0)


def _turn_s(room: Room, slot_s: float) -> float:
    """How long it takes until it is one's turn where all slots are taken."""
    if room.limit <= 0 or room.used < room.limit:
        return 0.0
    return slot_s / room.limit * (1 + len(room.parked))


def _shares(lane: Lane, wanted: Wanted) -> bool:
    return lane.queue.vo == wanted.vo and lane.queue.activity == wanted.activity


def _stands_before(lane: Lane, wanted: Wanted) -> bool:
    """One more of these files has to wait for what this lane has."""
    if not _shares(lane, wanted) or lane.priority < wanted.priority:
        return False
    return lane.queue.size_class == wanted.size_class or UNKNOWN in {lane.queue.size_class, wanted.size_class}


def _longer(view: LinkView, n: int, size_bytes: float, *, same: bool) -> LinkView:
    """The view with so many more waiting. Args: same: they wait in the same line; others only share its slots."""
    return replace(
        view,
        ready=view.ready + n,
        ready_bytes=view.ready_bytes + (int(n * size_bytes) if same else 0),
        start_s=view.start_s + n / view.start_rate,
    )
