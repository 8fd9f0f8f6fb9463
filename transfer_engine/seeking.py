"""A local search for the best of neighbouring levels, one measurement at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SAME: Final = 0.015
"""Relative difference of goodput that counts as none."""
GAIN_FEWER: Final = 0.025
"""What a step down has to bring."""
LINEAR: Final = 0.05
STRANGE: Final = 1.25
TRIALS_MAX: Final = 12


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
    memory: dict[int, float] = field(default_factory=dict)
    """Lower levels that were measured earlier, perhaps when the storage was another one."""
    usual: int | None = None
    """Beyond it more copies have to bring something: the storage was well with so many, and will be again."""
    n_trials: int = 0
    _misses: int = 0

    def __post_init__(self) -> None:
        self.seen.setdefault(self.base, self.rate)
        if self.up_only:
            self.way = 1

    def next(self, lowest: int, highest: int) -> int | None:
        """The next level to measure; None: the base is the best."""
        while self.step and self.n_trials < TRIALS_MAX:
            level = max(lowest, min(highest, self.base + self.way * self.step))
            if level != self.base and not self._is_known_worse(level):
                return level
            self._miss()
        return None

    @property
    def is_exhausted(self) -> bool:
        """It ended before it could be sure that the base is the best."""
        return self.step > 0

    def wanted(self, level: int) -> float:
        """The bytes per second that would make `level` the better one."""
        if level > self.base:
            # More copies that do no harm are welcome: small files among large ones want them.
            part = 1 - SAME if self.usual is None or level <= self.usual else 1 + GAIN_FEWER
            return part * max(self.rate, *self.seen.values())
        # Spare copies show at once when there is room for more: fewer have to be better, not only as good.
        return (1 + GAIN_FEWER) * self.rate

    def judge(self, level: int, rate: float, slack: float = 0.0) -> bool:
        """Take in a measurement, sure within `slack`; True: `level` is the base from now on."""
        self.seen[level] = rate
        self.n_trials += 1
        sure = rate if level > self.base else rate * (1 - slack / 2)
        if sure < self.wanted(level):
            self._miss()
            return False
        self.base, self.rate = level, rate
        self.step = min(2 * self.step, max(1, level // 2))
        self._misses = 0
        return True

    def is_strange(self, level: int, rate: float, slack: float = 0.0) -> bool:
        """Whether the number of copies cannot be why: something else has changed since the base was measured."""
        each = rate / level / (self.rate / self.base) if self.rate else 1.0
        strange = STRANGE + slack
        if level > self.base:
            return each > strange or rate < self.rate / (strange * level / self.base)
        return each < 1 / strange or rate > self.rate * strange * self.base / level

    def _is_known_worse(self, level: int) -> bool:
        """One on the way there is worse than the base."""
        low, high = sorted((self.base, level))
        worse = self.rate * (1 - SAME)
        if any(rate < worse for at, rate in self.seen.items() if low <= at <= high and at != self.base):
            return True
        if level > self.base:
            return False
        # Where goodput grew in proportion up to the base, each copy less costs what one copy moves.
        each = self.rate / self.base
        known = (self.memory | self.seen).items()
        linear = any(at <= level and abs(rate / at - each) <= LINEAR * each for at, rate in known)
        return linear and each * level < worse

    def _miss(self) -> None:
        self._misses += 1
        if self._misses > 1 or self.up_only:
            self._misses = 0
            self.step //= 2
        if not self.up_only:
            self.way = -self.way
