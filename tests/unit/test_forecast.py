"""Forecasts: exact cases, properties, and against a model that moves single transfers."""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer_engine.forecast import VISITS_MAX, Ceiling, Load, Outlook, _Future, predict, start_of
from transfer_engine.places import Link, Place
from transfer_engine.shares import ShareTable

EQUAL = ShareTable(vos={}, activities={}, default=1.0)
D = Place("in", "d")


def load(source: str = "a", dest: str = "d", *, ready: int, active: int = 0, slot_s: float = 10.0, **more: str) -> Load:
    return Load(
        link=Link(source, dest),
        vo=more.get("vo", "v"),
        activity=more.get("activity", "x"),
        priority=int(more.get("priority", "3")),
        ready=ready,
        active=active,
        slot_s=slot_s,
        ready_bytes=ready * 100,
    )


def one(own: Load, limit: int) -> Outlook:
    return predict([own], {D: Ceiling(limit)}, EQUAL)[0]


# One lane


def test_a_lane_that_is_alone_starts_as_many_as_it_may_and_then_as_they_end() -> None:
    found = one(load(ready=100), 10)
    assert (found.slots, found.start_rate, found.bytes_s) == (10.0, 1.0, 100.0)
    assert found.first_start_s == 0.0
    assert found.drained_s == pytest.approx(90)
    assert found.finished_s == pytest.approx(100)
    assert start_of(found, 0) == start_of(found, 9) == 0.0
    assert start_of(found, 50) == pytest.approx(40.5)
    assert start_of(found, 100) == pytest.approx(90.5)
    assert start_of(found, 199) == pytest.approx(189.5)


def test_with_everything_taken_the_first_one_waits_for_one_to_end() -> None:
    found = one(load(ready=100, active=10), 10)
    assert found.first_start_s == pytest.approx(1.0)
    assert found.drained_s == pytest.approx(100.0)


def test_without_limits_all_start_at_once() -> None:
    (found,) = predict([load(ready=100)], {}, EQUAL)
    assert (found.first_start_s, found.drained_s, found.finished_s) == (0.0, 0.0, 10.0)


def test_an_empty_lane_says_when_one_more_would_start() -> None:
    idle, busy = one(load(ready=0), 10), one(load(ready=0, active=10), 10)
    assert (start_of(idle, 0), idle.start_rate, idle.drained_s, idle.finished_s) == (0.0, 0.0, 0.0, 0.0)
    assert 0.5 <= (start_of(busy, 0) or 0) <= 5.0
    assert busy.finished_s == 10.0
    assert predict([], {}, EQUAL) == []


# What is blocked


def test_nothing_is_said_of_a_ban_without_an_end() -> None:
    banned, other = predict(
        [load("a", ready=5, active=1), load("b", ready=5)], {Place("out", "a"): Ceiling(0), D: Ceiling(2)}, EQUAL
    )
    assert (banned.first_start_s, banned.drained_s, banned.finished_s) == (None, None, None)
    assert start_of(banned, 0) is None
    assert banned.start_rate == 0
    assert other.drained_s is not None


def test_a_blocked_lane_starts_when_the_block_ends() -> None:
    blocked, other = predict(
        [load("a", ready=5), load("b", ready=1000)], {Place("out", "a"): Ceiling(0, 300.0, 5), D: Ceiling(10)}, EQUAL
    )
    assert blocked.first_start_s is not None
    assert 300.0 <= blocked.first_start_s <= 310.0
    assert other.slots == 10.0


def test_a_probe_is_let_through_until_the_breaker_closes() -> None:
    (found,) = predict([load(ready=100)], {D: Ceiling(1, 100.0, 50)}, EQUAL)
    assert found.first_start_s == 0.0
    assert found.start_rate == pytest.approx(0.1)
    assert found.drained_s is not None
    assert 100 <= found.drained_s <= 120


# Several lanes


