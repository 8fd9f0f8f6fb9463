"""What a simulation found, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from transfer_engine.simulation.bound import Bound
from transfer_engine.simulation.fairness import Fairness
from transfer_engine.simulation.oracle import Oracle, Waits
from transfer_engine.simulation.series import Series

KINDS: Final[Mapping[str, bool]] = {
    "active_in": False,
    "active_out": False,
    "active_link": False,
    "waiting": False,
    "goodput_bytes_s": True,
    "service_slots": True,
    "service_bytes_s": True,
}
"""Kinds of time series; True: kept as totals and shown as rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run."""

    scenario: str
    seed: int
    ended_s: float
    """Virtual time at which it stopped."""
    complete: bool
    """Every job has ended."""
    n_jobs: int
    n_files: int
    n_bytes: int
    n_finished: int
    n_failed: int
    """Files whose transfer ended without success."""
    first_s: float
    bound: Bound
    utilisation: Mapping[str, float]
    """Capacity → bytes that went through it over what it could have carried in the makespan."""
    fairness: Fairness
    oracle: Oracle
    series: Series
    cpu_s: float

    @property
    def makespan_s(self) -> float:
        """From the first arrival to the last success."""
        return max(self.oracle.last_end_s - self.first_s, 0.0)

    @property
    def bound_s(self) -> float:
        """The shortest makespan that is possible for what was done."""
        return max(self.bound.end_s - self.first_s, 0.0)

    @property
    def over_bound(self) -> float | None:
        """Makespan over its lower bound; None: work was left, or none was done."""
        return self.makespan_s / self.bound_s if self.complete and self.bound_s > 0 else None

    @property
    def waits(self) -> Mapping[str, Waits]:
        """`VO / activity` → time until the first copy began; of streams that began any."""
        return {f"{vo} / {activity}": waits for (vo, activity), waits in sorted(self.oracle.waits.items())}

    def summary(self) -> dict[str, Any]:
        """The figures as JSON data; the same in every run with the same seed."""
        fairness, oracle = self.fairness, self.oracle
        return {
            "scenario": self.scenario,
            "seed": self.seed,
            "trace_hash": oracle.hash(),
            "complete": self.complete,
            "ended_s": round(self.ended_s, 6),
            "jobs": self.n_jobs,
            "files": self.n_files,
            "bytes": self.n_bytes,
            "finished": self.n_finished,
            "failed": self.n_failed,
            "makespan_s": round(self.makespan_s, 6),
            "bound_s": round(self.bound_s, 6),
            "bound_due_to": self.bound.due_to,
            "makespan_over_bound": None if self.over_bound is None else round(self.over_bound, 6),
            "overshoot": oracle.overshoot,
            "jain": {
                name: {"lowest": round(index.lowest, 6), "mean": round(index.mean, 6), "windows": index.n_windows}
                | ({"worst": index.worst} if index.worst else {})
                for name, index in (
                    ("vos", fairness.vos),
                    ("activities", fairness.activities),
                    ("vo_bytes", fairness.vo_bytes),
                )
            },
            "share_deviation": round(fairness.deviation, 6),
            "waits_s": {
                name: {
                    "p50": round(waits.percentile(0.5), 3),
                    "p95": round(waits.percentile(0.95), 3),
                    "longest": round(waits.longest_s, 3),
                    "files": waits.n,
                }
                for name, waits in self.waits.items()
            },
            "utilisation": {name: round(part, 6) for name, part in sorted(self.utilisation.items())},
            "most_active": dict(sorted(oracle.most.items())),
            "links": {
                f"{source} > {destination}": {"files": n, "bytes": oracle.link_bytes[source, destination]}
                for (source, destination), n in sorted(oracle.link_files.items())
            },
            "service": {
                " / ".join(key): {
                    "slot_s": round(service.slot_s_at(self.ended_s), 3),
                    "bytes": service.n_bytes,
                    "files": service.n_files,
                }
                for key, service in sorted(oracle.services.items())
            },
            "events": dict(sorted(oracle.counts.items())),
        }

    def as_json(self) -> dict[str, Any]:
        """Summary and time series."""
        return {"summary": self.summary(), "series": self.series.as_json(KINDS)}
