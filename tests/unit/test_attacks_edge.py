"""What strangers, browsers and those whose time is over try at the edge of the service."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.service import NOW, Service, running_service
from transfer_engine.callers import LOCAL_TOKEN, Caller
from transfer_engine.config_service import AuthSettings
from transfer_engine.identity.api import Shown
from transfer_engine.identity.loopback import LoopbackOnly

FILE = {"sources": ["https://a.example/f"], "destinations": ["https://b.example/f"]}


def user(**more: Any) -> Caller:
    return Caller(user_dn="alice", vos=("cms",), delegation_id="a" * 16, method=LOCAL_TOKEN, **more)


async def events_until_the_end(service: Service, *, meanwhile: Any = None) -> str:
    async with service.http.get(f"{service.url}/events?after=0") as stream:
        assert stream.status == 200
        if meanwhile is not None:
            await meanwhile()
        async with asyncio.timeout(5):
            return await stream.text()


@pytest.mark.asyncio
async def test_events_end_with_the_credential_that_they_were_asked_with() -> None:
    async with running_service(caller=user(expires_at=NOW + 0.05)) as service:
        assert await events_until_the_end(service) == "retry: 2000\n\n"


@pytest.mark.asyncio
async def test_events_end_when_their_reader_is_banned() -> None:
    async with running_service(caller=user()) as service:

        async def ban() -> None:
            await service.call("POST", "/jobs", {"files": [FILE]})
            await service.engine.control.ban_user("alice", by="somebody")
            service.engine.following.tell()

        text = await events_until_the_end(service, meanwhile=ban)
        assert text.startswith("retry: 2000\n\n")


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/whoami", "/jobs", "/nowhere", "/jobs/x"])
async def test_answers_are_what_they_say_and_name_no_versions(path: str) -> None:
    async with running_service() as service, service.http.get(service.url + path) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Server"] == "transfer-engine"


@pytest.mark.asyncio
@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "x-real-ip"])
async def test_who_comes_through_a_proxy_on_this_machine_is_not_on_it(header: str) -> None:
    door = LoopbackOnly(AuthSettings(loopback="admin"))
    assert (await door.identify(Shown(peer="127.0.0.1"))).known
    assert not (await door.identify(Shown(peer="127.0.0.1", headers={header: "192.0.2.1"}))).known
