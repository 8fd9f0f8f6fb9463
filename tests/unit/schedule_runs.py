"""A scheduler in a steady state: what starts ends after a while, and something else takes its place."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transfer_engine import schedule
from transfer_engine.config import Limits, Shares
from transfer_engine.limits import LimitTable
from transfer_engine.model import Queue
from transfer_engine.shares import ShareTable

ENDLESS = 10**9
Duration = Callable[[Queue, random.Random], float]


def ten_seconds(queue: Queue, rng: random.Random) -> float:
    """All alike, but no two end at once."""
    del queue
    return 10.0 + rng.random() / 100


def by_chance(queue: Queue, rng: random.Random) -> float:
    """Without memory."""
    del queue
    return rng.expovariate(0.1)


@dataclass(frozen=True, slots=True)
class Started:
    """One start."""

    at: float
    queue: Queue
    priority: int


class Run:
    """Backlogs, and transfers that end one after the other."""

    def __init__(
        self,
        limits: Limits,
        shares: Shares | None = None,
        *,
        duration: Duration = ten_seconds,
        seed: int = 0,
    ) -> None:
        self.scheduler: Any = schedule.Scheduler(LimitTable.of(limits), ShareTable.of(shares or Shares()))
        self.rng = random.Random(seed)
        self.duration = duration
        self.now = 0.0
        self.ends: list[tuple[float, int, Queue, int, float]] = []
        self.starts: list[Started] = []
        self.slot_s: defaultdict[str, float] = defaultdict(float)
        """`VO`, `VO/activity`, `source>destination` → slot-seconds so far."""
        self.held: Counter[str] = Counter()

    def backlog(self, queue: Queue, priority: int = 3, n: int = ENDLESS) -> None:
        """Submit."""
        self.scheduler.ready(queue, priority, n, 0, self.now)

    def decide(self) -> None:
        """Start all that can be started."""
        while starts := self.scheduler.decide(self.now):
            for start in starts:
                queue, priority = start.lane.queue, start.lane.priority
                for _ in range(start.n):
                    self.starts.append(Started(self.now, queue, priority))
                    end = self.now + self.duration(queue, self.rng)
                    heapq.heappush(self.ends, (end, len(self.starts), queue, priority, self.now))
                    self.held.update(names(queue))

    def end(self) -> Queue:
        """The next transfer ends."""
        at, _, queue, priority, since = heapq.heappop(self.ends)
        for name, n in self.held.items():
            self.slot_s[name] += n * (at - self.now)
        self.now = at
        self.held.subtract(names(queue))
        self.scheduler.learn(queue, at - since, 0.0)
        self.scheduler.release(queue, priority, at)
        return queue

    def go(self, n_ends: int) -> Counter[str]:
        """Let so many end. Returns: starts meanwhile, by VO, `VO/activity` and `source>destination`."""
        n = len(self.starts)
        self.decide()
        for _ in range(n_ends):
            if not self.ends:
                break
            self.end()
            self.decide()
        return Counter(name for start in self.starts[n:] for name in names(start.queue))


def names(queue: Queue) -> tuple[str, ...]:
    """What a transfer is counted by."""
    return queue.vo, f"{queue.vo}/{queue.activity}", f"{queue.source_se}>{queue.dest_se}"


def off(got: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """By how much the worst of those with these weights is off its part of what all of them got."""
    total = sum(got[name] for name in weights)
    all_of_them = sum(weights.values())
    return max(abs(got[name] - total * weight / all_of_them) for name, weight in weights.items())


def jain(got: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Jain's index of what was got for its weight: 1 is fair."""
    each = [got[name] / weight for name, weight in weights.items()]
    return sum(each) ** 2 / (len(each) * sum(x * x for x in each))
