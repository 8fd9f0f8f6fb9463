"""Pauses: `Retry-After` is everybody's, and what runs well goes on."""

from __future__ import annotations

import json
import random

import pytest

from protocols import errors
from protocols.errors import Phase, Scope
from transfer_engine.config import BreakerSettings
from transfer_engine.health import Health
from transfer_engine.model import Failure
from transfer_engine.places import Link, Place
from transfer_engine.reasons import Why

A, B = "https://a", "https://b"
AB = Link(A, B)
OUT, INTO = Place("out", A), Place("in", B)


def busy(scope: Scope = Scope.DESTINATION, wait_s: float = 30.0) -> Failure:
    error = errors.Overloaded("HTTP 503: busy", scope=scope, phase=Phase.PREPARATION, retry_after_s=wait_s, status=503)
    return Failure.of(error)


@pytest.fixture
def health() -> Health:
    return Health(BreakerSettings(), random.Random(0))


def start(health: Health, n: int, now: float) -> None:
    for _ in range(n):
        health.started(AB, "cms", now)


def limit(health: Health, place: Place) -> int | None:
    cap = health.cap(place)
    return None if cap is None else cap.limit


@pytest.mark.parametrize(
    ("scope", "places"), [(Scope.SOURCE, {OUT}), (Scope.DESTINATION, {INTO}), (Scope.TRANSFER, {OUT, INTO})]
)
def test_the_direction_that_asked_is_paused_for_everybody(health: Health, scope: Scope, places: set[Place]) -> None:
    start(health, 1, 0.0)
    assert health.observe(AB, "cms", busy(scope), 1.0, began_at=0.0) == places
    caps = health.caps()
    assert set(caps) == places
    for cap in caps.values():
        assert (cap.limit, cap.reason.code, cap.reason.until) == (0, Why.PAUSE, 31.0)
    assert health.next_change_at() == 31.0
    assert not health.tick(30.9)
    assert health.tick(31.0) == places
    assert {cap.limit for cap in health.caps().values()} == {1}


def test_from_nothing_it_doubles(health: Health) -> None:
    start(health, 1, 0.0)
    health.observe(AB, "cms", busy(), 1.0, began_at=0.0)
    health.tick(31.0)
    limits = []
    while (now := limit(health, INTO)) is not None:
        limits.append(now)
        start(health, 1, 40.0)
        health.observe(AB, "cms", None, 41.0, began_at=40.0)
    assert limits == [1, 2, 4, 8, 16, 32, 64]


def test_what_runs_well_goes_on_and_is_replaced(health: Health) -> None:
    """60 begin, 40 of them are refused: 20 run, and as one ends another may begin."""
    start(health, 60, 0.0)
    for _ in range(40):
        health.observe(AB, "cms", busy(), 1.0, began_at=0.0)
    assert limit(health, INTO) == 20
    health.observe(AB, "cms", None, 5.0, began_at=0.0)
    assert limit(health, INTO) == 20
    cap = health.cap(INTO)
    assert cap is not None
    assert cap.reason.used == 19
    assert "no more than 20 run meanwhile" in cap.reason.text
    health.tick(31.0)
    assert limit(health, INTO) == 21


def test_a_storage_that_takes_nothing_more_runs_dry(health: Health) -> None:
    start(health, 3, 0.0)
    health.observe(AB, "cms", busy(), 1.0, began_at=0.0)
    for now in (2.0, 3.0):
        health.observe(AB, "cms", None, now, began_at=0.0)
        start(health, 1, now)
        health.observe(AB, "cms", busy(), now, began_at=now)
    assert limit(health, INTO) == 0


def test_a_longer_pause_holds_and_an_absurd_one_does_not(health: Health) -> None:
    start(health, 3, 0.0)
    health.observe(AB, "cms", busy(wait_s=100), 1.0, began_at=0.0)
    health.observe(AB, "cms", busy(wait_s=10), 1.0, began_at=0.0)
    assert health.next_change_at() == 101.0
    health.observe(AB, "cms", busy(wait_s=1e9), 1.0, began_at=0.0)
    assert health.next_change_at() == 901.0


def test_refusals_are_not_the_transfers_fault_and_close_nothing(health: Health) -> None:
    for n in range(200):
        start(health, 1, float(n))
        health.observe(AB, "cms", busy(), float(n), began_at=float(n))
        assert health.excuses(AB, "cms", busy(), began_at=float(n))
    assert {row.state for row in health.report()} == {"paused"}


@pytest.mark.parametrize("room", [1, 5, 20, 50])
def test_a_busy_storage_loses_next_to_nothing(room: int) -> None:
    """A storage that takes `room` copies of 20 s and refuses more for 30 s is kept full for half an hour."""
    health, rng = Health(BreakerSettings(), random.Random(1)), random.Random(2)
    running: list[tuple[float, float]] = []
    now, busy_s, n_refused, n_active = 0.0, 0.0, 0, 0
    while now < 1800:
        cap = limit(health, INTO)
        while n_active < (60 if cap is None else min(cap, 60)):
            health.started(AB, "cms", now)
            if len(running) < room:
                running.append((now + rng.uniform(10, 30), now))
                n_active += 1
            else:
                health.observe(AB, "cms", busy(), now, began_at=now)
                n_refused += 1
                cap = limit(health, INTO)
        running.sort()
        change = health.next_change_at()
        following = min(running[0][0], change if change is not None else 1e9)
        busy_s += (following - now) * len(running)
        now = following
        if running[0][0] <= now:
            _, began_at = running.pop(0)
            n_active -= 1
            health.observe(AB, "cms", None, now, began_at=began_at)
        health.tick(now)
    assert busy_s >= 0.97 * room * 1800
    assert n_refused <= 2 * 1800 / 30 + 2


def test_a_restart_remembers(health: Health) -> None:
    start(health, 2, 0.0)
    health.observe(AB, "cms", busy(), 1.0, began_at=0.0)
    after = Health(BreakerSettings(), random.Random(0))
    assert after.load(json.loads(json.dumps(health.dump())), 2.0) == {INTO}
    assert limit(after, INTO) == 1
    assert after.next_change_at() == 31.0
