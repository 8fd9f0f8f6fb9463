"""When a place is overloaded, by what its attempts say. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from transfer_engine.metering import Sample

ISOLATED: Final = 0.02
"""Part of the attempts that may be refused or time out without it meaning anything."""
TOLERATED_MAX: Final = 0.5
TOLERATED_S: Final = 600.0
ECHO_S: Final = 1.5
"""After a retreat: what was started before still fails."""
SLOW_FACTOR, SLOW_S = 3.0, 10.0
"""First markers are slow when they take this many times the best seen, and this much longer."""
HELPED: Final = 0.7
ENOUGH: Final = 20
"""Attempts without which it is not said that fewer copies do not help."""


@dataclass(slots=True)
class Guard:
    """Watches one place."""

    best_first_s: dict[int, float] = field(default_factory=dict)
    """Size class → shortest mean time to the first marker."""
    deaf_until: float = 0.0
    troubled: bool = False
    """The last sample had overloads that matter: nothing is to be learned from it."""
    tolerated: float = ISOLATED
    tolerated_until: float = 0.0
    _bad: int = 0
    _good: int = 0
    _worst_level: int = 0
    _worst_part: float = 0.0

    def check(self, sample: Sample, size_class: int, target: int, now: float) -> str | None:
        """Why the place has to retreat, in words; None: it has not, or has just done so, or cannot."""
        self._bad += sample.n_overloads
        self._good += sample.n_finished
        self.troubled = bool(sample.n_overloads) and not self._is_tolerable(sample, now)
        if now < self.deaf_until or sample.active > target + 0.5:
            return None
        if self.troubled:
            n = sample.n_overloads
            words = f"{n} attempt{'s' if n > 1 else ''} refused or timed out with {sample.active:.3g} active"
            return self._react(sample, target, now, words)
        return self._check_first(sample, size_class, target, now)

    def _check_first(self, sample: Sample, size_class: int, target: int, now: float) -> str | None:
        """Whether the storage accepts copies and then lets them wait."""
        first_s = sample.first_marker_s
        if first_s is None:
            return None
        best_s = self.best_first_s.get(size_class)
        if best_s is None or first_s < best_s:
            self.best_first_s[size_class] = first_s
        elif first_s > max(SLOW_FACTOR * best_s, best_s + SLOW_S):
            # It follows slowly: what is always so slow from now on is how the storage is.
            self.best_first_s[size_class] = best_s + 0.1 * (first_s - best_s)
            if target <= sample.lowest:
                return None
            self.deaf_until = now + ECHO_S
            return f"first markers took {first_s:.3g} s instead of {best_s:.3g} s with {sample.active:.3g} active"
        return None

    def _is_tolerable(self, sample: Sample, now: float) -> bool:
        if now >= self.tolerated_until:
            self.tolerated = ISOLATED
        return self._bad <= self.tolerated * (self._bad + self._good) and (
            sample.n_overloads <= max(1, 2 * self.tolerated * (sample.n_overloads + sample.n_finished))
            or self.tolerated > ISOLATED
        )

    def _react(self, sample: Sample, target: int, now: float, words: str) -> str | None:
        """Retreat, unless retreating has been seen not to help."""
        n = self._bad + self._good
        part = self._bad / n if n else 1.0
        if target > self._worst_level:
            self._worst_level, self._worst_part = target, part
        helps = 2 * target > max(self._worst_level, 2) or part < HELPED * self._worst_part
        if not helps and n >= ENOUGH and part <= TOLERATED_MAX:
            self.tolerated, self.tolerated_until = min(1.5 * part, TOLERATED_MAX), now + TOLERATED_S
            self._worst_level = self._bad = self._good = 0
            self.troubled = False
            return None
        if target <= sample.lowest:
            return None
        self._bad = self._good = 0
        self.deaf_until = now + ECHO_S
        return words
