"""Explanations over a real socket: of the real engine, which is drained so that nothing moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_type_hints

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from protocols.scripted import ScriptedAdapter
from tests.service import Service as StandingService
from tests.service import file, running_service, table
from transfer_engine import JobId, Transfer, TransferEngine
from transfer_engine.config import Settings
from transfer_engine.config_service import ServiceSettings
from transfer_engine.errors import StoreUnavailable
from transfer_engine.model import JobOptions
from transfer_engine.service.app import build_app
from transfer_engine.service.server import open_door
from transfer_engine.service.wire.explain import ExplanationObject, JobExplanation, LinkObject

pytestmark = pytest.mark.asyncio

A, B = "sim://a", "sim://b"
LINK = f"source_se={A}&dest_se={B}"


class Service:
    """A service on a real engine."""

    def __init__(self, url: str, http: ClientSession, engine: TransferEngine) -> None:
        self.url = url
        self._http = http
        self.engine = engine

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._http.get(self.url + path) as response:
            return response.status, await response.json()

    async def submit(self, n: int, **options: Any) -> JobId:
        transfers = [Transfer.of(f"{A}/{i}", f"{B}/{i}", size_bytes=1000) for i in range(n)]
        return await self.engine.submit(transfers, options=JobOptions(**options))


@asynccontextmanager
async def drained_service() -> AsyncIterator[Service]:
    storages = ScriptedAdapter()
    storages.storage(A)
    storages.storage(B)
    async with TransferEngine("sqlite://", settings=Settings(), adapters=[storages], inline=True) as engine:
        await engine.control.drain(by="bob")
        for _ in range(1000):
            if engine.ready:
                break
            await asyncio.sleep(0)
        assert engine.ready
        server = TestServer(build_app(engine, ServiceSettings(), open_door()))
        try:
            await server.start_server()
            async with ClientSession() as http:
                yield Service(str(server.make_url("")).rstrip("/"), http, engine)
        finally:
            await server.close()


async def check_types(service: Service | StandingService, name: str, answer: Any) -> None:
    rows = table(service.engine)
    next(route for route in rows if route.name == name).answers.validate_python(answer, strict=True)


async def test_a_job():
    async with drained_service() as service:
        job_id = await service.submit(3)
        status, found = await service.get(f"/jobs/{job_id}/explain")
        assert status == 200
        await check_types(service, "explainJob", found)
        assert set(found) == set(get_type_hints(JobExplanation))
        assert (found["job_id"], found["job_state"], found["open"], found["left_out"]) == (job_id, "SUBMITTED", 3, 0)
        assert found["reason"].startswith("this node is draining by order of bob since")
        assert [one["n_before"] for one in found["transfers"]] == [0, 1, 2]
        first = found["transfers"][0]
        assert set(first) <= set(get_type_hints(ExplanationObject))
        assert (first["code"], first["moving"], first["state"], first["job_id"]) == (
            "draining",
            False,
            "SUBMITTED",
            job_id,
        )
        assert (first["start_at"], first["start_in_s"]) == (None, None)
        assert first["unknown"] == "the node starts nothing now"
        status, found = await service.get(f"/jobs/{job_id}/explain?limit=1")
        assert (status, len(found["transfers"]), found["left_out"]) == (200, 1, 2)


async def test_a_job_that_has_ended():
    async with drained_service() as service:
        job_id = await service.submit(2)
        await service.engine.cancel(job_id)
        status, found = await service.get(f"/jobs/{job_id}/explain")
        assert (status, found["open"], found["transfers"]) == (200, 0, [])
        assert found["reason"] == "the job has ended: it is CANCELED"


async def test_a_transfer_by_its_job_and_alone():
    async with drained_service() as service:
        job_id, other = await service.submit(2), await service.submit(1)
        view = (await service.engine.files(job_id))[1]
        status, found = await service.get(f"/jobs/{job_id}/files/{view.file_id}/explain")
        assert (status, found["file_id"], found["n_before"], found["bytes_before"]) == (200, view.file_id, 1, 1000)
        await check_types(service, "explainFile", found)
        assert await service.get(f"/explain?file_id={view.file_id}") == (200, found)
        status, error = await service.get(f"/jobs/{other}/files/{view.file_id}/explain")
        assert (status, error["message"]) == (404, "File does not belong to the job")
        assert (await service.get(f"/jobs/{job_id}/files/999/explain"))[0] == 404
        assert (await service.get("/explain?file_id=999"))[0] == 404
        assert (await service.get(f"/jobs/{job_id}/files/x/explain"))[0] == 400
        assert (await service.get(f"/jobs/{job_id}/files/1,2/explain"))[0] == 400


async def test_instants_are_written_as_elsewhere():
    async with drained_service() as service:
        await service.engine.control.ban(B, allow_submit=True, for_s=7200, message="new disks")
        at = service.engine._deps.clock.now() + 3600
        job_id = await service.submit(1, deadline_at=at)
        _, found = await service.get(f"/jobs/{job_id}/explain")
        one = found["transfers"][0]
        assert one["code"] == "ban"
        assert len(one["reasons"][0]["until"]) == len("2023-11-14T22:13:20")
        assert one["reasons"][0]["subject"] == B
        assert len(one["deadline_at"]) == len("2023-11-14T22:13:20")
        assert one["deadline_in_s"] == pytest.approx(3600, abs=60)
        await service.engine.control.drain(False)
        _, found = await service.get(f"/jobs/{job_id}/explain")
        assert found["transfers"][0]["start_in_s"] == pytest.approx(7200, abs=60)


async def test_endpoints_and_links():
    async with drained_service() as service:
        await service.submit(3)
        status, found = await service.get(f"/explain?endpoint={B}")
        assert (status, found["subject"], found["known"], found["ready"]) == (200, B, True, 3)
        assert found["code"] == "draining"
        assert {row["place"]: row["used"] for row in found["places"]} == {"into sim://b": 0, "this node": 0}
        await check_types(service, "explain", found)
        status, found = await service.get(f"/explain?{LINK}")
        assert (status, found["subject"], found["reasons"][0]["transfers"]) == (200, "sim://a → sim://b", 3)
        status, found = await service.get("/explain?endpoint=SIM://A/")
        assert (status, found["subject"], found["known"]) == (200, A, True)
        await service.engine.control.drain(False)
        status, found = await service.get("/explain?endpoint=sim://nowhere")
        assert (status, found["code"], found["known"]) == (200, "idle", False)
        assert found["reason"].startswith("nothing is known of sim://nowhere")


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("", None, "expected endpoint, or source_se and dest_se, or file_id; got nothing"),
        (f"?source_se={A}", "source_se", "got source_se"),
        (f"?endpoint={A}&file_id=1", "endpoint", "got endpoint and file_id"),
        (f"?endpoint={A}&{LINK}", "dest_se", "got dest_se and endpoint and source_se"),
        ("?endpoint=nonsense", "endpoint", "expected scheme://host"),
        ("?endpoint=sim://a/path", "endpoint", "a storage is known without a path: sim://a"),
        ("?endpoint=https://a:8443", "endpoint", "a storage is known without its port: https://a"),
        (f"?source_se={A}&dest_se=b", "dest_se", "expected scheme://host"),
        ("?file_id=x", "file_ids", "expected file ids"),
        ("?file_id=1,2", "file_id", "expected one file id"),
    ],
)
async def test_other_questions_are_refused(query: str, field: str | None, says: str):
    async with drained_service() as service:
        status, error = await service.get("/explain" + query)
        assert (status, error.get("field")) == (400, field)
        assert says in error["message"]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "5001", "9" * 30])
async def test_a_limit_that_is_none(limit: str):
    async with drained_service() as service:
        job_id = await service.submit(1)
        status, error = await service.get(f"/jobs/{job_id}/explain?limit={limit}")
        assert (status, error["field"]) == (400, "limit")


async def test_the_optimizers_history():
    async with drained_service() as service:
        assert await service.get(f"/optimizer/history?endpoint={A}") == (200, [])
        assert await service.get(f"/optimizer/history?{LINK}") == (200, [])
        status, error = await service.get("/optimizer/history?file_id=1")
        assert (status, error["message"]) == (400, "expected endpoint, or source_se and dest_se; got nothing")


async def test_links():
    async with drained_service() as service:
        assert await service.get("/links") == (200, [])
        await service.submit(3)
        status, (link,) = await service.get("/links")
        assert status == 200
        await check_types(service, "links", [link])
        assert set(link) == set(get_type_hints(LinkObject))
        assert (link["source_se"], link["dest_se"], link["ready"], link["active"], link["bytes"]) == (A, B, 3, 0, 0)
        assert link["reason"]["code"] == "draining"


async def test_storages_in_trouble():
    async with drained_service() as service:
        assert await service.get("/health/storages") == (200, [])


async def test_jobs_that_do_not_exist():
    async with running_service() as service:
        status, error = await service.call("GET", "/jobs/nope/explain")
        assert (status, error["message"]) == (404, 'No job with the id "nope" has been found')
        assert (await service.call("GET", "/jobs/nope/files/1/explain"))[0] == 404


async def test_a_database_that_is_away():
    async with running_service() as service:
        job_id = await service.submit(file())
        service.engine.unreadable = StoreUnavailable("the disk is gone")
        for path in (f"/jobs/{job_id}/explain", f"/jobs/{job_id}/files/1/explain", "/explain?file_id=1"):
            status, error = await service.call("GET", path)
            assert (status, error["message"]) == (503, "the disk is gone")


async def test_ftss_own_paths_are_as_they_were():
    async with running_service() as service:
        job_id = await service.submit(file())
        assert (await service.call("GET", f"/jobs/{job_id}/job_state")) == (200, "SUBMITTED")
        assert (await service.call("GET", f"/jobs/{job_id}/explain"))[0] == 200
