"""The chooser alone: how much it reads, where it goes on, what it does when the store does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from tests.service import file, running_service
from transfer_engine.board import Board
from transfer_engine.choosing import CHOICES_MAX, EVERY_S, PAGE_MAX, PAGES_MAX, RARELY_S, Chooser
from transfer_engine.config import Limits, Shares
from transfer_engine.driving import Driven
from transfer_engine.errors import StoreUnavailable
from transfer_engine.limits import LimitTable
from transfer_engine.linkviews import LinkViews, Wanted, slowed_links
from transfer_engine.measures import Measures
from transfer_engine.model import Assignment, Choice, FileId, Queue, QueueId, Reroute, Shift
from transfer_engine.outlook import Foresight
from transfer_engine.places import Cap, Link, Place
from transfer_engine.reasons import Reason, Why
from transfer_engine.selection import STRATEGIES
from transfer_engine.shares import ShareTable
from transfer_engine.store.api import LOOKED_AT, Store

GB = 10**9


class FakeStore:
    """Queues with a choice, and what was asked."""

    def __init__(self, n_queues: int = 0, *, n_files: int = 10, sources: Sequence[str] = ("https://b",)) -> None:
        self.n_queues = n_queues
        self.n_files = n_files
        self.sources = frozenset(sources)
        self.asked: list[tuple[int, int]] = []
        self.pages: list[tuple[int, int, int]] = []
        self.moves: list[Reroute] = []
        self.broken = False

    def _choice(self, number: int, after: int, n: int) -> Choice:
        return Choice(
            queue=_queue(number),
            priority=3,
            n=n,
            last=FileId(after + n),
            sources=self.sources,
            strategies=frozenset({"auto"}),
        )

    async def choices(self, limit: int, after: tuple[QueueId, int] | None = None) -> list[Choice]:
        if self.broken:
            msg = "disk full"
            raise StoreUnavailable(msg)
        first = 0 if after is None else after[0] + 1
        found = [self._choice(n, 0, min(self.n_files, LOOKED_AT)) for n in range(first, self.n_queues)][:limit]
        self.asked.append((first, len(found)))
        return found

    async def choice_behind(self, queue_id: QueueId, priority: int, after: FileId, limit: int) -> Choice | None:
        del priority
        n = min(limit, self.n_files - after)
        self.pages.append((queue_id, after, n))
        return self._choice(queue_id, after, n) if n > 0 else None

    async def reroute(self, moves: Sequence[Reroute]) -> tuple[Shift, ...]:
        self.moves += moves
        return ()


def _queue(number: int, source: str = "https://a") -> Queue:
    return Queue(QueueId(number), source, f"https://d{number}", "vo", "default", 3)


class World:
    """A chooser and what it looks at."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.now = 1000.0
        shares = ShareTable.of(Shares())
        self.board = Board(LimitTable.of(Limits(endpoint_outbound=4)), shares)
        self.measures = Measures()
        self.foresight = Foresight(board=self.board, measures=self.measures, shares=shares, now=lambda: self.now)
        self.chooser = Chooser(
            store=cast("Store", store),
            board=self.board,
            measures=self.measures,
            foresight=self.foresight,
            now=lambda: self.now,
            on_shifts=lambda _shifts: None,
        )

    async def look(self) -> None:
        """One look, when it is due."""
        self.now = max(self.chooser.next_change_at() or 0.0, self.now)
        await self.chooser.on_time(self.now)

    def looks(self, n: int) -> None:
        async def several() -> None:
            for _ in range(n):
                await self.look()

        asyncio.run(several())

    def waits(self, number: int, n: int, source: str = "https://a") -> None:
        self.board.shift([Shift(_queue(number, source), 3, n, n * GB)], 0.0)

    def shut(self, source: str, why: Why = Why.BAN, until: float | None = None) -> None:
        reason = Reason(code=why, text="", subject=source, until=until)
        self.board.scheduler.cap(Place("out", source), "test", Cap(0, reason))

    def view(self, source: str, number: int = 0, priority: int = 3) -> float:
        """When a file would start there."""
        views = LinkViews(board=self.board, measures=self.measures, outlooks=self.foresight.outlooks(), now=self.now)
        return views.of(source, Wanted(f"https://d{number}", "vo", "default", priority, 3)).start_s


# How much it reads


def test_without_replicas_it_looks_rarely() -> None:
    world = World(FakeStore())
    world.looks(100)
    assert 95 * RARELY_S <= world.now - 1000 <= 100 * RARELY_S


def test_more_queues_than_one_look_takes_have_their_turns() -> None:
    store = FakeStore(CHOICES_MAX * 2 + 50)
    world = World(store)
    world.looks(4)
    assert store.asked == [
        (0, CHOICES_MAX),
        (CHOICES_MAX, CHOICES_MAX),
        (2 * CHOICES_MAX, 50),
        (0, CHOICES_MAX - 50),
        (CHOICES_MAX - 50, CHOICES_MAX),
    ]
    assert world.now == 1000 + 3 * EVERY_S


def test_pages_further_behind_are_looked_at_in_turn_and_from_the_beginning_again() -> None:
    store = FakeStore(PAGES_MAX + 5, n_files=LOOKED_AT + 2 * PAGE_MAX)
    world = World(store)
    world.looks(2)
    assert [queue for queue, _, _ in store.pages] == [*range(PAGES_MAX), *range(PAGES_MAX, PAGES_MAX + 5), *range(5)]
    world.looks(20)
    of_first = [(after, n) for queue, after, n in store.pages if queue == 0]
    assert of_first[:4] == [
        (LOOKED_AT, PAGE_MAX),
        (LOOKED_AT + PAGE_MAX, PAGE_MAX),
        (LOOKED_AT + 2 * PAGE_MAX, 0),
        (LOOKED_AT, PAGE_MAX),
    ]
    assert len(store.pages) <= 22 * PAGES_MAX


