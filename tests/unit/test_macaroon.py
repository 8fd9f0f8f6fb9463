"""Asking storages for macaroons: what is asked, what is believed, who is asked again, what the copy then carries."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.api import CopyRequest, Credential, Mode, Timeouts
from protocols.credentials import TOKEN_MAX, Secret
from protocols.errors import Denied
from protocols.http import HttpAdapter, macaroon
from protocols.http.quirks import Quirks
from protocols.http.session import Sessions
from protocols.http.wire import Wire
from tests.grid import Grid

pytestmark = pytest.mark.asyncio

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def alice(grid: Grid) -> Credential:
    return Credential(pem=Secret(grid.proxy(grid.user("alice")).pem.decode()))


@pytest.fixture(scope="module")
def bob(grid: Grid) -> Credential:
    return Credential(pem=Secret(grid.proxy(grid.user("bob")).pem.decode()))


class Storage:
    """Answers POST as it is told to, and COPY with success; remembers what it was asked."""

    def __init__(self, answer: Any = None) -> None:
        self.url = ""
        self.answer: Any = {"macaroon": "m"} if answer is None else answer
        self.headers: dict[str, str] = {}
        self.status = 200
        self.well_known: Any = None
        self.tokens: Any = None
        self.copy_status = 201
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.hold: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.raw_path, request.headers.copy(), await request.read()))
        if request.method == "COPY":
            return web.Response(status=self.copy_status, text="success: Created\n")
        if request.raw_path == "/.well-known/oauth-authorization-server":
            return self._as(self.well_known)
        if request.raw_path == "/oauth/token":
            return self._as(self.tokens)
        if self.hold is not None:
            await self.hold.wait()
        if isinstance(self.answer, bytes):
            return web.Response(status=self.status, body=self.answer, headers=self.headers)
        return web.json_response(self.answer, status=self.status, headers=self.headers)

    @staticmethod
    def _as(answer: Any) -> web.Response:
        return web.Response(status=404) if answer is None else web.json_response(answer)

    def of(self, method: str) -> list[tuple[str, Mapping[str, str], bytes]]:
        return [(path, headers, body) for found, path, headers, body in self.asked if found == method]


@asynccontextmanager
async def running(grid: Grid, storage: Storage, *, tls: bool = True) -> AsyncIterator[Storage]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", storage.handle)
    context = None
    if tls:
        host = grid.host("localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(host.certificate), str(host.key_file))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    storage.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield storage
    finally:
        if storage.hold is not None:
            storage.hold.set()
        await runner.cleanup()


class Asking:
    """Macaroons with a clock of their own."""

    def __init__(self, ca: Path) -> None:
        self.now_s = 1000.0
        self.sessions = Sessions(user_agent="test", ca=ca)
        quirks = Quirks(now=lambda: self.now_s, configured={})
        self.macaroons = macaroon.Macaroons(wire=Wire(sessions=self.sessions, quirks=quirks), now=lambda: self.now_s)

    async def source(self, storage: Storage, credential: Credential, path: str = "/f", **more: Any) -> Credential:
        """The source's credential after asking; the destination has a token already."""
        equipped = await self.macaroons.equip(request(f"{storage.url}{path}", credential, **more))
        return equipped.source_credential


@pytest.fixture
def asking(grid: Grid) -> Asking:
    return Asking(grid.bundle)


@asynccontextmanager
async def site(grid: Grid, asking: Asking, *storages: Storage) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for storage in storages:
            await stack.enter_async_context(running(grid, storage))
        try:
            yield
        finally:
            await asking.sessions.aclose()


TOKEN = Credential(token=Secret("own"))


def request(source: str, source_credential: Credential, **more: Any) -> CopyRequest:
    values: dict[str, Any] = {"destination_url": "https://d.invalid/f", "destination_credential": TOKEN}
    return CopyRequest(source_url=source, mode=Mode.PULL, source_credential=source_credential, **(values | more))


# What is asked


