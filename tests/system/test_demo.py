"""The demo as a newcomer runs it, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "transfer_engine.cli.main", "demo", "--plain")


def _run(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *options],
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_it_ends_by_itself_with_the_storages_agreeing(tmp_path: Path) -> None:
    out, err = (process := _run(tmp_path, "--files", "40")).communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "3 FAILED, 40 FINISHED" in out
    assert "the storages' own records agree" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = _run(tmp_path, "--files", "200")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("4 storages, 12 links")
    process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "transfer-engine: interrupted; nothing is left behind\n"
    assert not list(tmp_path.iterdir())
