"""Who is next: the one that has had least for its weight, and holds least for it now. Pure.

A share is a claim on the slots of a destination while others want them too; nobody's share is kept
free. The currency is the slot-second. Each sharer has an account of what it was served, per unit of
weight, and the next slot goes to the one whose account will be lowest after what it holds now has
ended: `served/weight + horizon · (held + ½) / weight`, where the horizon is how long a transfer there
lasts. With equal accounts that is Webster's method on the slots held, so that these stand in the
ratio of the weights to within one transfer; what rounding takes from a sharer its account remembers,
and over time each gets its share exactly, also one whose share is less than one slot.

Somebody who had nothing to send, or could not, gets no credit for it: who comes back starts level with
the one that is furthest behind (start-time fair queueing; Goyal, Vin and Cheng 1996).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from transfer_engine.config import Shares

EVERYWHERE: Final = ("*", "*")


def level(weights: Mapping[str, float]) -> dict[str, float]:
    """Scaled to a mean of 1: a link whose shares are written in per cent does not outweigh one in units."""
    mean = sum(weights.values()) / max(len(weights), 1) or 1.0
    return {vo: weight / mean for vo, weight in weights.items()}


@dataclass(frozen=True, slots=True)
class ShareTable:
    """The configured weights."""

    vos: Mapping[str, float]
    activities: Mapping[str, Mapping[str, float]]
    default: float
    links: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)
    """(source or `*`, destination or `*`) → VO → weight: FTS's shares of a link; `public` is anybody else."""

    @classmethod
    def of(cls, shares: Shares) -> ShareTable:
        """From settings."""
        return cls(
            vos=dict(shares.vos),
            activities={vo: dict(a) for vo, a in shares.activities.items()},
            default=shares.default,
            links={(row.source.lower(), row.destination.lower()): level(row.vos) for row in shares.links},
        )

    def group(self, source_se: str, dest_se: str) -> tuple[str, str]:
        """Which row of `links` the VOs of a link are weighed by: the most specific; (`*`, `*`) without any."""
        if self.links:
            for key in ((source_se, dest_se), ("*", dest_se), (source_se, "*")):
                if key in self.links:
                    return key
        return EVERYWHERE

    def of_vo(self, vo: str, group: tuple[str, str] = EVERYWHERE) -> float:
        """Weight of a VO, by the row of its link; `public` is FTS's name for whoever is not named."""
        weights = self.links.get(group, self.vos)
        return weights.get(vo, weights.get("public", self.default))

    def of_activity(self, vo: str, activity: str) -> float:
        """Weight of an activity inside its VO; FTS's name for the rest is `default`."""
        weights = self.activities.get(vo, {})
        return weights.get(activity, weights.get("default", self.default))


class Account:
    """What one sharer was served, in slot-seconds per unit of weight, and what it holds."""

    __slots__ = ("at", "held", "served", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.served = 0.0
        """Until `at`."""
        self.at = 0.0
        self.held = 0

    def change(self, n: int, now: float) -> None:
        """Take or give back slots."""
        if self.held:
            self.served += self.held * (now - self.at) / self.weight
        self.at = now
        self.held += n

    def reweigh(self, weight: float, now: float) -> None:
        """From now on its slots count by another weight; what it was served stays as it was counted."""
        self.change(0, now)
        self.weight = weight

    def until(self, now: float) -> float:
        """Served per weight until now."""
        return self.served + self.held * (now - self.at) / self.weight if self.held else self.served

    def join(self, level: float, now: float) -> None:
        """Come back to compete, with no credit from before."""
        behind = level - self.until(now)
        if behind > 0:
            self.served += behind
