"""TLS: whom we trust, what we show, and that nothing is ever downgraded."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from protocols.api import CopyRequest, Credential, Mode
from protocols.errors import BadServer, Denied, Refused, TransferError, Unavailable
from protocols.http import HttpAdapter

pytestmark = pytest.mark.asyncio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nDigest: adler32=1\r\n\r\n"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@asynccontextmanager
async def serving(
    authority: trustme.CA,
    *,
    answer: bytes = OK,
    names: tuple[str, ...] = ("localhost", "127.0.0.1"),
    client: bool = False,
) -> AsyncIterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if client:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def stat(url: str, *, credential: Credential | None = None, **arguments):
    adapter = HttpAdapter(**arguments)
    try:
        return await adapter.stat(f"{url}/f", digest="adler32", credential=credential or Credential())
    except TransferError as failure:
        return failure
    finally:
        await adapter.aclose()


async def test_a_server_of_our_ca_and_one_of_another(authority, ca_file):
    async with serving(authority) as url:
        assert (await stat(url, ca=ca_file)).size_bytes == 1
        found = await stat(url)
        assert isinstance(found, BadServer)
        assert "certificate" in found.hint
        assert (await stat(url, verify_tls=False)).size_bytes == 1
    async with serving(authority, names=("elsewhere.example",)) as url:
        assert isinstance(await stat(url, ca=ca_file), BadServer)


async def test_a_copy_that_found_an_untrusted_server_is_settled(authority):
    adapter = HttpAdapter()
    async with serving(authority) as url:
        request = CopyRequest(source_url="https://o.invalid/f", destination_url=f"{url}/f", mode=Mode.PULL)
        with pytest.raises(BadServer) as caught:
            await adapter.copy(request, print)
    await adapter.aclose()
    assert not caught.value.unsettled


async def test_a_client_certificate(authority, ca_file, tmp_path):
    pair = authority.issue_cert("user@example.org")
    proxy, key = tmp_path / "proxy.pem", tmp_path / "key.pem"
    pair.private_key_and_cert_chain_pem.write_to_path(str(proxy))
    pair.private_key_pem.write_to_path(str(key))
    async with serving(authority, client=True) as url:
        for credential in (Credential(certificate=proxy), Credential(certificate=proxy, key=key)):
            assert (await stat(url, ca=ca_file, credential=credential)).size_bytes == 1
        assert isinstance(await stat(url, ca=ca_file), BadServer | Denied | Unavailable)


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
async def test_a_certificate_that_cannot_be_used(authority, ca_file, tmp_path, content):
    path = tmp_path / "proxy.pem"
    if content is not None:
        path.write_bytes(content)
    async with serving(authority) as url:
        found = await stat(url, ca=ca_file, credential=Credential(certificate=path))
    assert isinstance(found, Denied)
    assert found.scope == "AGENT"


async def test_a_renewed_proxy_is_taken(authority, ca_file, tmp_path):
    proxy = tmp_path / "proxy.pem"
    adapter = HttpAdapter(ca=ca_file)
    async with serving(authority, client=True) as url:
        trustme.CA().issue_cert("user@example.org").private_key_and_cert_chain_pem.write_to_path(str(proxy))
        os.utime(proxy, (1, 1))
        with pytest.raises(TransferError):
            await adapter.stat(f"{url}/f", digest="adler32", credential=Credential(certificate=proxy))
        authority.issue_cert("user@example.org").private_key_and_cert_chain_pem.write_to_path(str(proxy))
        await adapter.stat(f"{url}/f", digest="adler32", credential=Credential(certificate=proxy))
    await adapter.aclose()


async def test_https_is_not_left_for_http(authority, ca_file):
    answer = b"HTTP/1.1 302 Go\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:1/f\r\n\r\n"
    async with serving(authority, answer=answer) as url:
        found = await stat(url, ca=ca_file)
    assert isinstance(found, BadServer)
    assert "plain http" in found.message


async def test_the_address_policy_is_asked_for_every_connection():
    asked: list[str] = []

    def none_allowed(address: object) -> bool:
        asked.append(str(address))
        return False

    for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"):
        found = await stat(f"http://{host}:9", address_allowed=none_allowed)
        assert isinstance(found, Refused)
        assert "policy" in found.message
    assert set(asked) == {"127.0.0.1", "::1"}
