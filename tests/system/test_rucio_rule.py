"""A real Rucio takes rules over three real XRootD storages through us: its own conveyor daemons, unmodified."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.fixtures import clients
from tests.clients.lake import NAMES, running_lake
from tests.conftest import LazyStorages
from tests.storages.faults import FaultProxy, LoseAnswer

__all__ = ["clients"]

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(120)]


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
        data = await lake.place_at_second_only("twice")
        rule_id = await lake.rucio.call("add_rule", "twice", "RSE3", 1)
        await lake.rule(rule_id, "OK")
        assert lake.storages["RSE3"].read(await lake.path("RSE3", "twice")) == data
        (job,) = await lake.ended_jobs()
        assert (job["job_type"], job["job_state"]) == ("R", "FINISHED")


async def test_a_way_over_another_storage(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages) as lake:
        _, data = await lake.place("far")
        await lake.rucio.call("set_attribute", "RSE2", "available_for_multihop", True)
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


async def test_a_dataset_of_many_files(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages) as lake:
        names = [f"part-{number}" for number in range(40)]
        for name in names:
            await lake.place(name)
        await lake.rucio.call("add_dataset", "whole", names)
        rule_id = await lake.rucio.call("add_rule", "whole", "RSE2|RSE3", 2)
        rule = await lake.rule(rule_id, "OK")
        assert rule["locks_ok_cnt"] == 80
        jobs = await lake.ended_jobs()
        assert {job["job_state"] for job in jobs} == {"FINISHED"}
        # Rucio puts up to twenty of them into a job.
        assert len(jobs) == 4
        for rse in ("RSE2", "RSE3"):
            there = set(lake.storages[rse].names())
            assert {await lake.path(rse, name) for name in names} <= there


async def test_a_rule_that_is_deleted_takes_its_jobs_along(clients: None, tmp_path: Path, storages: LazyStorages):
    async with running_lake(tmp_path, storages) as lake:
        await lake.place("unwanted")
        await lake.drain(on=True)
        rule_id = await lake.rucio.call("add_rule", "unwanted", "RSE2", 1)
        await lake.rucio.call("submit")
        (request,) = (await lake.rucio.call("look", rule_id))["requests"]
        await lake.rucio.call("delete_rule", rule_id)
        assert (await lake.job(request["job_id"]))["job_state"] == "CANCELED"
        await lake.drain(on=False)
        assert await lake.path("RSE2", "unwanted") not in lake.storages["RSE2"].names()
