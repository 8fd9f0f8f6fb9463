"""What runs in each place and what comes of it: counts from claims, markers and ends. Pure: it is told the time.

Goodput is measured by Little's law: the mean number active times the bytes per second of slot time, taken over
the intervals that ended with a report (a marker, or the end of a copy). Bytes come in lumps, at a marker or only at
the end; this ratio does not care where in a lump a span begins, bytes counted per second do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocols.errors import Scope
from transfer_engine.model import FileId
from transfer_engine.places import Link, Place

Key = tuple[FileId, int]
"""A transfer and its epoch."""


class End(Enum):
    """How an attempt ended, as far as a storage's load is concerned."""

    FINISHED = "finished"
    OVERLOADED = "overloaded"
    """429, 503, a timeout, a stall."""
    FAILED = "failed"
    """Another failure that is a storage's fault."""
    OTHER = "other"
    """Cancelled, missing, denied: it says nothing about load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one place did during a span.

    Attributes:
        active, peak: mean and largest number of transfers in it, from claim to release.
        moved_bytes: bytes that were reported by markers and ends.
        slot_s: slot time that these reports cover: since the copy's last report, or since its claim. Attempts that
            failed count for neither: a dead partner must not make a healthy storage look slow.
        n_reports: how many reports that were.
        squares: sums of bytes², bytes · seconds and seconds² over the reports: how sure the goodput is.
        n_overloads, n_failed: failures that may be this place's; see `End`.
        first_marker_s: mean time from COPY to the first marker or the end; None: nothing had one.
        waiting: ready transfers that could have used the place.
        size_bytes: geometric mean size of what reported, which one large file does not move; None: nobody knows.
        lowest, highest: the configured bounds of the target.
    """

    place: Place
    span_s: float
    active: float
    peak: int
    moved_bytes: float
    slot_s: float
    n_reports: int
    squares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    n_finished: int = 0
    n_overloads: int = 0
    n_failed: int = 0
    first_marker_s: float | None = None
    waiting: int = 0
    size_bytes: float | None = None
    lowest: int = 1
    highest: int = 60


@dataclass(slots=True)
class _Copy:
    """One transfer that holds slots."""

    places: tuple[_Tally, _Tally, _Tally]
    """Source outbound, destination inbound, link."""
    size_bytes: int | None
    reported_at: float
    moved_bytes: int = 0
    copying_since: float | None = None
    lost: bool = False


@dataclass(slots=True)
class _Tally:
    """One place during the present span."""

    place: Place
    n: int = 0
    peak: int = 0
    changed_at: float = 0.0
    active_s: float = 0.0
    moved_bytes: float = 0.0
    slot_s: float = 0.0
    n_reports: int = 0
    n_finished: int = 0
    n_overloads: int = 0
    n_failed: int = 0
    first_s: float = 0.0
    n_first: int = 0
    sizes: float = 0.0
    n_sizes: int = 0
    bytes2: float = 0.0
    bytes_s: float = 0.0
    slot2: float = 0.0

    def change(self, n: int, now: float) -> None:
        self.active_s += self.n * (now - self.changed_at)
        self.changed_at = now
        self.n += n
        self.peak = max(self.peak, self.n)

    def report(self, n_bytes: int, slot_s: float, size_bytes: int | None) -> None:
        self.moved_bytes += n_bytes
        self.slot_s += slot_s
        self.n_reports += 1
        self.bytes2 += n_bytes * n_bytes
        self.bytes_s += n_bytes * slot_s
        self.slot2 += slot_s * slot_s
        if size_bytes is not None:
            self.sizes += math.log(max(size_bytes, 1))
            self.n_sizes += 1

    def clear(self) -> None:
        self.peak = self.n
        self.active_s = self.moved_bytes = self.slot_s = self.first_s = self.sizes = 0.0
        self.bytes2 = self.bytes_s = self.slot2 = 0.0
        self.n_reports = self.n_finished = self.n_overloads = self.n_failed = self.n_first = self.n_sizes = 0


_OUT, _IN, _LINK = 0, 1, 2
_BLAMED: Final = {Scope.SOURCE: (_OUT, _LINK), Scope.DESTINATION: (_IN, _LINK)}
"""Whose overload a failure may be; failures of neither scope may be anybody's."""


