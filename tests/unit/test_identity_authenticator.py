"""Who a request comes from: what wins over what, what is refused, who is what by the settings."""

from __future__ import annotations

import hashlib
import itertools
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from protocols.credentials import Secret
from tests.issuer import OidcIssuer
from tests.service import NOW, FixedClock
from tests.unit.identity_world import AUDIENCE, ISSUER, STORAGE_ISSUER, World
from transfer_engine.callers import Caller, Grant, Need, Role
from transfer_engine.config_service import AuthSettings, ReverseProxy
from transfer_engine.errors import Invalid, IssuerUnavailable
from transfer_engine.identity import local_tokens
from transfer_engine.identity.api import BadCredential, CertificateUser, Shown, TooMany
from transfer_engine.identity.authenticator import TheAuthenticator
from transfer_engine.identity.jwt import take_apart
from transfer_engine.identity.roles import short_id

pytestmark = pytest.mark.asyncio

DN = "/DC=ch/DC=example/CN=Alice"
LOCAL = local_tokens.make(bytes(range(32)))
FRONT = "192.0.2.80"


@dataclass
class Chains:
    """Certificates that need no cryptography: the first one is the subject, the others are FQANs."""

    read: list[tuple[bytes, ...]] = field(default_factory=list)

    def user(self, chain: tuple[bytes, ...], now: float) -> CertificateUser:
        self.read.append(chain)
        if chain[0] == b"bad":
            raise BadCredential("the certificate has expired")
        dn, *fqans = (one.decode() for one in chain)
        return CertificateUser(dn=dn, fqans=tuple(fqans), expires_at=now + 3600, pem="PEM")


def world(**auth: Any) -> World:
    proxy = ReverseProxy.model_validate({"peers": [f"{FRONT}/32"]})
    return World(auth=auth, certificates=Chains(), reverse_proxy=proxy)


def local_setting(**changes: Any) -> dict[str, Any]:
    return {"name": "robot", "sha256": local_tokens.digest(LOCAL), "vo": "small", **changes}


def cert(*parts: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in parts)


