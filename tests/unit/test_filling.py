"""Division of slots in the long run: caps, weights, no slot left over that somebody could use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.filling import TOP, Filling, Seat, Tree

ONE = Tree(vos=[(0, 1.0)], activities=[(0, 1.0)])


def fill(tree: Tree, seats: list[Seat], demand: list[float], room: list[float]) -> list[float]:
    return Filling(tree, seats).fill(range(len(seats)), demand, list(room))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tree, list[Seat], list[float], list[float]]:
    weights = st.floats(0.1, 100)
    n_sites, n_vos, n_activities, n_places = (draw(st.integers(1, 4)) for _ in range(4))
    tree = Tree(
        vos=[(draw(st.integers(0, n_sites - 1)), draw(weights)) for _ in range(n_vos)],
        activities=[(draw(st.integers(0, n_vos - 1)), draw(weights)) for _ in range(n_activities)],
    )
    seats = draw(
        st.lists(
            st.builds(
                Seat,
                activity=st.integers(0, n_activities - 1),
                priority=st.integers(1, 5),
                places=st.sets(st.integers(0, n_places - 1)).map(tuple),
            ),
            min_size=1,
            max_size=12,
        )
    )
    demand = [float(draw(st.integers(0, 50))) for _ in seats]
    room = [float(draw(st.integers(0, 60))) for _ in range(n_places)]
    return tree, seats, demand, room


@given(problems())
def test_no_place_and_no_demand_is_exceeded_and_nothing_is_left_over(
    problem: tuple[Tree, list[Seat], list[float], list[float]],
) -> None:
    tree, seats, demand, room = problem
    slots = fill(tree, seats, demand, room)
    used = [sum(x for seat, x in zip(seats, slots, strict=True) if p in seat.places) for p in range(len(room))]
    for n, limit in zip(used, room, strict=True):
        assert n <= limit * (1 + 1e-6) + 1e-6
    for seat, n, most in zip(seats, slots, demand, strict=True):
        assert 0 <= n <= most * (1 + 1e-9)
        if n < most * (1 - 1e-6):
            assert any(used[p] >= room[p] * (1 - 1e-6) - 1e-6 for p in seat.places)


@given(problems())
def test_equal_input_gives_equal_output(problem: tuple[Tree, list[Seat], list[float], list[float]]) -> None:
    assert fill(*problem) == fill(*problem)


@given(problems(), st.integers(1, 30))
def test_more_room_at_one_destination_takes_from_nobody(
    problem: tuple[Tree, list[Seat], list[float], list[float]], more: int
) -> None:
    tree, seats, demand, room = problem
    tree = Tree(vos=[(0, weight) for _, weight in tree.vos], activities=tree.activities)
    seats = [Seat(seat.activity, seat.priority, (0,)) for seat in seats]
    before = fill(tree, seats, demand, [room[0]])
    after = fill(tree, seats, demand, [room[0] + more])
    # A level rises in steps of a tenth, so that who stops on the way may differ by as much.
    for one, other in zip(before, after, strict=True):
        assert other >= one * 0.9 - 1e-6


def test_slots_stand_in_the_ratio_of_the_weights() -> None:
    tree = Tree(vos=[(0, 3.0), (0, 1.0)], activities=[(0, 1.0), (0, 4.0), (1, 7.0)])
    seats = [Seat(0, 3, (0,)), Seat(1, 3, (0,)), Seat(2, 3, (0,))]
    assert fill(tree, seats, [1000.0] * 3, [40.0]) == pytest.approx([6.0, 24.0, 10.0])


def test_what_one_cannot_use_goes_to_its_nearest_relatives() -> None:
    tree = Tree(vos=[(0, 1.0), (0, 1.0)], activities=[(0, 1.0), (0, 1.0), (1, 1.0)])
    seats = [Seat(0, 3, (0,)), Seat(1, 3, (0,)), Seat(2, 3, (0,))]
    assert fill(tree, seats, [2.0, 1000.0, 1000.0], [40.0]) == pytest.approx([2.0, 18.0, 20.0])
    assert fill(tree, seats, [2.0, 2.0, 1000.0], [40.0]) == pytest.approx([2.0, 2.0, 36.0])


def test_destinations_take_turns_at_a_source() -> None:
    tree = Tree(vos=[(0, 1.0), (1, 9.0)], activities=[(0, 1.0), (1, 1.0)])
    seats = [Seat(0, 3, (0,)), Seat(1, 3, (0,))]
    assert fill(tree, seats, [1000.0] * 2, [40.0]) == pytest.approx([20.0, 20.0])


def test_a_lower_priority_gets_a_little_and_does_not_starve() -> None:
    seats = [Seat(0, 5, (0,)), Seat(0, 1, (0,))]
    high, low = fill(ONE, seats, [1000.0] * 2, [22.0])
    assert high / low == pytest.approx(TOP)
    assert fill(ONE, seats, [3.0, 1000.0], [22.0]) == pytest.approx([3.0, 19.0], rel=0.01)


def test_many_lanes_cost_few_rounds() -> None:
    n = 5000
    filling = Filling(ONE, [Seat(0, 3, (0, 1 + i % 50)) for i in range(n)])
    filling.fill(range(n), [float(1 + i % 97) for i in range(n)], [3000.0] + [90.0] * 50)
    assert filling.visits <= 8 * n
