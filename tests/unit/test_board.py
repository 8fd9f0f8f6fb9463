"""What the engine knows by heart, against a store that knows every transfer and lets none write what another writes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.schedule_lists import check_lane, check_site
from tests.unit.test_settle import ORDER
from transfer_engine import board as boards
from transfer_engine.board import Board
from transfer_engine.config import Limits, Shares, VoLimits
from transfer_engine.limits import LimitTable
from transfer_engine.model import Assignment, FileId, Queue, QueueId, Shift
from transfer_engine.places import Link, Place
from transfer_engine.rooms import Room
from transfer_engine.schedule import Start
from transfer_engine.shares import ShareTable

QUEUES = [
    Queue(QueueId(n), f"https://s{n % 2}", dest, f"vo{n % 3}", "x")
    for n, dest in enumerate(["https://d0", "davs://d0", "https://d1", "https://d0", "https://d1"])
]
LIMITS = Limits(
    endpoint_inbound=4,
    endpoint_outbound=5,
    link=3,
    node=8,
    vos=(VoLimits(endpoint="https://d0", vo="vo0", inbound=1),),
)
SIZE = 10


@dataclass(frozen=True)
class Waiting:
    """One ready transfer."""

    number: int
    queue: Queue
    priority: int
    file: int
    """Of the destination's host."""

    @property
    def where(self) -> tuple[str, int]:
        return self.queue.dest_se.partition("://")[2], self.file


def board_of(limits: Limits = LIMITS) -> Board:
    return Board(LimitTable.of(limits), ShareTable.of(Shares()))


