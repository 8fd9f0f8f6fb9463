"""A local search for the best of neighbouring levels, one measurement at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SAME: Final = 0.015
"""Relative difference of goodput that counts as none."""
GAIN_MIN, GAIN_MAX, GAIN_PART = 0.01, 0.03, 0.3
"""A step up has to bring this part of what it would bring if each copy were as fast as before, within bounds."""


@dataclass(slots=True)
class Search:
    """Looks above and below the base in steps that shrink; goodput over levels is taken to have one peak."""

    base: int
    rate: float
    """Bytes per second with `base`."""
    step: int
    way: int = 1
    up_only: bool = False
    seen: dict[int, float] = field(default_factory=dict)
    """Levels that were measured in this search, or right before it."""
    best: float = 0.0
    moved: bool = False
    """The base is not the one it began with."""
    _misses: int = 0

    def __post_init__(self) -> None:
        self.best = max(self.rate, *self.seen.values()) if self.seen else self.rate
        if self.up_only:
            self.way = 1

    def next(self, lowest: int, highest: int) -> int | None:
        """The next level to measure; None: the base is the best."""
        while self.step:
            level = max(lowest, min(highest, self.base + self.way * self.step))
            if level != self.base and not self._is_known_worse(level):
                return level
            self._miss()
        return None

    def judge(self, level: int, rate: float) -> bool:
        """Take in a measurement; True: `level` is the base from now on."""
        self.seen[level] = rate
        if level > self.base:
            part = GAIN_PART * (level - self.base) / self.base
            better = rate >= self.rate * (1 + max(GAIN_MIN, min(GAIN_MAX, part)))
        else:
            # Fewer copies for the same are better; against the best, so that many small losses do not add up.
            better = rate >= (1 - SAME) * max(self.best, self.rate)
        if not better:
            self._miss()
            return False
        self.base, self.rate, self.moved = level, rate, True
        self.best = max(self.best, rate)
        self.step = min(2 * self.step, max(1, level // 4))
        self._misses = 0
        return True

    def _is_known_worse(self, level: int) -> bool:
        """One on the way there is worse than the base."""
        low, high = sorted((self.base, level))
        worse = self.rate * (1 - SAME)
        return any(rate < worse for at, rate in self.seen.items() if low <= at <= high and at != self.base)

    def _miss(self) -> None:
        self._misses += 1
        if self._misses > 1 or self.up_only:
            self._misses = 0
            self.step //= 2
        if not self.up_only:
            self.way = -self.way
