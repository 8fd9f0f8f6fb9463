"""Mistakes in decisions: limits, rooms, lanes, shares, order, turns, schedule, board. Each is planted alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from transfer_engine import board, lanes, order, schedule
from transfer_engine.board import Board
from transfer_engine.lanes import ActivityNode, Lane, Site
from transfer_engine.limits import NODE, UNLIMITED, LimitTable
from transfer_engine.places import Place
from transfer_engine.rooms import Band, Room
from transfer_engine.schedule import Scheduler
from transfer_engine.shares import Account, ShareTable
from transfer_engine.turns import Turns

Plant = Callable[[pytest.MonkeyPatch], None]


def instead(owner: Any, name: str, wrong: Callable[..., Any]) -> Plant:
    """`wrong` takes the right function first, then its arguments."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **more: wrong(right, *args, **more))

    return plant


def never(owner: Any, name: str) -> Plant:
    """It is forgotten."""
    return instead(owner, name, lambda *_, **__: None)


# Limits and rooms


def _unlimited(*kinds: str) -> Plant:
    return instead(
        LimitTable, "at", lambda right, self, place: UNLIMITED if place.kind in kinds else right(self, place)
    )


def _swapped(right: Any, self: LimitTable, place: Place) -> int:
    other = {"in": "out", "out": "in"}.get(place.kind, place.kind)
    return int(right(self, place._replace(kind=other)))


def _node_off_by_one(right: Any, self: Scheduler, limits: LimitTable, shares: ShareTable) -> None:
    right(self, limits, shares)
    self.node._configured = self.node.limit = limits.node + 1


def _bound_by_last(right: Any, self: Room) -> None:
    right(self)
    for cap in self._caps.values():
        self.limit = min(cap.limit, self._configured)


def _bound_by_cap_alone(right: Any, self: Room) -> None:
    right(self)
    self.limit = min((cap.limit for cap in self._caps.values()), default=self._configured)


def _only_lower(right: Any, self: Room) -> None:
    before = self.limit
    right(self)
    self.limit = min(self.limit, before)


def _full_off_by_one(_right: Any, self: Lane) -> Room | None:
    return next((room for room in self.rooms[1:-1] if room.used > room.limit), None)


def _full_without_link(right: Any, self: Lane) -> Any:
    room = right(self)
    return None if room is self.rooms[2] else room


def _served_most_first(right: Any, self: Room, below: float = math.inf) -> Any:
    able = [site for site in self.parked if site.room.used < site.room.limit and self.keys[site] < below]
    return max(able, key=lambda site: self.keys[site], default=right(self, below))


def _out_of_line(_right: Any, self: Room, lane: Lane) -> None:
    lane.parked_in = self
    self.parked.setdefault(lane.site, []).append(lane)
    self.keys.setdefault(lane.site, 0.0)


LIMITS: dict[str, Plant] = {
    "link limit ignored": _unlimited("link"),
    "limits of a VO ignored": _unlimited("vo-in", "vo-out"),
    "inbound and outbound swapped": instead(LimitTable, "at", _swapped),
    "node limit off by one": instead(Scheduler, "__init__", _node_off_by_one),
    "the last cap holds, not the least": instead(Room, "_bound", _bound_by_last),
    "a cap replaces the configured limit": instead(Room, "_bound", _bound_by_cap_alone),
    "a cap is not lowered": instead(Room, "_bound", lambda right, self: None if self._caps else right(self)),
    "a lifted cap stays": instead(Room, "_bound", _only_lower),
    "full is one too many": instead(Lane, "full", _full_off_by_one),
    "a full link is overlooked": instead(Lane, "full", _full_without_link),
    "a slot goes to who had most": instead(Room, "next", _served_most_first),
    "who waits is not put in line": instead(Room, "park", _out_of_line),
    "what is served at a source is not noted": never(Room, "served"),
    "bandwidth is not reserved": never(Band, "take"),
    "bandwidth is not given back": never(Band, "give_back"),
    "bandwidth is given back twice": instead(
        Band, "give_back", lambda right, self, n: (right(self, n), right(self, n))
    ),
    "the next copy's own bandwidth is forgotten": instead(Band, "holds", lambda right, self, _n: right(self, 0.0)),
    "nobody wakes who waits for bandwidth": instead(Band, "wake", lambda _right, _self: []),
}