class BoardMachine(RuleBasedStateMachine):
    """Submissions, cancellations, decisions, claims that meet what others write, answers that come late, ends."""

    def __init__(self) -> None:
        super().__init__()
        self.board = board_of()
        self.waiting: list[Waiting] = []
        self.driven: dict[int, Assignment] = {}
        self.written: dict[tuple[str, int], int] = {}
        self.starts: list[Start] = []
        self.answer: list[Waiting] | None = None
        """The store has claimed these, and its answer is on its way."""
        self.numbers = 0
        self.now = 0.0

    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.integers(1, 2),
        files=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    )
    def submit(self, queue: Queue, priority: int, files: list[int]) -> None:
        for file in files:
            self.numbers += 1
            self.waiting.append(Waiting(self.numbers, queue, priority, file))
        self.board.shift([Shift(queue, priority, len(files), SIZE * len(files))], self.now)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.board.shift([Shift(one.queue, one.priority, -1, -SIZE)], self.now)

    @precondition(lambda self: not self.starts)
    @rule()
    def decide(self) -> None:
        self.starts = self.board.decide(self.now)

    @precondition(lambda self: self.starts and self.answer is None)
    @rule()
    def store_claims(self) -> None:
        self.answer = []
        for claim in Board.claims(self.starts):
            n = claim.n
            for one in list(self.waiting):
                if n and (one.queue.id, one.priority) == (claim.queue_id, claim.priority):
                    if one.where in self.written:
                        continue
                    self.written[one.where] = one.number
                    self.waiting.remove(one)
                    self.answer.append(one)
                    n -= 1

    @precondition(lambda self: self.answer is not None)
    @rule()
    def answer_comes(self) -> None:
        orders = [
            replace(ORDER, file_id=FileId(one.number), queue=one.queue, priority=one.priority, size_bytes=SIZE)
            for one in self.answer or []
        ]
        self.board.claimed(self.starts, orders, self.now)
        for one, order in zip(self.answer or [], orders, strict=True):
            self.driven[one.number] = order
        self.starts, self.answer = [], None

    @precondition(lambda self: self.starts and self.answer is None)
    @rule()
    def store_is_away(self) -> None:
        self.board.unclaimed(self.starts, self.now)
        self.starts = []

    @precondition(lambda self: self.driven)
    @rule(data=st.data(), seconds=st.floats(0, 50), again=st.booleans())
    def end(self, data: st.DataObject, seconds: float, again: bool) -> None:
        self.now += seconds
        number = data.draw(st.sampled_from(sorted(self.driven)))
        order = self.driven.pop(number)
        where = next((where for where, by in self.written.items() if by == number), None)
        if where is not None:
            del self.written[where]
            if again:
                self.waiting.append(Waiting(number, order.queue, order.priority, where[1]))
                self.board.shift([Shift(order.queue, order.priority, 1, SIZE)], self.now)
        self.board.release(order, self.now, SIZE)

    @rule(queue=st.sampled_from(QUEUES))
    def find_a_lost_attempt(self, queue: Queue) -> None:
        self.numbers += 1
        order = replace(ORDER, file_id=FileId(self.numbers), queue=queue, priority=1)
        self.driven[self.numbers] = order
        self.board.hold(order, self.now)

    @rule(tidy=st.booleans())
    def housekeeping(self, tidy: bool) -> None:
        self.board.unblock_all(self.now)
        if tidy:
            self.board.scheduler.tidy()

    @rule()
    def quiet(self) -> None:
        """Answers come and decisions are made until there are none: then whatever waits has a reason."""
        for _ in range(100):
            if self.starts and self.answer is None:
                self.store_claims()
            if self.answer is not None:
                self.answer_comes()
            self.decide()
            if not self.starts:
                break
        assert not self.starts, "it comes to an end"
        for one in self.waiting:
            rooms = self.rooms_of(one.queue)
            full = any(room.used >= room.limit or room.promised is not None for room in rooms)
            assert full or self.something_writes(one), f"{one} is forgotten"

    def something_writes(self, one: Waiting) -> bool:
        """The store passes over a queue only while something to its destination is driven, whose end is a wake-up."""
        return any(place == one.where[0] for place, _ in self.written)

    def rooms_of(self, queue: Queue) -> tuple[Room, ...]:
        return self.board.scheduler.lane(queue, 1).rooms

    @invariant()
    def counts_are_those_of_the_store(self) -> None:
        n_asked = Counter({(s.lane.queue.id, s.lane.priority): s.n for s in self.starts})
        ready = Counter((one.queue.id, one.priority) for one in self.waiting)
        got = Counter((one.queue.id, one.priority) for one in self.answer or [])
        told = {key: ready[key] + got[key] - n_asked[key] for key in {*ready, *got, *n_asked}}
        assert self.board.n_ready == sum(max(n, 0) for n in told.values())
        by_link: Counter[Link] = Counter()
        for (queue_id, _), n in told.items():
            if n > 0:
                by_link[Link(QUEUES[queue_id].source_se, QUEUES[queue_id].dest_se)] += n
        assert self.board.ready_by_link() == by_link
        if not self.starts:
            n_bytes = sum(lane.n_bytes for lane in self.board.scheduler.lanes.values())
            assert n_bytes == SIZE * len(self.waiting)

    @invariant()
    def slots_are_those_that_are_held(self) -> None:
        held = Counter(Link(order.queue.source_se, order.queue.dest_se) for order in self.driven.values())
        for start in self.starts:
            held[start.lane.link] += start.n
        assert self.board.active_by_link() == held
        assert self.board.n_active == sum(held.values())
        into: Counter[str] = Counter()
        for link, n in held.items():
            into[link.dest_se] += n
        for se, n in into.items():
            assert self.board.scheduler.rooms[Place("in", se)].used == n

    @invariant()
    def every_lane_is_somewhere(self) -> None:
        for lane in self.board.scheduler.lanes.values():
            check_lane(self.board.scheduler, lane)
        for site in self.board.scheduler.sites.values():
            check_site(site)

    def teardown(self) -> None:
        """When nothing is driven and nothing waits any more, nothing is held."""
        self.board.unblock_all(self.now)
        for _ in range(500):
            self.quiet()
            if not self.driven:
                break
            for number in sorted(self.driven):
                order = self.driven.pop(number)
                self.written = {where: by for where, by in self.written.items() if by != number}
                self.board.release(order, self.now)
        assert not self.waiting
        assert self.board.n_ready == self.board.n_active == 0
        assert not any(room.used or room.promised for room in self.board.scheduler.rooms.values())


