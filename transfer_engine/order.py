"""Who stands before whom, in words: whose share, which priority. Pure."""

from __future__ import annotations

from transfer_engine.lanes import ActivityNode, Lane, Level, VoNode
from transfer_engine.reasons import Reason, Why


def reasons(lane: Lane) -> list[Reason]:
    """Why others of the same destination are served before this lane, by VO, activity and priority."""
    level = lane.level
    activity = level.activity
    vo = activity.vo
    found = []
    ahead = _ahead(vo, list(lane.site.vos.values()))
    if ahead is not None:
        found.append(_share(vo, ahead, f"into {lane.site.name}"))
    ahead_activity = _ahead(activity, list(vo.activities.values()))
    if ahead_activity is not None:
        found.append(_share(activity, ahead_activity, f"of {vo.name} into {lane.site.name}"))
    above = [other for other in activity.levels.values() if other.n_open and other.priority > level.priority]
    if above:
        found.append(_priority(level, above))
    return found


def _ahead(node: VoNode | ActivityNode, all_of_them: list[VoNode] | list[ActivityNode]) -> list[str] | None:
    """Those who compete with `node` when it holds at least its share; None: it has less, and is served first."""
    rivals = [other for other in all_of_them if other is not node and other.n_open]
    if not rivals:
        return None
    weight = node.account.weight + sum(other.account.weight for other in rivals)
    held = node.account.held + sum(other.account.held for other in rivals)
    if node.account.held < held * node.account.weight / weight:
        return None
    return sorted({other.name for other in rivals})


def _share(node: VoNode | ActivityNode, rivals: list[str], where: str) -> Reason:
    what = "activity " if isinstance(node, ActivityNode) else ""
    others = ", ".join(rivals[:5]) + (f" and {len(rivals) - 5} more" if len(rivals) > 5 else "")  # noqa: PLR2004
    return Reason(
        code=Why.SHARE,
        text=(
            f"{what}{node.name} has its share {where} ({node.account.held} running, "
            f"weight {node.account.weight:g}); {others} want slots too"
        ),
        subject=node.name,
        used=node.account.held,
    )


def _priority(level: Level, above: list[Level]) -> Reason:
    first = max(above, key=lambda other: other.priority)
    return Reason(
        code=Why.PRIORITY,
        text=(
            f"transfers of priority {first.priority} in activity {level.activity.name} are served before "
            f"those of priority {level.priority}"
        ),
        subject=level.activity.name,
    )
