"""What FTS's clients read of every kind of end: states and reasons of jobs and files, as the wire shows them."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from protocols.errors import CopyFailed, Missing, Unavailable
from protocols.scripted import ScriptedAdapter
from transfer_engine import JobRequest, JobState, JobType, Settings, Transfer, TransferEngine
from transfer_engine.config_service import AuthSettings
from transfer_engine.engine import Engine
from transfer_engine.identity.loopback import local_caller
from transfer_engine.service.wire import views
from transfer_engine.service.wire.submission import parse_submission
from transfer_engine.testing import EPOCH, run

FILES_FAILED = "One or more files failed. Please have a look at the details for more information"
EXPIRED = "Job has been canceled because it stayed in the queue for too long (max-time-in-queue timeout)"
NOT_THERE = "SOURCE [2] "
Shown = tuple[dict[str, Any], list[dict[str, Any]]]


def request(*files: dict[str, Any], **params: Any) -> JobRequest:
    """A submission, read as the service reads it."""
    caller = local_caller(AuthSettings(loopback="admin"))
    assert caller is not None
    body = json.dumps({"files": files, "params": params}).encode()
    return parse_submission(body, caller=caller, now=EPOCH, files_max=100)


def file(source: str, destination: str, **more: Any) -> dict[str, Any]:
    return {"sources": [source], "destinations": [destination], **more}


async def shown(engine: Engine, job_id: Any) -> Shown:
    job = await engine.status(job_id)
    return views.job_object(job), views.file_objects(job, await engine.files(job_id))


async def ended(engine: Engine, asked: JobRequest) -> Shown:
    job_id = await engine.submit(asked)
    await engine.wait(job_id)
    return await shown(engine, job_id)


def filled(storages: ScriptedAdapter, *names: str) -> None:
    for host in "abcd":
        storages.storage(f"sim://{host}")
    for name in names:
        storages.storage("sim://a").add(f"/{name}", size_bytes=1000)


@pytest.mark.parametrize(
    ("names", "state", "reason"),
    [
        (["good", "good2"], "FINISHED", None),
        (["good", "gone"], "FINISHEDDIRTY", FILES_FAILED),
        (["gone", "gone2"], "FAILED", FILES_FAILED),
    ],
)
def test_a_job_of_independent_files(names: list[str], state: str, reason: str | None) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages, "good", "good2")
        job, files = await ended(engine, request(*[file(f"sim://a/{name}", f"sim://b/{name}") for name in names]))
        assert (job["job_type"], job["job_state"], job["reason"]) == ("N", state, reason)
        assert job["job_finished"] is not None
        for one, name in zip(files, names, strict=True):
            if name.startswith("good"):
                assert (one["file_state"], one["reason"]) == ("FINISHED", None)
            else:
                assert one["file_state"] == "FAILED"
                assert one["reason"].startswith(NOT_THERE)
                assert one["recoverable"] is False

    run(scenario)


def test_a_storage_that_cannot_be_reached() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages, "f")
        storages.rule("sim://a/*", operations={"stat"}, error=lambda: Unavailable("no route", errno=112))
        _, (one,) = await ended(engine, request(file("sim://a/f", "sim://b/f"), retry=-1))
        assert (one["file_state"], one["reason"], one["recoverable"]) == ("FAILED", "SOURCE [112] no route", True)

    run(scenario)


def test_a_copy_that_the_storage_reports_as_failed() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages, "f")
        storages.rule("sim://b/*", operations={"copy"}, error=lambda: CopyFailed("disk"))
        _, (one,) = await ended(engine, request(file("sim://a/f", "sim://b/f"), retry=-1))
        assert one["reason"] == "TRANSFER [5] disk"

    run(scenario)


def test_one_of_several_sources_delivers() -> None:
    """The job's source becomes the one that delivered; the rows stay in the order submitted, the unused one unused."""

    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages)
        for host in "cd":
            storages.storage(f"sim://{host}").add("/f", size_bytes=1000)
        sources = ["sim://a/f", "sim://c/f", "sim://d/f"]
        asked = request({"sources": sources, "destinations": ["sim://b/f"], "selection_strategy": "orderly"})
        job, files = await ended(engine, asked)
        assert (job["job_type"], job["job_state"], job["reason"]) == ("R", "FINISHED", None)
        assert (job["source_se"], job["dest_se"]) == ("sim://c", "sim://b")
        assert [one["source_surl"] for one in files] == sources
        assert [one["file_state"] for one in files] == ["FAILED", "FINISHED", "NOT_USED"]
        assert {one["file_index"] for one in files} == {0}
        assert len({one["hashed_id"] for one in files}) == 1
        assert files[0]["reason"].startswith(NOT_THERE)
        assert [one["reason"] for one in files[1:]] == [None, None]

    run(scenario)


