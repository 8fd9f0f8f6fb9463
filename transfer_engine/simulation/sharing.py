"""How bandwidth divides among flows that compete for it. Pure.

Long-lived TCP flows with equal round-trip times share bottlenecks roughly max-min fairly: no flow can
get more without another one that has no more getting less. The allocation is found by progressive
filling (Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2): all rates rise together, and
whoever meets a full capacity, or its own limit, stays where it is.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, NamedTuple

Flows = tuple[int, tuple[int, ...], float]
"""A `Group` without its name, for those who make many."""

ROUNDING: Final = 1e-9
"""Relative difference that counts as none."""


class Group(NamedTuple):
    """Flows that use the same capacities and hence get the same rate."""

    n: int
    """How many flows, at least 1."""
    capacities: tuple[int, ...]
    """Indices of the capacities that each of them uses; none twice."""
    limit_bytes_s: float = math.inf
    """Most that one flow can take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """A pipe, or one direction of a storage, or a storage's disks."""

    bytes_s: float
    heads: int | None = None
    """Streams that it serves without seeking; None: any number."""
    thrash: float = 0.0
    """How much it loses beyond: with twice as many streams as heads, `bytes_s / (1 + thrash)` is left."""

    def goodput(self, n_flows: int) -> float:
        """Bytes per second in all with `n_flows` streams.

        With h heads: `bytes_s · n/h` up to h streams, and `bytes_s / (1 + thrash · (n/h - 1))` beyond. Each
        head delivers its part; more streams than heads make them seek, in proportion to the excess.
        """
        if self.heads is None or not n_flows:
            return self.bytes_s
        if n_flows <= self.heads:
            return self.bytes_s * n_flows / self.heads
        return self.bytes_s / (1 + self.thrash * (n_flows / self.heads - 1))


def share(groups: Sequence[Group | Flows], capacities: Sequence[float]) -> list[float]:
    """The max-min fair rate of one flow of each group, bytes per second.

    Cost: O(m log m) for m uses of capacities by groups, whatever the number of flows.
    """
    left, weight = list(capacities), [0] * len(capacities)
    users: list[list[int]] = [[] for _ in capacities]
    for index, (n, used, _) in enumerate(groups):
        for capacity in used:
            weight[capacity] += n
            users[capacity].append(index)
    filling = _Filling(groups, left, weight)
    limits = sorted([(limit, index) for index, (_, _, limit) in enumerate(groups) if limit < math.inf])
    heap = [(left[c] / n, c) for c, n in enumerate(weight) if n]
    heapq.heapify(heap)
    met = 0
    while heap and filling.n_open:
        level, capacity = heap[0]
        reached = met
        while reached < len(limits) and limits[reached][0] < level:
            reached += 1
        if reached > met:
            filling.fix(limits[met:reached])
            met = reached
        heapq.heappop(heap)
        if not weight[capacity]:
            continue
        current = left[capacity] / weight[capacity]
        if current > level * (1 + 1e-12):
            # Others were fixed below their part of it: it fills later than thought.
            heapq.heappush(heap, (current, capacity))
            continue
        filling.fix(zip(repeat(level), users[capacity]))
    filling.fix(limits[met:])
    return filling.rates


class _Filling:
    """What is fixed so far."""

    def __init__(self, groups: Sequence[Group | Flows], left: list[float], weight: list[int]) -> None:
        """Args: left, weight: of each capacity, what nobody has yet, and how many flows want it; both change."""
        self.rates = [math.inf] * len(groups)
        self._open = [True] * len(groups)
        self.n_open = len(groups)
        """Groups that are not fixed."""
        self._groups = groups
        self._left = left
        self._weight = weight

    def fix(self, rows: Iterable[tuple[float, int]]) -> None:
        """Groups stay at these levels, unless they were fixed before. Args: rows: (level, group)."""
        groups, is_open, left, weight, rates = self._groups, self._open, self._left, self._weight, self.rates
        for level, index in rows:
            if not is_open[index]:
                continue
            is_open[index] = False
            self.n_open -= 1
            rates[index] = level
            n, used, _ = groups[index]
            taken = n * level
            for capacity in used:
                weight[capacity] -= n
                rest = left[capacity] - taken
                left[capacity] = rest if rest > 0.0 else 0.0  # noqa: FURB136 - the innermost loop: a call is dear
