"""The whole way of a job: an FTS client's request over a socket, the real engine, storages by script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from protocols.errors import CopyFailed, Missing
from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine.config import RetrySettings, ServiceSettings, Settings, TransferSettings
from transfer_engine.model import JobId
from transfer_engine.service.server import open_door, serve
from transfer_engine.wiring import TransferEngine

pytestmark = pytest.mark.asyncio

POLL = (
    "files=file_state,dest_surl,finish_time,start_time,staging_start,staging_finished,reason,source_surl,file_metadata"
)


@dataclass
class Running:
    url: str
    http: ClientSession
    engine: TransferEngine
    storages: ScriptedAdapter

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.request(method, self.url + path, json=body) as response:
            return response.status, await response.json()

    async def submit(self, *files: dict[str, Any], **params: Any) -> str:
        status, answer = await self.call("POST", "//jobs", {"files": files, "params": params})
        assert status == 200, answer
        return answer["job_id"]

    async def ended(self, job_id: str) -> Any:
        """The job as Rucio polls it, once it has ended."""
        await self.engine.wait(JobId(job_id), timeout_s=30)
        return (await self.call("GET", f"/jobs/{job_id}?{POLL}"))[1]

    async def seen(self, state: str, n: int) -> None:
        """Wait until `n` transfers have come to this state since the start."""
        async with asyncio.timeout(30):
            async for event in self.engine.events(after=0):
                n -= event.kind == "transfer" and event.state == state
                if n == 0:
                    return

    def file(self, name: str, **more: Any) -> dict[str, Any]:
        seen = self.storages.storage("sim://a").add(name, size_bytes=1000)
        self.storages.storage("sim://b")
        plain = {
            "sources": [f"sim://a{name}"],
            "destinations": [f"sim://b{name}"],
            "filesize": seen.size_bytes,
            "metadata": {"request_id": name},
        }
        return plain | more


@asynccontextmanager
async def running(database: Path) -> AsyncIterator[Running]:
    storages = ScriptedAdapter(marker_s=0.01)
    settings = Settings(
        retry=RetrySettings(delay_s=0, retries_max=1), transfer=TransferSettings(quarantine_s=0, cleanup_s=5)
    )
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with (
        TransferEngine(str(database), settings=settings, adapters=[storages]) as engine,
        ClientSession() as http,
        asyncio.TaskGroup() as group,
    ):
        task = group.create_task(
            serve(engine, ServiceSettings(port=0, grace_s=1), open_door(), on_ready=ready.set_result)
        )
        try:
            yield Running(await ready, http, engine, storages)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_job_of_many_files_ends_as_it_should(tmp_path: Path):
    async with running(tmp_path / "queue.sqlite") as service:
        service.storages.rule("sim://a/gone*", operations={"stat"}, error=lambda: Missing("no such file"))
        service.storages.rule(
            "sim://b/flaky*", operations={"copy"}, attempts=range(1, 2), error=lambda: CopyFailed("x")
        )
        files = [service.file(f"/{kind}-{n}") for n in range(40) for kind in ("good", "gone", "flaky")]
        assert (await service.call("GET", "/readyz"))[0] == 200
        job_id = await service.submit(*files, verify_checksum="both", job_metadata={"issuer": "rucio"})
        job = await service.ended(job_id)
        assert (job["job_state"], job["http_status"]) == ("FINISHEDDIRTY", "200 Ok")
        assert [one["file_metadata"]["request_id"] for one in job["files"]] == [f["sources"][0][7:] for f in files]
        for one in job["files"]:
            gone = "gone" in one["source_surl"]
            assert one["file_state"] == ("FAILED" if gone else "FINISHED")
            assert one["finish_time"] is not None
            assert one["reason"] == ("SOURCE [2] no such file" if gone else None)
        _, shown = await service.call("GET", f"/jobs/{job_id}/files")
        assert {one["retry"] for one in shown if "flaky" in one["source_surl"]} == {1}
        flaky = next(one["file_id"] for one in shown if "flaky" in one["source_surl"])
        _, attempts = await service.call("GET", f"/jobs/{job_id}/files/{flaky}/retries")
        assert len(attempts) == 1
        assert len(service.storages.storage("sim://b").files()) == 80


async def test_cancel_while_copies_run(tmp_path: Path):
    async with running(tmp_path / "queue.sqlite") as service:
        rule = Rule(match="sim://b/*", operations=frozenset({"copy"}), stall=True, cancel_lag_s=0)
        service.storages.add_rule(rule)
        job_id = await service.submit(service.file("/x"), service.file("/y"))
        await service.seen("ACTIVE", 2)
        status, job = await service.call("DELETE", f"/jobs/{job_id}")
        assert (status, job["job_state"], job["http_status"]) == (200, "CANCELED", "200 Ok")
        job = await service.ended(job_id)
        assert job["job_state"] == "CANCELED"
        assert {one["file_state"] for one in job["files"]} == {"CANCELED"}
        assert {one["reason"] for one in job["files"]} == {"Job canceled by the user"}
        await service.seen("CANCELED", 2)
        assert service.storages.storage("sim://b").files() == {}
        _, job = await service.call("DELETE", f"/jobs/{job_id}")
        assert job["http_status"] == "304 Not Modified"


async def test_replicas_and_routes(tmp_path: Path):
    async with running(tmp_path / "queue.sqlite") as service:
        service.storages.storage("sim://c").add("/f", size_bytes=1000)
        several = service.file("/f", sources=["sim://nowhere/f", "sim://c/f"], destinations=["sim://b/f"])
        job = await service.ended(await service.submit(several, job_metadata={"multi_sources": True}))
        assert (job["job_type"], job["job_state"]) == ("R", "FINISHED")
        assert [one["file_state"] for one in job["files"]] == ["FAILED", "FINISHED"]
        hops = [
            service.file("/h"),
            service.file("/h", sources=["sim://b/h"], destinations=["sim://d/h"]),
        ]
        service.storages.storage("sim://d")
        job = await service.ended(await service.submit(*hops, multihop=True))
        assert (job["job_type"], job["job_state"]) == ("H", "FINISHED")
        broken = [
            service.file("/i", sources=["sim://a/missing"]),
            service.file("/i", sources=["sim://b/i"], destinations=["sim://d/i"]),
        ]
        job = await service.ended(await service.submit(*broken, multihop=True))
        assert (job["job_state"], [one["file_state"] for one in job["files"]]) == ("FAILED", ["FAILED", "NOT_USED"])
        assert job["files"][1]["reason"] is None


async def test_accepted_jobs_are_there_after_a_restart(tmp_path: Path):
    database = tmp_path / "queue.sqlite"
    async with running(database) as service:
        job_id = await service.submit(service.file("/x"))
        await service.ended(job_id)
    async with running(database) as service:
        status, job = await service.call("GET", f"/jobs/{job_id}")
        assert (status, job["job_state"]) == (200, "FINISHED")
