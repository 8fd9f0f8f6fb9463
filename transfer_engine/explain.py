"""Why something does not move, where it stands, and when it will.

For a transfer the store says what it is (state, retry, hold, its place in the queue), the board what keeps
its lane back (limit, share, priority, cap), the forecast when its turn will come. For a link or an
endpoint the board and those who cap it say everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from transfer_engine.board import Board
from transfer_engine.driving import Driven
from transfer_engine.forecast import start_of
from transfer_engine.governor import Governor
from transfer_engine.model import FileId, FileView, JobId, Link, Place, Position
from transfer_engine.outlook import Foresight
from transfer_engine.reasons import Reason, Why
from transfer_engine.schedule import LaneKey
from transfer_engine.states import TERMINAL, FileState, JobType
from transfer_engine.store.api import Reader

RANK: Final = {
    why: rank
    for rank, why in enumerate(
        (
            Why.BAN,
            Why.DRAINING,
            Why.PAUSE,
            Why.BREAKER,
            Why.DESTINATION,
            Why.LIMIT,
            Why.BANDWIDTH,
            Why.OPTIMIZER,
            Why.SHARE,
            Why.PRIORITY,
            Why.TURN,
        )
    )
}
"""What is said first when several things keep a transfer back: what lasts longest by itself."""


DECISIONS_MAX: Final = 10
"""Decisions of the optimizer that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """An answer.

    Attributes:
        subject: what was asked about, in words.
        moving: it is under way.
        reasons: the main one first; never empty.
        n_before: ready transfers before it in its queue; None: it does not stand in one.
        start_at, finish_at: predicted instants; None: nothing can be said.
    """

    subject: str
    moving: bool
    reasons: tuple[Reason, ...]
    state: str | None = None
    file_id: FileId | None = None
    n_before: int | None = None
    bytes_before: int | None = None
    start_at: float | None = None
    finish_at: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """One sentence."""
        return self.reasons[0].text

    def as_json(self) -> dict[str, Any]:
        """As the service and the command line give it."""
        found: dict[str, Any] = {
            "subject": self.subject,
            "moving": self.moving,
            "reason": self.text,
            "reasons": [reason.as_json() for reason in self.reasons],
        }
        for key in ("state", "file_id", "n_before", "bytes_before", "start_at", "finish_at"):
            value = getattr(self, key)
            if value is not None:
                found[key] = value
        return found | dict(self.figures)


class Sight(Protocol):
    """What an explanation may look at."""

    board: Board

    driven: dict[FileId, Driven]
    """Transfers that are being driven now."""
    foresight: Foresight
    governor: Governor


