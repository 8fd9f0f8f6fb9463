"""The harness itself: servers end with their tests, and say what they lack."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storages import CannotRun, process
from tests.storages.kinds import kind_of

ROOT = Path(__file__).parents[2]

STARTER = """
import sys, tempfile, time
from pathlib import Path
from tests.storages import Storages
with Storages(Path(tempfile.mkdtemp(prefix="te")), kinds={"rclone"}) as storages:
    print(*[server.pid for server in storages["rclone"].servers], storages.directory, flush=True)
    sys.stdin.read()
"""


@pytest.mark.real
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes by Linux's pidfd")
def test_servers_die_with_tests_that_are_killed(storages):
    storages["rclone"]  # fails or skips where it is missing
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        *pids, directory = tests.stdout.readline().split()
        handles = [os.pidfd_open(int(pid)) for pid in pids]
        assert len(handles) == 2
        tests.send_signal(signal.SIGKILL)
    for handle in handles:
        ended, _, _ = select.select([handle], [], [], 10)
        os.close(handle)
        assert ended
    subprocess.run(["rm", "-r", directory], check=True)


@pytest.mark.real
def test_files_behind_the_servers_back(storage):
    storage.put("deep/er/file.bin", b"1")
    assert storage.read("deep/er/file.bin") == b"1"
    assert "deep/er/file.bin" in storage.names()
    assert storage.running()


def test_what_is_missing_is_named():
    with pytest.raises(CannotRun, match="no-such-program is missing: apt-get install some-package"):
        process.find_program("no-such-program", "some-package other")
    with pytest.raises(CannotRun, match="plug-in libNoSuch"):
        process.find_library("libNoSuch-*.so", "some-package")


def test_an_unknown_storage_names_the_known():
    with pytest.raises(KeyError, match="expected one of xrootd-a"):
        kind_of("dcache")


def test_a_short_name_for_sockets(tmp_path):
    made, remove = process.short_directory(tmp_path / ("long" * 20), 60)
    try:
        assert remove == made
        assert len(str(made)) <= 60
    finally:
        made.rmdir()
    assert process.short_directory(tmp_path / "x", 200) == (tmp_path / "x", None)