def sha(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()[:16]


# Who


async def test_a_token():
    here = world()
    text = here.token(scope="openid fts")
    caller = await here.caller(text)
    assert caller == Caller(
        user_dn="alice",
        vos=("escape",),
        delegation_id=sha(f"{ISSUER}/alice"),
        method="oauth2",
        voms_cred=("openid", "fts"),
        issuer=f"{ISSUER}/",
        expires_at=NOW + 3600,
    )
    assert caller.token == Secret(text)
    assert (caller.role, caller.is_root) == (Role.USER, False)


async def test_the_slash_of_an_issuer_makes_no_difference_to_who_it_is():
    here = world()
    one, two = await here.caller(here.token(iss=ISSUER)), await here.caller(here.token(iss=ISSUER + "/"))
    assert one == two


async def test_a_certificate():
    here = world()
    fqans = ("/escape/prod/Role=production", "/escape", "/escape/prod")
    caller = await here.authenticator.identify(Shown(peer="192.0.2.1", chain=cert(DN, *fqans)))
    assert caller == Caller(
        user_dn=DN,
        vos=("escape/prod", "escape"),
        delegation_id=sha(DN + "".join(fqans)),
        method="certificate",
        voms_cred=fqans,
        expires_at=NOW + 3600,
    )
    assert (caller.certificate, caller.token) == ("PEM", None)


async def test_a_certificate_without_attributes():
    here = world(gridmap={DN: "atlas"})
    assert (await here.authenticator.identify(Shown(peer="x", chain=cert(DN)))).vos == ("atlas",)
    other = await here.authenticator.identify(Shown(peer="x", chain=cert("/CN=Bob")))
    assert other.vos == (other.delegation_id,) == (sha("/CN=Bob"),)
    # What a proxy says comes before what a list says.
    assert (await here.authenticator.identify(Shown(peer="x", chain=cert(DN, "/cms")))).vos == ("cms",)


async def test_subjects_in_settings_may_be_spelled_as_other_tools_do():
    shown = "/DC=ch/CN=Robot/emailAddress=robot@example.ch"
    written = "/DC=ch/CN=Robot/Email=robot@example.ch"
    here = world(gridmap={written: "atlas"}, roles=[{"role": "operator", "dn": written}])
    caller = await here.authenticator.identify(Shown(chain=cert(shown)))
    assert (caller.vos, caller.role) == (("atlas",), Role.OPERATOR)


async def test_a_local_token():
    here = world(tokens=[local_setting(role="vo-operator", expires="2023-11-15")])
    caller = await here.caller(LOCAL.reveal())
    assert (caller.user_dn, caller.vos, caller.method) == ("robot", ("small",), "token")
    assert caller.grants == (Grant(Role.VO_OPERATOR, "small"),)
    assert caller.token is None  # it means nothing to a storage
    here.clock.at = caller.expires_at - 1
    assert await here.caller(LOCAL.reveal()) == caller
    here.clock.at += 1
    with pytest.raises(BadCredential, match="expired"):
        await here.caller(LOCAL.reveal())


# What wins


async def test_a_bearer_token_wins_over_a_certificate():
    here = world()
    caller = await here.caller(here.token(), chain=cert(DN))
    assert (caller.method, caller.user_dn, caller.certificate) == ("oauth2", "alice", None)
    assert here.authenticator._certificates.read == []


@pytest.mark.parametrize("authorization", ["", "Basic eDp5", "Bearer", "Bearer x", "Bearer a.b.c", "Bearer te_x"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.1", FRONT, None])
async def test_a_bad_one_is_not_made_good_by_another(authorization: str, peer: str | None):
    here = world(loopback="admin")
    headers = {"x-ssl-client-verify": "SUCCESS", "x-ssl-client-s-dn": DN} if peer == FRONT else {}
    shown = Shown(authorization=authorization, peer=peer, chain=cert(DN), headers=headers)
    with pytest.raises(BadCredential):
        await here.authenticator.identify(shown)


async def test_a_bad_certificate_is_not_made_good_by_the_address():
    with pytest.raises(BadCredential):
        await world(loopback="admin").authenticator.identify(Shown(peer="127.0.0.1", chain=(b"bad",)))


async def test_certificates_that_nobody_reads():
    with pytest.raises(BadCredential):
        await World().authenticator.identify(Shown(peer="192.0.2.1", chain=cert(DN)))


# This machine


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", None])
async def test_this_machine(peer: str | None):
    here = world(loopback="operator", loopback_vo="desk")
    caller = await here.authenticator.identify(Shown(peer=peer))
    assert (caller.user_dn, caller.vos, caller.method) == ("local", ("desk",), "local")
    assert caller.delegation_id == sha("local")
    assert caller.grants == (Grant(Role.OPERATOR),)
    assert not (await world().authenticator.identify(Shown(peer=peer))).known


@pytest.mark.parametrize("peer", ["192.0.2.1", "10.0.0.1", "0.0.0.0", "::", "2001:db8::1", "localhost.evil", ""])
async def test_other_machines(peer: str):
    caller = await world(loopback="admin").authenticator.identify(Shown(peer=peer))
    assert (caller.known, caller.role, caller.vos, caller.user_dn) == (False, Role.ANONYMOUS, (), "anon")


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "x-real-ip", "x-forwarded-host"])
async def test_whoever_is_behind_a_proxy_on_this_machine_is_not_on_it(header: str):
    shown = Shown(peer="127.0.0.1", headers={header: "127.0.0.1"})
    assert not (await world(loopback="admin").authenticator.identify(shown)).known


async def test_a_reverse_proxy_on_this_machine_is_nobody():
    proxy = ReverseProxy.model_validate({"peers": ["127.0.0.0/8"]})
    here = World(auth={"loopback": "admin"}, certificates=Chains(), reverse_proxy=proxy)
    assert not (await here.authenticator.identify(Shown(peer="127.0.0.1"))).known
    # Nor is its own certificate that of its users.
    assert not (await here.authenticator.identify(Shown(peer="127.0.0.1", chain=cert("/CN=front")))).known


# A web server in front


FORWARDED = {"x-ssl-client-verify": "SUCCESS", "x-ssl-client-s-dn": DN}


async def test_what_a_reverse_proxy_says():
    here = world(gridmap={DN: "atlas"})
    caller = await here.authenticator.identify(Shown(peer=FRONT, headers=FORWARDED, chain=cert("/CN=front")))
    assert (caller.user_dn, caller.method, caller.vos) == (DN, "certificate", ("atlas",))
    assert (caller.expires_at, caller.certificate) == (None, None)


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.1", None, ""])
@pytest.mark.parametrize("header", ["x-ssl-client-verify", "x-ssl-client-s-dn", "x-ssl-client-cert"])
async def test_what_anybody_else_says_in_its_words(peer: str | None, header: str):
    here = world(loopback="admin")
    good = f"Bearer {here.token()}"
    for authorization, chain in itertools.product((None, good), ((), cert(DN))):
        shown = Shown(peer=peer, headers={header: DN}, authorization=authorization, chain=chain)
        with pytest.raises(BadCredential):
            await here.authenticator.identify(shown)


async def test_a_token_through_a_reverse_proxy():
    here = world()
    shown = Shown(peer=FRONT, headers=FORWARDED, authorization=f"Bearer {here.token()}")
    assert (await here.authenticator.identify(shown)).method == "oauth2"


async def test_refusals_behind_a_reverse_proxy_are_those_of_the_address_it_saw():
    here = world(failures_per_min=2)

    async def ask(seen: str) -> None:
        shown = Shown(peer=FRONT, headers={"x-forwarded-for": f"198.51.100.7, {seen}"}, authorization="Bearer x")
        await here.authenticator.identify(shown)

    for _ in range(2):
        with pytest.raises(BadCredential):
            await ask("203.0.113.1")
    with pytest.raises(TooMany):
        await ask("203.0.113.1")
    with pytest.raises(BadCredential):
        await ask("203.0.113.2")


# VOs of a token


@pytest.mark.parametrize(
    ("groups", "vos"),
    [
        (["/escape"], ("escape",)),
        (["/escape/prod"], ("production",)),
        (["/escape/prod/x/y"], ("production",)),
        (["/escape/production"], ("escape",)),
        (["/escape/"], ("escape",)),
        (["/cms", "/escape/a", "/escape/prod", "/escape/b"], ("cms", "escape", "production")),
        (["/escaped"], None),
        (["/"], None),
        (["escape"], None),
        ([""], None),
        (["/escape/../cms"], None),
        (["//escape"], None),
        (["/x" * 200], None),
        (["/Escape"], None),
        ([], None),
        (None, None),
    ],
)
@pytest.mark.parametrize("vo", [None, "rest"])
async def test_vos_by_groups(groups: list[str] | None, vos: tuple[str, ...] | None, vo: str | None):
    known = {"/escape": "escape", "/escape/prod/": "production", "/cms": "cms"}
    here = World(changes={"groups": known, "vo": vo})
    asked = here.caller(here.token(**{"wlcg.groups": groups}))
    if vos is None and vo is None:
        with pytest.raises(BadCredential, match="does not belong to any authorized vo"):
            await asked
    else:
        assert (await asked).vos == (vos or (vo,))


# Scopes that are asked for


@pytest.mark.parametrize(
    ("wanted", "held", "good"),
    [
        (["fts"], "openid fts", True),
        (["fts"], "openid", False),
        (["fts"], "fts:submit", False),
        (["fts"], "ftsx", False),
        (["fts"], "", False),
        (["fts", "openid"], "fts", False),
        (["fts", "openid"], "openid fts", True),
        (["storage.read:/escape"], "storage.read:/", True),
        (["storage.read:/escape"], "storage.read:/escape", True),
        (["storage.read:/escape"], "storage.stage:/escape", True),
        (["storage.read:/escape"], "storage.read:/escape/x", False),
        (["storage.read:/escape"], "storage.read:/escaped", False),
    ],
)
async def test_scopes_that_a_token_must_have(wanted: list[str], held: str, good: bool):
    here = World(changes={"scopes": wanted})
    if good:
        assert (await here.caller(here.token(scope=held))).known
    else:
        with pytest.raises(BadCredential, match="lacks the scope"):
            await here.caller(here.token(scope=held))


async def test_the_wildcard_audience_only_where_the_settings_name_it():
    wildcard = "https://wlcg.cern.ch/jwt/v1/any"
    with pytest.raises(BadCredential):
        await World().caller(World().token(aud=wildcard))
    here = World(changes={"audiences": [AUDIENCE, wildcard]})
    assert (await here.caller(here.token(aud=wildcard))).known


# Roles: each setting, for each of these


PEOPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "alice": ("token", {"sub": "alice", "wlcg.groups": ["/escape", "/escape/prod"]}),
    "bob": ("token", {"sub": "bob", "wlcg.groups": ["/escape"]}),
    "Alice": ("certificate", {"chain": cert(DN, "/escape/Role=production", "/escape")}),
    "Bob": ("certificate", {"chain": cert("/CN=Bob", "/escape", "/cms")}),
    "robot": ("local", {}),
}

