"""Large files begin a few at a time: how many, when more, and for how long that is remembered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.pacing import FIRST, MEMORY_S, SILENT_S, Pace


def filled(pace: Pace, now: float, first: int = 0) -> int:
    """Start as many as may run; returns how many that are in all."""
    while pace.n_running < pace.limit(now):
        pace.started(first + pace.n_running, now)
    return pace.n_running


def test_two_begin_and_each_turn_of_markers_doubles_them():
    pace = Pace()
    seen = []
    for now in range(5):
        seen.append(filled(pace, float(now)))
        for file_id in list(pace.hidden):
            pace.shown(file_id, float(now))
    assert seen == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, 16 * FIRST]


def test_one_that_shows_itself_lets_no_more_than_twice_as_many_run():
    pace = Pace()
    filled(pace, 0.0)
    assert pace.shown(0, 1.0)
    assert not pace.shown(0, 1.0)
    assert not pace.shown(77, 1.0)
    assert pace.limit(1.0) == 2 * FIRST


def test_who_is_silent_for_long_counts_as_shown():
    pace = Pace()
    filled(pace, 0.0)
    assert not pace.look(SILENT_S - 0.1)
    assert pace.look(SILENT_S)
    assert not pace.look(SILENT_S)
    assert pace.limit(SILENT_S) == 2 * FIRST


def test_a_transfer_that_begins_again_is_silent_from_then_on():
    pace = Pace()
    pace.started(1, 0.0)
    pace.ended(1, 1.0)
    pace.started(1, 9.0)
    assert not pace.look(9.0 + SILENT_S - 0.1)
    assert pace.look(9.0 + SILENT_S)


def test_what_ran_well_is_remembered_for_a_while():
    pace = Pace()
    for now in range(4):
        filled(pace, float(now))
        for file_id in list(pace.hidden):
            pace.shown(file_id, float(now))
    for file_id in range(pace.n_running):
        pace.ended(file_id, 4.0)
    assert pace.n_running == 0
    assert pace.limit(3.0 + MEMORY_S) == 16 * FIRST
    assert pace.limit(3.1 + MEMORY_S) == FIRST


steps = st.lists(st.tuples(st.sampled_from(["start", "show", "end", "look"]), st.integers(0, 9), st.floats(0, 15)))


@given(steps)
def test_the_limit_is_between_the_first_and_twice_what_ever_ran(history: list[tuple[str, int, float]]):
    pace, now, most = Pace(), 0.0, 0
    running: set[int] = set()
    for what, file_id, passed in history:
        now += passed
        if what == "start" and file_id not in running:
            pace.started(file_id, now)
            running.add(file_id)
        elif what == "end" and file_id in running:
            pace.ended(file_id, now)
            running.discard(file_id)
        elif what == "show":
            pace.shown(file_id, now)
        else:
            pace.look(now)
            assert all(now < at + SILENT_S for at in pace.hidden.values())
        most = max(most, len(running))
        assert pace.n_running == len(running)
        assert pace.hidden.keys() <= running
        assert len(pace.waiting) <= len(history)
        assert max(FIRST, 2 * (len(running) - len(pace.hidden))) <= pace.limit(now) <= max(FIRST, 2 * most)
