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


def failure(again: Again, retry_after_s: float | None = None, code: str = "X") -> Failure:
    return Failure(
        code=code, again=again, scope=Scope.TRANSFER, phase=Phase.TRANSFER, errno=5, message="m", hint="h",
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
    first, longest = (1800.0, 7200.0) if again is Again.LATE else (10.0, 900.0)
    full = min(first * 2 ** min(n_failed - 1, 20), longest)
    assert full / 2 <= at - NOW <= full * 1.5


@given(st.floats(0, 5000), st.integers(1, 3), st.integers(0, 2**32))
@settings(deadline=None)
def test_what_the_party_asked_for_is_waited_for(retry_after_s: float, n_failed: int, seed: int) -> None:
    at = POLICY.retry_at(failure(Again.SOON, retry_after_s), JobOptions(), n_failed, NOW, random.Random(seed))
    assert at is not None
    assert at >= NOW + retry_after_s
    assert at <= NOW + 2 * max(retry_after_s, 40.0) + 1e-6


def test_the_jobs_own_delay_is_a_minimum() -> None:
    assert 100 <= (wait(Again.SOON, 1, JobOptions(retry_delay_s=100)) or 0) <= 200
    assert 5000 <= (wait(Again.SOON, 1, JobOptions(retry_delay_s=5000)) or 0) <= 10_000
    assert wait(Again.SOON, 1, JobOptions(retry_delay_s=0)) == 0


def test_nothing_comes_back_after_its_deadline() -> None:
    assert wait(Again.SOON, 1, JobOptions(deadline_at=NOW + 4)) is None
    assert wait(Again.SOON, 1, JobOptions(deadline_at=NOW + 16)) is not None


def test_an_overloaded_storage_is_asked_later_than_a_broken_one() -> None:
    overloaded = failure(Again.SOON, code="OVERLOADED")
    at = [POLICY.retry_at(overloaded, JobOptions(), 1, NOW, random.Random(seed)) or 0 for seed in range(100)]
    assert min(at) >= NOW + 10
    assert NOW + 20 < max(at) <= NOW + 30


def busiest_second(times: list[float]) -> int:
    """Most of them that fall into one second, wherever it begins."""
    times = sorted(times)
    first, most = 0, 0
    for last, at in enumerate(times):
        while at - times[first] > 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@given(
    st.integers(1, 3),
    st.sampled_from([Again.SOON, Again.FEW, Again.LATE]),
    st.none() | st.floats(0, 900),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=25)
def test_what_failed_at_one_instant_comes_back_over_the_length_of_the_wait(
    n_failed: int, again: Again, retry_after_s: float | None, seed: int
) -> None:
    """Of 1000, at most 15 % in any second after the first failure; half of that after each further one."""
    rng, policy = random.Random(seed), RetryPolicy(RetrySettings())
    options = JobOptions()
    failed = failure(again, retry_after_s)
    n = min(n_failed, 2) if again is Again.FEW else n_failed
    times = [policy.retry_at(failed, options, n, NOW, rng) for _ in range(1000)]
    due = [at for at in times if at is not None]
    assert len(due) == 1000
    assert busiest_second(due) <= 150 / 2 ** (n - 1) + 20


@given(st.integers(1, 100), st.sampled_from(list(Again)), st.none() | st.floats(0, 900))
@settings(deadline=None)
def test_what_is_put_down_to_a_storage_is_bounded(n: int, again: Again, retry_after_s: float | None) -> None:
    at = POLICY.uncharged_at(failure(again, retry_after_s), JobOptions(retries_max=0), n, NOW, random.Random(n))
    assert (at is None) == (n > SETTINGS.uncharged_max)
    assert at is None or at >= NOW + (retry_after_s or 0.0)


@given(st.integers(0, 2**32))
def test_chance_is_given(seed: int) -> None:
    one, other = (
        [POLICY.retry_at(failure(Again.SOON), JobOptions(), n, NOW, rng) for n in (1, 2, 3)]
        for rng in (random.Random(seed), random.Random(seed))
    )
    assert one == other
