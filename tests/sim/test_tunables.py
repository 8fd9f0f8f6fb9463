"""Limits, shares and defaults that are set while transfers run; transfers that are started out of turn."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import CopyFailed
from protocols.scripted import ScriptedAdapter
from transfer_engine import FileState, JobId, Transfer, TransferEngine
from transfer_engine.config import Settings
from transfer_engine.model import JobOptions
from transfer_engine.testing import engine as engine_on
from transfer_engine.testing import run, run_virtual

FREE: dict[str, Any] = {"optimizer": {"enabled": False}}
HOUR = 3600


def settings(**more: Any) -> Settings:
    return Settings(**{**FREE, **more})


def storages_of(storages: ScriptedAdapter, *, n: int = 60, size: int = 1_000_000_000) -> None:
    for name in ("a", "c"):
        for number in range(n):
            storages.storage(f"sim://{name}").add(f"/{number}", size_bytes=size)
    storages.storage("sim://b")
    storages.storage("sim://d")


async def submit(engine: TransferEngine, n: int, *, source: str = "a", into: str = "b", **more: Any) -> JobId:
    options = more.pop("options", None)
    files = [
        Transfer.of(
            f"sim://{source}/{i}",
            f"sim://{into}/{more.get('vo', '')}{source}{i}",
            activity=more.get("activity", "default"),
        )
        for i in range(n)
    ]
    return await engine.submit(files, vo=more.get("vo", "local"), options=options)


def running(engine: TransferEngine) -> int:
    return len(engine.running())


async def until(is_so: Callable[[], bool], timeout_s: float = HOUR) -> None:
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.05)


def test_a_limit_that_is_raised_is_used_at_once_and_one_that_is_lowered_holds() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages, size=20_000_000_000)
        job_id = await submit(engine, 60)
        await until(lambda: running(engine) == 60)
        await engine.tunables.set_storages({"sim://b": {"inbound_max_active": 5}}, {})
        most = running(engine)
        while running(engine) > 5:
            await asyncio.sleep(1)
            assert running(engine) <= most, "something started above the limit"
            most = running(engine)
        for limit in (9, 2, 12):
            await engine.tunables.set_storages({"sim://b": {"inbound_max_active": limit}}, {})
            if limit > running(engine):
                left = Counter(file.state for file in await engine.files(job_id))[FileState.SUBMITTED]
                await asyncio.sleep(0.5)
                assert running(engine) >= min(limit, left)
            await asyncio.sleep(30)
        await engine.wait(job_id, 24 * HOUR)

    run(scenario, settings=settings())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_limit_is_exceeded_by_what_starts_after_it_was_set(seed: int) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages)
        rng = random.Random(seed)
        jobs = [await submit(engine, 60, source=s, into=d) for s in "ac" for d in "bd"]
        limits = {"in": 60, "out": 60, "link": 60}

        def used() -> dict[str, int]:
            links = engine.active()
            return {
                "in": sum(n for link, n in links.items() if link.dest_se == "sim://b"),
                "out": sum(n for link, n in links.items() if link.source_se == "sim://a"),
                "link": sum(n for link, n in links.items() if link == ("sim://c", "sim://b")),
            }

        before = used()
        while not all([(await engine.job(job_id)).finished_at for job_id in jobs]):
            if rng.random() < 0.3:
                limits = {name: rng.randint(1, 12) for name in limits}
                await engine.tunables.set_storages({"sim://b": {"inbound_max_active": limits["in"]}}, {})
                await engine.tunables.set_storages({"sim://a": {"outbound_max_active": limits["out"]}}, {})
                await engine.tunables.set_link(
                    {"symbolicname": "cb", "source": "sim://c", "destination": "sim://b", "max_active": limits["link"]}
                )
                # Whatever was decided by the old limits has been claimed by now.
                await asyncio.sleep(0.01)
                before = used()
            await asyncio.sleep(rng.random())
            now = used()
            for name, limit in limits.items():
                assert now[name] <= max(limit, before[name]), (name, limit, before, now)
            before = {name: min(before[name], now[name]) for name in now}

    run(scenario, seed=seed, settings=settings())


def test_wildcards_of_links_stand_for_those_that_are_not_named() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages, size=50_000_000_000)
        for name, source, destination, most in (
            ("all", "*", "*", 7),
            ("into b", "*", "sim://b", 5),
            ("from c", "sim://c", "*", 3),
            ("a to b", "sim://a", "sim://b", 2),
        ):
            row = {"symbolicname": name, "source": source, "destination": destination, "max_active": most}
            await engine.tunables.set_link(row)
        for source in "ac":
            for into in "bd":
                await submit(engine, 20, source=source, into=into)
        await asyncio.sleep(2)
        found = {f"{link.source_se[-1]}{link.dest_se[-1]}": n for link, n in engine.active().items()}
        assert found == {"ab": 2, "cb": 3, "cd": 3, "ad": 7}
        await engine.tunables.drop_link("a to b")
        await asyncio.sleep(2)
        assert {f"{k.source_se[-1]}{k.dest_se[-1]}": n for k, n in engine.active().items()}["ab"] == 5

    run(scenario, settings=settings())


async def part_of(engine: TransferEngine, is_it: Callable[[Any], bool], seconds: int = 60) -> float:
    """Mean of how many of those that run are of some kind, once what was set is in force."""
    await asyncio.sleep(20)
    found = []
    for _ in range(seconds):
        await asyncio.sleep(1)
        found.append(sum(is_it(driven.order.queue) for driven in engine._dispatcher.driven.values()))
        assert running(engine) == 12, "no slot stays free"
    return sum(found) / len(found)


@pytest.mark.slow
def test_shares_of_a_link_change_while_transfers_wait() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages, n=2000, size=100_000_000)
        await engine.control.drain()
        for vo in ("x", "y"):
            await submit(engine, 2000, vo=vo)
        await engine.control.drain(False)

        async def of_x() -> float:
            return await part_of(engine, lambda one: one.vo == "x")

        assert abs(await of_x() - 6) < 0.5
        for vo, share in (("x", 3), ("y", 1)):
            values = {"source": "sim://a", "destination": "sim://b", "vo": vo, "share": share}
            await engine.tunables.set_share(values)
        assert abs(await of_x() - 9) < 0.5
        for vo in ("x", "y"):
            assert await engine.tunables.drop_share("sim://a", "sim://b", vo)
        assert abs(await of_x() - 6) < 0.5

    run(scenario, settings=settings(limits={"endpoint_inbound": 12}))


@pytest.mark.slow
def test_shares_of_activities_change_while_transfers_wait_and_can_be_switched_off() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages, n=2000, size=100_000_000)
        await engine.control.drain()
        for activity, source in (("user", "a"), ("prod", "c")):
            await submit(engine, 2000, source=source, activity=activity)
        await engine.control.drain(False)

        async def of_user() -> float:
            return await part_of(engine, lambda one: one.source_se == "sim://a")

        assert abs(await of_user() - 6) < 0.5
        await engine.tunables.set_activities({"vo": "local", "share": {"user": 0.75, "Default": 0.25}})
        assert abs(await of_user() - 9) < 0.5
        off = {"vo": "local", "share": {"user": 0.75, "Default": 0.25}, "active": False}
        await engine.tunables.set_activities(off)
        assert abs(await of_user() - 6) < 0.5

    run(scenario, settings=settings(limits={"endpoint_inbound": 12}))


def test_a_limit_of_bytes_per_second_that_is_set_while_copies_run_counts_them() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages, n=200, size=1_000_000_000)
        await engine.wait(await submit(engine, 1), HOUR)
        job_id = await engine.submit([Transfer.of(f"sim://a/{n}", f"sim://b/more{n}") for n in range(200)])
        await until(lambda: running(engine) == 60)
        rate = engine._dispatcher.board.scheduler._rates[next(iter(engine.active()))]
        mb_s = 3.5 * rate / 1024 / 1024
        await engine.tunables.set_storages({"sim://b": {"inbound_max_throughput": mb_s}}, {})
        most = 60
        while running(engine) > 3:
            await asyncio.sleep(0.1)
            assert running(engine) <= most
            most = running(engine)
        await asyncio.sleep(60)
        assert running(engine) <= 3
        await engine.tunables.set_storages({"sim://b": {"inbound_max_throughput": 0}}, {})
        await until(lambda: running(engine) == 60)
        await engine.wait(job_id, HOUR)
        assert not any(band.used_bytes_s for band in engine._dispatcher.board.scheduler.bands.values())

    run(scenario, settings=settings())


def _twice(first: Callable[..., Awaitable[None]], second: Callable[..., Awaitable[None]], path: Path) -> None:
    """Two engines, one after the other, on one database."""
    storages = ScriptedAdapter(rng=random.Random(0))
    storages_of(storages, size=50_000_000_000)

    async def main() -> None:
        for number, scenario in enumerate((first, second)):
            async with engine_on(storages, seed=number, settings=settings(), database=str(path)) as engine:
                await scenario(engine)

    run_virtual(main)


def test_what_was_set_is_in_force_after_a_restart(tmp_path: Path) -> None:
    async def first(engine: TransferEngine) -> None:
        tunables = engine.tunables
        await tunables.set_storages(
            {"sim://b": {"inbound_max_active": 4, "tpc_support": "PULL", "udt": True, "inbound_max_throughput": 1.5}},
            {"sim://b": {"atlas": {"staging": 7}}},
        )
        await tunables.set_storages({"sim://b": {"inbound_max_throughput": 0}}, {})
        await tunables.set_link({"symbolicname": "x", "source": "*", "destination": "sim://d", "max_active": 3})
        await tunables.set_share({"source": "*", "destination": "sim://b", "vo": "x", "share": 2.5})
        await tunables.set_activities({"vo": "x", "share": {"p": 2, "q": 1}})
        await tunables.set_global({"vo_name": "x", "retry": 9, "sec_per_mb": 0.5})
        await tunables.authorize({"dn": "/DC=ch/CN=me", "operation": "config"})

    async def second(engine: TransferEngine) -> None:
        rows = engine.tunables.rows
        assert rows.se["sim://b"].tpc_support == "PULL"
        assert rows.se["sim://b"].udt is True
        assert rows.operations[0].concurrent == 7
        assert rows.globals["x"].retry == 9
        assert [grant.role for grant in engine.tunables.grants_of("/DC=ch/CN=me")] == ["operator"]
        assert engine.tunables.tuned.shares.of_activity("x", "p") == 2
        for into in "bd":
            await submit(engine, 20, into=into)
        await asyncio.sleep(2)
        assert sorted(engine.active().values()) == [3, 4]

    _twice(first, second, tmp_path / "t.db")


def test_a_table_that_cannot_be_read_does_not_keep_the_engine_from_starting(tmp_path: Path) -> None:
    async def first(engine: TransferEngine) -> None:
        await engine.tunables.set_global({"retry": 2})
        await engine._store.keep("config:se", '{"se": {"sim://b": {"inbound_max_active": true}}, "operations": []}')

    async def second(engine: TransferEngine) -> None:
        assert not engine.tunables.rows.se
        assert engine.tunables.rows.globals["*"].retry == 2

    _twice(first, second, tmp_path / "t.db")


def test_the_defaults_of_a_vo_are_those_of_its_transfers() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages, n=3, size=1_000_000)
        storages.rule("sim://b/bad*", operations={"copy"}, error=lambda: CopyFailed("broken"))
        await engine.tunables.set_global({"retry": 0, "max_time_queue": 2})
        await engine.tunables.set_global({"vo_name": "x", "retry": 4})
        for vo, n in (("x", 5), ("y", 1)):
            job_id = await engine.submit(Transfer.of("sim://a/0", f"sim://b/bad{vo}"), vo=vo)
            other = await engine.submit(
                Transfer.of("sim://a/0", f"sim://b/bad-own{vo}"), vo=vo, options=JobOptions(retries_max=2)
            )
            for one, attempts in ((job_id, n), (other, 3)):
                assert (await engine.wait(one, 24 * HOUR)).state == "FAILED"
                assert [file.n_failed for file in await engine.files(one)] == [attempts]
        await engine.control.drain()
        late = await engine.submit(Transfer.of("sim://a/1", "sim://b/late"), vo="x")
        assert (await engine.wait(late, 3 * HOUR)).state == "CANCELED"

    run(scenario, settings=settings(breaker={"failures": 1000}))


@pytest.mark.slow
def test_a_transfer_is_started_past_limits_and_counts_in_them() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages, size=20_000_000_000)
        await engine.tunables.set_storages({"sim://b": {"inbound_max_active": 2}}, {})
        job_id = await submit(engine, 20)
        await until(lambda: running(engine) == 2)
        files = [file.file_id for file in await engine.files(job_id)]
        done = await engine.forcing.start([files[15], files[19], files[15], files[0]])
        assert [one.file_id for one in done] == [files[15], files[19], files[0]]
        assert [one.error for one in done] == [None, None, "File is not in SUBMITTED state: it is ACTIVE"]
        assert running(engine) == 4
        while running(engine) > 2:
            await asyncio.sleep(0.2)
            states = {file.file_id: file.state for file in await engine.files(job_id)}
            active = [f for f in states if states[f] is FileState.ACTIVE]
            assert set(active) <= {files[0], files[1], files[15], files[19]} or len(active) <= 2
        assert (await engine.wait(job_id, 24 * HOUR)).state == "FINISHED"
        scheduler = engine._dispatcher.board.scheduler
        assert scheduler.node.used == 0
        assert scheduler.n_ready == 0

    run(scenario, settings=settings())


def test_a_retry_that_waits_is_started_but_not_what_an_order_keeps_back() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages_of(storages, size=1_000_000)
        job_id = await submit(engine, 3)
        assert (await engine.wait(job_id, HOUR)).state == "FINISHED"
        await engine.control.ban("sim://d", allow_submit=True)
        banned = await submit(engine, 1, into="d")
        (file,) = await engine.files(banned)
        (refused,) = await engine.forcing.start([file.file_id])
        assert refused.error is not None
        assert "banned" in refused.error
        await engine.control.unban("sim://d")
        await engine.wait(banned, HOUR)
        await engine.control.drain()
        held = await submit(engine, 1, source="c")
        await engine.control.hold(held)
        (file,) = await engine.files(held)
        assert "draining" in str((await engine.forcing.start([file.file_id]))[0].error)
        await engine.control.drain(False)
        assert (await engine.forcing.start([file.file_id]))[0].error == "its job is on hold"
        assert "does not exist" in str((await engine.forcing.start([999_999]))[0].error)

    run(scenario, settings=settings())
