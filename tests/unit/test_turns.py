"""Who comes first, and that nobody waits for ever: sources, destinations, priorities, promises."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.schedule_model import World, cap_of, places, queues_of
from tests.unit.schedule_runs import ENDLESS, Run, by_chance, jain, off
from transfer_engine.config import Limits, Shares, VoLimits
from transfer_engine.lanes import PASSED_OVER_MAX
from transfer_engine.model import Queue, QueueId
from transfer_engine.places import Place
from transfer_engine.reasons import Why
from transfer_engine.schedule import CLAIMS_MAX

WIDE = 10_000


def limits(into: int = WIDE, out: int = WIDE, *, link: int = WIDE, node: int = WIDE) -> Limits:
    return Limits(endpoint_inbound=into, endpoint_outbound=out, link=link, node=node)


# Priorities


def test_a_higher_priority_comes_first() -> None:
    run = Run(limits(1))
    (queue,) = queues_of(("s",), ("d",))
    for priority in (1, 5, 3):
        run.backlog(queue, priority, 5)
    run.go(15)
    order = [start.priority for start in run.starts]
    assert order[:5] == [5] * 5
    assert Counter(order) == {5: 5, 3: 5, 1: 5}


@pytest.mark.parametrize("slots", [1, 4])
def test_no_priority_is_passed_over_for_ever(slots: int) -> None:
    run = Run(limits(slots))
    (queue,) = queues_of(("s",), ("d",))
    for priority in range(1, 6):
        run.backlog(queue, priority)
    run.go(600)
    for priority in range(1, 6):
        at = [n for n, start in enumerate(run.starts) if start.priority == priority]
        assert max(b - a for a, b in zip([0, *at], [*at, len(run.starts)], strict=False)) <= PASSED_OVER_MAX + 4
    counts = Counter(start.priority for start in run.starts)
    assert counts[5] >= 0.6 * len(run.starts), "and still the highest comes first"


def test_a_priority_counts_inside_its_activity_only() -> None:
    run = Run(limits(4))
    urgent, other = queues_of(("s",), ("d",), ("vo",), ("urgent", "other"))
    run.backlog(urgent, 5)
    run.backlog(other, 1)
    starts = run.go(400)
    assert off(starts, {"vo/urgent": 1.0, "vo/other": 1.0}) <= 2 + 4


# Sources and destinations


@pytest.mark.parametrize(("place", "n_closed"), [("in", 4), ("out", 4), ("link", 1), ("vo-in", 4), ("vo-out", 4)])
def test_what_is_closed_holds_nobody_else_back(place: str, n_closed: int) -> None:
    """With one place closed the others start at once what they would start without it."""
    queues = queues_of(("s1", "s2", "s3", "s4"), ("d1", "d2", "d3", "d4"))
    closed = next(found for found in places(queues[0]) if found.kind == place)
    others = [queue for queue in queues if closed not in places(queue)]
    assert len(queues) - len(others) == n_closed
    with_it, without = World(queues, limits(6, 6, link=2)), World(queues, limits(6, 6, link=2))
    with_it.cap(closed, "ban", 0)
    for queue in queues:
        with_it.ready(queue, 3, 1000)
    for queue in others:
        without.ready(queue, 3, 1000)
    assert with_it.settle() == without.settle() > 0
    if place != "link":
        # What waits for a closed link still says how long its ends will be needed, and who is to be first there.
        assert Counter(run.queue.id for run in with_it.running) == Counter(run.queue.id for run in without.running)


def test_destinations_share_a_source_by_what_waits_for_them() -> None:
    run = Run(limits(out=8))
    first, second, third = queues_of(("s",), ("d1", "d2", "d3"))
    run.backlog(first, n=ENDLESS)
    run.backlog(second, n=ENDLESS)
    run.go(50)
    starts = run.go(400)
    assert off(starts, {"s>d1": 1.0, "s>d2": 1.0}) <= 2 + 8
    run.backlog(third, n=ENDLESS)
    starts = run.go(600)
    assert off(starts, {"s>d1": 1.0, "s>d2": 1.0, "s>d3": 1.0}) <= 3 + 8


def test_slots_that_become_free_at_once_are_shared() -> None:
    world = World(queues_of(("s",), ("d1", "d2", "d3")), limits(out=12))
    world.cap(Place("out", "s"), "breaker", 0)
    for queue in world.queues.values():
        world.ready(queue, 3, 100)
    assert world.settle() == 0
    world.cap(Place("out", "s"), "breaker", None)
    assert world.settle() == 12
    assert set(Counter(run.queue.dest_se for run in world.running).values()) == {4}


@pytest.mark.slow
@pytest.mark.parametrize("slots", [5, 20])
def test_no_link_starves_where_all_sources_and_destinations_are_full(slots: int) -> None:
    run = Run(limits(slots, slots), duration=by_chance)
    queues = queues_of([f"s{n}" for n in range(5)], [f"d{n}" for n in range(5)])
    for queue in queues:
        run.backlog(queue)
    run.go(1000)
    starts = run.go(6000)
    assert jain(starts, {f"{queue.source_se}>{queue.dest_se}": 1.0 for queue in queues}) > 0.97
    assert len(run.ends) >= 5 * slots - 5


@pytest.mark.slow
@pytest.mark.parametrize("slots", [4, 20, 60])
def test_a_vo_gets_its_share_though_others_fill_its_source_and_its_destination(slots: int) -> None:
    """Source and destination never have a slot free at the same moment: one has to be kept."""
    greedy_out, greedy_in, late = (
        Queue(QueueId(0), "s1", "d1", "greedy", "x"),
        Queue(QueueId(1), "s2", "d2", "greedy", "x"),
        Queue(QueueId(2), "s1", "d2", "late", "x"),
    )
    run = Run(limits(slots, slots), duration=by_chance)
    run.backlog(greedy_out)
    run.backlog(greedy_in)
    run.go(200)
    run.backlog(late)
    run.go(60 * slots)
    before, at = run.slot_s.copy(), run.now
    run.go(6000)
    got = {name: n - before[name] for name, n in run.slot_s.items()}
    assert got["s1>d2"] >= 0.42 * (got["s1>d2"] + got["s2>d2"]), "half of d2's slots are its share"
    assert got["s1>d1"] + got["s1>d2"] >= 0.95 * slots * (run.now - at), "what is kept free costs little"


def test_nothing_is_kept_for_a_destination_that_is_closed() -> None:
    run = Run(limits(4, 4), duration=by_chance)
    for number, (source, dest) in enumerate([("s1", "d1"), ("s2", "d2"), ("s1", "d2")]):
        run.backlog(Queue(QueueId(number), source, dest, f"vo{number}", "x"))
    kept = 0
    for n in range(2000):
        run.go(1)
        promised = [room for room in run.scheduler.rooms.values() if room.promised is not None]
        kept += bool(promised)
        if promised and n % 3 == 0:
            run.scheduler.cap(Place("in", "d2"), "ban", cap_of(0))
            assert not any(room.promised for room in run.scheduler.rooms.values())
            run.decide()
            assert run.scheduler.rooms[Place("out", "s1")].used == 4
            run.scheduler.cap(Place("in", "d2"), "ban", None)
    assert kept > 20


def test_a_promise_ends_with_time() -> None:
    run = Run(limits(4, 4), duration=by_chance)
    for number, (source, dest) in enumerate([("s1", "d1"), ("s2", "d2"), ("s1", "d2")]):
        run.backlog(Queue(QueueId(number), source, dest, f"vo{number}", "x"))
    while not run.scheduler.turns.promises:
        run.go(1)
    room = run.scheduler.rooms[Place("out", "s1")]
    assert room.used == 3
    run.now += 1000.0
    run.decide()
    assert room.used == 4
    assert not run.scheduler.turns.promises


# Decisions


def test_a_decision_is_bounded_and_the_next_goes_on() -> None:
    world = World(queues_of(("s",), ("d",)), limits())
    (queue,) = world.queues.values()
    world.ready(queue, 3, 2500)
    counts = []
    while starts := world.decide():
        counts.append(sum(start.n for start in starts))
        world.claimed()
    assert counts == [CLAIMS_MAX, CLAIMS_MAX, 500]


def test_the_same_history_leads_to_the_same_decisions() -> None:
    def history() -> list[object]:
        run = Run(limits(3, 4, link=2, node=20), Shares(vos={"a": 3.0}), duration=by_chance, seed=5)
        for queue in queues_of(("s1", "s2", "s3"), ("d1", "d2", "d3"), ("a", "b"), ("x", "y")):
            run.backlog(queue, 1 + queue.id % 5, 30)
        run.go(2000)
        return list(run.starts)

    first = history()
    assert len(first) == 36 * 30
    assert first == history()


# Reasons


def explained(world: World, queue: Queue, priority: int = 3) -> list[Why]:
    return [reason.code for reason in world.scheduler.reasons(queue, priority)]


def test_what_binds_is_named() -> None:
    world = World(
        queues_of(("s1", "s2"), ("d1", "d2"), ("a", "b")),
        Limits(endpoint_inbound=3, endpoint_outbound=5, vos=(VoLimits(endpoint="d2", vo="b", inbound=1),)),
    )
    by_names = {(q.source_se, q.dest_se, q.vo): q for q in world.queues.values()}
    queue = by_names["s1", "d1", "a"]
    world.ready(queue, 3, 10)
    world.settle()
    (reason,) = world.scheduler.reasons(queue, 3)
    assert (reason.code, reason.used, reason.limit) == (Why.LIMIT, 3, 3)
    assert "inbound limit of d1 is reached: 3 of 3" in reason.text
    of_b = by_names["s1", "d2", "b"]
    world.ready(of_b, 3, 10)
    world.settle()
    (reason,) = world.scheduler.reasons(of_b, 3)
    assert "limit of b into d2 is reached: 1 of 1" in reason.text
    assert explained(world, by_names["s2", "d2", "a"]) == []


def test_whose_share_and_which_priority_is_named() -> None:
    world = World(queues_of(("s",), ("d",), ("a", "b")), limits(4), Shares(vos={"a": 3.0, "b": 1.0}))
    first, second = world.queues.values()
    world.ready(first, 3, 10)
    world.ready(second, 3, 10)
    world.ready(second, 1, 10)
    world.settle()
    assert Counter(run.queue.vo for run in world.running) == {"a": 3, "b": 1}
    limit, share = world.scheduler.reasons(first, 3)
    assert limit.code is Why.LIMIT
    assert (share.code, share.subject, share.used) == (Why.SHARE, "a", 3)
    assert "3" in share.text
    assert "; b " in share.text
    assert Why.PRIORITY in explained(world, second, 1)
    assert Why.PRIORITY not in explained(world, second, 3)
    world.release(world.running[0])
    world.cap(Place("in", "d"), "breaker", 0)
    assert Why.BREAKER in explained(world, first)


def test_who_waits_for_a_destination_that_is_written_is_told() -> None:
    world = World(queues_of(("s",), ("d",)))
    (queue,) = world.queues.values()
    world.ready(queue, 3, 2)
    (start,) = world.decide()
    world.store.clear()
    world.claimed()
    world.store[queue.id, 3] += 2
    assert explained(world, queue) == [Why.DESTINATION]
    assert start.lane.blocked
    world.unblock((queue.id, 3))
    assert world.settle() == 2
    assert explained(world, queue) == []
