"""Rucio 41.5.1's unmodified `FTS3Transfertool`, all of its methods, against a running service over http."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients import ClientFailed, Worker
from tests.clients.fixtures import clients, site
from tests.clients.rucio import write_config
from tests.clients.site import Site
from tests.storages.faults import FaultProxy, LoseAnswer
from tests.system.processes import poll_until

__all__ = ["clients", "site"]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

GONE = "00000000-0000-4000-8000-000000000000"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tool(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    """Two transfertools: with deterministic ids, and (another process, as it is a setting) without."""
    home = tmp_path_factory.mktemp("rucio")
    async with Worker("rucio_tool", home, write_config(home)) as worker:
        await worker.call("connect", site.endpoint)
        yield worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain_tool(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    home: Path = tmp_path_factory.mktemp("rucio")
    async with Worker("rucio_tool", home, write_config(home, {"conveyor": {"use_deterministic_id": False}})) as worker:
        await worker.call("connect", site.endpoint)
        yield worker


async def transfer(site: Site, **more: Any) -> dict[str, Any]:
    return {
        "sources": [site.source],
        "destination": site.fresh(),
        "request_id": uuid.uuid4().hex,
        "filesize": 10_000,
        "adler32": await site.adler32(site.source),
        **more,
    }


async def seen(tool: Worker, job_id: str, *request_ids: str) -> Any:
    """What the poller sees, once the job has ended."""
    found: Any = {}

    async def over() -> bool:
        found.update((await tool.call("bulk_query", {job_id: list(request_ids)}))[job_id])
        return bool(found) and all(one["job_state"] in {"FINISHED", "FAILED"} for one in found.values())

    await poll_until(over, within_s=30)
    return found


async def test_what_it_asks_of_the_service_itself(tool: Worker):
    assert (await tool.call("call", "version"))["schema"]["major"] >= 8
    me = await tool.call("call", "whoami")
    assert await tool.call("expected_id", "sid") == str(uuid.uuid5(uuid.UUID(me["vos_id"][0]), "sid"))


async def test_submit_and_poll(site: Site, tool: Worker):
    one = await transfer(site)
    job_id = await tool.call("submit", [one])
    assert job_id == await tool.call("expected_id", one["request_id"])
    told = (await seen(tool, job_id, one["request_id"]))[one["request_id"]]
    assert (told["job_state"], told["file_state"], told["reason"]) == ("FINISHED", "FINISHED", None)
    sent = {"request_id": one["request_id"], "src_rse": "SRC0", "dst_rse": "DST", "adler32": one["adler32"]}
    assert sent.items() <= told["metadata"].items()
    assert await site.adler32(one["destination"]) == one["adler32"]


async def test_many_transfers_in_one_job(site: Site, tool: Worker):
    several = [await transfer(site) for _ in range(5)]
    job_id = await tool.call("submit", several)
    told = await seen(tool, job_id, *(one["request_id"] for one in several))
    assert {one["file_state"] for one in told.values()} == {"FINISHED"}
    assert len(told) == 5


async def test_several_sources(site: Site, tool: Worker):
    one = await transfer(site, sources=[site.source + "-gone", site.source_of(2)], adler32=None)
    job_id = await tool.call("submit", [one])
    told = (await seen(tool, job_id, one["request_id"]))[one["request_id"]]
    assert (told["file_state"], told["source"]) == ("FINISHED", site.source_of(2))


async def test_a_source_that_is_not_there(site: Site, tool: Worker):
    one = await transfer(site, sources=[site.source + "-gone"])
    job_id = await tool.call("submit", [one])
    told = (await seen(tool, job_id, one["request_id"]))[one["request_id"]]
    assert (told["job_state"], told["file_state"]) == ("FAILED", "FAILED")
    assert told["reason"].startswith("SOURCE [2] ")


async def test_the_same_again_is_no_second_transfer(site: Site, tool: Worker):
    one = await transfer(site)
    first = await tool.call("submit", [one])
    assert await tool.call("submit", [one]) == first
    await seen(tool, first, one["request_id"])
    assert len((await site.ask("GET", f"/jobs/{first}/files"))[1]) == 1
    assert await tool.call("submit", [one]) == first


async def test_a_lost_answer_is_no_second_transfer(site: Site, tool: Worker):
    one = await transfer(site)
    async with FaultProxy(site.endpoint) as proxy:
        await tool.call("connect", proxy.url, name="cut")
        proxy.add(LoseAnswer(), methods={"POST"}, times=1)
        job_id = await tool.call("submit", [one], name="cut")
        assert proxy.count("POST") == 1
        # Rucio believes its own computation, and so it may: the job is there.
        assert (await site.ask("GET", f"/jobs/{job_id}"))[0] == 200
        assert await tool.call("submit", [one], name="cut") == job_id
        told = (await seen(tool, job_id, one["request_id"]))[one["request_id"]]
    assert told["file_state"] == "FINISHED"
    _, jobs = await site.ask("GET", f"/jobs?dest_se={site.se(1)}&limit=500&state_in=FINISHED,FAILED,ACTIVE,SUBMITTED")
    files = [file for job in jobs for file in (await site.ask("GET", f"/jobs/{job['job_id']}/files"))[1]]
    assert [file["dest_surl"] for file in files].count(one["destination"]) == 1


async def test_without_deterministic_ids(site: Site, plain_tool: Worker):
    one = await transfer(site)
    first = await plain_tool.call("submit", [one])
    assert first != await plain_tool.call("expected_id", one["request_id"])
    assert (await seen(plain_tool, first, one["request_id"]))[one["request_id"]]["file_state"] == "FINISHED"
    with pytest.raises(ClientFailed) as raised:
        await plain_tool.call("submit", [await transfer(site, destination="nowhere")])
    assert raised.value.kind == "TransferToolWrongAnswer"


async def test_lost_jobs_are_recognised(site: Site, tool: Worker):
    one = await transfer(site)
    job_id = await tool.call("submit", [one])
    assert await tool.call("bulk_query", {GONE: ["x"]}) == {GONE: None}
    assert await tool.call("bulk_query", {GONE: ["x"], GONE[:-1] + "1": ["y"]}) == {GONE: None, GONE[:-1] + "1": None}
    told = await tool.call("bulk_query", {GONE: ["x"], job_id: [one["request_id"]]})
    assert told[GONE] is None
    assert set(told[job_id]) == {one["request_id"]}


async def test_two_hundred_jobs_in_one_poll(site: Site, tool: Worker):
    ids = [str(uuid.uuid4()) for _ in range(200)]
    assert await tool.call("bulk_query", {job_id: ["x"] for job_id in ids}) == dict.fromkeys(ids)


async def test_query(site: Site, tool: Worker):
    one = await transfer(site)
    job_id = await tool.call("submit", [one])
    (job,) = await tool.call("call", "query", [job_id])
    assert (job["job_id"], job["priority"], job["job_metadata"]["issuer"]) == (job_id, 4, "rucio")
    (file,) = await tool.call("call", "query", [job_id], details=True)
    assert file["dest_surl"] == one["destination"]
    with pytest.raises(ClientFailed):
        await tool.call("call", "query", [GONE])
    assert await tool.call("call", "query", [GONE], details=True) is None


async def test_cancel(site: Site, tool: Worker):
    one = await transfer(site)
    async with site.drained():
        job_id = await tool.call("submit", [one])
        job = await tool.call("call", "cancel", [job_id])
        assert (job["job_state"], job["http_status"]) == ("CANCELED", "200 Ok")
        job = await tool.call("call", "cancel", [job_id])
        assert (job["job_state"], job["http_status"]) == ("CANCELED", "304 Not Modified")
    told = (await tool.call("bulk_query", {job_id: [one["request_id"]]}))[job_id][one["request_id"]]
    assert (told["job_state"], told["file_state"], told["reason"]) == (
        "CANCELED",
        "CANCELED",
        "Job canceled by the user",
    )
    with pytest.raises(ClientFailed, match="Could not cancel transfer"):
        await tool.call("call", "cancel", [GONE])


async def test_update_priority(site: Site, tool: Worker):
    one = await transfer(site)
    async with site.drained():
        job_id = await tool.call("submit", [one])
        job = await tool.call("call", "update_priority", job_id, 5)
        assert (job["priority"], job["http_status"], job["http_message"]) == (5, "200 Ok", None)
        await tool.call("call", "cancel", [job_id])
        # Rucio reads the message of a job that has ended, too.
        job = await tool.call("call", "update_priority", job_id, 2)
        assert (job["http_status"], job["http_message"]) == ("304 Not Modified", "The job is in a terminal state")


async def test_bans(site: Site, tool: Worker):
    assert await tool.call("call", "set_se_status", site.se(2), "in downtime") == 0
    (ban,) = await tool.call("call", "list_se_status")
    assert (ban["se"], ban["status"], ban["message"]) == (site.se(2), "CANCEL", "in downtime")
    assert set(ban) >= {"se", "status", "message", "vo", "admin_dn", "addition_time"}
    assert await tool.call("call", "set_se_status", site.se(2), "", ban=False) == 0
    assert await tool.call("call", "set_se_status", site.se(2), "later", timeout=60) == 0
    assert [ban["status"] for ban in await tool.call("call", "list_se_status")] == ["WAIT"]
    assert await tool.call("call", "set_se_status", site.se(2), "", ban=False) == 0
    assert await tool.call("call", "list_se_status") == []


async def test_the_configuration_of_a_storage(site: Site, tool: Worker):
    await tool.call(
        *("call", "set_se_config", site.se(2)),
        inbound_max_active=7,
        outbound_max_active=8,
        inbound_max_throughput=100.0,
        outbound_max_throughput=200.0,
    )
    told = await tool.call("call", "get_se_config", site.se(2))
    assert (told["se_info"]["inbound_max_active"], told["se_info"]["outbound_max_active"]) == (7, 8)
    assert told["se_info"]["inbound_max_throughput"] == 100.0
