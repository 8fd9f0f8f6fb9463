"""The demo as a newcomer runs it, in a process of its own."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

COMMAND = (sys.executable, "-m", "transfer_engine.cli.main", "demo")
AS_IT_MUST_BE = "by the storages' own records every finished file is right"


def _run(directory: Path, *options: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    return subprocess.Popen(
        [*COMMAND, *options],
        env={**environment, "TMPDIR": str(directory), "TERM": "xterm"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_it_ends_by_itself_with_the_storages_agreeing(tmp_path: Path) -> None:
    out, err = (process := _run(tmp_path, "--plain", "--files", "60")).communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out
    assert out.startswith("4 storages (ALPHA xrootd, ")
    assert "3 FAILED, 60 FINISHED" in out
    assert AS_IT_MUST_BE in out
    assert "gone-1: SOURCE [2]" in out
    assert "taken: DESTINATION [17] Destination file exists" in out
    assert "ask for overwriting, or remove the file" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_goes_on_for_the_seconds_asked_for(tmp_path: Path) -> None:
    out, err = (process := _run(tmp_path, "--plain", "--files", "5", "--seconds", "2")).communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out
    n_transfers = int(out.partition(" transfers in ")[0].rpartition("\n")[2])
    assert n_transfers > 3 + 5
    assert AS_IT_MUST_BE in out


@pytest.mark.slow
def test_on_a_terminal_it_draws_a_table(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = _run(tmp_path, "--files", "10", stdout=theirs)
    os.close(theirs)
    screen = b""
    # Linux reports the closed other end as an error.
    with suppress(OSError):
        while block := os.read(ours, 65536):
            screen += block
    os.close(ours)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    text = screen.decode()
    assert text.count("ALPHA → BRAVO") > 1
    assert "13 of 13 ended" in text
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l") == 1, "the cursor comes back"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = _run(tmp_path, "--plain", "--files", "200")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("4 storages (")
    url = urlsplit(process.stdout.readline().split()[-1])
    assert url.hostname is not None
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    # An impatient user does not keep the first one from cleaning up.
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "transfer-engine: interrupted; nothing is left behind\n"
    assert out.startswith("stopping at ")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url.hostname, url.port or 0), timeout=5)
