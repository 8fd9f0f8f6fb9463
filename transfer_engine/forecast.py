"""When what waits will start and finish, if nothing new comes. Pure.

Lanes are fluids: a lane with x slots and transfers that take d seconds starts x/d per second. Slots divide
as the scheduler divides them in the long run (`filling`); when a lane has started all that it had, its slots
go to the others when its transfers have ended, and what each gets is worked out anew. The transfers that
hold slots now give them up one after the other: who has just come to a busy storage waits for that.

What it leaves out: chance, single transfers in lanes that have less than one slot, limits of bytes per second, and
changes of speed with the number of copies. Many lanes are looked at in fewer and longer phases.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from transfer_engine.course import HALF, TAIL, Course
from transfer_engine.filling import Filling, Seat, Tree
from transfer_engine.places import Link, Place
from transfer_engine.shares import ShareTable

PHASES_MAX: Final = 300
VISITS_MAX: Final = 300_000
"""Lanes looked at in all phases together: bounds the time to a good half second."""
VISITS_PER_PHASE: Final = 2
"""What a lane costs in each phase, beside the division of the slots."""
PIN_ROUNDS: Final = 3
"""So often it is asked anew who holds more than its part, after others were found to."""
SLIGHT: Final = 0.02
"""The part of all slots in use that may be in wrong hands without being looked at."""
GROWTH: Final = 1.5
"""Phases while slots are given up get longer by this factor."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How many may run in a place: `limit`, from `until_s` seconds from now on `after`.

    `limit` 0 without `until_s` is a ban without an end: nothing can be said about who waits for it.
    """

    limit: int
    until_s: float | None = None
    after: int = 0

    @property
    def last(self) -> int:
        """What holds in the end."""
        return self.limit if self.until_s is None else self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What waits and runs of one link, VO, activity and priority.

    Attributes:
        ready: transfers that can start as far as their own queue goes.
        active: transfers that hold a slot now.
        slot_s: mean seconds that a transfer holds its slot, positive.
    """

    link: Link
    vo: str
    activity: str
    priority: int
    ready: int
    active: int
    slot_s: float
    ready_bytes: int = 0

    def places(self) -> tuple[Place, ...]:
        """Everything that one of its transfers takes up room in."""
        source, destination = self.link.source_se, self.link.dest_se
        return (
            Place("in", destination),
            Place("vo-in", destination, self.vo),
            Place("link", source, destination),
            Place("vo-out", source, self.vo),
            Place("out", source),
            Place("node", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What becomes of one lane; None: nothing can be said, as it waits for something without an end.

    Attributes:
        slots: that it gets now, in the mean.
        start_rate: starts per second now.
        bytes_s: of what waits, at that rate.
        first_start_s: seconds until the next one starts.
        drained_s: until the last one that waits now has started.
        finished_s: until that has ended.
        curve: (how many have started, seconds from now), both rising; what is between lies on straight lines.
    """

    slots: float
    start_rate: float
    bytes_s: float
    first_start_s: float | None
    drained_s: float | None
    finished_s: float | None
    curve: tuple[tuple[float, float], ...] = ()
    last_rate: float = 0.0
    """Starts per second at the end, for those that come after."""


def start_of(outlook: Outlook, n_before: int) -> float | None:
    """Seconds until the transfer starts that has `n_before` others before it; None: unknown.

    Those beyond the end of the lane start at the rate that it had then.
    """
    if outlook.first_start_s is None or not outlook.curve:
        return None
    target = n_before + HALF
    curve = outlook.curve
    n_last, last_s = curve[-1]
    if target >= n_last:
        beyond = target - max(n_last, HALF)
        return max(last_s + (beyond / outlook.last_rate if beyond else 0.0), outlook.first_start_s)
    index = bisect_left(curve, (target, -1.0))
    n_high, high_s = curve[index]
    n_low, low_s = curve[index - 1] if index else (0.0, curve[0][1])
    part = (target - n_low) / (n_high - n_low) if n_high > n_low else 1.0
    return max(low_s + (high_s - low_s) * min(max(part, 0.0), 1.0), outlook.first_start_s)


def predict(
    loads: Sequence[Load], ceilings: Mapping[Place, Ceiling], shares: ShareTable, *, visits_max: int = VISITS_MAX
) -> list[Outlook]:
    """The outlook of each lane, in the order given.

    Args: ceilings: whole limits, what runs not taken off; a place that is missing has none. What runs must be
        among the loads, also of lanes without a backlog.  visits_max: more is finer and takes longer.
    """
    return _Future(loads, ceilings, shares, visits_max).outlooks()


class _Future:
    """All lanes, phase by phase."""

    def __init__(
        self, loads: Sequence[Load], ceilings: Mapping[Place, Ceiling], shares: ShareTable, visits_max: int
    ) -> None:
        self._loads = loads
        self._visits_max = visits_max
        self._ceilings, self._places = _binding(loads, ceilings)
        tree, activities = _tree(loads, shares)
        seats = [Seat(a, load.priority, p) for load, a, p in zip(loads, activities, self._places, strict=True)]
        self._filling = Filling(tree, seats)
        self._courses = [Course(ready=load.ready, active=load.active, slot_s=load.slot_s) for load in loads]
        barred = {place for place, ceiling in enumerate(self._ceilings) if not ceiling.limit and not ceiling.last}
        self._barred = [not barred.isdisjoint(places) for places in self._places]
        self._waits = self._first_waits()
        self._open = list(range(len(loads)))
        self._tails: list[int] = []
        """Lanes that have started everything and still hold slots."""
        self._spare: list[float] = []
        """Room of each place in this phase that nobody can use."""
        self._coarse_s = 0.0
        """What is given back so soon is free already: phases are longer than that."""
        self._now = 0.0
        self._n_phases = self._visits = self._last_visits = 0

    def outlooks(self) -> list[Outlook]:
        while self._open and self._n_phases < PHASES_MAX and self._visits < self._visits_max:
            before = self._filling.visits
            if not self._phase():
                break
            self._n_phases += 1
            self._last_visits = self._filling.visits - before + VISITS_PER_PHASE * len(self._open)
            self._visits += self._last_visits
        self._end()
        return [self._outlook(lane) for lane in range(len(self._loads))]

    def _phase(self) -> bool:
        """From now to the next time that something changes; False: nothing will."""
        now, courses = self._now, self._courses
        slots, pinned = self._divide(now)
        for lane in self._open:
            course = courses[lane]
            course.enter(slots[lane], now, lane in pinned)
            if not self._n_phases:
                course.slots_now, course.rate_now = slots[lane], course.rate
        self._settle(now)
        until = self._until(pinned)
        if until == math.inf:
            return False
        if until > now:
            self._close(now, until)
        self._now = until
        return True

    def _settle(self, now: float) -> None:
        """Take the lanes out that have started everything by getting their slots."""
        for lane in self._open:
            if self._courses[lane].done:
                self._courses[lane].leave(now, now)
                self._tails.append(lane)
        self._open = [lane for lane in self._open if self._courses[lane].drained_s is None]

    def _close(self, now: float, until: float) -> None:
        """Let a phase pass; what lanes give back in the middle of it goes to the others at once."""
        ending = [lane for lane in self._open if self._courses[lane].ends_by(now, until)]
        for lane in ending:
            self._courses[lane].leave(now, until)
        self._tails += ending
        idle = self._idle(now, until)
        going = [lane for lane in self._open if self._courses[lane].drained_s is None]
        used = [0.0] * len(idle)
        for lane in going if any(idle) else ():
            for place in self._places[lane]:
                used[place] += self._courses[lane].held * (until - now)
        parts = [
            (more + spare * (until - now)) / n if n else 0.0
            for more, spare, n in zip(idle, self._spare, used, strict=True)
        ]
        for lane in going:
            more = min((parts[place] for place in self._places[lane]), default=0.0)
            if self._courses[lane].leave(now, until, 1 + more):
                self._tails.append(lane)
        self._open = [lane for lane in going if self._courses[lane].drained_s is None]

    def _idle(self, now: float, until: float) -> list[float]:
        """Slot-seconds of each place that are given back within a phase."""
        idle = [0.0] * len(self._ceilings)
        for lane in self._tails:
            course = self._courses[lane]
            if course.released_s < until:
                given = course.held * (until - max(course.released_s, now))
                for place in self._places[lane]:
                    idle[place] += given
        return idle

    def _room(self, now: float) -> list[float]:
        """Of each place, without what the lanes hold that have nothing more to start."""
        room = [float(c.limit if c.until_s is None or now < c.until_s else c.after) for c in self._ceilings]
        self._tails = [lane for lane in self._tails if self._courses[lane].released_s > now + self._coarse_s]
        for lane in self._tails:
            for place in self._places[lane]:
                room[place] -= self._courses[lane].held
        return room

    def _divide(self, now: float) -> tuple[list[float], set[int]]:
        """The slots of each open lane, and which of them hold more than their part until that ends."""
        room = self._room(now)
        demand = [max(course.left, 0.0) + course.held for course in self._courses]
        floors = {lane: floor for lane in self._open if (floor := self._courses[lane].floor(now)) > HALF}
        held = math.fsum(floors.values())
        pinned: set[int] = set()
        for turn in range(PIN_ROUNDS):
            left = list(room)
            for lane in pinned:
                for place in self._places[lane]:
                    left[place] -= floors[lane]
            free = [lane for lane in self._open if lane not in pinned] if pinned else self._open
            self._spare = [max(value, 0.0) for value in left]
            slots = self._filling.fill(free, demand, self._spare)
            for lane in pinned:
                slots[lane] = floors[lane]
            more = {lane for lane, floor in floors.items() if lane not in pinned and floor > slots[lane] + HALF}
            over = math.fsum(floors[lane] - slots[lane] for lane in more)
            if over <= SLIGHT * held or turn == PIN_ROUNDS - 1:
                return slots, pinned
            pinned |= more
        raise AssertionError

    def _until(self, pinned: set[int]) -> float:
        """When to work the slots out anew: at the next change, or after several when there are too many."""
        now, events = self._now, []
        for lane in self._open:
            course = self._courses[lane]
            if course.rate:
                events.append(now + max(course.left, 0.0) / course.rate)
        events += [self._courses[lane].released_s for lane in self._tails if self._courses[lane].released_s > now]
        events += [c.until_s for c in self._ceilings if c.until_s is not None and c.until_s > now]
        until, n_phases = math.inf, self._phases_left()
        if events:
            events.sort()
            at_once = -(-len(events) // n_phases)
            until = events[at_once - 1]
        if pinned:
            until = min(until, self._next_release(pinned, n_phases))
        self._coarse_s = (until - now) / 2 if events and until > events[0] else 0.0
        return until

    def _phases_left(self) -> int:
        # Phases become cheaper as lanes empty: what is left suffices for twice as many.
        cost = max(self._last_visits, 1)
        return max(min(2 * (self._visits_max - self._visits) // cost, PHASES_MAX - self._n_phases), 2)

    def _next_release(self, pinned: set[int], n_phases: int) -> float:
        """Steps that grow, from the first slot that is given up to when all are."""
        held = [self._courses[lane] for lane in pinned]
        last_s = TAIL * max(course.slot_s for course in held)
        first_s = 1 / math.fsum(course.held / course.slot_s for course in held)
        # With few phases left the first steps are coarser: at most a third of them is spent on this.
        first_s = max(first_s, last_s / GROWTH ** (n_phases // 3))
        return max(self._now + first_s, self._now * GROWTH)

    def _end(self) -> None:
        """When the phases are used up: each goes on as it does now, or all that share a place are done together."""
        going = [lane for lane in self._open if not self._barred[lane]]
        work = [0.0] * len(self._ceilings)
        for lane in going:
            for place in self._places[lane]:
                work[place] += self._courses[lane].work
        spans = [
            n / ceiling.last if ceiling.last else math.inf for n, ceiling in zip(work, self._ceilings, strict=True)
        ]
        demand = [max(course.left, 0.0) for course in self._courses]
        slots = self._filling.fill(going, demand, [float(ceiling.last) for ceiling in self._ceilings])
        for lane in going:
            course, places = self._courses[lane], self._places[lane]
            within = max((spans[place] for place in places), default=0.0)
            if slots[lane]:
                within = min(within, max(course.left, 0.0) * course.slot_s / slots[lane])
            if within < math.inf:
                blocks = [self._ceilings[place] for place in places]
                begin = max((c.until_s for c in blocks if c.until_s is not None and not c.limit), default=0.0)
                course.end(max(self._now, begin), within)

    def _first_waits(self) -> list[float]:
        """Seconds until each lane's next transfer can start: where a place is full, one has to end first."""
        used = [0] * len(self._ceilings)
        ends = [0.0] * len(self._ceilings)
        for load, places in zip(self._loads, self._places, strict=True):
            for place in places:
                used[place] += load.active
                ends[place] += load.active / load.slot_s
        waits = [
            (n + 1 - ceiling.limit) / rate if rate and n >= ceiling.limit > 0 else 0.0
            for n, rate, ceiling in zip(used, ends, self._ceilings, strict=True)
        ]
        return [max((waits[place] for place in places), default=0.0) for places in self._places]

    def _outlook(self, lane: int) -> Outlook:
        load, course = self._loads[lane], self._courses[lane]
        slots, rate = course.slots_now, course.rate_now if load.ready else 0.0
        bytes_s = rate * load.ready_bytes / load.ready if load.ready else 0.0
        if course.drained_s is None:
            return Outlook(
                slots=slots, start_rate=rate, bytes_s=bytes_s, first_start_s=None, drained_s=None, finished_s=None
            )
        wait = self._waits[lane]
        found = Outlook(
            slots=slots,
            start_rate=rate,
            bytes_s=bytes_s,
            first_start_s=wait,
            drained_s=0.0,
            finished_s=load.slot_s if load.active else 0.0,
            curve=tuple(course.knots),
            last_rate=course.last_rate,
        )
        first_s = start_of(found, 0)
        if not load.ready or first_s is None:
            return replace(found, first_start_s=first_s)
        drained_s = max(course.drained_s, first_s)
        return replace(found, first_start_s=first_s, drained_s=drained_s, finished_s=drained_s + load.slot_s)


def _binding(loads: Sequence[Load], ceilings: Mapping[Place, Ceiling]) -> tuple[list[Ceiling], list[tuple[int, ...]]]:
    """The ceilings that can matter, and for each lane which of them it is under."""
    index: dict[Place, int] = {}
    known: dict[tuple[Link, str], tuple[int, ...]] = {}
    wanted: list[int] = []
    own: list[tuple[int, ...]] = []
    for load in loads:
        places = known.get((load.link, load.vo))
        if places is None:
            found = [place for place in load.places() if place in ceilings]
            places = known[load.link, load.vo] = tuple(index.setdefault(place, len(index)) for place in found)
            wanted += [0] * (len(index) - len(wanted))
        own.append(places)
        for number in places:
            wanted[number] += max(load.ready, 1) + load.active
    kept: dict[int, int] = {}
    for (place, number), n in zip(index.items(), wanted, strict=True):
        if min(ceilings[place].limit, ceilings[place].last) < n:
            kept[number] = len(kept)
    tight = [ceilings[place] for place, number in index.items() if number in kept]
    renamed = {places: tuple(kept[number] for number in places if number in kept) for places in set(known.values())}
    return tight, [renamed[places] for places in own]


def _tree(loads: Sequence[Load], shares: ShareTable) -> tuple[Tree, list[int]]:
    """Destinations, VOs and activities, and the index of each lane's activity."""
    sites: dict[str, int] = {}
    vos: dict[tuple[int, str, tuple[str, str]], int] = {}
    activities: dict[tuple[int, str], int] = {}
    vo_rows: list[tuple[int, float]] = []
    activity_rows: list[tuple[int, float]] = []
    found = []
    for load in loads:
        site = sites.setdefault(load.link.dest_se, len(sites))
        group = shares.group(load.link.source_se, load.link.dest_se)
        vo = vos.setdefault((site, load.vo, group), len(vos))
        if vo == len(vo_rows):
            vo_rows.append((site, shares.of_vo(load.vo, group)))
        activity = activities.setdefault((vo, load.activity), len(activities))
        if activity == len(activity_rows):
            activity_rows.append((vo, shares.of_activity(load.vo, load.activity)))
        found.append(activity)
    return Tree(vo_rows, activity_rows), found
