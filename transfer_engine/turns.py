"""Whose turn it is at a room that several destinations wait for. Pure.

A slot that becomes free there goes to the destination that has had least of the room and has room for a
transfer itself. Where sources and destinations are full at once this alone would starve a link: its source and
its destination never have a slot free at the same moment, and each hands its own back to those who have it.
So a slot is kept for a destination that is full, until its next transfer ends, once it is owed far more than
the keeping costs. Such a promise ends with the destination's next start, whatever that is, and in any case
after a few times the wait that was expected: one slot, for a small part of a transfer's time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from transfer_engine.lanes import Lane, Site
from transfer_engine.places import Place
from transfer_engine.rooms import Band, Room

PASSED_MIN: Final = 4.0
"""Bandwidth is kept for a copy that so many times its need was let past ..."""
PASSED_COST: Final = 10.0
"""... and so many times need² / limit: until enough has drained about need² / (2 · limit) stays unused."""
FUTILE_MAX: Final = 64.0
"""How many times rarer bandwidth is kept after it was kept in vain."""
WAITS_MAX: Final = 4.0
"""A promise ends after so many times the expected wait."""


class Turns:
    """Rooms that may have room for those who wait in them."""

    def __init__(self, reconsider: Callable[[Lane, float], None]) -> None:
        """`reconsider`: a lane waits nowhere any more, and is open if it has something to start."""
        self._reconsider = reconsider
        self.hungry: dict[Place, Room] = {}
        """To be looked at."""
        self.idle: dict[Place, Room] = {}
        """They have room, while all who wait in them go to destinations that are full."""
        self.promises: dict[Site, float] = {}
        """Destination that a slot is kept for → when that ends."""

    def freed(self, room: Room) -> None:
        """There may be room."""
        if room.parked:
            self.hungry[room.place] = room

    def has_room(self, site: Site) -> None:
        """A destination may have room now, also for lanes that wait where there was room before."""
        for place, room in list(self.idle.items()):
            if site in room.parked:
                del self.idle[place]
                self.hungry[place] = room

    def wake(self, now: float) -> None:
        """Let those be looked at who waited for a room that is not full any more: one destination for each room."""
        for place, room in list(self.hungry.items()):
            site = None
            if room.used + (room.promised is not None) < room.limit:
                site = room.next()
                if site is not None:
                    if self._keep(room, room.keys[site], now):
                        continue
                    self._leave(room, site, now)
            if site is None or not room.parked:
                del self.hungry[place]
                if room.parked and room.used < room.limit:
                    self.idle[place] = room

    def _leave(self, room: Room, site: Site, now: float) -> list[Lane]:
        lanes = room.wake(site)
        for lane in lanes:
            self._reconsider(lane, now)
        return lanes

    def owed(self, lane: Lane, now: float) -> Room | None:
        """A room whose next slot belongs to another destination, which waits for it and has had less of it."""
        for room in lane.shared:
            if room.parked:
                key = room.key(lane.site)
                site = room.next(key)
                if site is not None and site is not lane.site:
                    self.hungry[room.place] = room
                    return room
                if self._keep(room, key, now) and room.full_for(lane.site):
                    return room
        return None

    # Promises

    def _keep(self, room: Room, rival_key: float, now: float) -> bool:
        """Keep a slot for the destination that has had least here, if it is owed enough and will have room soon."""
        site = room.first()
        if site is None or room.promised is not None or site.promise is not None:
            return False
        into = site.room
        if not 0 < into.limit == into.used:
            return False
        if rival_key - room.keys[site] < room.patience(site):
            return False
        if not any(lane.open for lane in self._leave(room, site, now)):
            return False
        room.promised, site.promise = site, room
        self.promises[site] = now + WAITS_MAX * site.horizon_s / into.used
        return True

    def started(self, lane: Lane) -> None:
        """A destination starts something: what it was promised is fulfilled or not wanted."""
        room = lane.site.promise
        if room is not None:
            self._end(lane.site, room, wanted=room in lane.rooms)

    def closed(self, lane: Lane) -> None:
        """A lane cannot start: neither with what is kept for it."""
        room = lane.site.promise
        if room is not None and room in lane.rooms:
            self.withdraw(lane.site)

    def withdraw(self, site: Site) -> None:
        """Keep nothing for a destination."""
        if site.promise is not None:
            self._end(site, site.promise, wanted=False)

    def expire(self, now: float) -> None:
        """Keep nothing for longer than it was meant to be."""
        for site, until in list(self.promises.items()):
            if until <= now:
                self.withdraw(site)

    def _end(self, site: Site, room: Room, *, wanted: bool) -> None:
        room.promised = site.promise = None
        del self.promises[site]
        if not wanted:
            room.forgive(site)
        self.freed(room)


class BandTurns:
    """Bandwidth for those who need much of it, next to many that need little.

    Whatever ends leaves room for a small copy, hardly ever for a large one. So nothing more begins in all bands of
    a lane that was let past for long, until there is room for it: in all of them at once, or two such lanes would
    wait for each other. This ends with its start, when it cannot start for another reason, and after some time.
    """

    def __init__(self, reconsider: Callable[[Lane, float], None]) -> None:
        """`reconsider`: a lane waits nowhere any more, and is open if it has something to start."""
        self._reconsider = reconsider
        self._kept: dict[Lane, float] = {}
        """Lane that bandwidth is kept for → when that ends."""
        self._futile: dict[Band, float] = {}
        """How many times rarer it is kept, where it was in vain."""

    def forget(self) -> None:
        """The bands there were are no more."""
        self._kept.clear()
        self._futile.clear()

    def over(self, lane: Lane, need: float, now: float) -> Band | None:
        """Where a lane whose turn it is has to wait; it is remembered there."""
        for band in lane.bands:
            if band.kept is not None and band.kept is not lane:
                return band
            if not band.holds(need):
                band.refused(lane, need)
                self._keep(band, now)
                return band
        return None

    @staticmethod
    def _first(band: Band) -> tuple[Lane, float] | None:
        """Who waits longest there, and what it needs; those who do not wait any more are forgotten."""
        while band.waiting:
            lane, need = next(iter(band.waiting.items()))
            if _waits(lane):
                return lane, need
            band.forget(lane)
        return None

    def _keep(self, band: Band, now: float) -> None:
        first = self._first(band)
        if first is None:
            return
        lane, need = first
        enough = max(PASSED_MIN * need, PASSED_COST * need * need / band.limit_bytes_s) * self._futile.get(band, 1.0)
        if band.passed_bytes_s < enough or any(other.kept is not None for other in lane.bands):
            return
        for other in lane.bands:
            other.kept = lane
        self._kept[lane] = now + WAITS_MAX * max(lane.site.horizon_s, lane.rooms[2].slot_s)

    def started(self, lane: Lane, need: float, now: float) -> None:
        """A lane starts a copy."""
        for band in lane.bands:
            band.started(lane, need)
        if lane in self._kept:
            for band in lane.bands:
                self._futile.pop(band, None)
            self._end(lane, now)

    def let_go(self, now: float) -> bool:
        """Keep nothing for those who cannot start for another reason, or did not in time; whether there were any."""
        over = [lane for lane, until in self._kept.items() if until <= now or not _waits(lane) or _in_vain(lane)]
        for lane in over:
            for band in lane.bands:
                band.forget(lane)
                self._futile[band] = min(2 * self._futile.get(band, 1.0), FUTILE_MAX)
            self._end(lane, now)
        return bool(over)

    def _end(self, lane: Lane, now: float) -> None:
        del self._kept[lane]
        for band in lane.bands:
            band.kept = None
            for other in band.wake():
                self._reconsider(other, now)


def _in_vain(lane: Lane) -> bool:
    """Whether all that is kept for a lane is there, and its destination is full."""
    return lane.site.full and not any(band.n_copies for band in lane.bands)


def _waits(lane: Lane) -> bool:
    """Whether nothing but bandwidth, or its turn, keeps a lane back."""
    return lane.n_ready > 0 and not lane.blocked and (lane.open or isinstance(lane.parked_in, Band))
