"""How bandwidth divides among flows that compete for it. Pure.

Long-lived TCP flows with equal round-trip times share bottlenecks roughly max-min fairly: no flow can
get more without another one that has no more getting less. The allocation is found by progressive
filling (Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2): all rates rise together, and
whoever meets a full capacity, or its own limit, stays where it is.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

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


def share(groups: Sequence[Group], capacities: Sequence[float]) -> list[float]:
    """The max-min fair rate of one flow of each group, bytes per second.

    Cost: O(m log m) for m uses of capacities by groups, whatever the number of flows.
    """
    filling = _Filling(groups, capacities)
    heap = filling.levels()
    while heap:
        level, is_limit, index = heapq.heappop(heap)
        if is_limit:
            filling.fix(index, level)
            continue
        weight = filling.weight[index]
        if not weight:
            continue
        current = filling.left[index] / weight
        if current > level * (1 + 1e-12):
            # Others were fixed below their part of it: it fills later than thought.
            heapq.heappush(heap, (current, False, index))
            continue
        for group in filling.users[index]:
            filling.fix(group, level)
    return filling.rates


class _Filling:
    """What is fixed so far."""

    def __init__(self, groups: Sequence[Group], capacities: Sequence[float]) -> None:
        self.groups = groups
        self.left = list(capacities)
        self.weight = [0] * len(capacities)
        self.users: list[list[int]] = [[] for _ in capacities]
        self.rates = [math.inf] * len(groups)
        self._open = [True] * len(groups)
        for index, group in enumerate(groups):
            for capacity in group.capacities:
                self.weight[capacity] += group.n
                self.users[capacity].append(index)

    def levels(self) -> list[tuple[float, bool, int]]:
        """Where each capacity and each limit would stop the filling, as a heap."""
        heap = [(self.left[c] / weight, False, c) for c, weight in enumerate(self.weight) if weight]
        heap += [
            (group.limit_bytes_s, True, i) for i, group in enumerate(self.groups) if group.limit_bytes_s < math.inf
        ]
        heapq.heapify(heap)
        return heap

    def fix(self, index: int, level: float) -> None:
        if not self._open[index]:
            return
        self._open[index] = False
        self.rates[index] = level
        n, used, _ = self.groups[index]
        taken = n * level
        for capacity in used:
            self.weight[capacity] -= n
            self.left[capacity] = max(self.left[capacity] - taken, 0.0)