SETTINGS: list[tuple[dict[str, Any], dict[str, tuple[Grant, ...]]]] = [
    ({"role": "operator", "dn": DN}, {"Alice": (Grant(Role.OPERATOR),)}),
    ({"role": "admin", "dn": DN.lower()}, {}),
    ({"role": "admin", "dn": "/CN=Bob"}, {"Bob": (Grant(Role.ADMIN),)}),
    ({"role": "operator", "issuer": ISSUER, "subject": "alice"}, {"alice": (Grant(Role.OPERATOR),)}),
    ({"role": "operator", "issuer": ISSUER + "/", "subject": "alice"}, {"alice": (Grant(Role.OPERATOR),)}),
    ({"role": "operator", "issuer": STORAGE_ISSUER, "subject": "alice"}, {}),
    ({"role": "operator", "issuer": ISSUER, "subject": "Alice"}, {}),
    ({"role": "operator", "issuer": ISSUER, "subject": "alice", "group": "/cms"}, {}),
    ({"role": "vo-monitor", "group": "/escape/prod"}, {"alice": (Grant(Role.VO_MONITOR, "escape"),)}),
    ({"role": "vo-operator", "group": "/escape/prod", "vo": "cms"}, {"alice": (Grant(Role.VO_OPERATOR, "cms"),)}),
    ({"role": "vo-operator", "group": "/escape/Role=production"}, {"Alice": (Grant(Role.VO_OPERATOR, "escape"),)}),
    ({"role": "vo-monitor", "group": "/cms"}, {"Bob": tuple(Grant(Role.VO_MONITOR, vo) for vo in ("escape", "cms"))}),
    ({"role": "operator", "group": "/escape/prod", "issuer": ISSUER}, {"alice": (Grant(Role.OPERATOR),)}),
    ({"role": "operator", "group": "/escape/pro"}, {}),
    ({"role": "operator", "group": "/escape/prod/x"}, {}),
    ({"role": "operator", "dn": DN, "group": "/cms"}, {}),
    ({"role": "operator", "dn": "/CN=Bob", "group": "/cms"}, {"Bob": (Grant(Role.OPERATOR),)}),
    ({"role": "operator", "dn": "robot"}, {}),
]  # fmt: skip


