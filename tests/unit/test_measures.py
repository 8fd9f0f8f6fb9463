"""Measures: means that fade, line through sizes, neighbours as a substitute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.measures import HALF_LIFE_S, SLOT_S_DEFAULT, LinkMeasures, Measures
from transfer_engine.places import Link

attempts = st.lists(
    st.tuples(st.floats(0, 1000), st.floats(0.01, 1e5), st.integers(0, 1 << 45), st.booleans()), min_size=1, max_size=30
)


def test_nothing_is_known_of_a_new_link() -> None:
    fresh = LinkMeasures()
    assert fresh.n_samples(5) == 0
    assert not fresh.known(5)
    assert (fresh.slot_s, fresh.biased_slot_s, fresh.file_bytes, fresh.file_bytes_s, fresh.cost()) == (None,) * 5
    assert fresh.success(5) is None
    assert fresh.goodput_bytes_s(5) is None


def test_means_of_what_ended_together() -> None:
    m = LinkMeasures()
    m.ended(100, 10.0, 1000, True)
    m.ended(100, 30.0, 0, False)
    assert m.slot_s == 20.0
    assert m.biased_slot_s == (100 + 900) / 40
    assert m.file_bytes == 1000
    assert m.file_bytes_s == 100
    assert m.bytes_per_slot_s == 25
    assert m.success(100) == 0.5
    assert m.n_samples(100) == 2


def test_half_is_forgotten_in_a_half_life_but_means_stay() -> None:
    m = LinkMeasures()
    m.ended(0, 10.0, 500, True)
    assert m.n_samples(HALF_LIFE_S) == pytest.approx(0.5)
    assert m.slot_s == 10.0
    m.ended(HALF_LIFE_S, 40.0, 500, False)
    assert m.slot_s == pytest.approx((0.5 * 10 + 40) / 1.5)
    assert m.success(HALF_LIFE_S) == pytest.approx(1 / 3)


def test_a_bad_hour_is_unknown_the_next_day() -> None:
    m = LinkMeasures()
    for second in range(1000):
        m.ended(second, 1.0, 0, False)
    assert m.success(1000) == 0
    assert m.success(86_400) is None
    assert m.goodput_bytes_s(86_400) is None


@pytest.mark.parametrize("every_s", [0.1, 1.0, 20.0])
def test_goodput_of_a_steady_link_is_right_from_the_start(every_s: float) -> None:
    m = LinkMeasures()
    n = 0
    while n * every_s < 1500:
        n += 1
        m.ended(n * every_s, every_s, 1000, True)
        if n * every_s > 100:
            assert m.goodput_bytes_s(n * every_s) == pytest.approx(1000 / every_s, rel=0.15)


def test_goodput_falls_when_nothing_ends() -> None:
    m = LinkMeasures()
    for second in range(1, 600):
        m.ended(second, 1.0, 1000, True)
    now, later = m.goodput_bytes_s(600), m.goodput_bytes_s(780)
    assert now is not None
    assert later == pytest.approx(now / 2, rel=0.15)


def test_the_cost_of_a_transfer_and_of_a_byte_are_told_apart_when_sizes_differ() -> None:
    m = LinkMeasures()
    for i in range(50):
        size = (i % 5) * 10**9
        m.ended(i, 2.0 + size / 1e8, size, True)
    fixed, per_byte = m.cost() or (0, 0)
    assert fixed == pytest.approx(2.0, rel=1e-6)
    assert per_byte == pytest.approx(1e-8, rel=1e-6)


def test_sizes_that_are_alike_put_everything_on_the_bytes() -> None:
    m = LinkMeasures()
    for i in range(5):
        m.ended(i, 12.0, 10**9, True)
    assert m.cost() == pytest.approx((0.0, 1.2e-8))
    empty = LinkMeasures()
    empty.ended(0, 3.0, 0, True)
    assert empty.cost() == (3.0, 0.0)


@given(attempts)
def test_every_figure_is_inside_what_was_seen(rows: list[tuple[float, float, int, bool]]) -> None:
    m = LinkMeasures()
    now = 0.0
    for passed, slot_s, n_bytes, ok in rows:
        now += passed
        m.ended(now, slot_s, n_bytes, ok)
    durations = [row[1] for row in rows]
    assert m.slot_s is not None
    assert m.biased_slot_s is not None
    assert min(durations) * (1 - 1e-6) <= m.slot_s <= m.biased_slot_s * (1 + 1e-6)
    assert m.biased_slot_s <= max(durations) * (1 + 1e-6)
    assert 0 <= m.n_samples(now) <= len(rows)
    assert 0 <= (m.success(now) or 0) <= 1
    cost = m.cost()
    assert cost is None or (cost[0] >= 0 and cost[1] >= 0)
    goodput = m.goodput_bytes_s(now)
    assert goodput is None or goodput >= 0


def test_a_new_link_is_like_those_it_shares_an_endpoint_with() -> None:
    measures = Measures()
    link = Link("https://a", "https://b")
    assert measures.slot_s(link) == SLOT_S_DEFAULT
    measures.ended(1, Link("https://a", "https://c"), 10.0, 1, ok=True)
    assert measures.slot_s(link) == 10.0
    measures.ended(1, Link("https://d", "https://b"), 30.0, 1, ok=True)
    assert measures.slot_s(link) == 20.0
    assert measures.of(link) is None
    measures.ended(2, link, 5.0, 1, ok=False)
    assert measures.slot_s(link) == measures.biased_slot_s(link) == 5.0
    assert measures.slot_s(Link("https://x", "https://y")) == SLOT_S_DEFAULT


def test_links_of_the_past_take_no_memory() -> None:
    measures = Measures()
    old, new = Link("https://a", "https://b"), Link("https://a", "https://c")
    measures.ended(0, old, 1.0, 1, ok=True)
    measures.ended(86_400, new, 1.0, 1, ok=True)
    assert measures.forget(86_400) == 1
    assert len(measures) == 1
    assert (measures.of(old), measures.into("https://b")) == (None, None)
    assert measures.out_of("https://a") is not None
    measures.ended(86_401, old, 1.0, 1, ok=True)
    assert measures.into("https://b") is not None
