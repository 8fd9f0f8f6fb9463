"""Decide what starts now. Pure: told what waits, what ended and what time it is; answers with claims.

Nothing is ever scanned. A slot that becomes free is offered to those who wait for it: to the destination
whose transfers use it, or, when a source, a link or a VO's limit held others back as well, to the
destination that has had least of it (`rooms.Room`). Inside a destination VOs, activities, priorities and
lanes take their turns (`lanes`). A lane that cannot start waits in the room that is full and holds nobody
back. So a decision costs the same with a thousand and with four million queued transfers, and on ten links
and on ten thousand.

Weights between links, and between destinations at a source, follow the time that what waits at the
other end would take: who would be last to be done is served more, so that all end together.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from transfer_engine import order
from transfer_engine.lanes import Lane, Level, Site, VoNode
from transfer_engine.limits import NODE, LimitTable
from transfer_engine.model import Queue, QueueId
from transfer_engine.pacing import LARGE
from transfer_engine.places import Cap, Link, Place
from transfer_engine.reasons import Reason, Why
from transfer_engine.rooms import REMEMBER, Band, Room
from transfer_engine.shares import ShareTable
from transfer_engine.turns import BandTurns, Turns

CLAIMS_MAX: Final = 1000
"""Most transfers that one decision starts: bounds how long the next one waits for its commit."""
LIGHTEST: Final = 0.1
"""Least weight of a link whose other end has next to nothing to do: nobody is starved for the sake of the last."""
HEAVIEST: Final = 1 / LIGHTEST

LaneKey = tuple[QueueId, int]
"""(queue, priority)"""


@dataclass(frozen=True, slots=True)
class Start:
    """Decided: one lane starts `n` transfers, each of which reserves so many bytes per second."""

    lane: Lane
    n: int
    bytes_s: float


class Scheduler:
    """Everything that waits, as counts, and everything that is limited."""

    def __init__(self, limits: LimitTable, shares: ShareTable) -> None:
        self.limits = limits
        self.shares = shares
        self.turns = Turns(self.reconsider)
        self.band_turns = BandTurns(self.reconsider)
        self.node = Room(NODE, limits.node)
        self.rooms: dict[Place, Room] = {NODE: self.node}
        self.bands: dict[Place, Band] = {place: Band(place, bytes_s) for place, bytes_s in limits.bands.items()}
        self.sites: dict[str, Site] = {}
        self.lanes: dict[LaneKey, Lane] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._runnable: list[tuple[float, int, Site]] = []
        self._measured: dict[Link, tuple[Room, ...]] = {}
        self._seq = 0
        self._clock = 0.0
        self._rates: dict[Link, float] = {}
        """Link → bytes per second that one of its copies reaches."""
        self._slot_s: dict[tuple[Link, int], float] = {}
        """(link, class of sizes) → mean seconds that a transfer holds its slots."""
        self.n_ready = 0
        self.n_closings = 0
        """How often a place was closed for all, or opened again."""
        self.first_caps: Callable[[Place], Iterable[tuple[str, Cap]]] = lambda _place: ()
        """Who caps a place that is seen for the first time, and how."""

    # What is known

    def link(self, source_se: str, dest_se: str) -> Link:
        """The link between two endpoints; one object per link."""
        key = (source_se, dest_se)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = Link(*key)
        return link

    def room(self, place: Place) -> Room:
        """The room of a place."""
        room = self.rooms.get(place)
        if room is None:
            room = self.rooms[place] = Room(place, self.limits.at(place))
            for owner, cap in self.first_caps(place):
                room.cap(owner, cap)
        return room

    def _site(self, dest_se: str) -> Site:
        site = self.sites.get(dest_se)
        if site is None:
            site = self.sites[dest_se] = Site(dest_se, self.room(Place("in", dest_se)))
        return site

    def lanes_of(self, link: Link) -> list[tuple[LaneKey, Lane]]:
        """The lanes of a link."""
        return [(key, lane) for key, lane in self.lanes.items() if lane.link == link]

    def lane(self, queue: Queue, priority: int) -> Lane:
        """The lane of a queue at a priority."""
        lane = self.lanes.get((queue.id, priority))
        if lane is not None:
            return lane
        link, site = self.link(queue.source_se, queue.dest_se), self._site(queue.dest_se)
        places = (
            Place("out", queue.source_se),
            Place("link", queue.source_se, queue.dest_se),
            Place("vo-in", queue.dest_se, queue.vo),
            Place("vo-out", queue.source_se, queue.vo),
            *((Place("size", queue.dest_se, str(queue.size_class)),) if queue.size_class >= LARGE else ()),
        )
        lane = Lane(
            queue,
            priority,
            link=link,
            site=site,
            level=self.level_of(queue, priority),
            rooms=(site.room, *map(self.room, places), self.node),
            bands=self.bands_of(queue),
        )
        self.lanes[queue.id, priority] = lane
        return lane

    def level_of(self, queue: Queue, priority: int) -> Level:
        """Where a queue's transfers of a priority compete at their destination, by the shares in force."""
        site = self._site(queue.dest_se)
        group = self.shares.group(queue.source_se, queue.dest_se)
        vo = site.vos.get((queue.vo, group))
        if vo is None:
            vo = site.vos[queue.vo, group] = VoNode(site, queue.vo, self.shares.of_vo(queue.vo, group))
        return vo.activity(queue.activity, self.shares.of_activity(queue.vo, queue.activity)).level(priority)

    def bands_of(self, queue: Queue) -> tuple[Band, ...]:
        """What limits the bytes per second of a queue's copies."""
        source, into = queue.source_se, queue.dest_se
        found = []
        for place in (Place("in", into), Place("out", source), Place("link", source, into)):
            limit = self.limits.band(place)
            if limit is not None:
                found.append(self.bands.setdefault(place, Band(place, limit)))
        return tuple(found)

    def ready(self, queue: Queue, priority: int, n: int, n_bytes: int, now: float) -> Lane:
        """So many more transfers (or fewer) can be claimed."""
        lane = self.lane(queue, priority)
        before = max(lane.n_ready, 0)
        lane.n_ready += n
        lane.n_bytes += n_bytes
        change = max(lane.n_ready, 0) - before
        if change:
            self._pend(lane, change)
            if n > 0:
                lane.blocked = False
            self.reconsider(lane, now)
        return lane

    def _pend(self, lane: Lane, n: int) -> None:
        self.n_ready += n
        lane.rooms[0].pending += n
        lane.rooms[1].pending += n
        lane.rooms[2].pending += n
        self.node.pending += n

    def reconsider(self, lane: Lane, now: float) -> None:
        """A lane may have become able, or unable, to start something."""
        if lane.n_ready <= 0 or lane.blocked:
            self._close(lane)
        elif lane.parked_in is None and not lane.open:
            where = lane.full()
            if where is None:
                lane.site.open(lane, now)
                self._offer(lane.site)
            else:
                where.park(lane)

    def block(self, lane: Lane) -> None:
        """The store found nothing to claim in a lane."""
        lane.blocked = True
        self._close(lane)

    def _close(self, lane: Lane) -> None:
        lane.site.close(lane)
        self.turns.closed(lane)

    def unblock(self, lane: Lane, now: float) -> None:
        """A destination that its transfers may have waited for is free."""
        if lane.blocked:
            lane.blocked = False
            self.reconsider(lane, now)

    # Slots

    def hold(self, queue: Queue, priority: int, now: float, bytes_s: float = 0.0) -> None:
        """A transfer holds its slots that no decision gave it: an earlier engine left it."""
        self._take(self.lane(queue, priority), now, bytes_s)

    def _take(self, lane: Lane, now: float, bytes_s: float) -> None:
        lane.n_held += 1
        for room in lane.rooms:
            room.used += 1
        lane.site.note_room()
        for band in lane.bands:
            band.take(bytes_s)
        activity = lane.level.activity
        activity.account.change(1, now)
        activity.vo.account.change(1, now)

    def release(self, queue: Queue, priority: int, now: float, bytes_s: float = 0.0) -> None:
        """A transfer has let go of its slots."""
        lane = self.lane(queue, priority)
        lane.n_held -= 1
        for room in lane.rooms:
            room.used -= 1
            if room.parked and room.used < room.limit:
                self.turns.freed(room)
        lane.site.note_room()
        for band in lane.bands:
            band.give_back(bytes_s)
            for waiting in band.wake():
                self.reconsider(waiting, now)
        activity = lane.level.activity
        activity.account.change(-1, now)
        activity.vo.account.change(-1, now)
        self._has_room(lane.site)

    def learn(self, queue: Queue, slot_s: float, bytes_s: float) -> None:
        """How long a transfer held its slots, and how fast its bytes moved."""
        link = self.link(queue.source_se, queue.dest_se)
        for room in self._measured_in(link):
            room.learn(slot_s)
        self._site(queue.dest_se).learn(slot_s)
        kind = (link, queue.size_class)
        seen_s = self._slot_s.get(kind)
        self._slot_s[kind] = slot_s if seen_s is None else REMEMBER * seen_s + (1 - REMEMBER) * slot_s
        if bytes_s > 0:
            self._rates[link] = max(bytes_s, self._rates.get(link, 0.0) * 0.999)

    def _measured_in(self, link: Link) -> tuple[Room, ...]:
        rooms = self._measured.get(link)
        if rooms is None:
            places = Place("in", link.dest_se), Place("out", link.source_se), Place("link", *_ends(link))
            rooms = self._measured[link] = (*map(self.room, places), self.node)
        return rooms

    def slot_s(self, lane: Lane) -> float:
        """How long a transfer of a lane holds its slots, in seconds: its own kind's mean, or its link's."""
        seen_s = self._slot_s.get((lane.link, lane.queue.size_class))
        return lane.rooms[2].slot_s if seen_s is None else seen_s

    def fill(self, dest_se: str, *, filled: bool) -> None:
        """A destination moves all that it can: more copies bring nothing, and take slots from those who come."""
        site = self.sites.get(dest_se)
        if site is not None and site.filled != filled:
            site.filled = filled
            self._offer(site)

    def cap(self, place: Place, owner: str, cap: Cap | None) -> None:
        """Somebody sets or lifts a bound on what may run in a place."""
        room = self.room(place)
        before = room.limit
        room.cap(owner, cap)
        self.bounded(room, before)

    def bounded(self, room: Room, before: int) -> None:
        """Another number may run in a place than before."""
        place = room.place
        self.n_closings += (before <= 0) != (room.limit <= 0)
        if place.kind == "in" and place.name in self.sites:
            self.sites[place.name].note_room()
        if room.limit > before:
            self._roomier(room)
        elif place.kind == "in" and place.name in self.sites:
            self.turns.withdraw(self.sites[place.name])

    def _roomier(self, room: Room) -> None:
        self.turns.freed(room)
        if room.place.kind == "in":
            site = self.sites.get(room.place.name)
            if site is not None:
                self._has_room(site)

    def _has_room(self, site: Site) -> None:
        self.turns.has_room(site)
        self._offer(site)

    # The decision

    def decide(self, now: float, n_max: int = CLAIMS_MAX) -> list[Start]:
        """What starts now; its slots are taken with the answer. At most `n_max`: call again until it is empty."""
        found: dict[Lane, int] = {}
        n = 0
        self.turns.expire(now)
        self.band_turns.let_go(now)
        self.turns.wake(now)
        while n < n_max and self.node.used < self.node.limit:
            site = self._next_site()
            if site is None:
                if self.turns.hungry:
                    self.turns.wake(now)
                elif not self.band_turns.let_go(now):
                    break
                continue
            lane = self._choose(site, now)
            if lane is not None:
                self._start(lane, now)
                found[lane] = found.get(lane, 0) + 1
                n += 1
                self._offer(site)
        return [Start(lane, n, self.need(lane)) for lane, n in found.items()]

    def _offer(self, site: Site) -> None:
        """Let a destination be looked at."""
        if site.n_open and not site.queued and not site.full:
            site.queued = True
            site.key = max(site.key, self._clock)
            self._seq += 1
            heapq.heappush(self._runnable, (site.key, self._seq, site))

    def _next_site(self) -> Site | None:
        while self._runnable:
            site = heapq.heappop(self._runnable)[2]
            site.queued = False
            if site.n_open and not site.full:
                self._clock = site.key
                return site
        return None

    def _choose(self, site: Site, now: float) -> Lane | None:
        """The lane that a destination starts next; lanes that cannot start go and wait where it is full."""
        while True:
            lane = site.choose(now)
            if lane is None:
                return None
            where = lane.full() or self.turns.owed(lane, now) or self._over(lane, now)
            if where is None:
                return lane
            self._close(lane)
            where.park(lane)

    def _over(self, lane: Lane, now: float) -> Band | None:
        return self.band_turns.over(lane, self.need(lane), now) if lane.bands else None

    def need(self, lane: Lane) -> float:
        """What one copy of a lane may reach: the most that was seen on its link; all there is before any was."""
        if not lane.bands:
            return 0.0
        seen = self._rates.get(lane.link)
        return min(band.limit_bytes_s for band in lane.bands) if seen is None else seen

    def _start(self, lane: Lane, now: float) -> None:
        site, level = lane.site, lane.level
        into, out, _ = lane.rooms[:3]
        slot_s = self.slot_s(lane)
        into_s, out_s = into.drain_s, out.drain_s
        level.clock = lane.key
        lane.key += slot_s * level.of_link[lane.link] / _weight(out_s, into_s)
        site.key += slot_s / _weight(into_s, self.node.drain_s)
        for room in lane.shared:
            room.served(site, slot_s / _weight(into_s, out_s))
        self.turns.started(lane)
        level.activity.served(level)
        self._take(lane, now, self.need(lane))
        lane.n_ready -= 1
        self._pend(lane, -1)
        where = lane.full() if lane.n_ready > 0 else None
        if lane.n_ready > 0 and where is None:
            site.push(lane)
        else:
            site.close(lane)
        if where is not None:
            # Also while its destination is full, it stands in line where others may come before it.
            where.park(lane)
        if lane.bands:
            self.band_turns.started(lane, self.need(lane), now)

    def returned(self, lane: Lane, n: int, now: float, bytes_s: float = 0.0) -> None:
        """So many of a decision's claims found nothing to claim: what is left of the lane is blocked."""
        before = max(lane.n_ready, 0)
        lane.n_ready += n
        # What was cancelled while the claim was on its way was taken off already.
        self._pend(lane, max(lane.n_ready, 0) - before)
        self.block(lane)
        for _ in range(n):
            self.release(lane.queue, lane.priority, now, bytes_s)

    def tidy(self) -> None:
        """Forget lanes, activities, VOs and destinations without work; what is limited stays."""
        for key, lane in list(self.lanes.items()):
            if not lane.n_ready and not lane.n_held and lane.parked_in is None:
                del self.lanes[key]
        used = {lane.level for lane in self.lanes.values()}
        gone: set[Site] = set()
        for name, site in list(self.sites.items()):
            site.tidy(used)
            if not site.vos and not site.queued:
                del self.sites[name]
                gone.add(site)
        if gone:
            for room in self.rooms.values():
                for site in gone.intersection(room.keys):
                    del room.keys[site]

    # Why not

    def reasons(self, queue: Queue, priority: int) -> list[Reason]:
        """What keeps a lane back, the most important first; empty: its transfers are about to start."""
        lane = self.lanes.get((queue.id, priority))
        if lane is None or lane.n_ready <= 0:
            return []
        found = [room.reason() for room in lane.rooms if room.used >= room.limit]
        if lane.bands:
            need = self.need(lane)
            found += [band.reason() for band in lane.bands if band.kept not in {None, lane} or not band.holds(need)]
        if lane.blocked:
            found.append(_writing(lane))
        found += order.reasons(lane)
        return found


def _weight(other_s: float, own_s: float) -> float:
    """How much a lane counts whose other end needs `other_s` for what waits there."""
    if own_s <= 0:
        return 1.0
    weight = other_s / own_s
    if weight < LIGHTEST:
        return LIGHTEST
    if weight > HEAVIEST:
        return HEAVIEST
    return weight


def _writing(lane: Lane) -> Reason:
    return Reason(
        code=Why.DESTINATION,
        text="other transfers are writing the same destinations; they have to end first",
        subject=lane.site.name,
    )


def _ends(link: Link) -> tuple[str, str]:
    return link.source_se, link.dest_se
