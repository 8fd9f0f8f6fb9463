"""Outcome → change, for every outcome, kind of job and place in it."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from protocols.errors import Again, Phase, Scope
from transfer_engine import settle
from transfer_engine.config import RetrySettings
from transfer_engine.model import (
    Assignment,
    Change,
    Cleaned,
    Done,
    Evidence,
    Failed,
    Failure,
    FileId,
    JobId,
    JobOptions,
    Outcome,
    Queue,
    QueueId,
    Released,
    Unknown,
)
from transfer_engine.retry import RetryPolicy
from transfer_engine.states import TABLE, Event, FileState, JobType

S, E = FileState, Event
NOW = 5000.0
POLICY = RetryPolicy(RetrySettings())
ORDER = Assignment(
    file_id=FileId(7),
    epoch=3,
    job_id=JobId("j"),
    job_ref=2,
    job_type=JobType.NORMAL,
    file_index=0,
    queue=Queue(QueueId(4), "sim://a", "sim://b", "vo", "x"),
    priority=5,
    source_url="sim://a/f",
    dest_url="sim://b/f",
    size_bytes=None,
    checksum=None,
    options=JobOptions(),
    scitag=None,
    n_failed=0,
    follows=False,
    dest_owned=False,
    copying=False,
    submitted_at=1.0,
    claimed_at=2.0,
)
FAILURE = Failure(
    code="COPY_FAILED", again=Again.SOON, scope=Scope.TRANSFER, phase=Phase.TRANSFER, errno=5, message="m", hint="h"
)
DONE = Done(
    evidence=Evidence(size_bytes=1, checksum=None, method="size"),
    mode="pull",
    bytes_moved=1,
    transfer_s=1.0,
    started_at=2.0,
)
FAILED = Failed(failure=FAILURE, clean=True, started_at=2.0)
OUTCOMES: tuple[Outcome, ...] = (
    DONE,
    FAILED,
    replace(FAILED, charge=False),
    replace(FAILED, clean=False),
    Unknown(failure=FAILURE, started_at=2.0),
    Cleaned(clean=True),
    Cleaned(clean=False),
    Released(),
)


def decide(outcome: Outcome, order: Assignment = ORDER) -> Change:
    return settle.decide(order, outcome, now=NOW, policy=POLICY, rng=random.Random(0))


def failed(again: Again = Again.SOON, scope: Scope = Scope.TRANSFER, code: str = "X") -> Failed:
    return replace(FAILED, failure=replace(FAILURE, again=again, scope=scope, code=code))


@pytest.mark.parametrize(("outcome", "job_type", "follows"), list(itertools.product(OUTCOMES, JobType, [False, True])))
def test_every_change_is_one_that_the_table_knows(outcome: Outcome, job_type: JobType, follows: bool) -> None:
    order = replace(ORDER, job_type=job_type, follows=follows)
    change = decide(outcome, order)
    assert (change.file_id, change.epoch, change.job_ref) == (order.file_id, order.epoch, order.job_ref)
    assert (change.queue_id, change.priority, change.at) == (order.queue.id, order.priority, NOW)
    assert change.expect
    assert all(change.event in TABLE[state] for state in change.expect)
    assert change.charge == (isinstance(outcome, Failed) and outcome.charge)
    assert (change.done is not None) == (change.event is E.FINISH)
    assert change.retry_at is None or change.event is E.RETRY
    assert not change.activate_next or follows
    if isinstance(outcome, Cleaned):
        assert change.expect == {S.CANCELING}
    else:
        assert S.CANCELING not in change.expect


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        (DONE, E.FINISH),
        (failed(Again.SOON), E.RETRY),
        (failed(Again.NEVER), E.FAIL),
        (Unknown(failure=FAILURE, started_at=2.0), E.LOSE),
        (Cleaned(clean=True), E.CLEANED),
        (Released(), E.RELEASE),
    ],
)
def test_the_usual_events(outcome: Outcome, event: Event) -> None:
    assert decide(outcome).event is event


def test_a_retry_has_its_time_and_the_last_attempt_fails() -> None:
    change = decide(FAILED)
    assert change.retry_at is not None
    assert change.retry_at > NOW
    assert decide(FAILED, replace(ORDER, n_failed=3)).event is E.FAIL


def test_what_the_engines_own_death_ended_is_repeated_at_once_and_for_ever() -> None:
    order = replace(ORDER, n_failed=1000, follows=True, job_type=JobType.REPLICAS)
    change = decide(replace(failed(Again.NEVER), charge=False), order)
    assert (change.event, change.retry_at, change.charge, change.activate_next) == (E.RETRY, None, False, False)


@pytest.mark.parametrize("again", Again)
@pytest.mark.parametrize("job_type", [JobType.NORMAL, JobType.REPLICAS])
def test_another_replica_is_tried_at_once(again: Again, job_type: JobType) -> None:
    change = decide(failed(again, Scope.SOURCE), replace(ORDER, follows=True, job_type=job_type))
    assert (change.event, change.activate_next, change.charge) == (E.FAIL, True, True)


@pytest.mark.parametrize("code", sorted(settle.REPLICA_CANNOT_HELP))
def test_another_replica_is_not_tried_where_it_cannot_help(code: str) -> None:
    order = replace(ORDER, follows=True, job_type=JobType.REPLICAS)
    at_destination = decide(failed(Again.NEVER, Scope.DESTINATION, code), order)
    assert (at_destination.event, at_destination.activate_next) == (E.FAIL, False)
    at_source = decide(failed(Again.NEVER, Scope.SOURCE, code), order)
    assert at_source.activate_next
    full = decide(failed(Again.LATE, Scope.DESTINATION, code), order)
    assert (full.event, full.activate_next) == (E.RETRY, False)


def test_hops() -> None:
    order = replace(ORDER, follows=True, job_type=JobType.MULTIHOP)
    assert decide(DONE, order).activate_next
    assert not decide(DONE, replace(order, follows=False)).activate_next
    broken = decide(failed(Again.NEVER), order)
    assert (broken.event, broken.activate_next) == (E.FAIL, False)
    assert not decide(DONE, replace(order, job_type=JobType.REPLICAS)).activate_next


def test_what_may_lie_at_the_destination_is_not_forgotten() -> None:
    assert not decide(DONE).dest_owned
    assert not decide(FAILED).dest_owned
    assert decide(replace(FAILED, clean=False)).dest_owned
    assert decide(Unknown(failure=FAILURE, started_at=2.0)).dest_owned
    assert decide(Released(), replace(ORDER, dest_owned=True)).dest_owned
    assert decide(Cleaned(clean=False)).dest_owned
    order = replace(ORDER, follows=True, job_type=JobType.REPLICAS)
    assert decide(replace(FAILED, clean=False), order).dest_owned
