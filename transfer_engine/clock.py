"""Time, chance and identity as inputs, so that a whole engine can run from a seed.

Durations are the event loop's business (`asyncio.sleep`, `asyncio.timeout`, `loop.time()`): a loop
with virtual time then moves everything. Instants for people and for the store come from `Clock`.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """Where instants come from."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()


def _random_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Deps:
    """What would make two runs differ, gathered in one place."""

    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=random.Random)
    new_id: Callable[[], str] = _random_id
    """A new UUID in text form."""
