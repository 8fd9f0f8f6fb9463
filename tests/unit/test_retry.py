"""When a failed attempt is repeated."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import Again, Phase, Scope
from transfer_engine.config import RetrySettings
from transfer_engine.model import Failure, JobOptions
from transfer_engine.retry import RetryPolicy

NOW = 1_000_000.0
SETTINGS = RetrySettings(retries_max=3, delay_s=10, delay_max_s=900, late_s=1800, few_max=2)
POLICY = RetryPolicy(SETTINGS)


def failure(again: Again, retry_after_s: float | None = None) -> Failure:
    return Failure(
        code="X", again=again, scope=Scope.TRANSFER, phase=Phase.TRANSFER, errno=5, message="m", hint="h",
        retry_after_s=retry_after_s,
    )  # fmt: skip


def wait(again: Again, n_failed: int, options: JobOptions | None = None, after: float | None = None) -> float | None:
    at = POLICY.retry_at(failure(again, after), options or JobOptions(), n_failed, NOW, random.Random(n_failed))
    return None if at is None else at - NOW


@pytest.mark.parametrize("n_failed", range(1, 6))
def test_each_class_has_its_end(n_failed: int) -> None:
    assert wait(Again.NEVER, n_failed) is None
    assert (wait(Again.SOON, n_failed) is None) == (n_failed > 3)
    assert (wait(Again.FEW, n_failed) is None) == (n_failed > 2)
    assert (wait(Again.LATE, n_failed) is None) == (n_failed > 3)


@pytest.mark.parametrize(("retries_max", "n_attempts"), [(-1, 0), (0, 0), (1, 1), (10, 10)])
def test_the_job_decides_how_often(retries_max: int, n_attempts: int) -> None:
    options = JobOptions(retries_max=retries_max)
    assert sum(wait(Again.SOON, n, options) is not None for n in range(1, 20)) == n_attempts


@given(st.integers(1, 10_000), st.sampled_from([Again.SOON, Again.LATE]), st.integers(0, 2**32))
@settings(deadline=None)
def test_waits_grow_are_spread_and_bounded(n_failed: int, again: Again, seed: int) -> None:
    options = JobOptions(retries_max=20_000)
    at = POLICY.retry_at(failure(again), options, n_failed, NOW, random.Random(seed))
    assert at is not None
    full = min(10.0 * 2 ** min(n_failed - 1, 20), 900.0)
    full = max(full, 1800.0) if again is Again.LATE else full
    assert full / 2 <= at - NOW <= full


@given(st.floats(0, 5000), st.integers(1, 3))
@settings(deadline=None)
def test_what_the_party_asked_for_is_waited_for(retry_after_s: float, n_failed: int) -> None:
    waited = wait(Again.SOON, n_failed, after=retry_after_s)
    assert waited is not None
    assert waited >= retry_after_s - 1e-6


def test_the_jobs_own_delay_and_deadline() -> None:
    assert 50 <= (wait(Again.SOON, 1, JobOptions(retry_delay_s=100)) or 0) <= 100
    assert wait(Again.SOON, 1, JobOptions(retry_delay_s=0)) == 0
    assert wait(Again.SOON, 1, JobOptions(deadline_at=NOW + 4)) is None
    assert wait(Again.SOON, 1, JobOptions(deadline_at=NOW + 11)) is not None


def test_what_failed_together_does_not_come_back_together() -> None:
    rng = random.Random(1)
    times = [POLICY.retry_at(failure(Again.SOON), JobOptions(), 3, NOW, rng) or 0 for _ in range(200)]
    assert max(times) - min(times) > 15
