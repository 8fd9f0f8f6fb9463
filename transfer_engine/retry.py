"""When a failed attempt is repeated, if ever. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from protocols.errors import Again
from transfer_engine.config import RetrySettings
from transfer_engine.model import Failure, JobOptions


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The settings, and the chance that keeps many retries from coming at once."""

    settings: RetrySettings

    def retry_at(
        self, failure: Failure, options: JobOptions, n_failed: int, now: float, rng: random.Random
    ) -> float | None:
        """When to try again after the failure number `n_failed` (1 is the first); None: not at all.

        The wait doubles with each failure and is spread over its upper half, so that what failed
        together does not come back together. What the party itself asked for (`Retry-After`) is
        waited for in any case.
        """
        limit = self.settings.retries_max if options.retries_max is None else options.retries_max
        if failure.again is Again.NEVER or n_failed > limit:
            return None
        if failure.again is Again.FEW and n_failed > self.settings.few_max:
            return None
        delay = self.settings.delay_s if options.retry_delay_s is None else options.retry_delay_s
        wait = min(delay * 2.0 ** min(n_failed - 1, 32), self.settings.delay_max_s)
        if failure.again is Again.LATE:
            wait = max(wait, self.settings.late_s)
        wait *= 0.5 + rng.random() / 2
        if failure.retry_after_s is not None:
            wait = max(wait, failure.retry_after_s * (1 + rng.random() / 10))
        at = now + wait
        return None if options.deadline_at is not None and at > options.deadline_at else at
