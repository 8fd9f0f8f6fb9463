"""Hostile tokens: each is refused, at once, and nothing of it is told to anybody."""

from __future__ import annotations

import asyncio
import logging
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.credentials import Secret
from tests.issuer import ec_key, signed
from tests.unit.hostile_tokens import KINDS
from tests.unit.identity_world import AUDIENCE, ISSUER, NOW, World
from transfer_engine.identity.api import BadCredential, Shown

CANARY = "c4n4ry-c4n4ry-c4n4ry"


def told(records: list[logging.LogRecord]) -> str:
    """All that the log has, with what only some formatters would print."""
    return "\n".join(f"{record.getMessage()} {record.__dict__!r} {record.exc_text}" for record in records)


def pieces(token: str) -> list[str]:
    """What would betray a token: each of its parts, from the middle too."""
    return [part[at : at + 24] for part in token.split(".") for at in range(0, min(len(part), 2000), 24) if part[at:]]


def test_there_are_many_kinds():
    assert len(KINDS) >= 200


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_refused_and_nothing_of_it_is_told(kind: str, caplog: pytest.LogCaptureFixture):
    world = World()
    made = world.issuer.claims

    def with_canary(*arguments, **changes):
        return {"jti": CANARY, **made(*arguments, **{"jti": CANARY, **changes})}

    world.issuer.claims = with_canary  # type: ignore[method-assign]
    token = KINDS[kind](world)
    started = time.perf_counter()
    with caplog.at_level(logging.DEBUG), pytest.raises(BadCredential) as refused:
        await world.caller(token)
    assert time.perf_counter() - started < 1.0
    assert refused.value.status == 403
    message = str(refused.value)
    assert message.startswith("Invalid credentials (")
    assert len(message) < 300
    assert message.isprintable()
    written = told(caplog.records)
    assert [record.getMessage() for record in caplog.records if record.name.endswith("authenticator")] == [
        "credential refused"
    ]
    assert CANARY not in written + message
    assert [piece for piece in pieces(token) if len(piece) >= 12 and piece in written + message] == []
    line = next(record for record in caplog.records if record.getMessage() == "credential refused")
    for name in ("why", "peer", "claimed_issuer", "claimed_subject"):
        assert getattr(line, name).isprintable()
        assert len(getattr(line, name)) <= 300


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "kind", ["form: a megabyte", "form: a megabyte of dots", "a hundred thousand scopes", "claims: deep lists"]
)
async def test_a_large_one_takes_no_memory(kind: str):
    world = World()
    token = KINDS[kind](world)
    tracemalloc.start()
    with pytest.raises(BadCredential):
        await world.caller(token)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The header, one copy of it without its scheme, and what reading 16 KiB of JSON takes.
    assert peak < 3 * len(token) + 4 * 1024 * 1024


HEADERS = [
    "", "Bearer", "Bearer ", "Basic YWxpY2U6c2VjcmV0", "Digest username=alice", "bearer", "Token x", "Bearer\tx.y.z",
    "Negotiate x", "Bearer te_", "Bearer te_" + "A" * 49, "Bearer " + "A" * 43, "Bearer \u00e9",
    "Bearer " + "a" * 20_000, "Macaroon x",
]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("header", HEADERS)
async def test_other_headers_are_refused(header: str, caplog: pytest.LogCaptureFixture):
    with pytest.raises(BadCredential) as refused:
        await World().authenticator.identify(Shown(authorization=header, peer="127.0.0.1"))
    assert refused.value.status == 403
    shown = header.partition(" ")[2]
    assert len(shown) < 6 or shown not in told(caplog.records) + str(refused.value)