async def who(here: World, name: str) -> Caller:
    kind, shown = PEOPLE[name]
    if kind == "token":
        return await here.caller(here.token(**shown))
    if kind == "local":
        return await here.caller(LOCAL.reveal())
    return await here.authenticator.identify(Shown(peer="192.0.2.1", **shown))


@pytest.mark.parametrize(("setting", "expected"), SETTINGS, ids=str)
async def test_who_has_which_role(setting: dict[str, Any], expected: dict[str, tuple[Grant, ...]]):
    here = world(roles=[setting], tokens=[local_setting()])
    found = {name: caller.grants for name in PEOPLE if (caller := await who(here, name)).grants}
    assert found == expected


LADDER = {
    "user": {Need.NOTHING, Need.USER},
    "vo-monitor": {Need.NOTHING, Need.USER, Need.VO_READ},
    "vo-operator": {Need.NOTHING, Need.USER, Need.VO_READ, Need.VO_CONTROL},
    "operator": {*Need} - {Need.ADMIN},
    "admin": {*Need},
}


@pytest.mark.parametrize("role", LADDER)
async def test_what_each_role_may(role: str):
    """By a local token, by the settings and by this machine it is the same."""
    by_token = await world(tokens=[local_setting(role=role)]).caller(LOCAL.reveal())
    here = await world(loopback=role).authenticator.identify(Shown(peer="::1"))
    callers = [by_token, here]
    if role != "user":
        callers.append(await who(world(roles=[{"role": role, "dn": DN}]), "Alice"))
    for caller in callers:
        assert {need for need in Need if caller.may(need)} == LADDER[role]
        assert caller.reads.everything is (role in {"operator", "admin"})
        assert caller.is_root is (role == "admin")
        own = {caller.vo} if role.startswith("vo-") else set()
        assert caller.reads.vos == own
        assert caller.writes.vos == (own if role == "vo-operator" else set())


