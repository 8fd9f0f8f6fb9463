"""The OpenAPI document against the running service: nothing breaks, and nothing undocumented is answered.

schemathesis makes requests from the document, right and wrong ones, and holds each answer against it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.storages.process import free_port
from tests.system.processes import ServiceProcess

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.timeout(400)]

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
STREAMS = ("/events",)
"""They do not end by themselves."""


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    config = tmp_path / "te.toml"
    config.write_text("[breaker]\nopen_s = 3600\n")
    async with ServiceProcess(tmp_path / "te.db", config, free_port(set())) as running:
        await running.start()
        yield running


async def known_ids(service: ServiceProcess) -> tuple[list[str], list[int]]:
    """Jobs that wait at a storage that nobody has, and their files."""
    files = [{"sources": ["https://127.0.0.1:1/a"], "destinations": ["https://127.0.0.1:2/a"]}]
    jobs, file_ids = [], []
    async with aiohttp.ClientSession() as http:
        for _ in range(3):
            async with http.post(service.url + "/jobs", json={"files": files, "params": {"retry": 100}}) as answer:
                jobs.append((await answer.json())["job_id"])
            async with http.get(f"{service.url}/jobs/{jobs[-1]}/files") as answer:
                file_ids += [file["file_id"] for file in await answer.json()]
    return jobs, file_ids


async def test_the_service_keeps_to_its_document(service: ServiceProcess, tmp_path: Path):
    jobs, file_ids = await known_ids(service)
    ids = ", ".join(f'"{one}"' for one in [*jobs, ",".join(jobs), jobs[0] + ",nope"])
    (tmp_path / "schemathesis.toml").write_text(
        "[parameters]\n"
        f'"path.job_id" = [{", ".join(f"{one!r}" for one in jobs)}]\n'
        f'"path.ids" = [{ids}]\n'
        f'"path.file_id" = [{", ".join(f"{str(one)!r}" for one in file_ids)}]\n'
        f'"path.file_ids" = [{", ".join(f"{str(one)!r}" for one in file_ids)}]\n'
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml"), "run"),
        *(service.url + "/openapi.json", "--checks", CHECKS, "--max-examples", "25", "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--request-timeout", "20"),
        *[word for path in STREAMS for word in ("--exclude-path", path)],
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode(errors="replace")
    assert process.returncode == 0, output
    assert "No failures" in output or "passed" in output, output
    assert await service.ready(), "it still works"
