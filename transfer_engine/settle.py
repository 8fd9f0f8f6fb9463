"""Outcome → change: what becomes of a transfer after an attempt. Pure.

done                                    → FINISHED; the next hop of a route gets its turn
failed, another replica is left         → FAILED; the replica gets its turn, at once
failed, trying again can help           → SUBMITTED, to be claimed again later
failed otherwise                        → FAILED
unknown                                 → VERIFYING; the destination will be looked at
a cancelled attempt has ended           → CANCELED
nothing was sent                        → SUBMITTED, as if it had not been claimed
"""

from __future__ import annotations

import random
from typing import Final, assert_never

from protocols.errors import Again, Scope
from transfer_engine.model import Assignment, Change, Cleaned, Done, Failed, Failure, Outcome, Released, Unknown
from transfer_engine.retry import RetryPolicy
from transfer_engine.states import Event, FileState, JobType

_RUNNING: Final = frozenset({FileState.ACTIVE, FileState.VERIFYING})
_CANCELING: Final = frozenset({FileState.CANCELING})

_NO_CREDENTIAL: Final = frozenset({"TOKEN_ENDED", "TOKEN_REFUSED", "CLIENT_REFUSED", "PROXY_ENDED", "SECRET_LOST"})
REPLICA_CANNOT_HELP: Final = frozenset({"ALREADY_EXISTS", "NO_SPACE", "DENIED", "REFUSED"}) | _NO_CREDENTIAL
"""Failures at the destination that every other source would meet as well."""


def decide(
    order: Assignment, outcome: Outcome, *, now: float, policy: RetryPolicy, rng: random.Random, n_excused: int = 0
) -> Change:
    """The change that an outcome calls for.

    Args: n_excused: how many failures in a row, with this one, were a storage's trouble that was known already:
        the transfer tries again, uncharged. 0: this one was not.
    """
    match outcome:
        case Done():
            return _change(
                order,
                Event.FINISH,
                now,
                done=outcome,
                started_at=outcome.started_at,
                activate_next=order.follows and order.job_type is JobType.MULTIHOP,
            )
        case Failed():
            again_at = policy.uncharged_at(outcome.failure, order.options, n_excused, now, rng) if n_excused else None
            if again_at is not None:
                return _change(
                    order,
                    Event.RETRY,
                    now,
                    failure=outcome.failure,
                    # What is known to be in trouble is closed: another replica may be chosen at once.
                    retry_at=None if _may_come_from_elsewhere(order, outcome.failure) else again_at,
                    started_at=outcome.started_at,
                    dest_owned=not outcome.clean,
                )
            return _failed(order, outcome, now, policy, rng)
        case Unknown():
            return _change(
                order, Event.LOSE, now, failure=outcome.failure, started_at=outcome.started_at, dest_owned=True
            )
        case Cleaned():
            return _change(order, Event.CLEANED, now, expect=_CANCELING, dest_owned=not outcome.clean)
        case Released():
            return _change(order, Event.RELEASE, now, expect=frozenset({FileState.ACTIVE}), dest_owned=order.dest_owned)
        case _:
            assert_never(outcome)


def _failed(order: Assignment, outcome: Failed, now: float, policy: RetryPolicy, rng: random.Random) -> Change:
    owned = not outcome.clean
    failure = outcome.failure
    if not outcome.charge:
        return _change(order, Event.RETRY, now, failure=failure, started_at=outcome.started_at, dest_owned=owned)
    again_at = policy.retry_at(failure, order.options, order.n_failed + 1, now, rng)
    if _another_replica(order, failure) and (again_at is None or not _passing_at_destination(failure)):
        return _change(
            order,
            Event.FAIL,
            now,
            failure=failure,
            charge=True,
            started_at=outcome.started_at,
            dest_owned=owned,
            activate_next=True,
        )
    return _change(
        order,
        Event.FAIL if again_at is None else Event.RETRY,
        now,
        failure=failure,
        retry_at=again_at,
        charge=True,
        started_at=outcome.started_at,
        dest_owned=owned,
    )


def _passing_at_destination(failure: Failure) -> bool:
    """Whether it is the destination's trouble and may pass: no reason to spend a replica on it."""
    return failure.scope is Scope.DESTINATION and failure.again in {Again.SOON, Again.LATE}


def _may_come_from_elsewhere(order: Assignment, failure: Failure) -> bool:
    return failure.scope is not Scope.DESTINATION and _another_replica(order, failure)


def _another_replica(order: Assignment, failure: Failure) -> bool:
    if not order.follows or order.job_type is JobType.MULTIHOP:
        return False
    return not (failure.scope is Scope.DESTINATION and failure.code in REPLICA_CANNOT_HELP)


def _change(  # noqa: PLR0913 - what of a Change varies
    order: Assignment,
    event: Event,
    now: float,
    *,
    expect: frozenset[FileState] = _RUNNING,
    failure: Failure | None = None,
    done: Done | None = None,
    retry_at: float | None = None,
    charge: bool = False,
    dest_owned: bool = False,
    activate_next: bool = False,
    started_at: float | None = None,
) -> Change:
    return Change(
        file_id=order.file_id,
        job_ref=order.job_ref,
        queue_id=order.queue.id,
        priority=order.priority,
        expect=expect,
        epoch=order.epoch,
        event=event,
        at=now,
        failure=failure,
        done=done,
        retry_at=retry_at,
        charge=charge,
        dest_owned=dest_owned,
        activate_next=activate_next,
        started_at=started_at,
    )