def test_who_is_ready_first_leaves_its_slots_to_the_others() -> None:
    short, long = predict([load("a", ready=100), load("b", ready=300)], {D: Ceiling(10)}, EQUAL)
    assert (short.slots, long.slots) == (5.0, 5.0)
    assert short.drained_s == pytest.approx(190, rel=0.1)
    assert long.drained_s == pytest.approx(390, rel=0.05)


def test_shares_decide_how_fast_a_backlog_shrinks() -> None:
    shares = ShareTable(vos={"v": 3.0, "w": 1.0}, activities={"v": {"x": 2.0, "default": 1.0}}, default=1.0)
    loads = [load(ready=9000, vo="v"), load(ready=9000, vo="v", activity="y"), load(ready=9000, vo="w")]
    assert [found.slots for found in predict(loads, {D: Ceiling(40)}, shares)] == pytest.approx([20, 10, 10])


def test_mice_behind_elephants_wait_for_their_slots() -> None:
    elephants, mice = predict(
        [load("a", ready=1000, active=60, slot_s=1000.0), load("b", ready=100, slot_s=1.0)], {D: Ceiling(60)}, EQUAL
    )
    assert mice.first_start_s == pytest.approx(1000 / 60, rel=0.01)
    # Slots come back at 60/1000 per second, and each one then starts a mouse per second: 0.03 t² = 100.
    assert mice.drained_s == pytest.approx(58, rel=0.25)
    assert elephants.drained_s == pytest.approx(1000 * 1000 / 60, rel=0.05)


# Properties

KINDS = ("in", "out", "link", "node", "vo-in")


@st.composite
def futures(draw: st.DrawFn) -> tuple[list[Load], dict[Place, Ceiling]]:
    loads = draw(
        st.lists(
            st.builds(
                Load,
                link=st.builds(Link, st.sampled_from("abc"), st.sampled_from("de")),
                vo=st.sampled_from("vw"),
                activity=st.sampled_from("xy"),
                priority=st.integers(1, 5),
                ready=st.integers(0, 500),
                active=st.just(0),
                slot_s=st.floats(0.1, 1000),
            ),
            min_size=1,
            max_size=8,
            unique_by=lambda own: (own.link, own.vo, own.activity, own.priority),
        )
    )
    ceilings = {}
    for own in loads:
        for place in own.places():
            if place.kind in KINDS and place not in ceilings and draw(st.booleans()):
                until = draw(st.none() | st.floats(0.1, 1000))
                ceilings[place] = Ceiling(draw(st.integers(0, 40)), until, draw(st.integers(0, 40)))
    used = dict.fromkeys(ceilings, 0)
    for number, own in enumerate(loads):
        free = [ceilings[place].limit - used[place] for place in own.places() if place in ceilings]
        n = draw(st.integers(0, max(min([*free, 60]), 0)))
        loads[number] = replace(own, active=n)
        for place in own.places():
            if place in used:
                used[place] += n
    return loads, ceilings


@settings(deadline=None)
@given(futures())
def test_slots_exceed_no_cap_and_no_slot_is_left_that_somebody_could_use(
    future: tuple[list[Load], dict[Place, Ceiling]],
) -> None:
    loads, ceilings = future
    found = predict(loads, ceilings, EQUAL)
    used = dict.fromkeys(ceilings, 0.0)
    for own, outlook in zip(loads, found, strict=True):
        for place in own.places():
            if place in used:
                used[place] += outlook.slots
    for place, n in used.items():
        assert n <= ceilings[place].limit * (1 + 1e-6) + 1e-6
    for own, outlook in zip(loads, found, strict=True):
        if outlook.slots < (own.ready + own.active) * (1 - 1e-6):
            full = (used[p] >= ceilings[p].limit * (1 - 1e-6) - 1e-6 for p in own.places() if p in ceilings)
            assert any(full)


