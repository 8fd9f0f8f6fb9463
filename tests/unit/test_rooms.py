"""Places with slots or bytes per second: what bounds them, why, and who is next."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.schedule_model import World, cap_of, queues_of
from transfer_engine.config import EndpointLimits, Limits
from transfer_engine.limits import NODE, UNLIMITED
from transfer_engine.places import Cap, Place
from transfer_engine.reasons import Reason, Why
from transfer_engine.rooms import Band, Room

OUT = Place("out", "s")


@given(
    st.integers(0, 50),
    st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 60)), max_size=20),
)
@settings(deadline=None)
def test_the_least_of_all_bounds_holds(limit: int, steps: list[tuple[str, int | None]]) -> None:
    room = Room(OUT, limit)
    caps: dict[str, int] = {}
    for owner, cap in steps:
        room.cap(owner, None if cap is None else cap_of(cap))
        caps.pop(owner, None)
        if cap is not None:
            caps[owner] = cap
        assert room.limit == min([limit, *caps.values()])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place("in", "d"), "inbound limit of d"),
        (Place("out", "s"), "outbound limit of s"),
        (Place("link", "s", "d"), "limit of the link s → d"),
        (Place("vo-in", "d", "cms"), "limit of cms into d"),
        (Place("vo-out", "s", "cms"), "limit of cms out of s"),
        (NODE, "limit of this node"),
    ],
)
def test_a_configured_limit_is_named_with_its_count(place: Place, words: str) -> None:
    room = Room(place, 2)
    room.used = 2
    reason = room.reason()
    assert (reason.code, reason.used, reason.limit) == (Why.LIMIT, 2, 2)
    assert words in reason.text
    assert "2 of 2" in reason.text


def test_the_cap_that_binds_is_the_reason() -> None:
    room = Room(OUT, 10)
    room.used = 4
    room.cap("optimizer", cap_of(4, Why.OPTIMIZER))
    room.cap("breaker", Cap(1, Reason(code=Why.BREAKER, text="it fails", subject="s", until=99.0)))
    reason = room.reason()
    assert (reason.code, reason.text, reason.until, reason.used, reason.limit) == (Why.BREAKER, "it fails", 99.0, 4, 1)
    room.cap("breaker", cap_of(50))
    assert room.reason().code is Why.OPTIMIZER
    room.cap("optimizer", None)
    assert (room.reason().code, room.reason().limit) == (Why.LIMIT, 10)


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=30), st.floats(1e-3, 1e9))
@settings(deadline=None)
def test_what_ended_leaves_nothing_behind(rates: list[float], limit: float) -> None:
    band = Band(OUT, limit)
    for rate in rates:
        band.take(rate)
    assert not band.holds(limit * 2)
    for rate in rates:
        band.give_back(rate)
    assert band.used_bytes_s == 0
    assert band.holds(limit * 2), "one alone always may"
    band.take(limit / 4)
    assert band.holds(limit * 0.75)
    assert not band.holds(limit * 0.76)


def test_a_band_says_how_much_moves() -> None:
    band = Band(Place("in", "d"), 10e6)
    band.take(7.5e6)
    reason = band.reason()
    assert reason.code is Why.BANDWIDTH
    assert "7.5 MB/s" in reason.text
    assert "10.0 MB/s" in reason.text


def test_bandwidth_is_shared_out_by_what_copies_were_seen_to_reach() -> None:
    world = World(queues_of(("s1", "s2"), ("d",)), Limits(endpoints={"d": EndpointLimits(inbound_bytes_s=100.0)}))
    fast, slow = world.queues.values()
    world.ready(fast, 3, 50)
    assert world.settle() == 1, "nothing is known: one takes all"
    (run,) = world.running
    world.learn(fast, 1.0, 30.0)
    world.release(run)
    assert world.settle() == 3
    world.learn(slow, 1.0, 5.0)
    world.ready(slow, 3, 50)
    assert world.settle() == 2
    assert sum(run.bytes_s for run in world.running) == 100.0
    world.check()


@pytest.mark.parametrize("need", [30.0, 60.0, 100.0])
def test_a_fast_link_has_its_turn_next_to_slow_ones(need: float) -> None:
    world = World(queues_of(("fast", "slow"), ("d",)), Limits(endpoints={"d": EndpointLimits(inbound_bytes_s=100.0)}))
    fast, slow = world.queues.values()
    world.learn(fast, 1.0, need)
    world.learn(slow, 1.0, 10.0)
    world.ready(slow, 3, 10**6)
    world.settle()
    world.ready(fast, 3, 10**6)
    rng = random.Random(1)
    ends: Counter[str] = Counter()
    moved = 0.0
    for _ in range(4000):
        world.settle()
        moved += sum(run.bytes_s for run in world.running)
        run = rng.choice(world.running)
        ends[run.queue.source_se] += 1
        world.now += 0.1
        world.release(run)
        world.check()
    assert ends["fast"] >= 4000 / (12 * need / 10) / 2
    assert moved >= 0.85 * 4000 * 100.0, "what is kept free costs little"


def test_bandwidth_is_kept_for_nobody_who_cannot_start() -> None:
    world = World(
        queues_of(("s1", "s2"), ("d1", "d2")), Limits(endpoints={"s1": EndpointLimits(outbound_bytes_s=100.0)})
    )
    small, large, *_ = world.queues.values()
    world.learn(small, 1.0, 10.0)
    world.learn(large, 1.0, 60.0)
    world.ready(small, 3, 10**6)
    world.settle()
    world.ready(large, 3, 5)
    band = world.scheduler.bands[Place("out", "s1")]

    def until_kept() -> None:
        for _ in range(1000):
            if band.kept is not None:
                return
            world.now += 0.1
            world.release(world.running[0])
            world.settle()
        raise AssertionError("never kept")

    until_kept()
    (reason,) = world.scheduler.reasons(small, 3)
    assert reason.code is Why.BANDWIDTH
    assert "kept for a copy on s1 → d2" in reason.text
    world.cap(Place("link", "s1", "d2"), "order", 0)
    world.now += 0.1
    world.release(world.running[0])
    assert world.settle() == 1, "the room that the large one waits in is closed"
    world.cap(Place("link", "s1", "d2"), "order", None)
    world.settle()
    until_kept()
    world.ready(large, 3, -5)
    world.settle()
    assert band.kept is None
    world.ready(large, 3, 5)
    until_kept()
    world.now += 10_000.0
    world.settle()
    assert band.kept is None, "not for ever"


def test_a_place_without_a_limit_has_none() -> None:
    world = World(queues_of(("s",), ("d",)))
    assert world.scheduler.room(Place("vo-in", "d", "vo")).limit == UNLIMITED


def test_the_order_of_a_room_does_not_grow_behind_one_that_waits_for_days() -> None:
    world = World(queues_of(("s",), ("banned", "d1", "d2")), Limits(endpoint_outbound=1))
    banned, first, second = world.queues.values()
    world.cap(Place("in", "banned"), "order", 0)
    world.ready(first, 3, 1)
    world.settle()
    for queue in (banned, first, second):
        world.ready(queue, 3, 2000)
    for _ in range(1000):
        world.settle()
        (run,) = world.running
        world.now += 1
        world.learn(run.queue, 1.0, 0.0)
        world.release(run)
    assert len(world.scheduler.rooms[OUT]._queue) < 100
    world.cap(Place("in", "banned"), "order", None)
    world.settle()
    assert world.running[0].queue is banned
    world.check()


def test_who_waits_longest_for_a_source_comes_first() -> None:
    world = World(queues_of(("s",), ("d1", "d2", "d3")), Limits(endpoint_outbound=1))
    queues = list(world.queues.values())
    for queue in queues:
        world.ready(queue, 3, 100)
    order = []
    for _ in range(30):
        world.settle()
        (run,) = world.running
        order.append(run.queue.dest_se)
        world.now += 1
        world.learn(run.queue, 1.0, 0.0)
        world.release(run)
        world.check()
    assert {name: order.count(name) for name in set(order)} == {"d1": 10, "d2": 10, "d3": 10}
    assert all(len(set(order[n : n + 3])) == 3 for n in range(3, 27, 3))
