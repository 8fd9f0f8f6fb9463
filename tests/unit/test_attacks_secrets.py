"""Those who are told a secret say it again: where it could come out, it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from protocols.api import Timeouts
from protocols.credentials import Credential, Secret
from protocols.errors import TransferError
from protocols.http.adapter import HttpAdapter
from tests.issuer import OidcIssuer
from transfer_engine.clock import SystemClock
from transfer_engine.config_service import Issuer
from transfer_engine.credentials.api import Refusal, Wanted
from transfer_engine.errors import Invalid
from transfer_engine.identity.token_endpoint import Clients
from transfer_engine.messages.documents import told
from transfer_engine.service.boundary import error_answer
from transfer_engine.store.sqlite import _engine, database_path

TOKEN = "opaque-token-of-no-known-shape"


class Quoting(OidcIssuer):
    """Refuses with the client's own secret in the reason."""

    async def _token(self, request: web.Request) -> web.Response:
        words = f"bad client {self.clients['engine']}"
        return web.json_response({"error": "invalid_client", "error_description": words}, status=401)


@pytest.mark.asyncio
async def test_an_issuer_that_quotes_a_short_secret() -> None:
    issuer = Quoting(clients={"engine": "s3cret"})
    async with issuer.running():
        known = Issuer(issuer=issuer.url, audiences=("any",), client_id="engine", client_secret="s3cret")  # type: ignore[arg-type]
        clients = Clients([known], SystemClock())
        with pytest.raises(Refusal) as caught:
            await clients.refresh(Wanted(issuer=issuer.url, audience=(), scope=""), Secret("refresh"))
        await clients.aclose()
    assert str(caught.value) == "invalid_client (bad client ***)"
    assert "s3cret" not in repr(clients._clients)


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["stat", "list_directory", "make_parents", "delete", "read", "write"])
async def test_a_storage_that_quotes_what_it_was_shown(method: str) -> None:
    async def quote(request: web.Request) -> web.Response:
        if request.method == "HEAD":
            return web.Response(status=405)
        return web.Response(status=418, text=f"not with {request.headers.get('Authorization', '')[7:]}")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", quote)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    adapter = HttpAdapter()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/d/f"
    try:
        with pytest.raises(TransferError) as caught:
            await call(adapter, method, url)
    finally:
        await adapter.aclose()
        await runner.cleanup()
    assert "not with ***" in caught.value.message
    assert TOKEN not in f"{caught.value!r}{vars(caught.value)}"


async def call(adapter: HttpAdapter, method: str, url: str) -> None:
    """One of the adapter's operations, with the token."""
    credential, timeouts = Credential(token=Secret(TOKEN)), Timeouts()
    match method:
        case "read":
            async with adapter.read(url, credential=credential, timeouts=timeouts):
                pass
        case "write":

            async def blocks() -> AsyncIterator[bytes]:
                yield b"x"

            await adapter.write(url, blocks(), size_bytes=1, overwrite=True, credential=credential, timeouts=timeouts)
        case _:
            await getattr(adapter, method)(url, credential=credential, timeouts=timeouts)


def test_errors_do_not_repeat_tokens_that_were_sent_in_a_wrong_place() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.CANARY"
    shown = error_answer(400, f"Field {token} unknown", field=token).body
    assert isinstance(shown, bytes)
    assert b"CANARY" not in shown
    assert b'"message":"Field *** unknown","field":"***"' in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/p?authz=Bearer%20x&a=b", "https://h/p?authz=***&a=b"),
        ("https://h/p?a=b&access_token=x", "https://h/p?a=b&access_token=***"),
        ("https://h/p?X-Amz-Signature=x&a=authz=1", "https://h/p?X-Amz-Signature=x&a=authz=1"),
        ("https://h/authz=1", "https://h/authz=1"),
    ],
)
def test_messages_have_no_token_of_a_url(url: str, shown: str) -> None:
    assert told(url) == shown


def test_a_database_that_cannot_be_opened() -> None:
    with pytest.raises(Invalid) as caught:
        database_path("postgresql://fts:CANARY@db.example/fts")
    assert "CANARY" not in str(caught.value)
    assert "db.example" in str(caught.value)


@pytest.mark.parametrize("name", [None, "queue"])
def test_errors_of_the_database_have_no_values(tmp_path: Path, name: str | None) -> None:
    engine = _engine(None if name is None else tmp_path / name, writes=True)
    with engine.begin() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("INSERT INTO rubbish VALUES (:secret)"), {"secret": "CANARY"})
    engine.dispose()
    assert "CANARY" not in str(caught.value)
    assert "no such table" in str(caught.value)
