"""Why something does not move, where it stands, and when it will.

For a transfer the store says what it is (state, retry, hold, its place in the queue), `causes` what keeps
its queue back, the forecast when its turn will come. For a link or an endpoint the scheduler and those who
cap it say everything, without the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from transfer_engine import explain_words as words
from transfer_engine.answers import Explanation, LinkOutlook
from transfer_engine.board import Board
from transfer_engine.causes import Causes, ranked
from transfer_engine.driving import Driven
from transfer_engine.expect import ENDLESS, NO_EXPERIENCE, Expectation, expected
from transfer_engine.explain_places import PlaceExplainer, decisions
from transfer_engine.governor import Governor
from transfer_engine.health.wording import Row
from transfer_engine.model import FileId, JobId, Position
from transfer_engine.outlook import Foresight
from transfer_engine.places import Link, Place
from transfer_engine.queueing import positions
from transfer_engine.reasons import Reason, Why
from transfer_engine.states import TERMINAL, FileState, JobType
from transfer_engine.store.api import Reader
from transfer_engine.submission import SOURCES_MAX
from transfer_engine.views import FileView, JobView

__all__ = ["Explainer", "Explanation", "LinkOutlook", "Sight"]

NO_EXPECTATION: Final = Expectation()


class Sight(Protocol):
    """What an explanation may look at."""

    board: Board
    driven: dict[FileId, Driven]
    """Transfers that are being driven now."""
    foresight: Foresight
    governor: Governor
    ready: bool
    store_trouble: str | None
    """Why the store could not be written when that was tried last."""


class Explainer:
    """Answers for one engine."""

    def __init__(self, *, reader: Reader, sight: Sight, now: Callable[[], float]) -> None:
        self._reader = reader
        self._sight = sight
        self._now = now

    # Transfers

    async def transfer(self, file_id: FileId) -> Explanation:
        """Why a transfer does not move. Raises: NotFound, StoreUnavailable."""
        return await self.file(await self._reader.file(file_id))

    async def file(self, view: FileView) -> Explanation:
        """The same for a transfer that was read already."""
        if view.state in TERMINAL:
            return self._answer(view, [words.ended(view)])
        job = await self._reader.job(view.job_id)
        position = await self._reader.position(view.file_id) if view.state is FileState.SUBMITTED else None
        before = await self._before(view, job) if view.state is FileState.NOT_USED else ()
        await self._sight.foresight.fresh()
        return self._explain(view, job, position, before, self._causes())

    async def job(self, job_id: JobId, limit: int | None = None) -> list[Explanation]:
        """The same for the transfers of a job that have not ended, in the order submitted, at most `limit`.

        Raises: as `transfer`.
        """
        job = await self._reader.job(job_id)
        return await self.transfers(job, await self._reader.files(job_id), limit)

    async def transfers(self, job: JobView, views: Sequence[FileView], limit: int | None = None) -> list[Explanation]:
        """The same for a job that was read already, with all its transfers in the order submitted."""
        numbered = [(n, view) for n, view in enumerate(views) if view.state not in TERMINAL][:limit]
        waiting = [view for _, view in numbered]
        found = await positions(job, waiting, reader=self._reader, driven=self._sight.driven.values())
        await self._sight.foresight.fresh()
        causes = self._causes()
        whole = job.job_type is JobType.MULTIHOP
        answers = []
        for n, view in numbered:
            before = [row for row in views[max(n - SOURCES_MAX, 0) : n] if whole or row.file_index == view.file_index]
            answers.append(self._explain(view, job, found.get(view.file_id), before, causes))
        return answers

    async def _before(self, view: FileView, job: JobView) -> list[FileView]:
        """The replicas before one, or the hops: rows of one file are numbered in turn."""
        if job.job_type is JobType.MULTIHOP:
            return [row for row in await self._reader.files(job.job_id) if row.file_id < view.file_id]
        rows: list[FileView] = []
        while len(rows) < SOURCES_MAX and view.file_id > len(rows) + 1:
            row = await self._reader.file(FileId(view.file_id - len(rows) - 1))
            if row.job_id != view.job_id or row.file_index != view.file_index:
                break
            rows.insert(0, row)
        return rows

    def _explain(
        self, view: FileView, job: JobView, position: Position | None, before: Sequence[FileView], causes: Causes
    ) -> Explanation:
        match view.state:
            case FileState.SUBMITTED:
                assert position is not None, "whoever asks has looked where it stands"
                return self._waiting(view, job, position, causes)
            case FileState.NOT_USED:
                reason = words.not_its_turn(job, before)
                deadline_at = None if reason.code is Why.ENDED else job.options.deadline_at
                unknown = Expectation(unknown=ENDLESS.get(reason.code))
                return self._answer(view, [reason], unknown, deadline_at=deadline_at)
            case FileState.ACTIVE:
                return self._running(view)
            case FileState.VERIFYING:
                return self._answer(view, [words.lost(view)])
            case FileState.CANCELING:
                return self._answer(view, [words.canceling(view)])
            case _:
                return self._answer(view, [words.ended(view)])

    def _waiting(self, view: FileView, job: JobView, position: Position, causes: Causes) -> Explanation:
        link = Link(view.source_se, view.dest_se)
        found = causes.lane_of(view)
        if position.job_held:
            reasons = [words.held(view), *causes.of_route(link, view.vo)]
        elif view.retry_at is not None:
            reasons = [words.retry(view, self._now()), *causes.of_route(link, view.vo)]
        else:
            limits = causes.of_route(link, view.vo) if found is None else causes.of_lane(found[1])
            # What the whole queue waits for is said of this one only if it is so.
            reasons = [reason for reason in limits if reason.code is not Why.DESTINATION]
            if position.dest_driven_by is not None:
                reasons.append(words.written(view, position.dest_driven_by))
            reasons.append(words.turn(view, position, free=not reasons))
        reasons = ranked(reasons)
        expectation = expected(
            view,
            reasons,
            position,
            None if found is None else found[0],
            foresight=self._sight.foresight,
            driven=self._sight.driven,
            now=self._now(),
        )
        queued = position if view.retry_at is None and not position.job_held else None
        return self._answer(view, reasons, expectation, position=queued, deadline_at=job.options.deadline_at)

    def _running(self, view: FileView) -> Explanation:
        driven = self._sight.driven.get(view.file_id)
        reason = words.running(view, driven, self._now())
        if driven is None:
            return self._answer(view, [reason], moving=True)
        if driven.canceling:
            return self._answer(view, [words.canceling(view)])
        if words.waits_for_stream(driven):
            streams = [one for one in self._sight.driven.values() if words.streams(one)]
            return self._answer(view, [words.streams_full(len(streams)), reason])
        end_at = self._sight.foresight.end_of(driven)
        unknown = None if end_at is not None else NO_EXPERIENCE
        return self._answer(view, [reason], Expectation(finish_at=end_at, unknown=unknown), moving=True)

    @staticmethod
    def _answer(
        view: FileView,
        reasons: Sequence[Reason],
        expectation: Expectation = NO_EXPECTATION,
        *,
        position: Position | None = None,
        deadline_at: float | None = None,
        moving: bool = False,
    ) -> Explanation:
        return Explanation(
            subject=f"transfer {view.file_id}, {view.source_se} → {view.dest_se}",
            moving=moving,
            reasons=tuple(reasons),
            state=view.state.value,
            file_id=view.file_id,
            job_id=view.job_id,
            n_before=position.n_before if position else None,
            bytes_before=position.bytes_before if position else None,
            start_at=expectation.start_at,
            finish_at=expectation.finish_at,
            unknown=expectation.unknown,
            deadline_at=deadline_at,
        )

    def _causes(self) -> Causes:
        general = []
        if self._sight.store_trouble is not None:
            text = f"the database takes no changes: {self._sight.store_trouble}"
            general.append(Reason(code=Why.STORE, text=text))
        if not self._sight.ready:
            text = "the node starts nothing yet: it is taking over what an earlier engine left"
            general.append(Reason(code=Why.DRAINING, text=text))
        return Causes(self._sight.board.scheduler, general)

    # Links and endpoints

    async def link(self, link: Link) -> Explanation:
        """What a link does and what keeps its backlog back."""
        delayed = await self._reader.delayed(link.source_se, link.dest_se)
        return (await self._places()).link(link, delayed)

    async def endpoint(self, se: str) -> Explanation:
        """What an endpoint does in both directions and what keeps back those who wait for it."""
        delayed = await self._reader.delayed(se, se)
        return (await self._places()).endpoint(se, delayed)

    async def links(self) -> dict[Link, LinkOutlook]:
        """Of each link with work: what keeps most of it back, when its next transfer starts, when all is done."""
        return await (await self._places()).outlooks()

    async def _places(self) -> PlaceExplainer:
        sight = self._sight
        await sight.foresight.fresh()
        return PlaceExplainer(
            board=sight.board,
            causes=self._causes(),
            foresight=sight.foresight,
            optimizer=sight.governor.optimizer,
            now=self._now(),
        )

    def history(self, *places: Place) -> list[dict[str, Any]]:
        """What the optimizer decided about places, oldest first: instant, numbers before and after, why."""
        return decisions(self._sight.governor.optimizer, places)

    def troubles(self) -> list[Row]:
        """The places that fail, are left alone, or come back."""
        return self._sight.governor.health.report()
