"""What really happened, as the storages saw it: counters, concurrency at every event, and a digest of it all."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import xxhash

from transfer_engine.limits import LimitTable
from transfer_engine.places import Link, Place
from transfer_engine.simulation.arrivals import Stream
from transfer_engine.simulation.namespace import SimPath, endpoint

Sharer = tuple[str, str, str]
"""(destination host, VO, activity)"""
OnTrace = Callable[[str], None]
"""Told one line for each event."""

OnCopied = Callable[[float, SimPath, str], None]
"""Told of each success: when the file was submitted, the file at its source, the destination."""

_STEP: Final = math.log(1.02)


class Waits:
    """Durations, kept as counts in steps of 2 %: any number of them costs the same memory."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.n = 0
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        """Take in one."""
        self._counts[math.ceil(math.log(max(seconds, 1e-3)) / _STEP)] += 1
        self.n += 1
        self.longest_s = max(self.longest_s, seconds)

    def percentile(self, part: float) -> float:
        """The shortest duration that at least `part` of all do not exceed; 0 without any."""
        left = part * self.n
        for step, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return min(math.exp(step * _STEP), self.longest_s)
        return self.longest_s


@dataclass(slots=True)
class Service:
    """What one sharer got."""

    running: int = 0
    slot_s: float = 0.0
    """Integral of `running` until `at`."""
    at: float = 0.0
    n_bytes: int = 0
    n_files: int = 0

    def change(self, n: int, now: float) -> None:
        """Count a copy in or out."""
        self.slot_s += self.running * (now - self.at)
        self.at = now
        self.running += n

    def slot_s_at(self, now: float) -> float:
        """Slot-seconds until `now`."""
        return self.slot_s + self.running * (now - self.at)


