"""The tests' own issuer behaves as one: its token endpoint, which other tests rely on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import pytest
import pytest_asyncio

from tests.issuer import ACCESS_TOKEN, ANY, EXCHANGE, OidcIssuer
from transfer_engine.identity.jwt import take_apart

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[OidcIssuer]:
    async with OidcIssuer().running() as running:
        yield running


async def ask(issuer: OidcIssuer, client: str = "engine", secret: str = "s3cret", **form: str) -> tuple[int, Any]:
    basic = "Basic " + base64.b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode()).decode()
    async with (
        aiohttp.ClientSession(headers={"Authorization": basic}) as session,
        session.post(f"{issuer.url}/token", data=form) as response,
    ):
        return response.status, await response.json()


async def exchanged(issuer: OidcIssuer, **form: str) -> tuple[int, Any]:
    subject = issuer.token(scope="openid storage.read:/a storage.modify:/a")
    return await ask(
        issuer, grant_type=EXCHANGE, **{"subject_token": subject, "subject_token_type": ACCESS_TOKEN, **form}
    )


async def test_exchange(issuer: OidcIssuer):
    status, found = await exchanged(issuer, scope="storage.read:/a offline_access", audience="https://se.example")
    assert (status, found["token_type"], found["issued_token_type"]) == (200, "Bearer", ACCESS_TOKEN)
    claims = take_apart(found["access_token"]).claims
    assert (claims["sub"], claims["aud"]) == ("alice", "https://se.example")
    assert claims["scope"] == found["scope"] == "storage.read:/a offline_access"
    assert found["refresh_token"] in issuer.refreshes
    assert issuer.calls[EXCHANGE] == issuer.calls["/token"] == 1


async def test_exchange_without_a_refresh_token(issuer: OidcIssuer):
    status, found = await exchanged(issuer, scope="storage.read:/a")
    assert (status, "refresh_token" in found) == (200, False)
    assert take_apart(found["access_token"]).claims["aud"] == ANY


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"scope": "storage.read:/"}, 400, "invalid_scope"),
        ({"subject_token": "x"}, 401, "invalid_token"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}, 400, "invalid_request"),
    ],
)
async def test_exchanges_that_are_refused(issuer: OidcIssuer, form: dict[str, str], status: int, error: str):
    found = await exchanged(issuer, **form)
    assert (found[0], found[1]["error"]) == (status, error)


async def test_an_expired_token_is_not_exchanged(issuer: OidcIssuer):
    old = issuer.token(scope="openid", exp=1)
    assert (await ask(issuer, grant_type=EXCHANGE, subject_token=old))[0] == 401


@pytest.mark.parametrize("rotates", [False, True])
async def test_refresh(issuer: OidcIssuer, rotates: bool):
    issuer.rotates = rotates
    first = (await exchanged(issuer, scope="storage.read:/a offline_access"))[1]["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": first}
    status, found = await ask(issuer, **form, scope="storage.read:/a", audience="https://a https://b")
    assert (status, found["scope"], found["refresh_token"] != first) == (200, "storage.read:/a", rotates)
    assert take_apart(found["access_token"]).claims["aud"] == ["https://a", "https://b"]
    assert (await ask(issuer, **form))[0] == (400 if rotates else 200)
    again = {"grant_type": "refresh_token", "refresh_token": found["refresh_token"]}
    assert (await ask(issuer, **again, scope="storage.modify:/a"))[1]["error"] == "invalid_scope"
    assert (await ask(issuer, **again))[1]["scope"] == "storage.read:/a offline_access"


async def test_a_refresh_token_is_its_clients(issuer: OidcIssuer):
    issuer.clients["other"] = "x"
    token = (await exchanged(issuer, scope="offline_access"))[1]["refresh_token"]
    found = await ask(issuer, "other", "x", grant_type="refresh_token", refresh_token=token)
    assert (found[0], found[1]["error"]) == (400, "invalid_grant")


async def test_client_credentials(issuer: OidcIssuer):
    status, found = await ask(issuer, grant_type="client_credentials", scope="storage.read:/")
    assert (status, take_apart(found["access_token"]).claims["sub"]) == (200, "engine")


@pytest.mark.parametrize(("client", "secret"), [("engine", "wrong"), ("nobody", "s3cret"), ("", "")])
async def test_clients_that_are_not_known(issuer: OidcIssuer, client: str, secret: str):
    found = await ask(issuer, client, secret, grant_type="client_credentials")
    assert (found[0], found[1]["error"]) == (401, "invalid_client")


async def test_another_grant(issuer: OidcIssuer):
    assert (await ask(issuer, grant_type="password"))[1]["error"] == "unsupported_grant_type"


async def test_it_fails_and_holds_as_told(issuer: OidcIssuer):
    issuer.failing["/token"] = 503
    assert (await ask(issuer, grant_type="client_credentials"))[0] == 503
    issuer.failing.clear()
    issuer.hold = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(ask(issuer, grant_type="client_credentials"))
        await issuer.waited()
        assert (issuer.n_waiting, asked.done()) == (1, False)
        issuer.hold.set()
    assert asked.result()[0] == 200