GOOD: list[dict[str, object]] = [
    {},
    {"iss": ISSUER},
    {"iss": ISSUER + "/"},
    {"aud": [AUDIENCE]},
    {"aud": ["https://other.example", AUDIENCE]},
    {"exp": NOW - 59, "iat": NOW - 1000, "nbf": NOW - 1000},
    {"exp": int(NOW) - 59, "iat": None, "nbf": None},
    {"exp": NOW + 3600.5},
    {"nbf": int(NOW) + 59},
    {"iat": int(NOW) + 59},
    {"nbf": None},
    {"iat": None},
    {"scope": ""},
    {"scope": None},
    {"scope": "openid offline_access storage.read:/ storage.modify:/escape"},
    {"wlcg.ver": None},
    {"wlcg.ver": "1.2"},
    {"wlcg.groups": ["/escape", "/escape/prod"]},
    {"wlcg.groups": []},
    {"sub": "x" * 255},
    {"sub": "Älice Müller"},
    {"nested": {"a": [{"b": [1]}]}},
]


@pytest.mark.asyncio
@pytest.mark.parametrize("changes", GOOD, ids=str)
async def test_good_ones_are_believed(changes: dict[str, object]):
    world = World()
    text = world.token(**changes)
    caller = await world.caller(text)
    assert (caller.method, caller.vos, caller.issuer) == ("oauth2", ("escape",), ISSUER + "/")
    assert caller.user_dn == changes.get("sub", "alice")
    assert caller.token == Secret(text)
    assert text not in repr(caller)


@pytest.mark.asyncio
@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
async def test_types_of_access_tokens(typ: str):
    world = World()
    header = {"kid": "rsa1", "alg": "RS256", "typ": typ, "x5t": "abc"}
    assert (await world.caller(signed(header, world.claims(), world.issuer.keys[0], "RS256"))).known


@pytest.mark.asyncio
@pytest.mark.parametrize(("curve", "algorithm"), [("P-256", "ES256"), ("P-384", "ES384"), ("P-521", "ES512")])
async def test_elliptic_curves(curve: str, algorithm: str):
    world = World()
    key = ec_key(curve)
    world.issuer.keys = [key]
    token = signed({"kid": key.kid, "alg": algorithm}, world.claims(), key, algorithm)
    assert (await world.caller(token)).user_dn == "alice"


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256"])
async def test_rsa_signatures(algorithm: str):
    world = World()
    token = signed({"kid": "rsa1", "alg": algorithm}, world.claims(), world.issuer.keys[0], algorithm)
    assert (await world.caller(token)).user_dn == "alice"


@pytest.mark.asyncio
async def test_without_a_key_id_when_there_is_one_key():
    world = World()
    assert (await world.caller(signed({"alg": "RS256"}, world.claims(), world.issuer.keys[0], "RS256"))).known


async def outcome(token: str) -> str:
    """Who is believed, or nobody."""
    try:
        return (await World().caller(token)).user_dn
    except BadCredential:
        return ""


@settings(max_examples=40)
@given(
    st.one_of(st.text(max_size=300), st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{0,40}"))
)
def test_no_text_opens_or_breaks_it(text: str):
    assert asyncio.run(outcome(text)) == ""


@settings(max_examples=40)
@given(st.data())
def test_no_change_of_a_good_one_is_believed(data: st.DataObject):
    token = World().token()
    at = data.draw(st.integers(0, len(token) - 1))
    cut = data.draw(st.integers(0, 3))
    put = data.draw(st.text("ABCXYZabcxyz0189-_.=+/ ", max_size=3))
    changed = token[:at] + put + token[at + cut :]
    # Blanks around a token are the header's, not the token's.
    if changed.strip(" ") != token:
        assert asyncio.run(outcome(changed)) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CLAIMS = st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "scope", "wlcg.ver", "wlcg.groups", "jti"])


@settings(max_examples=40)
@given(st.dictionaries(CLAIMS, JSON, max_size=4))
def test_no_claims_break_it(changes: dict[str, object]):
    world = World()
    text = signed({"kid": "rsa1", "alg": "RS256"}, {**world.claims(), **changes}, world.issuer.keys[0], "RS256")
    assert asyncio.run(outcome(text)) in ["", changes.get("sub", "alice")]


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), JSON, max_size=4))
def test_no_header_breaks_it(changes: dict[str, object]):
    world = World()
    text = signed({"kid": "rsa1", "alg": "RS256", **changes}, world.claims(), world.issuer.keys[0], "RS256")
    assert asyncio.run(outcome(text)) in {"", "alice"}
