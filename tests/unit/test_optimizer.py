"""What single samples do to targets: bounds, overloads, idleness, whose trouble it is, memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer_engine.config import OptimizerSettings
from transfer_engine.metering import Sample
from transfer_engine.optimizer import HISTORY_MAX, Optimizer
from transfer_engine.places import Place
from transfer_engine.tuning import Adjustment

SETTINGS = OptimizerSettings()
OUT, INTO, OWN = Place("out", "s"), Place("in", "d"), Place("link", "s", "d")


def sample(place: Place = INTO, *, n: int, rate: float = 10e6, size: float | None = 1e7, **more: object) -> Sample:
    """`n` copies that move `rate` bytes per second each, for a second; they report twice."""
    n_reports = int(more.pop("n_reports", 2 * n))
    figures: dict[str, object] = {
        "span_s": 1.0,
        "active": float(n),
        "peak": n,
        "moved_bytes": n * rate,
        "slot_s": float(n),
        "n_reports": n_reports,
        "n_finished": n_reports,
        "waiting": 1000,
        "size_bytes": size,
    }
    return Sample(place=place, **(figures | more))  # type: ignore[arg-type]


def target(optimizer: Optimizer, place: Place = INTO) -> int:
    return optimizer.target(place, 1, 60)


def feed(optimizer: Optimizer, rows: Sequence[Sample], now: float) -> list[Adjustment]:
    return optimizer.observe(rows, now)


def ramp(optimizer: Optimizer, until: float, each: float = 10e6) -> None:
    """Goodput in proportion, always as many as may run."""
    for now in range(1, int(until)):
        feed(optimizer, [sample(n=target(optimizer), rate=each)], float(now))


def test_an_unknown_place_begins_low_within_its_bounds():
    optimizer = Optimizer(SETTINGS)
    assert optimizer.target(INTO, 1, 60) == SETTINGS.initial
    assert optimizer.target(INTO, 10, 60) == 10
    assert optimizer.target(INTO, 1, 1) == 1
    assert optimizer.target(INTO, 0, 0) == 0


def test_switched_off_it_allows_what_is_configured():
    optimizer = Optimizer(OptimizerSettings(enabled=False))
    assert feed(optimizer, [sample(n=2)], 1.0) == []
    assert optimizer.target(INTO, 1, 60) == 60


def test_goodput_that_grows_is_followed_to_the_limit_in_seconds():
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 10)
    assert target(optimizer) == 60
    first = optimizer.history(INTO)[0]
    assert first.reason == "goodput is 20 MB/s with 2: try 4"
    assert optimizer.history(INTO)[1].reason == (
        "goodput rose from 20 MB/s to 40 MB/s when active went from 2 to 4: try 8"
    )
    assert first.numbers == {"goodput_bytes_s": pytest.approx(20e6), "active": 2.0}


def test_a_pipe_that_few_copies_fill_is_climbed_for_more_do_no_harm():
    optimizer = Optimizer(SETTINGS)
    for now in range(1, 100):
        n = target(optimizer)
        feed(optimizer, [sample(n=n, rate=20e6 / n)], float(now))
    assert target(optimizer) == 60
    reasons = [row.reason for row in optimizer.history(INTO)]
    assert reasons[1] == "goodput was 20 MB/s as before when active went from 2 to 4: try 8"
    assert reasons[-1].endswith("60 is the configured limit")


def test_at_its_limit_without_harm_nothing_is_judged():
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 20)
    for now in range(20, 500):
        assert feed(optimizer, [sample(n=60, rate=10e6 if now % 100 < 50 else 1e6)], float(now)) == []
    assert target(optimizer) == 60


def harmful(n: int) -> float:
    """What each of `n` copies moves where more than 8 do harm: 80 MB/s with 8, 53 MB/s with 16."""
    return 80e6 / (1 + 0.5 * max(0, n / 8 - 1)) * min(1, n / 8) / n


def test_a_fall_is_checked_before_the_number_is_blamed():
    optimizer = Optimizer(SETTINGS)
    for now in range(1, 40):
        n = target(optimizer)
        feed(optimizer, [sample(n=n, rate=harmful(n))], float(now))
    reasons = {row.before: row.reason for row in optimizer.history(INTO)[:5]}
    assert reasons[16].endswith("8 again, to see whether that is why")
    assert target(optimizer) == 8


def test_a_fall_that_stays_when_the_step_is_taken_back_stops_no_ramp():
    """A storage becomes slower by half just when 32 are tried: that is not the number's doing."""
    optimizer = Optimizer(SETTINGS)
    tried = False
    for now in range(1, 100):
        n = target(optimizer)
        tried = tried or n == 32
        feed(optimizer, [sample(n=n, rate=(30e6 if tried else 80e6) / n)], float(now))
    assert any("which is not the number's doing: try 32" in row.reason for row in optimizer.history(INTO))
    assert target(optimizer) == 60


