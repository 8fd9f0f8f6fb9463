"""Whose credential a storage is shown: a user must not get at files with the rights of the service."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocols.api import ANONYMOUS, Credential
from protocols.credentials import Secret
from tests.unit.test_proxies import ORDER
from transfer_engine.callers import CERTIFICATE, LOCAL_TOKEN, LOOPBACK, TOKEN, Caller
from transfer_engine.config import TlsSettings
from transfer_engine.credentials.fixed import OneForAll
from transfer_engine.credentials.source import UserCredentials
from transfer_engine.model import JobOptions
from transfer_engine.service.tokens import StorageTokens
from transfer_engine.service.wire.submission import parse_submission
from transfer_engine.wiring import credential_source

NOW = 1_700_000_000.0
OWN = Credential(token=Secret("the service's own"))
FILE = {"sources": ["https://s.example/data/f"], "destinations": ["https://d.example/data/f"]}


def options(method: str, lent: Any = "local") -> JobOptions:
    """Of a job that comes without any token."""
    caller = Caller(user_dn="mallory", vos=("dteam",), delegation_id="0123456789abcdef", method=method)
    rules = StorageTokens(lent=lent).rules(NOW)
    body = json.dumps({"files": [FILE]}).encode()
    return parse_submission(body, caller=caller, now=NOW, files_max=10, rules=rules).options


async def shown(chosen: JobOptions) -> list[Credential]:
    keeper: Any = None  # nothing of the user's own is there to be asked for
    credentials = UserCredentials(own=OneForAll(lambda _: OWN), tokens=keeper, proxies=keeper)
    order = replace(ORDER, options=chosen)
    return [await credentials.source(order), await credentials.destination(order)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("lent", "method", "credential"),
    [
        ("local", TOKEN, ANONYMOUS),
        ("local", LOCAL_TOKEN, OWN),
        ("local", LOOPBACK, OWN),
        ("nobody", LOCAL_TOKEN, ANONYMOUS),
        ("nobody", LOOPBACK, ANONYMOUS),
        ("nobody", TOKEN, ANONYMOUS),
        ("all", TOKEN, OWN),
    ],
)
async def test_the_services_own_credential_is_lent_to_whom_the_settings_say(
    lent: str, method: str, credential: Credential
) -> None:
    assert await shown(options(method, lent)) == [credential, credential]


@pytest.mark.parametrize("lent", ["nobody", "local", "all"])
def test_certificate_users_are_never_lent_it(lent: str) -> None:
    assert options(CERTIFICATE, lent).own_credential


def test_without_settings_it_is_not_lent_to_bearers() -> None:
    caller = Caller(user_dn="mallory", vos=("dteam",), delegation_id="0123456789abcdef", method=TOKEN)
    body = json.dumps({"files": [FILE]}).encode()
    assert parse_submission(body, caller=caller, now=NOW, files_max=10).options.no_credential


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://storage.example/f", True),
        ("davs://A.GRID.example:1094/f", True),
        ("https://evil.example/f", False),
        ("https://storage.example.evil.example/f", False),
        ("https://evilgrid.example/f", False),
        ("https://grid.example/f", False),
        ("file:///storage.example/f", False),
    ],
)
def test_the_services_own_credential_goes_to_its_storages_only(url: str, found: bool, tmp_path: Path) -> None:
    certificate = tmp_path / "proxy.pem"
    tls = TlsSettings(discover=False, certificate=certificate, credential_hosts=("storage.example", ".Grid.example"))
    expected = Credential(certificate=certificate) if found else ANONYMOUS
    assert credential_source(tls)(url) == expected
    assert credential_source(tls.model_copy(update={"credential_hosts": ()}))(url) == Credential(
        certificate=certificate
    )
