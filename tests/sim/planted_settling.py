"""Mistakes in what becomes of an attempt, and in when it is repeated. Each is planted alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from protocols.errors import Again
from tests.sim.planted_decisions import Plant, instead
from transfer_engine import settle
from transfer_engine.model import Change, Failed, Failure, JobOptions
from transfer_engine.retry import RetryPolicy
from transfer_engine.states import Event, FileState


def _changed(**wrong: Any) -> Plant:
    """Every change has this wrong."""
    return instead(settle, "_change", lambda right, *args, **more: replace(right(*args, **more), **wrong))


def _uncharged_are_charged(right: Any, order: Any, outcome: Any, **more: Any) -> Change:
    if isinstance(outcome, Failed):
        outcome = replace(outcome, charge=True)
    return right(order, outcome, **more)  # type: ignore[no-any-return]


def _cancelled_like_others(right: Any, *args: Any, **more: Any) -> Change:
    change: Change = right(*args, **more)
    return replace(change, expect=change.expect | {FileState.CANCELING})


def _hop_after_failure(right: Any, order: Any, outcome: Any, **more: Any) -> Change:
    change: Change = right(order, outcome, **more)
    return replace(change, activate_next=order.follows)


def _lost_is_failed(right: Any, *args: Any, **more: Any) -> Change:
    change: Change = right(*args, **more)
    return replace(change, event=Event.RETRY) if change.event is Event.LOSE else change


def _released_is_retried(right: Any, *args: Any, **more: Any) -> Change:
    change: Change = right(*args, **more)
    return replace(change, charge=True) if change.event is Event.RELEASE else change


def _retry(wrong: Any) -> Plant:
    """`wrong(right, self, failure, options, n_failed, now, rng)`."""
    return instead(RetryPolicy, "retry_at", wrong)


def _never_is_soon(
    right: Any, self: Any, failure: Failure, options: JobOptions, n: int, now: float, rng: random.Random
) -> Any:
    again = Again.SOON if failure.again is Again.NEVER else failure.again
    return right(self, replace(failure, again=again), options, n, now, rng)


def _few_is_soon(
    right: Any, self: Any, failure: Failure, options: JobOptions, n: int, now: float, rng: random.Random
) -> Any:
    again = Again.SOON if failure.again is Again.FEW else failure.again
    return right(self, replace(failure, again=again), options, n, now, rng)


def _at(wrong: Any) -> Plant:
    """`wrong(right, self, failure, options, n_failed, now, rng)` of the wait itself."""
    return instead(RetryPolicy, "_at", wrong)


class _NoChance(random.Random):
    def random(self) -> float:
        return 0.5


PLANTED: dict[str, Plant] = {
    "what lies at the destination is forgotten": _changed(dest_owned=False),
    "what lies there is always ours": _changed(dest_owned=True),
    "the next replica or hop is not activated": _changed(activate_next=False),
    "a hop follows a failure": instead(settle, "decide", _hop_after_failure),
    "no failure is charged": _changed(charge=False),
    "the engine's own death is charged": instead(settle, "decide", _uncharged_are_charged),
    "a released claim is charged": instead(settle, "_change", _released_is_retried),
    "an unknown outcome is a failure": instead(settle, "_change", _lost_is_failed),
    "a late result overrides a cancellation": instead(settle, "_change", _cancelled_like_others),
    "the epoch is lost": _changed(epoch=0),
    "a replica is spent where none can help": instead(
        settle, "_another_replica", lambda _right, order, _f: order.follows
    ),
    "a replica is spent on a passing trouble": instead(settle, "_passing_at_destination", lambda *_: False),
    "a retry is due at once": _at(lambda _right, _self, _failure, _options, _n, now, _rng: now),
    "Retry-After is ignored": _at(
        lambda right, self, failure, *rest: right(self, replace(failure, retry_after_s=None), *rest)
    ),
    "the job's own delay is ignored": _at(
        lambda right, self, failure, options, *rest: right(self, failure, replace(options, retry_delay_s=None), *rest)
    ),
    "the deadline is ignored": _at(
        lambda right, self, failure, options, *rest: right(self, failure, replace(options, deadline_at=None), *rest)
    ),
    "waits do not grow": _at(
        lambda right, self, failure, options, _n, now, rng: right(self, failure, options, 1, now, rng)
    ),
    "all come back at once": _at(
        lambda right, self, failure, options, n, now, _rng: right(self, failure, options, n, now, _NoChance())
    ),
    "what nobody has mended is tried soon": _at(
        lambda right, self, failure, *rest: right(
            self, replace(failure, again=Again.SOON if failure.again is Again.LATE else failure.again), *rest
        )
    ),
    "one retry too many": _retry(
        lambda right, self, failure, options, n, now, rng: right(self, failure, options, n - 1, now, rng)
    ),
    "one retry too few": _retry(
        lambda right, self, failure, options, n, now, rng: right(self, failure, options, n + 1, now, rng)
    ),
    "the job's own number of retries is ignored": _retry(
        lambda right, self, failure, options, *rest: right(self, failure, replace(options, retries_max=None), *rest)
    ),
    "what cannot succeed is repeated": _retry(_never_is_soon),
    "what was chance is repeated for ever": _retry(_few_is_soon),
    "a storage's trouble excuses for ever": instead(
        RetryPolicy,
        "uncharged_at",
        lambda right, self, failure, options, _n, now, rng: right(self, failure, options, 1, now, rng),
    ),
}
