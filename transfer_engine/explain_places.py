"""What a link or an endpoint does, and what keeps back those who wait for it. Without the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from transfer_engine import explain_words as words
from transfer_engine.answers import Explanation, LinkOutlook
from transfer_engine.bans import instant, spellings
from transfer_engine.board import Board
from transfer_engine.causes import Causes, Kept
from transfer_engine.climbing import Adjustment
from transfer_engine.expect import ENDLESS, NO_EXPERIENCE
from transfer_engine.lanes import Lane
from transfer_engine.limits import NODE, UNLIMITED
from transfer_engine.optimizer import Optimizer
from transfer_engine.outlook import Foresight
from transfer_engine.places import Link, Place
from transfer_engine.reasons import Reason, Why
from transfer_engine.schedule import LaneKey
from transfer_engine.store.api import Delayed

DECISIONS_MAX: Final = 10
"""Decisions of the optimizer that are shown with an explanation."""
REASONS_MAX: Final = 20
"""Reasons that are shown, of those that keep some transfers back."""

LINKS_AT_ONCE: Final = 250
"""Links that are looked at before others get their turn on the event loop: about 10 ms."""

Lanes = Mapping[LaneKey, Lane]


class PlaceExplainer:
    """Answers about places, as of one moment. Not to be kept."""

    def __init__(self, *, board: Board, causes: Causes, foresight: Foresight, optimizer: Optimizer, now: float) -> None:
        self._board = board
        self._causes = causes
        self._foresight = foresight
        self._optimizer = optimizer
        self._now = now

    def link(self, link: Link, delayed: Delayed) -> Explanation:
        """What a link does and what keeps its backlog back."""
        own = Place("link", link.source_se, link.dest_se)
        places = [own, Place("in", link.dest_se), Place("out", link.source_se), NODE]
        lanes = dict(self._board.scheduler.lanes_of(link))
        known = bool(lanes) or link in self._board.tallies or own in self._board.scheduler.rooms
        return self._place(str(link), places, lanes, None if known else _unknown(str(link), []), delayed)

    def endpoint(self, se: str, delayed: Delayed) -> Explanation:
        """What an endpoint does in both directions and what keeps back those who wait for it."""
        scheduler = self._board.scheduler
        lanes = {key: lane for key, lane in scheduler.lanes.items() if se in _ends(lane.link)}
        limited = [
            place
            for place, room in scheduler.rooms.items()
            if place.name == se and place.kind.startswith("vo-") and room.limit < UNLIMITED
        ]
        places = [Place("in", se), Place("out", se), *sorted(limited), NODE]
        # Known are those that a transfer has named; a ban makes rooms for all spellings.
        seen = {end for link in (*self._links(), *self._board.tallies) for end in _ends(link)}
        unknown = None if se in seen else _unknown(se, [name for name in spellings(se) if name in seen])
        return self._place(se, places, lanes, unknown, delayed)

    def _links(self) -> list[Link]:
        rooms = self._board.scheduler.rooms
        return [Link(place.name, place.other) for place in rooms if place.kind == "link"]

    async def outlooks(self) -> dict[Link, LinkOutlook]:
        """Of each link with work: what keeps most of it back, when its next transfer starts, when all is done."""
        by_link: dict[Link, dict[LaneKey, Lane]] = {}
        for key, lane in self._board.scheduler.lanes.items():
            if lane.n_ready > 0 or lane.n_held:
                by_link.setdefault(lane.link, {})[key] = lane
        found: dict[Link, LinkOutlook] = {}
        for link, lanes in by_link.items():
            if len(found) % LINKS_AT_ONCE == LINKS_AT_ONCE - 1:
                await asyncio.sleep(0)
            kept = self._causes.of_places((), lanes.values())
            start_at, finish_at = self._span(lanes)
            reason = kept[0].reason if kept else None
            found[link] = LinkOutlook(link=link, reason=reason, start_at=start_at, finish_at=finish_at)
        return found

    def _span(self, lanes: Lanes) -> tuple[float | None, float | None]:
        """(start of the next transfer, end of all that waits and runs)"""
        starts = [self._foresight.start_s(key, 0) for key, lane in lanes.items() if lane.n_ready > 0]
        start_s = min((start for start in starts if start is not None), default=None)
        working = [key for key, lane in lanes.items() if lane.n_ready > 0 or lane.n_held]
        end_s = self._foresight.drained_s(working) if working else None
        return (
            None if start_s is None else self._now + start_s,
            None if end_s is None else self._now + end_s,
        )

    def _place(
        self, subject: str, places: Sequence[Place], lanes: Lanes, unknown: Reason | None, delayed: Delayed
    ) -> Explanation:
        kept = self._causes.of_places(places, lanes.values())[:REASONS_MAX]
        n_active = sum(lane.n_held for lane in lanes.values())
        n_ready = sum(max(lane.n_ready, 0) for lane in lanes.values())
        if delayed.n:
            kept = [*kept, Kept(_retries(subject, delayed), delayed.n)]
        if not kept or (n_active and not n_ready and delayed.n == sum(one.n for one in kept)):
            kept = [Kept(unknown or _well(subject, n_active, n_ready), 0), *kept]
        start_at, finish_at = self._span(lanes)
        silent = start_at is None if n_ready else finish_at is None and n_active
        return Explanation(
            subject=subject,
            moving=n_active > 0,
            reasons=tuple(one.reason for one in kept),
            kept=tuple(one.n for one in kept),
            start_at=start_at,
            finish_at=finish_at,
            unknown=_why_not(kept[0].reason) if silent else None,
            figures={
                "known": unknown is None,
                "active": n_active,
                "ready": n_ready,
                "delayed": delayed.n,
                "places": [self._figures(place) for place in places if place in self._board.scheduler.rooms],
                "decisions": decisions(self._optimizer, places)[-DECISIONS_MAX:],
            },
        )

    def _figures(self, place: Place) -> dict[str, Any]:
        room = self._board.scheduler.rooms[place]
        limit = room.limit if room.limit < UNLIMITED else None
        return {"place": str(place), "kind": place.kind, "used": room.used, "limit": limit}


def decisions(optimizer: Optimizer, places: Sequence[Place]) -> list[dict[str, Any]]:
    """What the optimizer decided about places, oldest first, with the numbers that it saw."""
    rows = [row for place in places for row in optimizer.history(place)]
    rows.sort(key=lambda row: row.at)
    return [_decision(row) for row in rows]


def _decision(row: Adjustment) -> dict[str, Any]:
    return {
        "at": row.at,
        "place": str(row.place),
        "kind": row.place.kind,
        "before": row.before,
        "after": row.after,
        "reason": row.reason,
        "numbers": dict(row.numbers),
    }


def _why_not(reason: Reason) -> str:
    """Why nothing is predicted of a place where something is to be done."""
    return NO_EXPERIENCE if reason.until is not None else ENDLESS.get(reason.code, NO_EXPERIENCE)


def _unknown(subject: str, others: Sequence[str]) -> Reason:
    text = f"nothing is known of {subject}: no transfer has named it since the engine started"
    if others:
        text += f"; {', '.join(others)} is known"
    return Reason(code=Why.IDLE, text=text, subject=subject)


def _retries(subject: str, delayed: Delayed) -> Reason:
    waits = "waits" if delayed.n == 1 else "wait"
    due = f", the first is due at {instant(delayed.next_due_at)}" if delayed.next_due_at is not None else ""
    return Reason(
        code=Why.RETRY,
        text=f"{words.counted(delayed.n)} {waits} for a retry after a failed attempt{due}",
        subject=subject,
        used=delayed.n,
        until=delayed.next_due_at,
    )


def _well(subject: str, n_active: int, n_ready: int) -> Reason:
    code = Why.RUNNING if n_active else Why.TURN if n_ready else Why.IDLE
    are = "is" if n_active == 1 else "are"
    running = f"{words.counted(n_active)} {are} running" if n_active else "nothing is running"
    waiting = f"{words.counted(n_ready)} about to start" if n_ready else "nothing waits"
    return Reason(code=code, text=f"{running}, {waiting}", subject=subject)


def _ends(link: Link) -> tuple[str, str]:
    return link.source_se, link.dest_se
