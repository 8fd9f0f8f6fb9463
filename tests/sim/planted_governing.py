"""Mistakes in what bounds the scheduler: optimizer, pacing, saturation, health, choice of replicas. Each alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.planted_decisions import Plant, instead, never
from transfer_engine import optimizer, selection
from transfer_engine.climbing import Climber
from transfer_engine.evidence import Ceiling, Levels, Seen, SizeClass
from transfer_engine.guarding import Guard
from transfer_engine.health import Health
from transfer_engine.health.circuit import Circuit
from transfer_engine.metering import Sample
from transfer_engine.pacing import Pace
from transfer_engine.saturation import Saturation
from transfer_engine.seeking import Search
from transfer_engine.selection import LinkView


def _unchecked(_right: Any, self: Climber, now: float, _seen: Seen, before: Seen) -> Any:
    return self._hold(now, self.base, before, "it fell")


def _links_like_storages(right: Any, self: Climber, lowest: int, highest: int) -> None:
    if self.place.kind != "link":
        right(self, lowest, highest)


def _judged_at_the_limit(right: Any, self: Climber, sample: Sample, now: float) -> Any:
    self._look_down = True
    return right(self, sample, now)


def _only_one_step(right: Any, self: Climber, sample: Sample, now: float, words: str) -> Any:
    return (
        self._hold(now, self.target, self.window.seen(), words) if self.reference else right(self, sample, now, words)
    )


def _age_forgotten(right: Any, self: Circuit, now: float, began_at: float, luck: float) -> None:
    self.opened_at = now
    right(self, now, began_at, luck)


def _never_shut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LinkView, "shut", property(lambda _: False))


PLANTED: dict[str, Plant] = {
    "overloads are ignored": never(Guard, "check"),
    "a fall is blamed on the number unchecked": instead(Climber, "_stop", _unchecked),
    "a ramp ends after one step": instead(Climber, "_rise", _only_one_step),
    "links begin as low as storages": instead(Climber, "bound", _links_like_storages),
    "what runs at its limit is judged": instead(Climber, "_judge_hold", _judged_at_the_limit),
    "places that are not full are judged": instead(Climber, "is_settled", lambda *_: True),
    "a level that was too many is tried at once": instead(Ceiling, "cap", lambda _right, _self, highest, _now: highest),
    "sizes are not looked at": never(SizeClass, "update"),
    "what was passed through is taken for the best": instead(Levels, "is_peak", lambda *_: True),
    "an overload of one link is the storage's": instead(optimizer, "_is_elsewhere", lambda *_: False),
    "any level is better": instead(Search, "wanted", lambda *_: 0.0),
    "no level is better": instead(Search, "wanted", lambda *_: 1e99),
    "nothing is strange": instead(Search, "is_strange", lambda *_: False),
    "large files that are silent stay unproven": never(Pace, "look"),
    "large files never prove themselves": instead(Pace, "shown", lambda *_: False),
    "what ran well is remembered for ever": instead(
        Pace, "limit", lambda right, self, _now: right(self, self.proven_at)
    ),
    "every destination is filled": instead(Saturation, "observe", lambda *_: True),
    "the most is never forgotten": never(Saturation, "_fade"),
    "one success opens a place wholly": instead(Circuit, "_widen", lambda _right, self: self._close()),
    "waits do not grow with the trouble's age": instead(Circuit, "_wait", _age_forgotten),
    "an answer is no sign of life": never(Circuit, "answer"),
    "one failure closes": instead(Circuit, "needed", lambda *_: 1),
    "no failure is excused": instead(Health, "excuses", lambda *_, **__: False),
    "all failures are excused": instead(Health, "excuses", lambda *_, **__: True),
    "a pause that was asked for is not made": never(Health, "_pause"),
    "closed sources are chosen": _never_shut,
    "choices go back and forth": instead(selection, "_with_margin", lambda _right, pair, *_: pair),
    "queues before a source do not count": instead(selection, "_waiting_s", lambda *_: 0.0),
    "unknown rates are none": instead(selection, "_rate", lambda _right, measured, *_: measured or 0.0),
}
