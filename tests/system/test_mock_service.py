"""`mock://` through the service, as Rucio's conveyor tests use it: an FTS client's requests over a socket."""

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

from transfer_engine.config import RetrySettings, ServiceSettings, Settings, TransferSettings
from transfer_engine.model import JobId
from transfer_engine.service.server import open_door, serve
from transfer_engine.wiring import TransferEngine

pytestmark = pytest.mark.asyncio

SUM = "02fa10b3"
SHOWN = "files=file_state,reason,source_surl,dest_surl,file_metadata"


@dataclass
class Service:
    url: str
    http: ClientSession
    engine: TransferEngine

    async def submit(self, *files: dict[str, Any], **params: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/jobs", json={"files": files, "params": params}) as answer:
            return answer.status, await answer.json()

    async def ended(self, *files: dict[str, Any], **params: Any) -> Any:
        status, answer = await self.submit(*files, **params)
        assert status == 200, answer
        await self.engine.wait(JobId(answer["job_id"]), timeout_s=30)
        async with self.http.get(f"{self.url}/jobs/{answer['job_id']}?{SHOWN}") as polled:
            return await polled.json()


@asynccontextmanager
async def service(database: Path, *, mock: bool = True) -> AsyncIterator[Service]:
    settings = Settings(
        retry=RetrySettings(delay_s=0, retries_max=1), transfer=TransferSettings(mock=mock, quarantine_s=0)
    )
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with (
        TransferEngine(str(database), settings=settings) as engine,
        ClientSession() as http,
        asyncio.TaskGroup() as group,
    ):
        task = group.create_task(
            serve(engine, ServiceSettings(port=0, grace_s=1), open_door(), on_ready=ready.set_result)
        )
        try:
            yield Service(await ready, http, engine)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def file(source: str = "", destination: str = "", **more: Any) -> dict[str, Any]:
    """As Rucio writes one for RSEs of the mock scheme: no port, two bytes."""
    return {
        "sources": [f"mock://src.cern.ch/test/scope/name{source}"],
        "destinations": [f"mock://dst.cern.ch/test/scope/name{destination}"],
        "filesize": 2,
        "checksum": f"ADLER32:{SUM}",
        "metadata": {"request_id": "r", "dst_type": "DISK"},
        **more,
    }


@pytest.mark.parametrize(
    ("one", "params", "reason"),
    [
        (file(), {"verify_checksum": "none"}, None),
        (file(f"?checksum={SUM}", f"?checksum={SUM}"), {"verify_checksum": "both"}, None),
        (file(f"?checksum={SUM}", "?checksum=randomString2"), {"verify_checksum": "source"}, None),
        (
            file(f"?checksum={SUM}", "?checksum=randomString2", checksum="MD5:" + "0" * 32),
            {"verify_checksum": "target"},
            f"DESTINATION [5] User-defined and destination MD5 checksum do not match ({'0' * 32} != randomString2)",
        ),
        (
            file(f"?checksum={SUM}", "?checksum=randomString2"),
            {"verify_checksum": "both"},
            f"DESTINATION [5] User-defined and destination ADLER32 checksum do not match ({SUM} != randomString2)",
        ),
        (file("?errno=2"), {}, "SOURCE [2] No such file or directory"),
        (file("", "?errno=13"), {}, "DESTINATION [13] Permission denied"),
        (
            file("", "?transfer_errno=28"),
            {"verify_checksum": "none", "retry": -1},
            "TRANSFER [28] No space left on device",
        ),
        (file("?size=2", "?size_pre=7&size_post=2"), {"overwrite": True, "verify_checksum": "none"}, None),
    ],
)
async def test_a_job_ends_as_its_urls_say(tmp_path: Path, one: Any, params: Any, reason: str | None) -> None:
    async with service(tmp_path / "queue.sqlite") as running:
        job = await running.ended(one, job_metadata={"issuer": "rucio"}, **params)
        (seen,) = job["files"]
        assert seen["reason"] == reason
        assert (job["job_state"], seen["file_state"]) == (("FINISHED",) * 2 if reason is None else ("FAILED",) * 2)
        assert seen["source_surl"] == one["sources"][0]


async def test_a_file_in_the_way_is_reported_to_rucio(tmp_path: Path) -> None:
    async with service(tmp_path / "queue.sqlite") as running:
        one = file(f"?checksum={SUM}", f"?size_pre=2&checksum={SUM}")
        (seen,) = (await running.ended(one, dst_file_report=True))["files"]
        assert seen["reason"] == "DESTINATION [17] Destination file exists and overwrite is not enabled"
        assert seen["file_metadata"] == {
            "request_id": "r",
            "dst_type": "DISK",
            "dst_file": {
                "file_size": 2,
                "checksum_type": "ADLER32",
                "checksum_value": SUM,
                "file_on_tape": False,
                "file_on_disk": True,
            },
        }
        (seen,) = (await running.ended(one))["files"]
        assert "dst_file" not in seen["file_metadata"]


async def test_an_unknown_scheme_is_refused_unless_mock_is_on(tmp_path: Path) -> None:
    async with service(tmp_path / "queue.sqlite", mock=False) as running:
        status, answer = await running.submit(file())
        assert (status, answer["status"]) == (400, "400 Bad Request")
        assert "no adapter for scheme 'mock'" in answer["message"]


async def test_mock_storages_copy_among_themselves_only(tmp_path: Path) -> None:
    async with service(tmp_path / "queue.sqlite") as running:
        status, answer = await running.submit(file(destinations=["https://d.example/f"]))
        assert (status, "mock:// is not copied to https://" in answer["message"]) == (400, True)
