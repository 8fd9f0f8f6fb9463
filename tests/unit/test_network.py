"""Bandwidth is shared max-min fairly, nothing more goes through a capacity than it has, nothing is left idle."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.simulation.network import Network
from transfer_engine.simulation.sharing import Capacity, Group, share

CAPACITIES = st.lists(st.floats(1.0, 1e9), min_size=1, max_size=6)


@st.composite
def problems(draw):
    capacities = draw(CAPACITIES)
    some = st.sets(st.integers(0, len(capacities) - 1), min_size=1).map(lambda s: tuple(sorted(s)))
    limits = st.one_of(st.just(math.inf), st.floats(0.5, 1e9))
    groups = draw(st.lists(st.builds(Group, st.integers(1, 50), some, limits), min_size=1, max_size=12))
    return groups, capacities


def used(groups, rates, capacity):
    return sum(g.n * r for g, r in zip(groups, rates, strict=True) if capacity in g.capacities)


@given(problems())
def test_nothing_carries_more_than_it_can(problem):
    groups, capacities = problem
    rates = share(groups, capacities)
    for index, capacity in enumerate(capacities):
        assert used(groups, rates, index) <= capacity * (1 + 1e-9)
    assert all(r <= g.limit_bytes_s for g, r in zip(groups, rates, strict=True))


@given(problems())
def test_every_flow_has_its_limit_or_a_full_capacity_where_nobody_has_more(problem):
    """The definition of max-min fairness by bottlenecks; it includes that no capacity is left idle."""
    groups, capacities = problem
    rates = share(groups, capacities)
    for group, rate in zip(groups, rates, strict=True):
        if rate >= group.limit_bytes_s * (1 - 1e-9):
            continue
        assert any(
            used(groups, rates, c) >= capacities[c] * (1 - 1e-6)
            and all(r <= rate * (1 + 1e-6) for g, r in zip(groups, rates, strict=True) if c in g.capacities)
            for c in group.capacities
        )


def test_disks_serve_best_with_one_stream_a_head():
    disk = Capacity(bytes_s=100.0, heads=4, thrash=1.0)
    assert [disk.goodput(n) for n in (1, 4, 8, 12)] == [25.0, 100.0, 50.0, pytest.approx(100 / 3)]
    assert max(range(1, 60), key=disk.goodput) == 4
    assert Capacity(bytes_s=100.0).goodput(1000) == 100.0


@st.composite
def histories(draw):
    """Flows (start, size, lane) over three lanes on two pipes, some with a limit; and changes of capacity."""
    flows = draw(st.lists(st.tuples(st.floats(0, 50), st.floats(1, 1000), st.integers(0, 2)), min_size=1, max_size=15))
    changes = draw(st.lists(st.tuples(st.floats(0, 50), st.floats(1, 100)), max_size=3))
    limit = draw(st.sampled_from([math.inf, 3.0, 40.0]))
    heads = draw(st.sampled_from([None, 2, 5]))
    return flows, changes, limit, heads


def network(limit, heads):
    net = Network({"x": Capacity(bytes_s=100.0), "y": Capacity(bytes_s=30.0, heads=heads, thrash=0.5)})
    return net, [net.lane(["x"], limit), net.lane(["y"], limit), net.lane(["x", "y"], limit)]


def play(history, *, shortcuts):
    """Flow → when it ended."""
    flows, changes, limit, heads = history
    net, lanes = network(limit, heads)
    todo = sorted([(at, 0, size, lane) for at, size, lane in flows] + [(at, 1, rate, 0) for at, rate in changes])
    ends, names, now = {}, {}, 0.0
    while todo or names:
        net._stale = net._stale or not shortcuts
        following = net.settle(now)
        if todo and todo[0][0] <= following:
            now, kind, value, lane = todo.pop(0)
            if kind:
                net.set_capacity("x", value)
            else:
                names[net.start(lanes[lane], value, now)] = (now, value, lane)
        else:
            assert following < math.inf
            now = following
            for flow in net.ended(now):
                ends.setdefault(names.pop(flow), []).append(now)
    return ends


@given(histories())
def test_shortcuts_change_nothing(history):
    """Leaving rates alone where nobody can notice gives the same ends as sharing anew at every change."""
    quick, thorough = play(history, shortcuts=True), play(history, shortcuts=False)
    assert quick.keys() == thorough.keys()
    for key, found in quick.items():
        assert found == pytest.approx(thorough[key], rel=1e-6, abs=1e-5)


def test_a_flow_moves_what_it_was_given():
    net, lanes = network(math.inf, None)
    first = net.start(lanes[0], 1000, 0.0)
    assert net.settle(0.0) == pytest.approx(10.0)
    second = net.start(lanes[0], 100, 2.0)
    assert net.settle(2.0) == pytest.approx(4.0)
    assert net.moved(first, 2.0) == pytest.approx(200)
    assert net.ended(4.0) == [second]
    assert net.settle(4.0) == pytest.approx(11.0)
    assert net.stop(first, 5.0) == pytest.approx(400)
    assert net.settle(5.0) == math.inf


def test_without_capacity_nothing_ends():
    net, lanes = network(math.inf, None)
    flow = net.start(lanes[0], 1000, 0.0)
    net.set_capacity("x", 0.0)
    assert net.settle(0.0) == math.inf
    net.set_capacity("x", 10.0)
    assert net.settle(60.0) == pytest.approx(160.0)
    assert net.moved(flow, 100.0) == pytest.approx(400)
