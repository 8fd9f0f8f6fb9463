"""The tables of states: every entry, and a job's state from its files' by FTS's own rules."""

from __future__ import annotations

import itertools

import pytest

from transfer_engine.errors import IllegalTransition
from transfer_engine.states import (
    DRIVEN,
    JOB_TERMINAL,
    TABLE,
    TERMINAL,
    Event,
    FileState,
    JobState,
    JobType,
    roll_up,
    step,
)

S, E, J = FileState, Event, JobState


@pytest.mark.parametrize(("state", "event"), list(itertools.product(FileState, Event)))
def test_every_state_and_event(state: FileState, event: Event) -> None:
    after = TABLE[state].get(event)
    if after is None:
        with pytest.raises(IllegalTransition) as caught:
            step(state, event)
        assert (caught.value.state, caught.value.event) == (state, event)
    else:
        assert step(state, event) is after


def test_nothing_leaves_a_terminal_state_and_everything_else_can_end() -> None:
    assert {S.FINISHED, S.FAILED, S.CANCELED} == TERMINAL
    reached = {state: {state} for state in FileState}
    for _ in FileState:
        for state in FileState:
            for after in TABLE[state].values():
                reached[state] |= reached[after]
    for state in FileState:
        assert reached[state] & TERMINAL, f"{state} never ends"
        assert reached[S.NOT_USED] == set(FileState)


def test_only_who_drives_a_destination_finishes_it() -> None:
    for state, row in TABLE.items():
        if E.FINISH in row or E.LOSE in row or E.CLEANED in row:
            assert state in DRIVEN
        if row.get(E.CANCEL) is S.CANCELED:
            assert state not in DRIVEN, "what may be writing is cleaned first"
    assert not DRIVEN & TERMINAL


def test_a_claim_starts_from_the_queue_only() -> None:
    assert [state for state, row in TABLE.items() if E.CLAIM in row] == [S.SUBMITTED]


def slow(job_type: JobType, files: list[str], *, begun: bool) -> JobState:
    """FTS's derivation, row by row of its table, from the files themselves."""
    terminal = {"FINISHED", "FAILED", "CANCELED"}
    all_over = all(file in terminal for file in files)
    broken = job_type is JobType.MULTIHOP and any(file in {"FAILED", "CANCELED"} for file in files)
    if not all_over and not broken:
        return J.ACTIVE if begun else J.SUBMITTED
    if "FINISHED" in files and "FAILED" in files:
        return J.FAILED if job_type is JobType.MULTIHOP else J.FINISHEDDIRTY
    if all(file == "FINISHED" for file in files):
        return J.FINISHED
    if "FAILED" in files:
        return J.FAILED
    return J.CANCELED


@pytest.mark.parametrize("job_type", JobType)
@pytest.mark.parametrize("n_files", [1, 2, 3, 4])
def test_roll_up_is_what_fts_derives(job_type: JobType, n_files: int) -> None:
    open_or_over = ("OPEN", "FINISHED", "FAILED", "CANCELED")
    for files in itertools.combinations_with_replacement(open_or_over, n_files):
        for begun in (False, True):
            state = roll_up(
                job_type,
                n_files=n_files,
                n_finished=files.count("FINISHED"),
                n_failed=files.count("FAILED"),
                n_canceled=files.count("CANCELED"),
                begun=begun,
            )
            assert state is slow(job_type, list(files), begun=begun), files


@pytest.mark.parametrize(
    ("job_type", "counts", "state"),
    [
        (JobType.NORMAL, (2, 0, 1), J.CANCELED),
        (JobType.NORMAL, (1, 1, 1), J.FINISHEDDIRTY),
        (JobType.NORMAL, (0, 1, 2), J.FAILED),
        (JobType.MULTIHOP, (1, 1, 0), J.FAILED),
        (JobType.MULTIHOP, (0, 0, 1), J.CANCELED),
        (JobType.MULTIHOP, (3, 0, 0), J.FINISHED),
        (JobType.REPLICAS, (1, 0, 0), J.ACTIVE),
    ],
)
def test_the_edges_of_roll_up(job_type: JobType, counts: tuple[int, int, int], state: JobState) -> None:
    finished, failed, canceled = counts
    found = roll_up(job_type, n_files=3, n_finished=finished, n_failed=failed, n_canceled=canceled, begun=True)
    assert found is state
    assert (state in JOB_TERMINAL) == (sum(counts) == 3 or job_type is JobType.MULTIHOP)