# Shares, lanes, order


def _inverted(right: Any, self: ShareTable, *names: Any) -> float:
    return 1.0 / float(right(self, *names))


def _by_slots_alone(_right: Any, nodes: Any, _now: float, _horizon_s: float, clock: float) -> Any:
    return min((n for n in nodes if n.n_open), key=lambda n: (n.account.held + 0.5) / n.account.weight), clock


def _by_account_alone(right: Any, nodes: Any, now: float, _horizon_s: float, clock: float) -> Any:
    return right(nodes, now, 0.0, clock)


def _charged_to_another(_right: Any, self: Scheduler, lane: Lane, now: float, bytes_s: float) -> None:
    for room in lane.rooms:
        room.used += 1
    for band in lane.bands:
        band.take(bytes_s)
    lane.level.activity.account.change(1, now)
    max(lane.site.vos.values(), key=lambda vo: vo.name).account.change(1, now)


def _nothing_served(right: Any, self: Account, n: int, now: float) -> None:
    self.at = now
    right(self, n, now)


def _never_reset(_right: Any, self: ActivityNode, chosen: Any) -> None:
    for level in self.levels.values():
        if level.n_open or level is chosen:
            level.passed_over += 1


def _pushed_twice(right: Any, self: Site, lane: Lane) -> None:
    right(self, lane)
    lane.stamp -= 1
    right(self, lane)


def _not_closed(right: Any, self: Site, lane: Lane) -> None:
    if lane.open:
        right(self, lane)
        lane.level.n_open += 1


ORDER: dict[str, Plant] = {
    "weights of VOs inverted": instead(ShareTable, "of_vo", _inverted),
    "weights of activities inverted": instead(ShareTable, "of_activity", _inverted),
    "all VOs weigh the same": instead(ShareTable, "of_vo", lambda *_: 1.0),
    "public is nobody": instead(
        ShareTable, "of_vo", lambda _right, self, vo, group=("*", "*"): self.links.get(group, self.vos).get(vo, 1.0)
    ),
    "shares of links ignored": instead(ShareTable, "group", lambda *_: ("*", "*")),
    "what was served is forgotten": instead(Account, "change", _nothing_served),
    "who comes back has credit": never(Account, "join"),
    "VOs served by the slots they hold alone": instead(lanes, "_least", _by_slots_alone),
    "VOs served by their accounts alone": instead(lanes, "_least", _by_account_alone),
    "slots charged to another VO": instead(Scheduler, "_take", _charged_to_another),
    "priorities inverted": instead(lanes, "_before", lambda right, one, other: right(other, one)),
    "a lower priority never has its turn": never(ActivityNode, "served"),
    "the count of turns is never reset": instead(ActivityNode, "served", _never_reset),
    "void entries of the order are believed": instead(Site, "push", _pushed_twice),
    "open lanes are not counted": instead(Site, "close", _not_closed),
    "the reason is silent about priorities": instead(
        order, "reasons", lambda right, lane: [reason for reason in right(lane) if reason.code != "priority"]
    ),
    "the reason is silent about shares": instead(
        order, "reasons", lambda right, lane: [reason for reason in right(lane) if reason.code != "share"]
    ),
}


# Turns, decisions, the board


def _slots_kept(right: Any, self: Scheduler, lane: Lane, n: int, now: float, bytes_s: float = 0.0) -> Any:
    for _ in range(n):
        self.hold(lane.queue, lane.priority, now, bytes_s)
    return right(self, lane, n, now, bytes_s)


