"""A place that asked to be spared (`Retry-After`): how many may run in it, and how it gets back. Pure.

A storage says 503 because it is going down, or because it has as many copies as it wants. What runs
well then tells: that many go on, each refusal lowers the number to what is left, down to none. When
the time has come the number rises again, by one with each success where some went on, twofold
from nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Pause:
    """The pause of one place.

    Attributes:
        since: the first refusal.
        limit: how many may be active.
        until: when the number may rise again; infinity: it does.
    """

    since: float
    limit: int
    until: float = -math.inf
    n: int = 0
    """Refusals."""
    message: str = ""
    empty: bool = False
    """Nothing was left running: nobody knows how many the place can have."""

    def refuse(self, until: float, n_active: int, message: str) -> None:
        """One attempt more was refused; so many are left."""
        self.limit = min(self.limit, n_active)
        self.until = until if math.isinf(self.until) else max(self.until, until)
        self.empty = self.limit == 0
        self.n += 1
        self.message = message

    @property
    def waiting(self) -> bool:
        """The time that was asked for is not over."""
        return not math.isinf(self.until)

    def due(self) -> None:
        """It is over."""
        self.until = math.inf
        self.limit += 1

    def succeed(self) -> None:
        """A copy succeeded."""
        if not self.waiting:
            self.limit = self.limit * 2 if self.empty else self.limit + 1
