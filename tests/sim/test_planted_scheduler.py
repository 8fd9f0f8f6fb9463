"""Bugs planted on purpose, one at a time: the tests of decisions and settling must notice each of them."""

from __future__ import annotations

import pytest

from tests.sim import planted_decisions, planted_governing, planted_settling
from tests.sim.planted_decisions import Plant
from tests.sim.scheduler_suite import GOVERNING, SCHEDULING, SETTLING, noticed

pytestmark = pytest.mark.slow


def test_without_a_bug_nothing_is_noticed() -> None:
    assert noticed(SETTLING) is None
    assert noticed(SCHEDULING) is None
    assert noticed(GOVERNING) is None


def test_there_are_enough_bugs() -> None:
    assert len(planted_decisions.PLANTED) + len(planted_settling.PLANTED) >= 80
    assert len(planted_governing.PLANTED) >= 25
    assert not planted_decisions.PLANTED.keys() & planted_settling.PLANTED.keys()


@pytest.mark.parametrize("plant", planted_decisions.PLANTED.values(), ids=planted_decisions.PLANTED.keys())
def test_a_mistake_in_a_decision_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        plant(patch)
        found = noticed(SCHEDULING)
    assert found is not None


@pytest.mark.parametrize("plant", planted_settling.PLANTED.values(), ids=planted_settling.PLANTED.keys())
def test_a_mistake_in_settling_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        plant(patch)
        found = noticed(SETTLING)
    assert found is not None


@pytest.mark.parametrize("plant", planted_governing.PLANTED.values(), ids=planted_governing.PLANTED.keys())
def test_a_mistake_in_what_bounds_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        plant(patch)
        found = noticed(GOVERNING)
    assert found is not None
