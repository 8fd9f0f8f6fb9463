"""Whether a destination is filled: it moves about as much as it ever did, and each copy gets less than it could. Pure.

More copies bring nothing then. Where they do (each is limited by itself, or spends its time on overheads) one
of the two does not hold. Samples are added up until about every copy has reported: fewer show whatever the sizes of
those that happened to report make of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from transfer_engine.evidence import Window
from transfer_engine.metering import Sample

NEAR: Final = 0.85
"""Part of the most that was ever seen from which on a destination counts as filled."""
SLOWED: Final = 0.6
"""Part of the best rate of one copy below which copies take from each other."""
MEMORY_S: Final = 3600.0
REPORTS_MIN: Final = 6
"""Reports without which a look says nothing."""
SPAN_MIN_S: Final = 3.0
"""Shortest time that is looked at."""


@dataclass(slots=True)
class Saturation:
    """What one destination has shown; what is long ago counts less."""

    most_bytes_s: float = 0.0
    """Of all copies together."""
    best_bytes_s: float = 0.0
    """Of one copy, over its slot time."""
    filled: bool = False
    _at: float = 0.0
    _window: Window = field(default_factory=Window)

    def observe(self, sample: Sample, now: float) -> bool:
        """Take in a sample; whether the destination is filled."""
        window = self._window
        window.add(sample, ())
        if window.n_reports < REPORTS_MIN or window.generations < 1 or window.span_s < SPAN_MIN_S:
            return self.filled
        self._window = Window()
        self._fade(now)
        if not window.slot_s:
            return self.filled
        each = window.moved_bytes / window.slot_s
        # Where the number grows, reports are in part of the time when each copy had more.
        total = min(window.rate, window.moved_bytes / window.span_s)
        self.most_bytes_s, self.best_bytes_s = max(self.most_bytes_s, total), max(self.best_bytes_s, each)
        self.filled = total >= NEAR * self.most_bytes_s and each <= SLOWED * self.best_bytes_s
        return self.filled

    def _fade(self, now: float) -> None:
        fade = math.exp(-max(now - self._at, 0.0) / MEMORY_S) if self._at else 1.0
        self._at = now
        self.most_bytes_s *= fade
        self.best_bytes_s *= fade
