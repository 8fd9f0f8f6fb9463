"""Flows that move over shared capacities as time goes on. Pure: it is told the time.

Flows of one lane (the same capacities, the same limit) move at the same rate. A lane therefore keeps
one figure, the bytes that each of its flows was served so far, and a flow ends when that figure has
grown by its size: a change of rates costs per lane, not per flow. Rates are found anew only when a
flow starts or ends or a capacity changes, and not even then when nobody else can notice.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from transfer_engine.simulation.sharing import ROUNDING, Capacity, share

FlowId = int
_NEARLY_S: Final = 1e-6
"""A flow that would end within it has ended: loop time is a float."""


@dataclass(slots=True)
class _Use:
    """One capacity and what is going through it."""

    capacity: Capacity
    n: int = 0
    used_bytes_s: float = 0.0

    def is_full(self) -> bool:
        return self.used_bytes_s >= self.capacity.goodput(self.n) * (1 - ROUNDING)

    def would_hold(self, n_more: int, bytes_s: float) -> bool:
        """Whether nobody on it would notice `n_more` flows that take `bytes_s` more."""
        room = self.capacity.goodput(self.n + n_more) * (1 - ROUNDING)
        return not self.is_full() and self.used_bytes_s + bytes_s <= room


@dataclass(slots=True)
class _Lane:
    """Flows with one rate."""

    uses: tuple[int, ...]
    limit_bytes_s: float
    n: int = 0
    rate_bytes_s: float = 0.0
    served_bytes: float = 0.0
    """What each flow got since the lane was last empty."""
    at: float = 0.0
    touched: bool = False
    """A flow has come or gone since the last forecast."""
    ends_at: float = math.inf
    """When its next flow ends, by the last forecast."""
    version: int = 0
    """Counts changes of rate or of the first to end: older forecasts are void."""
    ends: list[tuple[float, FlowId]] = field(default_factory=list)
    """(`served_bytes` at which it ends, flow), as a heap; stopped flows stay until they come up."""


class Network:
    """Capacities, lanes over them, flows in the lanes."""

    def __init__(self, capacities: Mapping[str, Capacity]) -> None:
        self._index = {name: i for i, name in enumerate(capacities)}
        self._uses = [_Use(capacity) for capacity in capacities.values()]
        self._lanes: list[_Lane] = []
        self._busy: dict[int, _Lane] = {}
        self._flows: dict[FlowId, tuple[int, float, float]] = {}
        """Flow → lane, `served_bytes` at its start, size."""
        self._forecasts: list[tuple[float, int, int]] = []
        """(when, lane, version) of each busy lane's next end, as a heap."""
        self._last_id = 0
        self._stale = False

    def lane(self, capacities: Iterable[str], limit_bytes_s: float = math.inf) -> int:
        """A new lane over these capacities; returns its number. KeyError: no such capacity."""
        uses = tuple(sorted({self._index[name] for name in capacities}))
        assert uses, "a flow without any capacity would take no time"
        self._lanes.append(_Lane(uses, limit_bytes_s))
        return len(self._lanes) - 1

    def start(self, lane: int, n_bytes: float, now: float) -> FlowId:
        """Begin a flow; it moves from the next `settle` on."""
        row = self._lanes[lane]
        self._advance(row, now)
        self._last_id += 1
        flow = self._last_id
        self._flows[flow] = (lane, row.served_bytes, n_bytes)
        heapq.heappush(row.ends, (row.served_bytes + n_bytes, flow))
        self._change(lane, 1)
        return flow

    def stop(self, flow: FlowId, now: float) -> float:
        """Take a flow out before its end; the bytes that it had moved."""
        moved = self.moved(flow, now)
        lane = self._flows.pop(flow)[0]
        self._advance(self._lanes[lane], now)
        self._change(lane, -1)
        return moved

    def moved(self, flow: FlowId, now: float) -> float:
        """Bytes that a flow has moved by `now`."""
        lane, began_at, size = self._flows[flow]
        row = self._lanes[lane]
        served = row.served_bytes + row.rate_bytes_s * (now - row.at)
        return min(max(served - began_at, 0.0), size)

    def set_capacity(self, name: str, bytes_s: float) -> None:
        """Change a capacity from the next `settle` on."""
        use = self._uses[self._index[name]]
        if use.capacity.bytes_s != bytes_s:
            use.capacity = replace(use.capacity, bytes_s=bytes_s)
            self._stale = True

    def settle(self, now: float) -> float:
        """Let rates follow what has changed; returns when the next flow ends (infinity: none does)."""
        if self._stale:
            self._stale = False
            self._share(now)
        while self._forecasts:
            at, lane, version = self._forecasts[0]
            if self._lanes[lane].version == version:
                return at
            heapq.heappop(self._forecasts)
        return math.inf

    def ended(self, now: float) -> list[FlowId]:
        """Take out the flows that have ended by `now`, in order; `settle` is due afterwards."""
        found: list[FlowId] = []
        while self._forecasts and self._forecasts[0][0] <= now + _NEARLY_S:
            _, lane, version = heapq.heappop(self._forecasts)
            row = self._lanes[lane]
            if row.version != version:
                continue
            self._advance(row, now)
            due = row.served_bytes + row.rate_bytes_s * _NEARLY_S + ROUNDING
            while (head := self._first(row)) is not None and head[0] <= due:
                del self._flows[head[1]]
                found.append(head[1])
                self._change(lane, -1)
            self._forecast(lane)
        return found

    def rates(self) -> dict[int, tuple[int, float]]:
        """Busy lane → (flows, rate of each)."""
        return {lane: (row.n, row.rate_bytes_s) for lane, row in self._busy.items()}

    @staticmethod
    def _advance(row: _Lane, now: float) -> None:
        row.served_bytes += row.rate_bytes_s * (now - row.at)
        row.at = now

    def _first(self, row: _Lane) -> tuple[float, FlowId] | None:
        while row.ends:
            if row.ends[0][1] in self._flows:
                return row.ends[0]
            heapq.heappop(row.ends)
        return None

    def _change(self, lane: int, n: int) -> None:
        """Count a flow in or out; rates are left alone when it can be seen that they do not change."""
        row = self._lanes[lane]
        uses = [self._uses[index] for index in row.uses]
        limit = row.limit_bytes_s
        alone = (
            not self._stale
            and limit < math.inf
            and (not row.n or row.rate_bytes_s == limit)
            and _all_hold(uses, n, n * limit)
        )
        row.n += n
        row.touched = True
        for use in uses:
            use.n += n
            if alone:
                use.used_bytes_s = use.used_bytes_s + n * limit if use.n else 0.0
        if row.n:
            self._busy[lane] = row
        else:
            self._busy.pop(lane, None)
            row.served_bytes, row.rate_bytes_s = 0.0, 0.0
            row.ends.clear()
            row.version += 1
        if alone:
            row.rate_bytes_s = limit if row.n else 0.0
            self._forecast(lane)
        else:
            self._stale = True

    def _share(self, now: float) -> None:
        busy, uses = sorted(self._busy.items()), self._uses
        goodputs = []
        for use in uses:
            goodputs.append(use.capacity.goodput(use.n))
            use.used_bytes_s = 0.0
        groups = [(row.n, row.uses, row.limit_bytes_s) for _, row in busy]
        forecasts: list[tuple[float, int, int]] = []
        for (lane, row), rate in zip(busy, share(groups, goodputs), strict=True):
            moved = row.n * rate
            for index in row.uses:
                uses[index].used_bytes_s += moved
            if rate != row.rate_bytes_s or row.touched:
                self._advance(row, now)
                row.rate_bytes_s = rate
                self._foresee(row)
            if row.ends_at < math.inf:
                forecasts.append((row.ends_at, lane, row.version))
        # Most rates have changed: one new heap costs less than to push them all and to pop what is void.
        heapq.heapify(forecasts)
        self._forecasts = forecasts

    def _forecast(self, lane: int) -> None:
        row = self._lanes[lane]
        self._foresee(row)
        if row.ends_at < math.inf:
            heapq.heappush(self._forecasts, (row.ends_at, lane, row.version))

    def _foresee(self, row: _Lane) -> None:
        row.version += 1
        row.touched = False
        head = self._first(row)
        if head is None or row.rate_bytes_s <= 0:
            row.ends_at = math.inf
        else:
            row.ends_at = row.at + max(head[0] - row.served_bytes, 0.0) / row.rate_bytes_s

    def loads(self) -> Sequence[tuple[str, int, float]]:
        """(capacity, flows, bytes per second through it) of those in use."""
        return [(name, use.n, use.used_bytes_s) for name, i in self._index.items() if (use := self._uses[i]).n]


def _all_hold(uses: Sequence[_Use], n_more: int, bytes_s: float) -> bool:
    for use in uses:  # noqa: SIM110 - a generator costs as much as what it yields
        if not use.would_hold(n_more, bytes_s):
            return False
    return True
