"""What the progress bar says."""

from __future__ import annotations

import pytest

from transfer_engine.cli.output import size
from transfer_engine.cli.progress import Tally, shown
from transfer_engine.engine import LinkStatus, Running
from transfer_engine.model import FileId, JobId
from transfer_engine.places import Link


def running(n: int, *, done: int = 0, size_bytes: int | None = 100, phase: str = "copying") -> Running:
    return Running(
        file_id=FileId(n),
        job_id=JobId("j"),
        link=Link("http://a", "http://b"),
        phase=phase,
        mode="pull",
        bytes_done=done,
        size_bytes=size_bytes,
        since_s=1.0,
    )


def link(*, ready: int = 0, finished: int = 0, failed: int = 0, bytes_done: int = 0) -> LinkStatus:
    return LinkStatus(
        source_se="http://a",
        dest_se="http://b",
        ready=ready,
        active=0,
        finished=finished,
        failed=failed,
        retried=0,
        bytes_done=bytes_done,
    )


def tally(*sizes: int | None) -> Tally:
    counted = Tally()
    for one in sizes:
        counted.count(one)
    counted.n_submitted = len(sizes)
    return counted


def test_known_sizes():
    now = shown([running(1, done=50), running(2, phase="verifying", done=100)], [], tally(100, 100))
    assert (now.files, now.moved, now.states) == ("0/2", "150 B of 200 B", "copying, verifying")
    assert (now.completed, now.total) == (150, 200)


def test_sizes_not_told_are_estimated_and_not_shown_as_facts():
    now = shown([running(3, done=10)], [link(finished=1, bytes_done=300, ready=1)], tally(None, None, None))
    assert (now.files, now.moved, now.total) == ("1/3", "310 B", 600)
    assert now.states == "copying, waiting"
    assert shown([running(1, size_bytes=None)], [], tally(None)).total is None
    assert shown([], [], Tally()).total is None


def test_what_is_neither_ended_nor_running_nor_ready_will_be_retried():
    now = shown([running(1)], [link(ready=2, failed=1)], tally(1, 1, 1, 1, 1, 1))
    assert now.states == "copying, to be retried 2, waiting 2"


def test_files_that_are_only_found_yet_do_not_wait_for_a_retry():
    counted = tally(1, 1)
    counted.n_submitted = 0
    assert shown([], [], counted).states == ""


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (123_456, "123 kB"),
        (999_600, "1 MB"),
        (2.5e9, "2.5 GB"),
    ],
)
def test_sizes(n: float, text: str):
    assert size(n) == text