async def test_each_storage_is_asked_for_what_the_copy_needs(grid: Grid, alice: Credential, asking: Asking) -> None:
    one, other = Storage({"macaroon": "M-source_1"}), Storage({"macaroon": "M-destination"})
    async with site(grid, asking, one, other):
        wanted = request(
            f"{one.url}/d/a%20b?x=1", alice, destination_url=f"{other.url}/e", destination_credential=alice
        )
        found = await asking.macaroons.equip(wanted)
    assert found.source_credential.token == Secret("M-source_1")
    assert found.destination_credential.token == Secret("M-destination")
    assert found.source_credential.pem == found.destination_credential.pem == alice.pem
    ((path, headers, body),) = one.of("POST")
    assert path == "/d/a%20b?x=1"
    assert headers["Content-Type"] == "application/macaroon-request"
    assert "Authorization" not in headers
    assert json.loads(body) == {"caveats": ["activity:READ_METADATA,DOWNLOAD,LIST"], "validity": "PT181M"}
    ((path, _, body),) = other.of("POST")
    assert path == "/e"
    assert json.loads(body)["caveats"] == ["activity:READ_METADATA,DOWNLOAD,LIST,MANAGE,UPLOAD,DELETE"]


@pytest.mark.parametrize(
    ("more", "minutes"),
    [
        ({}, 181),
        ({"timeouts": Timeouts(total_s=600)}, 31),
        ({"timeouts": Timeouts(total_s=1e6)}, 1440),
        ({"size_bytes": 1 << 20}, 181),
        ({"size_bytes": 36_000 << 20}, 611),
        ({"size_bytes": 1 << 50}, 1440),
    ],
)
async def test_it_lasts_as_long_as_the_copy_may(
    grid: Grid, alice: Credential, asking: Asking, more: dict[str, Any], minutes: int
) -> None:
    storage = Storage()
    async with site(grid, asking, storage):
        await asking.source(storage, alice, **more)
    assert json.loads(storage.of("POST")[0][2])["validity"] == f"PT{minutes}M"


async def test_who_has_a_token_or_no_certificate_asks_for_nothing(
    grid: Grid, alice: Credential, asking: Asking
) -> None:
    storage = Storage()
    async with site(grid, asking, storage):
        both = Credential(token=Secret("own"), pem=alice.pem)
        for credential in (TOKEN, Credential(), both):
            assert await asking.source(storage, credential) is credential
    assert not storage.asked


async def test_over_plain_http_nothing_is_asked_for(grid: Grid, alice: Credential, asking: Asking) -> None:
    async with running(grid, Storage(), tls=False) as storage:
        assert await asking.source(storage, alice) is alice
        await asking.sessions.aclose()
    assert not storage.asked


async def test_a_certificate_in_files_will_do(grid: Grid, asking: Asking) -> None:
    storage, carol = Storage(), grid.proxy(grid.user("carol"))
    async with site(grid, asking, storage):
        found = await asking.source(storage, Credential(certificate=carol.file))
    assert found.token == Secret("m")


# What is believed

