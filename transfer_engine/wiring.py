"""Settings → a running engine: the one place that names concrete classes."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

from protocols import credentials
from protocols.api import ANONYMOUS, Adapter, Capabilities, Credential
from protocols.file import FileAdapter
from protocols.http import HttpAdapter
from protocols.http.addresses import AddressPolicy, PublicOnly
from protocols.http.urls import listed
from protocols.mock import MockAdapter
from protocols.registry import Registry
from transfer_engine import urls
from transfer_engine.attempt import Tools
from transfer_engine.callers import CERTIFICATE, LOCAL_TOKEN, Grant
from transfer_engine.clock import Deps, SystemClock
from transfer_engine.config import Settings, TlsSettings
from transfer_engine.config_service import VaultSettings
from transfer_engine.credentials.api import Issuers
from transfer_engine.credentials.fixed import OneForAll
from transfer_engine.credentials.keeper import TokenKeeper
from transfer_engine.credentials.proxies import Proxies
from transfer_engine.credentials.source import UserCredentials
from transfer_engine.dispatcher import Rules
from transfer_engine.engine import Engine
from transfer_engine.errors import Invalid
from transfer_engine.health import Health
from transfer_engine.identity.authenticator import TheAuthenticator
from transfer_engine.identity.loopback import is_loopback
from transfer_engine.identity.token_endpoint import Clients
from transfer_engine.identity.x509.users import GridCertificates
from transfer_engine.limits import LimitTable
from transfer_engine.messages.broker import Courier
from transfer_engine.messages.documents import Author
from transfer_engine.messages.publisher import Publisher
from transfer_engine.messages.stomp import Stomp
from transfer_engine.optimizer import Optimizer
from transfer_engine.retry import RetryPolicy
from transfer_engine.service.app import Door
from transfer_engine.shares import ShareTable
from transfer_engine.store import memory
from transfer_engine.store.memory import MemoryStore
from transfer_engine.store.sqlite import SqliteStore
from transfer_engine.vault import Vault

TPC: Final = {
    "full": Capabilities(pull=True, push=True),
    "pull": Capabilities(pull=True, push=False),
    "push": Capabilities(pull=False, push=True),
    "none": Capabilities(pull=False, push=False),
}


class TransferEngine(Engine):
    """An engine on embedded defaults: SQLite in memory or in a file, HTTP storages, the user's own credentials."""

    def __init__(
        self,
        database: str | None = None,
        *,
        settings: Settings | None = None,
        adapters: Sequence[Adapter] | None = None,
        deps: Deps | None = None,
        inline: bool = False,
        issuers: Issuers | None = None,
        courier: Courier | None = None,
    ) -> None:
        """Nothing is opened before `async with`.

        Args:
            database: path of a SQLite file, `sqlite:///path`, `sqlite://` for one in memory, or `memory://` for
                no database at all; None: as in settings.
            settings: None: the environment's (`TRANSFER_ENGINE_…`) and defaults.
            adapters: who speaks to storages; None: HTTP/WebDAV.
            deps: clock, chance and ids; None: the real ones.
            inline: no threads: for an event loop with virtual time.
            issuers: who renews tokens; None: those of the settings at which this service is a client.
            courier: takes messages to the brokers of the settings; None: by STOMP.

        Raises: Invalid: a setting is out of range, or the database is of a kind that cannot be opened.
        """
        settings = settings or Settings()
        deps = deps or Deps()
        url = database_url(database or settings.database)
        store = store_of(url, deps, inline=inline)
        self.vault = _Once(partial(Vault.of, settings.vault, url))
        """Makes the one vault of this engine, when first called. Raises: Invalid: its key is not as it should be."""
        registry = Registry(adapters if adapters is not None else storages(settings))
        clients = issuers or clients_of(settings, deps)
        keeper = TokenKeeper(
            store=store,
            vault=self.vault,
            issuers=clients,
            now=deps.clock.now,
            margin_s=settings.transfer.token_margin_s,
        )
        tools = Tools(
            adapters=registry,
            credentials=UserCredentials(
                own=OneForAll(credential_source(settings.tls)),
                tokens=keeper,
                proxies=Proxies(store=store, vault=self.vault, now=deps.clock.now),
            ),
            settings=settings.transfer,
            clock=deps.clock,
            streams=asyncio.Semaphore(settings.limits.streamed),
        )
        rules = Rules(
            limits=LimitTable.of(settings.limits),
            shares=ShareTable.of(settings.shares),
            retry=RetryPolicy(settings.retry),
            health=Health(settings.breaker, deps.rng),
            optimizer=Optimizer(settings.optimizer),
            events_keep=settings.events.keep,
        )
        super().__init__(
            store=store,
            reader=store,
            tools=tools,
            rules=rules,
            deps=deps,
            schemes=registry.schemes,
            closing=[keeper, *([clients] if isinstance(clients, Clients) else []), registry],
            companions=publishers(settings, store, deps, courier or Stomp(settings.messages)),
            tokens=keeper,
            on_capabilities=partial(_tell, registry, told_capabilities(settings)),
            grace_s=settings.service.grace_s if database or settings.database != "sqlite://" else 0.0,
            threads=not inline,
        )