def test_short_queues_have_nothing_further_behind() -> None:
    store = FakeStore(5, n_files=LOOKED_AT - 1)
    World(store).looks(3)
    assert not store.pages


def test_a_store_that_does_not_answer_is_asked_again() -> None:
    store = FakeStore(3)
    world = World(store)
    store.broken = True
    with pytest.raises(StoreUnavailable):
        world.looks(1)
    assert (world.chooser.next_change_at() or 0.0) <= world.now
    store.broken = False
    world.looks(1)
    assert store.asked


# What it moves


def test_nothing_moves_while_all_is_well() -> None:
    store = FakeStore(1, n_files=3)
    world = World(store)
    world.waits(0, 3)
    world.looks(3)
    assert not store.moves


def test_a_source_that_is_shut_is_left_also_for_one_that_was_never_used() -> None:
    store = FakeStore(1, n_files=50, sources=("https://b", "https://c"))
    world = World(store)
    world.waits(0, 50)
    world.shut("https://a")
    world.looks(1)
    assert sum(move.n for move in store.moves) == 50
    targets = [set(move.prefer["auto"]) for move in store.moves]
    assert sorted(map(sorted, targets)) == [["https://b"], ["https://c"]]
    assert all(move.n == pytest.approx(25, abs=1) for move in store.moves)


def test_all_queues_of_a_look_count_for_one_another() -> None:
    """Ten activities do not all take the whole of an idle source."""
    store = FakeStore(1, n_files=40)
    world = World(store)
    world.waits(0, 40)
    views = LinkViews(board=world.board, measures=world.measures, outlooks=world.foresight.outlooks(), now=0.0)
    wanted = [Wanted("https://d0", "vo", activity, 3, 3) for activity in ("default", "other", "third")]
    assert views.of("https://b", wanted[1]).start_s == 0
    views.queued("https://b", wanted[0], 40, GB)
    assert views.of("https://b", wanted[1]).start_s > 0
    assert views.of("https://b", wanted[2]).start_s == views.of("https://b", wanted[1]).start_s


# What it knows of links


def test_who_waits_with_higher_priority_is_before_a_file_and_who_has_a_lower_one_is_not() -> None:
    world = World(FakeStore())
    world.waits(0, 100)
    assert world.view("https://a", priority=3) > 0
    assert world.view("https://a", priority=2) > 0
    assert world.view("https://a", priority=4) == 0


def test_a_burst_counts_before_the_forecast_has_seen_it() -> None:
    world = World(FakeStore())
    world.waits(0, 1)
    before = world.view("https://a")
    world.waits(0, 999)
    assert world.view("https://a") > before + 100


def test_a_source_that_wants_a_rest_starts_when_it_is_over() -> None:
    world = World(FakeStore())
    world.waits(0, 1)
    world.shut("https://a", Why.PAUSE, until=world.now + 77)
    assert world.view("https://a") == pytest.approx(77, abs=1)


def test_a_busy_source_has_no_slot_at_once() -> None:
    world = World(FakeStore())
    world.measures.ended(0.0, Link("https://a", "https://d1"), 100.0, GB, ok=True)
    for _ in range(4):
        world.board.scheduler.hold(_queue(1), 3, 0.0)
    assert world.view("https://a", 0) >= 25


def _driven(number: int, *, since_s: float, done: int, size: int = GB) -> Driven:
    found = Driven(cast("Assignment", SimpleNamespace(queue=_queue(number), size_bytes=size)), 0.0)
    found.began_at = 1000.0 - since_s
    found.progress.bytes_done = done
    return found


@pytest.mark.parametrize(
    ("running", "times"),
    [
        ([(50, GB // 2)], None),
        ([(100, GB // 10)], 10),
        ([(100, GB // 10), (100, GB // 20)], 10),
        ([(100, GB // 10), (60, GB // 2)], None),
        ([(500, 0)], 5),
        ([(4, 1)], None),
        ([(9, 0)], None),
        ([(500, 0), (1, 0), (1, 0)], None),
    ],
)
def test_a_link_is_slower_when_all_that_runs_there_is(running: list[tuple[float, int]], times: float | None) -> None:
    measures = Measures()
    for _ in range(3):
        measures.ended(900.0, Link("https://a", "https://d0"), 100.0, GB, ok=True)
    rows = [_driven(0, since_s=since_s, done=done) for since_s, done in running]
    found = slowed_links([*rows, _driven(1, since_s=1000, done=1)], measures, 1000.0)
    assert found == ({} if times is None else {Link("https://a", "https://d0"): pytest.approx(times)})


# Over REST


@pytest.mark.asyncio
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_the_job_service_takes_every_strategy_of_fts(strategy: str) -> None:
    async with running_service() as service:
        one = file(0, selection_strategy=strategy) | {"sources": ["https://a.example/f", "https://b.example/f"]}
        job_id = await service.submit(one)
        _, files = await service.call("GET", f"/jobs/{job_id}/files")
        assert [found["selection_strategy"] for found in files] == [strategy, strategy]
        assert [found["file_state"] for found in files] == ["SUBMITTED", "NOT_USED"]


@pytest.mark.asyncio
async def test_the_job_service_refuses_other_names_in_ftss_words() -> None:
    async with running_service() as service:
        status, answer = await service.call("POST", "/jobs", {"files": [file(0, selection_strategy="dice")]})
        assert (status, answer["message"]) == (400, "dice algorithm is not supported by Scheduler")
