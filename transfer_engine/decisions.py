"""What the optimizer decides and has decided, for people."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from transfer_engine.board import Board
from transfer_engine.governor import Governor
from transfer_engine.limits import ANY
from transfer_engine.places import Link, Place
from transfer_engine.tuning import Adjustment


@dataclass(frozen=True, slots=True)
class Decision:
    """How many may run on a link, or (`*` at one end) into or out of a storage, and since when."""

    link: Link
    adjustment: Adjustment
    active: int
    """Transfers that hold a slot there now."""
    waiting: int
    """Transfers that wait for one there now."""


class Decisions:
    """The optimizer's decisions of one engine."""

    def __init__(self, board: Board, governor: Governor) -> None:
        self._board = board
        self._governor = governor

    @property
    def enabled(self) -> bool:
        """Does the optimizer bound anything?"""
        return self._governor.optimizer.enabled

    def newest(self, ends: Link, limit: int) -> list[Decision]:
        """The newest ones, newest first. `ends`: of which place; `*` at an end: of any."""
        found = (self._decision(place, one) for place, history in self._histories(ends) for one in history)
        return heapq.nlargest(limit, found, key=lambda decision: decision.adjustment.at)

    def last(self, ends: Link) -> list[Decision]:
        """The last one about each place, newest first."""
        found = [self._decision(place, history[-1]) for place, history in self._histories(ends)]
        return sorted(found, key=lambda decision: decision.adjustment.at, reverse=True)

    def _histories(self, ends: Link) -> Iterator[tuple[Place, tuple[Adjustment, ...]]]:
        for place in list(self._board.scheduler.rooms):
            if place.kind in {"in", "out", "link"}:
                link, history = _link(place), self._governor.optimizer.history(place)
                if history and ends.source_se in {ANY, link.source_se} and ends.dest_se in {ANY, link.dest_se}:
                    yield place, history

    def _decision(self, place: Place, adjustment: Adjustment) -> Decision:
        room = self._board.scheduler.room(place)
        return Decision(_link(place), adjustment, active=room.used, waiting=room.pending)


def _link(place: Place) -> Link:
    match place.kind:
        case "in":
            return Link(ANY, place.name)
        case "out":
            return Link(place.name, ANY)
        case _:
            return Link(place.name, place.other)
