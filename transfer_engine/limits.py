"""Which limits hold, and how much room they leave. Pure.

A limit counts every transfer from its claim until it is settled, also while a lost attempt is being
looked for: the storage may still be writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from transfer_engine.config import Limits
from transfer_engine.model import Link

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class LimitTable:
    """The configured limits, looked up by endpoint and link."""

    inbound_default: int
    outbound_default: int
    link_default: int
    node: int
    inbound: Mapping[str, int]
    outbound: Mapping[str, int]
    links: Mapping[Link, int]

    @classmethod
    def of(cls, limits: Limits) -> LimitTable:
        """From settings."""
        endpoints = limits.endpoints.items()
        return cls(
            inbound_default=limits.endpoint_inbound,
            outbound_default=limits.endpoint_outbound,
            link_default=limits.link,
            node=limits.node,
            inbound={se.lower(): e.inbound for se, e in endpoints if e.inbound is not None},
            outbound={se.lower(): e.outbound for se, e in endpoints if e.outbound is not None},
            links={Link(row.source.lower(), row.destination.lower()): row.active for row in limits.links},
        )

    def of_inbound(self, se: str) -> int:
        """Most transfers into `se`."""
        return self.inbound.get(se, self.inbound_default)

    def of_outbound(self, se: str) -> int:
        """Most transfers out of `se`."""
        return self.outbound.get(se, self.outbound_default)

    def of_link(self, link: Link) -> int:
        """Most transfers on `link`."""
        return self.links.get(link, self.link_default)


@dataclass(slots=True)
class Active:
    """How many transfers hold a slot, by everything that is limited."""

    inbound: dict[str, int] = field(default_factory=dict)
    outbound: dict[str, int] = field(default_factory=dict)
    links: dict[Link, int] = field(default_factory=dict)
    vos: dict[tuple[str, str], int] = field(default_factory=dict)
    """By (destination, VO)."""
    activities: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """By (destination, VO, activity)."""
    total: int = 0

    def add(self, link: Link, vo: str, activity: str, n: int) -> None:
        """Take `n` slots of everything at once; give them back when negative."""
        self.total += n
        _bump(self.inbound, link.dest_se, n)
        _bump(self.outbound, link.source_se, n)
        _bump(self.links, link, n)
        _bump(self.vos, (link.dest_se, vo), n)
        _bump(self.activities, (link.dest_se, vo, activity), n)

    def copy(self) -> Active:
        """Counts to decide with, apart from the real ones."""
        return Active(
            dict(self.inbound), dict(self.outbound), dict(self.links), dict(self.vos), dict(self.activities), self.total
        )


def _bump(counts: dict[K, int], key: K, n: int) -> None:
    after = counts.get(key, 0) + n
    if after:
        counts[key] = after
    else:
        counts.pop(key, None)


def room(table: LimitTable, active: Active, link: Link) -> tuple[int, str]:
    """How many more transfers of `link` may start, and which limit says so (`NAME n/limit`)."""
    checks = (
        ("destination inbound", active.inbound.get(link.dest_se, 0), table.of_inbound(link.dest_se)),
        ("source outbound", active.outbound.get(link.source_se, 0), table.of_outbound(link.source_se)),
        ("link", active.links.get(link, 0), table.of_link(link)),
        ("node", active.total, table.node),
    )
    name, used, limit = min(checks, key=lambda check: check[2] - check[1])
    return limit - used, f"{name} limit {used}/{limit}"
