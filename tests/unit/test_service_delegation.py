"""`/delegation` over HTTP: how a user's proxy gets into the store, and who has to delegate before submitting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.grid import new_key
from tests.service import NOW, Service, file, running_service
from tests.unit.delegating import ID, OTHER_ID, WHEN, World
from transfer_engine.callers import TOKEN, Caller
from transfer_engine.identity.x509.delegation import request_bits

CLIENT = "fts-python-bindings/3.14.2"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("grid"))


@asynccontextmanager
async def service(*callers: Caller) -> AsyncIterator[Service]:
    async with running_service(caller=callers) as running:
        yield running


async def get(running: Service, path: str, *, number: int = 0, agent: str = CLIENT) -> tuple[int, Any]:
    return await running.call("GET", path, headers={"X-Test-Caller": str(number), "User-Agent": agent})


async def csr(running: Service, *, number: int = 0, delegation_id: str = ID) -> str:
    headers = {"X-Test-Caller": str(number)}
    async with running.http.get(f"{running.url}/delegation/{delegation_id}/request", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert response.headers["X-Delegation-ID"] == delegation_id
        return await response.text()


async def put(running: Service, body: bytes, *, method: str = "PUT", number: int = 0) -> tuple[int, str]:
    path = f"{running.url}/delegation/{ID}/credential"
    headers = {"X-Test-Caller": str(number)}
    async with running.http.request(
        method, path, data=body, headers=headers, skip_auto_headers=["Content-Type"]
    ) as got:
        return got.status, await got.text()


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_the_whole_way(world, method):
    async with service(world.caller()) as running:
        assert await get(running, f"/delegation/{ID}") == (200, [])
        status, refused = await running.call("POST", "/jobs", {"files": [file()]})
        assert (status, refused["status"]) == (419, "419 Authentication Timeout")
        assert refused["message"] == f'No delegation found for "{world.alice.dn}"'
        request = await csr(running)
        assert await csr(running) == request
        assert await put(running, world.signed(request), method=method) == (201, "")
        assert await get(running, f"/delegation/{ID}") == (
            200, {"termination_time": "2023-11-15T10:13:20", "voms_attrs": ["/escape"]}
        )  # fmt: skip
        assert (await running.call("POST", "/jobs", {"files": [file()]}))[0] == 200
        stored = await running.engine.store.credential(ID)
        assert stored is not None
        assert (stored.user_dn, stored.vo, stored.attributes) == (world.alice.dn, "escape", ("/escape",))
        assert stored.expires_at == NOW + 12 * 3600
        assert b"PRIVATE" not in stored.sealed
        # The request is used up; the next one has another key.
        assert await csr(running) != request
        assert (await running.call("DELETE", f"/delegation/{ID}"))[0] == 204
        status, gone = await running.call("DELETE", f"/delegation/{ID}")
        assert (status, gone["message"]) == (404, "Delegated credentials not found")
        entries = await running.engine.reader.audit(10)
        assert {entry.action for entry in entries} == {"delegate", "delegation-drop"}
        assert "BEGIN" not in str(entries)


@pytest.mark.asyncio
async def test_nothing_is_told_by_the_user_agent(world):
    async with service(world.caller()) as running:
        for agent, told in (
            (CLIENT, []),
            ("fts-rest-cli/3.12.0", []),
            ("fts-python-bindings/4.0", []),
            ("fts-python-bindings/3.11.9", None),
            ("fts-python-bindings/x", None),
            ("curl/7.88.1", None),
            ("", None),
        ):
            assert await get(running, f"/delegation/{ID}", agent=agent) == (200, told)


@pytest.mark.asyncio
async def test_somebody_elses_id_is_refused(world):
    async with service(world.caller()) as running:
        for method, path in (
            ("GET", ""), ("DELETE", ""), ("GET", "/request"), ("PUT", "/credential"), ("POST", "/credential"),
            ("POST", "/voms"),
        ):  # fmt: skip
            status, refused = await running.call(method, f"/delegation/{OTHER_ID}{path}")
            assert status == 403, path
            assert refused["message"] == "The requested ID and the credentials ID do not match"


@pytest.mark.asyncio
async def test_users_of_tokens_need_none_and_get_none(world):
    caller = world.caller(method=TOKEN, certificate=None)
    async with service(caller) as running:
        assert await get(running, f"/delegation/{ID}") == (200, [])
        for method, path in (
            ("DELETE", f"/{ID}"), ("GET", f"/{ID}/request"), ("PUT", f"/{ID}/credential"), ("POST", f"/{ID}/voms"),
            ("GET", ""),
        ):  # fmt: skip
            status, refused = await running.call(method, f"/delegation{path}")
            assert (status, refused["message"]) == (403, "Certificate required"), path


@pytest.mark.asyncio
async def test_local_callers_have_enough():
    async with running_service() as running:
        _, who = await running.call("GET", "/whoami")
        assert await get(running, f"/delegation/{who['delegation_id']}") == (
            200, {"termination_time": "2023-11-15T22:13:20", "voms_attrs": []}
        )  # fmt: skip


@pytest.mark.asyncio
async def test_less_than_an_hour_is_not_enough(world):
    async with service(world.caller()) as running:
        body = world.signed(await csr(running), not_after=WHEN + timedelta(hours=2))
        assert (await put(running, body))[0] == 201
        for later_s, status, message in (
            (3600, 200, None),
            (3601, 419, f"The delegated credentials has less than one hour left ({ID})"),
            (7260, 419, f"The delegated credentials expired 60 seconds ago ({ID})"),
        ):
            running.clock.at = NOW + later_s
            got, told = await running.call("POST", "/jobs", {"files": [file(later_s)]})
            assert (got, told.get("message")) == (status, message)
        assert (await get(running, f"/delegation/{ID}"))[1]["termination_time"] == "2023-11-15T00:13:20"


@pytest.mark.asyncio
async def test_bad_uploads(world):
    async with service(world.caller()) as running:
        assert await put(running, b"x") == (
            400, '{"status":"400 Bad Request","message":"No credential cache found"}'
        )  # fmt: skip
        request = await csr(running)
        status, told = await put(running, b"garbage")
        assert (status, json.loads(told)["message"]) == (400, "Could not process the proxy: Malformed proxy")
        assert (await put(running, world.signed(request, issuer=world.bob)))[0] == 400
        assert (await put(running, b"x" * 70_000))[0] == 413
        # The request still holds.
        assert await csr(running) == request
        assert (await put(running, world.signed(request)))[0] == 201


@pytest.mark.asyncio
async def test_a_repeated_upload_is_no_mistake(world):
    async with service(world.caller()) as running:
        body = world.signed(await csr(running))
        assert [(await put(running, body))[0] for _ in range(2)] == [201, 201]
        # Another client has asked for a request since.
        await csr(running)
        assert (await put(running, body))[0] == 201
        longer = world.signed(await csr(running), not_after=WHEN + timedelta(hours=20))
        assert (await put(running, longer))[0] == 201
        stored = await running.engine.store.credential(ID)
        assert stored is not None
        assert stored.expires_at == NOW + 20 * 3600


@pytest.mark.asyncio
async def test_clients_at_once_get_one_request(world):
    async with service(world.caller()) as running:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(csr(running)) for _ in range(5)]
        assert len({one.result() for one in asked}) == 1


@pytest.mark.asyncio
async def test_a_longer_key_gets_another_request(world):
    strong = world.grid.issue(world.alice.cert.subject, key=new_key("rsa", 3072))
    async with service(world.caller(), world.caller(strong)) as running:
        first = await csr(running)
        second = await csr(running, number=1)
        assert (request_bits(first), request_bits(second)) == (2048, 3072)


@pytest.mark.asyncio
async def test_two_users_of_one_id(world):
    twin = replace(world.caller(), user_dn="/DC=org/CN=twin")
    async with service(world.caller(), twin) as running:
        assert (await put(running, world.signed(await csr(running))))[0] == 201
        assert await get(running, f"/delegation/{ID}", number=1) == (200, [])
        status, told = await running.call("POST", "/jobs", {"files": [file()]}, headers={"X-Test-Caller": "1"})
        assert (status, told["message"]) == (419, 'No delegation found for "/DC=org/CN=twin"')
        assert (await running.call("DELETE", f"/delegation/{ID}", headers={"X-Test-Caller": "1"}))[0] == 404


@pytest.mark.asyncio
async def test_voms_is_not_fetched_here(world):
    async with service(world.caller()) as running:
        path = f"/delegation/{ID}/voms"
        assert (await running.call("POST", path, ["escape"]))[0] == 404
        assert (await put(running, world.signed(await csr(running))))[0] == 201
        for body in (b"", b"{}", b'["a", 1]', b"[" * 50_000, json.dumps(["a"] * 30).encode()):
            status, told = await running.call("POST", path, body)
            assert (status, told["message"]) == (400, "Expecting a list of strings")
        status, told = await running.call("POST", path, ["escape:/escape/Role=production"])
        assert status == 424
        assert "voms-proxy-init" in told["message"]


@pytest.mark.asyncio
async def test_the_page(world):
    evil = world.caller(user_dn="/CN=<script>alert(1)</script>")
    async with service(world.caller(), evil) as running:
        for number, shown in ((0, world.alice.dn), (1, "/CN=&lt;script&gt;")):
            async with running.http.get(f"{running.url}/delegation", headers={"X-Test-Caller": str(number)}) as got:
                assert (got.status, got.content_type) == (200, "text/html")
                text = await got.text()
                assert shown in text
                assert "<script>" not in text


@pytest.mark.asyncio
async def test_the_certificate_that_was_shown(world):
    async with service(world.caller(), world.caller(certificate=None)) as running:
        async with running.http.get(f"{running.url}/whoami/certificate") as got:
            assert (got.status, got.content_type) == (200, "application/x-pem-file")
            assert await got.read() == world.alice.pem_chain
        status, told = await get(running, "/whoami/certificate", number=1)
        assert (status, told["message"]) == (403, "Certificate required")
