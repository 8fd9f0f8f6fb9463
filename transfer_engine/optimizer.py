"""How many copies may run at a time in each endpoint direction and on each link. Pure: it is told the time.

Every place has a search of its own (`climbing`). What they know of each other: an overload that only one link has,
while others at the same ends do well, is the link's, and any other is the storage's. A link is bound by the targets
of its ends and by its configured limit; it has a lower one of its own only after trouble that was its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from transfer_engine.climbing import Climber
from transfer_engine.config import OptimizerSettings
from transfer_engine.evidence import Others
from transfer_engine.metering import Sample
from transfer_engine.optimizer_memory import read, write
from transfer_engine.places import Place
from transfer_engine.tuning import Adjustment, Phase

HISTORY_MAX: Final = 200
HOLD_PACE: Final = 5
"""How much rarer looks suffice while nothing is being learned."""


class Optimizer:
    """Targets for all places, found from samples."""

    def __init__(self, settings: OptimizerSettings) -> None:
        self._settings = settings
        self._climbers: dict[Place, Climber] = {}
        self._history: dict[Place, deque[Adjustment]] = {}
        self._learning = True

    @property
    def enabled(self) -> bool:
        """It bounds anything."""
        return self._settings.enabled

    def target(self, place: Place, lowest: int, highest: int) -> int:
        """How many may run in `place`, within the configured bounds."""
        if not self._settings.enabled:
            return highest
        climber = self._climbers.get(place)
        if climber is None:
            return highest if place.kind == "link" else min(max(self._settings.initial, lowest), highest)
        return highest if climber.is_free else min(max(climber.target, lowest), highest)

    def history(self, place: Place) -> tuple[Adjustment, ...]:
        """The newest decisions about a place, oldest first."""
        return tuple(self._history.get(place, ()))

    def pace(self) -> float:
        """Seconds until the next look is worth while."""
        return self._settings.interval_s * (1 if self._learning else HOLD_PACE)

    def observe(self, samples: Sequence[Sample], now: float) -> list[Adjustment]:
        """Take in what happened and decide; returns what was decided, also where a target stays as it is."""
        if not self._settings.enabled:
            return []
        ends = {sample.place: sample for sample in samples}
        self._learning = not samples
        found = []
        for sample in samples:
            adjustment = self._observe_one(sample, ends, now)
            if adjustment is not None:
                found.append(adjustment)
                self._history.setdefault(sample.place, deque(maxlen=HISTORY_MAX)).append(adjustment)
        return found

    def _observe_one(self, sample: Sample, ends: dict[Place, Sample], now: float) -> Adjustment | None:
        place = sample.place
        climber = self._climbers.get(place)
        if climber is None:
            climber = self._climbers[place] = Climber(place, self._settings)
        if climber.highest != sample.highest or not sample.lowest <= climber.target <= sample.highest:
            climber.bound(sample.lowest, sample.highest)
        checked = replace(sample, n_overloads=0) if sample.n_overloads and _is_elsewhere(sample, ends) else sample
        guard = climber.guard
        words = guard.check(checked, climber.size.decade or 0, climber.target, now)
        if words is not None:
            self._learning = True
            return climber.retreat(checked, now, words)
        if guard.troubled:
            climber.restart()
            return None
        if not climber.is_settled(sample) or sample.n_failed > sample.n_finished:
            return None
        self._learning = self._learning or climber.phase is not Phase.HOLD
        left = climber.size.update(sample.size_bytes) if sample.size_bytes is not None else None
        if left is not None:
            return climber.remix(sample, now, left)
        climber.window.add(sample, _others(sample, ends) if place.kind == "link" else ())
        return climber.judge(sample, now)

    def dump(self) -> str:
        """What was learned, as JSON text."""
        return write(self._climbers, self._history)

    def load(self, text: str) -> None:
        """Go on from what `dump` gave; anything else is ignored."""
        memory = read(text, self._settings)
        if memory is None:
            return
        self._climbers, histories = memory
        self._history = {place: deque(rows, maxlen=HISTORY_MAX) for place, rows in histories.items()}


def _ends(link: Place) -> tuple[Place, Place]:
    return Place("out", link.name), Place("in", link.other)


def _others(sample: Sample, ends: dict[Place, Sample]) -> tuple[Others, ...]:
    """What else ran at both ends of a link."""
    found = []
    for place in _ends(sample.place):
        end = ends.get(place, sample)
        moved_bytes, slot_s = end.moved_bytes - sample.moved_bytes, end.slot_s - sample.slot_s
        found.append(Others(str(place), max(0.0, end.active - sample.active), moved_bytes, slot_s))
    return tuple(found)


def _is_elsewhere(sample: Sample, ends: dict[Place, Sample]) -> bool:
    """Whether the overload in a sample is another place's: a link's at an endpoint, an endpoint's at a link."""
    if sample.place.kind == "link":
        return not all(_is_only(sample, place, ends) for place in _ends(sample.place))
    bad = [
        row
        for row in ends.values()
        if row.place.kind == "link" and row.n_overloads and sample.place in _ends(row.place)
    ]
    return len(bad) == 1 and _is_only(bad[0], sample.place, ends)


def _is_only(link: Sample, place: Place, ends: dict[Place, Sample]) -> bool:
    """Whether a link alone is overloaded at one of its ends, while others move there."""
    end = ends.get(place)
    if end is None or end.moved_bytes <= link.moved_bytes or end.n_overloads > link.n_overloads:
        return False
    bad = sum(row.n_overloads for row in ends.values() if row.place.kind == "link" and place in _ends(row.place))
    return bad == link.n_overloads
