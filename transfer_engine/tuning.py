"""The figures of the search for the best number of copies, and its decisions as data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from transfer_engine.places import Place

RISE: Final = 0.25
"""Part of a proportional gain that shows, before those who began earlier have ended, that a step did no harm."""
FAR: Final = 0.85
"""Goodput after a step up against the one before that puts the best below, or near, the level before."""
HARM: Final = 0.12
"""Loss of goodput against the best of a ramp that shows that there may be too many copies."""
BACK: Final = 0.4
"""Part of what a step lost that has to come back when it is taken back, or it was not the step."""
FALL: Final = 0.05
"""Loss by the first step of a ramp that makes it go down instead."""
GAIN: Final = 0.03
"""What a search has to gain for the next one to come soon."""
LOWER: Final = 0.6
"""Levels below this part of the base say, from memory, whether goodput grows in proportion."""
CLEAR: Final = 0.25
"""Distance from what was wanted at which a trial needs no second thought."""
TRIAL_S, HOLD_S = 4.0, 8.0
"""Shortest windows."""
FALL_SURE, FALL_TWICE, RISE_TWICE = 0.5, 0.75, 1.2
"""Goodput against what was usual: once below the first, or twice beyond the others, and the place has changed."""
ODD_MAX: Final = 2
RETREAT: Final = 0.7
"""Part that is left after an overload."""
NEARLY: Final = 0.75
"""Part of the target that has to be active on average: slots of short copies are empty for a moment."""
REPORTS_MIN: Final = 6
"""Reports without which a window of a few copies says nothing."""
HOLD_SMOOTHING: Final = 0.3
COST_SHARE: Final = 0.01
"""Part of the goodput that comparing with the neighbours may cost."""


class Phase(StrEnum):
    """What a place is doing."""

    RAMP = "ramp"
    DESCEND = "descend"
    CHECK = "check"
    SEEK = "seek"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """One decision about one place."""

    place: Place
    at: float
    before: int
    after: int
    reason: str
    """A sentence with the numbers that led to it."""
    numbers: Mapping[str, float] = field(default_factory=dict)
