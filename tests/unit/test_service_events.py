"""`GET /events`: what is streamed, to whom, from where on, and to how many."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientResponse

from tests.service import Service, running_service
from transfer_engine import submission
from transfer_engine.callers import LOCAL_TOKEN, Caller, Grant, Role
from transfer_engine.model import JobRequest, Transfer
from transfer_engine.service import events as streams
from transfer_engine.service.events import Events
from transfer_engine.store.cancel import BY_USER
from transfer_engine.store.sqlite import SqliteStore

pytestmark = pytest.mark.asyncio


def _user(name: str, vo: str, *grants: Grant) -> Caller:
    return Caller(
        user_dn=f"/CN={name}", vos=(vo,), delegation_id=name.ljust(16, "0"), method=LOCAL_TOKEN, grants=grants
    )


ALICE, BOB = _user("alice", "cms"), _user("bob", "atlas")
MONITOR = _user("carol", "cms", Grant(Role.VO_MONITOR, "cms"))
CALLERS = (ALICE, BOB, MONITOR)


@asynccontextmanager
async def _stream(service: Service, query: str = "", caller: int = 0, **headers: str) -> AsyncIterator[ClientResponse]:
    headers = {"X-Test-Caller": str(caller), **headers}
    async with service.http.get(f"{service.url}/events{query}", headers=headers) as response:
        yield response


async def _next(response: ClientResponse) -> dict[str, str]:
    """One event by its fields; comments are passed over."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(5):
        while True:
            line = (await response.content.readline()).decode().rstrip("\n")
            if not line and ("data" in fields or "retry" in fields):
                return fields
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value


async def _opened(response: ClientResponse) -> None:
    assert response.status == 200, await response.text()
    assert response.content_type == "text/event-stream"
    assert await _next(response) == {"retry": "2000"}


async def _submit(service: Service, caller: int = 0) -> str:
    body: dict[str, Any] = {
        "files": [{"sources": ["https://a.example/f"], "destinations": [f"https://b.example/{service.engine.n_ids}"]}]
    }
    async with service.http.post(f"{service.url}/jobs", json=body, headers={"X-Test-Caller": str(caller)}) as response:
        assert response.status == 200, await response.text()
        job_id: str = (await response.json())["job_id"]
    service.engine.following.tell()
    return job_id


async def test_changes_come_as_they_happen_with_a_cursor() -> None:
    async with running_service(caller=CALLERS) as service, _stream(service) as stream:
        await _opened(stream)
        job_id = await _submit(service)
        (work,) = await service.engine.claim()
        await service.engine.fail(work)
        service.engine.following.tell()
        found = [await _next(stream) for _ in range(5)]
        assert [event["event"] for event in found] == ["job", "transfer", "job", "transfer", "job"]
        assert [int(event["id"]) for event in found] == [1, 2, 3, 4, 5]
        documents = [json.loads(event["data"]) for event in found]
        assert [document["state"] for document in documents] == ["SUBMITTED", "ACTIVE", "ACTIVE", "FAILED", "FAILED"]
        assert documents[3] == {
            "job_id": job_id,
            "file_id": work.file_id,
            "state": "FAILED",
            "reason": "SOURCE [2] Result HTTP 404 : File not found after 1 attempts",
            "time": "2023-11-14T22:13:20.000Z",
        }


@pytest.mark.parametrize("by_header", [False, True])
async def test_a_client_that_was_away_goes_on_where_it_was(by_header: bool) -> None:
    async with running_service(caller=CALLERS) as service:
        for _ in range(3):
            await _submit(service)
        # The header is newer than the address that a browser comes again with.
        more = {"Last-Event-ID": "2"} if by_header else {}
        async with _stream(service, "?after=0" if by_header else "?after=2", **more) as stream:
            await _opened(stream)
            assert (await _next(stream))["id"] == "3"


async def test_only_what_a_caller_sees_is_streamed() -> None:
    async with running_service(caller=CALLERS) as service:
        mine, foreign = await _submit(service, 0), await _submit(service, 1)
        mine_too = await _submit(service, 0)
        for caller, expected in ((0, [mine, mine_too]), (1, [foreign]), (2, [mine, mine_too])):
            async with _stream(service, "?after=0", caller) as stream:
                await _opened(stream)
                assert [json.loads((await _next(stream))["data"])["job_id"] for _ in expected] == expected


