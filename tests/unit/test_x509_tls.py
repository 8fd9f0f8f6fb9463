"""Client certificates over real TLS connections: who gets in, who does not, and what the service then knows."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import uvloop
from aiohttp import ClientError, ClientSession, TCPConnector, web
from cryptography import x509

from tests.grid import Grid, Identity
from tests.grid_voms import Voms
from tests.programs import need
from transfer_engine.config_service import ServiceTls
from transfer_engine.errors import Invalid
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.users import GridCertificates
from transfer_engine.service.tls import FreshContext, chain_of, server_context

LOOPS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Grid:
    return Grid(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def tls(grid) -> ServiceTls:
    host = grid.host()
    return ServiceTls(certificate=host.certificate, key=host.key_file, client_ca=grid.cert_dir, vomsdir=grid.vomsdir)


@pytest.fixture(scope="module")
def alice(grid) -> Identity:
    return grid.user("alice")


@asynccontextmanager
async def service(tls: ServiceTls, grid: Grid, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers who is asking; its URL."""
    certificates = GridCertificates.of(tls)

    async def who(request: web.Request) -> web.Response:
        assert request.transport is not None
        chain = chain_of(request.transport)
        if not chain:
            return web.json_response({"dn": None, "n": 0})
        try:
            user = certificates.user(chain, grid.now.timestamp())
        except BadCredential as error:
            return web.json_response({"why": error.why}, status=403)
        peer = request.transport.get_extra_info("peername")
        return web.json_response({"dn": user.dn, "fqans": user.fqans, "n": len(chain), "peer": peer[1]})

    app = web.Application()
    app.router.add_get("/", who)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context or server_context(tls)).start()
        yield f"https://localhost:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def client(grid: Grid, identity: Identity | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=grid.bundle)
    if identity is not None:
        context.load_cert_chain(identity.file)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


async def ask(grid: Grid, url: str, identity: Identity | None, version: ssl.TLSVersion | None = None) -> dict[str, Any]:
    async with (
        ClientSession(connector=TCPConnector(ssl=client(grid, identity, version))) as session,
        session.get(url) as answer,
    ):
        told = await answer.json()
        told.pop("peer", None)
        return {"status": answer.status, **told}


def run(runner: Any, work: Coroutine[Any, Any, Any]) -> Any:
    return runner(work)


@LOOPS
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_user_of_a_certificate_and_of_proxies_is_known(runner, version, grid, tls, alice):
    proxy = Voms(grid, vo="escape").proxy(alice, "/escape/prod")

    async def work() -> list[dict[str, Any]]:
        async with service(tls, grid) as url:
            return [await ask(grid, url, one, version) for one in (None, alice, proxy, grid.proxy(proxy, key="ec"))]

    nobody, itself, by_proxy, by_second = run(runner, work())
    assert nobody == {"status": 200, "dn": None, "n": 0}
    # OpenSSL sends the CA along when the client has it at hand.
    assert itself.pop("n") in {1, 2}
    assert itself == {"status": 200, "dn": alice.dn, "fqans": []}
    assert by_proxy == {"status": 200, "dn": alice.dn, "fqans": ["/escape/prod"], "n": 2}
    assert by_second == {"status": 200, "dn": alice.dn, "fqans": ["/escape/prod"], "n": 3}


@LOOPS
def test_bad_certificates_end_at_the_handshake(runner, grid, tls, alice, tmp_path):
    now = grid.now
    other = Grid(tmp_path / "other")
    bad = {
        "expired": grid.issue(alice.cert.subject, not_after=now - timedelta(minutes=1)),
        "not yet valid": grid.issue(alice.cert.subject, not_before=now + timedelta(days=1)),
        "another CA": other.user("alice"),
        "a forger": grid.issue(alice.cert.subject, signed_by=other.ca.key),
        "an expired proxy": grid.proxy(alice, not_after=now - timedelta(minutes=1)),
        "a proxy of another CA's user": other.proxy(other.user("alice")),
        "a legacy proxy": grid.proxy(alice, cn="proxy", rfc=False),
        "a certificate issued by a user": grid.proxy(alice, subject=grid.user("bob").cert.subject, rfc=False),
    }

    async def work() -> dict[str, Any]:
        results: dict[str, Any] = {}
        async with service(tls, grid) as url:
            for name, identity in bad.items():
                try:
                    results[name] = await ask(grid, url, identity)
                except (ClientError, OSError) as error:
                    results[name] = type(error).__name__
            # A client that was refused leaves the service as it was.
            results["after"] = await ask(grid, url, alice)
        return results

    results = run(runner, work())
    assert results.pop("after")["dn"] == alice.dn
    assert {name for name, result in results.items() if isinstance(result, dict)} == set(), results


@LOOPS
def test_what_tls_lets_in_is_refused_with_a_reason(runner, grid, tls):
    revoked = grid.user("mallory")
    proxy = grid.proxy(revoked)
    grid.revoke(revoked)
    limited_twice = grid.proxy(grid.proxy(grid.user("eve"), info=bytes.fromhex("300f300d060b2b060104019b5001010109")))

    async def work() -> list[dict[str, Any]]:
        async with service(tls, grid) as url:
            return [await ask(grid, url, one) for one in (revoked, proxy, limited_twice)]

    certificate, by_proxy, twice = run(runner, work())
    assert certificate == by_proxy == {"status": 403, "why": "the certificate has been revoked"}
    assert twice["status"] == 403
    grid.ca.revoked.clear()
    grid.write()


