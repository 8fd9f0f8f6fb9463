"""The local search: it finds the peak of any goodput with one, and ends."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.seeking import GAIN_FEWER, SAME, TRIALS_MAX, Search
from transfer_engine.simulation.sharing import Capacity


def sought(
    goodput: Callable[[int], float], base: int, step: int, *, highest: int = 60, up_only: bool = False
) -> Search:
    search = Search(base, goodput(base), step, up_only=up_only)
    while (level := search.next(1, highest)) is not None:
        assert 1 <= level <= highest
        assert level != search.base
        search.judge(level, goodput(level))
    return search


@given(st.integers(1, 40), st.floats(0.2, 2.0), st.integers(1, 60), st.integers(1, 8))
def test_it_climbs_and_does_not_end_below_where_it_began(heads: int, thrash: float, base: int, step: int):
    disk = Capacity(bytes_s=1e9, heads=heads, thrash=thrash)
    found = sought(disk.goodput, base, step)
    assert found.n_trials <= TRIALS_MAX
    assert disk.goodput(found.base) >= (1 - SAME) * disk.goodput(base)


@given(st.integers(1, 40), st.floats(0.3, 2.0), st.floats(0.75, 1.3))
def test_from_near_it_finds_the_best(heads: int, thrash: float, off: float):
    disk = Capacity(bytes_s=1e9, heads=heads, thrash=thrash)
    base = max(1, round(heads * off))
    found = sought(disk.goodput, base, max(1, base // 8))
    assert disk.goodput(found.base) >= (1 - 2 * GAIN_FEWER) * 1e9


def test_a_plateau_is_climbed():
    assert sought(lambda n: 1e9, 10, 2).base == 60


def test_a_slope_is_not_climbed_in_small_steps():
    """Each step may lose a little against the best that was seen, all of them together no more."""
    assert sought(lambda n: 1e9 * 0.99 ** (n - 10), 10, 1).base == 11


def test_a_link_only_looks_up():
    tried = []

    def goodput(n: int) -> float:
        tried.append(n)
        return 1e9 / n

    assert sought(goodput, 10, 4, up_only=True).base == 10
    assert min(tried) == 10


def test_below_a_level_that_was_reached_in_proportion_nothing_is_tried():
    search = Search(8, 800.0, 1, seen={4: 400.0, 16: 500.0})
    assert search.next(1, 60) == 9
    search.judge(9, 750.0)
    assert search.next(1, 60) is None


def test_what_the_number_cannot_explain_is_strange():
    search = Search(10, 1000.0, 1)
    assert search.is_strange(11, 500.0)
    assert search.is_strange(11, 1500.0)
    assert search.is_strange(9, 500.0)
    assert search.is_strange(9, 1500.0)
    assert not search.is_strange(11, 1090.0)
    assert not search.is_strange(20, 520.0)
    assert not search.is_strange(9, 900.0)
    assert not search.is_strange(9, 500.0, slack=1.0)
