"""Settings: file, environment, flags, in this order; and no key is silently ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from transfer_engine import config
from transfer_engine.config_service import Issuer, LocalToken
from transfer_engine.errors import Invalid
from transfer_engine.limits import LimitTable
from transfer_engine.places import Link


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "engine.toml"


def test_without_anything_the_defaults_hold() -> None:
    assert config.load() == config.Settings()


def test_the_last_one_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("database = 'sqlite:///file.db'\n[limits]\nlink = 1\nnode = 1\nendpoint_inbound = 1\n")
    monkeypatch.setenv("TRANSFER_ENGINE_LIMITS__NODE", "2")
    monkeypatch.setenv("TRANSFER_ENGINE_LIMITS__ENDPOINT_INBOUND", "2")
    settings = config.load(file, {"limits": {"endpoint_inbound": 3}})
    assert (settings.limits.link, settings.limits.node, settings.limits.endpoint_inbound) == (1, 2, 3)
    assert settings.limits.endpoint_outbound == 60
    assert settings.database == "sqlite:///file.db"
    assert config.load(file, {"database": "sqlite://"}).database == "sqlite://"


def test_the_environment_reaches_every_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_ENGINE_SERVICE__PORT", "9000")
    monkeypatch.setenv("TRANSFER_ENGINE_DATABASE", "sqlite:///env.db")
    monkeypatch.setenv("TRANSFER_ENGINE_SHARES__VOS", '{"cms": 2}')
    settings = config.load()
    assert (settings.service.port, settings.database, settings.shares.vos) == (9000, "sqlite:///env.db", {"cms": 2})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("databse = 'x'", "databse"),
        ("[limits]\nlnk = 3", "limits.lnk"),
        ("[limts]\nlink = 3", "limts"),
        ("[limits.endpoints.'https://a']\ninbuond = 3", "limits.endpoints.https://a.inbuond"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_it(file: Path, text: str, key: str) -> None:
    file.write_text(text)
    with pytest.raises(Invalid, match=f"{key}: unknown key") as caught:
        config.load(file)
    assert caught.value.field == str(file)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[limits]\nlink = -1", "limits.link"),
        ("[limits]\nlink = 'many'", "limits.link"),
        ("[transfer]\nmodes = ['pigeon']", "transfer.modes"),
        ("[service]\nport = 70000", "service.port"),
        ("[shares.vos]\ncms = 0", "shares.vos.cms"),
        ("limits = 3", "limits"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_it(file: Path, text: str, key: str) -> None:
    file.write_text(text)
    with pytest.raises(Invalid, match=key):
        config.load(file)


@pytest.mark.parametrize("content", [b"limits = [", b"\xff\xfe"])
def test_a_file_that_is_not_toml(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(Invalid, match="TOML"):
        config.load(file)


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        config.load(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRANSFER_ENGINE_SERVICE__PROT", "1"),
        ("TRANSFER_ENGINE_SERVICE__PORT", "many"),
        ("TRANSFER_ENGINE_LIMITS", "not json"),
        ("TRANSFER_ENGINE_SHARES__VOS", "{"),
        ("TRANSFER_ENGINE_DATABSE", "sqlite://"),
    ],
)
def test_an_environment_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Invalid):
        config.load()


@pytest.mark.parametrize(
    "flags",
    [{"limts": {"link": 3}}, {"limits": {"lnk": 3}}, {"limits": {"link": -3}}, {"database": 5}, {"limits": 3}],
)
def test_flags_are_checked_like_the_rest(flags: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        config.load(None, flags)


def test_settings_cannot_be_changed() -> None:
    settings = config.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.database = "x"
    with pytest.raises(ValueError, match="frozen"):
        settings.limits.link = 3


def test_limits_are_looked_up_in_any_spelling(file: Path) -> None:
    file.write_text(
        "[limits]\nlink = 5\n[limits.endpoints.'HTTPS://A.org']\ninbound = 0\n"
        "[[limits.links]]\nsource = 'https://B.org'\ndestination = 'https://A.org'\nactive = 2\n"
    )
    table = LimitTable.of(config.load(file).limits)
    assert (table.of_inbound("https://a.org"), table.of_outbound("https://a.org")) == (0, 60)
    assert table.of_link(Link("https://b.org", "https://a.org")) == 2
    assert table.of_link(Link("https://a.org", "https://b.org")) == 5


def test_a_local_token_is_not_named_like_a_certificate():
    with pytest.raises(ValidationError):
        LocalToken(name="/DC=ch/CN=alice", sha256="0" * 64)


def test_an_issuer_says_for_whom_its_tokens_are(file: Path) -> None:
    assert Issuer(issuer="https://iam.example", storage_only=True).audiences == ()
    file.write_text('[[auth.issuers]]\nissuer = "https://iam.example"\n')
    with pytest.raises(Invalid) as caught:
        config.load(file)
    assert "audiences is missing" in str(caught.value)
    assert "Value error" not in str(caught.value)