TestBoard = BoardMachine.TestCase
TestBoard.settings = settings(
    deadline=None, max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
TestBoard = pytest.mark.slow(TestBoard)


def order_of(queue: Queue, number: int) -> Assignment:
    return replace(ORDER, file_id=FileId(number), queue=queue, priority=3, size_bytes=None)


def test_what_is_freed_while_a_claim_is_on_its_way_is_not_overlooked() -> None:
    """The store found the destination written; before its answer came that had ended."""
    board = board_of(Limits())
    queue = QUEUES[0]
    writer = order_of(queue, 1)
    board.hold(writer, 0.0)
    board.shift([Shift(queue, 3, 1)], 0.0)
    starts = board.decide(0.0)
    assert [start.n for start in starts] == [1]
    board.release(writer, 1.0)
    board.claimed(starts, [], 1.0)
    assert [start.n for start in board.decide(1.0)] == [1]


@pytest.mark.parametrize("dest_se", ["https://d0", "davs://d0"])
def test_a_blocked_lane_wakes_when_something_ends_at_its_host(dest_se: str) -> None:
    board = board_of(Limits())
    blocked, elsewhere = QUEUES[0], QUEUES[2]
    writer = order_of(replace(QUEUES[3], dest_se=dest_se), 1)
    other = order_of(elsewhere, 2)
    board.hold(writer, 0.0)
    board.hold(other, 0.0)
    board.shift([Shift(blocked, 3, 1)], 0.0)
    board.claimed(board.decide(0.0), [], 0.0)
    assert board.ready_by_sharer() == {}
    assert board.n_ready == 1
    board.release(other, 1.0)
    assert board.decide(1.0) == []
    board.release(writer, 1.0)
    assert len(board.decide(1.0)) == 1


def test_claims_that_the_store_did_not_answer_are_made_again() -> None:
    board = board_of(Limits())
    board.shift([Shift(QUEUES[0], 3, 5)], 0.0)
    starts = board.decide(0.0)
    assert board.n_active == 5
    board.unclaimed(starts, 1.0)
    assert (board.n_active, board.n_ready) == (0, 5)
    assert [start.n for start in board.decide(1.0)] == [5]


def test_a_transfer_may_be_claimed_again_before_its_last_attempt_is_told_to_have_ended() -> None:
    """One commit can hold the end of an attempt and the next claim; their answers come in either order."""
    board = board_of(Limits())
    first = order_of(QUEUES[0], 1)
    board.hold(first, 0.0)
    board.shift([Shift(QUEUES[0], 3, 1)], 0.0)
    again = replace(first, epoch=first.epoch + 1)
    board.claimed(board.decide(0.0), [again], 0.0)
    board.release(first, 1.0)
    assert board.n_active == 1
    board.release(again, 2.0)
    assert board.n_active == 0


def test_lanes_without_work_are_forgotten_and_transfers_are_not() -> None:
    board = board_of(Limits(endpoint_inbound=1))
    board.shift([Shift(queue, 3, 1) for queue in QUEUES], 0.0)
    n = 0
    for number in range(100):
        starts = board.decide(0.0)
        board.scheduler.tidy()
        orders = [order_of(start.lane.queue, 1000 * number + n) for n, start in enumerate(starts)]
        board.claimed(starts, orders[: number % 3], 0.0)
        board.unblock_all(0.0)
        for order in orders[: number % 3]:
            board.release(order, 1.0)
            n += 1
    assert n == len(QUEUES)
    board.scheduler.tidy()
    assert not board.scheduler.lanes
    assert not board.scheduler.sites


def test_lanes_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "TIDY_ABOVE", len(QUEUES))
    board = board_of()
    for priority in (1, 2):
        for n in (1, -1):
            board.shift([Shift(queue, priority, n) for queue in QUEUES], 0.0)
        board.unblock_all(0.0)
        assert len(board.scheduler.lanes) == (len(QUEUES) if priority == 1 else 0)


def test_tallies_are_kept_by_link() -> None:
    board = board_of()
    tally = board.tally(order_of(QUEUES[0], 1))
    tally.finished += 1
    assert board.tally(order_of(QUEUES[0], 2)) is tally
    assert board.tally(order_of(QUEUES[1], 3)) is not tally
