"""How near to their shares those got who wanted more. Pure.

Shares are claims on a destination while others want it too; who is kept back by a limit of its own VO, and destinations
with shares for single links, are not compared. A window counts for those who had work
waiting for the destination at each look during it, and at no moment nothing left to begin. Those who wait
for different sources are compared only while neither their link's limit nor their source's holds them back:
somebody who could not have used a larger share has not been treated unfairly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from transfer_engine.limits import UNLIMITED, LimitTable
from transfer_engine.places import Link, Place
from transfer_engine.shares import ShareTable
from transfer_engine.simulation.namespace import endpoint
from transfer_engine.simulation.oracle import Service, Sharer

FINE: Final = 10
"""A window says something of those whose share of it is at least so many transfers: rounding is 1 % then."""


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


@dataclass(frozen=True, slots=True)
class Account:
    """Service so far."""

    slot_s: float
    n_bytes: float
    n_files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The engine's state at one instant."""

    now: float
    backlog: Mapping[tuple[Link, str, str], int]
    """(link, VO, activity) → ready transfers."""
    active: Mapping[Link, int]
    services: Mapping[Sharer, Service]
    moving: Mapping[Sharer, float]
    """Bytes that unfinished copies have moved so far."""
    limits: Mapping[Place, int] = field(default_factory=dict)
    """What bounds places now where it is less than the configuration: breakers, the optimizer."""
    emptied: frozenset[tuple[str, ...]] = frozenset()
    """Sharers, and (destination, VO), that had nothing left to begin at some moment since the last look."""

    def account(self, key: Sharer) -> Account:
        """What a sharer has got until now."""
        service = self.services.get(key)
        if service is None:
            return Account(0.0, 0.0)
        n_bytes = service.n_bytes + self.moving.get(key, 0.0)
        return Account(service.slot_s_at(self.now), n_bytes, service.n_files)


