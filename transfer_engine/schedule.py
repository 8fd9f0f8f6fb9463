"""Decide what starts now. Pure: counts, limits and shares in, claims and reasons out.

For each destination with room the next slot goes to the VO, then the activity, then the queue that
has least for its share. Destinations take turns, so that a source that many of them read from is
shared between them. A queue that cannot start for whatever reason is passed over and never holds
back another one. Nothing that may run is left waiting while a slot is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from transfer_engine.limits import Active, LimitTable, room
from transfer_engine.model import Claim, Link, Queue
from transfer_engine.shares import ShareTable, least_served

CLAIMS_MAX: Final = 1000
"""Most transfers that one decision starts: bounds how long the next one waits for its commit."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One queue with ready transfers."""

    queue: Queue
    link: Link
    by_priority: Mapping[int, int]
    """Priority → ready transfers, all positive."""
    served_at: int = 0
    """Number of the decision that last served it: the one served longest ago goes first."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What starts, and why the rest does not."""

    claims: tuple[Claim, ...]
    reasons: Mapping[int, str]
    """Queue id → the limit that it waits for, for queues that still have ready transfers."""


@dataclass(slots=True)
class _Lane:
    """A queue during one decision."""

    waiting: Waiting
    left: dict[int, int]
    taken: dict[int, int] = field(default_factory=dict)

    def take(self) -> None:
        priority = max(self.left)
        self.left[priority] -= 1
        if not self.left[priority]:
            del self.left[priority]
        self.taken[priority] = self.taken.get(priority, 0) + 1


def decide(waiting: Sequence[Waiting], active: Active, limits: LimitTable, shares: ShareTable) -> Decision:
    """Which transfers to claim; at most `CLAIMS_MAX`, never beyond a limit."""
    counts = active.copy()
    reasons: dict[int, str] = {}
    lanes: dict[str, list[_Lane]] = {}
    for entry in waiting:
        lanes.setdefault(entry.link.dest_se, []).append(_Lane(entry, dict(entry.by_priority)))
    every = [lane for group in lanes.values() for lane in group]
    n_claimed = 0
    turns = sorted(lanes)
    while turns and n_claimed < CLAIMS_MAX:
        still = []
        for dest_se in turns:
            open_lanes = _admissible(lanes[dest_se], counts, limits, reasons)
            lanes[dest_se] = open_lanes
            if not open_lanes:
                continue
            lane = _next(open_lanes, counts, shares)
            lane.take()
            queue = lane.waiting.queue
            counts.add(lane.waiting.link, queue.vo, queue.activity, 1)
            n_claimed += 1
            still.append(dest_se)
        turns = still
    claims = [
        Claim(lane.waiting.queue.id, priority, n)
        for lane in every
        for priority, n in sorted(lane.taken.items(), reverse=True)
    ]
    left = {lane.waiting.queue.id for lane in every if lane.left}
    return Decision(tuple(claims), {queue_id: why for queue_id, why in reasons.items() if queue_id in left})


def _admissible(lanes: Sequence[_Lane], counts: Active, limits: LimitTable, reasons: dict[int, str]) -> list[_Lane]:
    """The lanes that can start one more; counts only grow within a decision, so the others are out for good."""
    kept = []
    for lane in lanes:
        if not lane.left:
            continue
        free, why = room(limits, counts, lane.waiting.link)
        if free > 0:
            kept.append(lane)
        else:
            reasons[lane.waiting.queue.id] = why
    return kept


def _next(lanes: Sequence[_Lane], counts: Active, shares: ShareTable) -> _Lane:
    dest_se = lanes[0].waiting.link.dest_se
    vos = {lane.waiting.queue.vo for lane in lanes}
    vo = least_served((v, counts.vos.get((dest_se, v), 0), shares.of_vo(v)) for v in vos)
    of_vo = [lane for lane in lanes if lane.waiting.queue.vo == vo]
    activities = {lane.waiting.queue.activity for lane in of_vo}
    activity = least_served(
        (a, counts.activities.get((dest_se, vo, a), 0), shares.of_activity(vo, a)) for a in activities
    )
    candidates = [lane for lane in of_vo if lane.waiting.queue.activity == activity]
    return min(
        candidates,
        key=lambda lane: (
            -max(lane.left),
            sum(lane.taken.values()) + counts.links.get(lane.waiting.link, 0),
            lane.waiting.served_at,
            lane.waiting.queue.id,
        ),
    )
