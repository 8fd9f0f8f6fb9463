"""The configuration of a service whose engine moves files: what is set over HTTP holds at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from protocols.scripted import ScriptedAdapter
from tests.service import open_door
from transfer_engine import TransferEngine
from transfer_engine.config import Settings
from transfer_engine.config_service import ServiceSettings
from transfer_engine.service.app import build_app
from transfer_engine.service.wire.views import HOST

pytestmark = pytest.mark.asyncio

Call = Callable[..., Any]


@asynccontextmanager
async def service() -> AsyncIterator[tuple[TransferEngine, Call]]:
    storages = ScriptedAdapter(rng=random.Random(0))
    for n in range(20):
        storages.storage("sim://a").add(f"/{n}", size_bytes=10**15)
    storages.storage("sim://b")
    settings = Settings(optimizer={"enabled": False}, service={"grace_s": 0})
    async with TransferEngine("memory://", settings=settings, adapters=[storages]) as engine:
        server = TestServer(build_app(engine, ServiceSettings(), open_door()))
        await server.start_server()
        try:
            async with ClientSession() as http:

                async def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
                    async with http.request(method, str(server.make_url(path)), json=body) as response:
                        return response.status, await response.json()

                yield engine, call
        finally:
            await server.close()


async def until_running(engine: TransferEngine, n: int) -> None:
    async with asyncio.timeout(10):
        async for _ in engine.events(0):
            if len(engine.running()) == n:
                return


async def test_limits_that_are_set_over_http_hold_at_once_and_files_start_past_them():
    async with service() as (engine, call):
        assert (await call("POST", "/config/se", {"sim://b": {"se_info": {"inbound_max_active": 3}}}))[0] == 200
        files = [{"sources": [f"sim://a/{n}"], "destinations": [f"sim://b/{n}"]} for n in range(20)]
        status, answer = await call("POST", "/jobs", {"files": files})
        assert status == 200, answer
        await until_running(engine, 3)
        link = {"symbolicname": "ab", "source": "sim://a", "destination": "*", "max_active": 5}
        assert (await call("POST", "/config/links", link))[0] == 201
        await call("POST", "/config/se", {"sim://b": {"se_info": {"inbound_max_active": 8}}})
        await until_running(engine, 5)
        _, rows = await call("GET", f"/jobs/{answer['job_id']}/files")
        last = rows[-1]["file_id"]
        assert await call("POST", "/admin/force-start", [last]) == (200, [])
        assert [one.file_id for one in engine.running()].count(last) == 1
        assert await call("GET", "/status/hosts") == (200, {HOST: {"active": 6, "staging": 0}})
        assert (await call("GET", "/optimizer")) == (200, False)
        _, audit = await call("GET", "/config/audit")
        assert [row["action"] for row in audit] == ["force-start", "set-se-config", "link", "set-se-config"]
        assert (await call("DELETE", f"/jobs/{answer['job_id']}"))[0] == 200