@dataclass(frozen=True, slots=True)
class _Hunger:
    """Somebody for whom work waits."""

    sources: frozenset[str]
    free: bool
    """Some of it waits on a link that could take more."""

    def both(self, other: _Hunger) -> _Hunger:
        """Over two looks."""
        return _Hunger(self.sources | other.sources, self.free and other.free)


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
    """Most that a VO's running transfers differed from its share of those of all VOs that are compared."""
    deviation_allowed: int | None = None
    """Those who were compared there, and the active limit of the destination; None: nobody was."""
    _began_s: float | None = None
    _hungry: dict[Sharer, _Hunger] = field(default_factory=dict)
    _emptied: set[tuple[str, ...]] = field(default_factory=set)
    _before: dict[Sharer, Account] = field(default_factory=dict)

    def look(self, look: Look) -> None:
        """Take in one instant; the window ends with it when it is over."""
        hungry = self._hungry_now(look)
        if self._began_s is None:
            self._begin(look, hungry)
            return
        self._emptied |= look.emptied
        self._hungry = {key: row.both(hungry[key]) for key, row in self._hungry.items() if key in hungry}
        self._deviate(look)
        if look.now - self._began_s >= self.window_s * (1 - 1e-9):
            self._close(look)
            self._begin(look, hungry)

    def _begin(self, look: Look, hungry: dict[Sharer, _Hunger]) -> None:
        self._began_s = look.now
        self._hungry = hungry
        self._emptied = set()
        self._before = {key: look.account(key) for key in look.services}

    def _hungry_now(self, look: Look) -> dict[Sharer, _Hunger]:
        outbound: dict[str, int] = {}
        for link, n in look.active.items():
            outbound[link.source_se] = outbound.get(link.source_se, 0) + n
        found: dict[Sharer, _Hunger] = {}
        for (link, vo, activity), ready in look.backlog.items():
            if not ready or self._is_own_business(look, link, vo):
                continue
            out, own = Place("out", link.source_se), Place("link", link.source_se, link.dest_se)
            out_limit = min(self.limits.at(out), look.limits.get(out, UNLIMITED))
            free = outbound.get(link.source_se, 0) < out_limit
            free = free and look.active.get(link, 0) < min(self._link_limit(link), look.limits.get(own, UNLIMITED))
            key = (link.dest_se.partition("://")[2], vo, activity)
            before = found.get(key)
            sources = frozenset({link.source_se}) | (before.sources if before else frozenset())
            found[key] = _Hunger(sources, free or (before is not None and before.free))
        return found

    def _is_own_business(self, look: Look, link: Link, vo: str) -> bool:
        """Whether a limit of the VO itself keeps it back, or the link has shares of its own."""
        if any(source != "*" and dest == link.dest_se for source, dest in self.shares.links):
            return True
        if not self.limits.vos:
            return False
        host = link.dest_se.partition("://")[2]
        running = sum(service.running for key, service in look.services.items() if key[:2] == (host, vo))
        limit = self.limits.at(Place("vo-in", link.dest_se, vo))
        return running >= limit or Place("vo-out", link.source_se, vo) in self.limits.vos

    def _link_limit(self, link: Link) -> int:
        # A link that may fill its destination alone holds nobody back when it does.
        limit = self.limits.of_link(link)
        return limit if limit < self.limits.of_inbound(link.dest_se) else 1 << 62

    def _vos(self) -> list[tuple[tuple[str, ...], list[str]]]:
        """Destination → the VOs there that have wanted more for the whole window so far."""
        groups: dict[tuple[str, ...], tuple[str, ...]] = {
            key[:2]: key[:1] for key in self._hungry if key[:2] not in self._emptied
        }
        return _comparable(groups, _by_vo(self._hungry))

    def _weight(self, host: str, vo: str) -> float:
        return self.shares.of_vo(vo, self.shares.group("*", endpoint(host)))

    def _deviate(self, look: Look) -> None:
        for (host,), vos in self._vos():
            running = {vo: sum(s.running for key, s in look.services.items() if key[:2] == (host, vo)) for vo in vos}
            total, weight = sum(running.values()), sum(self._weight(host, vo) for vo in vos)
            worst = max(abs(n - total * self._weight(host, vo) / weight) for vo, n in running.items())
            if worst > self.deviation:
                self.deviation = worst
                self.deviation_allowed = len(vos) + self.limits.of_inbound(endpoint(host))

    def _close(self, look: Look) -> None:
        hungry = {key: row for key, row in self._hungry.items() if key not in self._emptied}
        for (host,), vos in self._vos():
            got = [(self._got(look, [k for k in look.services if k[:2] == (host, vo)]), vo) for vo in vos]
            where = f"{host} from {self._began_s:.0f} s: {', '.join(vos)}"
            if _is_coarse([(account, self._weight(host, vo)) for account, vo in got]):
                continue
            self.vos.add(jain([account.slot_s / self._weight(host, vo) for account, vo in got]), where)
            self.vo_bytes.add(jain([account.n_bytes / self._weight(host, vo) for account, vo in got]), where)
        for (host, vo), activities in _comparable({key: key[:2] for key in hungry}, dict(hungry.items())):
            shared = [(self._got(look, [(host, vo, name)]), self.shares.of_activity(vo, name)) for name in activities]
            if _is_coarse(shared):
                continue
            slots = [account.slot_s / weight for account, weight in shared]
            self.activities.add(jain(slots), f"{host} from {self._began_s:.0f} s, {vo}: {', '.join(activities)}")

    def _got(self, look: Look, keys: Iterable[Sharer]) -> Account:
        slot_s, n_bytes, n_files = 0.0, 0.0, 0
        for key in keys:
            now, before = look.account(key), self._before.get(key, Account(0.0, 0.0))
            slot_s += now.slot_s - before.slot_s
            n_bytes += now.n_bytes - before.n_bytes
            n_files += now.n_files - before.n_files
        return Account(slot_s, n_bytes, n_files)


def _is_coarse(shared: Collection[tuple[Account, float]]) -> bool:
    """Whether somebody's share of the window is less than a few transfers: then it cannot be met exactly."""
    slot_s, weights = sum(account.slot_s for account, _ in shared), sum(weight for _, weight in shared)
    usual_s = slot_s / max(sum(account.n_files for account, _ in shared), 1)
    for account, weight in shared:
        # Who finished nothing is taken for one with files like the others'.
        own_s = max(account.slot_s / account.n_files if account.n_files else usual_s, 1e-9)
        if slot_s * weight / weights < FINE * own_s:
            return True
    return False


def _by_vo(hungry: Mapping[Sharer, _Hunger]) -> dict[tuple[str, ...], _Hunger]:
    """(destination, VO) → all that its activities wait for."""
    found: dict[tuple[str, ...], _Hunger] = {}
    for (host, vo, _), row in hungry.items():
        before = found.get((host, vo))
        sources = row.sources | (before.sources if before else frozenset())
        found[host, vo] = _Hunger(sources, row.free or (before is not None and before.free))
    return found


def _comparable(
    groups: Mapping[tuple[str, ...], tuple[str, ...]], hungry: Mapping[tuple[str, ...], _Hunger]
) -> list[tuple[tuple[str, ...], list[str]]]:
    """Those of each group who could have had the place of one another, where there are at least two."""
    members: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key in sorted(groups):
        members.setdefault(groups[key], []).append(key)
    found = []
    for group, keys in members.items():
        alike = len({hungry[key].sources for key in keys}) == 1
        names = [key[-1] for key in keys if alike or hungry[key].free]
        if len(names) > 1:
            found.append((group, names))
    return found
