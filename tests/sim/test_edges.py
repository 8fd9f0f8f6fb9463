"""Moments at which an engine could lose its footing: unlucky cancellations, broken parts, the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from protocols.errors import CopyFailed, Unavailable, Unsupported
from protocols.scripted import Lost, Rule, ScriptedAdapter
from transfer_engine import EngineError, FileState, JobState, Settings, Transfer
from transfer_engine.credentials.fixed import OneForAll
from transfer_engine.engine import Engine
from transfer_engine.testing import run


def _file(storages: ScriptedAdapter, name: str = "/f", size: int = 1_000_000) -> Transfer:
    storages.storage("sim://a").add(name, size_bytes=size)
    storages.storage("sim://b")
    return Transfer.of(f"sim://a{name}", f"sim://b{name}")


def _idle(engine: Engine) -> bool:
    return not engine.running() and all(link.active == 0 and link.ready == 0 for link in engine.links())


@pytest.mark.parametrize("n_turns", range(12))
def test_cancel_at_every_moment_of_a_start(n_turns: int) -> None:
    """Claim and cancellation may be committed together: the attempt is cancelled before its first step."""

    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        job_id = await engine.submit(_file(storages))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        await engine.cancel(job_id)
        await asyncio.sleep(3600)
        (file,) = await engine.files(job_id)
        assert file.state is FileState.CANCELED
        assert _idle(engine)
        assert storages.storage("sim://b").files() == {}

    run(scenario)


@pytest.mark.parametrize("n_turns", range(5))
def test_a_submission_nobody_waits_for_is_carried_out_all_the_same(n_turns: int) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        task = asyncio.get_running_loop().create_task(engine.submit(_file(storages), key="k"))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        job_id = await engine.submit(_file(storages), key="k")
        async with asyncio.timeout(600):
            assert (await engine.wait(job_id)).state is JobState.FINISHED

    run(scenario)


@pytest.mark.parametrize("n_turns", range(5))
def test_a_cancellation_nobody_waits_for_is_carried_out_all_the_same(n_turns: int) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        running = await engine.submit(_file(storages, size=10**12))
        waiting = await engine.submit(_file(storages, "/g"))
        await asyncio.sleep(60)
        for job_id in (running, waiting):
            task = asyncio.get_running_loop().create_task(engine.cancel(job_id))
            for _ in range(n_turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await asyncio.sleep(120)
        for job_id in (running, waiting):
            if (await engine.status(job_id)).state is JobState.CANCELED:
                continue
            assert n_turns == 0
            await engine.cancel(job_id)
        await asyncio.sleep(120)
        assert _idle(engine)

    run(scenario, settings=Settings(limits={"link": 1}))  # type: ignore[arg-type]


class _Broken(ScriptedAdapter):
    """Breaks in ways that no adapter may."""

    failing: str | None = None

    async def stat(self, url: str, **more: Any) -> Any:
        if self.failing is not None and url.endswith(self.failing):
            raise KeyError(url)
        return await super().stat(url, **more)


@pytest.mark.parametrize("broken", ["source", "destination"])
def test_a_bug_in_an_adapter_fails_its_transfer_alone(broken: str) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        adapter = _Broken()
        engine._dispatcher._tools.adapters._by_scheme["sim"] = adapter  # type: ignore[attr-defined]
        bad, good = _file(adapter, "/bad"), _file(adapter, "/good")
        adapter.rule("sim://b/bad", operations={"copy"}, lost=Lost.STOPPED)
        one = await engine.submit(bad)
        await asyncio.sleep(0.001)
        adapter.failing = "/bad" if broken == "source" else "b/bad"
        two = await engine.submit(good)
        assert (await engine.wait(two)).state is JobState.FINISHED
        assert (await engine.wait(one)).state is JobState.FAILED
        await asyncio.sleep(1)
        assert _idle(engine)
        assert engine.ready

    run(scenario)


def test_a_credential_that_cannot_be_read_fails_its_transfer_alone() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        def credentials(url: str) -> Any:
            msg = "a bearer token is at most 16384 bytes long"
            raise ValueError(msg)

        object.__setattr__(engine._dispatcher._tools, "credentials", OneForAll(credentials))
        job = await engine.wait(await engine.submit(_file(storages)))
        assert job.state is JobState.FAILED
        assert engine.ready

    run(scenario)


def test_a_transfer_that_no_adapter_speaks_to_any_more_fails_alone() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfers = [_file(storages, f"/{n}", size=10**9) for n in range(2)]
        first, second = [await engine.submit(transfer) for transfer in transfers]
        await asyncio.sleep(2)

        def adapter_for(url: str) -> Any:
            raise Unsupported("scheme 'sim' is not supported")

        storages.rule("sim://b/0", operations={"stat"}, lost=None)
        await engine.cancel(first)
        engine._dispatcher._tools.adapters.adapter_for = adapter_for  # type: ignore[method-assign]
        await engine.wait(second)
        third = await engine.submit(_file(storages, "/2"))
        job = await engine.wait(third)
        assert job.state is JobState.FAILED
        (file,) = await engine.files(third)
        assert file.failure is not None
        assert file.failure["code"] == "UNSUPPORTED"
        await asyncio.sleep(7200)
        assert _idle(engine)

    run(scenario)


def test_whoever_waits_is_told_that_the_engine_has_ended() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        job_id = await engine.submit(_file(storages, size=10**12))
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(engine.wait(job_id))

        async def follow() -> list[str]:
            return [event.state async for event in engine.events(0)]

        following = loop.create_task(follow())
        await asyncio.sleep(5)
        await engine.close()
        with pytest.raises(EngineError):
            await waiting
        assert (await following)[0] == "SUBMITTED"

    run(scenario)


def test_an_engine_whose_dispatcher_broke_still_closes() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        async def broken(*_: Any) -> Any:
            msg = "planned"
            raise LookupError(msg)

        engine._store.claim = broken  # type: ignore[method-assign]
        job_id = await engine.submit(_file(storages))
        with pytest.raises(EngineError):
            await engine.wait(job_id, 10)
        assert engine.why_not_ready() is not None
        await engine.close()
        with pytest.raises(EngineError):
            await engine.submit(_file(storages))

    run(scenario)


def test_cancel_between_two_attempts_removes_what_the_first_one_left() -> None:
    """The first attempt could not clean up; the second is cancelled while it still looks at the source."""

    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = _file(storages)
        storages.add_rule(
            Rule(match="sim://b/f", operations=frozenset({"copy"}), error=lambda: CopyFailed("disk"), at_bytes=1000)
        )
        broken = storages.rule("sim://b/f", operations={"delete"}, error=lambda: Unavailable("down"))
        storages.rule("sim://a/f", operations={"stat"}, attempts=range(2, 3), latency_s=20.0)
        job_id = await engine.submit(transfer)
        while (await engine.files(job_id))[0].n_failed == 0 or not engine.running():
            await asyncio.sleep(0.5)
        assert storages.storage("sim://b").files()
        storages.remove_rule(broken)
        await engine.cancel(job_id)
        await asyncio.sleep(120)
        (file,) = await engine.files(job_id)
        assert file.state is FileState.CANCELED
        assert storages.storage("sim://b").files() == {}
        assert _idle(engine)

    run(scenario)
