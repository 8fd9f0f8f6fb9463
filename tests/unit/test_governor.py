"""What is learned bounds the scheduler; what goes wrong in learning does not."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import Again, Phase, Scope
from tests.unit.schedule_model import cap_of
from tests.unit.test_settle import ORDER
from transfer_engine import governor as governors
from transfer_engine.board import Board
from transfer_engine.config import BreakerSettings, Limits, OptimizerSettings, Shares
from transfer_engine.driving import Driven
from transfer_engine.governor import Governor
from transfer_engine.health import Health
from transfer_engine.limits import NODE, LimitTable
from transfer_engine.model import Failed, Failure, FileId, Queue, QueueId, Shift, Unknown
from transfer_engine.optimizer import Optimizer
from transfer_engine.places import Place
from transfer_engine.shares import ShareTable

A, B = "sim://a", "sim://b"
QUEUE = Queue(QueueId(1), A, B, "vo", "x", 2)
LARGE = replace(QUEUE, id=QueueId(2), size_class=5)
DOWN = Failure(
    code="UNAVAILABLE",
    again=Again.SOON,
    scope=Scope.DESTINATION,
    phase=Phase.PREPARATION,
    errno=111,
    message="down",
    hint="",
)


class Bench:
    """A governor and the board that it bounds; `now` is set by hand."""

    def __init__(self, *, optimizer: bool = True, limits: Limits | None = None) -> None:
        self.now = 1000.0
        self.n_wakes = 0
        table = LimitTable.of(limits or Limits())
        self.board = Board(table, ShareTable.of(Shares()))
        self.governor = Governor(
            board=self.board,
            limits=table,
            health=Health(BreakerSettings(), random.Random(1)),
            optimizer=Optimizer(OptimizerSettings(enabled=optimizer)),
            now=lambda: self.now,
            wake=self._wake,
        )

    def _wake(self) -> None:
        self.n_wakes += 1

    def start(self, number: int, queue: Queue = QUEUE, *, recovered: bool = False) -> Driven:
        driven = Driven(replace(ORDER, file_id=FileId(number), queue=queue, priority=3), self.now)
        self.board.hold(driven.order, self.now)
        self.governor.started(driven, recovered=recovered)
        return driven

    def fail(self, driven: Driven, failure: Failure = DOWN) -> int:
        n = self.governor.failed(driven, failure)
        self.end(driven)
        return n

    def end(self, driven: Driven) -> None:
        self.governor.released(driven)
        self.board.release(driven.order, self.now)

    def limit(self, place: Place) -> int:
        return self.board.scheduler.room(place).limit


def _break(*_: Any, **__: Any) -> Any:
    raise RuntimeError("planted")


def test_an_error_in_what_is_learned_is_no_error_of_a_transfer() -> None:
    bench = Bench()
    governor: Any = bench.governor
    running = [bench.start(n) for n in range(3)]
    bench.governor.order({Place("out", A): cap_of(1)})
    assert bench.limit(Place("in", B)) == 2
    governor.health.observe = governor.health.released = _break
    bench.end(running[0])
    assert bench.governor.broken
    assert bench.limit(Place("in", B)) == Limits().endpoint_inbound
    assert bench.limit(Place("out", A)) == 1, "what operators ordered holds"
    assert bench.fail(running[1]) == 0
    bench.governor.settled(running[2], Unknown(failure=DOWN, started_at=0.0), None)  # type: ignore[arg-type]
    bench.end(running[2])
    bench.start(7, LARGE)
    bench.governor.order({NODE: cap_of(0)})
    assert bench.limit(NODE) == 0
    assert bench.limit(Place("out", A)) == Limits().endpoint_outbound
    assert bench.limit(Place("size", B, "5")) > 1000
    assert bench.governor.next_at() is None
    bench.governor.on_time(bench.now)
    again = Bench()
    again.governor.load(bench.governor.dump())
    assert not again.governor.broken, "the next start begins anew"


@pytest.mark.parametrize(
    "text",
    ["", "null", "7", "[]", "{}", '{"optimizer": 1, "health": 2}', '{"optimizer": "x", "health": {"version": 1}}'],
)
def test_what_cannot_be_read_is_left_out(text: str) -> None:
    bench = Bench()
    bench.governor.load(text)
    bench.end(bench.start(1))
    assert not bench.governor.broken


def test_what_was_learned_under_other_limits_can_be_kept_again() -> None:
    bench = Bench()
    running = [bench.start(n) for n in range(6)]
    for _ in range(5):
        bench.now += 2.0
        for driven in running:
            bench.governor.told(driven, int(1e6 * (bench.now - 1000)))
        bench.governor.on_time(bench.now)
    closed = Limits(endpoint_inbound=0, endpoint_outbound=0, link=0)
    later = Bench(limits=closed)
    later.governor.load(bench.governor.dump())
    found = later.start(1, recovered=True)
    for _ in range(5):
        later.now += 2.0
        later.governor.on_time(later.now)
    later.end(found)
    kept = json.loads(later.governor.dump())
    assert not later.governor.broken
    assert json.loads(kept["optimizer"])["places"]


@pytest.mark.parametrize("optimizer", [True, False])
def test_a_destination_is_taken_for_filled_only_while_the_optimizer_is_on(*, optimizer: bool) -> None:
    bench = Bench(optimizer=optimizer)
    bench.board.shift([Shift(LARGE, 3, 10, 10)], bench.now)
    moved: list[list[Any]] = [[bench.start(1, LARGE), 0]]
    for each, n_more in ((100_000_000, 4), (20_000_000, 0)):
        for _ in range(30):
            bench.now += 1.0 / 3
            for row in moved:
                row[1] += each // 3
                bench.governor.told(*row)
            bench.governor.on_time(bench.now)
        moved += [[bench.start(n, LARGE), 0] for n in range(2, 2 + n_more)]
    assert bench.board.scheduler.sites[B].filled == optimizer
    assert (bench.board.capped() == {}) != optimizer


def test_retries_wait_for_the_try_not_for_what_was_under_way_before_it() -> None:
    bench = Bench()
    hanging = [bench.start(n) for n in range(3)]
    for n in range(10, 30):
        bench.fail(bench.start(n, replace(QUEUE, source_se=f"sim://a{n % 2}")))
    assert bench.limit(Place("in", B)) == 0
    while bench.limit(Place("in", B)) == 0:
        bench.now += 1.0
        bench.governor.on_time(bench.now)
    assert bench.limit(Place("in", B)) > 1
    assert B not in bench.governor.recovered, "nobody knows yet"
    del hanging


def test_excuses_of_transfers_that_are_never_heard_of_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governors, "EXCUSED_MAX", 10)
    bench = Bench()
    under_way = [bench.start(n) for n in range(60)]
    n_excused = [bench.fail(driven) for driven in under_way]
    assert any(n_excused)
    assert 0 < len(bench.governor._excused) <= 10


def test_what_an_earlier_engine_left_takes_no_place_from_what_moves() -> None:
    bench = Bench()
    found = [bench.start(n, recovered=True) for n in range(5)]
    assert bench.limit(Place("in", B)) == 2 + 5
    for driven in found:
        driven.outcome = Failed(failure=DOWN, clean=True, started_at=0.0)
        bench.end(driven)
    assert bench.limit(Place("in", B)) == 2
    assert not bench.governor._idle


def test_a_clock_that_is_set_back_does_not_stop_the_looking() -> None:
    bench = Bench()
    bench.start(1)
    bench.now -= 3600.0
    bench.governor.on_time(bench.now)
    at = bench.governor.next_at()
    assert at is not None
    assert at <= bench.now + 10
