"""Which replica each file is copied from: chosen when it is submitted, and again while it waits.

Nobody knows at submission what a link will do by the time a transfer starts. So files that wait and have
further replicas are looked at every few seconds, and moved where they will be there sooner; what is about
to start has been looked at a moment ago.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from transfer_engine import selection
from transfer_engine.board import Board
from transfer_engine.measures import Measures
from transfer_engine.model import Choice, Link, Place, PlannedFile, PlannedJob, Reroute, Shift
from transfer_engine.outlook import Foresight
from transfer_engine.selection import LinkView
from transfer_engine.states import JobType
from transfer_engine.store.api import Store

EVERY_S: Final = 5.0
"""Between two looks at what waits."""
CHOICES_MAX: Final = 200
MOVES_MAX: Final = 1000
"""Most files of one queue that are looked at in one transaction."""


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
    ) -> None:
        self._store = store
        self._board = board
        self._measures = measures
        self._foresight = foresight
        self._now = now
        self._on_shifts = on_shifts
        self._look_at: float | None = 0.0
        """None: nothing that waits has a choice."""

    # At submission

    def arrange(self, job: PlannedJob) -> PlannedJob:
        """The replicas of each file in the order in which they are to be tried."""
        if job.job_type is not JobType.REPLICAS:
            return job
        views: dict[tuple[str, str, str], LinkView] = {}
        files: list[PlannedFile] = []
        for _, rows in groupby(job.files, key=lambda row: row.file_index):
            files += self._arranged(list(rows), job.vo, views)
        self._expect()
        return replace(job, files=files)

    def _arranged(
        self, rows: list[PlannedFile], vo: str, views: dict[tuple[str, str, str], LinkView]
    ) -> list[PlannedFile]:
        strategy, first = rows[0].selection_strategy, rows[0]
        if len(rows) == 1 or strategy == selection.ORDERLY:
            return rows
        known = {}
        for row in rows:
            key = (row.source_se, row.dest_se, row.activity)
            if key not in views:
                views[key] = self._view(row.source_se, row.dest_se, vo, row.activity)
            known[row.source_se] = views[key]
        chosen = selection.order(strategy, [row.source_se for row in rows], known, first.size_bytes)
        best = rows[chosen[0]]
        key = (best.source_se, best.dest_se, best.activity)
        views[key] = views[key].queued(first.size_bytes)
        return [
            replace(row, source_url=rows[index].source_url, source_se=rows[index].source_se)
            for row, index in zip(rows, chosen, strict=True)
        ]

    def _expect(self) -> None:
        if self._look_at is None:
            self._look_at = self._now() + EVERY_S

    # While they wait (dispatcher.Duty)

    def next_change_at(self) -> float | None:
        """See `Duty.next_change_at`."""
        return self._look_at

    async def on_time(self, now: float) -> None:
        """Move files that wait to better replicas. Raises: StoreUnavailable: to be called again."""
        choices = await self._store.choices(CHOICES_MAX)
        moves = [move for choice in choices if (move := self._move(choice)) is not None]
        if moves:
            self._on_shifts(await self._store.reroute(moves))
        self._look_at = now + EVERY_S if choices else None

    def _move(self, choice: Choice) -> Reroute | None:
        queue = choice.queue
        views = [
            self._view(source_se, queue.dest_se, queue.vo, queue.activity)
            for source_se in self._sources(queue.source_se)
            if source_se != queue.dest_se
        ]
        current = next(view for view in views if view.source_se == queue.source_se)
        n = min(selection.n_movable(current, views), choice.n, MOVES_MAX)
        table = selection.prefer(views, current=queue.source_se)
        if not n or not table:
            return None
        return Reroute(queue_id=queue.id, priority=choice.priority, n=n, prefer=table)

    def _sources(self, source_se: str) -> Iterable[str]:
        known = {place.name for place in self._board.scheduler.rooms if place.kind in {"in", "out"}}
        return sorted(known | {source_se})

    def _view(self, source_se: str, dest_se: str, vo: str, activity: str) -> LinkView:
        scheduler = self._board.scheduler
        link = Link(source_se, dest_se)
        ready = n_bytes = 0
        waits_s: list[float | None] = []
        outlooks = self._foresight.outlooks()
        for key, lane in scheduler.lanes_of(link):
            if lane.n_ready <= 0 or lane.queue.vo != vo:
                continue
            ready += lane.n_ready
            if lane.queue.activity == activity:
                n_bytes += lane.n_bytes
                outlook = outlooks.get(key)
                waits_s.append(outlook.drained_s if outlook is not None else 0.0)
        rooms = [scheduler.rooms.get(Place("out", source_se)), scheduler.rooms.get(Place("link", source_se, dest_se))]
        measured, now = self._measures.of(link), self._now()
        cost = measured.cost() if measured is not None else None
        return LinkView(
            source_se=source_se,
            ready=ready,
            ready_bytes=n_bytes,
            active=scheduler.rooms[Place("link", source_se, dest_se)].used if rooms[1] is not None else 0,
            success=measured.success(now) if measured is not None else None,
            goodput_bytes_s=measured.goodput_bytes_s(now) if measured is not None else None,
            file_bytes_s=1 / cost[1] if cost is not None and cost[1] > 0 else None,
            overhead_s=cost[0] if cost is not None else 0.0,
            slot_s=measured.slot_s if measured is not None else None,
            start_s=max((math.inf if s is None else s for s in waits_s), default=0.0),
            blocked=any(room is not None and room.limit == 0 for room in rooms),
        )
