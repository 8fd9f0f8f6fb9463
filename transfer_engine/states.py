"""The states of transfers and jobs, as tables.

A transfer is SUBMITTED until a claim makes it ACTIVE. Each claim opens a new *epoch*; whatever is
written later carries (state, epoch) and is dropped when they no longer hold. An attempt ends in one
of three ways: it succeeded (FINISHED), it failed (SUBMITTED again for a retry, or FAILED), or nobody
knows (VERIFYING: the destination is looked at until it is one of the others). A cancelled attempt is
CANCELING until the destination is clean. NOT_USED waits for its turn: a further replica of the same
file, or the next hop of a route.

Names and spelling are FTS3's; VERIFYING and CANCELING are ours, shown to FTS clients as ACTIVE and
CANCELED. A job's state is never set by hand: `roll_up` derives it from counts of its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from transfer_engine.errors import IllegalTransition


class FileState(StrEnum):
    """Where one transfer is."""

    SUBMITTED = "SUBMITTED"
    ACTIVE = "ACTIVE"
    VERIFYING = "VERIFYING"
    CANCELING = "CANCELING"
    NOT_USED = "NOT_USED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class Event(StrEnum):
    """What can happen to a transfer."""

    CLAIM = "claim"
    RELEASE = "release"
    """The claim is given back: nothing was sent to a storage."""
    LOSE = "lose"
    """The attempt ended without anybody knowing how."""
    FINISH = "finish"
    RETRY = "retry"
    FAIL = "fail"
    CANCEL = "cancel"
    CLEANED = "cleaned"
    """A cancelled attempt has ended and its destination was taken care of."""
    ACTIVATE = "activate"
    """Its turn as next replica or next hop."""


class JobState(StrEnum):
    """Where one job is."""

    SUBMITTED = "SUBMITTED"
    ACTIVE = "ACTIVE"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    FINISHEDDIRTY = "FINISHEDDIRTY"
    CANCELED = "CANCELED"


class JobType(StrEnum):
    """FTS's letter for the shape of a job."""

    NORMAL = "N"
    REPLICAS = "R"
    MULTIHOP = "H"
    SESSION_REUSE = "Y"


_S, _E = FileState, Event
TABLE: Final[Mapping[FileState, Mapping[Event, FileState]]] = {
    _S.SUBMITTED: {_E.CLAIM: _S.ACTIVE, _E.CANCEL: _S.CANCELED, _E.FAIL: _S.FAILED},
    _S.ACTIVE: {
        _E.RELEASE: _S.SUBMITTED,
        _E.LOSE: _S.VERIFYING,
        _E.FINISH: _S.FINISHED,
        _E.RETRY: _S.SUBMITTED,
        _E.FAIL: _S.FAILED,
        _E.CANCEL: _S.CANCELING,
    },
    _S.VERIFYING: {
        _E.LOSE: _S.VERIFYING,
        _E.FINISH: _S.FINISHED,
        _E.RETRY: _S.SUBMITTED,
        _E.FAIL: _S.FAILED,
        _E.CANCEL: _S.CANCELING,
    },
    _S.CANCELING: {_E.CLEANED: _S.CANCELED, _E.LOSE: _S.CANCELING},
    _S.NOT_USED: {_E.ACTIVATE: _S.SUBMITTED, _E.CANCEL: _S.CANCELED},
    _S.FINISHED: {},
    _S.FAILED: {},
    _S.CANCELED: {},
}

TERMINAL: Final = frozenset(state for state, row in TABLE.items() if not row)
"""States that nothing leaves."""

DRIVEN: Final = frozenset({_S.ACTIVE, _S.VERIFYING, _S.CANCELING})
"""States in which one attempt owns the destination; each holds its slots."""

JOB_TERMINAL: Final = frozenset({JobState.FINISHED, JobState.FAILED, JobState.FINISHEDDIRTY, JobState.CANCELED})


def step(state: FileState, event: Event) -> FileState:
    """The state after `event`; IllegalTransition when the table has no such entry."""
    after = TABLE[state].get(event)
    if after is None:
        raise IllegalTransition(state, event)
    return after


def roll_up(
    job_type: JobType, *, n_files: int, n_finished: int, n_failed: int, n_canceled: int, begun: bool
) -> JobState:
    """The state of a job from the counts of its files.

    A file is one `file_index`: the replicas of one file count once. A multi-hop job ends with its
    first hop that fails.

    Source: FTS3's rules for the job state, including that finished plus cancelled is CANCELED.
    """
    ended = n_finished + n_failed + n_canceled
    broken_route = job_type is JobType.MULTIHOP and n_failed + n_canceled > 0
    if ended < n_files and not broken_route:
        return JobState.ACTIVE if begun else JobState.SUBMITTED
    if n_finished and n_failed and not broken_route:
        return JobState.FINISHEDDIRTY
    if n_failed:
        return JobState.FAILED
    return JobState.CANCELED if n_canceled else JobState.FINISHED
