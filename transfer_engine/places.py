"""Where transfers run: links, and everything that is limited, with what bounds it. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from transfer_engine.reasons import Reason


class Link(NamedTuple):
    """An ordered pair of endpoints (`scheme://host`, lower-case, no port)."""

    source_se: str
    dest_se: str

    def __str__(self) -> str:
        return f"{self.source_se} → {self.dest_se}"


class Place(NamedTuple):
    """Something that transfers take up room in while they run."""

    kind: str
    """`in`, `out` (an endpoint's directions), `link`, `vo-in`, `vo-out` (a VO on an endpoint), `size`, `node`."""
    name: str
    """The endpoint; of a link its source; empty for the node."""
    other: str = ""
    """Of a link its destination; the VO of `vo-in` and `vo-out`; the class of sizes (`sizes`) into an endpoint."""

    def __str__(self) -> str:
        match self.kind:
            case "in" | "out":
                return f"{'into' if self.kind == 'in' else 'out of'} {self.name}"
            case "link":
                return f"{self.name} → {self.other}"
            case "size":
                return f"large files (class {self.other}) into {self.name}"
            case "vo-in" | "vo-out":
                return f"{self.other} {'into' if self.kind == 'vo-in' else 'out of'} {self.name}"
            case _:
                return "this node"


@dataclass(frozen=True, slots=True)
class Cap:
    """Somebody beside the configuration who bounds what may run in a place: breaker, ban, optimizer, drain."""

    limit: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """An operator's order to leave a storage alone, in both directions."""

    endpoint: str
    """`scheme://host`, lower-case."""
    vo: str | None
    """Only for transfers of this VO; None: for everybody."""
    cancel: bool
    """Waiting transfers are cancelled; False: they wait for the end of the ban."""
    allow_submit: bool
    """New transfers may be submitted meanwhile, and wait; only without `cancel`."""
    until: float | None
    """Instant at which it ends by itself; None: when it is lifted."""
    message: str
    by: str
    """Who ordered it."""
    since: float