REFUSED: dict[str, tuple[Any, int, dict[str, str]]] = {
    "the file itself": (b"x" * 1_000_000, 200, {"Content-Type": "application/octet-stream"}),
    "a long JSON file": (b'{"macaroon": "' + b"x" * 70_000 + b'"}', 200, {"Content-Type": "application/json"}),
    "a page": (b"<html>", 200, {"Content-Type": "text/html"}),
    "broken JSON": (b'{"macaroon": "m"', 200, {"Content-Type": "application/json"}),
    "deep JSON": (b"[" * 60_000, 200, {"Content-Type": "application/json"}),
    "no object": (["m"], 200, {}),
    "another key": ({"token": "m"}, 200, {}),
    "no string": ({"macaroon": 1}, 200, {}),
    "nothing": ({"macaroon": ""}, 200, {}),
    "another header": ({"macaroon": "m\r\nX-Evil: 1"}, 200, {}),
    "blanks": ({"macaroon": "m m"}, 200, {}),
    "what is no ASCII": ({"macaroon": "mé"}, 200, {}),
    "too long a token": ({"macaroon": "m" * (TOKEN_MAX + 1)}, 200, {}),
    "created": ({"macaroon": "m"}, 201, {}),
    "no method": (b"", 405, {}),
    "not implemented": (b"", 501, {}),
    "not found": (b"", 404, {}),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_what_is_no_macaroon_is_none(grid: Grid, alice: Credential, asking: Asking, why: str) -> None:
    storage = Storage()
    storage.answer, storage.status, storage.headers = REFUSED[why]
    async with site(grid, asking, storage):
        for path in ("/f", "/g"):
            assert await asking.source(storage, alice, path) is alice
        assert len(storage.of("POST")) == 1
        assert asking.macaroons.why_none(f"{storage.url}/f", alice)
        asking.now_s += macaroon.NEVER_S + 1
        storage.answer, storage.status, storage.headers = {"macaroon": "later"}, 200, {}
        assert (await asking.source(storage, alice)).token == Secret("later")
        assert asking.macaroons.why_none(f"{storage.url}/f", alice) is None


async def test_an_answer_without_a_type_is_believed(grid: Grid, alice: Credential, asking: Asking) -> None:
    """XRootD 5.5.3 sends none."""
    raw = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"macaroon":"m"}'
    host = grid.host("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(host.certificate), str(host.key_file))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    storage = Storage()
    storage.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert (await asking.source(storage, alice)).token == Secret("m")
    await asking.sessions.aclose()
    server.close()


async def test_one_that_sends_elsewhere_is_not_followed(grid: Grid, alice: Credential, asking: Asking) -> None:
    storage, other = Storage(b""), Storage({"macaroon": "theirs"})
    async with site(grid, asking, storage, other):
        storage.status = 307
        storage.headers = {"Location": other.url.replace("127.0.0.1", "localhost") + "/f"}
        assert await asking.source(storage, alice) is alice


# Who is asked again


async def test_a_refused_user_does_not_stop_the_others(
    grid: Grid, alice: Credential, bob: Credential, asking: Asking
) -> None:
    storage = Storage(b"")
    async with site(grid, asking, storage):
        storage.status = 403
        assert await asking.source(storage, bob) is bob
        assert await asking.source(storage, bob) is bob
        storage.answer, storage.status = {"macaroon": "m"}, 200
        assert (await asking.source(storage, alice)).token == Secret("m")
        assert len(storage.of("POST")) == 2
        asking.now_s += macaroon.DENIED_S + 1
        assert (await asking.source(storage, bob)).token == Secret("m")


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_one_that_cannot_answer_is_asked_soon(grid: Grid, alice: Credential, asking: Asking, status: int) -> None:
    storage = Storage(b"")
    async with site(grid, asking, storage):
        storage.status = status
        for _ in range(3):
            assert await asking.source(storage, alice) is alice
        assert len(storage.asked) == 1
        storage.answer, storage.status = {"macaroon": "m"}, 200
        asking.now_s += macaroon.LATER_S + 1
        assert (await asking.source(storage, alice)).token == Secret("m")


async def test_one_that_is_not_there_is_asked_soon(grid: Grid, alice: Credential, asking: Asking) -> None:
    storage = Storage()
    storage.url = "https://127.0.0.1:1"
    assert await asking.source(storage, alice) is alice
    assert "127.0.0.1" in str(asking.macaroons.why_none(f"{storage.url}/f", alice))
    await asking.sessions.aclose()


async def test_one_that_never_answers_is_not_waited_for(
    grid: Grid, alice: Credential, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macaroon, "ASKING_S", 0.05)
    storage = Storage()
    storage.hold = asyncio.Event()
    async with site(grid, asking, storage):
        assert await asking.source(storage, alice) is alice
        assert "no answer" in str(asking.macaroons.why_none(f"{storage.url}/f", alice))


async def test_what_is_remembered_has_a_bound(
    alice: Credential, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macaroon, "ENDPOINTS_MAX", 3)
    for port in range(1, 7):
        storage = Storage()
        storage.url = f"https://127.0.0.1:{port}"
        await asking.source(storage, alice)
    assert len(asking.macaroons._refusals) == 3
    assert not any("BEGIN" in str(key) for key in asking.macaroons._refusals)
    await asking.sessions.aclose()


# Token issuers


async def test_a_storage_with_a_token_endpoint_is_asked_there(grid: Grid, alice: Credential, asking: Asking) -> None:
    """StoRM: POST gives the file, RFC 8414 says where tokens are."""
    storage = Storage(b"the file")
    storage.headers = {"Content-Type": "application/octet-stream"}
    async with site(grid, asking, storage):
        storage.well_known = {"token_endpoint": f"{storage.url}/oauth/token"}
        storage.tokens = {"access_token": "jwt.of.storm", "token_type": "Bearer"}
        assert (await asking.source(storage, alice)).token == Secret("jwt.of.storm")
        assert (await asking.source(storage, alice, "/" + "g" * 300)).token == Secret("jwt.of.storm")
    assert [path for path, _, _ in storage.of("POST")] == ["/f", "/oauth/token", "/oauth/token"]
    assert len(storage.of("GET")) == 1
    first, second = (body.decode() for path, _, body in storage.of("POST") if path == "/oauth/token")
    assert first.startswith("grant_type=client_credentials&lifetime=10860&scope=READ_METADATA%3A%2Ff+DOWNLOAD")
    assert "scope" not in second


@pytest.mark.parametrize("place", ["https://localhost:1/oauth/token", "http://127.0.0.1/oauth/token", "x", None, 5])
async def test_a_token_endpoint_elsewhere_is_not_asked(
    grid: Grid, alice: Credential, asking: Asking, place: object
) -> None:
    storage = Storage(b"")
    async with site(grid, asking, storage):
        storage.status = 405
        storage.well_known = {"token_endpoint": place}
        storage.tokens = {"access_token": "t"}
        assert await asking.source(storage, alice) is alice
    assert [path for path, _, _ in storage.of("POST")] == ["/f"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=300), st.recursive(st.text() | st.none(), st.lists).map(json.dumps).map(str.encode)
    )
)
async def test_no_answer_breaks_it(content: bytes) -> None:
    try:
        found = macaroon._secret(macaroon._object(content).get("macaroon"))
    except macaroon._NotGivenError:
        return
    assert found.reveal().isascii()


