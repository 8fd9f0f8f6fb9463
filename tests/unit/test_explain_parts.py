"""What explanations are made of: who is served first, what is said first, forecasts beside the event loop."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from transfer_engine import order
from transfer_engine.board import Board
from transfer_engine.causes import RANK, Causes, ranked
from transfer_engine.config import Limits, Settings, Shares
from transfer_engine.limits import LimitTable
from transfer_engine.measures import Measures
from transfer_engine.model import Queue, QueueId
from transfer_engine.outlook import INLINE_MAX, Foresight
from transfer_engine.places import Cap, Place
from transfer_engine.reasons import Reason, Why
from transfer_engine.shares import ShareTable

A, B, C = "sim://a", "sim://b", "sim://c"


def board(**limits: Any) -> Board:
    return Board(LimitTable.of(Limits(**limits)), ShareTable.of(Shares()))


def queue(number: int, source: str = A, dest: str = B, vo: str = "atlas") -> Queue:
    return Queue(QueueId(number), source, dest, vo, "default")


def reason(code: Why, until: float | None = None) -> Reason:
    return Reason(code=code, text=code.value, until=until)


# The order in which things are said


def test_every_code_has_its_rank():
    assert set(RANK) == set(Why)


def test_a_ban_comes_before_a_limit_and_what_lasts_longer_before_what_is_over_sooner():
    said = [reason(Why.TURN), reason(Why.LIMIT), reason(Why.BREAKER, 5.0), reason(Why.BAN, 9.0), reason(Why.BAN)]
    assert ranked(said) == [said[4], said[3], said[2], said[1], said[0]]


@pytest.mark.parametrize(
    ("until", "first"),
    [(None, Why.BAN), (200.0, Why.BAN), (50.0, Why.RETRY)],
)
def test_a_retry_comes_first_when_it_is_due_later_than_the_ban_ends(until: float | None, first: Why):
    said = [reason(Why.BAN, until), reason(Why.RETRY, 100.0), reason(Why.LIMIT)]
    found = ranked(said)
    assert found[0].code is first
    assert [one.code for one in found if one.code is not first][-1] is Why.LIMIT


def test_what_is_said_twice_is_said_once():
    assert ranked([reason(Why.LIMIT), reason(Why.LIMIT)]) == [reason(Why.LIMIT)]


# Who is served first


def test_who_waits_where_there_is_room_is_told_for_whom_it_is():
    """A lane that waits in a room with a free slot waits for somebody else's turn, not for a limit."""
    scheduler = board(endpoint_outbound=2).scheduler
    scheduler.ready(queue(1), 3, 5, 0, 0.0)
    scheduler.ready(queue(2, dest=C), 3, 5, 0, 0.0)
    scheduler.decide(0.0)
    lane = scheduler.lanes[QueueId(1), 3]
    room = scheduler.rooms[Place("out", A)]
    assert lane.parked_in is room
    room.promised = scheduler.sites[C]
    (found,) = [one for one in scheduler.reasons(lane.queue, 3) if one.code is Why.SHARE]
    assert found.subject == C
    assert found.text == f"a slot out of {A} is kept for transfers to {C}, which have waited for it longer"
    room.promised = scheduler.sites[B]
    assert all("kept" not in one.text for one in scheduler.reasons(lane.queue, 3))


def test_who_has_nothing_to_start_is_no_rival():
    scheduler = board(endpoint_outbound=2).scheduler
    scheduler.ready(queue(1), 3, 5, 0, 0.0)
    scheduler.ready(queue(2, dest=C), 3, 1, 0, 0.0)
    scheduler.ready(queue(3, vo="cms"), 3, 1, 0, 0.0)
    scheduler.decide(0.0)
    room, lane = scheduler.rooms[Place("out", A)], scheduler.lanes[QueueId(1), 3]
    for site in (scheduler.sites[C], scheduler.sites[B]):
        room.keys[site] = 0.0 if site.name == C else 5.0
    for number, dest, vo in ((2, C, "atlas"), (3, B, "cms")):
        n = scheduler.lanes[QueueId(number), 3].n_ready
        scheduler.ready(queue(number, dest=dest, vo=vo), 3, -n, 0, 0.0)
    assert order.reasons(lane) == []