async def test_a_job_is_followed_to_its_end() -> None:
    async with running_service(caller=CALLERS) as service:
        job_id = await _submit(service)
        await _submit(service)
        works = await service.engine.claim()
        for work in works:
            await service.engine.finish(work)
        async with _stream(service, f"?after=0&job_id={job_id}") as stream:
            async with asyncio.timeout(5):
                text = await stream.text()
        assert text.count("\nevent: ") == 5
        assert f'"job_id":"{job_id}","file_id":null,"state":"FINISHED"' in text.split("\n\n")[-2]


@pytest.mark.parametrize("caller", [1, 0])
async def test_a_foreign_job_and_one_that_is_not_there_look_alike(caller: int) -> None:
    async with running_service(caller=CALLERS) as service:
        job_id = await _submit(service) if caller else "00000000-0000-4000-8000-999999999999"
        async with _stream(service, f"?job_id={job_id}", caller) as response:
            assert response.status == 404
            assert job_id in (await response.json())["message"]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 19, "٣"])
async def test_a_cursor_is_a_number(after: str) -> None:
    async with running_service(caller=CALLERS) as service, _stream(service, f"?after={after}") as response:
        assert response.status == 400
        assert (await response.json())["field"] == "after"


async def test_a_cursor_that_is_too_old_or_of_another_database_is_told() -> None:
    async with running_service(caller=CALLERS) as service:
        for _ in range(5):
            await _submit(service)
        await service.engine.store.prune_events(2)
        async with _stream(service, "?after=1") as stream:
            await _opened(stream)
            assert await _next(stream) == {"id": "3", "event": "gap", "data": "{}"}
            assert (await _next(stream))["id"] == "4"
        async with _stream(service, "?after=1000") as stream:
            await _opened(stream)
            assert await _next(stream) == {"id": "5", "event": "gap", "data": "{}"}
            await _submit(service)
            assert (await _next(stream))["id"] == "6"
        await service.engine.store.prune_events(0)
        async with _stream(service, "?after=6") as stream:
            await _opened(stream)
            await _submit(service)
            assert (await _next(stream))["event"] == "job"


async def test_one_caller_cannot_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CLIENTS_OF_CALLER_MAX", 2)
    monkeypatch.setattr(streams, "CLIENTS_MAX", 3)
    async with running_service(caller=CALLERS) as service, _stream(service) as one, _stream(service) as two:
        await _opened(one)
        await _opened(two)
        async with _stream(service) as refused:
            assert refused.status == 429
            assert int(refused.headers["Retry-After"]) >= 1
        async with _stream(service, caller=1) as other:
            await _opened(other)
            async with _stream(service, caller=2) as refused:
                assert refused.status == 429


async def test_streams_end_with_the_service() -> None:
    async with running_service(caller=CALLERS) as service:
        app_events = _events_of(service)
        async with _stream(service) as stream:
            await _opened(stream)
            await app_events.close(None)  # type: ignore[arg-type]
            async with asyncio.timeout(5):
                assert await stream.read() == b""


def _events_of(service: Service) -> Events:
    found = [one for one in gc.get_objects() if isinstance(one, Events)]
    return next(one for one in found if one._gate._engine is service.engine)


async def test_silence_is_broken() -> None:
    async with running_service(caller=CALLERS) as service:
        _events_of(service)._keep_alive_s = 0.05
        async with _stream(service) as stream:
            await _opened(stream)
            async with asyncio.timeout(5):
                assert await stream.content.readline() == b": still here\n"


async def test_a_client_that_does_not_read_is_dropped() -> None:
    async with running_service(caller=CALLERS) as service:
        events = _events_of(service)
        events._write_s = 0.2
        host, _, port = service.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b"retry: 2000")
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            store = service.engine.store
            while events._clients:
                await _many(store)
                service.engine.following.tell()
        writer.close()


async def _many(store: SqliteStore) -> None:
    files = tuple(Transfer.of(f"https://a.example/{n}", f"https://b.example/{n}") for n in range(500))
    request = JobRequest(transfers=files, vo="cms", user_dn=ALICE.user_dn, cred_id=ALICE.delegation_id)
    planned = submission.plan(request, now=1.0, new_id=str(uuid.uuid4()), schemes={"https"})
    await store.insert(planned)
    await store.cancel(planned.job_id, 1.0, failure=replace(BY_USER, message="x" * 2000))