@settings(deadline=None)
@given(futures(), st.sampled_from([1, 50, VISITS_MAX]))
def test_an_outlook_is_in_order_and_knows_what_can_be_known(
    future: tuple[list[Load], dict[Place, Ceiling]], visits_max: int
) -> None:
    loads, ceilings = future
    found = predict(loads, ceilings, EQUAL, visits_max=visits_max)
    assert found == predict(loads, ceilings, EQUAL, visits_max=visits_max)
    for own, outlook in zip(loads, found, strict=True):
        over = [ceilings[p] for p in own.places() if p in ceilings]
        if any(not ceiling.limit and not ceiling.last for ceiling in over):
            assert outlook.first_start_s is None
        if all(ceiling.last for ceiling in over):
            assert outlook.first_start_s is not None
        if outlook.first_start_s is None or outlook.drained_s is None or outlook.finished_s is None:
            assert start_of(outlook, 0) is None
            continue
        if own.ready:
            assert 0 <= outlook.first_start_s <= outlook.drained_s <= outlook.finished_s
            starts = [start_of(outlook, n) for n in range(own.ready + 3)]
            assert starts == sorted(s for s in starts if s is not None)
            assert (start_of(outlook, own.ready - 1) or 0) <= outlook.drained_s * (1 + 1e-9)
        for ceiling in over:
            if not ceiling.limit and ceiling.until_s is not None:
                assert outlook.first_start_s >= ceiling.until_s


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 500), st.floats(1, 100)), min_size=1, max_size=6), st.integers(1, 40))
def test_more_slots_at_a_destination_make_nothing_later(rows: list[tuple[int, float]], limit: int) -> None:
    loads = [load(f"s{n}", ready=ready, slot_s=slot_s) for n, (ready, slot_s) in enumerate(rows)]
    before, after = (predict(loads, {D: Ceiling(n)}, EQUAL) for n in (limit, limit * 2))
    for less, more in zip(before, after, strict=True):
        assert less.drained_s is not None
        assert more.drained_s is not None
        assert more.drained_s <= less.drained_s * 1.02 + 1e-6


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 500), st.floats(1, 100)), min_size=1, max_size=6), st.integers(1, 40))
def test_the_work_is_done_in_the_time_that_its_slots_need(rows: list[tuple[int, float]], limit: int) -> None:
    loads = [load(f"s{n}", ready=ready, slot_s=slot_s) for n, (ready, slot_s) in enumerate(rows)]
    found = predict(loads, {D: Ceiling(limit)}, EQUAL)
    work_s = sum(own.ready * own.slot_s for own in loads) / limit
    last_s = max(outlook.finished_s or 0 for outlook in found)
    assert last_s >= work_s * (1 - 1e-6)
    assert last_s <= work_s * 1.02 + max(own.slot_s for own in loads)


# Against single transfers


def moved(loads: Sequence[Load], ceilings: Mapping[Place, Ceiling], shares: ShareTable, seed: int) -> list[float]:
    """When the last transfer of each lane starts, with FIFO lanes and the least served of the VOs first."""
    rng = random.Random(seed)
    left = [own.ready for own in loads]
    active = [0] * len(loads)
    used = dict.fromkeys(ceilings, 0)
    drained = [0.0] * len(loads)
    ends: list[tuple[float, int]] = []

    def start(lane: int, now: float, part: float = 1.0) -> None:
        active[lane] += 1
        for place in loads[lane].places():
            if place in used:
                used[place] += 1
        heapq.heappush(ends, (now + part * loads[lane].slot_s * rng.uniform(0.5, 1.5), lane))

    for lane, own in enumerate(loads):
        for _ in range(own.active):
            start(lane, 0.0, rng.random())
    now = 0.0
    while True:
        while True:
            free = [
                lane
                for lane, own in enumerate(loads)
                if left[lane] and all(used[p] < ceilings[p].limit for p in own.places() if p in used)
            ]
            if not free:
                break
            vos: dict[tuple[str, str], int] = {}
            for own, n in zip(loads, active, strict=True):
                key = (own.link.dest_se, own.vo)
                vos[key] = vos.get(key, 0) + n
            lane = min(
                free,
                key=lambda i: ((vos[loads[i].link.dest_se, loads[i].vo] + 0.5) / shares.of_vo(loads[i].vo), active[i]),
            )
            left[lane] -= 1
            start(lane, now)
            drained[lane] = now
        if not ends:
            return drained
        now, lane = heapq.heappop(ends)
        active[lane] -= 1
        for place in loads[lane].places():
            if place in used:
                used[place] -= 1


