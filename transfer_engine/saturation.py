"""Whether a destination is filled: it moves about as much as it ever did, and each copy gets less than it could. Pure.

More copies bring nothing then. Where they do (each is limited by itself, or spends its time on overheads) one
of the two does not hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from transfer_engine.metering import Sample

NEAR: Final = 0.85
"""Part of the most that was ever seen from which on a destination counts as filled."""
SLOWED: Final = 0.6
"""Part of the best rate of one copy below which copies take from each other."""
MEMORY_S: Final = 3600.0
REPORTS_MIN: Final = 3


@dataclass(slots=True)
class Saturation:
    """What one destination has shown; what is long ago counts less."""

    most_bytes_s: float = 0.0
    """Of all copies together."""
    best_bytes_s: float = 0.0
    """Of one copy, over its slot time."""
    filled: bool = False
    _at: float = 0.0

    def observe(self, sample: Sample, now: float) -> bool:
        """Take in a sample; whether the destination is filled."""
        fade = math.exp(-max(now - self._at, 0.0) / MEMORY_S) if self._at else 1.0
        self._at = now
        self.most_bytes_s *= fade
        self.best_bytes_s *= fade
        if sample.n_reports < REPORTS_MIN or sample.slot_s <= 0:
            return self.filled
        each = sample.moved_bytes / sample.slot_s
        total = each * sample.active
        self.most_bytes_s, self.best_bytes_s = max(self.most_bytes_s, total), max(self.best_bytes_s, each)
        self.filled = total >= NEAR * self.most_bytes_s and each <= SLOWED * self.best_bytes_s
        return self.filled
