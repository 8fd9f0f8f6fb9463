"""This service as a client of token issuers, against an issuer on loopback: exchange, refresh, and every bad answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from protocols.credentials import Secret
from tests.issuer import OidcIssuer
from transfer_engine.clock import SystemClock
from transfer_engine.config_service import Issuer
from transfer_engine.credentials.api import Away, Granted, Refusal, Wanted
from transfer_engine.credentials.claims import read
from transfer_engine.errors import Invalid
from transfer_engine.identity.token_endpoint import Clients

pytestmark = pytest.mark.asyncio
READ = "storage.read:/data"


def settings(issuer: OidcIssuer, **more: Any) -> Issuer:
    values = {"issuer": issuer.url, "audiences": ("any",), "client_id": "engine", "client_secret": "s3cret"} | more
    return Issuer(**values)


@asynccontextmanager
async def a_client(issuer: OidcIssuer, **more: Any) -> AsyncIterator[Clients]:
    clients = Clients([settings(issuer, **more)], SystemClock())
    try:
        yield clients
    finally:
        await clients.aclose()


def wanted(issuer: OidcIssuer, scope: str = f"{READ} offline_access", *audience: str) -> Wanted:
    return Wanted(issuer=issuer.url, audience=audience, scope=scope)


async def test_a_token_is_exchanged_and_then_refreshed_with_less() -> None:
    issuer = OidcIssuer()
    async with issuer.running(), a_client(issuer) as client:
        given = Secret(issuer.token(scope=f"{READ} storage.modify:/data"))
        scope = f"{READ} storage.modify:/data offline_access"
        first = await client.exchange(wanted(issuer, scope, "se.example"), given)
        assert first.refresh is not None
        second = await client.refresh(wanted(issuer, READ, "se.example", "other.example"), first.refresh)
        claims = read(second.access)
        assert claims is not None
        assert (claims.subject, claims.scope, claims.audience) == ("alice", (READ,), ("se.example", "other.example"))
        assert second.lifetime_s == pytest.approx(3600, abs=5)
        assert second.expires_at == claims.expires_at
        assert issuer.calls["/.well-known/openid-configuration"] == 1


async def test_who_is_served() -> None:
    issuer = OidcIssuer()
    async with issuer.running(), a_client(issuer) as client:
        assert client.serves(issuer.url)
        assert client.serves(issuer.url + "/")
        assert not client.serves(issuer.url + "/other")
    async with issuer.running(), a_client(issuer, client_id=None) as client:
        assert not client.serves(issuer.url)


async def test_the_secret_may_be_in_a_file_and_have_any_letters(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s:3 c/%\n")
    issuer = OidcIssuer(clients={"engine": "s:3 c/%"})
    async with issuer.running(), a_client(issuer, client_secret=None, client_secret_file=file) as client:
        assert (await client.exchange(wanted(issuer), Secret(issuer.token(scope=READ)))).refresh


@pytest.mark.parametrize("content", [None, "", "\n"])
async def test_a_secret_that_is_not_there_is_named(tmp_path: Path, content: str | None) -> None:
    issuer = OidcIssuer(url="http://127.0.0.1:1")
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Invalid, match="secret"):
        Clients([settings(issuer, client_secret=None, client_secret_file=file)], SystemClock())
    with pytest.raises(Invalid, match="client_id needs a client_secret"):
        Clients([settings(issuer, client_secret=None)], SystemClock())


async def test_definite_refusals_have_their_code_and_no_secret() -> None:
    issuer = OidcIssuer()
    async with issuer.running(), a_client(issuer) as client, a_client(issuer, client_secret="wrong") as other:
        with pytest.raises(Refusal) as caught:
            await client.refresh(wanted(issuer), Secret("nothing"))
        assert (caught.value.code, str(caught.value)) == ("invalid_grant", "invalid_grant (Invalid refresh token)")
        with pytest.raises(Refusal) as caught:
            await client.exchange(wanted(issuer), Secret(issuer.token(exp=1)))
        assert caught.value.code == "invalid_token"
        with pytest.raises(Refusal) as caught:
            await other.exchange(wanted(issuer), Secret(issuer.token(scope=READ)))
        assert caught.value.code == "invalid_client"


@pytest.mark.parametrize("path", ["/token", "/.well-known/openid-configuration", "/jwk"])
@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_an_issuer_in_trouble_is_away(path: str, status: int) -> None:
    issuer = OidcIssuer()
    async with issuer.running(), a_client(issuer) as client:
        issuer.failing[path] = status
        with pytest.raises(Away):
            await client.exchange(wanted(issuer), Secret(issuer.token(scope=READ)))
        issuer.failing.clear()


async def test_an_issuer_that_is_not_there_is_away() -> None:
    issuer = OidcIssuer(url="http://127.0.0.1:1")
    async with a_client(issuer) as client:
        with pytest.raises(Away, match="cannot be had now"):
            await client.exchange(wanted(issuer), Secret("x"))


async def test_without_a_token_endpoint_nothing_can_be_asked() -> None:
    issuer = OidcIssuer(configuration={"token_endpoint": "http://elsewhere.example/token"})
    async with issuer.running(), a_client(issuer) as client:
        with pytest.raises(Refusal, match="names no token endpoint"):
            await client.exchange(wanted(issuer), Secret(issuer.token(scope=READ)))


async def test_few_requests_at_a_time() -> None:
    issuer = OidcIssuer()
    async with issuer.running(), a_client(issuer) as client:
        # Its configuration first, which would be held as well.
        await client.exchange(wanted(issuer), Secret(issuer.token(scope=READ)))
        issuer.hold = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(client.exchange(wanted(issuer), Secret(issuer.token(scope=READ))))
            async with asyncio.timeout(5):
                while issuer.n_waiting < 8:  # noqa: ASYNC110 - the issuer has no event for it
                    await asyncio.sleep(0)
            assert issuer.n_waiting == 8
            issuer.hold.set()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def answered(handler: Handler) -> Granted:
    """What the client makes of an answer of the token endpoint."""
    application = web.Application()
    application.router.add_post("/token", handler)
    application.router.add_post("/other", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    issuer = OidcIssuer(configuration={"token_endpoint": endpoint})
    try:
        async with issuer.running(), a_client(issuer) as client:
            return await client.exchange(wanted(issuer), Secret(issuer.token(scope=READ)))
    finally:
        await runner.cleanup()


def saying(status: int, body: Any, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return handler


TOKENS: dict[str, Any] = {"access_token": "opaque", "token_type": "Bearer"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>login</html>"),
        (200, b"[]"),
        (200, b"{" * 2000),
        (200, b"x" * 70_000),
        (200, {}),
        (200, {"access_token": 7}),
        (200, {"access_token": ""}),
        (200, {"access_token": "two words"}),
        (200, {"access_token": "line\r\nX: y"}),
        (200, {"access_token": "x" * 16_385}),
        (200, {**TOKENS, "refresh_token": ["a"]}),
        (302, TOKENS),
        (400, b"<html>no</html>"),
        (400, {"error": 7}),
        (400, {"error": "Not A Code"}),
        (400, {"error": "temporarily_unavailable"}),
        (403, b"blocked by the firewall"),
        (404, {"error": "invalid_grant"}),
    ],
)
async def test_an_answer_that_decides_nothing_is_asked_for_again(status: int, body: Any) -> None:
    with pytest.raises(Away):
        await answered(saying(status, body, Location="/other"))


async def test_how_long_to_wait_is_heard() -> None:
    with pytest.raises(Away) as caught:
        await answered(saying(503, {}, **{"Retry-After": "17"}))
    assert caught.value.retry_after_s == 17


async def test_what_an_issuer_repeats_of_a_secret_is_not_told() -> None:
    secret = "eyJhbGciOiJub25lIn0.eyJqdGkiOiJ4In0."
    with pytest.raises(Refusal) as caught:
        await answered(saying(400, {"error": "invalid_grant", "error_description": f"Bad token:\n{secret}"}))
    assert str(caught.value) == "invalid_grant (Bad token: …)"


async def test_a_token_that_nobody_can_read_lives_as_long_as_its_issuer_says() -> None:
    granted = await answered(saying(200, {**TOKENS, "expires_in": 1200}))
    assert granted.expires_at - SystemClock().now() == pytest.approx(1200, abs=5)
    granted = await answered(saying(200, TOKENS))
    assert granted.expires_at - SystemClock().now() == pytest.approx(300, abs=5)
    assert granted.refresh is None


async def test_a_token_that_has_ended_already_is_none() -> None:
    ended = OidcIssuer(url="https://x.example").token(exp=5)
    with pytest.raises(Away, match="check both clocks"):
        await answered(saying(200, {**TOKENS, "access_token": ended}))
