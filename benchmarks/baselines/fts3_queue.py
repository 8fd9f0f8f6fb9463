"""FTS3's queue of one link and VO, and how files are chosen from it. Pure, given chance.

Documented behaviour that is kept:

* the priority that is served is the highest of *all* rows, also of those in their retry delay, which
  are not selected: one such file stops the others of its link and VO until it is due;
* with activity shares each slot is given by a die over the activities with files. Their counts ignore
  the priority, so that a slot may go to an activity that has nothing at the top priority and stay empty;
  the weight of `default` is once in the sum but holds for every activity that is not named;
* files of one activity and priority start in the order of their ids.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Mapping

from benchmarks.baselines.driver import File
from benchmarks.baselines.fifo import Line


class VoQueue:
    """The SUBMITTED rows of one link and VO; of `shares`, `default` is for every activity that is not named."""

    def __init__(self, shares: Mapping[str, float] | None) -> None:
        self._shares = shares
        """Activity → weight; None: the VO has no activity shares."""
        self._lines: dict[tuple[int, str], Line] = {}
        """(priority, activity) → files that may start."""
        self._delayed: list[tuple[float, int, File]] = []
        self._priorities: Counter[int] = Counter()
        self.n_active = 0
        """Rows in state ACTIVE."""

    def __len__(self) -> int:
        return self._priorities.total()

    def add(self, file: File) -> None:
        """A file that may start."""
        self._priorities[file.job.priority] += 1
        self._line(file).add(file)

    def delay(self, file: File, until: float) -> None:
        """A file in its retry delay."""
        self._priorities[file.job.priority] += 1
        heapq.heappush(self._delayed, (until, file.number, file))

    def due(self, now: float) -> list[File]:
        """Those whose delay is over by now: they may start, at their old place."""
        found = []
        while self._delayed and self._delayed[0][0] <= now:
            file = heapq.heappop(self._delayed)[2]
            self._line(file).add(file)
            found.append(file)
        return found

    def _line(self, file: File) -> Line:
        return self._lines.setdefault((file.job.priority, file.activity), Line())

    def pick(self, n_slots: int, rng: random.Random) -> list[File]:
        """Take out at most `n_slots` files to start now."""
        top = max(priority for priority, n in self._priorities.items() if n)
        found: list[File] = []
        if self._shares is None:
            while len(found) < n_slots:
                lines = [line for (priority, _), line in self._lines.items() if priority == top and line]
                if not lines:
                    break
                found.append(min(lines, key=Line.first).take())
        else:
            for activity, n in self._dice(n_slots, self._shares, rng).items():
                line = self._lines.get((top, activity))
                found += [line.take() for _ in range(min(n, len(line)))] if line else []
        self._priorities[top] -= len(found)
        return sorted(found, key=lambda file: file.number)

    def _dice(self, n_slots: int, shares: Mapping[str, float], rng: random.Random) -> Counter[str]:
        left: Counter[str] = Counter()
        for (_, activity), line in sorted(self._lines.items()):
            left[activity] += len(line)
        found: Counter[str] = Counter()
        for _ in range(min(n_slots, left.total())):
            weights = {name: shares.get(name, shares["default"]) for name in sorted(left) if left[name]}
            named = sum(weight for name, weight in weights.items() if name in shares)
            others = shares["default"] if any(name not in shares for name in weights) else 0.0
            number, reached = rng.random() * (named + others), 0.0
            for name, weight in weights.items():
                reached += weight
                if number < reached:
                    found[name] += 1
                    left[name] -= 1
                    break
        return found
