"""Headers of a web server in front: believed from it, refused from everybody else."""

from __future__ import annotations

import base64
import ipaddress
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.serialization import Encoding
from multidict import CIMultiDict

from tests.grid import Grid
from tests.service import FixedClock
from transfer_engine.callers import Caller
from transfer_engine.config_service import AuthSettings, ReverseProxy
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.authenticator import TheAuthenticator
from transfer_engine.identity.x509.reverse_proxy import Forwarded, forwarded
from transfer_engine.service.boundary import Boundary, caller_of

FRONT = "192.0.2.7"
SETTINGS = ReverseProxy(peers=(ipaddress.ip_network("192.0.2.0/28"), ipaddress.ip_network("2001:db8::1/128")))
DN, VERIFY, CHAIN = "x-ssl-client-s-dn", "x-ssl-client-verify", "x-ssl-client-cert"
GOOD = {VERIFY: "SUCCESS", DN: "CN=alice,DC=org"}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    grid = Grid(tmp_path_factory.mktemp("grid"))
    return grid.proxy(grid.user("alice", key="ec"), key="ec")


def test_nothing_is_forwarded():
    assert forwarded({}, FRONT, SETTINGS) is None
    assert forwarded({"host": "x"}, None, ReverseProxy()) is None


@pytest.mark.parametrize("peer", [FRONT, "2001:db8::1", "::ffff:192.0.2.7", "192.0.2.7%eth0"])
def test_the_front_is_believed(peer):
    assert forwarded(GOOD, peer, SETTINGS) == Forwarded(dn="/DC=org/CN=alice")


def test_a_subject_is_never_changed():
    assert forwarded({VERIFY: "SUCCESS", DN: "CN=al(null)ice,DC=org"}, FRONT, SETTINGS) == Forwarded(
        dn="/DC=org/CN=al(null)ice"
    )


@pytest.mark.parametrize("peer", ["192.0.2.16", "2001:db8::2", "127.0.0.1", None, "", "front", "::ffff:10.0.0.1"])
@pytest.mark.parametrize("headers", [GOOD, {DN: ""}, {VERIFY: "NONE"}, {CHAIN: "x"}])
def test_nobody_else_is(peer, headers):
    with pytest.raises(BadCredential, match="own reverse proxy only"):
        forwarded(headers, peer, SETTINGS)
    with pytest.raises(BadCredential, match="own reverse proxy only"):
        forwarded(headers, FRONT, ReverseProxy())


@pytest.mark.parametrize(
    "headers",
    [{VERIFY: "NONE", DN: "(null)", CHAIN: "(null)(null)"}, {VERIFY: "", DN: "", CHAIN: ""}, {VERIFY: "NONE"}],
)
def test_clients_without_a_certificate(headers):
    assert forwarded(headers, FRONT, SETTINGS) is None


@pytest.mark.parametrize(
    "headers",
    [
        {DN: "CN=alice"},
        {VERIFY: "NONE", DN: "CN=alice"},
        {VERIFY: "FAILED:certificate has expired", DN: "CN=alice"},
        {VERIFY: "GENEROUS", DN: "CN=alice"},
        {VERIFY: "SUCCESS, FAILED", DN: "CN=alice"},
        {VERIFY: "SUCCESSFUL", DN: "CN=alice"},
        {VERIFY: "SUCCESS"},
        {VERIFY: "SUCCESS", DN: "alice"},
        {VERIFY: "SUCCESS", DN: "/DC=org/CN=alice/CN=12345"},
        {VERIFY: "SUCCESS", DN: "CN=12345,CN=alice,DC=org"},
        {VERIFY: "SUCCESS", DN: "/DC=org/CN=alice/CN=limited proxy"},
        {VERIFY: "SUCCESS", DN: "CN=alice", CHAIN: "garbage"},
        {VERIFY: "SUCCESS", CHAIN: "-----BEGIN CERTIFICATE----- A -----END CERTIFICATE-----"},
        {VERIFY: "SUCCESS", CHAIN: "x" * 70_000},
    ],
)
def test_what_the_front_has_not_verified(headers):
    with pytest.raises(BadCredential):
        forwarded(headers, FRONT, SETTINGS)


