"""Time series of a run. Totals are kept and rates derived, so that points can be dropped when there are many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

POINTS_MAX: Final = 2880
"""Beyond it every other point is dropped: a month of simulation stays as small as a day."""


class Series:
    """Points in time of any number of named figures; a figure that is missing at a point was 0."""

    def __init__(self) -> None:
        self.at_s: list[float] = []
        self._rows: list[Mapping[str, float]] = []
        self._stride = 1
        self._skipped = 0

    def add(self, at_s: float, figures: Mapping[str, float]) -> None:
        """One point; it may be left out when there are many already."""
        self._skipped += 1
        if self._skipped < self._stride:
            return
        self._skipped = 0
        self.at_s.append(at_s)
        self._rows.append({name: value for name, value in figures.items() if value})
        if len(self.at_s) > POINTS_MAX:
            del self.at_s[::2], self._rows[::2]
            self._stride *= 2

    def names(self, kind: str) -> list[str]:
        """The figures whose name begins with `kind` and a blank, without it."""
        found = {name.partition(" ")[2] for row in self._rows for name in row if name.startswith(f"{kind} ")}
        return sorted(found)

    def values(self, kind: str, name: str) -> list[float]:
        """One figure at every point."""
        return [row.get(f"{kind} {name}", 0) for row in self._rows]

    def rates(self, kind: str, name: str) -> list[float]:
        """Growth per second of a total since the point before."""
        totals = self.values(kind, name)
        starts = [0.0, *self.at_s[:-1]]
        before = [0.0, *totals[:-1]]
        return [
            round((total - old) / (at - start), 3) if at > start else 0.0
            for at, start, total, old in zip(self.at_s, starts, totals, before, strict=True)
        ]

    def as_json(self, kinds: Mapping[str, bool]) -> dict[str, Any]:
        """`at_s` and, by kind, every figure's values; for a kind that maps to True its rates."""
        found: dict[str, Any] = {"at_s": self.at_s}
        for kind, as_rate in kinds.items():
            of = self.rates if as_rate else self.values
            found[kind] = {name: of(kind, name) for name in self.names(kind)}
        return found
