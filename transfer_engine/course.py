"""One lane on its way through a forecast: what has started by when, what it still holds. Pure."""

from __future__ import annotations

import math
from typing import Final

KNOTS_MAX: Final = 24
"""Most points of the curve of one lane."""
BEND: Final = 0.05
"""A rate that changes by less is the same."""
HALF: Final = 0.5
PROBE: Final = 1e-3
"""What a lane without a backlog is taken to have, to see when one more would start."""
TAIL: Final = 5.0
"""After so many mean durations what runs now has ended."""
ROUNDING: Final = 1e-9


class Course:
    """One lane on its way."""

    __slots__ = (
        "active", "drained_s", "held", "knots", "last_rate", "left", "rate", "rate_now", "ready", "released_s",
        "slot_s", "slots_now", "work",
    )  # fmt: skip

    def __init__(self, *, ready: int, active: int, slot_s: float) -> None:
        self.slot_s = slot_s
        self.active = active
        self.ready = float(ready) if ready else PROBE
        self.left = self.ready
        """What has not started."""
        self.held = float(active)
        """Slots in the phase before."""
        self.work = (self.ready + active * HALF) * slot_s
        """Slot-seconds that all this still needs."""
        self.rate = self.last_rate = self.rate_now = self.slots_now = 0.0
        self.drained_s: float | None = None
        self.released_s = math.inf
        """When its last slots are free."""
        self.knots = [(0.0, 0.0)]

    @property
    def done(self) -> bool:
        """Nothing is left to start."""
        return self.left <= ROUNDING * (self.ready + self.active)

    def floor(self, now: float) -> float:
        """Slots that are held by those that run from the beginning."""
        if not self.active or now > TAIL * self.slot_s:
            return 0.0
        return self.active * math.exp(-now / self.slot_s)

    def enter(self, slots: float, now: float, pinned: bool) -> None:
        """Begin a phase with so many slots: what it has more than before starts at once."""
        if pinned:
            self.rate = 0.0
        else:
            self.rate = slots / self.slot_s
            if slots != self.held:
                before = self.ready - self.left
                self.left -= slots - self.held
                self._mark((before, now), (min(self.ready - self.left, self.ready), now))
        self.held = slots

    def ends_by(self, now: float, until: float) -> bool:
        """Everything starts within a phase."""
        return bool(self.rate) and (self.done or self.left - self.rate * (until - now) <= ROUNDING * self.ready)

    def leave(self, now: float, until: float, more: float = 1.0) -> bool:
        """End the phase, with so many times its slots in the mean; True: everything has started."""
        self.rate *= more
        if self.ends_by(now, until):
            self.drained_s = now + max(self.left, 0.0) / self.rate
            self.released_s = max(now + self.work / (self.held * more), self.drained_s)
            self.last_rate = self.rate
            self._mark((self.ready - self.left, now), (self.ready, self.drained_s))
            self.left = 0.0
            return True
        passed = until - now
        before = self.ready - self.left
        self.left -= self.rate * passed
        self.work = max(self.work - self.held * more * passed, self.left * self.slot_s)
        if self.rate:
            self._mark((before, now), (self.ready - self.left, until))
        return False

    def end(self, now: float, within: float) -> None:
        """What is left starts evenly within so many seconds."""
        self._mark((self.ready - self.left, now), (self.ready, now + within))
        self.drained_s = now + within
        self.last_rate = self.left / within if within and self.left > 0 else self.rate or 1 / self.slot_s
        self.left = 0.0

    def _mark(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Continue the curve by a straight line, as far as it rises above what it has reached."""
        n_last, last_s = self.knots[-1]
        (n_begin, begin_s), (n_end, end_s) = begin, end
        if n_end <= n_last:
            return
        if n_begin < n_last:
            begin_s += (end_s - begin_s) * (n_last - n_begin) / (n_end - n_begin)
        if begin_s > last_s and len(self.knots) < KNOTS_MAX:
            self.knots.append((n_last, begin_s))
        elif len(self.knots) > 1 and (len(self.knots) >= KNOTS_MAX or self._straight(end)):
            self.knots.pop()
        self.knots.append(end)

    def _straight(self, end: tuple[float, float]) -> bool:
        (n_0, s_0), (n_1, s_1) = self.knots[-2:]
        rise, on = (n_1 - n_0) * (end[1] - s_1), (end[0] - n_1) * (s_1 - s_0)
        return abs(rise - on) <= BEND * rise
