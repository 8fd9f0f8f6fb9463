"""The scheduler as a whole, against lists: nothing exceeded, nothing forgotten, nothing counted twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.schedule_model import World, places, queues_of
from transfer_engine.config import EndpointLimits, Limits, LinkLimits, LinkShares, Shares, VoLimits
from transfer_engine.model import Queue
from transfer_engine.places import Place

SOURCES, DESTINATIONS = ("s1", "s2", "s3"), ("d1", "d2", "d3")
QUEUES = queues_of(SOURCES, DESTINATIONS, ("atlas", "cms"), ("prod", "user"))
PLACES = sorted({place for queue in QUEUES for place in places(queue)})
slots = st.integers(0, 6)
bytes_s = st.none() | st.sampled_from([0.3, 3.0, 25.0])
all_limits = st.builds(
    lambda inbound, outbound, link, node, special, vo, band: Limits(
        endpoint_inbound=inbound,
        endpoint_outbound=outbound,
        link=link,
        node=node,
        endpoints={
            "d1": EndpointLimits(inbound=special, inbound_bytes_s=band[0]),
            "s1": EndpointLimits(outbound=special, outbound_bytes_s=band[1]),
        },
        links=(LinkLimits(source="s2", destination="d2", active=special, bytes_s=band[2]),),
        vos=(VoLimits(endpoint="d2", vo="cms", inbound=vo), VoLimits(endpoint="s1", vo="atlas", outbound=vo)),
    ),
    slots,
    slots,
    slots,
    st.integers(0, 30),
    slots,
    slots,
    st.tuples(bytes_s, bytes_s, bytes_s),
)
weights = st.floats(0.1, 10)
all_shares = st.builds(
    lambda vos, activities, of_link: Shares(
        vos=vos, activities={"cms": activities}, links=(LinkShares(source="s1", vos=of_link),) if of_link else ()
    ),
    st.dictionaries(st.sampled_from(["atlas", "cms", "public"]), weights),
    st.dictionaries(st.sampled_from(["prod", "user", "default"]), weights),
    st.dictionaries(st.sampled_from(["atlas", "public"]), weights),
)


class SchedulerMachine(RuleBasedStateMachine):
    """Submissions, cancellations, decisions, claims that get less, ends, caps, left attempts, tidying, in any order."""

    @initialize(limits=all_limits, shares=all_shares)
    def begin(self, limits: Limits, shares: Shares) -> None:
        self.world = World(QUEUES, limits, shares)

    @rule(queue=st.sampled_from(QUEUES), priority=st.sampled_from([1, 3, 5]), n=st.integers(1, 8))
    def submit(self, queue: Queue, priority: int, n: int) -> None:
        self.world.ready(queue, priority, n)

    @rule(source=st.sampled_from(SOURCES), n=st.integers(1, 4))
    def submit_everywhere(self, source: str, n: int) -> None:
        for queue in QUEUES:
            if queue.source_se == source:
                self.world.ready(queue, 3, n)

    @precondition(lambda self: +self.world.store)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(+self.world.store)))
        n = data.draw(st.integers(1, self.world.store[key]))
        self.world.ready(self.world.queues[key[0]], key[1], -n)

    @precondition(lambda self: not self.world.claim)
    @rule(n_max=st.sampled_from([1, 2, 1000]))
    def decide(self, n_max: int) -> None:
        self.world.decide(n_max)

    @precondition(lambda self: self.world.claim)
    @rule(seed=st.integers(0, 1000))
    def store_answers(self, seed: int) -> None:
        self.world.claimed(random.Random(seed))

    @precondition(lambda self: self.world.claimed_running())
    @rule(data=st.data(), rate=st.sampled_from([0.0, 0.1, 2.5]))
    def end(self, data: st.DataObject, rate: float) -> None:
        running = self.world.claimed_running()
        run = running[data.draw(st.integers(0, len(running) - 1))]
        self.world.learn(run.queue, self.world.now - run.since + 0.1, rate)
        self.world.release(run)

    @precondition(lambda self: not self.world.claim)
    @rule(limits=all_limits, shares=all_shares)
    def retune(self, limits: Limits, shares: Shares) -> None:
        self.world.retune(limits, shares)

    @precondition(lambda self: +self.world.told())
    @rule(data=st.data())
    def force(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(+self.world.told())))
        self.world.force(self.world.queues[key[0]], key[1])

    @precondition(lambda self: self.world.claimed_running())
    @rule()
    def end_all(self) -> None:
        for run in self.world.claimed_running():
            self.world.release(run)

    @rule(place=st.sampled_from(PLACES), owner=st.sampled_from("ab"), limit=slots)
    def cap(self, place: Place, owner: str, limit: int) -> None:
        self.world.cap(place, owner, limit)

    @precondition(lambda self: self.world.caps)
    @rule(data=st.data())
    def uncap(self, data: st.DataObject) -> None:
        self.world.cap(*data.draw(st.sampled_from(sorted(self.world.caps))), None)

    @rule(queue=st.sampled_from(QUEUES), priority=st.sampled_from([1, 3]))
    def hold(self, queue: Queue, priority: int) -> None:
        self.world.hold(queue, priority)

    @precondition(lambda self: self.world.blocked)
    @rule(data=st.data())
    def unblock(self, data: st.DataObject) -> None:
        self.world.unblock(data.draw(st.sampled_from(sorted(self.world.blocked))))

    @rule()
    def tidy(self) -> None:
        self.world.scheduler.tidy()

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(n_max=st.sampled_from([1, 3, 1000]))
    def nothing_that_could_run_is_forgotten(self, n_max: int) -> None:
        self.world.settle(n_max)

    @invariant()
    def every_figure_is_right(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            check_it_ends(self.world)


def check_it_ends(world: World) -> None:
    """With caps lifted and blocks gone, all that waits runs, and then nothing is held anywhere."""
    world.claimed()
    for place, owner in sorted(world.caps):
        world.cap(place, owner, None)
    for key in sorted(world.blocked):
        world.unblock(key)
    for _ in range(10_000):
        world.settle()
        if not world.running:
            break
        for run in list(world.running):
            world.release(run)
    possible = [q.id for q in world.queues.values() if all(world.bound(place) for place in places(q))]
    left = {key: n for key, n in world.store.items() if n and key[0] in possible}
    assert not left, "what could run has run"
    assert not any(room.used for room in world.scheduler.rooms.values())
    assert not any(band.used_bytes_s for band in world.scheduler.bands.values())
    world.check()
    world.scheduler.tidy()
    world.check()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestScheduler = pytest.mark.slow(TestScheduler)


backlogs = st.lists(
    st.tuples(st.sampled_from(QUEUES), st.sampled_from([1, 3, 5]), st.integers(1, 30)), min_size=1, max_size=15
)


def settled(backlog: Sequence[tuple[Queue, int, int]], limits: Limits) -> tuple[World, int]:
    world = World(QUEUES, limits)
    for queue, priority, n in backlog:
        world.ready(queue, priority, n)
    return world, world.settle()


@given(backlogs, all_limits)
@settings(deadline=None, max_examples=60)
def test_what_can_start_starts_and_no_more(backlog: list[tuple[Queue, int, int]], limits: Limits) -> None:
    world, n = settled(backlog, limits)
    world.check()
    assert n == len(world.running)
    for place, used in world.used().items():
        assert used <= world.bound(place)


@given(backlogs, all_limits, st.integers(0, 10))
@settings(deadline=None, max_examples=60)
def test_a_wider_node_starts_at_least_as_many(backlog: list[tuple[Queue, int, int]], limits: Limits, more: int) -> None:
    _, n = settled(backlog, limits)
    _, n_wider = settled(backlog, limits.model_copy(update={"node": limits.node + more}))
    assert n <= n_wider <= n + more


@given(backlogs, st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_wider_limit_starts_at_least_as_many(
    backlog: list[tuple[Queue, int, int]], limit: int, of_link: int, more: int, into: bool
) -> None:
    """Of one kind of endpoint limit and what lies in it; where sources and destinations bind at once it need not be so.

    There one transfer can stand in the way of two others, whatever the limits are.
    """
    name = "endpoint_inbound" if into else "endpoint_outbound"
    free = {"endpoint_inbound": 1000, "endpoint_outbound": 1000, "node": 1000}
    counts = []
    for wider, wider_link in ((0, 0), (more, 0), (0, more), (more, more)):
        limits = Limits.model_validate(free | {name: limit + wider, "link": of_link + wider_link})
        counts.append(settled(backlog, limits)[1])
    assert counts[0] <= min(counts[1:3]) <= max(counts[1:3]) <= counts[3]


@pytest.mark.slow
@given(backlogs, all_limits, st.sampled_from(PLACES), st.integers(0, 4))
@settings(deadline=None, max_examples=25)
def test_a_cap_lowered_under_what_runs_stops_starts_until_it_is_undershot(
    backlog: list[tuple[Queue, int, int]], limits: Limits, place: Place, cap: int
) -> None:
    world, _ = settled(backlog, limits)
    world.cap(place, "optimizer", cap)
    while world.running:
        world.now += 1.0
        world.release(world.running[0])
        held = world.used()[place]
        world.settle()
        assert world.used()[place] <= max(cap, held)
        world.check()