def test_no_source_delivers() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages)
        job, files = await ended(
            engine, request({"sources": ["sim://a/f", "sim://c/f"], "destinations": ["sim://b/f"]})
        )
        assert (job["job_state"], job["reason"]) == ("FAILED", FILES_FAILED)
        assert [one["file_state"] for one in files] == ["FAILED", "FAILED"]

    run(scenario)


@pytest.mark.parametrize(
    ("broken", "states"),
    [(0, ["FAILED", "NOT_USED", "NOT_USED"]), (1, ["FINISHED", "FAILED", "NOT_USED"]), (None, ["FINISHED"] * 3)],
)
def test_a_route(broken: int | None, states: list[str]) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages, "f")
        urls = [f"sim://{host}/f" for host in "abcd"]
        if broken is not None:
            storages.rule(urls[broken], operations={"stat"}, error=lambda: Missing("gone"), attempts=_first(broken))
        legs = [file(*pair) for pair in itertools.pairwise(urls)]
        job, files = await ended(engine, request(*legs, multihop=True))
        assert (job["job_type"], job["source_se"], job["dest_se"]) == ("H", "sim://a", "sim://d")
        assert (job["job_state"], job["reason"]) == (("FINISHED", None) if broken is None else ("FAILED", FILES_FAILED))
        assert [one["file_state"] for one in files] == states
        for one in files:
            if one["file_state"] == "FAILED":
                assert one["reason"] == "SOURCE [2] gone"
            else:
                assert one["reason"] is None

    run(scenario)


def _first(broken: int) -> range | None:
    """An intermediate file is looked at twice while it is a destination; then it is the next hop's source."""
    return range(3, 1000) if broken else None


def test_what_waited_too_long_is_cancelled_with_its_reason() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages)
        storages.storage("sim://a").add("/long", size_bytes=10**12)
        storages.storage("sim://a").add("/short", size_bytes=1000)
        await engine.submit(Transfer.of("sim://a/long", "sim://b/long"))
        job, (one,) = await ended(engine, request(file("sim://a/short", "sim://b/short"), max_time_in_queue="10m"))
        assert (job["job_state"], one["file_state"]) == ("CANCELED", "CANCELED")
        assert (job["reason"], one["reason"]) == (EXPIRED, EXPIRED)
        assert job["cancel_job"] is False

    run(scenario, settings=Settings(limits={"link": 1}))  # type: ignore[arg-type]  # as a settings file has it


def test_what_the_user_cancels() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages)
        storages.storage("sim://a").add("/long", size_bytes=10**12)
        job_id = await engine.submit(request(file("sim://a/long", "sim://b/long"), file("sim://a/long", "sim://c/x")))
        await engine.cancel(job_id)
        job, files = await shown(engine, job_id)
        assert (job["job_state"], job["reason"], job["cancel_job"]) == ("CANCELED", "Job canceled by the user", True)
        assert {(one["file_state"], one["reason"]) for one in files} == {("CANCELED", "Job canceled by the user")}
        assert (await engine.wait(job_id)).state is JobState.CANCELED

    run(scenario)


def test_some_finished_and_the_rest_cancelled_is_canceled() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        filled(storages, "f")
        storages.storage("sim://a").add("/long", size_bytes=10**12)
        job_id = await engine.submit(request(file("sim://a/f", "sim://b/f"), file("sim://a/long", "sim://b/long")))
        async for event in engine.events(after=0):
            if event.kind == "transfer" and event.state == "FINISHED":
                break
        await engine.cancel(job_id)
        await engine.wait(job_id)
        job, files = await shown(engine, job_id)
        assert [one["file_state"] for one in files] == ["FINISHED", "CANCELED"]
        assert (job["job_state"], JobType(job["job_type"])) == ("CANCELED", JobType.NORMAL)

    run(scenario)


def test_a_ban_that_cancels_is_the_reason_of_what_ran_and_of_what_waited() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        filled(storages)
        jobs = []
        for name in ("one", "two"):
            storages.storage("sim://a").add(f"/{name}", size_bytes=10**12)
            jobs.append(await engine.submit(request(file(f"sim://a/{name}", f"sim://b/{name}"))))
        await asyncio.sleep(60)
        await engine.control.ban("sim://b", cancel=True)
        for job_id in jobs:
            await engine.wait(job_id)
            job, (one,) = await shown(engine, job_id)
            assert (job["job_state"], job["reason"], job["cancel_job"]) == ("CANCELED", "Storage banned", False)
            assert (one["file_state"], one["reason"]) == ("CANCELED", "Storage banned")

    run(scenario, settings=Settings(limits={"link": 1}))  # type: ignore[arg-type]  # as a settings file has it
