"""Who stands before whom, in words: whose share, which priority, which destination. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from transfer_engine.lanes import PASSED_OVER_MAX, ActivityNode, Lane, Level, VoNode
from transfer_engine.reasons import Reason, Why
from transfer_engine.rooms import Room

T = TypeVar("T")

NAMED_MAX: Final = 5
"""Rivals that are named; of the others their number is said."""


def reasons(lane: Lane) -> list[Reason]:
    """Why others are served before this lane: by destination, VO, activity and priority.

    Only those are rivals who wait for the same slots: for the destination's own, or for those of the room
    that the lane waits in.
    """
    waits_in = lane.parked_in if isinstance(lane.parked_in, Room) else None
    found = [] if waits_in is None else _other_destinations(lane, waits_in)
    rivals = _rivals(lane, waits_in)
    if rivals is None:
        return found
    if lane.open and lane.site.filled and len(lane.site.vos) > 1 and lane.level.activity.vo.account.held:
        found.append(_filled(lane))
    vo, activity = lane.level.activity.vo, lane.level.activity
    where = f"into {lane.site.name}"
    shares = _share(vo, rivals.vos, where), _share(activity, rivals.activities, f"of {vo.name} {where}")
    found += [reason for reason in shares if reason is not None]
    above = [level for level in rivals.levels if level.priority > lane.priority]
    if above:
        found.append(_priority(lane.level, above))
    return found


def _filled(lane: Lane) -> Reason:
    vo, site = lane.level.activity.vo, lane.site
    return Reason(
        code=Why.SHARE,
        text=(
            f"{site.name} moves all that it can, so {vo.name} gets no more than its share of the slots "
            f"({vo.account.held} running): more would bring nothing and be missing when others come"
        ),
        subject=vo.name,
        used=vo.account.held,
    )


@dataclass(frozen=True, slots=True)
class _Rivals:
    """Who waits for the same slots, beside the lane's own VO, activity and level."""

    vos: Sequence[VoNode]
    activities: Sequence[ActivityNode]
    levels: Sequence[Level]


def _rivals(lane: Lane, waits_in: Room | None) -> _Rivals | None:
    """None: the lane waits for no slot that its destination gives out."""
    level = lane.level
    activity = level.activity
    vo = activity.vo
    if waits_in is not None:
        levels = _distinct(other.level for other in waits_in.parked.get(lane.site, ()) if _waits(other))
        activities = _distinct(other.activity for other in levels)
        return _Rivals(
            [other for other in _distinct(one.vo for one in activities) if other is not vo],
            [other for other in activities if other.vo is vo and other is not activity],
            [other for other in levels if other.activity is activity and other is not level],
        )
    if not lane.open:
        return None
    return _Rivals(
        [other for other in lane.site.vos.values() if other.n_open and other is not vo],
        [other for other in vo.activities.values() if other.n_open and other is not activity],
        [other for other in activity.levels.values() if other.n_open and other is not level],
    )


def _waits(lane: Lane) -> bool:
    return lane.n_ready > 0 and not lane.blocked


def _distinct(items: Iterable[T]) -> list[T]:
    return list({id(item): item for item in items}.values())


def _other_destinations(lane: Lane, room: Room) -> list[Reason]:
    """Transfers to other destinations that have had less of the room where the lane waits."""
    own = room.key(lane.site)
    kept_for = room.promised if room.promised is not lane.site else None
    ahead = [
        site
        for site, lanes in room.parked.items()
        if site is not lane.site and room.keys[site] < own and any(map(_waits, lanes))
    ]
    if kept_for is not None:
        text = f"a slot {_of(room)} is kept for transfers to {kept_for.name}, which have waited for it longer"
        return [Reason(code=Why.SHARE, text=text, subject=kept_for.name)]
    if not ahead:
        return []
    ahead.sort(key=lambda site: (room.keys[site], site.name))
    names = _names([site.name for site in ahead])
    return [
        Reason(
            code=Why.SHARE,
            text=f"transfers to {names} have had less {_of(room)}, and get the next slots there",
            subject=ahead[0].name,
        )
    ]


def _of(room: Room) -> str:
    return f"on the link {room.place}" if room.place.kind == "link" else str(room.place)


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _share(node: VoNode | ActivityNode, rivals: Sequence[VoNode] | Sequence[ActivityNode], where: str) -> Reason | None:
    """Those who compete with `node`, when it holds at least its share; None: it has less, and is served first."""
    if not rivals:
        return None
    weights = node.account.weight + sum(other.account.weight for other in rivals)
    held = node.account.held + sum(other.account.held for other in rivals)
    part = node.account.weight / weights
    if not node.account.held or node.account.held < held * part:
        return None
    what = "activity " if isinstance(node, ActivityNode) else ""
    names = sorted({other.name for other in rivals})
    wait = "waits" if len(names) == 1 else "wait"
    return Reason(
        code=Why.SHARE,
        text=(
            f"{what}{node.name} has {node.account.held} of {held} slots in use {where}, and by its weight "
            f"({node.account.weight:g} of {weights:g}) a share of {held * part:.3g}; {_names(names)} {wait} too"
        ),
        subject=node.name,
        used=node.account.held,
        limit=round(held * part, 2),
    )


def _priority(level: Level, above: Sequence[Level]) -> Reason:
    first = max(above, key=lambda other: other.priority)
    return Reason(
        code=Why.PRIORITY,
        text=(
            f"transfers of priority {first.priority} in activity {level.activity.name} are served before those of "
            f"priority {level.priority}, which get every {PASSED_OVER_MAX + 1}th turn"
        ),
        subject=level.activity.name,
    )
