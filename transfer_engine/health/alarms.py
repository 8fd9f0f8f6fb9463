"""At what instants places change by themselves: one per place. Pure."""

from __future__ import annotations

import heapq
import math
from typing import Final

from transfer_engine.places import Place

SLACK: Final = 64


class Alarms:
    """A heap that forgets: memory is bounded by the number of places."""

    def __init__(self) -> None:
        self._at: dict[Place, float] = {}
        self._heap: list[tuple[float, Place]] = []

    def set(self, place: Place, at: float) -> None:
        """The place's alarm; infinity: none."""
        if math.isinf(at):
            self._at.pop(place, None)
        elif self._at.get(place) != at:
            self._at[place] = at
            heapq.heappush(self._heap, (at, place))
            if len(self._heap) > 2 * len(self._at) + SLACK:
                self._heap = [(when, where) for where, when in self._at.items()]
                heapq.heapify(self._heap)

    def ring(self, now: float) -> list[Place]:
        """Those whose time has come, in order; their alarms are gone."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, place = heapq.heappop(self._heap)
            if self._at.get(place) == at:
                del self._at[place]
                found.append(place)
        return found

    def next_at(self) -> float | None:
        """The first one; None: there is none."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
