"""Certificates that are in memory only: proxies of users, shown in full, written nowhere."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocols.api import Credential
from protocols.credentials import Secret
from protocols.errors import Denied, TransferError
from protocols.http import HttpAdapter, session
from tests.grid import Grid, Identity

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nDigest: adler32=1\r\n\r\n"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(tmp_path_factory.mktemp("grid"))


def shown(identity: Identity) -> Credential:
    return Credential(pem=Secret(identity.pem.decode()))


class Server:
    """Remembers the chain of every connection."""

    def __init__(self) -> None:
        self.url = ""
        self.chains: list[tuple[bytes, ...]] = []


@asynccontextmanager
async def serving(grid: Grid) -> AsyncIterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    host = grid.host("localhost")
    context.load_cert_chain(str(host.certificate), str(host.key_file))
    context.load_verify_locations(str(grid.bundle))
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    found = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chain = writer.get_extra_info("ssl_object")._sslobj.get_unverified_chain()
        found.chains.append(tuple(ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in chain))
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(OK)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    found.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


@asynccontextmanager
async def adapter_of(grid: Grid) -> AsyncIterator[HttpAdapter]:
    made = HttpAdapter(ca=grid.bundle)
    try:
        yield made
    finally:
        await made.aclose()


async def stat(adapter: HttpAdapter, server: Server, credential: Credential) -> int | None:
    return (await adapter.stat(f"{server.url}/f", digest="adler32", credential=credential)).size_bytes


@pytest.mark.asyncio
async def test_the_chain_of_a_proxy_is_shown_whole(grid: Grid) -> None:
    proxy = grid.proxy(grid.proxy(grid.user("alice")))
    async with serving(grid) as server, adapter_of(grid) as adapter:
        assert await stat(adapter, server, shown(proxy)) == 1
    (chain,) = server.chains
    assert chain[:3] == proxy.der_chain
    assert len(proxy.der_chain) == 3


def test_no_file_is_made_of_it(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = grid.proxy(grid.user("ben", key="ec"), key="ec")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    opened = len(list(Path("/proc/self/fd").iterdir()))
    context = session.tls_context(shown(proxy), grid.bundle)
    assert context.get_ca_certs()
    assert not list(tmp_path.iterdir())
    assert len(list(Path("/proc/self/fd").iterdir())) == opened
    monkeypatch.setattr(os, "memfd_create", _forbidden)
    session.tls_context(shown(proxy), grid.bundle)
    assert not list(tmp_path.iterdir())
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def _forbidden(*_: object) -> int:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.asyncio
async def test_it_is_used_instead_of_a_file(grid: Grid, tmp_path: Path) -> None:
    proxy = grid.proxy(grid.user("carol"))
    credential = Credential(pem=Secret(proxy.pem.decode()), certificate=tmp_path / "none.pem")
    async with serving(grid) as server, adapter_of(grid) as adapter:
        assert await stat(adapter, server, credential) == 1


@pytest.mark.asyncio
async def test_users_do_not_share_connections(grid: Grid) -> None:
    users = [grid.proxy(grid.user(name)) for name in ("dora", "emil")]
    async with serving(grid) as server, adapter_of(grid) as adapter:
        for user in users:
            await stat(adapter, server, shown(user))
            assert server.chains[-1][0] == user.der_chain[0]
        await stat(adapter, server, shown(users[0]))
    assert {chain[0] for chain in server.chains} == {user.der_chain[0] for user in users}


@pytest.mark.asyncio
async def test_a_renewed_proxy_is_shown_from_then_on(grid: Grid) -> None:
    user = grid.user("fritz")
    proxies = [grid.proxy(user), grid.proxy(user)]
    async with serving(grid) as server, adapter_of(grid) as adapter:
        for proxy in proxies:
            await stat(adapter, server, shown(proxy))
    assert [chain[0] for chain in server.chains] == [proxy.der_chain[0] for proxy in proxies]


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["", "garbage canary-51", "certificate", "key", "mismatch", "encrypted"])
async def test_what_cannot_be_used_is_said_and_not_shown(grid: Grid, what: str) -> None:
    one, other = grid.user("gina"), grid.user("hans")
    pem = {
        "certificate": one.pem_chain.decode(),
        "key": one.key_file.read_text(),
        "mismatch": one.pem_chain.decode() + other.key_file.read_text(),
        "encrypted": one.pem_chain.decode() + _encrypted(one),
    }.get(what, what)
    async with serving(grid) as server, adapter_of(grid) as adapter:
        with pytest.raises(Denied) as caught:
            await stat(adapter, server, Credential(pem=Secret(pem)))
    assert "cannot use the delegated proxy" in caught.value.message
    assert "canary" not in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.scope == "AGENT"
    assert server.chains == []


def _encrypted(identity: Identity) -> str:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    return identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")).decode()


@pytest.mark.asyncio
async def test_an_idle_proxy_is_forgotten(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "IDLE_S", -1.0)
    users = [grid.proxy(grid.user(name)) for name in ("ida", "jan")]
    async with serving(grid) as server, adapter_of(grid) as adapter:
        for user in users:
            await stat(adapter, server, shown(user))
        assert len(adapter._sessions._pools) == 1


@pytest.mark.asyncio
async def test_it_never_prints_itself(grid: Grid) -> None:
    proxy = grid.proxy(grid.user("karl"))
    assert "BEGIN" not in repr(shown(proxy))
    assert "BEGIN" not in f"{shown(proxy)}"
    assert shown(proxy).shows_certificate
    assert not Credential(token=Secret("t")).shows_certificate
    with pytest.raises(TransferError):
        async with adapter_of(grid) as adapter:
            await adapter.stat("https://127.0.0.1:1/f", credential=shown(proxy))
