"""Who is next: the one that has least for its weight. Pure.

A share is a claim on the slots of a destination while others want them too; nobody's share is kept
free. The VO with the fewest running transfers per unit of weight is served next, inside it the
activity by the same rule: with everybody waiting, running transfers stand in the ratio of the
weights, to within one transfer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from transfer_engine.config import Shares


@dataclass(frozen=True, slots=True)
class ShareTable:
    """The configured weights."""

    vos: Mapping[str, float]
    activities: Mapping[str, Mapping[str, float]]
    default: float

    @classmethod
    def of(cls, shares: Shares) -> ShareTable:
        """From settings."""
        return cls(
            vos=dict(shares.vos),
            activities={vo: dict(a) for vo, a in shares.activities.items()},
            default=shares.default,
        )

    def of_vo(self, vo: str) -> float:
        """Weight of a VO."""
        return self.vos.get(vo, self.default)

    def of_activity(self, vo: str, activity: str) -> float:
        """Weight of an activity inside its VO; FTS's name for the rest is `default`."""
        weights = self.activities.get(vo, {})
        return weights.get(activity, weights.get("default", self.default))


def least_served(candidates: Iterable[tuple[str, int, float]]) -> str:
    """The name with the least per weight; candidates are (name, running, weight), at least one.

    Half of the next transfer is counted in (Webster's method): with nothing running the heaviest comes
    first, and rounding favours neither the heavy nor the light. Names decide between equals, so that
    equal input gives equal output.
    """
    return min(candidates, key=lambda c: ((c[1] + 0.5) / c[2], c[0]))[0]
