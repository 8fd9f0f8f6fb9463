"""What goes wrong at a model storage, and when: by rule or by seeded chance.

Chance depends on the seed, the storage, the request's method and path, and how often that path was
asked before: never on the order in which requests of different paths happen to arrive.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final


class Fault(StrEnum):
    """One way to go wrong."""

    UNAVAILABLE = "unavailable"
    """503 with `Retry-After`."""
    REFUSE = "refuse"
    """403."""
    NO_DIGEST = "no_digest"
    """HEAD without `Digest`."""
    FAILURE_LINE = "failure_line"
    """The copy stops at `fraction` and says `failure:`."""
    CUT_DONE = "cut_done"
    """The copy completes, the connection closes without a final line."""
    CUT_ZOMBIE = "cut_zombie"
    """The connection closes at `fraction`; the copy goes on without its client."""
    CUT_PARTIAL = "cut_partial"
    """The connection closes at `fraction`, and the copy ends there."""
    CORRUPT = "corrupt"
    """One byte differs, and success is reported."""
    SHORT = "short"
    """The last bytes are missing, and success is reported."""
    STALL = "stall"
    """No byte moves after `fraction`; markers keep coming."""
    SILENT = "silent"
    """No byte moves after `fraction`, and no marker comes either."""
    SLOW = "slow"
    """At most `slow_bytes_s`."""


ANYWHERE: Final = frozenset({Fault.UNAVAILABLE, Fault.REFUSE})
"""Faults of every method."""

STREAMS: Final = frozenset({Fault.CORRUPT, Fault.SHORT, Fault.STALL, Fault.SLOW, Fault.CUT_PARTIAL})
"""Faults of GET, besides."""

APPLICABLE: Final[Mapping[str, frozenset[Fault]]] = {
    "COPY": frozenset(Fault) - {Fault.NO_DIGEST},
    "GET": ANYWHERE | STREAMS,
    "PUT": ANYWHERE | {Fault.CORRUPT, Fault.SHORT},
    "HEAD": ANYWHERE | {Fault.NO_DIGEST},
}


def applicable(method: str) -> frozenset[Fault]:
    """The faults that `method` can show."""
    return APPLICABLE.get(method, ANYWHERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A fault for requests that are named, certain where `Faults.rates` are chances."""

    fault: Fault
    method: str = "COPY"
    path: str = "*"
    """Shell pattern on the path at this storage."""
    nth: int | None = None
    """Only the n-th request (from 1) that fits method and pattern; None: each."""
    times: int | None = None
    """At most so many of them; None: without end."""

    def __post_init__(self) -> None:
        if self.fault not in applicable(self.method):
            msg = f"{self.method} cannot show the fault {self.fault.value!r}"
            raise ValueError(msg)

    def fits(self, method: str, path: str) -> bool:
        """Whether a request is meant, its number aside."""
        return method == self.method and fnmatchcase(path, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What a storage is to do wrong. The first rule that fires wins, then chance is asked."""

    rules: tuple[Rule, ...] = ()
    rates: Mapping[Fault, float] = field(default_factory=dict)
    """Probability of each fault of a COPY; together at most 1."""
    head_rates: Mapping[Fault, float] = field(default_factory=dict)
    """The same for HEAD."""
    attempts_max: int | None = None
    """Chance strikes only the first so many requests of one method on one path; None: always."""
    fraction: float = 0.5
    """Where in the file a copy breaks, 0 … 1."""
    retry_after_s: float | None = 1.0
    """Sent as it is, though the standard has whole seconds; None: 503 without `Retry-After`."""
    slow_bytes_s: float = 64 * 1024
    zombie_s: float = 5.0
    """How long a copy whose connection was cut pauses before it writes the rest."""

    def __post_init__(self) -> None:
        for method, rates in (("COPY", self.rates), ("HEAD", self.head_rates)):
            wrong = set(rates) - applicable(method)
            if wrong or any(rate < 0 for rate in rates.values()) or sum(rates.values()) > 1:
                msg = f"rates of {method}: each ≥ 0, together ≤ 1, of faults it can show; got {dict(rates)}"
                raise ValueError(msg)


class FaultPlan:
    """Counts requests and decides what happens to each.

    Args:
        seed: text that chance follows from.
    """

    def __init__(self, faults: Faults, *, seed: str) -> None:
        self.faults = faults
        self._seed = seed
        self._asked: Counter[tuple[str, str]] = Counter()
        self._fitted: Counter[int] = Counter()
        self._fired: Counter[int] = Counter()
        self.struck: Counter[tuple[Fault, str]] = Counter()
        """(fault, path) → requests that were to go wrong so."""

    def decide(self, method: str, path: str) -> Fault | None:
        """The fault of this request, or None; counts it."""
        self._asked[method, path] += 1
        chosen: Fault | None = None
        for number, rule in enumerate(self.faults.rules):
            if not rule.fits(method, path):
                continue
            self._fitted[number] += 1
            due = rule.nth is None or rule.nth == self._fitted[number]
            if chosen is None and due and (rule.times is None or self._fired[number] < rule.times):
                self._fired[number] += 1
                chosen = rule.fault
        fault = chosen or self._chance(method, path)
        if fault is not None:
            self.struck[fault, path] += 1
        return fault

    def _chance(self, method: str, path: str) -> Fault | None:
        rates = {"COPY": self.faults.rates, "HEAD": self.faults.head_rates}.get(method)
        n_asked = self._asked[method, path]
        if not rates or (self.faults.attempts_max is not None and n_asked > self.faults.attempts_max):
            return None
        chance = random.Random(f"{self._seed} {method} {path} {n_asked}")  # noqa: S311 - chance that can be repeated
        drawn = chance.random()
        for fault, rate in sorted(rates.items()):
            drawn -= rate
            if drawn < 0:
                return fault
        return None