def _counted_twice(right: Any, self: Scheduler, lane: Lane, n: int, now: float, bytes_s: float = 0.0) -> Any:
    right(self, lane, n, now, bytes_s)
    if lane.n_ready < n:
        self._pend(lane, n)


def _forgotten_with_its_claim(right: Any, self: Scheduler) -> None:
    right(self)
    for key, lane in list(self.lanes.items()):
        if not lane.n_ready and lane.parked_in is None:
            del self.lanes[key]


def _always_more(right: Any, self: Scheduler, queue: Any, priority: int, n: int, n_bytes: int, now: float) -> Any:
    return right(self, queue, priority, abs(n), n_bytes, now)


def _tidied_too_well(right: Any, self: Scheduler) -> None:
    right(self)
    for key, lane in list(self.lanes.items()):
        if lane.blocked:
            del self.lanes[key]


def _not_held(right: Any, self: Scheduler, queue: Any, priority: int, now: float, bytes_s: float = 0.0) -> None:
    right(self, queue, priority, now, bytes_s)
    self.rooms[NODE].used -= 1


def _link_not_released(right: Any, self: Scheduler, queue: Any, *rest: Any) -> None:
    right(self, queue, *rest)
    self.lane(queue, rest[0]).rooms[2].used += 1


def _no_offer_at_end(right: Any, self: Scheduler, site: Site) -> None:
    if site.room.used + 1 != site.room.limit:
        right(self, site)


def _too_many(right: Any, self: Scheduler, now: float, n_max: int = schedule.CLAIMS_MAX) -> Any:
    return right(self, now, n_max + 1)


def _bytes_kept(right: Any, self: Scheduler, queue: Any, priority: int, now: float, _bytes_s: float = 0.0) -> None:
    right(self, queue, priority, now, 0.0)


SCHEDULE: dict[str, Plant] = {
    "slots of a failed claim are not given back": instead(Scheduler, "returned", _slots_kept),
    "what was cancelled during a claim is counted again": instead(Scheduler, "returned", _counted_twice),
    "a lane forgotten during its claim takes its transfers along": instead(
        Scheduler, "tidy", _forgotten_with_its_claim
    ),
    "a cancellation adds": instead(Scheduler, "ready", _always_more),
    "blocked lanes are tidied away": instead(Scheduler, "tidy", _tidied_too_well),
    "found transfers do not count on the node": instead(Scheduler, "hold", _not_held),
    "the link's slot is kept": instead(Scheduler, "release", _link_not_released),
    "a destination with one free slot is not looked at": instead(Scheduler, "_offer", _no_offer_at_end),
    "decisions have no bound": instead(Scheduler, "decide", _too_many),
    "blocked lanes are claimed again at once": never(Scheduler, "block"),
    "blocked lanes stay blocked": never(Scheduler, "unblock"),
    "a wider limit wakes nobody": never(Scheduler, "_roomier"),
    "a freed slot wakes nobody": never(Turns, "freed"),
    "a freed destination wakes nobody": never(Turns, "has_room"),
    "nothing is kept for who is full at both ends": instead(Turns, "_keep", lambda *_: False),
    "what is kept for a closed destination stays kept": never(Turns, "withdraw"),
    "a promise has no end": never(Turns, "expire"),
    "nobody else's turn is respected": never(Turns, "owed"),
    "reserved bytes are not given back": instead(Scheduler, "release", _bytes_kept),
    "another scheme is another host": instead(board, "_host", lambda _right, se: se),
    "what ends during a claim wakes nobody": instead(
        Board, "release", lambda right, self, *args: (right(self, *args), self._freed.clear())
    ),
    "an end wakes no blocked lane": never(Board, "_unblock"),
    "claims without an answer are forgotten": never(Board, "unclaimed"),
}

PLANTED: dict[str, Plant] = {**LIMITS, **ORDER, **SCHEDULE}
