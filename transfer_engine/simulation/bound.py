"""The fluid lower bound of a scenario's makespan: no scheduler, however good, can be done earlier. Pure.

What arrives from an instant t on, B(t) bytes, has to go through each capacity of its way after t. With
F(T) the bytes that a capacity can carry until T, the end T of everything obeys F(T) ≥ F(t) + B(t) for
every t, so T is at least F⁻¹ of the largest right-hand side. Files of one link cannot move before the engine
has asked what it asks first, so t is that much later.

*Used together.* At each instant a capacity carries at most what the links through it can bring: the sum,
over these links, of the least of their other capacities at that instant and of what their slots can move, and
no more than its own slots can. F is the integral of the smaller. Where everything is there from the
beginning and nothing changes, all files' ways being fixed, the largest load is then the optimum of the
linear program as well: every link at a constant rate.

*Slots.* Each copy holds one of its destination, of its source, of its link and of the node while the engine
asks (source, destination, copy; destination again), for the destination's overhead, and for its size at the
best rate that its way has. A slot whose storage or link is dead or stalled moves nothing: without what is
asked before and after, the same holds for slots that count only while the way is alive.

*The longest file.* None ends before it could alone, at the rate of its way at each instant.

*Luck.* Where nothing but errors by chance, all the time, happens on a way, every scheduler meets the same ones
(`luck`): the bytes and slots of these attempts are counted in.

The bound is the largest of these. It may lie below what is possible where arrivals at one capacity would have to
follow what another one does at the time, where faults that come and go break copies, and because
storages share their bandwidth between copies evenly, whatever is best for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from transfer_engine.limits import LimitTable
from transfer_engine.places import Link
from transfer_engine.simulation import faults
from transfer_engine.simulation.integral import Integral
from transfer_engine.simulation.luck import NOTHING, Lost
from transfer_engine.simulation.namespace import endpoint
from transfer_engine.simulation.plant import Plant, Varying
from transfer_engine.simulation.scenario import Scenario

LinkName = tuple[str, str]
"""(source, destination)"""


@dataclass(frozen=True, slots=True)
class Bound:
    """The earliest possible end, and what it is due to."""

    end_s: float
    due_to: str


@dataclass(slots=True)
class _Arrived:
    """What arrived on one link at one instant."""

    n_bytes: int = 0
    """With those of attempts that have to fail."""
    n_files: int = 0
    n_attempts: int = 0
    largest: int = 0
    """Bytes of one file in all its attempts."""


@dataclass(frozen=True, slots=True)
class _Way:
    """What one copy needs on an empty network."""

    before_s: float
    """Until its first byte."""
    after_s: float
    """Of its slot, after its last byte."""
    stream_bytes_s: float
    """Most that it can get; infinity: its capacities alone bound it."""
    best_bytes_s: float

    def moving_s(self, row: _Arrived) -> float:
        """Slot-seconds while bytes move."""
        return row.n_bytes / self.best_bytes_s

    def slot_s(self, row: _Arrived) -> float:
        """Slot-seconds in all."""
        return row.n_attempts * self.before_s + row.n_files * self.after_s + self.moving_s(row)


@dataclass(slots=True)
class Demand:
    """What was asked for and has been done: what failed for good bounds nothing."""

    scenario: Scenario
    plant: Plant
    first_s: float = math.inf
    _links: dict[LinkName, dict[float, _Arrived]] = field(default_factory=dict)

    def add(self, at_s: float, source: str, destination: str, n_bytes: int, lost: Lost = NOTHING) -> None:
        """One file, asked for at `at_s`. Args: lost: what attempts before its success cost, whoever makes them."""
        instants = self._links.setdefault((source, destination), {})
        arrived = instants.get(at_s)
        if arrived is None:
            arrived = instants[at_s] = _Arrived()
        arrived.n_bytes += n_bytes + lost.n_bytes
        arrived.n_files += 1
        arrived.n_attempts += 1 + lost.n_attempts
        arrived.largest = max(arrived.largest, n_bytes + lost.n_bytes)
        self.first_s = min(self.first_s, at_s)

    def bound(self, limits: LimitTable) -> Bound:
        """The earliest end of all of it."""
        return _Bounding(self.scenario, self.plant, limits, self._links).find()


class _Bounding:
    """All that is needed to find one bound."""

    def __init__(
        self, scenario: Scenario, plant: Plant, limits: LimitTable, links: dict[LinkName, dict[float, _Arrived]]
    ) -> None:
        self._scenario = scenario
        self._plant = plant
        self._limits = limits
        self._links = links
        self._pushes = scenario.engine_settings().transfer.modes[0] == "push"
        self._uses = {link: plant.uses(*link) for link in links}
        self._ways = {link: self._way(link) for link in links}

    def find(self) -> Bound:
        found = Bound(0.0, "nothing was done")
        for link in self._links:
            found = _later(found, self._alone(link), "the longest single file")
        for name in self._plant.capacities:
            links = [link for link, uses in self._uses.items() if name in uses]
            if links:
                found = _later(found, self._through(name, links), name)
        for name, n_slots, links, alive in self._slots():
            if links:
                found = _later(found, self._held(n_slots, links, alive), name)
        return found

    def _way(self, link: LinkName) -> _Way:
        source, destination = (self._scenario.endpoints[name] for name in link)
        active = source if self._pushes else destination
        stream = self._plant.stream_bytes_s(*link)
        capacities = [self._plant.capacities[name] for name in self._uses[link]]
        stream = min([stream, *(row.goodput(1) for row in capacities if row.heads is not None)])
        return _Way(
            before_s=source.latency_s + destination.latency_s + active.latency_s + destination.overhead_s,
            after_s=destination.latency_s,
            stream_bytes_s=stream,
            best_bytes_s=min(stream, *(row.bytes_s for row in capacities)),
        )

    # One file

    def _alone(self, link: LinkName) -> float:
        way = self._ways[link]
        instants = self._links[link].items()
        if not any(name in self._plant.varying for name in self._uses[link]):
            return max(at_s + way.before_s + row.largest / way.best_bytes_s for at_s, row in instants)
        integral = self._integral(self._uses[link], lambda now: min(way.stream_bytes_s, self._least(link, now)))
        found = 0.0
        for at_s, row in instants:
            moved = integral.until(at_s + way.before_s) + row.largest
            found = max(found, integral.inverse(moved) if row.largest else at_s + way.before_s)
        return found

    def _least(self, link: LinkName, now: float, without: str = "") -> float:
        """The least capacity of a way at an instant."""
        return min((self._bytes_s(name, now) for name in self._uses[link] if name != without), default=math.inf)

    def _bytes_s(self, name: str, now: float) -> float:
        varying = self._plant.varying.get(name)
        return self._plant.capacities[name].bytes_s if varying is None else varying.bytes_s(now)

    def _integral(self, names: Iterable[str], rate: Callable[[float], float]) -> Integral:
        """Of a rate that changes when one of these capacities does."""
        every = (self._plant.varying.get(name) for name in set(names))
        windows = tuple(window for row in every if row is not None for window in row.windows)
        return Integral.of(Varying(windows, rate)) if windows else Integral(rate(0.0))

    # Capacities

    def _through(self, name: str, links: list[LinkName]) -> float:
        slots = {link: max(self._link_slots(link), 1) * self._ways[link].stream_bytes_s for link in links}
        own = max(self._own_slots(name), 1) * max(self._ways[link].stream_bytes_s for link in links)

        def rate(now: float) -> float:
            brought = sum(min(self._least(link, now, name), slots[link]) for link in links)
            return min(self._bytes_s(name, now), own, brought)

        every = (used for link in links for used in self._uses[link])
        return _end(self._amounts(links, lambda _, row: row.n_bytes, begin=True), self._integral(every, rate))

    def _own_slots(self, name: str) -> float:
        kind, _, host = name.partition(" ")
        inbound, outbound = self._limits.of_inbound(endpoint(host)), self._limits.of_outbound(endpoint(host))
        found = {"in": inbound, "out": outbound, "disk": inbound + outbound}.get(kind, math.inf)
        return min(found, self._limits.node)

    def _link_slots(self, link: LinkName) -> int:
        source, destination = (endpoint(name) for name in link)
        return min(
            self._limits.of_link(Link(source, destination)),
            self._limits.of_outbound(source),
            self._limits.of_inbound(destination),
            self._limits.node,
        )

    # Slots

    def _slots(self) -> Iterator[tuple[str, int, list[LinkName], Varying]]:
        """(name, how many, whose, whether they can be used at an instant)"""
        for host in self._scenario.endpoints:
            url, alive = endpoint(host), self._alive(self._plant.endpoint_faults(host))
            into = [link for link in self._links if link[1] == host]
            out_of = [link for link in self._links if link[0] == host]
            yield f"slots in {host}", self._limits.of_inbound(url), into, alive
            yield f"slots out {host}", self._limits.of_outbound(url), out_of, alive
        for link in self._links:
            troubles = [*self._plant.link_faults(*link)]
            troubles += [fault for host in link for fault in self._plant.endpoint_faults(host)]
            yield f"slots {link[0]} > {link[1]}", self._link_slots(link), [link], self._alive(tuple(troubles))
        yield "slots of the node", self._limits.node, list(self._links), self._alive(())

    def _alive(self, troubles: tuple[faults.Fault, ...]) -> Varying:
        return Varying(troubles, lambda now: float(faults.factor(troubles, now) > 0))

    def _held(self, n_slots: int, links: list[LinkName], alive: Varying) -> float:
        whole = self._amounts(links, lambda way, row: way.slot_s(row))
        # The end is that of the last copy; its slot is held until the destination was seen.
        after_s = max(self._ways[link].after_s for link in links)
        end_s = _end(whole, Integral(n_slots)) - after_s
        if not alive.windows:
            return end_s
        usable = Integral.of(Varying(alive.windows, lambda now: n_slots * alive.bytes_s(now)))
        return max(end_s, _end(self._amounts(links, lambda way, row: way.moving_s(row), begin=True), usable))

    def _amounts(
        self, links: Iterable[LinkName], of: Callable[[_Way, _Arrived], float], *, begin: bool = False
    ) -> list[tuple[float, float]]:
        """(from when on, how much), in order. Args: begin: from the first byte, not from the arrival."""
        found: dict[float, float] = {}
        for link in links:
            way = self._ways[link]
            for at_s, arrived in self._links[link].items():
                at = at_s + way.before_s if begin else at_s
                found[at] = found.get(at, 0.0) + of(way, arrived)
        return sorted(found.items())


def _later(one: Bound, end_s: float, due_to: str) -> Bound:
    # What has been done can be done: an infinite end is one that rounding has pushed behind the last change.
    return Bound(end_s, due_to) if one.end_s < end_s < math.inf else one


def _end(amounts: list[tuple[float, float]], integral: Integral) -> float:
    """When all of (instant, amount) can have gone through, at the earliest."""
    needed, later = 0.0, 0.0
    for at_s, amount in reversed(amounts):
        later += amount
        needed = max(needed, integral.until(at_s) + later)
    return integral.inverse(needed) if later else 0.0
