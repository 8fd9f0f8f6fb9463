"""Which limits hold, and how much room they leave. Pure.

A limit counts every transfer from the decision to start it until it is settled, also while a lost
attempt is being looked for: the storage may still be writing.

What bounds a place is the least of the configured limit and the caps that others put on it: a breaker, a
ban, the optimizer, a drain (`rooms.Room`). Bytes per second are limited in a `rooms.Band`: nobody can slow
down a copy between two storages, so each one reserves the rate that copies on its link have been seen to
reach, from the decision to start it until it is settled.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Final

from transfer_engine.config import Limits
from transfer_engine.places import Link, Place

UNLIMITED: Final = 1 << 30
ANY: Final = "*"
"""Every endpoint."""
NODE: Final = Place("node", "")


@dataclass(frozen=True, slots=True)
class LimitTable:
    """The configured limits, looked up by place."""

    inbound_default: int
    outbound_default: int
    link_default: int
    node: int
    inbound: Mapping[str, int]
    outbound: Mapping[str, int]
    links: Mapping[Link, int]
    vos: Mapping[Place, int] = field(default_factory=dict)
    """`vo-in` and `vo-out` places."""
    bands: Mapping[Place, float] = field(default_factory=dict)
    """Bytes per second of `in`, `out` and `link` places."""
    least: Mapping[Place, int] = field(default_factory=dict)
    """Below which the optimizer does not go."""

    # A link's end may be `*`; of the rows that cover a link the most specific one holds.

    @classmethod
    def of(cls, limits: Limits) -> LimitTable:
        """From settings."""
        endpoints = {se.lower(): row for se, row in limits.endpoints.items()}
        links = {Link(row.source.lower(), row.destination.lower()): row for row in limits.links}
        vos: dict[Place, int] = {}
        for row in limits.vos:
            if row.inbound is not None:
                vos[Place("vo-in", row.endpoint.lower(), row.vo)] = row.inbound
            if row.outbound is not None:
                vos[Place("vo-out", row.endpoint.lower(), row.vo)] = row.outbound
        bands: dict[Place, float] = {}
        for se, e in endpoints.items():
            if e.inbound_bytes_s is not None:
                bands[Place("in", se)] = e.inbound_bytes_s
            if e.outbound_bytes_s is not None:
                bands[Place("out", se)] = e.outbound_bytes_s
        for link, with_link in links.items():
            if with_link.bytes_s is not None:
                bands[Place("link", link.source_se, link.dest_se)] = with_link.bytes_s
        least = {Place("in", se): e.inbound_min for se, e in endpoints.items()}
        least |= {Place("out", se): e.outbound_min for se, e in endpoints.items()}
        least |= {Place("link", link.source_se, link.dest_se): row.active_min for link, row in links.items()}
        return cls(
            inbound_default=limits.endpoint_inbound,
            outbound_default=limits.endpoint_outbound,
            link_default=limits.link,
            node=limits.node,
            inbound={se: e.inbound for se, e in endpoints.items() if e.inbound is not None},
            outbound={se: e.outbound for se, e in endpoints.items() if e.outbound is not None},
            links={link: row.active for link, row in links.items() if row.active is not None},
            vos=vos,
            bands=bands,
            least=least,
        )

    def of_inbound(self, se: str) -> int:
        """Most transfers into `se`."""
        return self.inbound.get(se, self.inbound_default)

    def of_outbound(self, se: str) -> int:
        """Most transfers out of `se`."""
        return self.outbound.get(se, self.outbound_default)

    def of_link(self, link: Link) -> int:
        """Most transfers on `link`."""
        return self.links[row] if (row := covering(self.links, link)) else self.link_default

    def least_of(self, place: Place) -> int:
        """Fewest transfers that the optimizer leaves in a place."""
        if place.kind == "link":
            rows = (Place("link", *ends) for ends in _ends(Link(place.name, place.other)))
            return next((self.least[row] for row in rows if row in self.least), 1)
        return self.least.get(place, 1)

    def band(self, place: Place) -> float | None:
        """Most bytes per second of an `in`, `out` or `link` place; None: no limit."""
        found = self.bands.get(place)
        if found is None and place.kind != "link":
            found = self.bands.get(Place(place.kind, ANY))
        return found

    def at(self, place: Place) -> int:
        """Most transfers in a place."""
        match place.kind:
            case "in":
                return self.of_inbound(place.name)
            case "out":
                return self.of_outbound(place.name)
            case "link":
                return self.of_link(Link(place.name, place.other))
            case "node":
                return self.node
            case _:
                return self.vos.get(place, UNLIMITED)


def covering(rows: Container[Link], link: Link) -> Link | None:
    """The most specific of some rows that covers a link: its own, its source's, its destination's, everybody's."""
    return next((row for row in _ends(link) if row in rows), None)


def _ends(link: Link) -> tuple[Link, Link, Link, Link]:
    return link, Link(link.source_se, ANY), Link(ANY, link.dest_se), Link(ANY, ANY)