@dataclass(slots=True)
class Oracle:
    """One run's record."""

    streams: Sequence[Stream]
    limits: LimitTable
    on_trace: OnTrace | None = None
    on_copied: OnCopied | None = None
    counts: Counter[str] = field(default_factory=Counter)
    """How often each thing happened."""
    inbound: Counter[str] = field(default_factory=Counter)
    outbound: Counter[str] = field(default_factory=Counter)
    links: Counter[tuple[str, str]] = field(default_factory=Counter)
    total: int = 0
    of_vos: Counter[Place] = field(default_factory=Counter)
    """Of VOs on endpoints where these are limited."""
    most: Counter[str] = field(default_factory=Counter)
    """Highest concurrency seen, by `in NAME`, `out NAME`, `SOURCE > DESTINATION`, `all`."""
    overshoot: int = 0
    """Largest number of copies beyond a limit at any event; 0: none was ever exceeded."""
    link_bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of finished copies."""
    link_files: Counter[tuple[str, str]] = field(default_factory=Counter)
    services: dict[Sharer, Service] = field(default_factory=dict)
    waits: dict[tuple[str, str], Waits] = field(default_factory=dict)
    """(VO, activity) → time from submission to the first copy."""
    untried: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Sharer, and (destination, VO) → files whose first copy has not begun."""
    emptied: set[tuple[str, ...]] = field(default_factory=set)
    """Those of whom everything was begun at some moment since this was last cleared."""
    last_end_s: float = 0.0
    closed: bool = False
    """The run is over: what happens while the engine ends is no part of it."""
    _digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)
    _by_name: dict[str, Stream] = field(default_factory=dict)
    _arrivals: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    """Stream → numbers of the first files of its arrivals, and their instants."""
    _sides: dict[tuple[str, str], tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """Link → names of the places that its copies take up, and their limits."""

    def __post_init__(self) -> None:
        self._by_name = {stream.name: stream for stream in self.streams}

    def trace(self, now: float, what: str, url: str) -> None:
        """Add one event to the digest."""
        if self.closed:
            return
        line = f"{now:.6f} {what} {url}\n"
        self._digest.update(line.encode())
        self.counts[what] += 1
        if self.on_trace is not None:
            self.on_trace(line)

    def count(self, what: str) -> None:
        """Count an event that is no part of the digest."""
        if not self.closed:
            self.counts[what] += 1

    def hash(self) -> str:
        """A digest of every event so far with its time, in order: equal for equal runs."""
        return self._digest.hexdigest()

    def sharer(self, stream_name: str, destination: str) -> Sharer:
        """Who wants the files of this stream there."""
        stream = self._by_name[stream_name]
        return destination, stream.vo, stream.activity

    def service(self, source: SimPath, destination: str) -> Service:
        """The account of whoever wanted this file there."""
        key = self.sharer(source.stream, destination)
        found = self.services.get(key)
        if found is None:
            found = self.services[key] = Service()
        return found

    def arrived(self, stream_name: str, first: int, now: float, destinations: Iterable[str]) -> None:
        """Files of a stream were submitted, the first with this number; `destinations` one for each."""
        for destination in destinations:
            key = self.sharer(stream_name, destination)
            self.untried[key] += 1
            self.untried[key[:2]] += 1
        firsts, instants = self._arrivals.setdefault(stream_name, ([], []))
        firsts.append(first)
        instants.append(now)

    def started(self, source: SimPath, destination: str, now: float) -> None:
        """A storage has taken a copy in hand."""
        if self.closed:
            return
        self._count(source.host, destination, 1)
        if self.limits.vos:
            self._count_vo(source, destination, 1)
        self.service(source, destination).change(1, now)
        self._check(source.host, destination)

    def stopped(self, source: SimPath, destination: str, now: float) -> None:
        """It has let go of it, whatever became of it."""
        if self.closed:
            return
        self._count(source.host, destination, -1)
        if self.limits.vos:
            self._count_vo(source, destination, -1)
        self.service(source, destination).change(-1, now)

    def copied(self, source: SimPath, destination: str, now: float) -> None:
        """A copy has succeeded."""
        if self.closed:
            return
        service = self.service(source, destination)
        service.n_bytes += source.size_bytes
        service.n_files += 1
        link = (source.host, destination)
        self.link_bytes[link] += source.size_bytes
        self.link_files[link] += 1
        self.last_end_s = now
        if self.on_copied is not None:
            self.on_copied(self._submitted_at(source), source, destination)

    def _submitted_at(self, source: SimPath) -> float:
        firsts, instants = self._arrivals[source.stream]
        return instants[bisect_right(firsts, source.number) - 1]

    def waited(self, source: SimPath, destination: str, now: float) -> None:
        """The first copy of a file begins."""
        if self.closed:
            return
        sharer = self.sharer(source.stream, destination)
        for key in (sharer, sharer[:2]):
            self.untried[key] -= 1
            if not self.untried[key]:
                self.emptied.add(key)
        stream = self._by_name[source.stream]
        self.waits.setdefault((stream.vo, stream.activity), Waits()).add(now - self._submitted_at(source))

    def slots(self, active: Mapping[Link, int]) -> None:
        """What the engine itself counts, at one instant: it holds slots longer than storages are busy."""
        inbound: Counter[str] = Counter()
        outbound: Counter[str] = Counter()
        for link, n in active.items():
            inbound[link.dest_se] += n
            outbound[link.source_se] += n
            self.overshoot = max(self.overshoot, n - self.limits.of_link(link))
        for se, n in inbound.items():
            self.overshoot = max(self.overshoot, n - self.limits.of_inbound(se))
        for se, n in outbound.items():
            self.overshoot = max(self.overshoot, n - self.limits.of_outbound(se))
        self.overshoot = max(self.overshoot, sum(active.values()) - self.limits.node)

    def _count(self, source: str, destination: str, n: int) -> None:
        self.total += n
        self.inbound[destination] += n
        self.outbound[source] += n
        self.links[source, destination] += n

    def _count_vo(self, source: SimPath, destination: str, n: int) -> None:
        vo = self._by_name[source.stream].vo
        for place in (Place("vo-out", endpoint(source.host), vo), Place("vo-in", endpoint(destination), vo)):
            self.of_vos[place] += n
            self.overshoot = max(self.overshoot, self.of_vos[place] - self.limits.at(place))

    def _check(self, source: str, destination: str) -> None:
        names_limits = self._sides.get((source, destination))
        if names_limits is None:
            names_limits = self._sides[source, destination] = self._sides_of(source, destination)
        numbers = (self.inbound[destination], self.outbound[source], self.links[source, destination], self.total)
        for (name, limit), n in zip(names_limits, numbers, strict=True):
            if n > self.most[name]:
                self.most[name] = n
                self.overshoot = max(self.overshoot, n - limit)

    def _sides_of(self, source: str, destination: str) -> tuple[tuple[str, int], ...]:
        out, into = endpoint(source), endpoint(destination)
        return (
            (f"in {destination}", self.limits.of_inbound(into)),
            (f"out {source}", self.limits.of_outbound(out)),
            (f"{source} > {destination}", self.limits.of_link(Link(out, into))),
            ("all", self.limits.node),
        )