# What the copy carries


@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH])
async def test_the_copy_shows_one_macaroon_here_and_the_other_there(grid: Grid, alice: Credential, mode: Mode) -> None:
    source, destination = Storage({"macaroon": "of-source"}), Storage({"macaroon": "of-destination"})
    adapter = HttpAdapter(ca=grid.bundle)
    async with running(grid, source), running(grid, destination):
        wanted = CopyRequest(
            source_url=f"{source.url}/f",
            destination_url=f"{destination.url}/f",
            mode=mode,
            source_credential=alice,
            destination_credential=alice,
        )
        active, passive = (destination, source) if mode is Mode.PULL else (source, destination)
        # The push asks first whether this is a server that would copy inside itself.
        adapter._quirks.of(f"{source.url}").proved_tpc = True
        await adapter.copy(wanted, lambda _: None)
        await adapter.aclose()
    assert not passive.of("COPY")
    ((_, headers, _),) = active.of("COPY")
    theirs, own = ("of-source", "of-destination") if mode is Mode.PULL else ("of-destination", "of-source")
    assert headers["TransferHeaderAuthorization"] == f"Bearer {theirs}"
    assert headers["Authorization"] == f"Bearer {own}"
    assert headers["Credential"] == "none"
    assert "BEGIN" not in str(headers)


async def test_a_denied_copy_says_that_there_was_no_macaroon(grid: Grid, alice: Credential) -> None:
    source, destination = Storage(b""), Storage()
    source.status = 405
    adapter = HttpAdapter(ca=grid.bundle)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method != "COPY":
            return await Storage.handle(destination, request)
        text = "failure: Remote side failed with status code 403; error message: denied\n"
        return web.Response(status=201, text=text)

    destination.handle = handle  # type: ignore[method-assign]
    async with running(grid, source), running(grid, destination):
        wanted = request(f"{source.url}/f", alice, destination_url=f"{destination.url}/f", destination_credential=alice)
        with pytest.raises(Denied) as caught:
            await adapter.copy(wanted, lambda _: None)
        await adapter.aclose()
    assert caught.value.scope == "SOURCE"
    assert caught.value.hint == "the source gave no macaroon to show there (HTTP 405): submit with tokens"
