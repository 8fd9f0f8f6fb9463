"""The search for canaries finds what was planted: a test that finds nothing proves something only then."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from tests.canaries.cage import FORMS, Cage
from tests.grid import key_pem, new_key
from tests.issuer import OidcIssuer, rsa_key

VALUES = {
    "word": "canary-0123456789abcdef",
    "odd": 'can"ary<&>\\ %20/+=?0123',
    "token": OidcIssuer(url="https://i.example", keys=[rsa_key()]).token("canary"),
    "key": key_pem(new_key("ec")).decode(),
}


def cage_of(value: str) -> Cage:
    cage = Cage()
    cage.keep("it", value)
    return cage


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_where_it_was_planted(value: str, form: str) -> None:
    cage = cage_of(value)
    assert cage.search("log", b"\0\xff nothing " * 100) == []
    for spelt in FORMS[form](value):
        (seen,) = cage.search("log", b"\xfe\0before " + spelt.encode() + b"\0after")
        assert (seen.name, seen.place) == ("it", "log")


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_it_is_found_inside_of_other_things(value: str) -> None:
    cage = cage_of(value)
    for prefix in ("", "a", "ab", "user:"):
        assert cage.search("log", base64.b64encode(f"{prefix}{value}:more".encode()))
    assert cage.search("log", json.dumps({"x": [{"y": f"Bearer {value}"}]}))
    assert cage.search("log", json.dumps(json.dumps({"x": value})))
    assert cage.search("log", f"https://h/p?authz={quote(f'Bearer {value}')}&x")


def test_a_part_of_a_token_or_key_is_enough() -> None:
    token = VALUES["token"]
    cage = cage_of(token)
    assert cage.search("log", token.rpartition(".")[2])
    assert cage.search("log", token[: len(token) // 2 + 100])
    assert cage.search("log", token.split(".")[1])
    assert cage.search("log", token[-30:])
    assert cage.search("log", token.split(".")[0]) == [], "how it is signed is no secret"
    key = VALUES["key"]
    assert cage_of(key).search("log", key.splitlines()[2])


def test_it_may_be_where_it_is_meant_to_be() -> None:
    cage = Cage()
    value = cage.lay("it", but=["answers"])
    assert cage.search("answers", value) == []
    assert [seen.name for seen in cage.search("log", value)] == ["it"]
    assert cage.lay("it") != value
    assert len(cage.known) == 2
    assert len(cage.search("log", " ".join(cage.known.values()))) == 2
