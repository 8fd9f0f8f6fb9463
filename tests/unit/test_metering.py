"""What the meter makes of claims, markers and ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import Scope
from transfer_engine.metering import End, Key, Meter, Sample
from transfer_engine.model import FileId
from transfer_engine.places import Link, Place

LINK = Link("s", "d")
OUT, INTO, OWN = Place("out", "s"), Place("in", "d"), Place("link", "s", "d")


def key(number: int) -> Key:
    return FileId(number), 1


def samples(meter: Meter, now: float) -> dict[Place, Sample]:
    return {row.place: row for row in meter.samples(now, lambda place: (1, 60), lambda place: 7)}


def test_a_copy_counts_in_its_three_places():
    meter = Meter(now=0.0)
    meter.started(key(1), LINK, 1000, 0.0)
    meter.copying(key(1), 1.0)
    meter.marker(key(1), 400, 6.0)
    found = samples(meter, 10.0)
    assert set(found) == {OUT, INTO, OWN}
    row = found[OWN]
    assert (row.active, row.peak, row.span_s, row.waiting, row.highest) == (1.0, 1, 10.0, 7, 60)
    assert (row.moved_bytes, row.slot_s, row.n_reports, row.first_marker_s) == (400, 6.0, 1, 5.0)
    assert row.size_bytes == pytest.approx(1000)


def test_a_span_begins_where_the_last_one_ended():
    meter = Meter(now=0.0)
    meter.started(key(1), LINK, 1000, 0.0)
    meter.marker(key(1), 400, 6.0)
    samples(meter, 10.0)
    meter.ended(key(1), End.FINISHED, 1000, 12.0)
    row = samples(meter, 20.0)[OUT]
    assert (row.active, row.peak, row.moved_bytes, row.slot_s, row.n_finished) == (0.2, 1, 600, 6.0, 1)
    assert samples(meter, 30.0) == {}


def test_a_failure_moves_nothing_and_is_the_fault_of_whom_it_names():
    meter = Meter(now=0.0)
    for number, scope in ((1, Scope.SOURCE), (2, Scope.DESTINATION), (3, Scope.TRANSFER), (4, None)):
        meter.started(key(number), LINK, 1000, 0.0)
        meter.ended(key(number), End.OVERLOADED, 500, 5.0, scope)
    found = samples(meter, 10.0)
    assert {place: row.n_overloads for place, row in found.items()} == {OUT: 3, INTO: 3, OWN: 4}
    assert all((row.moved_bytes, row.slot_s, row.n_reports) == (0, 0, 0) for row in found.values())


def test_failures_of_storages_are_told_from_what_says_nothing_of_load():
    meter = Meter(now=0.0)
    for number, end in ((1, End.FAILED), (2, End.OTHER)):
        meter.started(key(number), LINK, None, 0.0)
        meter.ended(key(number), end, 0, 5.0)
    row = samples(meter, 10.0)[OUT]
    assert (row.n_failed, row.n_overloads, row.n_finished, row.size_bytes) == (1, 0, 0, None)


def test_strangers_and_markers_that_go_back_are_ignored():
    meter = Meter(now=0.0)
    meter.marker(key(9), 100, 1.0)
    meter.copying(key(9), 1.0)
    meter.ended(key(9), End.FINISHED, 100, 2.0)
    assert samples(meter, 3.0) == {}
    meter.started(key(1), LINK, 1000, 3.0)
    meter.marker(key(1), 500, 4.0)
    meter.marker(key(1), 400, 5.0)
    meter.ended(key(1), End.FINISHED, 0, 6.0)
    row = samples(meter, 7.0)[OUT]
    assert (row.moved_bytes, row.n_reports, row.slot_s) == (500, 2, 3.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 5), st.integers(0, 10**9)), max_size=60))
def test_nothing_is_lost_and_nothing_counted_twice(steps: list[tuple[int, float, int]]):
    """Bytes over all spans are the bytes that moved, the time in slots is the time active."""
    meter, now, running, moved, active_s = Meter(now=0.0), 0.0, dict[int, int](), 0, 0.0
    seen_bytes, seen_s, n = 0.0, 0.0, 0
    for what, wait, n_bytes in steps:
        active_s += len(running) * wait
        now += wait
        if what == 0 or not running:
            n += 1
            running[n] = 0
            meter.started(key(n), LINK, n_bytes, now)
        elif what == 1:
            number = next(iter(running))
            running[number] += n_bytes
            meter.marker(key(number), running[number], now)
        elif what == 2:
            number = next(iter(running))
            moved += running.pop(number)
            meter.ended(key(number), End.FINISHED, 0, now)
        else:
            row = samples(meter, now).get(OWN)
            if row is not None:
                seen_bytes, seen_s = seen_bytes + row.moved_bytes, seen_s + row.active * row.span_s
    row = samples(meter, now + 1).get(OWN)
    if row is not None:
        seen_bytes, seen_s = seen_bytes + row.moved_bytes, seen_s + row.active * row.span_s
    assert seen_bytes == moved + sum(running.values())
    assert seen_s == pytest.approx(active_s + len(running))
