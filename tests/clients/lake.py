"""A real Rucio with three real XRootD storages, and the service between them."""

from __future__ import annotations

import random
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.clients.rucio import Sections, write_config
from tests.clients.venv import Worker
from tests.conftest import LazyStorages
from tests.grid import Identity
from tests.storages.process import free_port
from tests.storages.storage import Storage
from tests.system.processes import ServiceProcess, poll_until

CONFIG = """
[retry]
delay_s = 0.1
retries_max = 1
[transfer]
quarantine_s = 1.0
[tls]
ca = "{ca}"
[optimizer]
enabled = false
"""
NAMES = ("RSE1", "RSE2", "RSE3")
WITHIN_S = 60.0
FOLDER = "rucio"


@dataclass(frozen=True, kw_only=True)
class Front:
    """How the service is reached, and what it moves files between."""

    settings: str = '[auth]\nloopback = "admin"\n'
    """Who may come in."""
    ca: Path | None = None
    """PEM that its certificate is checked with; None: plain HTTP."""
    user: Identity | None = None
    """Whose certificate the tests show beside Rucio."""
    nodes: str = "xrootd"
    """Kind of the storages; there are two by name, and a third."""


PLAIN = Front()


@dataclass
class Lake:
    """Rucio, its three storages, and the service between them."""

    service: ServiceProcess
    rucio: Worker
    storages: dict[str, Storage]
    http: aiohttp.ClientSession

    async def place(self, name: str, *, there: bool = True) -> tuple[str, bytes]:
        """A file at the first storage that Rucio knows of; with `there` off, Rucio is wrong."""
        data = random.Random(name).randbytes(200_000)
        path = await self.path("RSE1", name)
        if there:
            self.storages["RSE1"].put(path, data)
        await self.rucio.call("add_file", "RSE1", name, len(data), f"{zlib.adler32(data):08x}")
        return path, data

    async def place_at_second_only(self, name: str) -> bytes:
        """A file of which Rucio believes that it is at the first storage, too, and prefers that one."""
        _, data = await self.place(name, there=False)
        self.storages["RSE2"].put(await self.path("RSE2", name), data)
        await self.rucio.call("add_file", "RSE2", name, len(data), f"{zlib.adler32(data):08x}")
        await self.rucio.call("set_distance", "RSE2", "RSE3", 5)
        return data

    async def path(self, rse: str, name: str) -> str:
        """A file's place at a storage, from the storage's root."""
        return urlsplit(await self.rucio.call("path_of", rse, name)).path.lstrip("/")

    async def job(self, job_id: str) -> Any:
        """A job and its files, from the service itself."""
        async with self.http.get(f"{self.service.url}/jobs/{job_id}?files=file_state,reason,dest_surl") as answer:
            return await answer.json()

    async def ended_jobs(self) -> list[Any]:
        """All that the service has done so far."""
        query = "limit=500&state_in=FINISHED,FAILED,FINISHEDDIRTY,CANCELED"
        async with self.http.get(f"{self.service.url}/jobs?{query}") as answer:
            return list(await answer.json())

    async def drain(self, *, on: bool) -> None:
        """Nothing starts meanwhile."""
        async with self.http.post(f"{self.service.url}/config/drain", json={"drain": on}) as answer:
            assert answer.status == 200

    async def rule(self, rule_id: str, state: str, *, poll: bool = True) -> Any:
        """Let the daemons take turns until the rule has come to a state; the rule and its requests."""
        seen: Any = {}

        async def there() -> bool:
            await self.rucio.call("submit")
            await self.rucio.call("settle", poll=poll)
            seen.update(await self.rucio.call("look", rule_id))
            return seen["state"] == state

        try:
            await poll_until(there, within_s=WITHIN_S, every_s=0.3)
        except TimeoutError:
            pytest.fail(f"the rule is not {state}: {seen}\n{self.rucio.log()[-6000:]}")
        return seen


@asynccontextmanager
async def running_lake(
    directory: Path,
    storages: LazyStorages,
    *,
    scheme: str = "davs",
    more: Sections | None = None,
    config: str = CONFIG,
    front: Front = PLAIN,
) -> AsyncIterator[Lake]:
    """Everything for one test, ended with the block."""
    (directory / "service.toml").write_text(front.settings + config.format(ca=storages.ca_file), "utf-8")
    service = ServiceProcess(directory / "queue.sqlite", directory / "service.toml", free_port(set()), ca=front.ca)
    nodes = [storages[f"{front.nodes}-{letter}"] for letter in "ab"]
    nodes.append(storages.another(front.nodes, f"{front.nodes}-c"))
    async with service, Worker("rucio_site", directory, write_config(directory, more)) as rucio:
        await service.start()
        await rucio.call("bootstrap")
        for name, node in zip(NAMES, nodes, strict=True):
            port = urlsplit(node.https_url).port
            # A folder of its own for each test: the storages are there for all of them.
            await rucio.call("add_rse", name, scheme, "localhost", port, service.url, f"/{FOLDER}-{directory.name}/")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=_trust(front))) as http:
            yield Lake(service, rucio, dict(zip(NAMES, nodes, strict=True)), http)


def _trust(front: Front) -> ssl.SSLContext | bool:
    if front.ca is None:
        return True
    trust = ssl.create_default_context(cafile=front.ca)
    if front.user is not None:
        trust.load_cert_chain(front.user.certificate, front.user.key_file)
    return trust
