"""Shares: slots stand in the ratio of the weights, and over time everybody gets exactly its part."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.schedule_model import queues_of
from tests.unit.schedule_runs import Run, by_chance, jain, off, ten_seconds
from transfer_engine.config import Limits, LinkShares, Shares
from transfer_engine.model import Queue
from transfer_engine.shares import Account, ShareTable

WIDE = 10_000
weights_of = st.lists(st.floats(0.05, 50), min_size=2, max_size=6).map(
    lambda found: {f"vo{n}": weight for n, weight in enumerate(found)}
)


def into_one(slots: int, weights: dict[str, float], *, seed: int = 0, duration: object = ten_seconds) -> Run:
    """Everybody wants everything: one destination, each VO from a source of its own."""
    limits = Limits(endpoint_inbound=slots, endpoint_outbound=WIDE, link=WIDE, node=WIDE)
    run = Run(limits, Shares(vos=weights), seed=seed, duration=duration)  # type: ignore[arg-type]
    for queue in queues_of(("s1", "s2"), ("d",), tuple(weights)):
        run.backlog(queue)
    return run


@given(weights_of, st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_the_slots_held_are_within_one_transfer_of_the_weights(weights: dict[str, float], slots: int) -> None:
    run = into_one(slots, weights)
    run.decide()
    held = {vo: run.held[vo] for vo in weights}
    assert sum(held.values()) == slots
    # Webster: one divisor explains all numbers, so none is more than a transfer off.
    assert max((held[vo] - 0.5) / weight for vo, weight in weights.items()) <= min(
        (held[vo] + 0.5) / weight for vo, weight in weights.items()
    ) * (1 + 1e-9)


@pytest.mark.slow
@given(weights_of, st.integers(1, 12), st.integers(0, 100))
@settings(deadline=None, max_examples=25)
def test_over_time_everybody_gets_its_part(weights: dict[str, float], slots: int, seed: int) -> None:
    run = into_one(slots, weights, seed=seed)
    for _ in range(4):
        run.go(150)
        starts = {vo: float(sum(start.queue.vo == vo for start in run.starts)) for vo in weights}
        assert off(starts, weights) <= len(weights) + slots
        assert off(run.slot_s, weights) <= (len(weights) + slots) * 10.1


@pytest.mark.parametrize("slots", [1, 3, 10, 40])
def test_a_share_of_less_than_a_slot_is_got_over_time(slots: int) -> None:
    weights = {"big": 100.0, "small": 1.0}
    run = into_one(slots, weights)
    starts = run.go(2000)
    assert abs(starts["small"] - 2000 / 101) <= 2 + slots
    assert off(run.slot_s, weights) <= (2 + slots) * 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_currency_is_the_time_that_slots_are_held(seed: int) -> None:
    def duration(queue: Queue, rng: random.Random) -> float:
        return rng.expovariate(1 / 60) if queue.vo == "elephants" else rng.expovariate(1 / 2)

    weights = {"elephants": 1.0, "mice": 1.0, "others": 2.0}
    run = into_one(20, weights, seed=seed, duration=duration)
    run.go(6000)
    assert jain(run.slot_s, weights) > 0.995


@pytest.mark.slow
@pytest.mark.parametrize("slots", [4, 30])
def test_activities_share_what_their_vo_gets(slots: int) -> None:
    weights = {"prod": 3.0, "user": 1.0, "test": 0.2}
    shares = Shares(vos={"a": 2.0, "b": 1.0}, activities={"a": weights})
    run = Run(Limits(endpoint_inbound=slots, endpoint_outbound=WIDE, link=WIDE, node=WIDE), shares)
    for queue in queues_of(("s1", "s2"), ("d",), ("a", "b"), tuple(weights)):
        run.backlog(queue)
    starts = run.go(1500)
    assert off(starts, {"a": 2.0, "b": 1.0}) <= 2 + slots
    assert off(starts, {f"a/{name}": weight for name, weight in weights.items()}) <= 3 + slots
    assert off(starts, {f"b/{name}": 1.0 for name in weights}) <= 3 + slots


def test_nobodys_share_is_kept_free_and_nobody_gets_credit_for_being_away() -> None:
    weights = {"here": 1.0, "late": 1.0}
    run = Run(Limits(endpoint_inbound=10, endpoint_outbound=WIDE, node=WIDE), Shares(vos=weights))
    here, late = queues_of(("s",), ("d",), ("here", "late"))
    run.backlog(here)
    run.go(500)
    assert run.held["here"] == 10
    run.backlog(late)
    starts = run.go(500)
    assert off(starts, weights) <= 2 + 10
    assert run.held["late"] == 5


def test_who_leaves_and_returns_is_neither_rewarded_nor_punished() -> None:
    run = Run(Limits(endpoint_inbound=6, endpoint_outbound=WIDE, node=WIDE), duration=by_chance)
    here, other = queues_of(("s",), ("d",), ("here", "other"))
    run.backlog(here)
    for _ in range(10):
        run.backlog(other, n=30)
        starts = run.go(60)
        assert starts["here"] >= 20
        assert starts["other"] >= 20


def test_an_account_counts_slot_seconds_per_weight() -> None:
    account = Account(2.0)
    account.change(3, 10.0)
    assert account.until(14.0) == 6.0
    account.change(-2, 14.0)
    assert account.until(20.0) == 9.0
    account.change(-1, 20.0)
    assert account.until(1000.0) == 9.0
    account.join(5.0, 1000.0)
    assert account.until(1000.0) == 9.0
    account.join(50.0, 1000.0)
    assert account.until(1000.0) == 50.0


def test_weights_as_fts_writes_them() -> None:
    table = ShareTable.of(
        Shares(
            vos={"atlas": 10.0, "public": 3.0},
            activities={"cms": {"prod": 5.0, "default": 2.0}},
            links=(
                LinkShares(source="S1", destination="D1", vos={"atlas": 60.0, "public": 40.0}),
                LinkShares(destination="d1", vos={"cms": 1.0}),
                LinkShares(source="s1", vos={"lhcb": 7.0}),
            ),
        )
    )
    assert table.group("s1", "d1") == ("s1", "d1")
    assert table.group("s9", "d1") == ("*", "d1")
    assert table.group("s1", "d9") == ("s1", "*")
    assert table.group("s9", "d9") == ("*", "*")
    assert (table.of_vo("atlas"), table.of_vo("cms")) == (10.0, 3.0)
    assert table.of_vo("atlas", ("s1", "d1")) == pytest.approx(1.2)
    assert table.of_vo("cms", ("s1", "d1")) == pytest.approx(0.8)
    assert table.of_vo("atlas", ("*", "d1")) == 1.0
    assert table.of_activity("cms", "prod") == 5.0
    assert table.of_activity("cms", "x") == 2.0
    assert table.of_activity("atlas", "x") == 1.0
