"""Processes that system tests start: the job service, model storages; and how to wait for what they do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from transfer_engine.service.wire.ids import vo_id

POLL_S = 0.1
START_S = 30.0
STOP_S = 20.0

TERMINAL = frozenset({"FINISHED", "FAILED", "CANCELED", "FINISHEDDIRTY"})


async def poll_until(condition: Callable[[], Awaitable[bool]], *, within_s: float, every_s: float = POLL_S) -> None:
    """Ask a process from outside again and again; TimeoutError when it does not come true."""
    async with asyncio.timeout(within_s):
        while not await condition():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await asyncio.Event().wait()


@dataclass
class ServiceProcess:
    """`transfer-engine serve`, which may be killed and started again on the same database and port."""

    database: Path
    config: Path
    port: int
    ca: Path | None = None
    """PEM that its certificate is checked with, where it speaks https; nobody comes in without a credential then."""
    n_starts: int = 0
    log: bytes = b""
    """Standard error of the runs that have ended, and the end of standard output."""
    _process: asyncio.subprocess.Process | None = None
    _readers: list[asyncio.Task[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{'http' if self.ca is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "transfer_engine.cli.main", "serve", "--host", "127.0.0.1"),
            *(("--no-auth",) if self.ca is None else ()),
            *("--port", str(self.port), "--database", f"sqlite:///{self.database}", "--config", str(self.config)),
        ]

    async def launch(self) -> None:
        """Start it without waiting for anything."""
        assert not self.running
        self.n_starts += 1
        self._process = await asyncio.create_subprocess_exec(
            *self.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        # Pipes that nobody empties would stop the service.
        self._readers = [asyncio.create_task(pipe.read()) for pipe in (self._process.stdout, self._process.stderr)]

    async def start(self) -> None:
        """Start it and wait until it takes jobs."""
        await self.launch()
        await poll_until(self.ready, within_s=START_S, every_s=0.02)

    async def ready(self) -> bool:
        """Whether `/readyz` says yes; AssertionError when the process has ended."""
        assert self.running, f"the service ended: {(await self.ended())[1]}"
        try:
            trust = True if self.ca is None else ssl.create_default_context(cafile=self.ca)
            async with aiohttp.ClientSession() as http, http.get(self.url + "/readyz", ssl=trust) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def live_for(self, seconds: float) -> None:
        """Let it work for a while; AssertionError when it ends by itself."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
                raise AssertionError(f"the service ended: {await self.ended()}")

    async def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self.ended()

    async def terminate(self) -> int:
        """Ask it to end; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_S):
            return (await self.ended())[0]

    async def ended(self) -> tuple[int, str]:
        """(exit status, everything it wrote), once it has ended."""
        assert self._process is not None
        status = await self._process.wait()
        written = b"".join([await reader for reader in self._readers])
        self._readers = []
        self.log = (self.log + written)[-200_000:]
        return status, written.decode(errors="replace")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self.running:
            await self.kill()


@dataclass(frozen=True)
class ModelStorages:
    """Model storages in another process."""

    urls: list[str]
    pattern: str

    async def ask(self, http: aiohttp.ClientSession, url: str, what: str) -> Any:
        """`/.files` or `/.journal` of one storage."""
        async with http.get(url + what) as answer:
            assert answer.status == 200
            return json.loads(await answer.read())


@asynccontextmanager
async def model_storages(*options: str) -> AsyncIterator[ModelStorages]:
    """`python -m transfer_engine.demo.storages` with these options; ended with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "transfer_engine.demo.storages", "--expose-journal", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            told = json.loads(await process.stdout.readline())
        yield ModelStorages([row["url"] for row in told["storages"]], told["files"]["pattern"])
        assert process.returncode is None, "the storages ended by themselves"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


@dataclass(frozen=True)
class Client:
    """An FTS client, in as much as the tests need one."""

    http: aiohttp.ClientSession
    service: ServiceProcess

    async def submit(self, files: list[dict[str, Any]], sid: str | None = None, **params: Any) -> str:
        """Submit until an answer has come, however often the service goes away meanwhile; the job's id.

        Args: sid: makes the job's id, so that a submission whose answer was lost is not a second job.
        """
        if sid is not None:
            params |= {"id_generator": "deterministic", "sid": sid}
        body = {"files": files, "params": {"verify_checksum": "both", **params}}
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with self.http.post(self.service.url + "/jobs", json=body) as answer:
                    text = await answer.text()
                    if answer.status == 200:
                        return json.loads(text)["job_id"]
                    if answer.status == 409:
                        assert sid is not None, text
                        return str(uuid.uuid5(vo_id("local"), sid))
                    assert answer.status == 503, text
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S / 2):
                    await asyncio.Event().wait()

    async def get(self, path: str) -> Any:
        """The JSON of one answer; 200 and 207 only."""
        async with self.http.get(self.service.url + path) as answer:
            text = await answer.text()
            assert answer.status in {200, 207}, text
            return json.loads(text)

    async def jobs(self, job_ids: list[str], columns: str = "") -> list[dict[str, Any]]:
        """Several jobs, with the named columns of their files."""
        found: list[dict[str, Any]] = []
        suffix = f"?files={columns}" if columns else ""
        for start in range(0, len(job_ids), 50):
            part = job_ids[start : start + 50]
            answer = await self.get(f"/jobs/{','.join(part)}{suffix}")
            found += answer if isinstance(answer, list) else [answer]
        return found

    async def wait(self, job_ids: list[str], *, within_s: float) -> None:
        """Poll until all jobs have ended."""

        async def all_ended() -> bool:
            return all(job["job_state"] in TERMINAL for job in await self.jobs(job_ids))

        await poll_until(all_ended, within_s=within_s, every_s=0.5)


@asynccontextmanager
async def client_of(service: ServiceProcess) -> AsyncIterator[Client]:
    """A client with connections of its own."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        yield Client(http, service)
