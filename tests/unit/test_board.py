"""The counts that the engine knows by heart, against a model that keeps every transfer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.test_settle import ORDER
from transfer_engine.board import Board
from transfer_engine.model import Assignment, Claim, FileId, Link, Queue, QueueId, Shift

QUEUES = [
    Queue(QueueId(n), f"https://s{n % 2}", dest, f"vo{n % 3}", "x")
    for n, dest in enumerate(["https://d0", "davs://d0", "https://d1", "https://d0", "https://d1"])
]
queues = st.sampled_from(QUEUES)
priorities = st.integers(1, 3)


def place(se: str) -> str:
    return se.partition("://")[2]


class BoardMachine(RuleBasedStateMachine):
    """Submissions, cancellations, claims that get less than they asked for, ends."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Board()
        self.ready: Counter[tuple[Queue, int]] = Counter()
        self.driven: list[Assignment] = []
        self.blocked: set[tuple[Queue, int]] = set()
        self.numbers = 0

    @rule(queue=queues, priority=priorities, n=st.integers(1, 20))
    def become_ready(self, queue: Queue, priority: int, n: int) -> None:
        self.board.shift([Shift(queue, priority, n)])
        self.ready[queue, priority] += n
        self.blocked = {key for key in self.blocked if key[0] != queue}

    @precondition(lambda self: +self.ready)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(+self.ready, key=str)))
        n = data.draw(st.integers(1, self.ready[key]))
        self.board.shift([Shift(*key, -n)])
        self.ready[key] -= n

    @precondition(lambda self: self.board.waiting())
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        entries = self.board.waiting()
        entry = data.draw(st.sampled_from(entries))
        claims, orders = [], []
        short: set[tuple[Queue, int]] = set()
        for priority, n_ready in sorted(entry.by_priority.items(), reverse=True):
            n = data.draw(st.integers(1, n_ready))
            got = data.draw(st.integers(0, n))
            if got < n:
                short.add((entry.queue, priority))
            claims.append(Claim(entry.queue.id, priority, n))
            for _ in range(got):
                self.numbers += 1
                orders.append(replace(ORDER, file_id=FileId(self.numbers), queue=entry.queue, priority=priority))
            self.ready[entry.queue, priority] -= got
        self.board.claimed(claims, orders)
        self.driven += orders
        self.blocked |= short

    @precondition(lambda self: self.driven)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        order = self.driven.pop(data.draw(st.integers(0, len(self.driven) - 1)))
        self.board.release(order)
        self.blocked = {(q, p) for q, p in self.blocked if place(q.dest_se) != place(order.queue.dest_se)}

    @rule()
    def housekeeping(self) -> None:
        self.board.unblock_all()
        self.blocked.clear()

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        ready = +self.ready
        assert self.board.n_ready == sum(ready.values())
        by_link: Counter[Link] = Counter()
        for (queue, _), n in ready.items():
            by_link[Link(queue.source_se, queue.dest_se)] += n
        assert self.board.ready_by_link() == by_link
        active = self.board.active
        assert active.total == len(self.driven)
        assert active.inbound == Counter(order.queue.dest_se for order in self.driven)
        assert active.outbound == Counter(order.queue.source_se for order in self.driven)
        assert active.vos == Counter((order.queue.dest_se, order.queue.vo) for order in self.driven)

    @invariant()
    def what_may_be_served_is_offered(self) -> None:
        offered: dict[Any, dict[int, int]] = {w.queue: dict(w.by_priority) for w in self.board.waiting()}
        expected: dict[Any, dict[int, int]] = {}
        for (queue, priority), n in (+self.ready).items():
            if (queue, priority) not in self.blocked:
                expected.setdefault(queue, {})[priority] = n
        assert offered == expected

    @invariant()
    def a_queue_without_work_is_forgotten(self) -> None:
        self.blocked = {(q, p) for q, p in self.blocked if any(self.ready[q, x] for x in (1, 2, 3))}


TestBoard = BoardMachine.TestCase
TestBoard.settings = settings(deadline=None, max_examples=60)
