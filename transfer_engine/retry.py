"""When a failed attempt is repeated, if ever. Pure.

    never        not at all
    few          like soon, but at most a few times
    soon         delay, doubling with each failure
    overloaded   like soon, a step slower: who is asked too much is not asked sooner than who broke down
    late         somebody has to act first: a long delay, doubling twice

What failed at one instant comes back evenly over a time as long as the wait: from half to one and a half
times its length. What a job (`retry_delay_s`) or a storage (`Retry-After`) asked for is a minimum, and the
spread comes on top of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from protocols.errors import Again, Overloaded
from transfer_engine.config import RetrySettings
from transfer_engine.model import Failure, JobOptions

DOUBLINGS_MAX: Final = 32
"""Beyond it every wait is at its longest, and floats stay small."""

LATE_GROWTH: Final = 4.0
"""How many times `late_s` a wait for somebody to act becomes at most."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The settings, and the chance that keeps many retries from coming at once."""

    settings: RetrySettings

    def retry_at(
        self, failure: Failure, options: JobOptions, n_failed: int, now: float, rng: random.Random
    ) -> float | None:
        """When to try again after the failure number `n_failed` (1 is the first); None: not at all."""
        limit = self.settings.retries_max if options.retries_max is None else options.retries_max
        if failure.again is Again.NEVER or n_failed > limit:
            return None
        if failure.again is Again.FEW and n_failed > self.settings.few_max:
            return None
        return self._at(failure, options, n_failed, now, rng)

    def uncharged_at(
        self, failure: Failure, options: JobOptions, n_uncharged: int, now: float, rng: random.Random
    ) -> float | None:
        """When to try again after a failure that is not the transfer's own; None: charge it after all.

        A storage in trouble is closed meanwhile and its transfers wait for it, so this wait only
        has to keep them from being the next to be refused.

        Args: n_uncharged: how many there were in a row, this one included.
        """
        if n_uncharged > self.settings.uncharged_max:
            return None
        return self._at(failure, options, n_uncharged, now, rng)

    def _at(self, failure: Failure, options: JobOptions, n_failed: int, now: float, rng: random.Random) -> float | None:
        settings, own = self.settings, options.retry_delay_s
        step = n_failed - 1
        delay, longest = settings.delay_s if own is None else own, max(settings.delay_max_s, own or 0.0)
        if failure.again is Again.LATE:
            delay, longest = max(delay, settings.late_s), max(longest, LATE_GROWTH * settings.late_s)
        elif failure.code == Overloaded.code and failure.retry_after_s is None:
            step += 1
        wait = min(delay * 2.0 ** min(step, DOUBLINGS_MAX), longest)
        shortest = wait / 2 if own is None else wait
        asked = failure.retry_after_s or 0.0
        wait = max(shortest, asked) + rng.random() * max(wait, asked)
        at = now + wait
        return None if options.deadline_at is not None and at > options.deadline_at else at