class Explainer:
    """Answers for one engine."""

    def __init__(self, *, reader: Reader, sight: Sight, now: Callable[[], float]) -> None:
        self._reader = reader
        self._sight = sight
        self._now = now

    # A transfer

    async def transfer(self, file_id: FileId) -> Explanation:
        """Why a transfer does not move. Raises: NotFound, StoreUnavailable."""
        view = await self._reader.file(file_id)
        return await self.file(view)

    async def file(self, view: FileView) -> Explanation:
        """The same for a transfer that was read already."""
        match view.state:
            case FileState.SUBMITTED:
                return await self._waiting(view)
            case FileState.NOT_USED:
                position = await self._reader.position(view.file_id)
                job = await self._reader.job(view.job_id)
                return self._explanation(view, [_not_its_turn(job.job_type, position)])
            case state if state in TERMINAL:
                return self._explanation(view, [_ended(view)])
            case _:
                return self._explanation(view, [self._under_way(view)], moving=view.state is FileState.ACTIVE)

    async def _waiting(self, view: FileView) -> Explanation:
        position = await self._reader.position(view.file_id)
        if position.job_held:
            return self._explanation(view, [_held(view)])
        if view.retry_at is not None:
            at = max(view.retry_at, self._now())
            return self._explanation(view, [_retry(view), *self._lane_reasons(view)], start_at=at)
        reasons = self._lane_reasons(view)
        if position.dest_driven_by is not None:
            reasons.insert(0, _written(view, position.dest_driven_by))
        reasons.append(_turn(view, position))
        key = self._key(view)
        outlook = self._sight.foresight.outlooks().get(key) if key else None
        wait_s = start_of(outlook, position.n_before) if outlook is not None else None
        start_at = None if wait_s is None else self._now() + wait_s
        return self._explanation(view, reasons, position, start_at=start_at)

    def _key(self, view: FileView) -> LaneKey | None:
        wanted = (view.source_se, view.dest_se, view.vo, view.activity)
        for key, lane in self._sight.board.scheduler.lanes.items():
            queue = lane.queue
            if lane.priority == view.priority and (queue.source_se, queue.dest_se, queue.vo, queue.activity) == wanted:
                return key
        return None

    def _lane_reasons(self, view: FileView) -> list[Reason]:
        key = self._key(view)
        if key is None:
            return []
        lane = self._sight.board.scheduler.lanes[key]
        return sorted(
            self._sight.board.scheduler.reasons(lane.queue, lane.priority), key=lambda reason: RANK[reason.code]
        )

    def _under_way(self, view: FileView) -> Reason:
        driven = self._sight.driven.get(view.file_id)
        if view.state is FileState.VERIFYING:
            return Reason(
                code=Why.PROBING,
                text="its attempt ended without a result; the destination is looked at until the outcome is clear",
                subject=view.dest_se,
            )
        if view.state is FileState.CANCELING:
            return Reason(
                code=Why.PROBING, text="it was cancelled; what it wrote is being removed", subject=view.dest_se
            )
        if driven is None:
            return Reason(code=Why.RUNNING, text=f"attempt {view.epoch} runs on another node", subject=view.owner or "")
        progress = driven.progress
        done = f", {progress.bytes_done} bytes so far" if progress.bytes_done else ""
        return Reason(
            code=Why.RUNNING,
            text=f"attempt {view.epoch} is under way: {progress.phase}{done}",
            used=progress.bytes_done,
            limit=progress.size_bytes or view.size_bytes,
        )

    def _explanation(
        self,
        view: FileView,
        reasons: list[Reason],
        position: Position | None = None,
        *,
        start_at: float | None = None,
        moving: bool = False,
    ) -> Explanation:
        finish_at = None
        if start_at is not None and (key := self._key(view)) is not None:
            finish_at = start_at + self._sight.foresight.slot_s(key)
        return Explanation(
            subject=f"transfer {view.file_id}, {view.source_se} → {view.dest_se}",
            moving=moving,
            reasons=tuple(reasons),
            state=view.state.value,
            file_id=view.file_id,
            n_before=position.n_before if position else None,
            bytes_before=position.bytes_before if position else None,
            start_at=start_at,
            finish_at=finish_at,
        )

    async def job(self, job_id: JobId) -> list[Explanation]:
        """The same for every transfer of a job that has not ended, in the order submitted. Raises: as `transfer`."""
        views = await self._reader.files(job_id)
        return [await self.file(view) for view in views if view.state not in TERMINAL]

    # A link, an endpoint

    def link(self, link: Link) -> Explanation:
        """What a link does and what keeps its backlog back."""
        places = [
            Place("in", link.dest_se),
            Place("out", link.source_se),
            Place("link", link.source_se, link.dest_se),
            Place("node", ""),
        ]
        lanes = {key: lane for key, lane in self._sight.board.scheduler.lanes.items() if lane.link == link}
        return self._place(str(link), places, {key: lane.n_ready for key, lane in lanes.items()})

    def endpoint(self, se: str) -> Explanation:
        """What an endpoint does in both directions and what keeps back those who wait for it."""
        places = [Place("in", se), Place("out", se), Place("node", "")]
        lanes = {
            key: lane
            for key, lane in self._sight.board.scheduler.lanes.items()
            if se in (lane.link.source_se, lane.link.dest_se)
        }
        return self._place(se, places, {key: lane.n_ready for key, lane in lanes.items()})

    def _place(self, subject: str, places: list[Place], ready: Mapping[LaneKey, int]) -> Explanation:
        scheduler = self._sight.board.scheduler
        rooms = [scheduler.rooms[place] for place in places if place in scheduler.rooms]
        found = [room.reason() for room in rooms if room.used >= room.limit]
        waiting = sum(n for n in ready.values() if n > 0)
        for key in ready:
            lane = scheduler.lanes[key]
            found += [r for r in scheduler.reasons(lane.queue, lane.priority) if r not in found]
        found.sort(key=lambda reason: RANK[reason.code])
        n_active = max((room.used for room in rooms if room.place.kind != "node"), default=0)
        if not found:
            text = f"{n_active} running" + (f", {waiting} about to start" if waiting else ", nothing waits")
            found.append(Reason(code=Why.RUNNING, text=text, subject=subject))
        outlooks = self._sight.foresight.outlooks()
        drained = [outlooks[key].drained_s for key in ready if key in outlooks and ready[key] > 0]
        last = max((s for s in drained if s is not None), default=None) if None not in drained else None
        return Explanation(
            subject=subject,
            moving=n_active > 0,
            reasons=tuple(found),
            finish_at=self._now() + last if last is not None else None,
            figures={
                "active": n_active,
                "ready": waiting,
                "places": [{"place": str(room.place), "used": room.used, "limit": room.limit} for room in rooms],
                "decisions": self._decisions(places),
            },
        )

    def _decisions(self, places: list[Place]) -> list[dict[str, Any]]:
        """What the optimizer decided last about these places, oldest first."""
        rows = [row for place in places for row in self._sight.governor.optimizer.history(place)]
        rows.sort(key=lambda row: row.at)
        return [
            {"at": row.at, "place": str(row.place), "before": row.before, "after": row.after, "reason": row.reason}
            for row in rows[-DECISIONS_MAX:]
        ]


def _not_its_turn(job_type: JobType, position: Position) -> Reason:
    before = f" (it is {position.predecessor.value} now)" if position.predecessor else ""
    if job_type is JobType.MULTIHOP:
        return Reason(code=Why.HOP, text=f"the hop before it has to finish first{before}")
    return Reason(code=Why.REPLICA, text=f"another replica of the file is tried first{before}")


def _ended(view: FileView) -> Reason:
    text = f"it has ended: {view.state.value}" + (f", {view.reason}" if view.reason else "")
    return Reason(code=Why.ENDED, text=text)


def _held(view: FileView) -> Reason:
    return Reason(code=Why.HELD, text=f"job {view.job_id} is on hold until it is resumed", subject=view.job_id)


def _retry(view: FileView) -> Reason:
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(view.retry_at))
    why = f": {view.reason}" if view.reason else ""
    return Reason(
        code=Why.RETRY,
        text=f"attempt {view.epoch} failed, the next one is due at {at}{why}",
        used=view.n_failed,
        until=view.retry_at,
    )


def _written(view: FileView, by: FileId) -> Reason:
    return Reason(
        code=Why.DESTINATION,
        text=f"transfer {by} is writing the same destination; it has to end first",
        subject=view.dest_url,
    )


def _turn(view: FileView, position: Position) -> Reason:
    if position.n_before:
        text = f"{position.n_before} transfers of its queue (priority {view.priority}) are before it"
    else:
        text = "it is the next of its queue"
    return Reason(code=Why.TURN, text=text, used=position.n_before)
