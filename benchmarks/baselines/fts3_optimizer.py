"""FTS3's optimizer: how many transfers a link may have, changed by one a minute. Pure.

Its documented behaviour (FTS 3.14, `src/server/services/optimizer`):

* every 60 s for each pair of storages with transfers that wait or run;
* range: the link's own limits, else those of all links, else 2 … min(outbound of the source, inbound of
  the destination); the first value is the maximum when the link itself is configured, else the middle;
* window of observation by the mean duration of the last 30 minutes: 5 min below 30 s, 15 min up to 900 s,
  30 min beyond;
* throughput is what moved in the window over the window, smoothed with a factor of 0.1; success is finished over
  finished and recoverable failures;
* the decision table in `decide`, in its order, conservative mode (1): one up, one down.

`remembers=False` is the defect of 3.14.4: the state of the previous run is lost each time, so that now and
before are always equal, and throughput decides nothing.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

INTERVAL_S: Final = 60.0
STEADY_S: Final = 300.0
EMA: Final = 0.1
SUCCESS_LOW: Final = 97.0
SUCCESS_BASE: Final = 96.0
ACTIVE_MIN: Final = 2
STEP: Final = 1
HISTORY_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Ended:
    """One attempt that is over."""

    began_at: float
    ended_at: float
    n_bytes: int
    finished: bool
    retried: bool
    """It failed in a way that may pass."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run saw of a link."""

    success: float = 0.0
    """Percent."""
    ema: float = 0.0
    """Bytes per second."""
    size_mean: float = 0.0
    n_retries: int = 0


@dataclass(slots=True)
class LinkOptimizer:
    """One link's row in `t_optimizer`, and what it is made from."""

    low: int
    high: int
    specific: bool
    """The link has a configuration of its own."""
    remembers: bool = True
    value: int | None = None
    """Transfers that the link may have; None: no row yet."""
    why: str = ""
    history: deque[Ended] = field(default_factory=deque)
    before: Seen = field(default_factory=Seen)
    _updated_at: float = -math.inf

    def ended(self, row: Ended) -> None:
        """Take in an attempt that is over."""
        self.history.append(row)

    def run(self, now: float, n_queued: int, moving: list[tuple[float, int]]) -> None:
        """One run.

        Args: moving: (began at, bytes so far) of the copies that run.
        """
        self.low = min(self.low, self.high)
        while self.history and self.history[0].ended_at < now - HISTORY_S:
            self.history.popleft()
        seen = self._look(now, moving)
        if self.value is None:
            self._set(self.high if self.specific else (self.low + self.high) // 2, "First value", now)
        elif self.low == self.high:
            self._set(self.high, "Range fixed", now)
        else:
            before = self.before if self.remembers else seen
            same = seen.success == before.success and seen.ema == before.ema
            if not (same and now - self._updated_at < STEADY_S):
                value, why = decide(self.value, seen, before, n_queued)
                self._set(self._within(value, n_queued), why, now)
        self.before = seen

    def _set(self, value: int, why: str, now: float) -> None:
        self.value, self.why, self._updated_at = value, why, now

    def _within(self, value: int, n_queued: int) -> int:
        assert self.value is not None
        value = min(max(value, self.low), self.high)
        return self.value if value > self.value and n_queued < value else value

    def _look(self, now: float, moving: list[tuple[float, int]]) -> Seen:
        rows = [row for row in self.history if row.finished]
        duration = sum(row.ended_at - row.began_at for row in rows) / len(rows) if rows else 0.0
        window = _window(duration)
        recent = [row for row in self.history if row.ended_at > now - window]
        done = [row for row in recent if row.finished]
        n_retried = sum(row.retried for row in recent)
        moved = sum(_part(row.n_bytes, row.began_at, row.ended_at, now - window) for row in done)
        moved += sum(_part(n_bytes, began_at, now, now - window) for began_at, n_bytes in moving)
        throughput = moved / window
        ema = self.before.ema
        if throughput > 0:
            ema = EMA * throughput + (1 - EMA) * ema if ema else throughput
        return Seen(
            success=100.0 * len(done) / (len(done) + n_retried) if done or n_retried else 100.0,
            ema=ema,
            size_mean=sum(row.n_bytes for row in done) / len(done) if done else 0.0,
            n_retries=n_retried,
        )


def decide(value: int, seen: Seen, before: Seen, n_queued: int) -> tuple[int, str]:
    """The next value before it is clamped, and FTS's own words for it."""
    if seen.success < SUCCESS_LOW:
        return _badly(value, seen, before)
    if seen.ema == 0:
        return value, "Steady, not enough throughput information"
    if n_queued < value:
        return value, "Queue emptying. Hold on."
    if seen.ema < before.ema:
        if _order(seen.size_mean) < _order(before.size_mean):
            return value + STEP, "Good link efficiency, throughput deterioration, avg. filesize decreasing"
        if _order(seen.ema) < _order(before.ema):
            return value - 1, "Good link efficiency, throughput deterioration"
        return value, "Good link efficiency, small throughput deterioration"
    if seen.ema > before.ema:
        return value + STEP, "Good link efficiency, current average throughput is larger than the preceding average"
    return value + STEP, "Good link efficiency. Increment"


def _badly(value: int, seen: Seen, before: Seen) -> tuple[int, str]:
    if seen.success > before.success and seen.success >= SUCCESS_BASE and seen.n_retries <= before.n_retries:
        return value, "Bad link efficiency but progressively improving"
    return value - 1, "Bad link efficiency" if seen.success < before.success else "Bad link efficiency, no changes"


def _window(duration_s: float) -> float:
    if duration_s < 30:
        return 300.0
    return 900.0 if 30 < duration_s < 900 else 1800.0


def _part(n_bytes: int, began_at: float, until: float, since: float) -> float:
    """Of the bytes of a copy, those that moved after `since`."""
    if began_at >= since or until <= began_at:
        return n_bytes
    return n_bytes * max(until - since, 0.0) / (until - began_at)


def _order(value: float) -> int:
    return round(math.log10(value)) if value > 0 else 0
