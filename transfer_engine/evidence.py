"""What has been seen at a number of copies: the window being measured, and the memory of windows. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from transfer_engine.config import OptimizerSettings
from transfer_engine.metering import Sample

NO_HARM: Final = 0.1
"""Part of the goodput by which more copies may seem worse without it being their doing."""
CLASSES_MAX: Final = 8
LEVELS_MAX: Final = 24
LONG, SEVERAL = 6, 2
"""A copy with so many reports is long: its beginning and end matter little, and so many of them show how it goes."""
MIXED: Final = 0.5
"""Spread beyond which copies are of many sizes."""
NEARLY_ALL: Final = 0.9
COVERED: Final = 0.8
"""Part of the slot time that has to be reported."""
SPAN_MAX_S: Final = 60.0
"""Longest window; what reports less often than that is judged by what there is."""
_CLASS_WIDTH: Final = 0.75
"""Decades by which the mean size must leave a size class, whose width is one: sizes at an edge must not flap."""


class Others(NamedTuple):
    """What else moved at one end of a link during a sample: the end's sample less the link's."""

    name: str
    active: float
    moved_bytes: float
    slot_s: float


@dataclass(slots=True)
class Window:
    """Samples of one level, added up."""

    span_s: float = 0.0
    active_s: float = 0.0
    moved_bytes: float = 0.0
    slot_s: float = 0.0
    n_reports: int = 0
    n_finished: int = 0
    squares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sizes: float = 0.0
    n_sizes: int = 0
    others: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """End → (active · seconds, bytes, slot seconds) of the other links there."""

    def add(self, sample: Sample, others: tuple[Others, ...]) -> None:
        """One sample more."""
        self.span_s += sample.span_s
        self.active_s += sample.active * sample.span_s
        self.moved_bytes += sample.moved_bytes
        self.slot_s += sample.slot_s
        self.n_reports += sample.n_reports
        self.n_finished += sample.n_finished
        (a, b, c), (x, y, z) = self.squares, sample.squares
        self.squares = (a + x, b + y, c + z)
        if sample.size_bytes is not None:
            self.sizes += sample.size_bytes * sample.n_reports
            self.n_sizes += sample.n_reports
        for end in others:
            active_s, n_bytes, slot_s = self.others.get(end.name, (0.0, 0.0, 0.0))
            active_s += end.active * sample.span_s
            self.others[end.name] = (active_s, n_bytes + end.moved_bytes, slot_s + end.slot_s)

    @property
    def active(self) -> float:
        """Mean number active."""
        return self.active_s / self.span_s if self.span_s else 0.0

    @property
    def generations(self) -> float:
        """How often each copy has reported, on average."""
        return self.n_reports / self.active if self.active_s else 0.0

    @property
    def is_covered(self) -> bool:
        """Whether those that report late are in it: at first only the small ones among the new copies have ended."""
        return self.slot_s >= COVERED * self.active_s or self.span_s >= SPAN_MAX_S

    @property
    def spread(self) -> float:
        """How much the times between reports differ: their standard deviation over their mean."""
        if not self.slot_s:
            return 0.0
        return math.sqrt(max(0.0, self.n_reports * self.squares[2] / (self.slot_s * self.slot_s) - 1))

    @property
    def is_whole(self) -> bool:
        """Whether beginnings and ends of copies, which move nothing, have their due part in it.

        Copies that began together stay together: a part of their common life is not what the whole is like.
        """
        if self.span_s >= SPAN_MAX_S:
            return True
        per_copy = self._size() * self.n_reports / self.moved_bytes if self.moved_bytes else 1.0
        if per_copy >= LONG:
            return self.generations >= SEVERAL
        return self.n_finished >= self.active and self.generations >= NEARLY_ALL * per_copy

    def _size(self) -> float:
        return self.sizes / self.n_sizes if self.n_sizes else 0.0

    @property
    def rate(self) -> float:
        """Goodput in bytes per second."""
        return self.active * self.moved_bytes / self.slot_s if self.slot_s else 0.0

    @property
    def error(self) -> float:
        """Relative standard error of `rate`, as of a ratio of two sums over reports that depend on each other."""
        if not self.moved_bytes or not self.slot_s:
            return 0.0
        bytes2, bytes_s, slot2 = self.squares
        each = self.moved_bytes / self.slot_s
        return math.sqrt(max(0.0, bytes2 - 2 * each * bytes_s + each * each * slot2)) / self.moved_bytes

    def seen(self) -> Seen:
        """What is kept of it."""
        others = {name: self._end(*row) for name, row in self.others.items()}
        return Seen(self.rate, self.active, self._size(), self.error, others, self.spread)

    def _end(self, active_s: float, n_bytes: float, slot_s: float) -> tuple[float, float]:
        return active_s / self.span_s if self.span_s else 0.0, n_bytes / slot_s if slot_s else 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of a window; `size` is the mean in bytes, 0 when nobody knows; `error` is relative."""

    rate: float
    active: float
    size: float = 0.0
    error: float = 0.0
    others: dict[str, tuple[float, float]] = field(default_factory=dict)
    """End of a link → (others active there, bytes per second of one of them)."""
    spread: float = 0.0

    def blend(self, newer: Seen, part: float) -> Seen:
        """Moved towards a newer window of the same level."""
        return Seen(
            self.rate + part * (newer.rate - self.rate),
            newer.active,
            self.size + part * (newer.size - self.size),
            # Errors of independent windows add up as squares.
            math.hypot((1 - part) * self.error, part * newer.error),
            newer.others,
            newer.spread,
        )

    @property
    def at_least(self) -> float:
        """What is probably not too much said: a few copies of mixed sizes may look better than they are."""
        return self.rate * max(0.5, 1 - self.error)

    def ratio(self, before: Seen) -> float:
        """Goodput against `before`'s."""
        return self.rate / before.rate if before.rate else 2.0

    def slack(self, before: Seen) -> float:
        """The ratio to `before` is almost surely within this part of what it seems to be."""
        return 2 * math.hypot(self.error, before.error)


