"""Choice of the replica: each strategy's order, what is unknown, and no going back and forth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from transfer_engine import submission
from transfer_engine.errors import Invalid
from transfer_engine.model import JobRequest, Transfer
from transfer_engine.selection import (
    CHOOSING,
    LEAST,
    STRATEGIES,
    LinkView,
    check,
    order,
    prefer,
    rank,
    spread,
)

rates = st.none() | st.floats(0, 1e10)
NAMES = ("https://a", "https://b", "https://c", "https://d")


def view_of(source: str) -> st.SearchStrategy[LinkView]:
    return st.builds(
        LinkView,
        source_se=st.just(source),
        ready=st.integers(0, 10**6),
        ready_bytes=st.integers(0, 10**16),
        active=st.integers(0, 500),
        success=st.none() | st.floats(0, 1),
        goodput_bytes_s=rates,
        file_bytes_s=rates,
        overhead_s=st.floats(0, 100),
        slot_s=st.none() | st.floats(0.01, 1e5),
        start_s=st.floats(0, 1e6) | st.just(math.inf),
        blocked=st.booleans(),
    )


views = st.integers(1, 4).flatmap(lambda n: st.tuples(*(view_of(name) for name in NAMES[:n])))
sizes = st.none() | st.integers(0, 1 << 45)
strategies = st.sampled_from(STRATEGIES)
choosing = st.sampled_from(CHOOSING)


def best(strategy: str, *given_views: LinkView, size_bytes: int | None = 10**9) -> str:
    sources = [view.source_se for view in given_views]
    return sources[order(strategy, sources, {v.source_se: v for v in given_views}, size_bytes)[0]]


A = LinkView(
    source_se="https://a", success=0.9, goodput_bytes_s=1e8, file_bytes_s=1e7, ready=10, ready_bytes=10**10, start_s=5.0
)
B = replace(A, source_se="https://b")


# Each strategy


@pytest.mark.parametrize(
    ("strategy", "better"),
    [
        ("queue", replace(B, ready=9)),
        ("success", replace(B, success=0.91)),
        ("throughput", replace(B, goodput_bytes_s=1.1e8)),
        ("file-throughput", replace(B, file_bytes_s=1.1e7)),
        ("pending-data", replace(B, ready_bytes=10**9)),
        ("waiting-time", replace(B, ready_bytes=10**9)),
        ("waiting-time", replace(B, goodput_bytes_s=2e8)),
        ("waiting-time-with-error", replace(B, success=1.0)),
        ("duration", replace(B, file_bytes_s=2e7)),
        ("duration", replace(B, success=1.0)),
        ("auto", replace(B, success=1.0)),
        ("auto", replace(B, file_bytes_s=2e7)),
        ("auto", replace(B, start_s=4.0)),
    ],
)
def test_what_a_strategy_looks_at_decides(strategy: str, better: LinkView) -> None:
    assert best(strategy, A, better) == "https://b"
    assert best("orderly", A, better) == "https://a"


@pytest.mark.parametrize("strategy", CHOOSING)
def test_equal_sources_keep_the_users_order(strategy: str) -> None:
    assert order(strategy, [B.source_se, A.source_se], {A.source_se: A, B.source_se: B}, None) == (0, 1)


def test_auto_takes_the_long_queue_that_moves_and_not_the_short_one_that_does_not() -> None:
    fast = LinkView(source_se="https://a", ready=1000, start_s=20.0, file_bytes_s=1e8)
    slow = LinkView(source_se="https://b", ready=2, start_s=1.0, file_bytes_s=1e6)
    assert best("auto", slow, fast) == "https://a"
    assert best("auto", slow, fast, size_bytes=1000) == "https://b"
    assert best("queue", slow, fast) == "https://b"


# What is unknown


def test_an_unmeasured_link_is_tried_when_the_others_have_queues() -> None:
    known = LinkView(source_se="https://a", start_s=60.0, file_bytes_s=1e8, goodput_bytes_s=1e9, ready_bytes=10**12)
    new = LinkView(source_se="https://b")
    for strategy in ("auto", "duration", "waiting-time"):
        assert best(strategy, known, new) == "https://b"
    for strategy in ("throughput", "file-throughput"):
        assert best(strategy, known, new) == "https://a"
        assert best(strategy, new, known) == "https://b"


def test_an_unmeasured_link_with_a_queue_does_not_look_empty() -> None:
    known = LinkView(source_se="https://a", file_bytes_s=1e8)
    assert best("auto", LinkView(source_se="https://b", start_s=5.0), known) == "https://a"


def test_a_source_without_a_view_is_not_measured() -> None:
    busy = replace(A, start_s=100.0)
    assert order("auto", ["https://a", "https://z"], {busy.source_se: busy}, 10**9) == (1, 0)


@given(choosing, views, sizes)
def test_no_figure_makes_a_cost_infinite_or_negative(
    strategy: str, seen: tuple[LinkView, ...], size: int | None
) -> None:
    for fixed, per_byte in rank(strategy, [v for v in seen if v.start_s < math.inf]).values():
        assert 0 <= fixed < math.inf
        assert 0 <= per_byte < math.inf


# Order


@given(strategies, views, sizes)
def test_an_order_names_each_source_once_and_blocked_ones_last(
    strategy: str, seen: tuple[LinkView, ...], size: int | None
) -> None:
    sources = [view.source_se for view in seen]
    by_source = {view.source_se: view for view in seen}
    found = order(strategy, sources, by_source, size)
    assert sorted(found) == list(range(len(sources)))
    assert found == order(strategy, sources, by_source, size)
    shut = [by_source[sources[index]].shut for index in found]
    if strategy == "orderly":
        assert found == tuple(range(len(sources)))
    else:
        assert shut == sorted(shut)


@given(views, st.integers(0, 1 << 45), choosing)
def test_the_table_and_the_order_agree(seen: tuple[LinkView, ...], size: int, strategy: str) -> None:
    assume(not all(view.shut for view in seen))
    first = order(strategy, [v.source_se for v in seen], {v.source_se: v for v in seen}, size)[0]
    table = prefer(seen)[strategy]
    costs = {source: a + b * size for source, (a, b) in table.items()}
    assert costs[seen[first].source_se] == min(costs.values())


def test_two_replicas_at_one_storage_stay_in_order() -> None:
    assert order("auto", ["https://a", "https://b", "https://a"], {"https://b": replace(B, start_s=9.0)}, 1) == (
        0, 2, 1,
    )  # fmt: skip


# Moving what waits


@given(views, choosing, st.integers(0, 1 << 45))
def test_the_same_figures_never_move_a_file_there_and_back(
    seen: tuple[LinkView, ...], strategy: str, size: int
) -> None:
    def choice(current: str) -> str | None:
        costs = prefer(seen, current=current).get(strategy)
        return min(costs, key=lambda s: costs[s][0] + costs[s][1] * size) if costs else None

    for view in seen:
        there = choice(view.source_se)
        if there is not None and there != view.source_se:
            assert choice(there) != view.source_se


@given(views, choosing)
def test_blocked_sources_are_never_preferred(seen: tuple[LinkView, ...], strategy: str) -> None:
    table = prefer(seen, current=seen[0].source_se)
    shut = {view.source_se for view in seen if view.shut}
    assert (not table) == (len(shut) == len(seen))
    assert not shut & set(table.get(strategy, {}))


def test_a_small_gain_moves_nothing_and_a_large_one_does() -> None:
    here = replace(A, start_s=100.0)
    size = 10**7
    for start_s, moves in ((90.0, False), (75.0, True)):
        costs = prefer([here, replace(B, start_s=start_s)], current=here.source_se)["auto"]
        assert (min(costs, key=lambda s: costs[s][0] + costs[s][1] * size) != here.source_se) == moves


def test_seconds_alone_are_no_reason_to_move() -> None:
    here = LinkView(source_se="https://a", start_s=2.9, file_bytes_s=1e9)
    costs = prefer([here, LinkView(source_se="https://b", file_bytes_s=1e9)], current="https://a")["auto"]
    assert costs["https://a"][0] < costs["https://b"][0]
    assert set(LEAST) == set(CHOOSING)


def test_a_blocked_source_is_left_without_a_margin() -> None:
    here = replace(A, blocked=True)
    table = prefer([here, B], current=here.source_se)
    assert table == prefer([B])
    assert table["auto"] == rank("auto", [B])


@given(choosing, views, st.floats(0, 1e12), st.integers(0, 500))
def test_how_many_move_is_bounded(strategy: str, seen: tuple[LinkView, ...], size: float, n_max: int) -> None:
    moves = spread(strategy, seen[0], seen, size, n_max)
    assert sum(moves.values()) <= min(n_max, seen[0].ready)
    assert all(n > 0 for n in moves.values())
    assert not {view.source_se for view in seen if view.shut} & set(moves)
    assert seen[0].source_se not in moves
    if seen[0].shut and any(not view.shut for view in seen):
        assert sum(moves.values()) == min(n_max, seen[0].ready), "nothing starts here"


def test_queues_are_about_as_long_as_each_other_after_a_move() -> None:
    here = LinkView(source_se="https://a", ready=1000, start_s=100.0)
    there = LinkView(source_se="https://b", ready=100, start_s=10.0)
    n = spread("auto", here, [here, there], 0.0, 10_000)["https://b"]
    assert (1000 - n) / here.start_rate * 0.8 == pytest.approx((100 + n) / there.start_rate + LEAST["auto"], abs=0.3)
    assert spread("auto", replace(here, blocked=True), [there], 0.0, 10_000) == {"https://b": 1000}
    assert spread("auto", here, [here, replace(there, blocked=True)], 0.0, 10_000) == {}


def test_a_queue_that_is_shut_is_spread_over_all_others() -> None:
    here = LinkView(source_se="https://a", ready=300, blocked=True)
    others = [LinkView(source_se=f"https://{name}", starts_s=rate) for name, rate in (("b", 1.0), ("c", 2.0))]
    moves = spread("auto", here, others, 1e9, 1000)
    assert moves["https://b"] == pytest.approx(100, abs=2)
    assert moves["https://c"] == pytest.approx(200, abs=2)


def test_where_nothing_but_the_links_own_figure_counts_all_move() -> None:
    here = LinkView(source_se="https://a", ready=300, success=0.3)
    others = [LinkView(source_se="https://b", success=0.9), LinkView(source_se="https://c", success=0.8)]
    assert spread("success", here, others, 1e9, 1000) == {"https://b": 300}
    assert spread("success", others[1], [here, others[1]], 1e9, 1000) == {}


def test_a_large_submission_is_spread_over_its_sources() -> None:
    seen = {name: LinkView(source_se=name, slot_s=10.0, active=10, file_bytes_s=1e8) for name in NAMES[:2]}
    n = dict.fromkeys(NAMES[:2], 0)
    for _ in range(100):
        source = NAMES[order("auto", NAMES[:2], seen, 10**9)[0]]
        seen[source] = seen[source].queued(10**9)
        n[source] += 1
    assert n == {NAMES[0]: 50, NAMES[1]: 50}
    assert seen[NAMES[0]].ready_bytes == 50 * 10**9


# At the edge


def test_other_names_are_refused_in_ftss_words() -> None:
    request = JobRequest(transfers=(Transfer.of("https://a.org/f", "https://b.org/f", selection_strategy="dice"),))
    with pytest.raises(Invalid) as caught:
        submission.plan(request, now=0.0, new_id="x", schemes={"https"})
    assert caught.value.field == "files[0].selection_strategy"
    assert caught.value.message == "dice algorithm is not supported by Scheduler"
    for name in STRATEGIES:
        check(name, "x")
