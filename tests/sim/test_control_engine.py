"""Bans, drain and holds of a whole engine in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from protocols.scripted import ScriptedAdapter
from transfer_engine import Banned, JobId, JobState, Transfer, TransferEngine
from transfer_engine.testing import run


def _storages(storages: ScriptedAdapter, *, size: int = 1_000_000) -> None:
    for n in range(10):
        storages.storage("sim://a").add(f"/{n}", size_bytes=size)
    storages.storage("sim://b")


async def _submit(engine: TransferEngine, n: int, vo: str = "local") -> JobId:
    return await engine.submit(Transfer.of(f"sim://a/{n}", f"sim://b/{n}"), vo=vo)


async def _state(engine: TransferEngine, job_id: JobId) -> JobState:
    return (await engine.job(job_id)).state


@pytest.mark.parametrize("endpoint", ["sim://a", "sim://b"])
def test_nothing_starts_while_a_storage_is_banned_and_all_does_afterwards(endpoint: str) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages)
        await engine.control.ban(endpoint, allow_submit=True)
        jobs = [await _submit(engine, n) for n in range(3)]
        await asyncio.sleep(3600)
        assert [await _state(engine, job_id) for job_id in jobs] == [JobState.SUBMITTED] * 3
        assert not storages.journal
        await engine.control.unban(endpoint)
        assert [(await engine.wait(job_id, 60)).state for job_id in jobs] == [JobState.FINISHED] * 3

    run(scenario)


def test_a_ban_ends_by_itself_at_its_time() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages)
        began = asyncio.get_running_loop().time()
        await engine.control.ban("sim://a", allow_submit=True, for_s=7200)
        job = await engine.wait(await _submit(engine, 1))
        assert job.state is JobState.FINISHED
        assert 7200 <= asyncio.get_running_loop().time() - began < 7205

    run(scenario)


def test_a_ban_of_one_vo_is_nothing_to_the_others() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages)
        await engine.control.ban("sim://b", vo="cms", allow_submit=True)
        banned, free = await _submit(engine, 1, "cms"), await _submit(engine, 2, "atlas")
        assert (await engine.wait(free, 60)).state is JobState.FINISHED
        assert await _state(engine, banned) is JobState.SUBMITTED
        await engine.control.unban("sim://b", vo="cms")
        assert (await engine.wait(banned, 60)).state is JobState.FINISHED

    run(scenario)


def test_submissions_are_refused_while_a_ban_says_so() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages)
        await engine.control.ban("sim://a", message="disk broken")
        with pytest.raises(Banned, match=r"^sim://a is banned by local since .*: disk broken$"):
            await _submit(engine, 1)
        await engine.control.unban("sim://a")
        assert (await engine.wait(await _submit(engine, 1), 60)).state is JobState.FINISHED

    run(scenario)


def test_a_ban_that_cancels_stops_what_runs_and_removes_its_remains() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages, size=50_000_000_000)
        jobs = [await _submit(engine, n) for n in range(3)]
        await asyncio.sleep(5)
        assert engine.running()
        assert set((await engine.control.ban("sim://b", cancel=True)).job_ids) == set(jobs)
        for job_id in jobs:
            assert (await engine.wait(job_id, 60)).state is JobState.CANCELED
            (file,) = await engine.files(job_id)
            assert file.failure is not None
            assert file.failure["message"] == "Storage banned"
        await asyncio.sleep(600)
        assert not engine.running()
        assert storages.storage("sim://b").files() == {}

    run(scenario)


def test_a_drained_node_finishes_what_runs_and_starts_nothing() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages, size=2_000_000_000)
        before = await _submit(engine, 1)
        await asyncio.sleep(1)
        assert (await engine.control.drain()).n_running == 1
        after = await _submit(engine, 2)
        assert (await engine.wait(before, 600)).state is JobState.FINISHED
        await asyncio.sleep(3600)
        assert await _state(engine, after) is JobState.SUBMITTED
        assert engine.control.draining().n_running == 0
        await engine.control.drain(False)
        assert (await engine.wait(after, 600)).state is JobState.FINISHED

    run(scenario)


def test_a_job_on_hold_waits_for_its_resumption() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages)
        await engine.control.drain()
        held, free = await _submit(engine, 1), await _submit(engine, 2)
        await engine.control.hold(held)
        await engine.control.drain(False)
        assert (await engine.wait(free, 60)).state is JobState.FINISHED
        await asyncio.sleep(3600)
        assert await _state(engine, held) is JobState.SUBMITTED
        await engine.control.resume(held)
        assert (await engine.wait(held, 60)).state is JobState.FINISHED

    run(scenario)
