"""`submit`, `status`, `wait`, `list`, `cancel` against a service whose engine is moved by hand."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.service import Service, running_service
from transfer_engine.cli import client
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import Stop

pytestmark = pytest.mark.asyncio

NO_JOB = "00000000-0000-4000-8000-00000000dead"


async def pairs(n: int, first: int = 0) -> AsyncIterator[tuple[str, str]]:
    for i in range(first, first + n):
        yield f"https://a.example/f{i}", f"https://b.example/f{i}"


async def submit(service: Service, n: int = 1, *, wait: bool = False, **options: Any) -> Exit:
    return await client.submit(service.url, pairs(n), client.SubmitOptions(**options), as_json=False, wait=wait)


def words(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.split()


async def test_what_is_submitted(capsys):
    async with running_service() as service:
        code = await submit(
            service,
            overwrite=True,
            checksum="adler32:0000abcd",
            priority=5,
            activity="production",
            retry=0,
            metadata='{"run": 7}',
        )
        [job_id] = words(capsys)
        [request] = service.engine.requests
        job = await service.engine.reader.job(job_id)
    assert code is Exit.OK
    assert (request.options.overwrite, request.options.retries_max, request.priority) == (True, 0, 5)
    [transfer] = request.transfers
    assert (transfer.checksum, transfer.activity) == ("adler32:0000abcd", "production")
    assert job.metadata["run"] == 7


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(0, []), (1, [1]), (10_000, [10_000]), (10_001, [1000] * 10 + [1]), (12_500, [1000] * 12 + [500])],
)
async def test_long_lists_become_several_jobs(n: int, sizes: list[int]):
    blocks = [list(block) async for block in client.jobs_of(pairs(n))]
    assert [len(block) for block in blocks] == sizes
    assert [pair for block in blocks for pair in block] == [pair async for pair in pairs(n)]


async def test_what_cannot_be_submitted(capsys):
    async with running_service() as service:
        with pytest.raises(Stop, match="not JSON") as caught:
            await submit(service, metadata="{")
        assert caught.value.code is Exit.USAGE
        with pytest.raises(Stop, match="nothing to submit"):
            await submit(service, 0)
        with pytest.raises(Stop, match="checksum") as caught:
            await submit(service, checksum="nonsense:1")
        assert caught.value.code is Exit.USAGE

        async def local() -> AsyncIterator[tuple[str, str]]:
            yield "/etc/hosts", "https://b.example/f"

        with pytest.raises(Stop, match="expected a URL"):
            await client.submit(service.url, local(), client.SubmitOptions(), as_json=False, wait=False)
        assert service.engine.requests == []


async def test_a_list_that_breaks_off_says_what_was_accepted(capsys):
    async def broken() -> AsyncIterator[tuple[str, str]]:
        async for pair in pairs(client.WHOLE_FILES + 1):
            yield pair
        raise Stop("line 10002 is wrong", Exit.USAGE)

    async with running_service() as service:
        with pytest.raises(Stop, match="line 10002 is wrong; only the 10 jobs named above were accepted"):
            await client.submit(service.url, broken(), client.SubmitOptions(), as_json=False, wait=False)
    assert len(words(capsys)) == 10


async def test_status_says_why(capsys):
    async with running_service() as service:
        await submit(service, 2)
        [job_id] = words(capsys)
        one, two = await service.engine.claim()
        await service.engine.finish(one)
        await service.engine.fail(two)
        assert await client.status(service.url, [job_id], as_json=False) is Exit.OK
        out = capsys.readouterr().out
        assert "FINISHEDDIRTY" in out
        assert "1 FAILED, 1 FINISHED" in out
        assert "https://a.example/f1 → https://b.example/f1: SOURCE" in out
        assert "HTTP 404" in out
        assert await client.status(service.url, [NO_JOB, job_id], as_json=True) is Exit.NOT_FOUND
        told = capsys.readouterr()
        assert [json.loads(line)["job_id"] for line in told.out.splitlines()] == [NO_JOB, job_id]
        assert NO_JOB in told.err


@pytest.mark.parametrize(
    ("ends", "expected"),
    [(("finish", "finish"), Exit.OK), (("finish", "fail"), Exit.SOME_FAILED), (("fail", "fail"), Exit.ALL_FAILED)],
)
async def test_waiting_tells_how_it_ended(capsys, ends: tuple[str, str], expected: Exit):
    async with running_service() as service:
        await submit(service, 2)
        [job_id] = words(capsys)
        async with asyncio.TaskGroup() as group:
            # Twice the same id is one job.
            waiting = group.create_task(client.wait_for(service.url, [job_id] * 2, timeout_s=30, as_json=False))
            for work, end in zip(await service.engine.claim(), ends, strict=True):
                await getattr(service.engine, end)(work)
        assert waiting.result() is expected
        told = capsys.readouterr()
        assert told.out.count(job_id) == 1
        assert told.err.count("HTTP 404") == ends.count("fail")


async def test_waiting_has_an_end(capsys):
    async with running_service() as service:
        await submit(service)
        [job_id] = words(capsys)
        assert await client.wait_for(service.url, [job_id], timeout_s=0.05, as_json=False) is Exit.TIMED_OUT
        assert "the jobs go on" in capsys.readouterr().err
        assert await client.wait_for(service.url, [NO_JOB], timeout_s=30, as_json=False) is Exit.NOT_FOUND


async def test_cancel(capsys):
    async with running_service() as service:
        await submit(service)
        [job_id] = words(capsys)
        assert await client.cancel(service.url, [job_id], as_json=False) is Exit.OK
        assert words(capsys)[:2] == [job_id, "CANCELED"]
        assert await client.cancel(service.url, [NO_JOB, job_id], as_json=False) is Exit.NOT_FOUND
        assert NO_JOB in capsys.readouterr().err
        assert await client.wait_for(service.url, [job_id], timeout_s=30, as_json=False) is Exit.ALL_FAILED


async def test_list(capsys):
    async def listed(states: str | None = None, limit: int | None = None) -> list[str]:
        assert await client.list_jobs(service.url, states=states, limit=limit, as_json=True) is Exit.OK
        return [json.loads(line)["job_id"] for line in capsys.readouterr().out.splitlines()]

    async with running_service() as service:
        await submit(service)
        [ended] = words(capsys)
        for work in await service.engine.claim():
            await service.engine.finish(work)
        await submit(service)
        [waiting] = words(capsys)
        assert await listed() == [waiting]
        assert await listed(states="finished") == [ended]
        assert await listed(states=" Finished, submitted") == [waiting, ended]
        assert len(await listed(limit=1)) == 1
        assert set(await listed(limit=5)) == {waiting, ended}
        with pytest.raises(Stop, match="expected some of SUBMITTED"):
            await listed(states="done")


@pytest.mark.parametrize("url", ["", "foo", "127.0.0.1:8446", "ftp://host", "http://", "http://host:99999", "http://["])
async def test_what_is_no_service_url(url: str):
    with pytest.raises(Stop, match="expected a URL") as caught:
        await client.list_jobs(url, states=None, limit=None, as_json=False)
    assert caught.value.code is Exit.USAGE


async def test_nobody_listens():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(Stop, match="cannot be reached: Connection refused; start one with") as caught:
            await client.list_jobs(url, states=None, limit=None, as_json=False)
    assert caught.value.code is Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (web.Response(text="<html>", content_type="text/html"), Exit.UNREACHABLE),
        (web.json_response({"message": "not you"}, status=403), Exit.DENIED),
        (web.json_response({"message": "later"}, status=503), Exit.TEMPORARY),
        (web.json_response({"message": "broken"}, status=500), Exit.ERROR),
        (web.json_response(["?"], status=400), Exit.USAGE),
    ],
)
async def test_answers_of_something_else(answer: web.Response, expected: Exit):
    async def handle(_request: web.Request) -> web.Response:
        return answer

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    async with TestServer(app) as server:
        with pytest.raises(Stop) as caught:
            await client.list_jobs(str(server.make_url("/")), states=None, limit=None, as_json=False)
    assert caught.value.code is expected
