"""How slots divide among all that wants them, in the long run. Pure.

Weighted hierarchical max-min: destinations take turns; what a destination gets is divided between its VOs
by weight, between the activities of a VO by weight, between priorities in favour of the highest, and
equally between the lanes of one priority. A lane stops at its demand or when a place on its way is full, and what
it leaves goes to its nearest relatives first. Found by progressive filling (Bertsekas and Gallager, Data Networks,
2nd ed., section 6.5.2) with fractional slots: all levels rise together until something is full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FULL: Final = 1e-9
"""Relative room that counts as none."""
TOP: Final = 10.0
"""The highest priority of an activity gets so many slots for each one of a lower priority, as the scheduler
passes over these at most so often."""
PACE: Final = 0.1
"""In one round the level rises at most by this part, or to the next stop: rounds grow with the logarithm of
what there is to give, not with the number of lanes that stop on the way."""
LANES_PER_PACE: Final = 1000.0
"""With so many lanes open the level may double in one round: coarser, and in time."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one lane sits: indices into `Tree`, and the places that it takes a slot of."""

    activity: int
    priority: int
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """Who divides with whom, by index.

    Attributes:
        vos: of each VO at a destination: (destination, weight).
        activities: of each activity: (VO, weight).
    """

    vos: Sequence[tuple[int, float]]
    activities: Sequence[tuple[int, float]]


class Filling:
    """Divides slots again and again among subsets of the same lanes."""

    def __init__(self, tree: Tree, seats: Sequence[Seat]) -> None:
        self._tree = tree
        self._places = [seat.places for seat in seats]
        self._tiers: list[tuple[int, int]] = []
        """(activity, priority)"""
        self._tier_of: list[int] = []
        known: dict[tuple[int, int], int] = {}
        for seat in seats:
            tier = known.setdefault((seat.activity, seat.priority), len(known))
            if tier == len(self._tiers):
                self._tiers.append((seat.activity, seat.priority))
            self._tier_of.append(tier)
        self.visits = 0
        """Lanes looked at so far: what it has cost."""

    def fill(self, lanes: Sequence[int], demand: Sequence[float], room: list[float]) -> list[float]:
        """Slots of each lane, 0 for those not in `lanes`.

        Args: demand: most slots that each lane can use.  room: of each place; what is given out is taken off.
        """
        slots = [0.0] * len(self._places)
        limit = [value * FULL + FULL for value in room]
        places = self._places
        full = _full(room, limit)
        waiting = [lane for lane in lanes if demand[lane] > FULL and full.isdisjoint(places[lane])]
        level = 0.0
        while waiting:
            self.visits += len(waiting)
            rates = self._rates(waiting)
            steps = self._steps(waiting, rates, (demand, slots, room))
            pace = max(_first_stop(steps), level * (PACE + len(waiting) / LANES_PER_PACE))
            level += pace
            for lane, rate, step in zip(waiting, rates, steps, strict=True):
                given = rate * min(step, pace)
                slots[lane] += given
                for place in places[lane]:
                    room[place] -= given
            full = _full(room, limit)
            waiting = [
                lane
                for lane in waiting
                if full.isdisjoint(places[lane]) and demand[lane] - slots[lane] > FULL * demand[lane]
            ]
        return slots

    def _steps(
        self, lanes: Sequence[int], rates: Sequence[float], now: tuple[Sequence[float], Sequence[float], list[float]]
    ) -> list[float]:
        """By how much the level can rise until each lane stops."""
        demand, slots, room = now
        places = self._places
        growth = [0.0] * len(room)
        for lane, rate in zip(lanes, rates, strict=True):
            for place in places[lane]:
                growth[place] += rate
        reach = [left / rise if rise else math.inf for left, rise in zip(room, growth, strict=True)]
        at = reach.__getitem__
        return [
            min((demand[lane] - slots[lane]) / rate, min(map(at, places[lane]), default=math.inf))
            for lane, rate in zip(lanes, rates, strict=True)
        ]

    def _rates(self, lanes: Sequence[int]) -> list[float]:
        """What each lane gets of one slot for each destination."""
        tiers: dict[int, int] = {}
        for lane in lanes:
            tier = self._tier_of[lane]
            tiers[tier] = tiers.get(tier, 0) + 1
        top: dict[int, int] = {}
        n_tiers: dict[int, int] = {}
        for tier in tiers:
            activity, priority = self._tiers[tier]
            top[activity] = max(priority, top.get(activity, priority))
            n_tiers[activity] = n_tiers.get(activity, 0) + 1
        of_vo: dict[int, float] = {}
        for activity in top:
            vo, weight = self._tree.activities[activity]
            of_vo[vo] = of_vo.get(vo, 0.0) + weight
        of_site: dict[int, float] = {}
        for vo in of_vo:
            site, weight = self._tree.vos[vo]
            of_site[site] = of_site.get(site, 0.0) + weight
        rate_of: dict[int, float] = {}
        for tier, n in tiers.items():
            activity, priority = self._tiers[tier]
            vo, weight = self._tree.activities[activity]
            site, vo_weight = self._tree.vos[vo]
            part = TOP if priority == top[activity] else 1.0
            part /= TOP + n_tiers[activity] - 1
            rate_of[tier] = vo_weight / of_site[site] * weight / of_vo[vo] * part / n
        return [rate_of[self._tier_of[lane]] for lane in lanes]


def _first_stop(steps: Sequence[float]) -> float:
    """By how much the level may rise: exactly to where the first lane stops, unless there are very many."""
    return min(steps) if len(steps) < LANES_PER_PACE else sorted(steps)[len(steps) // 4]


def _full(room: Sequence[float], limit: Sequence[float]) -> set[int]:
    return {place for place, (left, least) in enumerate(zip(room, limit, strict=True)) if left <= least}
