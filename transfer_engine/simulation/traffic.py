"""The network in the event loop's time: copies wait here until their bytes have moved."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from protocols.api import Marker, OnMarker, Timeouts
from protocols.errors import OutcomeUnknown, Stalled, TimedOut
from transfer_engine.simulation.network import FlowId, Network
from transfer_engine.simulation.plant import Plant


@dataclass(slots=True, eq=False)
class _Moving:
    """One copy whose bytes are moving."""

    flow: FlowId
    link: tuple[str, str]
    stream: str
    ended: asyncio.Future[None]
    on_marker: OnMarker
    timeouts: Timeouts
    began_at: float
    bytes_done: float = 0.0
    progress_at: float = 0.0
    n_markers: int = 0


class Traffic:
    """All copies that move bytes now."""

    def __init__(self, plant: Plant, *, marker_s: float) -> None:
        self._plant = plant
        self._network = Network(plant.capacities)
        self._marker_s = marker_s
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[tuple[str, str], int] = {}
        self._moving: dict[FlowId, _Moving] = {}
        self._markers: deque[tuple[float, _Moving]] = deque()
        """(when the next marker is due, copy); all have one period, so the order is that of time."""
        self._ticking = False
        self._settling = False
        self._timer: asyncio.TimerHandle | None = None
        self._apply_capacities()

    async def move(
        self,
        link: tuple[str, str],
        stream: str,
        n_bytes: int,
        on_marker: OnMarker,
        timeouts: Timeouts,
        interrupted: Callable[[int], None],
    ) -> int:
        """Move so many bytes; returns the number of markers.

        Args: interrupted: told how many bytes had moved when it ends early, by an error or cancelled.
        Raises: Stalled, TimedOut, OutcomeUnknown (something on the way died).
        """
        if n_bytes <= 0:
            return 0
        now = self._loop.time()
        lane = self._lanes.get(link)
        if lane is None:
            lane = self._lanes[link] = self._plant.lane(self._network, *link)
        flow = self._network.start(lane, n_bytes, now)
        moving = _Moving(flow, link, stream, self._loop.create_future(), on_marker, timeouts, now, 0.0, now)
        self._moving[flow] = moving
        self._markers.append((now + self._marker_s, moving))
        if not self._ticking:
            self._ticking = True
            self._loop.call_at(now + self._marker_s, self._tick)
        self._soon()
        try:
            await moving.ended
        finally:
            if flow in self._moving:
                interrupted(int(self._stop(moving)))
        return moving.n_markers

    def moved(self) -> dict[tuple[tuple[str, str], str], float]:
        """(link, stream) → bytes that unfinished copies have moved so far."""
        now = self._loop.time()
        found: dict[tuple[tuple[str, str], str], float] = {}
        for flow, moving in self._moving.items():
            key = (moving.link, moving.stream)
            found[key] = found.get(key, 0.0) + self._network.moved(flow, now)
        return found

    def _stop(self, moving: _Moving) -> float:
        del self._moving[moving.flow]
        moved = self._network.stop(moving.flow, self._loop.time())
        self._soon()
        return moved

    def _soon(self) -> None:
        """Rates follow once for everything that happens at one instant."""
        if not self._settling:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        now = self._loop.time()
        at = min(self._network.settle(now), self._change_at)
        if at == math.inf or (self._timer is not None and self._timer.when() <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now = self._loop.time()
        for flow in self._network.ended(now):
            ended = self._moving.pop(flow).ended
            if not ended.done():
                ended.set_result(None)
        if self._change_at <= now:
            self._apply_capacities()
            self._cut(now)
        self._settle()

    def _apply_capacities(self) -> None:
        now = self._loop.time()
        for key, varying in self._plant.varying.items():
            self._network.set_capacity(key, varying.bytes_s(now))
        self._change_at = self._plant.next_change(now)
        self._soon()

    def _cut(self, now: float) -> None:
        """Whatever goes through something dead loses its connection."""
        dead: dict[tuple[str, str], str | None] = {}
        for moving in self._moving.values():
            link = moving.link
            if link not in dead:
                dead[link] = self._plant.dead(*link, now)
            if dead[link] is not None and not moving.ended.done():
                text = f"the connection was lost: the {dead[link]} does not answer"
                moving.ended.set_exception(OutcomeUnknown(text, unsettled=True))

    def _tick(self) -> None:
        """Report progress of the copies that are due, and end those that make none."""
        now = self._loop.time()
        while self._markers and self._markers[0][0] <= now:
            due, moving = self._markers.popleft()
            if moving.flow in self._moving and not moving.ended.done():
                self._report(moving, now)
                self._markers.append((due + self._marker_s, moving))
        self._ticking = bool(self._markers)
        if self._ticking:
            self._loop.call_at(self._markers[0][0], self._tick)

    def _report(self, moving: _Moving, now: float) -> None:
        moved = self._network.moved(moving.flow, now)
        if moved > moving.bytes_done:
            moving.bytes_done, moving.progress_at = moved, now
        moving.n_markers += 1
        moving.on_marker(Marker(bytes_done=int(moved)))
        limits = moving.timeouts
        if now - moving.progress_at >= limits.stall_s:
            moving.ended.set_exception(Stalled(f"no progress for {limits.stall_s:g} s", unsettled=True))
        elif limits.total_s is not None and now - moving.began_at >= limits.total_s:
            moving.ended.set_exception(TimedOut(f"not done within {limits.total_s:g} s", unsettled=True))