async def test_a_group_is_of_one_issuer():
    """Any issuer can write any group into its tokens."""
    clock = FixedClock()
    two = [{"issuer": ISSUER, "audiences": [AUDIENCE], "vo": "a"},
           {"issuer": STORAGE_ISSUER, "audiences": [AUDIENCE], "vo": "b"}]  # fmt: skip
    for setting, n in (({"group": "/ops"}, 0), ({"group": "/ops", "issuer": ISSUER}, 1)):
        here = World(auth={"issuers": two, "roles": [{"role": "admin", **setting}]})
        evil = OidcIssuer(clock=clock, url=STORAGE_ISSUER, keys=here.storages.keys)
        bad = evil.sign(evil.claims(aud=AUDIENCE, **{"wlcg.groups": ["/ops"]}))
        assert (await here.caller(bad)).grants == ()
        assert len((await here.caller(here.token(**{"wlcg.groups": ["/ops"]}))).grants) == n


async def test_ids_of_two_issuers_are_never_one():
    """FTS3's id is of issuer and subject in a row; an issuer inside another's path could be imitated."""
    inner = f"{ISSUER}/realms/b"
    two = [
        {"issuer": ISSUER, "audiences": [AUDIENCE], "vo": "a"},
        {"issuer": inner, "audiences": [AUDIENCE], "vo": "b"},
    ]
    here = World(auth={"issuers": two})
    assert short_id(f"{ISSUER}/", "realms/b/alice") == short_id(f"{inner}/", "alice")
    with pytest.raises(BadCredential, match="another issuer"):
        await here.caller(here.token(sub="realms/b/alice"))
    assert (await here.caller(here.token(sub="realms/c"))).known


async def test_roles_given_while_it_runs():
    asked: list[tuple[str, str]] = []

    def extra(user_dn: str, method: str) -> tuple[Grant, ...]:
        asked.append((user_dn, method))
        return (Grant(Role.OPERATOR),) if user_dn in {DN, "alice"} else ()

    here = World(certificates=Chains(), extra_grants=extra, auth={"tokens": [local_setting()]})
    assert (await who(here, "Alice")).role is Role.OPERATOR
    assert (await who(here, "Bob")).role is Role.USER
    assert (await who(here, "alice")).role is Role.OPERATOR
    assert (await who(here, "robot")).role is Role.USER
    assert ("robot", "token") in asked


async def test_a_subject_that_looks_like_a_certificates_is_nobody():
    """Jobs, bans and roles of certificates go by that name."""
    here = world()
    for subject in (DN, "/CN=x", "/2.5.4.3=x"):
        with pytest.raises(BadCredential, match="form of a certificate"):
            await here.caller(here.token(sub=subject))
    assert (await here.caller(here.token(sub="/users/alice"))).user_dn == "/users/alice"


async def test_vos_that_share_their_jobs():
    here = world(shared_vos=["escape"])
    assert (await who(here, "Bob")).shared_vos == {"escape"}
    assert (await who(here, "Bob")).reads.vos == {"escape"}
    assert (await who(here, "Bob")).writes.vos == frozenset()
    assert (await who(world(shared_vos=["*"]), "Bob")).shared_vos == {"escape", "cms"}
    assert (await who(world(), "Bob")).shared_vos == frozenset()


# Refusals


