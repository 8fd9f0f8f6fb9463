"""Who starts now: limits, shares and priorities, over arbitrary backlogs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer_engine import schedule
from transfer_engine.config import Limits, Shares
from transfer_engine.limits import Active, LimitTable, room
from transfer_engine.model import Link, Queue, QueueId
from transfer_engine.schedule import CLAIMS_MAX, Decision, Waiting, decide
from transfer_engine.shares import ShareTable

SOURCES, DESTINATIONS = ("s1", "s2", "s3", "s4"), ("d1", "d2", "d3")
VOS, ACTIVITIES = ("atlas", "cms", "lhcb"), ("prod", "user")
EQUAL = ShareTable.of(Shares())


def table(*, inbound: int = 60, outbound: int = 60, link: int = 60, node: int = 2000, **more: object) -> LimitTable:
    limits = Limits(endpoint_inbound=inbound, endpoint_outbound=outbound, link=link, node=node, **more)  # type: ignore[arg-type]
    return LimitTable.of(limits)


def waiting(
    number: int,
    source: str,
    dest: str,
    by_priority: dict[int, int],
    *,
    vo: str = "vo",
    activity: str = "x",
    at: int = 0,
) -> Waiting:
    queue = Queue(QueueId(number), source, dest, vo, activity)
    return Waiting(queue, Link(source, dest), by_priority, at)


queues = st.dictionaries(
    st.tuples(
        st.sampled_from(SOURCES), st.sampled_from(DESTINATIONS), st.sampled_from(VOS), st.sampled_from(ACTIVITIES)
    ),
    st.tuples(st.dictionaries(st.integers(1, 5), st.integers(1, 30), min_size=1, max_size=3), st.integers(0, 9)),
    max_size=15,
).map(
    lambda found: [
        waiting(n, source, dest, by_priority, vo=vo, activity=activity, at=at)
        for n, ((source, dest, vo, activity), (by_priority, at)) in enumerate(sorted(found.items()))
    ]
)
slots = st.integers(0, 12)
tables = st.builds(
    lambda inbound, outbound, link, node, special: LimitTable.of(
        Limits(
            endpoint_inbound=inbound,
            endpoint_outbound=outbound,
            link=link,
            node=node,
            endpoints={"d1": {"inbound": special}, "s1": {"outbound": special}},  # type: ignore[dict-item]
            links=({"source": "s2", "destination": "d2", "active": special},),  # type: ignore[arg-type]
        )
    ),
    slots,
    slots,
    slots,
    st.integers(0, 40),
    slots,
)
weights = st.floats(0.1, 10)
share_tables = st.builds(
    lambda vos, activities: ShareTable.of(Shares(vos=vos, activities={"cms": activities})),
    st.dictionaries(st.sampled_from(VOS), weights),
    st.dictionaries(st.sampled_from((*ACTIVITIES, "default")), weights),
)


@st.composite
def actives(draw: st.DrawFn) -> Active:
    active = Active()
    for source, dest, vo in draw(
        st.lists(st.tuples(st.sampled_from(SOURCES), st.sampled_from(DESTINATIONS), st.sampled_from(VOS)), max_size=20)
    ):
        active.add(Link(source, dest), vo, "prod", 1)
    return active


def after(decision: Decision, entries: Sequence[Waiting], active: Active) -> Active:
    """The counts when the claims have begun."""
    counts = active.copy()
    by_id = {entry.queue.id: entry for entry in entries}
    for claim in decision.claims:
        queue = by_id[claim.queue_id].queue
        counts.add(by_id[claim.queue_id].link, queue.vo, queue.activity, claim.n)
    return counts


@given(queues, actives(), tables, share_tables)
@settings(max_examples=300, deadline=None)
def test_limits_hold_together_and_nothing_idles(
    entries: list[Waiting], active: Active, limits: LimitTable, shares: ShareTable
) -> None:
    before = active.copy()
    decision = decide(entries, active, limits, shares)
    assert active == before, "deciding changes nothing"
    counts = after(decision, entries, active)

    taken = Counter((claim.queue_id, claim.priority) for claim in decision.claims)
    assert set(taken.values()) <= {1}
    left: dict[int, int] = {}
    for entry in entries:
        of_queue = {claim.priority: claim.n for claim in decision.claims if claim.queue_id == entry.queue.id}
        assert all(0 < n <= entry.by_priority[priority] for priority, n in of_queue.items())
        remaining = {p: n - of_queue.get(p, 0) for p, n in entry.by_priority.items()}
        left[entry.queue.id] = sum(remaining.values())
        assert not of_queue or all(remaining[p] == 0 for p in remaining if p > min(of_queue)), "higher priorities first"

    for counted, was, limit in (
        *((n, before.inbound.get(se, 0), limits.of_inbound(se)) for se, n in counts.inbound.items()),
        *((n, before.outbound.get(se, 0), limits.of_outbound(se)) for se, n in counts.outbound.items()),
        *((n, before.links.get(link, 0), limits.of_link(link)) for link, n in counts.links.items()),
        (counts.total, before.total, limits.node),
    ):
        assert counted <= max(limit, was)

    for entry in entries:
        free, _ = room(limits, counts, entry.link)
        if left[entry.queue.id]:
            assert free <= 0, "a transfer waits while there is room for it"
            assert "limit" in decision.reasons[entry.queue.id]
        else:
            assert entry.queue.id not in decision.reasons


@given(queues, actives(), tables, share_tables, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_equal_input_gives_equal_output_in_any_order(entries, active, limits, shares, rng) -> None:
    decision = decide(entries, active, limits, shares)
    shuffled = list(entries)
    rng.shuffle(shuffled)
    again = decide(shuffled, active, limits, shares)
    key = sorted(decision.claims, key=lambda claim: (claim.queue_id, claim.priority))
    assert sorted(again.claims, key=lambda claim: (claim.queue_id, claim.priority)) == key
    assert again.reasons == decision.reasons


@given(st.lists(weights, min_size=2, max_size=3), st.integers(3, 60))
@settings(deadline=None)
def test_with_everybody_waiting_slots_stand_in_the_ratio_of_the_weights(shares: list[float], n_slots: int) -> None:
    names = VOS[: len(shares)]
    vos = ShareTable.of(Shares(vos=dict(zip(names, shares, strict=True))))
    entries = [waiting(n, f"s{n}", "d", {3: 100}, vo=vo) for n, vo in enumerate(names)]
    counts = after(decide(entries, Active(), table(inbound=n_slots), vos), entries, Active())
    for name, weight in zip(names, shares, strict=True):
        ideal = n_slots * weight / sum(shares)
        assert abs(counts.vos.get(("d", name), 0) - ideal) <= 1 + 1e-9

    activities = ShareTable.of(Shares(activities={"vo": dict(zip(names, shares, strict=True))}))
    entries = [waiting(n, f"s{n}", "d", {3: 100}, activity=name) for n, name in enumerate(names)]
    counts = after(decide(entries, Active(), table(inbound=n_slots), activities), entries, Active())
    for name, weight in zip(names, shares, strict=True):
        ideal = n_slots * weight / sum(shares)
        assert abs(counts.activities.get(("d", "vo", name), 0) - ideal) <= 1 + 1e-9


def test_an_idle_share_is_anybodys() -> None:
    shares = ShareTable.of(Shares(vos={"atlas": 100.0, "cms": 0.1}))
    entries = [waiting(1, "s", "d", {3: 100}, vo="cms")]
    assert sum(claim.n for claim in decide(entries, Active(), table(inbound=50), shares).claims) == 50


def test_a_full_link_or_endpoint_holds_nobody_else_back() -> None:
    entries = [
        waiting(1, "s1", "d1", {5: 50}),
        waiting(2, "s2", "d1", {1: 50}),
        waiting(3, "s1", "d2", {5: 50}),
        waiting(4, "s3", "d3", {1: 50}),
    ]
    active = Active()
    active.add(Link("s1", "d1"), "vo", "x", 4)
    active.add(Link("s4", "d3"), "vo", "x", 60)
    decision = decide(entries, active, table(link=4), EQUAL)
    assert {claim.queue_id: claim.n for claim in decision.claims} == {2: 4, 3: 4}
    assert decision.reasons == {
        1: "link limit 4/4",
        2: "link limit 4/4",
        3: "link limit 4/4",
        4: "destination inbound limit 60/60",
    }


def test_destinations_take_turns_at_a_source() -> None:
    entries = [waiting(n, "s", f"d{n}", {3: 100}) for n in range(4)]
    decision = decide(entries, Active(), table(outbound=8), EQUAL)
    assert [claim.n for claim in decision.claims] == [2, 2, 2, 2]


def test_the_queue_served_longest_ago_goes_first() -> None:
    entries = [
        waiting(1, "s1", "d", {3: 9}, at=7),
        waiting(2, "s2", "d", {3: 9}, at=4),
        waiting(3, "s3", "d", {3: 9}, at=5),
    ]
    (claim,) = decide(entries, Active(), table(inbound=1), EQUAL).claims
    assert claim.queue_id == 2


def test_one_decision_is_bounded() -> None:
    entries = [waiting(n, f"s{n}", f"d{n}", {3: 1000}) for n in range(40)]
    decision = decide(entries, Active(), table(node=50_000, inbound=1000, outbound=1000, link=1000), EQUAL)
    assert sum(claim.n for claim in decision.claims) == CLAIMS_MAX


@pytest.mark.parametrize("n_queues", [2000])
def test_the_cost_grows_with_the_queues_and_not_with_their_square(
    n_queues: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Counter[str]()
    real = schedule.room

    def counting(*args: object) -> tuple[int, str]:
        looks["room"] += 1
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(schedule, "room", counting)
    entries = [waiting(n, f"s{n}", f"d{n % 50}", {3: 5}) for n in range(n_queues)]
    decision = decide(entries, Active(), table(inbound=0), EQUAL)
    assert len(decision.reasons) == n_queues
    assert looks["room"] == n_queues
