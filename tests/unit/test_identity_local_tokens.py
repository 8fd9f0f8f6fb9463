"""Tokens that the service gives out itself, and the command that makes them; refusals counted in bounded memory."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from protocols.credentials import Secret
from transfer_engine.cli.main import app
from transfer_engine.config_service import AuthSettings, LocalToken
from transfer_engine.errors import Invalid
from transfer_engine.identity.api import BadCredential, TooMany
from transfer_engine.identity.failures import ADDRESSES_MAX, GOOD_MAX, WINDOW_S, Failures, place_of
from transfer_engine.identity.local_tokens import LocalTokens, digest, end_of, make

NOW = 1_700_000_000.0
CHANCE = hashlib.sha256(b"chance").digest()


def setting(token: Secret, **changes: object) -> LocalToken:
    return LocalToken.model_validate({"name": "robot", "sha256": digest(token), **changes})


def test_its_form():
    text = make(CHANCE).reveal()
    assert re.fullmatch(r"te_[A-Za-z0-9_-]{49}", text)
    assert base64.urlsafe_b64decode(text[3:46] + "=") == CHANCE
    assert digest(make(CHANCE)) == hashlib.sha256(text.encode()).hexdigest()


@given(st.binary(min_size=32, max_size=32))
def test_each_is_believed(chance: bytes):
    token = make(chance)
    assert LocalTokens([setting(token)]).user(token, NOW).setting.name == "robot"
    assert chance.hex() not in repr(token)


@given(st.integers(3, 51), st.sampled_from("AZaz09-_"))
def test_a_mistyped_one_is_told_from_a_wrong_one(at: int, letter: str):
    text = make(CHANCE).reveal()
    typed = text[:at] + letter + text[at + 1 :]
    if typed != text:
        with pytest.raises(BadCredential, match="mistyped"):
            LocalTokens([setting(make(CHANCE))]).user(Secret(typed), NOW)


@pytest.mark.parametrize(
    "change", ["", "te_", "te_" + "A" * 49, "te_" + "A" * 500, "xe_" + "A" * 49, "te_é", "te_\ud800"]
)
def test_what_is_none(change: str):
    with pytest.raises(BadCredential, match="mistyped"):
        LocalTokens([setting(make(CHANCE))]).user(Secret(change), NOW)


def test_one_that_is_not_known():
    with pytest.raises(BadCredential, match="not known") as refused:
        LocalTokens([setting(make(bytes(32)))]).user(make(CHANCE), NOW)
    assert make(CHANCE).reveal() not in str(refused.value)
    with pytest.raises(BadCredential):
        LocalTokens([]).user(make(CHANCE), NOW)


def test_the_last_day_counts():
    assert dt.datetime.fromtimestamp(end_of("2023-11-14"), dt.UTC).isoformat() == "2023-11-15T00:00:00+00:00"
    tokens = LocalTokens([setting(make(CHANCE), expires="2023-11-14")])
    assert tokens.user(make(CHANCE), NOW).expires_at == end_of("2023-11-14")
    with pytest.raises(BadCredential, match="expired"):
        tokens.user(make(CHANCE), end_of("2023-11-14"))


def test_one_that_is_there_twice_lives_as_long_as_either():
    tokens = LocalTokens([setting(make(CHANCE), expires="2020-01-01"), setting(make(CHANCE), name="other")])
    assert tokens.user(make(CHANCE), NOW).setting.name == "other"


@pytest.mark.parametrize("day", ["", "soon", "2026-13-01", "9999-12-31", "2026-01-01T00:00", "20260101", "2026-W01-1"])
def test_days_that_are_none(day: str):
    with pytest.raises(Invalid):
        end_of(day)


# The command


def create(*arguments: str):
    return CliRunner().invoke(app, ["token", "create", *arguments])


def test_the_command_shows_the_token_once_and_the_settings():
    result = create("--name", 'Rucio "prod"', "--vo", "escape", "--role", "vo-operator", "--days", "30")
    assert result.exit_code == 0
    token, *rest = result.stdout.splitlines()
    (found,) = AuthSettings.model_validate(tomllib.loads("\n".join(rest))["auth"]).tokens
    assert (found.name, found.vo, found.role) == ('Rucio "prod"', "escape", "vo-operator")
    assert found.expires is not None
    assert result.output.count(token) == 1
    assert LocalTokens([found]).user(Secret(token), NOW).setting == found


def test_it_makes_another_one_each_time():
    assert create("--name", "a").stdout != create("--name", "a").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--name", ""],
        ["--name", " a"],
        ["--name", "a\nb"],
        ["--name", "a", "--vo", ""],
        ["--name", "a", "--role", "root"],
        ["--name", "a", "--days", "0"],
        ["--name", "x" * 300],
    ],
)
def test_mistakes(arguments: list[str]):
    result = create(*arguments)
    assert result.exit_code != 0
    assert "te_" not in result.output


# Refusals


def test_windows_of_a_minute():
    failures = Failures(2)
    for at in (NOW, NOW + 50):
        failures.check("a", "x", at)
        failures.refused("a", at)
    with pytest.raises(TooMany) as many:
        failures.check("a", "x", NOW + 55)
    assert many.value.retry_after_s == 5
    failures.check("b", "x", NOW + 55)
    failures.check("a", "x", NOW + WINDOW_S)
    # A clock that was set back locks nobody out for long.
    failures.check("a", "x", NOW - 10)


def test_memory_is_bounded():
    failures = Failures(1)
    for number in range(ADDRESSES_MAX + 100):
        failures.refused(str(number), NOW)
    for number in range(GOOD_MAX + 100):
        failures.accepted(str(number))
    assert len(failures._counts) == ADDRESSES_MAX
    assert len(failures._good) == GOOD_MAX
    failures.check("0", "x", NOW)
    with pytest.raises(TooMany):
        failures.check(str(ADDRESSES_MAX), "x", NOW)


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        (None, "local"),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("what is this" * 100, ("what is this" * 100)[:64]),
    ],
)
def test_what_is_counted_together(peer: str | None, place: str):
    assert place_of(peer) == place
