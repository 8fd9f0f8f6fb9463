"""Copies that compete for modelled storages under an optimizer's targets, without engine and event loop.

Each copy has its overhead, moves its bytes at the max-min fair rate, sends a marker every few seconds and is never
interrupted. Times are exact: the same arguments give the same run.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from protocols.errors import Scope
from transfer_engine.config import OptimizerSettings
from transfer_engine.metering import End, Meter
from transfer_engine.model import FileId
from transfer_engine.optimizer import Optimizer
from transfer_engine.places import Link, Place
from transfer_engine.simulation.network import Network
from transfer_engine.simulation.sharing import Capacity


class Static:
    """The same number everywhere, for comparison."""

    def __init__(self, n: int) -> None:
        self.n = n

    def target(self, place: Place, lowest: int, highest: int) -> int:
        return max(lowest, min(self.n, highest))

    def observe(self, samples: object, now: float) -> list[Any]:
        return []

    def pace(self) -> float:
        return 1e9


@dataclass
class Way:
    """A link: which capacities it uses, how fast one copy can be, and what waits."""

    uses: tuple[str, ...]
    sizes: Iterable[int]
    stream_bytes_s: float = math.inf
    overhead_s: float = 0.0
    dead: tuple[float, float] = (math.inf, math.inf)
    """From, until: copies hang and time out."""
    waiting: deque[int] = field(default_factory=deque)
    n_left: int = 10**9
    lane: int = 0
    files: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self.files = iter(self.sizes)


@dataclass
class _Running:
    link: tuple[str, str]
    size: int
    flow: int | None = None


class Loop:
    """The closed loop."""

    def __init__(
        self,
        ways: Mapping[tuple[str, str], Way],
        capacities: Mapping[str, Capacity],
        optimizer: Any = None,
        *,
        marker_s: float = 5.0,
        limit: int = 60,
        busy: Mapping[str, int] | None = None,
        timeout_s: float = 30.0,
        changes: Iterable[tuple[float, Callable[[Loop], None]]] = (),
    ) -> None:
        self.ways, self.optimizer = ways, optimizer or Optimizer(OptimizerSettings())
        self.network = Network(capacities)
        for way in ways.values():
            way.lane = self.network.lane(way.uses, way.stream_bytes_s)
        self.marker_s, self.limit, self.busy, self.timeout_s = marker_s, limit, dict(busy or {}), timeout_s
        self.now = 0.0
        self.meter = Meter(now=0.0)
        self.counts: dict[Place, int] = {}
        self.running: dict[int, _Running] = {}
        self.flows: dict[int, int] = {}
        self.copying: dict[str, int] = {}
        self.events: list[tuple[float, int, str, Any]] = []
        self.n_events = self.n_copies = self.n_refused = 0
        self.done_bytes = 0.0
        self.series: list[tuple[float, float]] = []
        """(time, bytes moved until then), every second."""
        self.log: list[Any] = []
        self.ended_at: float | None = None
        for at, change in changes:
            self._at(at, "change", change)
        self._at(0.0, "tick", None)
        self._at(1.0, "observe", None)

    def run(self, until: float) -> Loop:
        while self.events or self.flows:
            next_end = self.network.settle(self.now)
            at = min(next_end, self.events[0][0] if self.events else math.inf)
            if at > until:
                break
            self.now = at
            if next_end <= at:
                for flow in self.network.ended(at):
                    self._finish(self.flows.pop(flow))
            else:
                _, _, kind, what = heapq.heappop(self.events)
                getattr(self, f"_{kind}")(what)
            self._fill()
        return self

    def moved(self, since: float, until: float) -> float:
        """Mean goodput."""
        return (self.series[int(until)][1] - self.series[int(since)][1]) / (int(until) - int(since))

    def reached(self, goodput: float, since: float = 0.0, span: int = 10) -> float:
        """Seconds after `since` from which on the mean over `span` seconds is at least `goodput`."""
        for t in range(int(since), len(self.series) - span):
            if self.moved(t, t + span) >= goodput:
                return t - since
        return math.inf

    def _at(self, at: float, kind: str, what: Any) -> None:
        self.n_events += 1
        heapq.heappush(self.events, (at, self.n_events, kind, what))

    def _tick(self, _: object) -> None:
        live = sum(self.network.moved(flow, self.now) for flow in self.flows)
        self.series.append((self.now, self.done_bytes + live))
        self._at(self.now + 1, "tick", None)

    def _change(self, change: Callable[[Loop], None]) -> None:
        change(self)

    def _observe(self, _: object) -> None:
        samples = self.meter.samples(self.now, lambda place: (1, self.limit), self._waiting)
        self.log += self.optimizer.observe(samples, self.now)
        self._at(self.now + self.optimizer.pace(), "observe", None)

    def _waiting(self, place: Place) -> int:
        return sum(way.n_left for link, way in self.ways.items() if place in _places(link))

    def _fill(self) -> None:
        """Start what may start, a copy of the link that has the fewest first."""
        able = [link for link, way in self.ways.items() if (way.n_left or way.waiting) and self._may_start(link)]
        while able:
            link = min(able, key=lambda one: self.counts.get(Place("link", *one), 0))
            self._start(link, self.ways[link])
            able = [one for one in able if (self.ways[one].n_left or self.ways[one].waiting) and self._may_start(one)]

    def _may_start(self, link: tuple[str, str]) -> bool:
        return all(self.counts.get(place, 0) < self.optimizer.target(place, 1, self.limit) for place in _places(link))

    def _start(self, link: tuple[str, str], way: Way) -> None:
        if way.waiting:
            size = way.waiting.popleft()
        else:
            size = next(way.files)
            way.n_left -= 1
        self.n_copies += 1
        self.running[self.n_copies] = _Running(link, size)
        for place in _places(link):
            self.counts[place] = self.counts.get(place, 0) + 1
        self.meter.started(self._key(self.n_copies), Link(*link), size, self.now)
        self._at(self.now + way.overhead_s, "copy", self.n_copies)

    @staticmethod
    def _key(number: int) -> tuple[FileId, int]:
        return FileId(number), 1

    def _copy(self, number: int) -> None:
        run = self.running[number]
        way = self.ways[run.link]
        self.meter.copying(self._key(number), self.now)
        for end, scope in ((run.link[0], Scope.SOURCE), (run.link[1], Scope.DESTINATION)):
            if end in self.busy and self.copying.get(end, 0) >= self.busy[end]:
                self.n_refused += 1
                self._release(number, End.OVERLOADED, scope)
                self._at(self.now + 10, "retry", (run.link, run.size))
                return
        if way.dead[0] <= self.now < way.dead[1]:
            self._at(self.now + self.timeout_s, "timeout", number)
            return
        for end in run.link:
            self.copying[end] = self.copying.get(end, 0) + 1
        run.flow = self.network.start(way.lane, run.size, self.now)
        self.flows[run.flow] = number
        self._at(self.now + self.marker_s, "marker", number)

    def _retry(self, what: tuple[tuple[str, str], int]) -> None:
        self.ways[what[0]].waiting.append(what[1])

    def _timeout(self, number: int) -> None:
        run = self.running[number]
        self._release(number, End.OVERLOADED, Scope.DESTINATION)
        self._at(self.now + 10, "retry", (run.link, run.size))

    def _marker(self, number: int) -> None:
        run = self.running.get(number)
        if run is not None and run.flow in self.flows:
            self.meter.marker(self._key(number), int(self.network.moved(run.flow, self.now)), self.now)
            self._at(self.now + self.marker_s, "marker", number)

    def _finish(self, number: int) -> None:
        run = self.running[number]
        for end in run.link:
            self.copying[end] -= 1
        self.done_bytes += run.size
        self._release(number, End.FINISHED, None)
        if not any(way.n_left or way.waiting for way in self.ways.values()) and not self.running:
            self.ended_at = self.now

    def _release(self, number: int, end: End, scope: Scope | None) -> None:
        run = self.running.pop(number)
        for place in _places(run.link):
            self.counts[place] -= 1
        self.meter.ended(self._key(number), end, run.size if end is End.FINISHED else 0, self.now, scope)


def _places(link: tuple[str, str]) -> tuple[Place, Place, Place]:
    return Place("out", link[0]), Place("in", link[1]), Place("link", *link)
