"""What the forecast is asked, from what the board knows: every lane, every limit; and when one transfer will end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from transfer_engine.board import Board
from transfer_engine.driving import Driven
from transfer_engine.forecast import Ceiling, Load, Outlook, predict, start_of
from transfer_engine.lanes import Lane
from transfer_engine.limits import UNLIMITED
from transfer_engine.measures import SLOT_S_DEFAULT, LinkMeasures, Measures
from transfer_engine.places import Link, Place
from transfer_engine.schedule import LaneKey
from transfer_engine.shares import ShareTable
from transfer_engine.sizes import UNKNOWN, typical_bytes

FRESH_S: Final = 5.0
"""How old a forecast may be when it is shown."""
FRESH_LANE_S: Final = 0.002
"""So much older for each lane: ten thousand cost most of a second, and not more than a twentieth of all time."""
INLINE_MAX: Final = 1000
"""Most lanes that are looked at on the event loop: about 50 ms."""
TELLING: Final = 0.02
"""The part of a file from which on its speed says when it will be there."""
OVERDUE: Final = 3.0
"""Who runs for so many times the usual time is nothing that experience says anything of."""


@dataclass(frozen=True, slots=True)
class _Spans:
    """Those who run somewhere: mean seconds from claim to release, and what each has left, in order."""

    whole_s: float
    left_s: tuple[float, ...]

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float]]) -> _Spans:
        return cls(sum(whole for whole, _ in rows) / len(rows), tuple(sorted(left for _, left in rows)))


class Foresight:
    """The forecast of one engine, made when it is asked for and kept for a moment."""

    def __init__(self, *, board: Board, measures: Measures, shares: ShareTable, now: Callable[[], float]) -> None:
        self._board = board
        self._measures = measures
        self._shares = shares
        self._now = now
        self._found: dict[LaneKey, Outlook] = {}
        self._made_at: float | None = None
        self._n_closings = 0
        """Of the scheduler when it was made: a ban that has gone since would be told for a while."""
        self._lock = asyncio.Lock()
        self._running: Callable[[], Collection[Driven]] = tuple
        self._threads = False
        self._underway_now: tuple[float, Mapping[Place, _Spans]] | None = None

    def follow(self, running: Callable[[], Collection[Driven]], *, threads: bool) -> None:
        """Learn also from what runs, for links where nothing has ended yet. `threads`: large forecasts run in one."""
        self._running = running
        self._threads = threads

    def retune(self, shares: ShareTable) -> None:
        """Other shares and limits are configured."""
        self._shares = shares
        self._made_at = None

    # Lanes

    def outlooks(self) -> Mapping[LaneKey, Outlook]:
        """The outlook of each lane with work, as of a moment ago."""
        if not self._is_fresh():
            keys, loads = self._loads()
            now = self._now()
            n_closings = self._board.scheduler.n_closings
            self._keep(keys, predict(loads, self._ceilings(now), self._shares), now, n_closings)
        return self._found

    async def fresh(self) -> Mapping[LaneKey, Outlook]:
        """The same; a large one is made beside the event loop."""
        if not self._threads or len(self._board.scheduler.lanes) <= INLINE_MAX:
            return self.outlooks()
        async with self._lock:
            if not self._is_fresh():
                keys, loads = self._loads()
                now = self._now()
                ceilings, n_closings = self._ceilings(now), self._board.scheduler.n_closings
                found = await asyncio.to_thread(predict, loads, ceilings, self._shares)
                self._keep(keys, found, now, n_closings)
        return self._found

    def _is_fresh(self) -> bool:
        if self._made_at is None or self._n_closings != self._board.scheduler.n_closings:
            return False
        age_s = self._now() - self._made_at
        return 0 <= age_s < FRESH_S + FRESH_LANE_S * len(self._found)

    def _keep(self, keys: list[LaneKey], found: list[Outlook], now: float, n_closings: int) -> None:
        self._found, self._made_at = dict(zip(keys, found, strict=True)), now
        self._n_closings = n_closings

    def start_s(self, key: LaneKey, n_before: int) -> float | None:
        """Seconds from now until the transfer of a lane starts that has `n_before` before it; None: unknown.

        From the forecast there is: call `fresh` before.
        """
        outlook, lane = self._found.get(key), self._board.scheduler.lanes.get(key)
        if outlook is None or lane is None or self._made_at is None or self.duration_s(lane.link, None) is None:
            return None
        wait_s = start_of(outlook, n_before)
        if wait_s is None:
            return None
        return max(wait_s - (self._now() - self._made_at) + self._late_s(lane), self._freed_s(lane, n_before), 0.0)

    def drained_s(self, keys: Collection[LaneKey]) -> float | None:
        """Seconds from now until all that these lanes have has ended; None: unknown."""
        last = 0.0
        for key in keys:
            outlook, lane = self._found.get(key), self._board.scheduler.lanes.get(key)
            if outlook is None or lane is None or self._made_at is None:
                return None
            if outlook.finished_s is None or self.duration_s(lane.link, None) is None:
                return None
            spans = None if lane.n_ready > 0 else self._underway().get(_on_link(lane.link))
            if spans is not None:
                last = max(last, spans.left_s[-1])
            else:
                last = max(last, outlook.finished_s - (self._now() - self._made_at) + self._late_s(lane))
        return last

    def _late_s(self, lane: Lane) -> float:
        """How much later those who hold slots will end than those who had begun at any time.

        A forecast knows only how many run. What was begun all at once ends all at once.
        """
        if any(room.limit <= 0 for room in lane.rooms):
            return 0.0
        spans = self._underway().get(_on_link(lane.link))
        return 0.0 if spans is None else sum(spans.left_s) / len(spans.left_s) - spans.whole_s / 2

    def _freed_s(self, lane: Lane, n_before: int) -> float:
        """Seconds until so many slots and one are given back that a lane needs and that are all taken."""
        earliest = 0.0
        for room in lane.rooms:
            spans = self._underway().get(room.place)
            if room.used >= room.limit > 0 and spans is not None and len(spans.left_s) >= room.used:
                nth = min(n_before + room.used - room.limit, len(spans.left_s) - 1)
                earliest = max(earliest, spans.left_s[nth])
        return earliest

    # Single transfers

    def duration_s(self, link: Link, size_bytes: float | None) -> float | None:
        """How long a transfer of a link takes from claim to release; None: nobody has seen one, nor of its ends."""
        own = self._measures.of(link)
        usual = None if own is None else _of_size(own, size_bytes)
        if usual is not None:
            return usual
        underway = self._underway()
        on_link = underway.get(_on_link(link))
        if on_link is not None:
            return on_link.whole_s
        ends = self._measures.out_of(link.source_se), self._measures.into(link.dest_se)
        found = [s for end in ends if end is not None and (s := _of_size(end, size_bytes)) is not None]
        if not found:
            places = Place("out", link.source_se), Place("in", link.dest_se)
            found = [underway[place].whole_s for place in places if place in underway]
        return sum(found) / len(found) if found else None

    def end_of(self, driven: Driven) -> float | None:
        """The instant at which a transfer that runs will end, by its own speed or by what is usual; None: unknown."""
        span = self._span_of(driven)
        if span is not None:
            return self._now() + span[1]
        link = self._board.link(driven.order.queue)
        usual_s = self.duration_s(link, driven.progress.size_bytes or driven.order.size_bytes)
        since_s = self._now() - driven.began_at
        if usual_s is None or since_s > OVERDUE * usual_s:
            return None
        return max(driven.began_at + usual_s, self._now())

    def _span_of(self, driven: Driven) -> tuple[float, float] | None:
        """(whole, left) seconds of one that runs: what is usual in the beginning, its own speed in the end."""
        progress = driven.progress
        size_bytes = progress.size_bytes or driven.order.size_bytes
        since_s = self._now() - driven.began_at
        measures = self._measures.of(self._board.link(driven.order.queue))
        usual_s = None if measures is None else _of_size(measures, size_bytes)
        part = min(progress.bytes_done / size_bytes, 1.0) if size_bytes else 0.0
        # Reports come every few seconds: what is left now is less than what was left at the last one.
        spent_s, silent_s = (driven.told_at - driven.began_at, self._now() - driven.told_at) if part else (since_s, 0.0)
        if usual_s is not None and since_s <= OVERDUE * usual_s:
            left_s = (1 - part) * (spent_s + (1 - part) * usual_s) if part else usual_s - since_s
        elif part >= TELLING:
            left_s = spent_s * (1 - part) / part
        else:
            return None
        left_s = max(left_s - silent_s, 0.0)
        return since_s + left_s, left_s

    def _underway(self) -> Mapping[Place, _Spans]:
        """Link, and direction of an endpoint → what those who run there take and have left."""
        now = self._now()
        if self._underway_now is None or self._underway_now[0] != now:
            found: dict[Place, list[tuple[float, float]]] = {}
            for driven in self._running():
                span = self._span_of(driven) if driven.began_at else None
                if span is not None:
                    queue = driven.order.queue
                    link = Place("link", queue.source_se, queue.dest_se)
                    for place in (link, Place("out", queue.source_se), Place("in", queue.dest_se)):
                        found.setdefault(place, []).append(span)
            self._underway_now = now, {place: _Spans.of(rows) for place, rows in found.items()}
        return self._underway_now[1]

    # What the forecast is asked

    def _loads(self) -> tuple[list[LaneKey], list[Load]]:
        lanes = {k: lane for k, lane in self._board.scheduler.lanes.items() if lane.n_ready > 0 or lane.n_held}
        spans = {key: self._seen_s(lane) for key, lane in lanes.items()}
        known = [slot_s for slot_s in spans.values() if slot_s is not None]
        # What competes with known links is more likely to be like them than to be like nothing at all.
        default_s = sum(known) / len(known) if known else SLOT_S_DEFAULT
        return list(lanes), [_load(lane, spans[key] or default_s) for key, lane in lanes.items()]

    def _seen_s(self, lane: Lane) -> float | None:
        own = self._measures.of(lane.link)
        span_s = None if own is None else _of_size(own, _usual_bytes(lane))
        return self.duration_s(lane.link, None) if span_s is None else span_s

    def _ceilings(self, now: float) -> dict[Place, Ceiling]:
        found = {}
        for place, room in self._board.scheduler.rooms.items():
            limit, until, after = room.ceiling()
            if limit < UNLIMITED:
                until_s = None if until is None else max(until - now, 0.0)
                found[place] = Ceiling(limit, until_s, after)
        for place, n in self._copies_by_bandwidth().items():
            known = found.get(place)
            if known is None:
                found[place] = Ceiling(n)
            else:
                found[place] = Ceiling(min(known.limit, n), known.until_s, min(known.after, n))
        return found

    def _copies_by_bandwidth(self) -> dict[Place, int]:
        """How many copies of the usual speed fit below the limits of bytes per second."""
        scheduler = self._board.scheduler
        if not scheduler.bands:
            return {}
        weights: dict[Place, float] = {}
        rates: dict[Place, float] = {}
        for lane in scheduler.lanes.values():
            n = max(lane.n_ready, 0) + lane.n_held
            for band in lane.bands if n else ():
                weights[band.place] = weights.get(band.place, 0.0) + n
                rates[band.place] = rates.get(band.place, 0.0) + n * scheduler.need(lane)
        return {
            place: max(int(scheduler.bands[place].limit_bytes_s * weight / rates[place] * (1 + 1e-9)), 1)
            for place, weight in weights.items()
            if rates[place] > 0
        }


def _on_link(link: Link) -> Place:
    return Place("link", link.source_se, link.dest_se)


def _load(lane: Lane, slot_s: float) -> Load:
    return Load(
        link=lane.link,
        vo=lane.queue.vo,
        activity=lane.queue.activity,
        priority=lane.priority,
        ready=max(lane.n_ready, 0),
        active=lane.n_held,
        slot_s=slot_s,
        ready_bytes=max(lane.n_bytes, 0),
    )


def _usual_bytes(lane: Lane) -> float | None:
    """How long a lane's files are; None: nobody has said."""
    of_size = lane.queue.size_class
    if of_size == UNKNOWN:
        return None
    return lane.n_bytes / lane.n_ready if lane.n_ready > 0 and lane.n_bytes > 0 else typical_bytes(of_size)


def _of_size(measures: LinkMeasures, size_bytes: float | None) -> float | None:
    """How long a transfer of so many bytes takes, of an unknown number: the mean; None: none has finished."""
    if measures.file_bytes is None:
        return None
    line = None if size_bytes is None else measures.cost()
    if line is None or size_bytes is None:
        return measures.slot_s
    return line[0] + line[1] * size_bytes
