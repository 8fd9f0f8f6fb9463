"""Every example of the README, run as it is written."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


def _free_port() -> int:
    # The model storages listen on one port of several addresses: it has to be free on all of them.
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


STORAGE_PORT, SERVICE_PORT = _free_port(), _free_port()
"""Instead of the README's, which may be taken on this machine."""


def _block(marker: str, language: str = "") -> str:
    (found,) = [text for name, text in BLOCKS if name == language and marker in text]
    return found.replace("9000", str(STORAGE_PORT)).replace("8446", str(SERVICE_PORT))


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TRANSFER_ENGINE_SERVICE_URL": f"http://127.0.0.1:{SERVICE_PORT}",
    }


def _start(command: str, directory: Path) -> subprocess.Popen[str]:
    """Run a command of the README that stays in the foreground, and read its first line."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command}"],
        cwd=directory,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline(), f"{command} did not start"
    return process


@pytest.fixture
def storages(tmp_path: Path) -> Iterator[Path]:
    process = _start(_block("demo.storages").strip(), tmp_path)
    yield tmp_path
    process.send_signal(signal.SIGTERM)
    process.communicate()


def _shell(text: str, directory: Path) -> str:
    done = subprocess.run(
        ["/bin/sh", "-euc", text], cwd=directory, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_cp_examples(storages: Path) -> None:
    out = _shell(_block("transfer-engine cp -r"), storages)
    assert '"event":"summary","files":1,"finished":1' in out
    assert (storages / "three.bin").stat().st_size == 1_000_000


def test_service_examples(storages: Path) -> None:
    service = _start(_block("transfer-engine serve").strip(), storages)
    try:
        _shell(_block("transfer-engine list --limit"), storages)
        assert "FINISHED" in _shell(_block("transfer-engine wait"), storages)
        assert "until" in _shell(_block("transfer-engine ban"), storages)
    finally:
        service.send_signal(signal.SIGTERM)
        service.communicate()
    assert service.returncode == 0


def test_library_example(storages: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _block("library.db", "python")],
        cwd=storages,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "FINISHED 2 of 2 files"


def test_testing_example() -> None:
    subprocess.run([sys.executable, "-c", _block("transfer_engine.testing", "python")], cwd=ROOT, check=True)