class Meter:
    """Counts for every endpoint direction and link with activity. Costs the same for each event, whatever runs."""

    def __init__(self, *, now: float) -> None:
        self._since = now
        self._tallies: dict[Place, _Tally] = {}
        self._copies: dict[Key, _Copy] = {}

    def started(self, key: Key, link: Link, size_bytes: int | None, now: float) -> None:
        """A transfer has been claimed."""
        places = (Place("out", link.source_se), Place("in", link.dest_se), Place("link", link.source_se, link.dest_se))
        out, into, own = (self._tally(place, now) for place in places)
        self._copies[key] = _Copy((out, into, own), size_bytes, now)
        for tally in (out, into, own):
            tally.change(1, now)

    def copying(self, key: Key, now: float) -> None:
        """Its COPY is being sent."""
        if (copy := self._copies.get(key)) is not None:
            copy.copying_since = now

    def marker(self, key: Key, moved_bytes: int, now: float) -> None:
        """It has moved so many bytes in all."""
        copy = self._copies.get(key)
        if copy is not None and moved_bytes > copy.moved_bytes:
            self._first(copy, now)
            self._report(copy, moved_bytes, now)

    def lost(self, key: Key, now: float) -> None:
        """Nobody knows how it ended: until that is clear it holds its slots and moves nothing."""
        copy = self._copies.get(key)
        if copy is not None and not copy.lost:
            copy.lost = True
            for tally in copy.places:
                tally.change(-1, now)

    def ended(self, key: Key, end: End, moved_bytes: int, now: float, scope: Scope | None = None) -> None:
        """It has been settled and its slots are free; `moved_bytes` in all, `scope` of its failure."""
        copy = self._copies.pop(key, None)
        if copy is None:
            return
        if end is End.FINISHED:
            self._first(copy, now)
            self._report(copy, max(moved_bytes, copy.moved_bytes), now)
        blamed = _BLAMED.get(scope, (_OUT, _IN, _LINK)) if scope is not None else (_OUT, _IN, _LINK)
        for index, tally in enumerate(copy.places):
            if not copy.lost:
                tally.change(-1, now)
            tally.n_finished += end is End.FINISHED
            if index in blamed:
                tally.n_overloads += end is End.OVERLOADED
                tally.n_failed += end is End.FAILED

    def samples(
        self, now: float, bounds: Callable[[Place], tuple[int, int]], waiting: Callable[[Place], int]
    ) -> list[Sample]:
        """What happened since the last call, of the places with activity, and begin a new span.

        Args: bounds: configured least and most of a place; waiting: ready transfers that could use it.
        """
        span_s, self._since = now - self._since, now
        if span_s <= 0:
            return []
        found, idle = [], []
        for place, tally in self._tallies.items():
            tally.change(0, now)
            if not tally.active_s and not tally.n and not tally.n_overloads:
                idle.append(place)
                continue
            found.append(_sample(tally, span_s, bounds(place), waiting(place)))
            tally.clear()
        for place in idle:
            del self._tallies[place]
        return found

    def _tally(self, place: Place, now: float) -> _Tally:
        tally = self._tallies.get(place)
        if tally is None:
            tally = self._tallies[place] = _Tally(place, changed_at=now)
        return tally

    @staticmethod
    def _first(copy: _Copy, now: float) -> None:
        if copy.copying_since is None:
            return
        for tally in copy.places:
            tally.first_s += now - copy.copying_since
            tally.n_first += 1
        copy.copying_since = None

    @staticmethod
    def _report(copy: _Copy, moved_bytes: int, now: float) -> None:
        for tally in copy.places:
            tally.report(moved_bytes - copy.moved_bytes, now - copy.reported_at, copy.size_bytes)
        copy.moved_bytes, copy.reported_at = moved_bytes, now


def _sample(tally: _Tally, span_s: float, bounds: tuple[int, int], waiting: int) -> Sample:
    return Sample(
        place=tally.place,
        span_s=span_s,
        active=tally.active_s / span_s,
        peak=tally.peak,
        moved_bytes=tally.moved_bytes,
        slot_s=tally.slot_s,
        n_reports=tally.n_reports,
        squares=(tally.bytes2, tally.bytes_s, tally.slot2),
        n_finished=tally.n_finished,
        n_overloads=tally.n_overloads,
        n_failed=tally.n_failed,
        first_marker_s=tally.first_s / tally.n_first if tally.n_first else None,
        waiting=waiting,
        size_bytes=math.exp(tally.sizes / tally.n_sizes) if tally.n_sizes else None,
        lowest=bounds[0],
        highest=bounds[1],
    )