def near(loads: Sequence[Load], ceilings: Mapping[Place, Ceiling], shares: ShareTable = EQUAL) -> None:
    found = predict(loads, ceilings, shares)
    real = moved(loads, ceilings, shares, seed=5)
    for own, outlook, real_s in zip(loads, found, real, strict=True):
        assert outlook.drained_s == pytest.approx(real_s, rel=0.2, abs=own.slot_s), own


def test_the_model_agrees_with_one_busy_destination() -> None:
    near(
        [load(s, ready=n, slot_s=d) for s, n, d in (("a", 400, 5.0), ("b", 900, 20.0), ("c", 50, 60.0))],
        {D: Ceiling(30)},
    )


def test_the_model_agrees_with_running_transfers_and_weights() -> None:
    shares = ShareTable(vos={"v": 4.0, "w": 1.0}, activities={}, default=1.0)
    loads = [load("a", ready=1000, active=16, vo="v"), load("b", ready=1000, active=4, vo="w")]
    near(loads, {D: Ceiling(20)}, shares)


def test_the_model_agrees_where_sources_bind() -> None:
    loads = [
        load("a", "d", ready=500, slot_s=10.0),
        load("b", "d", ready=500, slot_s=10.0),
        load("a", "e", ready=300, slot_s=30.0),
        load("c", "e", ready=900, slot_s=5.0),
    ]
    near(
        loads,
        {D: Ceiling(40), Place("in", "e"): Ceiling(40), Place("out", "a"): Ceiling(10), Place("out", "c"): Ceiling(8)},
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_model_agrees_with_random_backlogs(seed: int) -> None:
    rng = random.Random(seed)
    loads = [
        load(source, dest, ready=rng.randrange(100, 800), slot_s=rng.uniform(5, 40))
        for source in "abc"
        for dest in "de"
    ]
    ceilings = {Place("in", x): Ceiling(rng.randrange(10, 40)) for x in "de"}
    ceilings |= {Place("out", x): Ceiling(rng.randrange(10, 40)) for x in "abc"}
    # Where places cross, a slot is mostly taken again by the lane that gave it back: single lanes differ more.
    found = [outlook.drained_s or 0 for outlook in predict(loads, ceilings, EQUAL)]
    real = moved(loads, ceilings, EQUAL, seed=5)
    assert max(found) == pytest.approx(max(real), rel=0.15)
    for one, other in zip(found, real, strict=True):
        assert one == pytest.approx(other, rel=0.45)


# Many lanes


@pytest.mark.slow
def test_ten_thousand_lanes_cost_a_bounded_number_of_looks() -> None:
    rng = random.Random(1)
    loads = [
        load(
            f"s{rng.randrange(300)}", f"d{rng.randrange(200)}", ready=rng.randrange(1, 1000),
            slot_s=rng.uniform(1, 100), vo=f"v{rng.randrange(3)}", activity=f"a{rng.randrange(3)}",
            priority=str(rng.randrange(1, 6)),
        )
        for _ in range(10_000)
    ]  # fmt: skip
    limits = {"in": 60, "out": 60, "link": 20, "node": 2000, "vo-in": 1 << 30, "vo-out": 1 << 30}
    ceilings = {place: Ceiling(limits[place.kind]) for own in loads for place in own.places()}
    future = _Future(loads, ceilings, EQUAL, VISITS_MAX)
    found = future.outlooks()
    assert future._visits <= VISITS_MAX * 1.5
    assert all(outlook.drained_s is not None for outlook in found)
    fluid_s = sum(own.ready * own.slot_s for own in loads) / 2000
    assert fluid_s <= max(outlook.finished_s or 0 for outlook in found) <= 2 * fluid_s
