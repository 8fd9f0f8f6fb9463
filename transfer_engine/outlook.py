"""What the forecast is asked, from what the board knows: every lane, every limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from transfer_engine.board import Board
from transfer_engine.forecast import Ceiling, Load, Outlook, predict
from transfer_engine.limits import UNLIMITED
from transfer_engine.measures import Measures
from transfer_engine.model import Place
from transfer_engine.schedule import LaneKey
from transfer_engine.shares import ShareTable

FRESH_S: Final = 5.0
"""How old a forecast may be when it is shown."""


class Foresight:
    """The forecast of one engine, made when it is asked for and kept for a moment."""

    def __init__(self, *, board: Board, measures: Measures, shares: ShareTable, now: Callable[[], float]) -> None:
        self._board = board
        self._measures = measures
        self._shares = shares
        self._now = now
        self._found: dict[LaneKey, Outlook] = {}
        self._made_at: float | None = None

    def outlooks(self) -> Mapping[LaneKey, Outlook]:
        """The outlook of each lane with work."""
        now = self._now()
        if self._made_at is None or not 0 <= now - self._made_at < FRESH_S:
            self._found, self._made_at = self._predict(now), now
        return self._found

    def slot_s(self, key: LaneKey) -> float:
        """How long a transfer of a lane typically takes, in seconds."""
        return self._measures.slot_s(self._board.scheduler.lanes[key].link)

    def _predict(self, now: float) -> dict[LaneKey, Outlook]:
        keys: list[LaneKey] = []
        loads: list[Load] = []
        for key, lane in self._board.scheduler.lanes.items():
            if lane.n_ready > 0 or lane.n_held:
                keys.append(key)
                loads.append(
                    Load(
                        link=lane.link,
                        vo=lane.queue.vo,
                        activity=lane.queue.activity,
                        priority=lane.priority,
                        ready=max(lane.n_ready, 0),
                        active=lane.n_held,
                        slot_s=self._measures.slot_s(lane.link),
                        ready_bytes=max(lane.n_bytes, 0),
                    )
                )
        return dict(zip(keys, predict(loads, self._ceilings(now), self._shares), strict=True))

    def _ceilings(self, now: float) -> dict[Place, Ceiling]:
        found = {}
        for place, room in self._board.scheduler.rooms.items():
            limit, until, after = room.ceiling()
            if limit < UNLIMITED:
                until_s = None if until is None else max(until - now, 0.0)
                found[place] = Ceiling(limit, until_s, after)
        return found
