"""A running `transfer-engine serve` with model storages, and the `fts3` library connected to it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.clients.venv import Ran, Worker, tool
from tests.storages.process import free_port
from tests.system.processes import TERMINAL, ModelStorages, ServiceProcess, model_storages, poll_until

CONFIG = """
[auth]
loopback = "admin"
[retry]
delay_s = 0.05
retries_max = 1
[transfer]
quarantine_s = 0.2
modes = ["pull", "push"]
[tls]
discover = false
[optimizer]
enabled = false
[service]
grace_s = 0.5
"""
SIZE_BYTES = 10_000
WITHIN_S = 30.0


@dataclass
class Site:
    """The service, its storages, the library in a process of its own, and a plain HTTP client beside it."""

    service: ServiceProcess
    storages: ModelStorages
    library: Worker
    http: aiohttp.ClientSession
    home: Path
    endpoint: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def source(self) -> str:
        """A file that is there."""
        return self.storages.urls[0] + self.storages.pattern % 1

    def source_of(self, storage: int) -> str:
        """The same file at another storage: every storage is born with its own."""
        return self.storages.urls[storage] + self.storages.pattern % 1

    def fresh(self, storage: int = 1) -> str:
        """A destination where nothing is."""
        return f"{self.storages.urls[storage]}/fts3/file-{next(self._numbers)}"

    def pair(self, **more: Any) -> dict[str, Any]:
        """Arguments of the library's `new_transfer`: from what is there to where nothing is."""
        return {"source": self.source, "destination": self.fresh(), **more}

    def se(self, storage: int) -> str:
        """A storage as FTS names it: without the port."""
        return self.storages.urls[storage].rpartition(":")[0]

    async def adler32(self, url: str) -> str | None:
        """What a storage itself says of a file; None: it is not there."""
        for base in self.storages.urls:
            if url.startswith(base + "/"):
                known = (await self.storages.ask(self.http, base, "/.files")).get(url.removeprefix(base))
                return known and str(known[1])
        raise AssertionError(f"{url} is at none of the storages")

    async def ended(self, job_id: str) -> Any:
        """The job with its files, as the library shows it, once it has ended."""

        async def over() -> bool:
            return (await self.library.call("easy", "get_job_status", job_id))["job_state"] in TERMINAL

        await poll_until(over, within_s=WITHIN_S)
        return await self.library.call("easy", "get_job_status", job_id, list_files=True)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request beside the clients, to see what they do not show."""
        async with self.http.request(method, self.service.url + path, json=body) as answer:
            text = await answer.text()
            return answer.status, await answer.json() if text else None

    @asynccontextmanager
    async def drained(self) -> AsyncIterator[None]:
        """Nothing starts meanwhile, so that jobs stay as they were submitted."""
        assert (await self.ask("POST", "/config/drain", {"drain": True}))[0] == 200
        try:
            yield
        finally:
            assert (await self.ask("POST", "/config/drain", {"drain": False}))[0] == 200

    async def tool(self, name: str, *args: str) -> Ran:
        """A command-line tool, sent to the service."""
        return await tool(f"fts-rest-{name}", "-s", self.endpoint, *args, home=self.home)


@asynccontextmanager
async def running_site(directory: Path, *, config: str = CONFIG, files: str = "2x10k") -> AsyncIterator[Site]:
    """Everything over http, ended with the block."""
    (directory / "service.toml").write_text(config, "utf-8")
    (home := directory / "home").mkdir()
    service = ServiceProcess(directory / "queue.sqlite", directory / "service.toml", free_port(set()))
    async with (
        model_storages("--kinds", "xrootd,dcache", "--count", "3", "--files", files) as storages,
        service,
        Worker("fts3_library", home) as library,
        aiohttp.ClientSession() as http,
    ):
        await service.start()
        site = Site(service, storages, library, http, home, service.url)
        await library.call("connect", site.endpoint)
        yield site
