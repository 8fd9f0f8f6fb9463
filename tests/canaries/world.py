"""A service with every kind of secret in its hands, among other ends that repeat all they hear."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509

from protocols.credentials import Secret
from tests.canaries.cage import Cage
from tests.canaries.parrots import ParrotBroker, ParrotIssuer, ParrotStorage
from tests.grid import Grid, Identity, key_pem
from tests.grid_voms import Voms
from tests.unit.delegating import _Public
from transfer_engine.config_service import VaultSettings
from transfer_engine.identity import local_tokens
from transfer_engine.vault import Vault, about

AUDIENCE = "https://fts.example:8446"
FRONT = "127.0.0.2"
"""Where the reverse proxy of these tests connects from."""
SETTINGS = """
[service]
grace_s = 0.2
[service.tls]
certificate = "{host.certificate}"
key = "{host.key_file}"
client_ca = "{grid.bundle}"
vomsdir = "{grid.vomsdir}"
[service.reverse_proxy]
peers = ["{front}/32"]
[auth]
failures_per_min = 100000
[auth.gridmap]
"{alice.dn}" = "escape"
[[auth.issuers]]
issuer = "{issuer}"
audiences = ["{audience}"]
vo = "escape"
client_id = "engine"
client_secret = "{client_secret}"
[[auth.tokens]]
name = "script"
sha256 = "{digest}"
vo = "escape"
role = "admin"
[vault]
key_file = "{vault_key}"
[messages]
brokers = [{{host = "127.0.0.1", port = {broker}}}]
username = "fts"
password = "{broker_password}"
retry_max_s = 0.2
[tls]
ca = "{grid.bundle}"
token_file = "{token_file}"
discover = false
[retry]
delay_s = 0.05
retries_max = 1
[transfer]
quarantine_s = 0.1
modes = ["pull"]
storage_networks = ["127.0.0.0/8", "::1/128"]
[breaker]
failures = 1000
denied = 100000
[optimizer]
enabled = false
"""


@dataclass
class World:
    """Who and what there is, and every answer that the service has given."""

    directory: Path
    cage: Cage
    grid: Grid
    alice: Identity
    proxy: Identity
    issuer: ParrotIssuer
    storage: ParrotStorage
    broker: ParrotBroker
    local: Secret
    url: str = ""
    answers: list[bytes] = field(default_factory=list)
    n_asked: int = 0

    @property
    def database(self) -> Path:
        return self.directory / "queue.sqlite"

    @property
    def config(self) -> Path:
        return self.directory / "service.toml"

    def bearer(self, name: str = "bearer", subject: str = "bob", **changes: Any) -> str:
        """A token of the issuer, for this service."""
        return self.cage.keep(name, self.issuer.token(subject, **{"aud": AUDIENCE, "scope": "fts", **changes}))

    def storage_token(self, name: str, *, left_s: int = 3600, subject: str = "rucio") -> str:
        """A token for storages; with two minutes left, the service gets another one before it uses it."""
        now = int(self.issuer.clock.now())
        claims = {"iat": now + left_s - 3600, "nbf": now + left_s - 3600, "exp": now + left_s}
        scope = "storage.read:/ storage.modify:/ offline_access"
        return self.cage.keep(name, self.issuer.token(subject, scope=scope, aud=self.storage.url, **claims))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        by: Identity | None = None,
        front: bool = False,
        **body: Any,
    ) -> tuple[int, str]:
        """One request on a connection of its own, its answer kept."""
        trust = ssl.create_default_context(cafile=self.grid.bundle)
        if by is not None:
            trust.load_cert_chain(by.file)
        connector = aiohttp.TCPConnector(ssl=trust, local_addr=(FRONT, 0) if front else None, force_close=True)
        self.n_asked += 1
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.request(method, self.url + path, headers=headers, allow_redirects=False, **body) as answer,
        ):
            text = await answer.text()
            self.answers.append(f"{answer.status} {answer.reason} {dict(answer.headers)} {text}".encode())
            return answer.status, text

    async def submit(self, files: Iterable[Mapping[str, Any]], **how: Any) -> tuple[int, str]:
        """A submission as whoever `how` says."""
        params = {"overwrite": True, "retry": -1}
        return await self.ask("POST", "/jobs", json={"files": list(files), "params": params}, **how)

    def file(self, source: str, destination: str, **more: Any) -> dict[str, Any]:
        return {
            "sources": [self.storage.url + source],
            "destinations": [self.storage.url + destination],
            "checksum": "",
            **more,
        }

    def signed(self, request: str) -> bytes:
        """What alice sends for a request to delegate."""
        csr = x509.load_pem_x509_csr(request.encode())
        return self.grid.proxy(self.alice, key=_Public(csr.public_key())).pem_chain  # type: ignore[arg-type]

    def open_vault(self) -> None:
        """Learn the keys that the service has made: of the delegation under way, and of what is delegated."""
        vault = Vault.of(VaultSettings(key_file=self.directory / "vault.key"), f"sqlite:///{self.database}")
        with closing(sqlite3.connect(self.database)) as connection:
            for table, kind in (("delegations", "delegation"), ("credentials", "credential")):
                for name, sealed in connection.execute(f"SELECT delegation_id, sealed FROM {table}").fetchall():
                    pem = vault.open(sealed, about(kind, name)).decode()
                    begin = pem.index("PRIVATE KEY-----")
                    self.cage.keep(f"key in {table}", pem[begin : pem.index("-----END", begin)])


def _settings(world: World, host: Identity, client_secret: str) -> str:
    directory, cage = world.directory, world.cage
    (token_file := directory / "token").write_text(cage.lay("token of the service for storages") + "\n")
    vault_key = directory / "vault.key"
    vault_key.touch(mode=0o600)
    vault_key.write_text(cage.keep("vault key", secrets.token_hex(32)) + "\n")
    return SETTINGS.format(
        host=host, grid=world.grid, front=FRONT, alice=world.alice, issuer=world.issuer.url, audience=AUDIENCE,
        client_secret=client_secret, digest=hashlib.sha256(world.local.reveal().encode()).hexdigest(),
        vault_key=vault_key, broker=world.broker.port, broker_password=cage.lay("broker password"),
        token_file=token_file,
    )  # fmt: skip


@asynccontextmanager
async def running_world(directory: Path) -> AsyncIterator[World]:
    """Everything but the service, whose settings are written."""
    cage, grid = Cage(), Grid(directory / "grid")
    alice, host = grid.user("alice"), grid.host("localhost")
    proxy = Voms(grid, vo="escape").proxy(alice, "/escape")
    for name, identity in (("alice", alice), ("host", host), ("proxy", proxy)):
        cage.keep(f"key of {name}", key_pem(identity.key).decode())
    local = local_tokens.make(secrets.token_bytes(32))
    cage.keep("local token", local.reveal())
    client_secret = cage.lay("client secret")
    issuer = ParrotIssuer(clients={"engine": client_secret}, rotates=True)
    issuer.cage = cage
    async with (
        issuer.running(),
        ParrotStorage(cage).running(host, str(grid.bundle)) as storage,
        ParrotBroker().running() as broker,
    ):
        world = World(directory, cage, grid, alice, proxy, issuer, storage, broker, local)
        world.config.write_text(_settings(world, host, client_secret))
        yield world