async def test_too_many_refusals():
    here = world(failures_per_min=3)
    good = here.token()
    await here.caller(good)
    for _ in range(3):
        with pytest.raises(BadCredential):
            await here.caller("x")
    here.clock.at += 20
    with pytest.raises(TooMany) as many:
        await here.caller("x")
    assert (many.value.status, many.value.retry_after_s) == (429, 40)
    # Whoever shares the address goes on with what was good before; what is new has to wait.
    assert (await here.caller(good)).known
    with pytest.raises(TooMany):
        await here.caller(here.token())
    with pytest.raises(TooMany):
        await here.authenticator.identify(Shown(peer="192.0.2.1", chain=cert(DN)))
    assert not (await here.authenticator.identify(Shown(peer="192.0.2.1"))).known
    assert (await here.authenticator.identify(Shown(peer="192.0.2.2", chain=cert(DN)))).known
    here.clock.at += 40
    assert (await here.caller(here.token())).known


async def test_bad_certificates_and_headers_count_too():
    here = world(failures_per_min=2)
    for shown in (Shown(peer="192.0.2.1", chain=(b"bad",)), Shown(peer="192.0.2.1", headers=FORWARDED)):
        with pytest.raises(BadCredential):
            await here.authenticator.identify(shown)
    for shown in (Shown(peer="192.0.2.1", chain=(b"bad",)), Shown(peer="192.0.2.1", headers=FORWARDED)):
        with pytest.raises(TooMany):
            await here.authenticator.identify(shown)


async def test_an_issuer_that_is_away_is_nobodys_failure(caplog: pytest.LogCaptureFixture):
    here = world(failures_per_min=1)
    here.shelf.away = True
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await here.caller(here.token())
    assert "credential refused" not in [record.getMessage() for record in caplog.records]


async def test_what_the_log_says(caplog: pytest.LogCaptureFixture):
    here = world()
    text = here.token(sub="mallory\n2026-01-01 INFO all is well", exp=1)
    with caplog.at_level(logging.INFO), pytest.raises(BadCredential):
        await here.caller(text)
    (line,) = [record for record in caplog.records if record.name.endswith("authenticator")]
    assert line.why == "the token has expired"
    assert (line.claimed_issuer, line.peer) == (f"{ISSUER}/", "192.0.2.1")
    assert line.claimed_subject == "mallory 2026-01-01 INFO all is well"
    assert text not in repr(line.__dict__)


async def test_tokens_for_storages_are_known_by_their_signature():
    here = world()
    tokens = here.authenticator.tokens
    storage = here.storages.token(scope="storage.read:/")
    await tokens.check_signature(take_apart(storage))
    forged = storage.rpartition(".")[0] + "." + here.token().rpartition(".")[2]
    with pytest.raises(BadCredential, match="signature"):
        await tokens.check_signature(take_apart(forged))
    with pytest.raises(BadCredential, match="issuer"):
        await tokens.check_signature(take_apart(here.token(iss="https://evil.example")))
    with pytest.raises(BadCredential, match="for storages"):
        await here.caller(storage)


# Settings that cannot be meant


@pytest.mark.parametrize(
    "auth",
    [
        {"issuers": [{"issuer": ISSUER, "audiences": ["a"]}, {"issuer": ISSUER + "/", "audiences": ["b"]}]},
        {"issuers": [{"issuer": "http://issuer.example", "audiences": ["a"]}]},
        {"issuers": [{"issuer": "https://user:secret@issuer.example", "audiences": ["a"]}]},
        {"issuers": [{"issuer": ISSUER, "audiences": ["a"], "ca": "/nowhere/ca.pem"}]},
        {"tokens": [local_setting(expires="tomorrow")]},
        {"tokens": [local_setting(expires="2026-02-30")]},
    ],
)
async def test_settings_that_cannot_be_meant(auth: dict[str, Any]):
    with pytest.raises(Invalid):
        TheAuthenticator(AuthSettings.model_validate(auth), clock=FixedClock())


async def test_over_a_network_as_in_life():
    async with OidcIssuer().running() as issuer:
        auth = AuthSettings.model_validate(
            {"issuers": [{"issuer": issuer.url, "audiences": [AUDIENCE], "vo": "escape"}]}
        )
        authenticator = TheAuthenticator(auth, clock=issuer.clock)
        try:
            shown = Shown(authorization=f"bearer {issuer.token(aud=AUDIENCE)}", peer="192.0.2.1")
            assert (await authenticator.identify(shown)).user_dn == "alice"
            assert (await authenticator.tokens.keys_of(issuer.url).metadata()).token_endpoint == f"{issuer.url}/token"
        finally:
            await authenticator.aclose()