def test_each_order_of_magnitude_has_its_own_best():
    """Small files want 60 at a time; of large ones more than 8 do harm."""
    optimizer = Optimizer(SETTINGS)
    found: list[list[int]] = []
    for turn, size in enumerate((1e7, 1e9, 1e7, 1e9)):
        found.append([])
        for now in range(120 * turn + 1, 120 * turn + 120):
            n = target(optimizer)
            feed(optimizer, [sample(n=n, size=size, rate=10e6 if size < 1e8 else harmful(n))], float(now))
            found[-1].append(target(optimizer))
    assert [row[-1] >= 60 for row in found] == [True, False, True, False]
    assert all(5 <= row[-1] <= 10 for row in found[1::2])
    assert found[2].index(60) < 30
    assert max(found[3][30:]) <= 10
    words = [row.reason for row in optimizer.history(INTO)]
    assert "the mean size went from about 1 GB to 10 MB, for which 60 is good" in words


def test_a_number_that_was_only_passed_through_is_not_taken_for_the_best():
    optimizer = Optimizer(SETTINGS)
    lowest = []
    for now in range(1, 100):
        size = 1e7 if now < 4 or now > 40 else 1e8
        waiting = 1000 if now < 4 or 20 < now < 40 else 0
        feed(optimizer, [sample(n=target(optimizer), size=size, waiting=waiting)], float(now))
        lowest.append(target(optimizer))
    assert max(lowest[:4]) < max(lowest[4:40])
    assert min(lowest[40:]) == max(lowest[4:40])


