"""How near to their shares those got who wanted more. Pure.

Shares are claims on a destination while others want it too. A window counts for those who had work
waiting for the destination at each look during it, on a link that neither its own limit nor its source's
held back: somebody who could not have used a larger share has not been treated unfairly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from transfer_engine.limits import LimitTable
from transfer_engine.model import Link
from transfer_engine.shares import ShareTable
from transfer_engine.simulation.oracle import Service, Sharer


K = TypeVar("K", bound=Any)


def jain(values: Collection[float]) -> float:
    """Jain's index of some service per weight: 1 when all are equal, 1/n when one has everything."""
    total, squares = sum(values), sum(value * value for value in values)
    return total * total / (len(values) * squares) if squares else 1.0


@dataclass(slots=True)
class Index:
    """Jain's index over all windows."""

    n_windows: int = 0
    lowest: float = 1.0
    total: float = 0.0
    worst: str = ""
    """Where and when the lowest was."""

    def add(self, value: float, where: str) -> None:
        """Take in one window."""
        self.n_windows += 1
        self.total += value
        if value < self.lowest:
            self.lowest, self.worst = value, where

    @property
    def mean(self) -> float:
        """Over the windows."""
        return self.total / self.n_windows if self.n_windows else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The engine's state at one instant."""

    now: float
    backlog: Mapping[tuple[Link, str, str], int]
    """(link, VO, activity) → ready transfers."""
    active: Mapping[Link, int]
    services: Mapping[Sharer, Service]


@dataclass(slots=True)
class _Account:
    slot_s: float
    n_bytes: int


@dataclass(slots=True)
class Fairness:
    """Follows a run from look to look."""

    shares: ShareTable
    limits: LimitTable
    window_s: float
    vos: Index = field(default_factory=Index)
    """Of slot-seconds per weight, between the VOs at a destination."""
    activities: Index = field(default_factory=Index)
    """The same between the activities of a VO at a destination."""
    vo_bytes: Index = field(default_factory=Index)
    """Of bytes instead of slot-seconds."""
    deviation: float = 0.0
    """Most that a VO's running transfers differed from its share of those of all VOs with backlog."""
    _began_s: float | None = None
    _hungry: set[Sharer] = field(default_factory=set)
    _before: dict[Sharer, _Account] = field(default_factory=dict)

    def look(self, look: Look) -> None:
        """Take in one instant; the window ends with it when it is over."""
        hungry = self._hungry_now(look)
        self._deviate(look, hungry)
        if self._began_s is None:
            self._begin(look, hungry)
            return
        self._hungry &= hungry
        if look.now - self._began_s >= self.window_s * (1 - 1e-9):
            self._close(look)
            self._begin(look, hungry)

    def _begin(self, look: Look, hungry: set[Sharer]) -> None:
        self._began_s = look.now
        self._hungry = hungry
        self._before = {
            key: _Account(service.slot_s_at(look.now), service.n_bytes) for key, service in look.services.items()
        }

    def _hungry_now(self, look: Look) -> set[Sharer]:
        outbound: dict[str, int] = {}
        for link, n in look.active.items():
            outbound[link.source_se] = outbound.get(link.source_se, 0) + n
        found: set[Sharer] = set()
        for (link, vo, activity), ready in look.backlog.items():
            free = outbound.get(link.source_se, 0) < self.limits.of_outbound(link.source_se)
            if ready and free and look.active.get(link, 0) < self._link_limit(link):
                found.add((link.dest_se.partition("://")[2], vo, activity))
        return found

    def _link_limit(self, link: Link) -> int:
        # A link that may fill its destination alone holds nobody back when it does.
        limit = self.limits.of_link(link)
        return limit if limit < self.limits.of_inbound(link.dest_se) else 1 << 62

    def _deviate(self, look: Look, hungry: set[Sharer]) -> None:
        for _, vos in _grouped((host, vo) for host, vo, _ in hungry):
            if len(vos) > 1:
                host = vos[0][0]
                running = {
                    vo: sum(s.running for key, s in look.services.items() if key[:2] == (host, vo)) for _, vo in vos
                }
                weights = {vo: self.shares.of_vo(vo) for vo in running}
                total, weight = sum(running.values()), sum(weights.values())
                worst = max(abs(running[vo] - total * weights[vo] / weight) for vo in running)
                self.deviation = max(self.deviation, worst)

    def _close(self, look: Look) -> None:
        for host, vos in _grouped((host, vo) for host, vo, _ in self._hungry):
            if len(vos) > 1:
                got = [self._got(look, [key for key in look.services if key[:2] == pair]) for pair in vos]
                weights = [self.shares.of_vo(vo) for _, vo in vos]
                where = f"{host} from {self._began_s:.0f} s: {', '.join(vo for _, vo in vos)}"
                self.vos.add(jain([g.slot_s / w for g, w in zip(got, weights, strict=True)]), where)
                self.vo_bytes.add(jain([g.n_bytes / w for g, w in zip(got, weights, strict=True)]), where)
        for (host, vo), keys in _grouped(((host, vo), activity) for host, vo, activity in self._hungry):
            if len(keys) > 1:
                slots = [
                    self._got(look, [(host, vo, activity)]).slot_s / self.shares.of_activity(vo, activity)
                    for _, activity in keys
                ]
                where = f"{host} from {self._began_s:.0f} s, {vo}: {', '.join(activity for _, activity in keys)}"
                self.activities.add(jain(slots), where)

    def _got(self, look: Look, keys: Iterable[Sharer]) -> _Account:
        slot_s, n_bytes = 0.0, 0
        for key in keys:
            service = look.services.get(key)
            if service is not None:
                before = self._before.get(key, _Account(0.0, 0))
                slot_s += service.slot_s_at(look.now) - before.slot_s
                n_bytes += service.n_bytes - before.n_bytes
        return _Account(slot_s, n_bytes)


def _grouped(pairs: Iterable[tuple[K, str]]) -> list[tuple[K, list[tuple[K, str]]]]:
    """Distinct pairs by their first part, everything in order."""
    found: dict[K, list[tuple[K, str]]] = {}
    for pair in sorted(set(pairs)):
        found.setdefault(pair[0], []).append(pair)
    return list(found.items())
