"""A real Rucio takes rules over three real XRootD storages through us: its own conveyor daemons, unmodified."""

from __future__ import annotations

import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.clients import Worker
from tests.clients.fixtures import clients
from tests.clients.rucio import Sections, write_config
from tests.conftest import LazyStorages
from tests.storages.faults import FaultProxy, LoseAnswer
from tests.storages.process import free_port
from tests.storages.storage import Storage
from tests.system.processes import ServiceProcess, poll_until

__all__ = ["clients"]

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(120)]

CONFIG = """
[auth]
loopback = "admin"
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
    directory: Path, storages: LazyStorages, *, scheme: str = "davs", more: Sections | None = None, config: str = CONFIG
) -> AsyncIterator[Lake]:
    """Everything for one test, ended with the block."""
    (directory / "service.toml").write_text(config.format(ca=storages.ca_file), "utf-8")
    service = ServiceProcess(directory / "queue.sqlite", directory / "service.toml", free_port(set()))
    nodes = [storages["xrootd-a"], storages["xrootd-b"], storages.another("xrootd", "xrootd-c")]
    async with service, Worker("rucio_site", directory, write_config(directory, more)) as rucio:
        await service.start()
        await rucio.call("bootstrap")
        for name, node in zip(NAMES, nodes, strict=True):
            port = urlsplit(node.https_url).port
            # A folder of its own for each test: the storages are there for all of them.
            await rucio.call("add_rse", name, scheme, "localhost", port, service.url, f"/{FOLDER}-{directory.name}/")
        async with aiohttp.ClientSession() as http:
            yield Lake(service, rucio, dict(zip(NAMES, nodes, strict=True)), http)


@pytest.mark.parametrize("scheme", ["davs", "https"])
async def test_a_rule_comes_to_ok_by_polling(clients: None, tmp_path: Path, storages: LazyStorages, scheme: str):
    async with running_lake(tmp_path, storages, scheme=scheme) as lake:
        _, data = await lake.place("wanted")
        rule_id = await lake.rucio.call("add_rule", "wanted", "RSE2|RSE3", 2)
        assert (await lake.rucio.call("look", rule_id))["state"] == "REPLICATING"
        rule = await lake.rule(rule_id, "OK")
        assert (rule["locks_ok_cnt"], rule["locks_replicating_cnt"], rule["requests"]) == (2, 0, [])
        for rse in ("RSE2", "RSE3"):
            assert lake.storages[rse].read(await lake.path(rse, "wanted")) == data


async def test_a_missing_source_makes_the_rule_stuck(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages) as lake:
        path, _ = await lake.place("gone", there=False)
        rule_id = await lake.rucio.call("add_rule", "gone", "RSE2", 1)
        rule = await lake.rule(rule_id, "STUCK")
        assert rule["locks_stuck_cnt"] == 1
        assert "SOURCE [2] " in rule["error"]
        assert path in rule["error"]
        # Rucio itself tries three times more, and each is a job of its own.
        jobs = await lake.ended_jobs()
        assert [job["job_state"] for job in jobs] == ["FAILED"] * 4
        reasons = {file["reason"] for job in jobs for file in (await lake.job(job["job_id"]))["files"]}
        assert all(reason.startswith("SOURCE [2] ") for reason in reasons)


async def test_a_lost_answer_gives_one_transfer(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages) as lake, FaultProxy(lake.service.url) as proxy:
        _, data = await lake.place("once")
        for rse in NAMES:
            await lake.rucio.call("set_fts", rse, proxy.url)
        proxy.add(LoseAnswer(), methods={"POST"}, times=1)
        rule_id = await lake.rucio.call("add_rule", "once", "RSE2", 1)
        await lake.rucio.call("submit")
        (request,) = (await lake.rucio.call("look", rule_id))["requests"]
        assert (request["state"], proxy.count("POST")) == ("SUBMITTED", 1)
        # As after a crash of the submitter: it does not know that it has submitted, and does so again.
        await lake.rucio.call("forget_submission", request["id"])
        await lake.rucio.call("submit")
        (again,) = (await lake.rucio.call("look", rule_id))["requests"]
        assert (again["job_id"], proxy.count("POST")) == (request["job_id"], 2)
        await lake.rule(rule_id, "OK")
        assert lake.storages["RSE2"].read(await lake.path("RSE2", "once")) == data
        assert [job["job_id"] for job in await lake.ended_jobs()] == [request["job_id"]]
        assert len((await lake.job(request["job_id"]))["files"]) == 1


async def test_a_replica_that_is_not_there_is_passed_over(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages) as lake:
        _, data = await lake.place("twice", there=False)
        lake.storages["RSE2"].put(await lake.path("RSE2", "twice"), data)
        await lake.rucio.call("add_file", "RSE2", "twice", len(data), f"{zlib.adler32(data):08x}")
        # Rucio orders the sources by their ranking: the wrong one first.
        await lake.rucio.call("set_distance", "RSE2", "RSE3", 5)
        rule_id = await lake.rucio.call("add_rule", "twice", "RSE3", 1)
        await lake.rule(rule_id, "OK")
        assert lake.storages["RSE3"].read(await lake.path("RSE3", "twice")) == data
        (job,) = await lake.ended_jobs()
        assert (job["job_type"], job["job_state"]) == ("R", "FINISHED")


async def test_a_way_over_another_storage(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages, more={"transfers": {"use_multihop": True}}) as lake:
        _, data = await lake.place("far")
        await lake.rucio.call("allow_hops", "RSE2")
        await lake.rucio.call("cut_link", "RSE1", "RSE3")
        rule_id = await lake.rucio.call("add_rule", "far", "RSE3", 1)
        await lake.rule(rule_id, "OK")
        for rse in ("RSE2", "RSE3"):
            assert lake.storages[rse].read(await lake.path(rse, "far")) == data
        (job,) = await lake.ended_jobs()
        assert (job["job_type"], job["job_state"]) == ("H", "FINISHED")


async def test_the_priority_of_a_rule_reaches_its_job(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages) as lake:
        await lake.place("urgent")
        await lake.drain(on=True)
        rule_id = await lake.rucio.call("add_rule", "urgent", "RSE3", 1)
        await lake.rucio.call("submit")
        (request,) = (await lake.rucio.call("look", rule_id))["requests"]
        assert (await lake.job(request["job_id"]))["priority"] == 3
        await lake.rucio.call("set_priority", rule_id, 5)
        assert (await lake.job(request["job_id"]))["priority"] == 5
        await lake.drain(on=False)
        await lake.rule(rule_id, "OK")


async def test_a_job_that_the_service_lost_is_submitted_again(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages) as lake:
        _, data = await lake.place("lost")
        rule_id = await lake.rucio.call("add_rule", "lost", "RSE2", 1)
        await lake.rucio.call("submit")
        (request,) = (await lake.rucio.call("look", rule_id))["requests"]
        await lake.rucio.call("set_job", request["id"], "00000000-0000-4000-8000-000000000000")
        await lake.rucio.call("settle")
        rule = await lake.rule(rule_id, "OK")
        assert rule["locks_ok_cnt"] == 1
        assert lake.storages["RSE2"].read(await lake.path("RSE2", "lost")) == data
