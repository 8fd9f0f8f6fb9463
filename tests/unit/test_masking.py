"""Secrets are cut out of what others wrote: exactly those that are known, and what looks like one."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.credentials import Credential, Secret
from protocols.errors import Denied
from protocols.masking import MASK, masking, secrets_of, shapeless, without

SECRET = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=20, max_size=200)
WORDS = st.text(alphabet="abc XYZ\n:,.", max_size=60)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "url": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "json": lambda text: json.dumps(text)[1:-1],
    "html": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of more": lambda text: base64.b64encode(f"id:{text}".encode()).decode(),
    "base64 of still more": lambda text: base64.b64encode(f"ids:{text}!".encode()).decode(),
}
KEY = "-----BEGIN RSA PRIVATE KEY-----\nCANARY1\nCANARY2=\n-----END RSA PRIVATE KEY-----\n"


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(secret=SECRET, before=WORDS, after=WORDS)
def test_a_known_secret_is_cut_out_however_it_is_written(spelling: str, secret: str, before: str, after: str) -> None:
    spelt = SPELLINGS[spelling](secret)
    shown = without(f"{before} {spelt} {after}", [secret])
    assert spelt[8:24] not in shown
    assert MASK in shown


@given(secret=SECRET, start=st.integers(0, 200), size=st.integers(16, 200))
def test_a_part_of_it_is_cut_out_too(secret: str, start: int, size: int) -> None:
    part = secret[start % (len(secret) - 15) :][:size]
    assert part[:16] not in without(f"quoted: {part}", [secret])


@given(text=WORDS, secret=SECRET)
def test_the_rest_stays(text: str, secret: str) -> None:
    assert without(text, [secret]) == text


def test_two_quotes_of_it_and_what_is_between() -> None:
    secret = "0123456789abcdefghijklmnop"
    assert without(f"a {secret} b {secret[:18]}{secret} c", [secret]) == "a *** b *** c"
    assert without("passwd s3cret!", ["s3cret", "abc", ""]) == "passwd ***!"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY[:50],
        f"cannot read it:\n{KEY}that was it",
        "Authorization: Bearer CANARY",
        "{'Authorization': 'Basic CANARY'}",
        "transferheaderauthorization: CANARY",
        "https://h/p?authz=Bearer%20CANARY&x=1",
        "https://h/p?X-Amz-Credential=CANARY&X-Amz-Signature=CANARY",
        "https://h/p?x-goog-signature=CANARY",
        "grant_type=refresh_token&refresh_token=CANARY&client_secret=CANARY",
        '{"access_token": "CANARY", "macaroon":"CANARY"}',
        json.dumps('{"access_token": "CANARY", "macaroon":"CANARY"}'),
        "bearer CANARYCANARY is not good",
        "Basic dXNlcjpDQU5BUlk= Bearer fooCANARY",
        "it was eyJCANARY123.eyJzdWIi.CANARY",
        "it was te_CANARY0123456789012345678901234567890123456789",
        "it was MDAyMWxvY2F0aW9uCANARY",
        "https://somebody:CANARY@host/path",
        "login:x passcode=CANARY",
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text: str) -> None:
    assert "CANARY" not in shapeless(text)
    assert shapeless(shapeless(text)) == shapeless(text)


@pytest.mark.parametrize(
    "text",
    [
        "HEAD https://s.example:1094/store/token/f.root: HTTP 404",
        "the token has expired at 2026-11-25T12:00:00",
        "not authorized: the signature is wrong",
        "expected a bearer token in the Authorization header",
        "expected a bearer token of 1 to 16384 characters; Basic authentication is not done",
        "Bearer Tokens. They end",
        "keys of a token issuer not had issuer=https://iam.example/ why=it answers with 503",
        "Unable to open /eos/site/data; permission denied",
    ],
)
def test_sentences_stay_as_they_are(text: str) -> None:
    assert shapeless(text) == text


@pytest.mark.parametrize(
    "text", ["://" * 5000, "eyJ" * 5000, "basic " * 3000, "-----BEGIN PRIVATE KEY-----" * 700, "="]
)
def test_looking_takes_no_time(text: str) -> None:
    assert len(shapeless(text)) <= len(text) + 10


def test_failures_do_not_say_what_was_shown() -> None:
    token = "a-token-without-any-known-shape"
    url = "https://h/p?authz=Bearer%20of-the-url-itself&plain=of-no-importance-here"
    text = f"{token} and of-the-url-itself and of-no-importance-here"
    with pytest.raises(Denied) as caught, masking([Credential(token=Secret(token))], [url]):
        raise Denied(text, hint=text)
    shown = f"{caught.value!r} {caught.value} {caught.value.message} {caught.value.hint}"
    assert token not in shown
    assert "of-the-url-itself" not in shown
    assert "of-no-importance-here" in shown
    assert secrets_of("https://h/p?a=b") == secrets_of("no url") == secrets_of("https://[h") == []
