"""A service over https that believes certificates, proxies, tokens of an issuer, and a token of its own."""

from __future__ import annotations

import hashlib
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from protocols.credentials import Secret
from tests.clients.site import CONFIG, Site
from tests.clients.venv import Worker
from tests.grid import Grid, Identity
from tests.grid_voms import Voms
from tests.issuer import OidcIssuer
from tests.storages.process import free_port
from tests.system.processes import ServiceProcess, model_storages
from transfer_engine.identity import local_tokens

AUDIENCE = "https://fts.example:8446"
VO = "escape"
SETTINGS = """
[service.tls]
certificate = "{host.certificate}"
key = "{host.key_file}"
client_ca = "{grid.bundle}"
vomsdir = "{grid.vomsdir}"
[auth]
loopback = "refuse"
[auth.gridmap]
"{alice.dn}" = "{vo}"
"{operator.dn}" = "{vo}"
[[auth.issuers]]
issuer = "{issuer}"
audiences = ["{audience}"]
vo = "{vo}"
[[auth.tokens]]
name = "script"
sha256 = "{digest}"
vo = "{vo}"
[[auth.roles]]
role = "operator"
dn = "{operator.dn}"
[[auth.roles]]
role = "vo-monitor"
issuer = "{issuer}"
subject = "robot"
"""


@dataclass(kw_only=True)
class SecureSite(Site):
    """What there is over http, and those who may come in."""

    grid: Grid
    issuer: OidcIssuer
    alice: Identity
    """A user by certificate."""
    operator: Identity
    local_token: Secret
    proxy: Identity
    """Of alice, with attributes of the VO."""

    def token(self, subject: str = "alice", **changes: Any) -> str:
        """Of the issuer, for this service; `robot` sees all jobs of the VO."""
        return self.issuer.token(subject, **{"aud": AUDIENCE, "scope": "fts", **changes})

    def options(self, way: str) -> dict[str, Any]:
        """Arguments of the library's `Context` for one of the ways to come in."""
        trust = {"capath": str(self.grid.cert_dir)}
        match way:
            case "certificate":
                return {**trust, "ucert": str(self.alice.certificate), "ukey": str(self.alice.key_file)}
            case "operator":
                return {**trust, "ucert": str(self.operator.certificate), "ukey": str(self.operator.key_file)}
            case "proxy":
                return {**trust, "ucert": str(self.proxy.file)}
            case "token":
                return {**trust, "fts_access_token": self.token()}
            case "local token":
                return {**trust, "fts_access_token": self.local_token.reveal()}
        raise AssertionError(way)

    def flags(self, way: str) -> list[str]:
        """The same as options of the tools."""
        names = {"capath": "--capath", "ucert": "--cert", "ukey": "--key", "fts_access_token": "--fts-access-token"}
        return [text for key, value in self.options(way).items() for text in (names[key], value)]

    async def connect(self, way: str) -> str:
        """A context of that name, for who comes in this way."""
        await self.library.call("connect", self.endpoint, name=way, **self.options(way))
        return way


@asynccontextmanager
async def running_secure_site(directory: Path) -> AsyncIterator[SecureSite]:
    """Everything over https, ended with the block."""
    grid = Grid(directory / "grid")
    alice, operator, host = grid.user("alice"), grid.user("operator"), grid.host("localhost")
    proxy = Voms(grid, vo=VO).proxy(alice, f"/{VO}", f"/{VO}/prod/Role=production")
    token = local_tokens.make(secrets.token_bytes(32))
    (home := directory / "home").mkdir()
    async with OidcIssuer().running() as issuer:
        settings = SETTINGS.format(
            host=host, grid=grid, alice=alice, operator=operator, vo=VO, issuer=issuer.url, audience=AUDIENCE,
            digest=hashlib.sha256(token.reveal().encode()).hexdigest(),
        )  # fmt: skip
        (directory / "service.toml").write_text(CONFIG.replace('[auth]\nloopback = "admin"\n', "") + settings, "utf-8")
        service = ServiceProcess(
            directory / "queue.sqlite", directory / "service.toml", free_port(set()), ca=grid.bundle
        )
        trust = ssl.create_default_context(cafile=grid.bundle)
        trust.load_cert_chain(operator.certificate, operator.key_file)
        async with (
            model_storages("--kinds", "xrootd,dcache", "--count", "3", "--files", "2x10k") as storages,
            service,
            Worker("fts3_library", home) as library,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as http,
        ):
            await service.start()
            yield SecureSite(
                service, storages, library, http, home, service.url,
                grid=grid, issuer=issuer, alice=alice, operator=operator, local_token=token, proxy=proxy,
            )  # fmt: skip
