"""How much a capacity that changes in time carries until an instant. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right

from transfer_engine.simulation import faults
from transfer_engine.simulation.plant import Varying


class Integral:
    """F(T): how much a capacity carries until T."""

    STEPS_MAX = 200_000

    def __init__(self, rate: float, varying: Varying | None = None) -> None:
        self._varying = varying
        self._at = [0.0]
        self._sums = [0.0]
        self._rates = [rate]

    @classmethod
    def of(cls, varying: Varying) -> Integral:
        """Of a capacity that changes."""
        return cls(varying.bytes_s(0.0), varying)

    def until(self, at_s: float) -> float:
        """F(at_s)."""
        while self._at[-1] <= at_s and self._extend():
            pass
        index = bisect_right(self._at, at_s) - 1
        return self._sums[index] + self._rates[index] * (at_s - self._at[index])

    def inverse(self, amount: float) -> float:
        """The first instant at which F reaches `amount`; infinity: never."""
        while self._sums[-1] < amount and self._extend():
            pass
        index = max(bisect_right(self._sums, amount * (1 - 1e-12)) - 1, 0)
        missing = amount - self._sums[index]
        if missing <= 0:
            return self._at[index]
        return self._at[index] + missing / self._rates[index] if self._rates[index] else math.inf

    def _extend(self) -> bool:
        """Go on to the next change; False when there is none."""
        if self._varying is None or len(self._at) > self.STEPS_MAX:
            return False
        now = self._at[-1]
        at = faults.next_change(self._varying.windows, now)
        if at == math.inf:
            return False
        self._sums.append(self._sums[-1] + self._rates[-1] * (at - now))
        self._at.append(at)
        self._rates.append(self._varying.bytes_s(at))
        return True
