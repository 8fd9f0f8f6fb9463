"""Which replica each file is copied from: chosen when it is submitted, while it waits, and after a failure.

Nobody knows at submission what a link will do by the time a transfer starts. So files that wait and have
further replicas are looked at every few seconds, the oldest of each queue first: whatever is about to
start has been looked at a moment ago. What stands further behind is looked at page by page, so that a
source that has nothing to do is found also when its files are not the oldest ones.

What a look costs does not depend on how many files wait: it reads so many queues, so many pages and moves so
many files; the next look goes on where it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from transfer_engine import selection
from transfer_engine.board import Board
from transfer_engine.driving import Driven
from transfer_engine.forecast import Outlook
from transfer_engine.linkviews import LinkViews, Wanted, slowed_links
from transfer_engine.measures import Measures
from transfer_engine.model import Assignment, Choice, FileId, PlannedFile, PlannedJob, Queue, QueueId, Reroute, Shift
from transfer_engine.outlook import INLINE_MAX, Foresight
from transfer_engine.places import Link
from transfer_engine.schedule import LaneKey
from transfer_engine.selection import LinkView
from transfer_engine.sizes import UNKNOWN, size_class, typical_bytes
from transfer_engine.states import JobType
from transfer_engine.store.api import LOOKED_AT, Store

EVERY_S: Final = 5.0
"""Between two looks at what waits."""
RARELY_S: Final = 60.0
"""The same while nothing has a choice; looks become rarer and rarer until then."""
CHOICES_MAX: Final = 200
"""Most queues in one look."""
FRESH_S: Final = 1.0
"""How old what running copies show of their links may be."""
PAGES_MAX: Final = 10
PAGE_MAX: Final = 1000
"""Most pages further behind in one look, and files on each."""
MOVES_MAX: Final = 1000
"""Most files of one queue that are moved at once."""
BREATH: Final = 200
"""So many files of a large submission are decided before others have their turn on the event loop."""
DESTINATIONS_MAX: Final = 10_000
"""Destinations of which it is remembered where their files have replicas; beyond it, it is learned anew."""
QUEUES_MAX: Final = 10_000
"""The same of queues and the page of them that is next."""

Costs = Mapping[str, Mapping[str, tuple[float, float]]]
"""As in `Reroute.prefer`."""


class Chooser:
    """Chooses among replicas for one engine."""

    def __init__(
        self,
        *,
        store: Store,
        board: Board,
        measures: Measures,
        foresight: Foresight,
        now: Callable[[], float],
        on_shifts: Callable[[Sequence[Shift]], None],
        running: Callable[[], Collection[Driven]] = tuple,
    ) -> None:
        self._store = store
        self._board = board
        self._measures = measures
        self._foresight = foresight
        self._now = now
        self._on_shifts = on_shifts
        self._running = running
        self._slowed: Mapping[Link, float] = {}
        self._slowed_at = 0.0
        # Files of an earlier engine may have a choice.
        self._look_at = 0.0
        self._pause_s = EVERY_S
        self._after: tuple[QueueId, int] | None = None
        """Where the next look goes on when there are more queues than one look takes."""
        self._behind: dict[tuple[QueueId, int], FileId] = {}
        """Queue → the last file of the page behind its oldest ones that was looked at."""
        self._outlooks: Mapping[LaneKey, Outlook] = {}
        self._sources: dict[str, dict[str, None]] = {}
        """Destination → where files for it have had replicas."""

    # At submission

    async def arrange(self, job: PlannedJob) -> PlannedJob:
        """The replicas of each file in the order in which they are to be tried."""
        if job.job_type is not JobType.REPLICAS:
            return job
        self._outlooks = await self._foresight.fresh()
        views = self._views()
        files: list[PlannedFile] = []
        for n, (_, rows) in enumerate(groupby(job.files, key=lambda row: row.file_index), 1):
            files += self._arranged(list(rows), job, views)
            if not n % BREATH:
                await asyncio.sleep(0)
        self._expect()
        return replace(job, files=files)

    def _arranged(self, rows: list[PlannedFile], job: PlannedJob, views: LinkViews) -> list[PlannedFile]:
        first = rows[0]
        if len(rows) == 1 or first.selection_strategy == selection.ORDERLY:
            return rows
        self._learn(first.dest_se, (row.source_se for row in rows))
        wanted = Wanted(first.dest_se, job.vo, first.activity, job.priority, size_class(first.size_bytes))
        known = {row.source_se: views.of(row.source_se, wanted) for row in rows}
        chosen = selection.order(first.selection_strategy, [row.source_se for row in rows], known, first.size_bytes)
        views.queued(rows[chosen[0]].source_se, wanted, 1, first.size_bytes or 0)
        return [
            replace(
                row,
                source_url=rows[index].source_url,
                source_se=rows[index].source_se,
                src_token_id=rows[index].src_token_id,
            )
            for row, index in zip(rows, chosen, strict=True)
        ]

    # After a failure

    def next_replica(self, order: Assignment) -> Costs:
        """What the replicas that are left after a failed attempt are worth, as in `Change.prefer`."""
        self._expect()
        if len(self._board.scheduler.lanes) <= INLINE_MAX:
            self._outlooks = self._foresight.outlooks()
        wanted = _wanted(order.queue, order.priority)
        views = self._views()
        seen = [views.of(source_se, wanted) for source_se in self._known(order.queue, ())]
        return _as_usual(selection.prefer(seen), seen, wanted)

    # While they wait (dispatcher.Duty)

    def next_change_at(self) -> float | None:
        """See `Duty.next_change_at`."""
        return self._look_at

    async def on_time(self, now: float) -> None:
        """Move files that wait to better replicas. Raises: StoreUnavailable: to be called again."""
        choices = await self._store.choices(CHOICES_MAX, self._after)
        if self._after is not None and len(choices) < CHOICES_MAX:
            seen = {(choice.queue.id, choice.priority) for choice in choices}
            others = await self._store.choices(CHOICES_MAX - len(choices))
            choices += [choice for choice in others if (choice.queue.id, choice.priority) not in seen]
        if choices:
            pages = await self._pages(choices)
            self._outlooks = await self._foresight.fresh()
            views = self._views()
            moves = [move for choice in choices for move in self._moves(choice, views, FileId(0), MOVES_MAX)]
            moves += [move for page, after in pages for move in self._moves(page, views, after, page.n)]
            if moves:
                self._on_shifts(await self._store.reroute(moves))
        full = len(choices) == CHOICES_MAX
        self._after = (choices[-1].queue.id, choices[-1].priority) if full else None
        self._pause_s = EVERY_S if choices else min(2 * self._pause_s, RARELY_S)
        self._look_at = now + self._pause_s

    async def _pages(self, choices: Sequence[Choice]) -> list[tuple[Choice, FileId]]:
        """Pages behind the oldest files of queues, and what they are behind; each queue in its turn."""
        heads = {(choice.queue.id, choice.priority): choice.last for choice in choices if choice.n >= LOOKED_AT}
        turns = [key for key in heads if key not in self._behind] + [key for key in self._behind if key in heads]
        found = []
        for key in turns[:PAGES_MAX]:
            after = max(self._behind.pop(key, heads[key]), heads[key])
            page = await self._store.choice_behind(*key, after, PAGE_MAX)
            # Put last; from its end it begins anew.
            self._behind[key] = heads[key] if page is None else page.last
            if page is not None:
                found.append((page, after))
        while len(self._behind) > QUEUES_MAX:
            del self._behind[next(iter(self._behind))]
        return found

    def _moves(self, choice: Choice, views: LinkViews, after: FileId, n_max: int) -> Iterator[Reroute]:
        queue = choice.queue
        wanted = _wanted(queue, choice.priority)
        self._learn(queue.dest_se, (queue.source_se, *choice.sources))
        for strategy in sorted(choice.strategies & set(selection.CHOOSING)):
            sources = self._known(queue, choice.sources)
            seen = {source_se: views.of(source_se, wanted) for source_se in sources}
            current = seen[queue.source_se]
            size_bytes = _size_bytes(wanted, seen.values())
            for target, n in selection.spread(strategy, current, seen.values(), size_bytes, n_max).items():
                pair = [current, seen[target]]
                table = selection.prefer(pair, current=queue.source_se, strategies=(strategy,))
                # One target at a time: with all of them in the table everybody would take the best.
                yield Reroute(
                    queue_id=queue.id,
                    priority=choice.priority,
                    n=n,
                    prefer=_as_usual(table, seen.values(), wanted),
                    after=after,
                )
                views.queued(target, wanted, n, size_bytes)

    # What is known

    def _views(self) -> LinkViews:
        now = self._now()
        if not 0 <= now - self._slowed_at < FRESH_S:
            self._slowed_at, self._slowed = now, slowed_links(self._running(), self._measures, now)
        return LinkViews(
            board=self._board, measures=self._measures, outlooks=self._outlooks, now=now, slowed=self._slowed
        )

    def _expect(self) -> None:
        self._pause_s = EVERY_S
        self._look_at = min(self._look_at, self._now() + EVERY_S)

    def _learn(self, dest_se: str, sources: Iterable[str]) -> None:
        if dest_se not in self._sources and len(self._sources) >= DESTINATIONS_MAX:
            self._sources.clear()
        self._sources.setdefault(dest_se, {}).update(dict.fromkeys(sources))

    def _known(self, queue: Queue, sources: Iterable[str]) -> list[str]:
        """Where a file that waits in a queue may have replicas, its own source included."""
        return sorted({queue.source_se, *sources, *self._sources.get(queue.dest_se, ())})


def _wanted(queue: Queue, priority: int) -> Wanted:
    return Wanted(queue.dest_se, queue.vo, queue.activity, priority, queue.size_class)


def _size_bytes(wanted: Wanted, views: Iterable[LinkView]) -> float:
    """Of a file that waits in such a queue."""
    return selection.typical_bytes(views) if wanted.size_class == UNKNOWN else typical_bytes(wanted.size_class)


def _as_usual(table: Costs, views: Iterable[LinkView], wanted: Wanted) -> Costs:
    """The table for files that may be of unknown length: these are taken for as long as files usually are."""
    if wanted.size_class != UNKNOWN:
        return table
    size_bytes = selection.typical_bytes(views)
    return {
        strategy: {source: (fixed + per_byte * size_bytes, 0.0) for source, (fixed, per_byte) in costs.items()}
        for strategy, costs in table.items()
    }
