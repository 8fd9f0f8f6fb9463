"""A scenario's storages and links as capacities, and how these change in time. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from transfer_engine.simulation import faults
from transfer_engine.simulation.faults import Dead, Fault, Window
from transfer_engine.simulation.network import Network
from transfer_engine.simulation.scenario import Endpoint, LinkModel, Pipe, Scenario
from transfer_engine.simulation.sharing import Capacity


@dataclass(frozen=True, slots=True)
class Varying:
    """A capacity that faults or outside traffic change."""

    windows: tuple[Window, ...]
    bytes_s: Callable[[float], float]
    """At an instant."""


def link_key(source: str, destination: str) -> str:
    """The name of a link's own capacity."""
    return f"link {source} {destination}"


class Plant:
    """The capacities of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.links: dict[tuple[str, str], LinkModel] = {(row.source, row.destination): row for row in scenario.links}
        self.capacities: dict[str, Capacity] = {}
        self.varying: dict[str, Varying] = {}
        self._mortal: dict[tuple[str, str], tuple[tuple[str, tuple[Dead, ...]], ...]] = {}
        """Link → parts of the way that die now and then, in the order in which they are asked."""
        for name, endpoint in scenario.endpoints.items():
            self._add_endpoint(name, endpoint)
        for (source, destination), link in self.links.items():
            if link.bytes_s is not None or link.faults:
                natural = min(scenario.endpoints[source].out_bytes_s, scenario.endpoints[destination].in_bytes_s)
                self._add(link_key(source, destination), Capacity(bytes_s=link.bytes_s or natural), link.faults)
        for name, pipe in scenario.pipes.items():
            self._add_pipe(name, pipe)

    def _add_endpoint(self, name: str, endpoint: Endpoint) -> None:
        self._add(f"in {name}", Capacity(bytes_s=endpoint.in_bytes_s), endpoint.faults)
        self._add(f"out {name}", Capacity(bytes_s=endpoint.out_bytes_s), endpoint.faults)
        if endpoint.heads is not None:
            best = max(endpoint.in_bytes_s, endpoint.out_bytes_s)
            self._add(f"disk {name}", Capacity(bytes_s=best, heads=endpoint.heads, thrash=endpoint.thrash), ())

    def _add(self, key: str, capacity: Capacity, troubles: tuple[Fault, ...]) -> None:
        self.capacities[key] = capacity
        if troubles:
            base = capacity.bytes_s
            self.varying[key] = Varying(troubles, lambda now: base * faults.factor(troubles, now))

    def _add_pipe(self, name: str, pipe: Pipe) -> None:
        key = f"pipe {name}"
        self.capacities[key] = Capacity(bytes_s=pipe.bytes_s)
        if pipe.outside:
            self.varying[key] = Varying(
                pipe.outside,
                lambda now: max(pipe.bytes_s - sum(row.bytes_s for row in pipe.outside if row.holds(now)), 0.0),
            )

    def uses(self, source: str, destination: str) -> list[str]:
        """The capacities that a copy goes through."""
        endpoints, link = self._scenario.endpoints, self.links.get((source, destination))
        names = [f"out {source}", f"in {destination}", link_key(source, destination)]
        names += [f"disk {source}", f"disk {destination}"]
        pipes = [*endpoints[source].pipes, *endpoints[destination].pipes, *(link.pipes if link else ())]
        names += [f"pipe {pipe}" for pipe in pipes]
        return sorted({name for name in names if name in self.capacities})

    def stream_bytes_s(self, source: str, destination: str) -> float:
        """Most that one copy gets."""
        link = self.links.get((source, destination))
        limits = [self._scenario.endpoints[source].stream_bytes_s, self._scenario.endpoints[destination].stream_bytes_s]
        limits.append(link.stream_bytes_s if link else None)
        return min((limit for limit in limits if limit is not None), default=math.inf)

    def lane(self, network: Network, source: str, destination: str) -> int:
        """A lane of `network` for this link."""
        return network.lane(self.uses(source, destination), self.stream_bytes_s(source, destination))

    def link_faults(self, source: str, destination: str) -> tuple[Fault, ...]:
        """What goes wrong on the way."""
        link = self.links.get((source, destination))
        return link.faults if link else ()

    def endpoint_faults(self, host: str) -> tuple[Fault, ...]:
        """What goes wrong at a storage."""
        return self._scenario.endpoints[host].faults

    def next_change(self, now: float) -> float:
        """The first instant after `now` at which a capacity changes."""
        return min((faults.next_change(row.windows, now) for row in self.varying.values()), default=math.inf)

    def dead(self, source: str, destination: str, now: float) -> str | None:
        """Which part of the way is dead now, if any: `source`, `destination` or `link`."""
        mortal = self._mortal.get((source, destination))
        if mortal is None:
            mortal = self._mortal[source, destination] = self._mortal_of(source, destination)
        for part, deaths in mortal:
            if any(fault.holds(now) for fault in deaths):
                return part
        return None

    def _mortal_of(self, source: str, destination: str) -> tuple[tuple[str, tuple[Dead, ...]], ...]:
        parts = (
            ("destination", self.endpoint_faults(destination)),
            ("source", self.endpoint_faults(source)),
            ("link", self.link_faults(source, destination)),
        )
        found = ((part, tuple(fault for fault in row if isinstance(fault, Dead))) for part, row in parts)
        return tuple((part, deaths) for part, deaths in found if deaths)
