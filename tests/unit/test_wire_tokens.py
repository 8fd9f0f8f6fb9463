"""Tokens of files in a submission: FTS3's checks and words, and what is checked beyond them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from protocols.credentials import Secret
from transfer_engine.callers import CERTIFICATE, LOOPBACK, TOKEN, Caller
from transfer_engine.config_service import Issuer
from transfer_engine.errors import IssuerUnavailable
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.jwt import Unverified
from transfer_engine.model import JobRequest
from transfer_engine.service.tokens import StorageTokens
from transfer_engine.service.wire.submission import parse_submission
from transfer_engine.service.wire.tokens import TokenRules
from transfer_engine.service.wire.words import Refused

NOW = 1_700_000_000.0
ISSUER = "https://iam.example/"
RULES = TokenRules((Issuer(issuer="https://iam.example", audiences=("fts",)),), NOW)
VALUE = "Invalid value within the request: "


def caller(method: str = LOOPBACK, **more: Any) -> Caller:
    return Caller(user_dn="me", vos=("dteam",), delegation_id="0123456789abcdef", method=method, **more)


def jwt(**changes: Any) -> str:
    """A token that nobody signed."""
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "sub": "rucio",
        "aud": "storage",
        "nbf": NOW,
        "exp": NOW + 3600,
        "scope": "storage.read:/data offline_access",
    } | changes
    body = {name: value for name, value in claims.items() if value != "absent"}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "kid": "k"}, body)] + [b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def parse(who: Caller | None = None, *, n_sources: int = 1, params: Any = None, **file: Any) -> JobRequest:
    document = {
        "files": [
            {
                "sources": [f"https://s{n}.example/data/f" for n in range(n_sources)],
                "destinations": ["https://d.example/data/f"],
                **file,
            }
        ],
        "params": params or {},
    }
    body = json.dumps(document).encode()
    return parse_submission(body, caller=who or caller(), now=NOW, files_max=10, rules=RULES)


def refused(**more: Any) -> str:
    with pytest.raises(Refused) as caught:
        parse(**more)
    return caught.value.message


def both(token: str) -> dict[str, Any]:
    return {"source_tokens": [token], "destination_tokens": [jwt()]}


def test_each_source_has_its_own_token_and_the_destination_one() -> None:
    tokens = [jwt(jti=str(n)) for n in range(3)]
    (transfer,) = parse(n_sources=2, source_tokens=tokens[:2], destination_tokens=tokens[2:]).transfers
    assert transfer.source_tokens == (Secret(tokens[0]), Secret(tokens[1]))
    assert transfer.destination_token == Secret(tokens[2])
    assert not any(token in repr(transfer) for token in tokens)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"source_tokens": ["a"]}, "Both source_tokens and destination_tokens are required if one of them is present."),
        (
            {"destination_tokens": ["a"]},
            "Both source_tokens and destination_tokens are required if one of them is present.",
        ),
        (
            {"source_tokens": ["a", "b"], "destination_tokens": ["c"]},
            "Length of source_tokens should be equal to the length of sources.",
        ),
        (
            {"source_tokens": ["a"], "destination_tokens": ["c", "d"]},
            "Length of destination_tokens should be equal to the length of destinations.",
        ),
        (both(jwt(iss="absent")), "Token does not contain an iss claim"),
        (both(jwt(nbf="absent")), "Token does not contain an nbf claim"),
        (both(jwt(exp="absent")), "Token does not contain an exp claim"),
        (both(jwt(scope="absent")), "Token does not contain a scope claim"),
        (both(jwt(aud="absent")), "Token does not contain an aud claim"),
        (both(jwt(iss=None)), "Token does not contain an iss claim"),
        (
            both(jwt(iss="https://other.example")),
            "FTS access-token has unknown issuer: issuer=https://other.example/",
        ),
        (
            both(jwt(iss="https://other.example/\n\x1b[2J")),
            "FTS access-token has unknown issuer: issuer=https://other.example/ [2J/",
        ),
    ],
)
def test_what_fts_refuses_is_refused_in_its_words(file: dict[str, Any], said: str) -> None:
    assert refused(**file) == said


@pytest.mark.parametrize("aud", [None, "storage", ["a", "b"], []])
@pytest.mark.parametrize("scope", ["", "wlcg.capabilityset:/dteam", "storage.read:/ storage.modify:/", "fts"])
def test_audiences_and_scopes_refuse_nothing(aud: Any, scope: str) -> None:
    assert parse(**both(jwt(aud=aud, scope=scope))).transfers[0].source_tokens


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("no token", "files[0].source_tokens[0]: the token is not a signed JWT: expected three parts"),
        ("a.b.c", "files[0].source_tokens[0]: the token is not base64url"),
        ("x" * 16_385, "files[0].source_tokens[0]: a token has at most 16384 characters, got 16385"),
        (jwt(exp=NOW), "files[0].source_tokens[0]: the token has expired at 2023-11-14T22:13:20"),
        (jwt(exp=1e12), "files[0].source_tokens[0]: expected the token's exp to be an instant"),
        (jwt(exp="soon"), "files[0].source_tokens[0]: expected the token's exp to be an instant"),
        (jwt(nbf=True), "files[0].source_tokens[0]: expected the token's nbf to be an instant"),
        (jwt(iss=["https://iam.example"]), "files[0].source_tokens[0]: expected the token's iss to be a URL"),
        (jwt(aud=7), "files[0].source_tokens[0]: expected the token's aud to be a name or a list of names"),
        (
            jwt(scope={"a": 1}),
            "files[0].source_tokens[0]: expected the token's scope to be words with blanks between them",
        ),
    ],
)
def test_what_fts_does_not_look_at_is_refused_too(token: str, said: str) -> None:
    message = refused(**both(token))
    assert message == VALUE + said
    assert token not in message or len(token) < 10


def test_a_bearer_with_rights_at_storages_is_used_for_both() -> None:
    secret = Secret(jwt())
    who = caller(TOKEN, token=secret, voms_cred=("fts", "storage.read:/data"))
    (transfer,) = parse(who, n_sources=2).transfers
    assert transfer.source_tokens == (secret, secret)
    assert transfer.destination_token == secret


def test_a_bearer_for_this_service_alone_is_shown_to_no_storage() -> None:
    request = parse(caller(TOKEN, token=Secret(jwt()), voms_cred=("fts", "offline_access")))
    assert request.transfers[0].source_tokens == ()
    assert request.transfers[0].destination_token is None
    assert not request.options.own_credential


@pytest.mark.parametrize(("method", "own"), [(CERTIFICATE, True), (LOOPBACK, False), (TOKEN, False)])
def test_a_job_of_a_certificate_never_uses_the_services_own_credential(method: str, own: bool) -> None:
    assert parse(caller(method)).options.own_credential is own


def test_tokens_may_be_left_unmanaged() -> None:
    assert parse(params={"unmanaged_tokens": True}, **both(jwt())).unmanaged_tokens
    assert not parse(**both(jwt())).unmanaged_tokens


def test_tokens_and_an_archive_do_not_go_together() -> None:
    said = "Requests to archive to tape using token authentication are not supported"
    assert refused(params={"archive_timeout": 60}, **both(jwt())) == said
    assert refused(who=caller(TOKEN), params={"archive_timeout": 60}) == said


class _Keys:
    """Knows who signed what, by the token's subject."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def check_signature(self, token: Unverified) -> None:
        subject = str(token.claims["sub"])
        self.asked.append(subject)
        if subject == "forged":
            raise BadCredential("the token's signature is wrong")
        if subject == "away":
            raise IssuerUnavailable("the keys cannot be had now", retry_after_s=10)


@pytest.mark.asyncio
async def test_a_forged_token_is_refused_before_anything_is_done_with_it() -> None:
    keys = _Keys()
    tokens = StorageTokens(RULES.issuers, keys)
    await tokens.verify(parse(**both(jwt())))
    with pytest.raises(Refused, match="a token is not good: the token's signature is wrong"):
        await tokens.verify(parse(**both(jwt(sub="forged"))))
    assert keys.asked == ["rucio", "forged"]


@pytest.mark.asyncio
async def test_an_issuer_that_is_away_loses_nobody_a_job() -> None:
    keys = _Keys()
    request = parse(**both(jwt(sub="away")))
    await StorageTokens(RULES.issuers, keys).verify(request)
    assert keys.asked == ["away"], "it is not asked for each token"
    await StorageTokens(RULES.issuers, None).verify(request)
