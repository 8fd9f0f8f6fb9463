"""The fluid lower bound of a scenario's makespan: no scheduler, however good, can be done earlier. Pure.

What arrives from an instant t on, B(t) bytes, has to go through each capacity of its way after t. With
F(T) the bytes that a capacity can carry until T, the end T of everything obeys F(T) ≥ F(t) + B(t) for
every t, so T is at least F⁻¹ of the largest right-hand side. The same holds for slots: each copy holds one
of its destination, of its source, of its link and of the node for at least its latency, its overhead and
its size at the best rate that its way has. And no file can end earlier than alone on an empty network.
The bound is the largest of all these; each relaxes everything but one resource, so no linear
program is needed, and it may lie below what is possible where resources have to be used together.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from transfer_engine.limits import LimitTable
from transfer_engine.model import Link
from transfer_engine.simulation import faults
from transfer_engine.simulation.namespace import endpoint
from transfer_engine.simulation.plant import Plant, Varying
from transfer_engine.simulation.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Bound:
    """The earliest possible end, and what it is due to."""

    end_s: float
    due_to: str


@dataclass(slots=True)
class _Arrived:
    """What arrived on one link at one instant."""

    n_bytes: int = 0
    n_files: int = 0
    slot_s: float = 0.0


@dataclass(slots=True)
class Demand:
    """What was asked for and has been done: what failed for good bounds nothing."""

    scenario: Scenario
    plant: Plant
    first_s: float = math.inf
    _links: dict[tuple[str, str], dict[float, _Arrived]] = field(default_factory=dict)
    _ways: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    """Link → seconds per file, seconds per byte, on an empty network."""
    _alone_s: float = 0.0

    def add(self, at_s: float, source: str, destination: str, n_bytes: int) -> None:
        """One file, asked for at `at_s`."""
        link = (source, destination)
        way = self._ways.get(link)
        if way is None:
            way = self._ways[link] = self._way(source, destination)
            self._links[link] = {}
        seconds = way[0] + n_bytes * way[1]
        instants = self._links[link]
        arrived = instants.get(at_s)
        if arrived is None:
            arrived = instants[at_s] = _Arrived()
        arrived.n_bytes += n_bytes
        arrived.n_files += 1
        arrived.slot_s += seconds
        self.first_s = min(self.first_s, at_s)
        self._alone_s = max(self._alone_s, at_s + seconds)

    def _way(self, source: str, destination: str) -> tuple[float, float]:
        ends = self.scenario.endpoints
        best = min(self.plant.capacities[name].bytes_s for name in self.plant.uses(source, destination))
        best = min(best, self.plant.stream_bytes_s(source, destination))
        return ends[destination].latency_s + ends[destination].overhead_s, 1 / best

    def bound(self, limits: LimitTable) -> Bound:
        """The earliest end of all of it."""
        found = Bound(self._alone_s, "the longest single file")
        for name, capacity in self.plant.capacities.items():
            links = [link for link in self._links if name in self.plant.uses(*link)]
            varying = self.plant.varying.get(name)
            integral = Integral(capacity.bytes_s) if varying is None else Integral.of(varying)
            found = _later(found, _end(self._amounts(links, lambda row: row.n_bytes), integral), name)
        for name, slots, links in self._slots(limits):
            found = _later(found, _end(self._amounts(links, lambda row: row.slot_s), Integral(slots)), name)
        return found

    def _slots(self, limits: LimitTable) -> Iterator[tuple[str, int, list[tuple[str, str]]]]:
        for host in self.scenario.endpoints:
            url = endpoint(host)
            into = [link for link in self._links if link[1] == host]
            out_of = [link for link in self._links if link[0] == host]
            yield f"slots in {host}", limits.of_inbound(url), into
            yield f"slots out {host}", limits.of_outbound(url), out_of
        for link in self._links:
            yield f"slots {link[0]} > {link[1]}", limits.of_link(Link(endpoint(link[0]), endpoint(link[1]))), [link]
        yield "slots of the node", limits.node, list(self._links)

    def _amounts(self, links: Iterable[tuple[str, str]], of: Callable[[_Arrived], float]) -> list[tuple[float, float]]:
        found: dict[float, float] = {}
        for link in links:
            for at_s, arrived in self._links[link].items():
                found[at_s] = found.get(at_s, 0.0) + of(arrived)
        return sorted(found.items())


def _later(one: Bound, end_s: float, due_to: str) -> Bound:
    return Bound(end_s, due_to) if end_s > one.end_s else one


def _end(amounts: list[tuple[float, float]], integral: Integral) -> float:
    """When all of (instant, amount) can have gone through, at the earliest."""
    needed, later = 0.0, 0.0
    for at_s, amount in reversed(amounts):
        later += amount
        needed = max(needed, integral.until(at_s) + later)
    return integral.inverse(needed) if later else 0.0


class Integral:
    """F(T): how much a capacity carries until T."""

    STEPS_MAX = 200_000

    def __init__(self, rate: float, varying: Varying | None = None) -> None:
        self._varying = varying
        self._at = [0.0]
        self._sums = [0.0]
        self._rates = [rate]

    @classmethod
    def of(cls, varying: Varying) -> Integral:
        """Of a capacity that changes."""
        return cls(varying.bytes_s(0.0), varying)

    def until(self, at_s: float) -> float:
        """F(at_s)."""
        while self._at[-1] <= at_s and self._extend():
            pass
        index = bisect_right(self._at, at_s) - 1
        return self._sums[index] + self._rates[index] * (at_s - self._at[index])

    def inverse(self, amount: float) -> float:
        """The first instant at which F reaches `amount`; infinity: never."""
        while self._sums[-1] < amount and self._extend():
            pass
        index = max(bisect_right(self._sums, amount * (1 - 1e-12)) - 1, 0)
        missing = amount - self._sums[index]
        if missing <= 0:
            return self._at[index]
        return self._at[index] + missing / self._rates[index] if self._rates[index] else math.inf

    def _extend(self) -> bool:
        """Go on to the next change; False when there is none."""
        if self._varying is None or len(self._at) > self.STEPS_MAX:
            return False
        now = self._at[-1]
        at = faults.next_change(self._varying.windows, now)
        if at == math.inf:
            return False
        self._sums.append(self._sums[-1] + self._rates[-1] * (at - now))
        self._at.append(at)
        self._rates.append(self._varying.bytes_s(at))
        return True
