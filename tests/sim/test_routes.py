"""Multi-hop jobs of a whole engine in virtual time: hop by hop, and what can happen in the middle."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from protocols.errors import CopyFailed, Denied
from protocols.scripted import ScriptedAdapter
from transfer_engine import (
    FileState,
    JobId,
    JobRequest,
    JobState,
    JobType,
    Settings,
    Transfer,
    TransferEngine,
)
from transfer_engine.places import Link
from transfer_engine.reasons import Why
from transfer_engine.testing import run

S = FileState
HOSTS = ("a", "b", "c", "d")
HOP_S = 100
"""How long each hop takes."""


def _storages(storages: ScriptedAdapter, n: int = 1) -> None:
    for host in HOSTS:
        storages.storage(f"sim://{host}")
    for number in range(n):
        storages.storage("sim://a").add(f"/{number}", size_bytes=HOP_S * 100_000_000)


def _route(number: int = 0) -> JobRequest:
    urls = [f"sim://{host}/{number}" for host in HOSTS]
    hops = tuple(Transfer.of(*pair) for pair in itertools.pairwise(urls))
    return JobRequest(transfers=hops, job_type=JobType.MULTIHOP)


async def _states(engine: TransferEngine, job_id: JobId) -> list[FileState]:
    return [file.state for file in await engine.files(job_id)]


async def _second_hop(engine: TransferEngine, storages: ScriptedAdapter) -> JobId:
    """A route whose second hop runs."""
    _storages(storages)
    job_id = await engine.submit(_route())
    await asyncio.sleep(1.5 * HOP_S)
    assert await _states(engine, job_id) == [S.FINISHED, S.ACTIVE, S.NOT_USED]
    return job_id


def test_hops_run_one_after_the_other() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await _second_hop(engine, storages)
        job = await engine.wait(job_id)
        assert (job.state, job.source_se, job.dest_se) == (JobState.FINISHED, "sim://a", "sim://d")
        copies = [(entry.at_s, entry.url) for entry in storages.journal if entry.operation in {"copy", "copied"}]
        assert [url for _, url in copies] == [f"sim://{host}/0" for host in "bbccdd"]
        assert [at for at, _ in copies] == sorted(at for at, _ in copies)
        assert asyncio.get_running_loop().time() == pytest.approx(3 * HOP_S, abs=10)

    run(scenario)


def test_each_hop_counts_on_its_own_link() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        _storages(storages, 6)
        jobs = [await engine.submit(_route(number)) for number in range(6)]
        most: dict[Link, int] = {}
        while {(await engine.job(job_id)).state for job_id in jobs} != {JobState.FINISHED}:
            await asyncio.sleep(HOP_S / 10)
            for link, n in engine.active().items():
                most[link] = max(most.get(link, 0), n)
        assert most == {
            Link("sim://a", "sim://b"): 2,
            Link("sim://b", "sim://c"): 1,
            Link("sim://c", "sim://d"): 1,
        }
        assert asyncio.get_running_loop().time() >= 8 * HOP_S

    limits = {"links": [{"source": "sim://b", "destination": "sim://c", "active": 1}], "link": 2}
    run(scenario, settings=Settings.model_validate({"limits": limits, "optimizer": {"enabled": False}}))


def test_a_later_hop_says_that_it_waits_for_the_one_before() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await _second_hop(engine, storages)
        last = (await engine.files(job_id))[2]
        found = await engine.explainer.file(last)
        assert found.reasons[0].code is Why.HOP
        assert not found.moving
        assert found.start_at is None or found.start_at > last.submitted_at + HOP_S

    run(scenario)


def test_cancelling_in_the_middle_ends_the_route() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await _second_hop(engine, storages)
        await engine.cancel(job_id)
        while engine.running():
            await asyncio.sleep(1)
        assert (await engine.job(job_id)).state is JobState.CANCELED
        assert await _states(engine, job_id) == [S.FINISHED, S.CANCELED, S.CANCELED]
        assert storages.storage("sim://c").files() == {}

    run(scenario)


def test_a_hold_in_the_middle_lets_the_hop_end_and_the_next_one_wait() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await _second_hop(engine, storages)
        await engine.control.hold(job_id)
        await asyncio.sleep(10 * HOP_S)
        assert await _states(engine, job_id) == [S.FINISHED, S.FINISHED, S.SUBMITTED]
        await engine.control.resume(job_id)
        assert (await engine.wait(job_id, 2 * HOP_S)).state is JobState.FINISHED

    run(scenario)


def test_a_ban_in_the_middle_is_waited_for() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await _second_hop(engine, storages)
        await engine.control.ban("sim://d", allow_submit=True)
        await asyncio.sleep(10 * HOP_S)
        assert await _states(engine, job_id) == [S.FINISHED, S.FINISHED, S.SUBMITTED]
        await engine.control.unban("sim://d")
        assert (await engine.wait(job_id, 2 * HOP_S)).state is JobState.FINISHED

    run(scenario)


@pytest.mark.parametrize("endpoint", ["sim://c", "sim://d"])
def test_a_ban_that_cancels_ends_the_route(endpoint: str) -> None:
    """At once where the hop that runs touches the storage, else when its turn comes."""

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await _second_hop(engine, storages)
        await engine.control.ban(endpoint, cancel=True)
        assert (await engine.wait(job_id, 3 * HOP_S)).state is JobState.CANCELED
        states = await _states(engine, job_id)
        assert states[-1] is S.CANCELED
        assert not {S.ACTIVE, S.SUBMITTED} & set(states)

    run(scenario)


def test_a_hop_that_fails_is_repeated_and_the_route_goes_on() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://c/*", operations={"copy"}, attempts=range(1, 2), error=lambda: CopyFailed("disk"))
        _storages(storages)
        job = await engine.wait(await engine.submit(_route()))
        assert job.state is JobState.FINISHED
        assert [file.n_failed for file in await engine.files(job.job_id)] == [0, 1, 0]

    run(scenario)


def test_a_hop_that_fails_for_good_ends_the_route() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://c/*", operations={"copy"}, error=lambda: Denied("no"))
        _storages(storages)
        job = await engine.wait(await engine.submit(_route()))
        assert job.state is JobState.FAILED
        assert await _states(engine, job.job_id) == [S.FINISHED, S.FAILED, S.NOT_USED]

    run(scenario)


def test_hops_have_no_choice() -> None:
    """Their sources stay what they are, also when these are banned for a while."""

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        await engine.control.ban("sim://a", allow_submit=True, for_s=60)
        _storages(storages)
        job_id = await engine.submit(_route())
        before = [file.source_url for file in await engine.files(job_id)]
        assert (await engine.wait(job_id)).state is JobState.FINISHED
        assert [file.source_url for file in await engine.files(job_id)] == before

    run(scenario)
