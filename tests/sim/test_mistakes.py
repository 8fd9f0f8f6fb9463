"""Mistakes planted in what an engine can do without: transfers go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from protocols.errors import CopyFailed, Scope
from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine import JobState, JobType, Transfer, TransferEngine
from transfer_engine.engine import Engine
from transfer_engine.model import JobRequest
from transfer_engine.testing import EPOCH, run


def _break(*_: Any, **__: Any) -> Any:
    raise RuntimeError("planted")


async def _submit(engine: TransferEngine, storages: ScriptedAdapter, number: int) -> str:
    storages.storage("sim://b")
    storages.storage("sim://a").add(f"/{number}", size_bytes=1_000_000)
    return await engine.submit(Transfer.of(f"sim://a/{number}", f"sim://b/{number}"))


@pytest.mark.parametrize("what", ["started", "observe", "moving", "cap", "tick", "next_change_at", "dump"])
def test_transfers_go_on_without_the_health_of_storages(what: str) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        setattr(engine._dispatcher.governor.health, what, _break)
        jobs = [await _submit(engine, storages, n) for n in range(5)]
        assert {(await engine.wait(job, 1000)).state for job in jobs} == {JobState.FINISHED}
        assert engine.ready
        assert not engine.running()

    run(scenario)


@pytest.mark.parametrize("what", ["target", "observe", "pace", "dump"])
def test_transfers_go_on_without_the_optimizer(what: str) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        setattr(engine._dispatcher.governor.optimizer, what, _break)
        jobs = [await _submit(engine, storages, n) for n in range(5)]
        assert {(await engine.wait(job, 1000)).state for job in jobs} == {JobState.FINISHED}
        await asyncio.sleep(10)
        assert engine.limits() == {} or what == "dump"

    run(scenario)


def test_a_duty_that_breaks_is_left_alone_for_a_while() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        n_calls = 0

        async def broken(now: float) -> None:
            nonlocal n_calls
            n_calls += 1
            _break()

        chooser: Any = engine._chooser
        right, chooser.on_time = chooser.on_time, broken
        await asyncio.sleep(600)
        assert 5 <= n_calls <= 12
        assert (await engine.wait(await _submit(engine, storages, 1), 100)).state is JobState.FINISHED
        chooser.on_time = right
        await asyncio.sleep(120)
        assert not engine._dispatcher._resting

    run(scenario)


def test_the_next_replica_is_tried_though_nobody_can_say_which_is_best() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        engine._dispatcher.driver.next_replica = _break
        storages.storage("sim://b")
        for source in ("sim://a", "sim://c"):
            storages.storage(source).add("/f", size_bytes=1000)
        storages.add_rule(
            Rule(match="sim://a", operations=frozenset({"copy"}), error=lambda: CopyFailed("disk", scope=Scope.SOURCE))
        )
        transfer = Transfer(sources=("sim://a/f", "sim://c/f"), destination="sim://b/f", selection_strategy="orderly")
        job = await engine.submit(JobRequest(transfers=(transfer,), job_type=JobType.REPLICAS))
        assert (await engine.wait(job, 1000)).state is JobState.FINISHED

    run(scenario)


def test_housekeeping_goes_on_when_the_clock_is_set_back() -> None:
    async def scenario(engine: Engine, _: ScriptedAdapter) -> None:
        n_pruned = 0
        store: Any = engine._store
        prune = store.prune_events

        async def counted(keep: int, published: int | None) -> None:
            nonlocal n_pruned
            n_pruned += 1
            await prune(keep, published)

        store.prune_events = counted
        loop = asyncio.get_running_loop()
        await asyncio.sleep(100)
        before = n_pruned
        engine._deps.clock.now = lambda: EPOCH + loop.time() - 7200.0  # type: ignore[method-assign]
        await asyncio.sleep(300)
        assert n_pruned - before >= 9

    run(scenario)
