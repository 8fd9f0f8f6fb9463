"""An issuer's keys: found, kept, renewed; and what happens when they cannot be had."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OctKey, OKPKey

from tests.issuer import OidcIssuer, ec_key, rsa_key
from tests.service import NOW, FixedClock
from tests.unit.identity_world import AUDIENCE, ISSUER, Shelf, World
from transfer_engine.config_service import Issuer
from transfer_engine.errors import Invalid, IssuerUnavailable
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.fetching import BODY_MAX, Fetcher, NotHad, is_safe
from transfer_engine.identity.jwks import AGAIN_S, UNKNOWN_KID_S, IssuerKeys, same_issuer
from transfer_engine.identity.keys import KEYS_MAX, parse_keys


def settings(issuer: str = ISSUER, **changes: object) -> Issuer:
    return Issuer.model_validate({"issuer": issuer, "audiences": [AUDIENCE], "vo": "escape", **changes})


class Kept:
    """Keys of an issuer without a network."""

    def __init__(self, **changes: object) -> None:
        self.clock = FixedClock()
        self.issuer = OidcIssuer(clock=self.clock, url=ISSUER)
        self.shelf = Shelf(self.issuer)
        self.keys = IssuerKeys(settings(**changes), clock=self.clock, documents=self.shelf)

    @property
    def n_fetched(self) -> int:
        return sum(url.endswith("/jwk") for url in self.shelf.fetched)

    async def kids(self, kid: str | None = "rsa1") -> list[str | None]:
        return [key.kid for key in await self.keys.keys(kid, "RS256")]


@pytest.mark.asyncio
async def test_they_are_fetched_once():
    kept = Kept()
    assert await kept.kids() == ["rsa1"]
    assert await kept.kids() == ["rsa1"]
    assert kept.shelf.fetched == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/jwk"]
    assert (await kept.keys.metadata()).token_endpoint is None


@pytest.mark.asyncio
async def test_many_at_once_share_one_fetch():
    kept = Kept()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(50):
            tasks.create_task(kept.kids())
    assert kept.n_fetched == 1


@pytest.mark.asyncio
async def test_an_unknown_key_is_looked_for_once_a_minute():
    kept = Kept()
    await kept.kids()
    kept.issuer.keys = [rsa_key(2)]
    for _ in range(5):
        with pytest.raises(BadCredential):
            await kept.kids("rsa2")
    assert kept.n_fetched == 1
    kept.clock.at += UNKNOWN_KID_S
    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(kept.kids("rsa2"))
    assert kept.n_fetched == 2
    # The old key is gone at its issuer, so it is gone here.
    with pytest.raises(BadCredential):
        await kept.kids("rsa1")
    assert kept.n_fetched == 2


@pytest.mark.asyncio
async def test_they_are_renewed_when_due():
    kept = Kept(jwks_refresh_s=600)
    await kept.kids()
    kept.clock.at += 599
    await kept.kids()
    assert kept.n_fetched == 1
    kept.clock.at += 1
    await kept.kids()
    assert kept.n_fetched == 2


@pytest.mark.asyncio
async def test_an_issuer_that_is_away_is_believed_for_a_while():
    kept = Kept(jwks_refresh_s=600, jwks_max_s=3600)
    await kept.kids()
    kept.shelf.away = True
    kept.clock.at += 3599
    for _ in range(5):
        assert await kept.kids() == ["rsa1"]
    # It was asked once, not at every request.
    assert len(kept.shelf.fetched) == 3
    kept.clock.at += 1
    with pytest.raises(IssuerUnavailable) as away:
        await kept.kids()
    assert (away.value.status, away.value.retry_after_s) == (503, AGAIN_S)
    assert "it cannot be reached" in str(away.value)
    kept.shelf.away = False
    kept.clock.at += AGAIN_S
    assert await kept.kids() == ["rsa1"]


@pytest.mark.asyncio
async def test_no_keys_at_all_is_not_the_tokens_fault():
    kept = Kept()
    kept.shelf.away = True
    for _ in range(5):
        with pytest.raises(IssuerUnavailable):
            await kept.kids()
    assert len(kept.shelf.fetched) == 1
    with pytest.raises(IssuerUnavailable):
        await kept.keys.metadata()


@pytest.mark.asyncio
async def test_an_unknown_key_of_an_issuer_that_is_away():
    """It may have made that key since: nobody can say."""
    kept = Kept()
    await kept.kids()
    kept.shelf.away = True
    kept.clock.at += UNKNOWN_KID_S
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await kept.kids("rsa2")
    assert await kept.kids() == ["rsa1"]


@pytest.mark.asyncio
async def test_in_the_background(monkeypatch: pytest.MonkeyPatch):
    """A request then never waits for a renewal."""
    monkeypatch.setattr("transfer_engine.identity.jwks.LOOK_S", 0.0)
    kept = Kept(jwks_refresh_s=600)
    seen: asyncio.Queue[str] = asyncio.Queue()
    kept.shelf.told = seen.put_nowait
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(kept.keys.run())
        for _ in range(2):
            await seen.get()
        kept.clock.at += 600
        for _ in range(2):
            await seen.get()
        assert await kept.kids() == ["rsa1"]
        running.cancel()
    assert kept.n_fetched == 2


BAD_CONFIGURATIONS: list[dict[str, object]] = [
    {"issuer": "https://evil.example"},
    {"issuer": ISSUER + "//"},
    {"issuer": ISSUER.upper()},
    {"issuer": 5},
    {"issuer": None},
    {"jwks_uri": "http://issuer.example/jwk"},
    {"jwks_uri": "http://127.0.0.1/jwk"},
    {"jwks_uri": "file:///etc/passwd"},
    {"jwks_uri": "https://user:secret@issuer.example/jwk"},
    {"jwks_uri": None},
    {"jwks_uri": ["https://issuer.example/jwk"]},
    {"jwks_uri": "https://["},
    {"jwks_uri": ""},
]


@pytest.mark.asyncio
@pytest.mark.parametrize("configuration", BAD_CONFIGURATIONS, ids=str)
async def test_configurations_that_are_not_believed(configuration: dict[str, object]):
    kept = Kept()
    kept.issuer.configuration = configuration
    with pytest.raises(IssuerUnavailable, match="its configuration"):
        await kept.kids()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "jwks",
    [b"", b"[]", b"null", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [5, null, "x"]}', b"\xff", b"{" * 5000,
     json.dumps({"keys": [{}] * (KEYS_MAX + 1)}).encode(), b'{"keys":[],"keys":[]}'],
)  # fmt: skip
async def test_key_sets_that_are_none(jwks: bytes):
    kept = Kept()
    kept.issuer.jwks = jwks
    with pytest.raises(IssuerUnavailable):
        await kept.kids()


GOOD = {**rsa_key().as_dict(private=False)}


@pytest.mark.parametrize(
    ("entry", "n"),
    [
        (GOOD, 1),
        ({**GOOD, "use": "sig"}, 1),
        ({**GOOD, "use": "enc"}, 0),
        ({**GOOD, "use": 5}, 0),
        ({**GOOD, "key_ops": ["verify"]}, 1),
        ({**GOOD, "key_ops": ["encrypt"]}, 0),
        ({**GOOD, "key_ops": "verify"}, 0),
        ({**GOOD, "alg": "RS256"}, 1),
        ({**GOOD, "alg": "ES256"}, 0),
        ({**GOOD, "alg": "none"}, 0),
        ({**GOOD, "alg": ["RS256"]}, 0),
        ({**GOOD, "x5c": ["what is this"], "x5t": 5, "ext": True}, 1),
        ({**GOOD, "kid": 5}, 0),
        ({**GOOD, "kid": "x" * 300}, 0),
        ({**GOOD, "e": "AQ"}, 0),
        ({**GOOD, "e": 3}, 0),
        ({**GOOD, "n": "AQAB"}, 0),
        ({**GOOD, "n": "!" * 342}, 0),
        ({**GOOD, "n": "A" * 100_000}, 0),
        ({**GOOD, "n": "A" * 171 + str(GOOD["n"])[:171]}, 0),
        ({**GOOD, "n": None}, 0),
        ({**GOOD, "kty": "rsa"}, 0),
        ({**GOOD, "kty": None}, 0),
        ({"kty": "RSA"}, 0),
        (rsa_key().as_dict(private=True), 0),
        (OctKey.generate_key(256).as_dict(private=True), 0),
        (ec_key().as_dict(private=False), 1),
        ({**ec_key().as_dict(private=False), "crv": "P-384"}, 0),
        ({**ec_key().as_dict(private=False), "crv": "secp256k1"}, 0),
        ({**ec_key().as_dict(private=False), "crv": ["P-256"]}, 0),
        ({**ec_key().as_dict(private=False), "x": "AAAA"}, 0),
        ({**ec_key().as_dict(private=False), "y": ec_key().as_dict()["x"]}, 0),
        (OKPKey.generate_key("Ed25519").as_dict(private=False), 1),
        (OKPKey.generate_key("X25519").as_dict(private=False), 0),
    ],
)
def test_which_keys_are_taken(entry: dict[str, object], n: int):
    assert len(parse_keys(json.dumps({"keys": [entry]}).encode())) == n


@given(st.binary(max_size=200))
def test_no_document_breaks_it(document: bytes):
    try:
        parse_keys(document)
    except ValueError:
        return


@pytest.mark.asyncio
async def test_edwards_curves_when_the_settings_allow_them():
    world = World(changes={"algorithms": ["EdDSA"]})
    key = OKPKey.generate_key("Ed25519", {"kid": "ed"})
    world.issuer.jwks = json.dumps({"keys": [key.as_dict(private=False)]}).encode()
    from tests.issuer import signed

    token = signed({"kid": "ed", "alg": "EdDSA"}, world.claims(), key, "EdDSA")
    assert (await world.caller(token)).user_dn == "alice"
    with pytest.raises(BadCredential):
        await world.caller(world.token())


@pytest.mark.parametrize(
    ("url", "plain", "safe"),
    [
        ("https://issuer.example", False, True),
        ("https://issuer.example:8443/x", False, True),
        ("http://issuer.example", True, False),
        ("http://127.0.0.1:80/x", True, True),
        ("http://127.0.0.1:80/x", False, False),
        ("http://localhost/x", True, True),
        ("http://[::1]/x", True, True),
        ("http://127.0.0.1.evil.example/x", True, False),
        ("https://user@issuer.example", False, False),
        ("https://issuer.example/#x", False, False),
        ("https:///x", False, False),
        ("ftp://issuer.example", True, False),
        ("https://[", False, False),
        ("https://issuer.example:x", False, False),
        ("", True, False),
    ],
)
def test_where_keys_are_fetched_from(url: str, plain: bool, safe: bool):
    assert is_safe(url, plain_loopback=plain) is safe


def test_an_issuer_over_plain_http_is_on_this_machine():
    with pytest.raises(Invalid):
        IssuerKeys(settings("http://issuer.example"), clock=FixedClock(), documents=Shelf(OidcIssuer()))


def test_same_issuer():
    assert same_issuer("https://a/", "https://a")
    assert not same_issuer("https://a//", "https://a")
    assert not same_issuer("https://A", "https://a")


# With a network


async def believed(issuer: OidcIssuer, **changes: object) -> list[str | None]:
    keys = IssuerKeys(settings(issuer.url, **changes), clock=FixedClock())
    try:
        return [key.kid for key in await keys.keys("rsa1", "RS256")]
    finally:
        await keys.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["", "/realms/escape"])
async def test_over_http_on_loopback(path: str):
    async with OidcIssuer(clock=FixedClock(NOW)).running(path=path) as issuer:
        assert await believed(issuer) == ["rsa1"]
        assert issuer.calls == {"/.well-known/openid-configuration": 1, "/jwk": 1}


@pytest.mark.asyncio
async def test_over_https_with_a_ca(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with OidcIssuer().running(authority) as issuer:
        assert await believed(issuer, ca=tmp_path / "ca.pem") == ["rsa1"]
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
        with pytest.raises(IssuerUnavailable):
            await believed(issuer, ca=tmp_path / "other.pem")
        with pytest.raises(IssuerUnavailable, match=r"not trusted .*name its CA with `ca`"):
            await believed(issuer)


def test_a_ca_that_cannot_be_read(tmp_path):
    with pytest.raises(Invalid):
        Fetcher(ca=tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(Invalid):
        Fetcher(ca=tmp_path / "bad.pem")
    assert issubclass(ssl.SSLError, OSError)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_an_issuer_that_fails(status: int):
    async with OidcIssuer().running() as issuer:
        issuer.failing["/jwk"] = status
        with pytest.raises(IssuerUnavailable, match=f"it answers with {status}"):
            await believed(issuer)


@asynccontextmanager
async def answering(handler) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/{rest:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def fetched(url: str) -> bytes:
    fetcher = Fetcher(plain_loopback=True)
    try:
        return await fetcher.fetch(url)
    finally:
        await fetcher.aclose()


@pytest.mark.asyncio
async def test_redirects_stay_at_the_host():
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/good":
            raise web.HTTPFound("/end")
        if request.path == "/circle":
            raise web.HTTPFound("/circle")
        if request.path == "/away":
            raise web.HTTPFound("http://localhost:1/end")
        if request.path == "/file":
            raise web.HTTPFound("file:///etc/passwd")
        return web.Response(body=b"end")

    async with answering(handler) as url:
        assert await fetched(f"{url}/good") == b"end"
        for path in ("circle", "away", "file"):
            with pytest.raises(NotHad, match="redirected"):
                await fetched(f"{url}/{path}")


@pytest.mark.asyncio
async def test_bodies_are_bounded():
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=b" " * (BODY_MAX + 1))

    async with answering(handler) as url:
        with pytest.raises(NotHad, match="longer"):
            await fetched(url)


@pytest.mark.asyncio
async def test_answers_are_waited_for_a_short_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("transfer_engine.identity.fetching.FETCH_S", 0.05)
    async with OidcIssuer(hold=asyncio.Event()).running() as issuer:
        with pytest.raises(IssuerUnavailable, match="does not answer"):
            await believed(issuer)


@pytest.mark.asyncio
async def test_nobody_listens():
    with pytest.raises(NotHad, match=r"cannot be reached \(Connect"):
        await fetched("http://127.0.0.1:1/")
