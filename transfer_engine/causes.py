"""What keeps transfers back: everything that binds, as reasons, what lasts longest by itself first.

Limits, shares and priorities the scheduler knows. Bans, breakers, pauses and a drain are asked where they are
decided: also for a transfer that no lane stands for just now, as one that waits for its retry, and with
the numbers and instants of this moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from transfer_engine.lanes import Lane
from transfer_engine.limits import NODE
from transfer_engine.places import Cap, Link, Place
from transfer_engine.queueing import LaneName, lane_name
from transfer_engine.reasons import Reason, Why
from transfer_engine.schedule import LaneKey, Scheduler
from transfer_engine.views import FileView

RANK: Final = {
    why: rank
    for rank, why in enumerate(
        (
            Why.ENDED,
            Why.STORE,
            Why.BAN,
            Why.HELD,
            Why.DRAINING,
            Why.PAUSE,
            Why.BREAKER,
            Why.RETRY,
            Why.HOP,
            Why.REPLICA,
            Why.DESTINATION,
            Why.TOKEN,
            Why.STAGING,
            Why.LIMIT,
            Why.BANDWIDTH,
            Why.OPTIMIZER,
            Why.SHARE,
            Why.PRIORITY,
            Why.TURN,
            Why.PROBING,
            Why.CANCELING,
            Why.RUNNING,
            Why.IDLE,
        )
    )
}
"""What is said first when several things keep a transfer back: orders and trouble, its own state, limits, turns."""

BARRING: Final = frozenset({Why.BAN, Why.DRAINING, Why.PAUSE, Why.BREAKER})
"""What concerns also those who do not stand in a queue now."""
ORDERED: Final = frozenset({"order", "health"})
"""Owners of caps that are asked anew."""


def ranked(reasons: Iterable[Reason]) -> list[Reason]:
    """The main one first. Of a ban and a retry the one that lasts longer, of equals the narrower limit."""
    found = list(dict.fromkeys(reasons))
    retry = next((reason for reason in found if reason.code is Why.RETRY), None)
    at = math.inf if retry is None or retry.until is None else retry.until

    def rank(reason: Reason) -> tuple[float, float]:
        over = retry is not None and reason.code in {Why.BAN, Why.PAUSE, Why.BREAKER} and _end(reason) < at
        order = RANK[Why.RETRY] if over else RANK[reason.code]
        return order + (0.5 if over else 0.0), -_end(reason)

    return sorted(found, key=rank)


def _end(reason: Reason) -> float:
    return math.inf if reason.until is None else reason.until


def places_of(link: Link, vo: str) -> tuple[Place, ...]:
    """Everything that a transfer takes a slot of."""
    return (
        Place("in", link.dest_se),
        Place("out", link.source_se),
        Place("link", link.source_se, link.dest_se),
        Place("vo-in", link.dest_se, vo),
        Place("vo-out", link.source_se, vo),
        NODE,
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """How many ready transfers one reason is the main one for."""

    reason: Reason
    n: int


class Causes:
    """One look at everything that binds; what was asked is not asked twice. Not to be kept."""

    def __init__(self, scheduler: Scheduler, general: Sequence[Reason] = ()) -> None:
        """`general`: what keeps everything back."""
        self._scheduler = scheduler
        self._general = general
        self._barred: dict[Place, list[Reason]] = {}
        self._lanes: dict[LaneName, tuple[LaneKey, Lane]] | None = None
        self._first_caps: Callable[[Place], Iterable[tuple[str, Cap]]] = scheduler.first_caps

    def lane_of(self, view: FileView) -> tuple[LaneKey, Lane] | None:
        """The lane of a transfer that waits; None: nothing is counted there now."""
        if self._lanes is None:
            self._lanes = {}
            for key, lane in self._scheduler.lanes.items():
                queue = lane.queue
                ends = queue.source_se, queue.dest_se
                self._lanes[*ends, queue.vo, queue.activity, queue.size_class, lane.priority] = key, lane
        return self._lanes.get(lane_name(view))

    def barring(self, place: Place) -> list[Reason]:
        """Bans, breakers, pauses and drain that let nothing more into a place."""
        found = self._barred.get(place)
        if found is None:
            room = self._scheduler.rooms.get(place)
            used = 0 if room is None else room.used
            found = self._barred[place] = [
                replace(cap.reason, used=used, limit=cap.limit)
                for owner, cap in self._first_caps(place)
                if owner in ORDERED and used >= cap.limit
            ]
        return found

    def of_route(self, link: Link, vo: str) -> list[Reason]:
        """What bars a transfer, whatever its own state."""
        found = [reason for place in places_of(link, vo) for reason in self.barring(place)]
        return ranked([*self._general, *found])

    def of_lane(self, lane: Lane) -> list[Reason]:
        """What keeps a lane's transfers back; empty: they are about to start."""
        if lane.n_ready <= 0:
            return []
        own = self._scheduler.reasons(lane.queue, lane.priority)
        limits = [reason for reason in own if reason.code not in BARRING]
        return ranked([*self.of_route(lane.link, lane.queue.vo), *limits])

    def of_places(self, places: Sequence[Place], lanes: Iterable[Lane]) -> list[Kept]:
        """What keeps back those who wait for some places: what bars the places first, then by how many wait for it.

        Lanes that are about to start are not counted.
        """
        found: dict[tuple[Why, str], Kept] = {}
        for reason in ranked(reason for place in places for reason in self.barring(place)):
            found.setdefault((reason.code, reason.subject), Kept(reason, 0))
        own = set(found)
        for reason in self._general:
            found[reason.code, reason.subject] = Kept(reason, 0)
        for lane in lanes:
            for reason in self.of_lane(lane)[:1]:
                key = (reason.code, reason.subject)
                kept = found.get(key)
                found[key] = Kept(kept.reason if kept else reason, (kept.n if kept else 0) + lane.n_ready)
        return sorted(
            found.values(),
            key=lambda kept: (
                (kept.reason.code, kept.reason.subject) not in own,
                -kept.n,
                RANK[kept.reason.code],
                kept.reason.subject,
            ),
        )
