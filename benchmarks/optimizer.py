"""How soon and how well the optimizer finds the concurrency that a storage likes.

The measure is the best fixed limit: for each scenario first come, first served runs with the destination
limited to 1, 2, 3, … transfers, and the best of these goodputs, separately for each phase (before, in and
after a drop of capacity), is what 100 % means. The engine has only the scenario's wide limits.

* *time to 90 %*: from the beginning to the end of the first 15 s in which goodput is at least 90 %;
* *steady*: goodput over 100 % from minute 2 until the drop or the end;
* *recovered*: the same as the first, from the moment the capacity changes;
* *held*: goodput over 100 % from a minute after such a change until the next one or the end.
"""

from __future__ import annotations

import itertools
from copy import deepcopy
from typing import Any, Final

from benchmarks.scheduling_runs import POLICIES, read
from transfer_engine.simulation.faults import Slow
from transfer_engine.simulation.run import simulate
from transfer_engine.simulation.scenario import Scenario, parse

STATIC: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 30, 40, 60, 100)
STATIC_QUICK: Final = (1, 2, 4, 8, 12, 16, 30, 60)
WARM_S: Final = 120.0
AVERAGE_S: Final = 15.0
ENOUGH: Final = 0.9

Points = list[tuple[float, float]]
"""(end of a sample, bytes per second in it)"""


def destination(data: dict[str, Any]) -> str:
    """The storage in question: all files go there."""
    return str(data["streams"][0]["route"]["destinations"][0])


def static(name: str, n: int) -> Points:
    """Goodput with the destination limited to `n`."""
    data = deepcopy(read(name))
    data["limits"].setdefault("endpoints", {})[destination(data)] = {"inbound": n}
    data["limits"]["link"] = n
    return points(parse(data), "fifo")


def ours(name: str, policy: str = "ours") -> Points:
    """Goodput with the scenario's limits."""
    return points(parse(read(name)), policy)


def points(scenario: Scenario, policy: str) -> Points:
    """Goodput at each sample."""
    series = simulate(scenario, build=POLICIES[policy]).series
    rows = [series.rates("goodput_bytes_s", link) for link in series.names("goodput_bytes_s")]
    every = zip(series.at_s, [0.0, *series.at_s], (sum(column) for column in zip(*rows, strict=True)), strict=False)
    # The end of a run may be the instant of its last sample: nothing happens in between.
    return [(at, value) for at, before, value in every if at > before]


def changes(name: str) -> list[float]:
    """When the destination's capacity changes for good or for a while."""
    scenario = parse(read(name))
    found = [
        at
        for row in scenario.endpoints.values()
        for fault in row.faults
        if isinstance(fault, Slow)
        for at in (fault.from_s, fault.to_s)
        if at
    ]
    return sorted(found)


def phases(name: str) -> list[tuple[float, float]]:
    """(from, to) between changes."""
    borders = [0.0, *changes(name), float(parse(read(name)).duration_s or 0)]
    return list(itertools.pairwise(borders))


def mean(rows: Points, begin: float, end: float) -> float:
    """Over the samples that lie in a span."""
    step = rows[0][0]
    values = [value for at, value in rows if at - step >= begin - 1e-6 and at <= end + 1e-6]
    return sum(values) / len(values) if values else 0.0


def time_to(rows: Points, target: float, begin: float, end: float) -> float | None:
    """Seconds from `begin` until goodput has been enough for `AVERAGE_S`; None: never until `end`."""
    step = rows[0][0]
    for at, _ in rows:
        if begin + AVERAGE_S - 1e-6 <= at <= end and mean(rows, at - max(AVERAGE_S, step), at) >= ENOUGH * target:
            return round(at - begin, 1)
    return None


def figures(name: str, by_limit: dict[int, Points], found: Points) -> dict[str, Any]:
    """The three figures of one scenario. Args: by_limit: fixed limit → goodput. found: the engine's."""
    spans = phases(name)
    targets, limits = [], []
    for begin, end in spans:
        warm = min(begin + WARM_S, end - 60)
        best = max(by_limit, key=lambda n: mean(by_limit[n], warm, end))
        limits.append(best)
        targets.append(mean(by_limit[best], warm, end))
    first = spans[0]
    return {
        "scenario": name,
        "best_limits": limits,
        "best_bytes_s": [round(value) for value in targets],
        "time_to_90_s": time_to(found, targets[0], *first),
        "steady": round(mean(found, WARM_S, first[1]) / targets[0], 4),
        "recovered_s": [time_to(found, target, *span) for span, target in zip(spans[1:], targets[1:], strict=True)],
        "held": [
            round(mean(found, begin + 60, end) / target, 4)
            for (begin, end), target in zip(spans[1:], targets[1:], strict=True)
        ],
        "points": [(at, round(value)) for at, value in found],
        "best_points": [(at, round(value)) for at, value in by_limit[limits[0]]],
    }