def rate_text(bytes_s: float) -> str:
    """A rate in words."""
    for unit, factor in (("GB/s", 1e9), ("MB/s", 1e6)):
        if bytes_s >= factor:
            return f"{bytes_s / factor:.3g} {unit}"
    return f"{bytes_s / 1e3:.3g} kB/s"


def size_text(decade: int) -> str:
    """A class of sizes in words."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if decade >= power:
            return f"{10 ** (decade - power)} {unit}"
    return f"{10**decade} bytes"


def went(before: Seen, seen: Seen, base: int, tried: int) -> str:
    """What a step did, in words."""
    old, new = rate_text(before.rate), rate_text(seen.rate)
    way = "rose" if seen.rate > before.rate else "fell"
    rates = f"goodput {way} from {old} to {new}" if old != new else f"goodput was {new} as before"
    return f"{rates} when active went from {base} to {tried}"


_SLOWED: Final = 0.85
_FEW: Final = 0.25


def bottleneck(before: Seen, seen: Seen) -> str | None:
    """Why a link's trouble is not its own, in words; None: it is its own.

    It is its own when others run at both ends and each of them is as fast as before.
    """
    for name, (active, each) in seen.others.items():
        _, each_before = before.others.get(name, (0.0, 0.0))
        if active < _FEW * seen.active or not each or not each_before:
            return f"and too little else runs {name} to tell the link from the storage"
        if each < _SLOWED * each_before:
            return f"and the others {name} fell from {rate_text(each_before)} to {rate_text(each)} each as well"
    return None


def taken_from(before: Seen, seen: Seen) -> str:
    """When a link gained what the others at one end lost, where the bottleneck is; else nothing."""
    gained = seen.rate - before.rate
    for name, (active, each) in seen.others.items():
        active_before, each_before = before.others.get(name, (0.0, 0.0))
        lost = active_before * each_before - active * each
        if gained > 0 and lost >= 0.7 * gained:
            return f", and the others {name} lost {rate_text(lost)}: the storage is the bottleneck, not the link"
    return ""


class SizeClass:
    """The order of magnitude of what runs, smoothed."""

    _SMOOTHING: Final = 0.1
    """Sizes that come mixed are one class, whatever the reports of one sample happen to be of."""

    def __init__(self, decade: int | None = None) -> None:
        self.decade = decade
        self._log = float(decade) if decade is not None else None

    def update(self, size_bytes: float) -> int | None:
        """Take in a mean size; returns the class that was left when it has changed, else None."""
        log = math.log10(max(size_bytes, 1.0))
        self._log = log if self._log is None else self._log + self._SMOOTHING * (log - self._log)
        if self.decade is None:
            self.decade = round(self._log)
            return None
        if abs(self._log - self.decade) <= _CLASS_WIDTH:
            return None
        before, self.decade = self.decade, round(log)
        self._log = log
        return before if before != self.decade else None


@dataclass(slots=True)
class Levels:
    """Goodput by level, per size class; bounded."""

    memory_s: float
    by_class: dict[int, dict[int, tuple[float, float]]] = field(default_factory=dict)
    """Class → level → (bytes per second, when)."""

    def remember(self, size_class: int, level: int, rate: float, now: float) -> None:
        """The newest figure of a level replaces the one before."""
        levels = self.by_class.pop(size_class, {})
        self.by_class[size_class] = levels
        levels.pop(level, None)
        levels[level] = (rate, now)
        if len(levels) > LEVELS_MAX:
            del levels[next(iter(levels))]
        if len(self.by_class) > CLASSES_MAX:
            del self.by_class[next(iter(self.by_class))]

    def forget(self, size_class: int) -> None:
        """What was seen holds no more."""
        self.by_class.pop(size_class, None)

    def fresh(self, size_class: int, now: float) -> dict[int, float]:
        """Level → bytes per second, as far as it is believed."""
        levels = self.by_class.get(size_class, {})
        return {level: rate for level, (rate, at) in levels.items() if now - at <= self.memory_s}

    def best(self, size_class: int, now: float) -> int | None:
        """The highest level that does no harm against the best of them."""
        levels = self.fresh(size_class, now)
        most = max(levels.values(), default=0.0)
        return max((level for level, rate in levels.items() if rate >= (1 - NO_HARM) * most), default=None)

    def is_peak(self, size_class: int, level: int, now: float) -> bool:
        """Whether `level` is the best and more have been seen to do harm."""
        return level == self.best(size_class, now) and level < max(self.fresh(size_class, now))


@dataclass(slots=True)
class Ceiling:
    """The level at which the place was overloaded, and until when it is not tried again."""

    level: int | None = None
    until: float = 0.0
    wait_s: float = 0.0

    def hit(self, level: int, now: float, settings: OptimizerSettings) -> None:
        """Overloaded at `level`: leave it alone, twice as long as the last time."""
        again = self.level is not None and now < self.until + 4 * self.wait_s
        if again and now < self.until:
            self.level = min(level, self.level or level)
            self.until = now + self.wait_s
            return
        self.wait_s = min(2 * self.wait_s, settings.overload_max_s) if again else settings.overload_s
        self.level, self.until = level, now + self.wait_s

    def cap(self, highest: int, now: float) -> int:
        """The highest level that may be tried."""
        return highest if self.level is None or now >= self.until else max(1, min(highest, self.level - 1))

    def passed(self, level: int) -> None:
        """The place ran well at `level`."""
        if self.level is not None and level >= self.level:
            self.level, self.until, self.wait_s = None, 0.0, 0.0