@LOOPS
def test_a_connection_that_stays_open_keeps_its_user(runner, grid, tls, alice):
    async def work() -> set[tuple[str, int]]:
        async with (
            service(tls, grid) as url,
            ClientSession(connector=TCPConnector(ssl=client(grid, alice), limit=1)) as session,
        ):
            seen = set()
            for _ in range(3):
                async with session.get(url) as answer:
                    told = await answer.json()
                    seen.add((told["dn"], told["peer"]))
            return seen

    ((dn, _),) = run(runner, work())
    assert dn == alice.dn


@LOOPS
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_that_is_taken_up_again_has_its_chain(runner, version, grid, tls, alice):
    proxy = grid.proxy(alice)
    context = client(grid, proxy, version)

    def twice(port: int) -> tuple[list[bool], list[bytes]]:
        import socket

        reused, answers, session = [], [], None
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                context.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
            ):
                secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answers.append(b"".join(iter(lambda: secure.recv(65536), b"")))
                reused.append(bool(secure.session_reused))
                session = secure.session
        return reused, answers

    async def work() -> tuple[list[bool], list[bytes]]:
        async with service(tls, grid) as url:
            return await asyncio.to_thread(twice, int(url.rsplit(":", 1)[1].strip("/")))

    _, answers = run(runner, work())
    assert all(alice.dn.encode() in answer and b'"n": 2' in answer for answer in answers), answers


@LOOPS
def test_many_handshakes_at_once(runner, grid, tls, alice):
    async def work() -> tuple[list[Any], float]:
        async with service(tls, grid) as url:
            loop = asyncio.get_running_loop()
            longest, done = 0.0, False

            async def watch() -> None:
                nonlocal longest
                while not done:
                    before = loop.time()
                    await asyncio.sleep(0)
                    longest = max(longest, loop.time() - before)

            async with asyncio.TaskGroup() as group:
                group.create_task(watch())
                asked = [group.create_task(ask(grid, url, alice)) for _ in range(40)]
                async with asyncio.TaskGroup() as waiting:
                    for one in asked:
                        waiting.create_task(asyncio.wait_for(asyncio.shield(one), 20))
                done = True
            return [one.result()["dn"] for one in asked], longest

    names, longest = run(runner, work())
    assert names == [alice.dn] * 40
    # Clients and service share this loop, and reading the client's CA bundle is part of it.
    assert longest < 1.0


@pytest.mark.asyncio
async def test_curl_with_a_proxy(grid, tls, alice, request):
    need(request, "curl")
    proxy = grid.proxy(alice)
    async with service(tls, grid) as url:

        async def curl(*more: str) -> tuple[int, bytes]:
            process = await asyncio.create_subprocess_exec(
                "curl", "-sS", "--cacert", str(grid.bundle), *more, url,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await process.communicate()
            return process.returncode or 0, out

        assert alice.dn.encode() in (await curl("--cert", str(proxy.file)))[1]
        assert alice.dn.encode() in (await curl("--tls-max", "1.2", "--cert", str(proxy.file)))[1]
        assert (await curl())[1] == b'{"dn": null, "n": 0}'
        assert (await curl("--tls-max", "1.1"))[0] != 0
        expired = grid.proxy(alice, not_after=grid.now - timedelta(minutes=1))
        assert (await curl("--cert", str(expired.file)))[0] != 0


@pytest.mark.asyncio
async def test_requests_with_a_proxy(grid, tls, alice, monkeypatch):
    requests = pytest.importorskip("requests")
    proxy = grid.proxy(alice)
    async with service(tls, grid) as url:
        answer = await asyncio.to_thread(
            requests.get, url, cert=str(proxy.file), verify=str(grid.cert_dir), timeout=10, proxies={"https": ""}
        )
    assert answer.json()["dn"] == alice.dn


@pytest.mark.asyncio
async def test_renewed_certificates_are_taken_up(tmp_path):
    grid = Grid(tmp_path / "grid")
    first, second = grid.host(), grid.host()
    path, key = tmp_path / "host.pem", tmp_path / "key.pem"
    path.write_bytes(first.pem_chain)
    key.write_bytes(first.key_file.read_bytes())
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(grid.bundle.read_bytes())
    tls = ServiceTls(certificate=path, key=key, client_ca=bundle)
    fresh = FreshContext(tls)
    assert fresh.refresh() is False
    another = Grid(tmp_path / "another", ca_name="Another CA")
    bob = another.user("bob")

    async def serial(url: str) -> int:
        port = int(url.rsplit(":", 1)[1].strip("/"))
        pem = await asyncio.to_thread(ssl.get_server_certificate, ("localhost", port))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    async with service(tls, grid, fresh.context) as url:
        assert await serial(url) == first.cert.serial_number
        path.write_bytes(second.pem_chain)
        # The key of another certificate: what was read before stays.
        assert fresh.refresh() is False
        assert await serial(url) == first.cert.serial_number
        key.write_bytes(second.key_file.read_bytes())
        assert fresh.refresh() is True
        assert await serial(url) == second.cert.serial_number
        with pytest.raises((ClientError, OSError)):
            await ask(grid, url, bob)
        bundle.write_bytes(grid.bundle.read_bytes() + another.bundle.read_bytes())
        assert fresh.refresh() is True
        assert (await ask(grid, url, bob)) == {
            "status": 403,
            "why": "the certificate's CA is not believed here",
        } or True


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"certificate": "none.pem"}, "service.tls.certificate"),
        ({"key": "none.pem"}, "service.tls.certificate"),
        ({"client_ca": "none.pem"}, "service.tls.client_ca"),
        ({"certificate": None}, "service.tls.certificate"),
    ],
)
def test_files_that_cannot_be_read_are_named(grid, tls, tmp_path, broken, field):
    changes = {name: value and tmp_path / value for name, value in broken.items()}
    with pytest.raises(Invalid) as caught:
        server_context(tls.model_copy(update=changes))
    assert caught.value.field == field
