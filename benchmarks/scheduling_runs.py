"""One run of one scheduler on one scenario, as figures that can be kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import baselines
from transfer_engine.simulation.arrivals import AtOnce
from transfer_engine.simulation.result import Result
from transfer_engine.simulation.run import Build, real_engine, simulate
from transfer_engine.simulation.scenario import Scenario, parse

POLICIES: Final[Mapping[str, Build]] = {
    "ours": real_engine,
    "fifo": baselines.fifo,
    "fts3": baselines.fts3,
    "fts3_forgetful": baselines.fts3_forgetful,
}
SCENARIOS: Final = Path(__file__).parent / "scenarios"
POINTS_MAX: Final = 300
"""Of each time series that is kept."""


def read(name: str) -> dict[str, Any]:
    """A scenario of `benchmarks/scenarios`, or of a file, as JSON data."""
    path = SCENARIOS / f"{name}.json"
    return dict(json.loads((path if path.exists() else Path(name)).read_text("utf-8")))


def run(name: str, policy: str) -> dict[str, Any]:
    """Run it; the figures of the report."""
    scenario = parse(read(name), name)
    waits = LowestPriority(scenario)
    result = simulate(scenario, build=POLICIES[policy], on_trace=waits.see if waits.streams else None)
    return {
        "scenario": name,
        "policy": policy,
        "faults": has_faults(scenario),
        "complete": result.complete,
        "files": result.n_files,
        "finished": result.n_finished,
        "failed": result.n_failed,
        "makespan_s": round(result.makespan_s, 1),
        "bound_s": round(result.bound_s, 1),
        "due_to": result.bound.due_to,
        "over_bound": None if result.over_bound is None else round(result.over_bound, 4),
        "bytes": sum(moved(result).values()),
        "links": moved(result),
        "vos": _index(result.fairness.vos),
        "activities": _index(result.fairness.activities),
        "deviation": round(result.fairness.deviation, 1),
        "deviation_allowed": result.fairness.deviation_allowed,
        "overshoot": max(result.oracle.overshoot, 0),
        "longest_wait_s": round(max((w.longest_s for w in result.waits.values()), default=0.0), 1),
        "low_priority": waits.figures(result.ended_s),
        "cpu_s": round(result.cpu_s, 2),
        "ended_s": round(result.ended_s, 1),
        "series": _series(result),
    }


def moved(result: Result) -> dict[str, int]:
    """Link → bytes of finished copies, and of those that ran at the end of a run that was cut."""
    if result.complete:
        return {f"{a} > {b}": n for (a, b), n in sorted(result.oracle.link_bytes.items())}
    series = result.series
    return {name: round(series.values("goodput_bytes_s", name)[-1]) for name in series.names("goodput_bytes_s")}


def _index(index: Any) -> dict[str, Any]:
    return {"lowest": round(index.lowest, 4), "mean": round(index.mean, 4), "n": index.n_windows, "worst": index.worst}


def has_faults(scenario: Scenario) -> bool:
    """Whether anything goes wrong in it."""
    return any(row.faults for row in (*scenario.endpoints.values(), *scenario.links))


class LowestPriority:
    """How long files of the lowest priority waited, where higher ones come all the time.

    It follows streams that arrive at once and whose VO and activity also have a higher priority.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.streams: dict[str, tuple[float, int]] = {}
        """Name → (arrival, files)."""
        for row in scenario.streams:
            higher = any(
                (other.vo, other.activity) == (row.vo, row.activity) and other.priority > row.priority
                for other in scenario.streams
            )
            if higher and isinstance(row.arrivals, AtOnce):
                self.streams[row.name] = (row.arrivals.at_s, row.arrivals.files)
        self._begun: dict[str, float] = {}

    def see(self, line: str) -> None:
        """One event at the storages."""
        at, what, url = line.split(" ", 2)
        if what == "copy" and url.split("/")[4] in self.streams:
            self._begun.setdefault(url, float(at))

    def figures(self, ended_s: float) -> dict[str, Any] | None:
        """Longest wait until the first copy, and how many never had one."""
        if not self.streams:
            return None
        longest, n_never = 0.0, 0
        for name, (at_s, n_files) in self.streams.items():
            begun = [at for url, at in self._begun.items() if url.split("/")[4] == name]
            n_never += n_files - len(begun)
            longest = max(longest, *(at - at_s for at in begun), 0.0, ended_s - at_s if len(begun) < n_files else 0.0)
        return {"longest_s": round(longest, 1), "never": n_never}


def _series(result: Result) -> dict[str, Any]:
    """Goodput in all, and slots by VO, with few points."""
    series = result.series
    # The end of a run may be the instant of its last sample: nothing happens in between.
    n = len(series.at_s) - (series.at_s[-2:-1] == series.at_s[-1:])
    step = max(n // POINTS_MAX, 1)
    goodput = _summed(series.rates("goodput_bytes_s", name) for name in series.names("goodput_bytes_s"))
    slots: dict[str, list[float]] = {}
    for name in series.names("service_slots"):
        vo = name.partition(" / ")[0]
        rates = series.rates("service_slots", name)
        slots[vo] = _summed([slots[vo], rates]) if vo in slots else rates
    return {
        "at_s": series.at_s[:n][step - 1 :: step],
        "goodput_bytes_s": _thin(goodput[:n], step),
        "slots": {vo: _thin(values[:n], step) for vo, values in slots.items()},
    }


def _summed(rows: Iterable[list[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _thin(values: list[float], step: int) -> list[float]:
    whole = len(values) // step * step
    return [round(sum(values[i : i + step]) / step, 3) for i in range(0, whole, step)]