def test_chains_in_a_header(chain):
    pem = chain.pem_chain.decode()
    lines = [base64.b64encode(der).decode() for der in chain.der_chain]
    forms = [
        quote(pem),  # nginx: $ssl_client_escaped_cert
        quote(pem, safe=""),
        pem.replace("\n", " "),  # Apache puts blanks for line ends
        pem.replace("\n", ""),
        "".join(f"-----BEGIN CERTIFICATE-----{line}-----END CERTIFICATE-----" for line in lines),
        # As HAProxy gives leaf and chain.
        "".join(
            f"-----BEGIN CERTIFICATE-----{base64.b64encode(der).decode()}-----END CERTIFICATE-----"
            for der in (chain.der_chain[0], b"".join(chain.der_chain))
        ),
        pem.replace("\n", " ") + chain.issuers[0].public_bytes(Encoding.PEM).decode().replace("\n", " "),
    ]
    for text in forms:
        for subject in ("", chain.dn, chain.issuers[0].subject.rfc4514_string(), chain.cert.subject.rfc4514_string()):
            shown = {VERIFY: "SUCCESS", CHAIN: text, DN: subject}
            assert forwarded(shown, FRONT, SETTINGS) == Forwarded(chain=chain.der_chain)


def test_a_certificate_that_a_client_sends_past_the_front_makes_nobody(chain, tmp_path):
    mallory = Grid(tmp_path).user("mallory", key="ec")
    for subject in (mallory.dn, mallory.cert.subject.rfc4514_string(), "/CN=mallory", "/DC=test", "CN=M\u00fcller"):
        for pem in (chain.pem_chain, chain.pem_chain + mallory.pem_chain):
            with pytest.raises(BadCredential):
                forwarded({VERIFY: "SUCCESS", DN: subject, CHAIN: quote(pem.decode())}, FRONT, SETTINGS)


def test_too_many_certificates(tmp_path):
    grid = Grid(tmp_path)
    pem = b"".join(grid.user(f"u{n}", key="ec").pem_chain for n in range(11)).decode()
    with pytest.raises(BadCredential, match="more than 10"):
        forwarded({VERIFY: "SUCCESS", CHAIN: quote(pem)}, FRONT, SETTINGS)


def test_headers_of_other_names():
    named = SETTINGS.model_copy(update={"dn_header": "X-DN", "verify_header": "X-OK"})
    assert forwarded({"x-ok": "SUCCESS", "x-dn": "/CN=a"}, FRONT, named) == Forwarded(dn="/CN=a")
    assert forwarded(GOOD, "198.51.100.1", named) is None


@pytest.mark.asyncio
async def test_a_header_that_a_client_puts_before_the_fronts_own_makes_nobody(chain):
    front = ReverseProxy(peers=(ipaddress.ip_network("127.0.0.1/32"),))
    settings = AuthSettings(loopback="user")
    authenticator = TheAuthenticator(settings, clock=FixedClock(), reverse_proxy=front)
    app = web.Application(middlewares=[Boundary(authenticator, Anybody(), lambda _: ()).middleware])  # type: ignore[arg-type]

    async def who(request: web.Request) -> web.Response:
        return web.json_response({"dn": caller_of(request).user_dn})

    app.router.add_get("/", who)
    honest = [("X-SSL-Client-Verify", "SUCCESS"), ("X-SSL-Client-S-DN", "CN=alice,DC=org")]
    async with TestServer(app) as server, ClientSession() as session:

        async def ask(*more: tuple[str, str]) -> tuple[int, str]:
            async with session.get(server.make_url("/"), headers=CIMultiDict([*more, *honest])) as answer:
                return answer.status, await answer.text()

        assert await ask() == (200, '{"dn": "/DC=org/CN=alice"}')
        status, _ = await ask(("X-SSL-Client-Verify", "SUCCESS"), ("X-SSL-Client-S-DN", "CN=root,DC=org"))
        assert status == 403
        _, text = await ask(("X-SSL-Client-S-DN", "CN=root,DC=org"))
        assert '"/DC=org/CN=root"' not in text
        _, text = await ask(("X-SSL-Client-S-DN", "/DC=org/CN=root"))
        assert '"/DC=org/CN=root"' not in text
    await authenticator.aclose()


class Anybody:
    """A gate behind which nobody is banned."""

    @staticmethod
    def is_banned(_: Caller) -> bool:
        return False