def store_of(url: str, deps: Deps, *, inline: bool) -> SqliteStore | MemoryStore:
    """The store that a URL names. Raises: Invalid: there is none."""
    if url.startswith(memory.URL):
        return MemoryStore.of(url, incarnation=deps.new_id(), now=deps.clock.now)
    return SqliteStore(url, incarnation=deps.new_id(), now=deps.clock.now, inline=inline)


def publishers(settings: Settings, store: SqliteStore | MemoryStore, deps: Deps, courier: Courier) -> list[Publisher]:
    """Who tells a broker what happens to transfers; empty: nobody does."""
    if not settings.messages.brokers:
        return []
    author = Author(
        endpoint=settings.service.alias or socket.getfqdn(),
        publish_dn=settings.messages.publish_dn,
        retries_max=settings.retry.retries_max,
    )
    return [Publisher(store=store, courier=courier, settings=settings.messages, author=author, deps=deps)]


def clients_of(settings: Settings, deps: Deps) -> Clients:
    """This service as a client of the token issuers in the settings. Raises: Invalid."""
    return Clients([issuer for issuer in settings.auth.issuers if issuer.client_id is not None], deps.clock)


def database_url(database: str) -> str:
    """A path is a SQLite file; a URL stays as it is."""
    return database if "://" in database else f"sqlite:///{Path(database)}"


def storages(settings: Settings, *, local: bool = False) -> list[Adapter]:
    """The adapters for the storages of the world; with `local` also for files of this machine."""
    adapters: list[Adapter] = [http_adapter(settings, None if local else address_policy(settings))]
    if settings.transfer.mock:
        adapters.append(MockAdapter())
    return [*adapters, FileAdapter()] if local else adapters


def address_policy(settings: Settings) -> AddressPolicy | None:
    """Where storages may be; None: anywhere. Who is on this machine reaches without us what we would reach."""
    chosen, service = settings.transfer.storage_addresses, settings.service
    only_here = is_loopback(service.host) and not service.reverse_proxy.peers
    if chosen == "any" or (chosen == "auto" and only_here):
        return None
    return PublicOnly(settings.transfer.storage_networks)


def http_adapter(settings: Settings, address_allowed: AddressPolicy | None = None) -> HttpAdapter:
    """The adapter for http, https, dav and davs, with the settings' trust."""
    tls = settings.tls
    ca = tls.ca or (credentials.discover_ca() if tls.discover else None)
    if ca is not None and not ca.exists():
        raise Invalid(f"{ca} does not exist", field="tls.ca")
    return HttpAdapter(
        ca=ca,
        verify_tls=tls.verify,
        capabilities=told_capabilities(settings),
        address_allowed=address_allowed,
    )


