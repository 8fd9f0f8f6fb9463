"""Delegation: what a client may send, what it is told, and how a proxy gets into the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.grid import LIMITED, Grid, Identity, extended, key_pem, new_key, proxy_cert_info
from tests.service import NOW, Service, file, running_service
from transfer_engine.callers import CERTIFICATE, TOKEN, Caller
from transfer_engine.identity.x509.delegation import BadProxy, Request, accept, key_bits, make_request, request_bits

CLIENT = "fts-python-bindings/3.14.2"
WHEN = datetime.fromtimestamp(NOW, UTC)
ID, OTHER_ID = "0123456789abcdef", "fedcba9876543210"


class World:
    def __init__(self, root) -> None:
        self.grid = Grid(root, now=WHEN)
        self.alice = self.grid.user("alice")
        self.bob = self.grid.user("bob", key="ec")
        self.login = self.grid.proxy(self.alice, key="ec")
        self.request = make_request(2048)

    def caller(self, identity: Identity | None = None, **more: Any) -> Caller:
        who = identity or self.alice
        known = {
            "user_dn": self.alice.dn, "vos": ("escape",), "delegation_id": ID, "method": CERTIFICATE,
            "voms_cred": ("/escape",), "certificate": who.pem_chain.decode(),
        }  # fmt: skip
        return Caller(**(known | more))

    def signed(self, request: Request | str | None = None, issuer: Identity | None = None, **how: Any) -> bytes:
        """What a client sends for a request: the proxy, and the chain of its own."""
        given = request or self.request
        csr = x509.load_pem_x509_csr((given if isinstance(given, str) else given.pem).encode())
        signer = issuer or self.alice
        made = self.grid.proxy(signer, key=_Public(csr.public_key()), **how)
        return made.pem_chain


class _Public:
    """Stands for a key of which only the public half is known."""

    def __init__(self, key) -> None:
        self._key = key

    def public_key(self):
        return self._key


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("grid"))


# ---- what is accepted


def test_a_request_is_that_of_fts3(world):
    csr = x509.load_pem_x509_csr(world.request.pem.encode())
    assert csr.is_signature_valid
    assert csr.subject.rfc4514_string() == "O=Dummy"
    assert request_bits(world.request.pem) == 2048
    assert request_bits("garbage") == 0
    assert "PRIVATE" not in repr(world.request)


@pytest.mark.parametrize(("bits", "expected"), [(1024, 2048), (2048, 2048), (2050, 3072), (3072, 3072), (4096, 4096)])
def test_the_key_is_as_long_as_the_clients(world, bits, expected):
    identity = world.grid.issue(world.alice.cert.subject, key=new_key("rsa", bits))
    assert key_bits(identity.pem_chain.decode()) == expected


def test_users_without_rsa_get_2048(world):
    assert key_bits(world.bob.pem_chain.decode()) == 2048
    assert key_bits(None) == key_bits("garbage") == 2048


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"cn": "1700000000", "is_ca": False},
        {"usage": None},
        {"cn": "proxy", "rfc": False},
        {"cn": "limited proxy", "rfc": False},
        {"info": proxy_cert_info(LIMITED)},
    ],
)
def test_proxies_of_clients_are_accepted(world, how):
    for issuer in (world.alice, world.login):
        taken = accept(world.signed(issuer=issuer, **how), world.request.key, user_dn=world.alice.dn, now=NOW)
        pem = taken.pem.reveal()
        # In the order of a proxy file: certificate, key, chain.
        assert [line for line in pem.splitlines() if "BEGIN" in line][:3] == [
            "-----BEGIN CERTIFICATE-----", "-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----",
        ]  # fmt: skip
        key = load_pem_private_key(pem[pem.index("-----BEGIN RSA") :].encode(), None)
        leaf = x509.load_pem_x509_certificate(pem.encode())
        assert key.public_key() == leaf.public_key()
        assert "BEGIN" not in repr(taken)


def test_it_ends_with_the_first_of_its_chain(world):
    short = world.grid.proxy(world.alice, key="ec", not_after=WHEN + timedelta(hours=2))
    long = world.signed(issuer=short, not_after=WHEN + timedelta(hours=7))
    assert accept(long, world.request.key, user_dn=world.alice.dn, now=NOW).expires_at == NOW + 7200


BAD = {
    "nothing": (lambda w: b"", "Malformed proxy"),
    "garbage": (lambda w: b"\xff\xfe-----BEGIN CERTIFICATE-----", "Malformed proxy"),
    "the proxy alone": (lambda w: w.signed()[: w.signed().index(b"-----END") + 26], "Malformed proxy"),
    "certificates that are none": (
        lambda w: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 2, "Malformed proxy"
    ),
    "the request": (lambda w: w.request.pem.encode() * 2, "Malformed proxy"),
    "more than 64 KiB": (lambda w: w.signed() + b"\n" * 65536, "more than 65536 bytes"),
    "eleven certificates": (lambda w: w.signed() + w.alice.pem_chain * 9, "more than 10 certificates"),
    "a private key": (lambda w: w.signed() + key_pem(w.alice.key), "private key"),
    "another key": (lambda w: w.login.pem_chain, "does not match the stored associated private key"),
    "the user's certificate first": (lambda w: w.alice.pem_chain * 2, "does not match"),
    "of another user": (lambda w: w.signed(issuer=w.bob), "it is a proxy of /DC=org/DC=grid/OU=Users/CN=bob"),
    "of another user, with this user's name": (
        lambda w: w.signed(issuer=w.bob, subject=extended(w.alice.cert.subject, "1"),
                           issuer_name=w.alice.cert.subject), "subject"
    ),
    "signed by another user": (lambda w: w.signed(signed_by=w.bob.key), "not signed"),
    "with the issuer's subject": (lambda w: w.signed(subject=w.alice.cert.subject), "subject"),
    "with two more names": (
        lambda w: w.signed(subject=extended(extended(w.alice.cert.subject, "1"), "2")), "subject"
    ),
    "expired": (lambda w: w.signed(not_after=WHEN - timedelta(seconds=1)), "expired"),
    "for next week": (lambda w: w.signed(not_before=WHEN + timedelta(hours=1)), "not valid before"),
    "of an expired login": (
        lambda w: w.signed(issuer=w.grid.proxy(w.alice, key="ec", not_after=WHEN - timedelta(seconds=1)),
                           not_after=WHEN + timedelta(hours=1)), "expired"
    ),
    "with an expired CA behind it": (
        lambda w: w.signed() + w.grid.issue(w.bob.cert.subject, not_after=WHEN - timedelta(1)).pem_chain, "expired"
    ),
    "of a limited login": (
        lambda w: w.signed(issuer=w.grid.proxy(w.alice, key="ec", info=proxy_cert_info(LIMITED))), "limited"
    ),
    "of a login that allows none": (
        lambda w: w.signed(issuer=w.grid.proxy(w.alice, key="ec", info=proxy_cert_info(path_len=0))), "allows 0"
    ),
    "of a legacy login": (
        lambda w: w.signed(issuer=w.grid.proxy(w.alice, key="ec", cn="proxy", rfc=False)), "legacy"
    ),
    "a CA": (lambda w: w.signed(is_ca=True), "is a CA"),
    "no proxy": (lambda w: w.signed(rfc=False), "not a proxy|no proxy"),
    "of the CA": (lambda w: w.signed(issuer=w.grid._identity(w.grid.ca.cert, w.grid.ca.key, ())) * 2, "CA"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_accepted(kind, world):
    make, why = BAD[kind]
    with pytest.raises(BadProxy, match=why) as caught:
        accept(make(world), world.request.key, user_dn=world.alice.dn, now=NOW)
    assert str(caught.value).startswith("Could not process the proxy: ")
    assert "PRIVATE" not in str(caught.value)


# ---- over HTTP


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
async def test_voms_is_refused_with_what_to_do(world):
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


def test_the_key_is_what_old_readers_know(world):
    key = load_pem_private_key(world.request.key.reveal().encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert world.request.key.reveal().startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert world.alice.cert.public_bytes(Encoding.PEM) in world.alice.pem
