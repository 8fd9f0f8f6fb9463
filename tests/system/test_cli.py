"""The command line as a user's shell runs it: processes, pipes and signals, against model storages."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.system.processes import START_S, ModelStorages, model_storages, poll_until

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

SIZE = 200_000
STORAGES = ("--count", "2", "--one-host", "--files", f"6x{SIZE}", "--marker-period", "0.1")
SLOW = ("--count", "2", "--one-host", "--files", "2x20m", "--bandwidth", "2m", "--marker-period", "0.1")
COMMAND = (sys.executable, "-m", "transfer_engine.cli.main")
OWN = ("TRANSFER_ENGINE_", "BEARER_", "X509_")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@asynccontextmanager
async def started(*arguments: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running command; killed if it still runs at the end of the block."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=inherited | environ
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        # Closes the pipes too, which otherwise outlive the loop.
        await process.communicate()


async def ended(process: asyncio.subprocess.Process, given: bytes = b"") -> Ran:
    async with asyncio.timeout(START_S):
        out, err = await process.communicate(given)
    assert process.returncode is not None
    ran = Ran(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in ran.err, ran.err
    return ran


async def command(*arguments: str, given: str = "", **environ: str) -> Ran:
    async with started(*arguments, **environ) as process:
        return await ended(process, given.encode())


def source(storages: ModelStorages, number: int) -> str:
    return storages.urls[0] + storages.pattern % number


async def sizes(storages: ModelStorages, which: int = 1) -> dict[str, int]:
    async with aiohttp.ClientSession() as http:
        files = await storages.ask(http, storages.urls[which], "/.files")
    return {path: row[0] for path, row in files.items() if not path.startswith("/src/")}


async def test_copies_and_their_exit_codes():
    async with model_storages(*STORAGES) as storages:
        a, b = storages.urls
        ran = await command("cp", source(storages, 1), f"{b}/d/1")
        assert ran == Ran(0, "", "")
        ran = await command("cp", source(storages, 1), f"{b}/d/1")
        assert ran.code == 7
        assert "ALREADY_EXISTS" in ran.err
        ran = await command("cp", "--overwrite", "--json", source(storages, 1), f"{b}/d/1")
        assert (ran.code, ran.err) == (0, "")
        assert ran.lines[-1]["bytes"] == SIZE
        ran = await command("cp", f"{a}/src/none", f"{b}/d/2")
        assert ran.code == 3
        assert len(ran.err.splitlines()) == 1
        ran = await command("cp", "--checksum", "adler32:00000001", source(storages, 1), f"{b}/d/2")
        assert ran.code == 8
        ran = await command("cp", "--retries", "0", "http://127.0.0.1:1/x", f"{b}/d/2")
        assert ran.code == 5
        assert await sizes(storages) == {"/d/1": SIZE}


async def test_lists_from_files_and_from_standard_input(tmp_path: Path):
    async with model_storages(*STORAGES) as storages:
        b = storages.urls[1]
        text = f"# both\n\n'{source(storages, 1)}' {b}/d/1\n{source(storages, 2)} {b}/d/\n"
        ran = await command("cp", "--json", "--from-file", "-", given=text)
        assert ran.code == 0, ran.err
        assert await sizes(storages) == {"/d/1": SIZE, "/d/f000002": SIZE}
        (tmp_path / "list").write_text(text + f"{source(storages, 3)} {b}/d/3\n")
        ran = await command("cp", "--dry-run", "--json", "--from-file", str(tmp_path / "list"))
        assert [line.get("action") for line in ran.lines] == [
            "exists, would fail without --overwrite",
            "exists, would fail without --overwrite",
            "copy",
            None,
        ]
        assert (ran.code, ran.lines[-1]["bytes"]) == (6, SIZE)
        assert "/d/3" not in await sizes(storages)
        ran = await command("cp", "--from-file", str(tmp_path / "list"))
        assert ran.code == 6
        assert "1 of 3 files copied" in ran.out


async def test_directories_and_files_of_this_machine(tmp_path: Path):
    async with model_storages(*STORAGES) as storages:
        a, b = storages.urls
        assert (await command("cp", "-r", f"{a}/src/", f"{b}/mirror")).code == 0
        assert await sizes(storages) == {f"/mirror/f{n:06}": SIZE for n in range(1, 7)}
        (tmp_path / "deep").mkdir()
        assert (await command("cp", source(storages, 1), f"{tmp_path}/deep/")).code == 0
        data = (tmp_path / "deep" / "f000001").read_bytes()
        assert len(data) == SIZE
        assert (await command("cp", (tmp_path / "deep" / "f000001").as_uri(), f"{b}/up/ü%20x")).code == 0
        assert (await command("cp", "-r", str(tmp_path), f"{b}/tree/")).code == 0
        assert (await command("cp", "-r", f"{b}/tree", f"{tmp_path}/back")).code == 0
        assert (tmp_path / "back" / "deep" / "f000001").read_bytes() == data
        assert (await command("cp", f"{a}/src", f"{b}/x")).code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interrupt_in_the_middle_of_a_copy(number: signal.Signals):
    async with model_storages(*SLOW) as storages:
        b = storages.urls[1]
        quick = {"TRANSFER_ENGINE_TRANSFER__QUARANTINE_S": "0.5"}
        async with started("cp", source(storages, 1), f"{b}/d/1", **quick) as process:

            async def is_copying() -> bool:
                return "/d/1" in await sizes(storages)

            await poll_until(is_copying, within_s=START_S)
            process.send_signal(number)
            ran = await ended(process)
        assert ran.code == 130
        assert "another Ctrl-C leaves at once" in ran.err
        assert ran.out == "interrupted: 0 of 1 files copied\n"
        assert await sizes(storages) == {}


@pytest.mark.parametrize("arguments", [("cp", "--from-file", "-"), ("submit", "--from-file", "-")])
async def test_an_interrupt_while_standard_input_is_silent(arguments: tuple[str, ...]):
    async with started(*arguments) as process:

        async def is_reading() -> bool:
            # Its thread looks at the pipe again and again once everything is imported.
            return len(os.listdir(f"/proc/{process.pid}/task")) > 1  # noqa: PTH208 - no disk is read

        await poll_until(is_reading, within_s=START_S)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(START_S):
            # The pipe is not closed: that it says nothing must not matter.
            assert await process.wait() == 130
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.read()


async def test_the_head_of_a_pipe():
    """A reader that goes away ends the copying at the next line, without remains and without a traceback."""
    size = 1_000_000
    async with model_storages(
        *SLOW[:3], "--files", f"8x{size}", "--bandwidth", "2m", "--marker-period", "0.1"
    ) as storages:
        source_url, to = f"{storages.urls[0]}/src/", f"{storages.urls[1]}/d/"
        shell = " ".join([*COMMAND, "cp", "--json", "--parallel", "1", "-r", source_url, to, "| head -1"])
        process = await asyncio.create_subprocess_exec(
            *("bash", "-o", "pipefail", "-c", shell),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"TRANSFER_ENGINE_TRANSFER__QUARANTINE_S": "0.5"},
        )
        ran = await ended(process)
        assert ran.code == 1
        assert ran.lines[0]["state"] == "SUBMITTED"
        arrived = await sizes(storages)
        assert len(arrived) < 4
        assert set(arrived.values()) <= {size}


async def test_a_storage_that_dies_ends_the_command():
    """And is not waited for as long as a service would."""
    quick = {"TRANSFER_ENGINE_TRANSFER__PROBE_MAX_S": "1"}
    async with AsyncExitStack() as living, model_storages(*SLOW) as sources:
        storages = await living.enter_async_context(model_storages(*SLOW))
        copying = ("cp", "--json", "--retries", "0", source(sources, 1), f"{storages.urls[1]}/d/1")
        async with started(*copying, **quick) as process:

            async def is_copying() -> bool:
                return "/d/1" in await sizes(storages)

            await poll_until(is_copying, within_s=START_S)
            await living.aclose()
            ran = await ended(process)
    assert ran.code == 5, ran
    assert ran.lines[-1]["failed"] == 1


async def test_a_service_and_its_clients(tmp_path: Path):
    serve = ("serve", "--no-auth", "--port", "0", "--database", f"sqlite:///{tmp_path}/te.db")
    async with model_storages(*STORAGES) as storages, started(*serve) as service:
        assert service.stdout is not None
        async with asyncio.timeout(START_S):
            first = (await service.stdout.readline()).decode()
        assert first.startswith("listening on http://127.0.0.1:")
        at = {"TRANSFER_ENGINE_SERVICE_URL": first.split()[-1]}
        b = storages.urls[1]

        ran = await command("submit", source(storages, 1), f"{b}/d/1", **at)
        job_id = ran.out.strip()
        assert (ran.code, ran.err, len(job_id)) == (0, "", 36)
        ran = await command("wait", "--timeout", "20", job_id, **at)
        assert (ran.code, "FINISHED" in ran.out) == (0, True)
        ran = await command("status", "--json", job_id, **at)
        assert ran.lines[0]["files"][0]["filesize"] == SIZE
        pairs = f"{source(storages, 2)} {b}/d/2\n{storages.urls[0]}/none {b}/d/3\n"
        ran = await command("submit", "--wait", "--from-file", "-", given=pairs, **at)
        assert ran.code == 6
        assert "HTTP 404" in ran.err
        ran = await command("list", "--state", "finished", "--service", at["TRANSFER_ENGINE_SERVICE_URL"])
        assert ran.out.startswith(job_id)
        assert (await command("cancel", job_id, **at)).code == 0
        assert (await command("status", "nonsense", **at)).code == 3
        ran = await command(*serve)
        assert (ran.code, "another engine is running" in ran.err) == (5, True)

        service.send_signal(signal.SIGTERM)
        ran = await ended(service)
        assert (ran.code, ran.out) == (0, "stopped\n")
        assert "without authentication" in ran.err
        ran = await command("wait", job_id, **at)
        assert (ran.code, len(ran.err.splitlines())) == (10, 1)
