"""The figures that a simulation reports: fairness, waits, series, overshoot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.config import Limits, Shares
from transfer_engine.limits import LimitTable
from transfer_engine.places import Link
from transfer_engine.shares import ShareTable
from transfer_engine.simulation import namespace
from transfer_engine.simulation.bound import Demand
from transfer_engine.simulation.fairness import Fairness, Look, jain
from transfer_engine.simulation.luck import NOTHING, Lost, Luck
from transfer_engine.simulation.oracle import Oracle, Service, Waits
from transfer_engine.simulation.plant import Plant
from transfer_engine.simulation.scenario import parse
from transfer_engine.simulation.series import POINTS_MAX, Series

A, B = Link("sim://a", "sim://d"), Link("sim://b", "sim://d")


def fairness(**shares):
    limits = Limits(endpoint_outbound=10, endpoint_inbound=20)
    return Fairness(ShareTable.of(Shares(**shares)), LimitTable.of(limits), 600.0)


def play(found, *, backlog, active, running, looks=11, emptied=(), per_minute=10):
    """`looks` samples a minute apart, everything constant; each slot finishes `per_minute` files."""
    services = {key: Service(running=n) for key, n in running.items()}
    for minute in range(looks):
        gone = frozenset(emptied if minute == 5 else ())
        look = Look(now=60.0 * minute, backlog=backlog, active=active, services=services, moving={}, emptied=gone)
        found.look(look)
        for service in services.values():
            service.n_files += service.running * per_minute
    return found


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=8))
def test_jain_is_one_for_equals_and_at_least_one_over_n(values):
    assert 1 / len(values) - 1e-9 <= jain(values) <= 1 + 1e-9
    assert jain([values[0]] * len(values)) == pytest.approx(1)


def test_shares_that_hold_give_one():
    found = play(
        fairness(vos={"x": 2}),
        backlog={(A, "x", "p"): 5, (A, "y", "p"): 5},
        active={A: 9},
        running={("d", "x", "p"): 6, ("d", "y", "p"): 3},
    )
    assert (found.vos.n_windows, found.vos.lowest) == (1, pytest.approx(1.0))
    assert found.deviation == pytest.approx(0)


def test_a_share_of_a_few_transfers_cannot_be_kept_exactly():
    found = play(
        fairness(vos={"x": 100}),
        backlog={(A, "x", "p"): 5, (A, "y", "p"): 5},
        active={A: 9},
        running={("d", "x", "p"): 9, ("d", "y", "p"): 0},
        per_minute=1,
    )
    assert found.vos.n_windows == 0, "a hundredth of 90 transfers is less than one"
    starved = play(
        fairness(vos={"x": 2}),
        backlog={(A, "x", "p"): 5, (A, "y", "p"): 5},
        active={A: 9},
        running={("d", "x", "p"): 9, ("d", "y", "p"): 0},
        per_minute=1,
    )
    assert starved.vos.lowest < 0.9, "a third of them is many"


def test_shares_that_do_not_hold_are_seen():
    found = play(
        fairness(activities={"x": {"p": 3}}),
        backlog={(A, "x", "p"): 5, (A, "x", "q"): 5, (A, "y", "p"): 1},
        active={A: 10},
        running={("d", "x", "p"): 4, ("d", "x", "q"): 4, ("d", "y", "p"): 0},
    )
    assert found.vos.lowest == pytest.approx(0.5)
    assert found.activities.lowest == pytest.approx(jain([4 / 3, 4]))
    assert "x: p, q" in found.activities.worst
    assert found.deviation == pytest.approx(4)
    assert found.deviation_allowed == 2 + found.limits.of_inbound("sim://d")


def test_who_could_not_have_had_more_is_not_compared():
    """The source of one VO is at its limit; the other one has a source of its own."""
    backlog = {(A, "x", "p"): 5, (B, "y", "p"): 5}
    running = {("d", "x", "p"): 10, ("d", "y", "p"): 2}
    assert play(fairness(), backlog=backlog, active={A: 10, B: 2}, running=running).vos.n_windows == 0
    assert play(fairness(), backlog=backlog, active={A: 9, B: 2}, running=running).vos.n_windows == 1


def test_who_has_nothing_waiting_is_not_compared():
    running = {("d", "x", "p"): 9, ("d", "y", "p"): 1}
    assert play(fairness(), backlog={(A, "x", "p"): 5}, active={A: 9}, running=running).vos.n_windows == 0


def test_who_had_nothing_left_for_a_moment_is_not_compared():
    """It may have work again at each look: all of it was begun in between."""
    backlog = {(A, "x", "p"): 5, (A, "y", "p"): 5}
    running = {("d", "x", "p"): 9, ("d", "y", "p"): 1}
    found = play(fairness(), backlog=backlog, active={A: 9}, running=running, emptied=[("d", "y")])
    assert found.vos.n_windows == 0
    found = play(fairness(), backlog=backlog, active={A: 9}, running=running, emptied=[("d", "z")])
    assert found.vos.n_windows == 1


def test_windows_that_are_not_over_do_not_count():
    backlog = {(A, "x", "p"): 5, (A, "y", "p"): 5}
    assert play(fairness(), backlog=backlog, active={}, running={}, looks=10).vos.n_windows == 0


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=100), st.sampled_from([0.5, 0.95, 1.0]))
def test_percentiles_are_exact_to_two_percent(values, part):
    waits = Waits()
    for value in values:
        waits.add(value)
    exact = sorted(values)[max(-(-round(part * 100) * len(values) // 100) - 1, 0)]
    assert exact * (1 - 1e-9) <= waits.percentile(part) <= exact * 1.0201


def test_without_waits_percentiles_are_zero():
    assert Waits().percentile(0.5) == 0


def test_series_stay_small_and_keep_their_totals():
    series = Series()
    for n in range(3 * POINTS_MAX):
        series.add(float(n + 1), {"bytes x": 10.0 * (n + 1)})
    assert len(series.at_s) <= POINTS_MAX + 1
    rates = series.rates("bytes", "x")
    assert rates == pytest.approx([10.0] * len(rates))
    assert series.values("bytes", "none") == [0] * len(rates)


@pytest.mark.parametrize(
    ("active", "over"), [({A: 10, B: 10}, 0), ({A: 11}, 1), ({A: 12, B: 10}, 2), ({Link("sim://b", "sim://e"): 3}, 0)]
)
def test_slots_beyond_a_limit_are_seen(active, over):
    oracle = Oracle([], LimitTable.of(Limits(endpoint_outbound=10, endpoint_inbound=20)))
    oracle.slots(active)
    assert oracle.overshoot == over


# The lower bound


def demand(files, *, links=(), limits=None, **endpoints):
    """The bound of (at, source, destination, bytes) done between storages of 100 bytes/s without latencies."""
    rate = {"in_bytes_s": 100, "out_bytes_s": 100, "latency_s": 0}
    data = {
        "name": "bound",
        "endpoints": {name: rate | endpoints.get(name, {}) for name in "abcd"},
        "links": list(links),
        "limits": limits or {},
        "streams": [
            {
                "name": "s",
                "vo": "v",
                "arrivals": {"kind": "at-once", "files": 1},
                "size": {"kind": "fixed", "bytes": 1},
                "route": {"sources": ["a"], "destinations": ["b"]},
            }
        ],
    }
    scenario = parse(data)
    found = Demand(scenario, Plant(scenario))
    for row in files:
        found.add(*row)
    return found.bound(LimitTable.of(scenario.engine_settings().limits))


def approx(end_s, due_to):
    return pytest.approx(end_s), due_to


def parts(bound):
    return bound.end_s, bound.due_to


def test_a_capacity_bounds_all_that_goes_through_it():
    files = [(0.0, "a", "d", 3000), (0.0, "b", "d", 3000), (0.0, "c", "b", 100)]
    assert parts(demand(files)) == approx(60.0, "in d")


def test_what_arrives_late_has_to_go_through_after_it():
    files = [(0.0, "a", "d", 100), (100.0, "a", "d", 500), (100.0, "b", "d", 500)]
    assert parts(demand(files)) == approx(110.0, "in d")


def test_what_is_asked_first_comes_before_the_first_byte():
    ends = {"a": {"latency_s": 1}, "d": {"latency_s": 2, "overhead_s": 4}}
    assert parts(demand([(0.0, "a", "d", 1000)], **ends)) == approx(19.0, "the longest single file")


def test_a_capacity_carries_no_more_than_its_links_bring():
    """b is dead when d is well, and the other way round: 100 s pass before anything moves."""
    ends = {
        "b": {"faults": [{"kind": "dead", "from_s": 0, "to_s": 50}]},
        "d": {"faults": [{"kind": "dead", "from_s": 50, "to_s": 100}]},
    }
    assert demand([(0.0, "b", "d", 400), (0.0, "b", "d", 600)], **ends).end_s == pytest.approx(110.0)


def test_slots_bound_what_streams_can_bring():
    files = [(0.0, "a", "d", 100)] * 10 + [(0.0, "b", "d", 100)] * 10
    ends = {"d": {"stream_bytes_s": 10, "latency_s": 0.5}}
    # Each slot is held for 0.5 + 0.5 + 10 + 0.5 s; the last look comes after the end.
    found = demand(files, limits={"endpoint_inbound": 4}, **ends)
    assert parts(found) == approx(20 * 11.5 / 4 - 0.5, "slots in d")


def test_slots_of_a_dead_storage_do_not_count():
    files = [(0.0, "a", "d", 100)] * 8
    dead = {"faults": [{"kind": "dead", "from_s": 10, "to_s": 1000}], "stream_bytes_s": 10}
    assert demand(files, limits={"endpoint_inbound": 4}, d=dead).end_s == pytest.approx(1010.0)


def test_one_copy_gets_no_more_than_one_head_gives():
    assert demand([(0.0, "a", "d", 1000)], d={"heads": 4}).end_s == pytest.approx(40.0)


def test_the_longest_file_follows_the_capacity():
    slow = [{"source": "a", "destination": "d", "faults": [{"kind": "slow", "from_s": 5, "to_s": 25, "factor": 0.1}]}]
    assert demand([(0.0, "a", "d", 1000)], links=slow).end_s == pytest.approx(28.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 10.0, 25.0]), st.sampled_from("ab"), st.sampled_from("cd"), st.integers(1, 500)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_more_work_never_lowers_the_bound(files):
    ends = {"c": {"latency_s": 0.1, "heads": 2}, "d": {"stream_bytes_s": 20}}
    bounds = [demand(files[:n], limits={"link": 3}, **ends).end_s for n in range(1, len(files) + 1)]
    assert bounds == sorted(bounds)


def test_nothing_done_has_no_end():
    assert parts(demand([])) == (0.0, "nothing was done")


def lucky(*faults):
    """Chance on the way from a to d."""
    rate = {"in_bytes_s": 100, "out_bytes_s": 100}
    scenario = parse(
        {
            "name": "luck",
            "endpoints": {"a": rate, "d": rate | {"faults": list(faults)}},
            "streams": [
                {
                    "name": "s",
                    "vo": "v",
                    "arrivals": {"kind": "at-once", "files": 1},
                    "size": {"kind": "fixed", "bytes": 1},
                    "route": {"sources": ["a"], "destinations": ["d"]},
                }
            ],
        }
    )
    return Luck(7, Plant(scenario))


def sample(number, size=1000):
    path = namespace.parse(namespace.url("a", "a", "s", number, size))
    assert path is not None
    return path


def test_what_fails_for_everybody_is_known_beforehand():
    luck = lucky({"kind": "errors", "chance": 0.4})
    every = [luck.lost(sample(n), "d") for n in range(500)]
    assert sum(row.n_attempts for row in every) / 500 == pytest.approx(0.4 / 0.6, rel=0.2)
    assert not any(row.n_bytes for row in every if not row.n_attempts)
    assert sum(row.n_bytes for row in every) / sum(row.n_attempts for row in every) == pytest.approx(500, rel=0.2)
    for n, row in enumerate(every):
        draws = [luck.draw(sample(n), "d", str(attempt), 1e6) for attempt in range(row.n_attempts + 1)]
        assert [draw.error is None for draw in draws] == [False] * row.n_attempts + [True]


@pytest.mark.parametrize(
    ("fault", "n_bytes"),
    [
        ({"kind": "errors", "chance": 0.9, "error": "unavailable"}, 0),
        ({"kind": "errors", "chance": 0.9, "error": "checksum"}, 1000),
    ],
    ids=str,
)
def test_what_one_failed_attempt_moves(fault, n_bytes):
    luck = lucky(fault)
    for n in range(20):
        row = luck.lost(sample(n), "d")
        assert row.n_bytes == n_bytes * row.n_attempts


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [{"kind": "errors", "chance": 0.9, "from_s": 10}],
        [{"kind": "errors", "chance": 0.9, "to_s": 10}],
        [{"kind": "errors", "chance": 0.9}, {"kind": "busy", "above": 3}],
    ],
    ids=["none", "later", "for a while", "with others"],
)
def test_luck_that_depends_on_the_time_bounds_nothing(faults):
    luck = lucky(*faults)
    assert {luck.lost(sample(n), "d") for n in range(20)} == {NOTHING}


def test_attempts_that_have_to_fail_count_in_the_bound():
    files = [(0.0, "a", "d", 1000, Lost(2, 500)), (0.0, "b", "d", 1000, NOTHING)]
    assert parts(demand(files)) == approx(25.0, "in d")