def told_capabilities(settings: Settings) -> dict[str, Capabilities]:
    """What the settings say that storages can do."""
    return {se.lower(): TPC[limits.tpc] for se, limits in settings.limits.endpoints.items() if limits.tpc != "auto"}


def _tell(registry: Registry, settled: Mapping[str, Capabilities], ordered: Mapping[str, Capabilities]) -> None:
    """Let HTTP adapters believe what operators say of storages, over what the settings say."""
    for adapter in registry.adapters:
        if isinstance(adapter, HttpAdapter):
            adapter.believe({**settled, **ordered})


def credential_source(tls: TlsSettings) -> Callable[[str], Credential]:
    """One credential for every storage that may see it, read again when its file changes.

    Raises: Invalid: the token file cannot be read.
    """
    found, hosts = _one_credential(tls), frozenset(host.lower() for host in tls.credential_hosts)
    if not hosts:
        return lambda _url: found()
    return lambda url: found() if listed(urls.parse(url, "url").host, hosts) else ANONYMOUS


def _one_credential(tls: TlsSettings) -> Callable[[], Credential]:
    environ = dict(os.environ) if tls.discover else {}
    if tls.token_file is not None:
        environ.pop("BEARER_TOKEN", None)
        environ["BEARER_TOKEN_FILE"] = str(tls.token_file)
        if not tls.token_file.is_file():
            raise Invalid(f"{tls.token_file} cannot be read", field="tls.token_file")
    if not tls.discover and tls.token_file is None:
        fixed = _discover(tls, environ)
        return lambda: fixed
    return _Cached(lambda: _discover(tls, environ))


def _discover(tls: TlsSettings, environ: dict[str, str]) -> Credential:
    found = (
        credentials.discover(environ)
        if tls.discover
        else Credential(token=credentials.discover_token(environ) if tls.token_file else None)
    )
    if tls.certificate is not None:
        return Credential(token=found.token, certificate=tls.certificate, key=tls.key)
    return found


class _Once:
    """A vault, made when it is first asked for; also threads that ask at once get the same."""

    def __init__(self, make: Callable[[], Vault]) -> None:
        self._make = cache(make)
        self._making = threading.Lock()

    def __call__(self) -> Vault:
        with self._making:
            return self._make()


class _Cached:
    """A credential, looked up again every `EVERY_S` seconds: proxies and tokens are renewed in place."""

    EVERY_S: Final = 5.0

    def __init__(self, find: Callable[[], Credential]) -> None:
        self._find = find
        self._value = find()
        self._at: float | None = None

    def __call__(self) -> Credential:
        now = asyncio.get_running_loop().time()
        if self._at is None or now - self._at > self.EVERY_S:
            self._value, self._at = self._find(), now
        return self._value


def door_of(settings: Settings, engine: TransferEngine) -> Door:
    """Who may use the job service on this engine. Raises: Invalid: names the setting."""
    service, auth = settings.service, settings.auth
    known = service.tls.client_ca is not None or bool(service.reverse_proxy.peers)
    if known or auth.issuers or settings.vault != VaultSettings():
        # A key that cannot be used is told now, not to the first user who delegates.
        engine.vault()
    hosts = frozenset({service.alias or socket.getfqdn()})
    certificates = GridCertificates.of(service.tls, hosts=hosts) if known else None

    def granted(name: str, method: str) -> tuple[Grant, ...]:
        # Subjects of tokens are unique for their issuer only, and such a row names none.
        return engine.tunables.grants_of(name) if method in {CERTIFICATE, LOCAL_TOKEN} else ()

    authenticator = TheAuthenticator(
        auth,
        clock=SystemClock(),
        certificates=certificates,
        reverse_proxy=service.reverse_proxy,
        extra_grants=granted,
    )
    return Door(
        auth=auth,
        authenticator=authenticator,
        vault=engine.vault,
        certificates=certificates,
        signatures=authenticator.tokens,
    )