def test_what_is_not_the_bottleneck_is_not_judged():
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 4)
    before = target(optimizer)
    for now in range(10, 200):
        assert feed(optimizer, [sample(n=before // 2, rate=1.0)], float(now)) == []
    assert target(optimizer) == before


def test_nothing_is_raised_for_nobody():
    optimizer = Optimizer(SETTINGS)
    for now in range(1, 50):
        feed(optimizer, [sample(n=2, waiting=0)], float(now))
    assert target(optimizer) == SETTINGS.initial


def test_a_lower_target_is_judged_only_when_active_has_come_down_to_it():
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 20)
    feed(optimizer, [sample(n=60, n_overloads=20)], 20.0)
    lower = target(optimizer)
    for now in range(21, 100):
        assert feed(optimizer, [sample(n=60, n_overloads=1)], float(now)) == []
    assert target(optimizer) == lower == 42


def test_an_overload_brings_down_at_once_and_is_remembered_longer_each_time():
    optimizer = Optimizer(SETTINGS)
    hits: list[float] = []
    for now in range(1, 1500):
        n = target(optimizer)
        if n > 20:
            hits.append(float(now))
        found = feed(optimizer, [sample(n=n, n_overloads=5 if n > 20 else 0)], float(now))
        assert all(row.after < row.before for row in found if n > 20)
        if n > 20 and (len(hits) == 1 or now - hits[-2] > 1):
            assert found[-1].after <= max(1, int(0.7 * n))
            assert "5 attempts refused or timed out" in found[-1].reason
    assert target(optimizer) == 20
    late = [at for at in hits if at > 60]
    waits = [later - earlier for earlier, later in itertools.pairwise(late)]
    assert len(late) <= 6
    assert all(later >= earlier for earlier, later in itertools.pairwise(waits))


def test_isolated_refusals_mean_nothing():
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 20)
    for now in range(20, 60):
        feed(optimizer, [sample(n=60, n_reports=600, n_overloads=int(now % 2))], float(now))
    assert target(optimizer) >= 56


def test_errors_that_fewer_copies_do_not_make_rarer_are_borne():
    """One attempt in five fails whatever runs: bringing everything down would only lose goodput."""
    optimizer = Optimizer(SETTINGS)
    for now in range(1, 400):
        n = target(optimizer)
        feed(optimizer, [sample(n=n, n_overloads=max(1, n // 2))], float(now))
    assert target(optimizer) == 60


def test_after_an_outage_it_comes_back_at_once():
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 20)
    for now in range(20, 200):
        n = target(optimizer)
        feed(
            optimizer, [sample(n=n, moved_bytes=0.0, slot_s=0.0, n_reports=0, n_finished=0, n_overloads=n)], float(now)
        )
    assert target(optimizer) == 1
    for now in range(200, 215):
        feed(optimizer, [sample(n=target(optimizer))], float(now))
    assert target(optimizer) == 60


def test_first_markers_that_come_late_are_an_overload():
    optimizer = Optimizer(SETTINGS)
    for now in range(1, 20):
        feed(optimizer, [sample(n=target(optimizer), first_marker_s=5.0)], float(now))
    found = feed(optimizer, [sample(n=60, first_marker_s=40.0)], 20.0)
    assert found[0].after == 42
    assert "first markers took 40 s instead of 5 s" in found[0].reason


def test_mostly_failing_places_are_not_judged():
    optimizer = Optimizer(SETTINGS)
    for now in range(1, 20):
        assert feed(optimizer, [sample(n=2, n_failed=9, n_finished=4)], float(now)) == []


def with_link(optimizer: Optimizer, rows: Sequence[tuple[str, str, int, int]], now: float) -> list[Adjustment]:
    """(source, destination, active, overloads) of links, and the endpoints' sums."""
    found: dict[Place, list[int]] = {}
    for source, destination, n, bad in rows:
        for place in (Place("out", source), Place("in", destination), Place("link", source, destination)):
            sums = found.setdefault(place, [0, 0])
            sums[0] += n
            sums[1] += bad
    return feed(optimizer, [sample(place, n=n, n_overloads=bad) for place, (n, bad) in found.items()], now)


def test_an_overload_of_one_link_among_healthy_ones_is_the_links():
    optimizer = Optimizer(SETTINGS)
    found = with_link(optimizer, [("s", "d", 2, 1), ("s", "e", 2, 0), ("t", "d", 2, 0)], 1.0)
    down = [row.place for row in found if row.after < row.before]
    assert down == [OWN]


def test_an_overload_of_all_links_at_a_storage_is_the_storages():
    optimizer = Optimizer(SETTINGS)
    found = with_link(optimizer, [("s", "d", 1, 1), ("t", "d", 1, 1), ("s", "e", 1, 0), ("t", "f", 1, 0)], 1.0)
    down = [row.place for row in found if row.after < row.before]
    assert down == [INTO]


def test_a_link_without_trouble_is_bound_by_nothing_but_its_limit():
    optimizer = Optimizer(SETTINGS)
    assert target(optimizer, OWN) == 60
    for now in range(1, 60):
        n = target(optimizer, INTO)
        feed(optimizer, [sample(OUT, n=n + 9), sample(INTO, n=n), sample(OWN, n=n, rate=80e6 / n)], float(now))
        assert target(optimizer, OWN) == 60
    assert optimizer.history(OWN) == ()
    for highest in (100, 30, 0, 90):
        feed(optimizer, [sample(OWN, n=20, highest=highest)], 60.0)
        assert optimizer.target(OWN, 0, highest) == highest


def test_a_link_in_trouble_goes_down_and_comes_back_to_its_limit():
    optimizer = Optimizer(SETTINGS)
    found = with_link(optimizer, [("s", "d", 20, 10), ("s", "e", 20, 0), ("t", "d", 20, 0)], 1.0)
    assert [(row.place, row.after) for row in found if row.place == OWN] == [(OWN, 14)]
    other = Optimizer(SETTINGS)
    other.load(optimizer.dump())
    for now in range(3, 60):
        assert target(other, OWN) < 20
        with_link(other, [("s", "d", target(other, OWN), 0), ("s", "e", 20, 0), ("t", "d", 20, 0)], float(now))
    for now in range(60, 700):
        with_link(other, [("s", "d", target(other, OWN), 0), ("s", "e", 20, 0), ("t", "d", 20, 0)], float(now))
    assert target(other, OWN) == 60
    feed(other, [sample(OWN, n=20, highest=90)], 700.0)
    assert other.target(OWN, 1, 90) == 90


def test_what_a_link_takes_from_others_points_at_the_storage():
    """The source gives 80 MB/s in all: more copies on the link are fewer bytes for the others."""
    optimizer = Optimizer(SETTINGS)
    with_link(optimizer, [("s", "d", 2, 1), ("s", "e", 2, 0), ("t", "d", 2, 0)], 0.0)
    for now in range(100, 140):
        n = target(optimizer, OWN)
        each = 80e6 / (n + 20)
        rows = [
            sample(OUT, n=n + 20, rate=each, peak=0),
            sample(INTO, n=n + 20, rate=each, peak=0),
            sample(OWN, n=n, rate=each),
        ]
        feed(optimizer, rows, float(now))
    assert any("the storage is the bottleneck, not the link" in row.reason for row in optimizer.history(OWN))
    assert target(optimizer, OWN) >= max(row.before for row in optimizer.history(OWN))


def test_history_is_bounded():
    optimizer = Optimizer(SETTINGS)
    for now in range(1, 4000):
        feed(optimizer, [sample(n=target(optimizer), n_overloads=now % 5)], float(now))
    assert 0 < len(optimizer.history(INTO)) <= HISTORY_MAX


def test_memory_survives_a_restart():
    first = Optimizer(SETTINGS)
    ramp(first, 20)
    feed(first, [sample(n=60, n_overloads=20)], 20.0)
    text = first.dump()
    second = Optimizer(SETTINGS)
    second.load(text)
    assert second.dump() == text
    assert target(second) == target(first) == 42
    assert second.history(INTO) == first.history(INTO)
    for now in range(21, 75):
        feed(second, [sample(n=target(second))], float(now))
        assert target(second) < 60


@pytest.mark.parametrize("text", ["", "{", "[]", '{"places": 3}', '{"version": 2, "places": []}'])
def test_a_text_that_is_no_memory_is_ignored(text: str):
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 20)
    before = optimizer.dump()
    optimizer.load(text)
    assert optimizer.dump() == before


def test_a_memory_with_impossible_figures_is_ignored():
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 20)
    memory = json.loads(optimizer.dump())
    memory["places"][0]["target"] = -3
    other = Optimizer(SETTINGS)
    other.load(json.dumps(memory))
    assert target(other) == SETTINGS.initial


def test_changed_limits_are_respected_and_room_is_used():
    optimizer = Optimizer(SETTINGS)
    ramp(optimizer, 20)
    feed(optimizer, [sample(n=60, highest=10)], 20.0)
    assert optimizer.target(INTO, 1, 10) == 10
    assert target(optimizer) == 10
    for now in range(21, 30):
        feed(optimizer, [sample(n=target(optimizer))], float(now))
    assert target(optimizer) == 60


rows = st.builds(
    lambda place, n, rate, bad, failed, first, size, waiting, low, high: sample(
        place,
        n=n,
        rate=rate,
        size=size,
        n_overloads=bad,
        n_failed=failed,
        first_marker_s=first,
        waiting=waiting,
        lowest=low,
        highest=max(low, high),
    ),
    st.sampled_from((OUT, INTO, OWN)),
    st.integers(0, 70),
    st.floats(0, 1e10),
    st.integers(0, 30),
    st.integers(0, 5),
    st.none() | st.floats(0.01, 1e4),
    st.none() | st.floats(0, 1e12),
    st.integers(0, 5),
    st.integers(1, 5),
    st.integers(1, 60),
)
spans = st.lists(st.lists(rows, max_size=3, unique_by=lambda row: row.place), max_size=40)


@given(spans)
@settings(deadline=None)
def test_targets_stay_within_bounds_and_overloads_never_raise(samples: list[list[Sample]]):
    optimizer = Optimizer(SETTINGS)
    for now, span in enumerate(samples):
        before = {row.place: optimizer.target(row.place, row.lowest, row.highest) for row in span}
        for found in feed(optimizer, span, float(now)):
            assert found.reason
        elsewhere = any(row.place == OWN and row.n_overloads for row in span)
        for row in span:
            after = optimizer.target(row.place, row.lowest, row.highest)
            assert row.lowest <= after <= row.highest
            if not elsewhere and row.n_overloads > row.n_finished + 1:
                assert after <= max(before[row.place], row.lowest)


@given(spans)
@settings(deadline=None)
def test_the_same_samples_give_the_same_decisions_and_memory(samples: list[list[Sample]]):
    one, other = Optimizer(SETTINGS), Optimizer(SETTINGS)
    for now, span in enumerate(samples):
        assert feed(one, span, float(now)) == feed(other, span, float(now))
    text = one.dump()
    assert text == other.dump()
    other.load(text)
    assert other.dump() == text
    for place in (OUT, INTO, OWN):
        assert 1 <= target(other, place) <= 60