def test_many_rivals_are_not_all_named():
    scheduler = board(endpoint_inbound=9).scheduler
    for number in range(9):
        scheduler.ready(queue(number, vo=f"vo{number}"), 3, 5, 0, 0.0)
    scheduler.decide(0.0)
    lane = scheduler.lanes[QueueId(0), 3]
    (share,) = order.reasons(lane)
    assert share.text.endswith("; vo1, vo2, vo3, vo4, vo5 and 3 more wait too")
    assert (share.used, share.limit) == (1, 1)


def test_trouble_is_told_as_it_is_now_not_as_it_was_when_it_bound():
    scheduler = board().scheduler
    place = Place("in", B)
    scheduler.ready(queue(1), 3, 5, 0, 0.0)
    scheduler.cap(place, "health", Cap(0, reason(Why.PAUSE, 10.0)))
    scheduler.first_caps = lambda asked: [("health", Cap(0, reason(Why.PAUSE, 99.0)))] if asked == place else []
    lane = scheduler.lanes[QueueId(1), 3]
    (found,) = Causes(scheduler).of_lane(lane)
    assert (found.code, found.until, found.used, found.limit) == (Why.PAUSE, 99.0, 0, 0)


# Forecasts


def foresight(of: Board, measures: Measures | None = None) -> Foresight:
    return Foresight(board=of, measures=measures or Measures(), shares=ShareTable.of(Shares()), now=lambda: 0.0)


def crowd(of: Board, measures: Measures, n: int) -> None:
    rng = random.Random(1)
    for number in range(n):
        one = queue(number, f"sim://s{number % 40}", f"sim://d{number // 40}")
        of.scheduler.ready(one, 3, rng.randint(1, 100), 10**9, 0.0)
        measures.ended(0.0, of.link(one), 10.0, 10**9, ok=True)
    of.decide(0.0)


@pytest.mark.asyncio
async def test_a_large_forecast_leaves_the_event_loop_its_turns():
    everything, measures = board(), Measures()
    crowd(everything, measures, INLINE_MAX + 200)
    ahead = foresight(everything, measures)
    ahead.follow(tuple, threads=True)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        first = group.create_task(ahead.fresh())
        second = group.create_task(ahead.fresh())
        assert await first is await second
        counting.cancel()
    assert turns > 2
    assert len(await first) == INLINE_MAX + 200
    assert await ahead.fresh() is await first


def test_a_place_that_closes_makes_the_forecast_anew():
    everything, measures = board(endpoint_inbound=2), Measures()
    crowd(everything, measures, 3)
    ahead = foresight(everything, measures)
    key = next(key for key, lane in everything.scheduler.lanes.items() if lane.n_ready > 5)
    ahead.outlooks()
    assert ahead.start_s(key, 3) is not None
    everything.scheduler.cap(Place("in", "sim://d0"), "order", Cap(0, reason(Why.BAN)))
    ahead.outlooks()
    assert ahead.start_s(key, 3) is None
    everything.scheduler.cap(Place("in", "sim://d0"), "order", None)
    ahead.outlooks()
    assert ahead.start_s(key, 3) is not None


def test_starts_are_later_the_more_stand_before():
    everything, measures = board(endpoint_inbound=3), Measures()
    crowd(everything, measures, 30)
    ahead = foresight(everything, measures)
    ahead.outlooks()
    for key in everything.scheduler.lanes:
        starts = [ahead.start_s(key, n) for n in range(150)]
        assert None not in starts
        assert starts == sorted(starts)


def test_bytes_per_second_bound_a_forecast():
    settings = Settings(limits={"endpoints": {B: {"inbound_bytes_s": 30e6}}})
    everything = Board(LimitTable.of(settings.limits), ShareTable.of(Shares()))
    measures = Measures()
    one = queue(1)
    everything.scheduler.learn(one, 10.0, 10e6)
    measures.ended(0.0, everything.link(one), 10.0, 10**8, ok=True)
    everything.scheduler.ready(one, 3, 300, 300 * 10**8, 0.0)
    assert sum(start.n for start in everything.decide(0.0)) == 3
    ahead = foresight(everything, measures)
    ahead.outlooks()
    assert ahead.start_s((QueueId(1), 3), 296) == pytest.approx(990, rel=0.1)
