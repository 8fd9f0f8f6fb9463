"""The aiohttp application: routes, boundary, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from transfer_engine.clock import Clock, SystemClock
from transfer_engine.config_service import AuthSettings, ServiceSettings
from transfer_engine.guarded import Gate
from transfer_engine.identity.api import Authenticator
from transfer_engine.service.boundary import Boundary, ChainOf, guarded
from transfer_engine.service.catalogue import Catalogue
from transfer_engine.service.config import Configuration
from transfer_engine.service.control import Controls
from transfer_engine.service.delegation import Delegations
from transfer_engine.service.events import Events
from transfer_engine.service.explain import Explaining
from transfer_engine.service.instance import Instance, version
from transfer_engine.service.jobs import Jobs
from transfer_engine.service.openapi import document
from transfer_engine.service.route import STREAM, Route
from transfer_engine.service.routes import Handlers, routes
from transfer_engine.service.tokens import Signatures, StorageTokens

if TYPE_CHECKING:
    from transfer_engine.engine import Engine
    from transfer_engine.identity.x509.users import GridCertificates
    from transfer_engine.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Who may come in, and what is done with what they bring.

    Attributes:
        auth: the settings that `authenticator` was made from.
        vault: keeps delegated proxies.
        certificates: checks the certificate behind a delegated proxy; None: the front has done so.
        signatures: knows the keys of the issuers, for the tokens of files; None: storages alone look at them.
    """

    auth: AuthSettings
    authenticator: Authenticator
    vault: Callable[[], Vault]
    certificates: GridCertificates | None = None
    signatures: Signatures | None = None


def build_table(
    engine: Engine, settings: ServiceSettings, door: Door, clock: Clock, events: Events | None = None
) -> list[Route]:
    """All operations, with the OpenAPI document made and published."""
    gate = Gate(engine, clock)
    instance = Instance(gate=gate, clock=clock)
    delegations = Delegations(
        store=engine.secrets, vault=door.vault, clock=clock, gate=gate, certificates=door.certificates
    )
    tokens = StorageTokens(door.auth.issuers, door.signatures, lent=door.auth.service_credential)
    table = routes(
        Handlers(
            instance=instance,
            delegations=delegations,
            jobs=Jobs(gate=gate, settings=settings, clock=clock, tokens=tokens, delegations=delegations),
            controls=Controls(gate=gate),
            configuration=Configuration(gate=gate, clock=clock),
            catalogue=Catalogue(gate=gate, clock=clock),
            explaining=Explaining(gate=gate, clock=clock),
            events=events or Events(gate=gate),
        )
    )
    instance.publish(document(table, version()))
    return table


async def mark(_: web.Request, response: web.StreamResponse) -> None:
    """Say who answers, and not with which versions of what; a browser takes an answer for nothing but what it says."""
    response.headers["Server"] = "transfer-engine"
    response.headers["X-Content-Type-Options"] = "nosniff"


def no_chain(_: object) -> tuple[bytes, ...]:
    """The certificates of a client on a connection without TLS."""
    return ()


def build_app(
    engine: Engine,
    settings: ServiceSettings,
    door: Door,
    *,
    chain_of: ChainOf = no_chain,
    clock: Clock | None = None,
) -> web.Application:
    """The job service on an open engine.

    Args:
        door: says who a request comes from.
        chain_of: the client's certificates of a connection.
        clock: what `max_time_in_queue` and `time_window` count from; None: the machine's.
    """
    timer = clock or SystemClock()
    boundary = Boundary(door.authenticator, Gate(engine, timer), chain_of)
    app = web.Application(middlewares=[boundary.middleware], client_max_size=settings.body_max_bytes)
    app.on_response_prepare.append(mark)
    events = Events(gate=Gate(engine, timer))
    app.on_shutdown.append(events.close)
    table = build_table(engine, settings, door, timer, events)
    for route in table:
        handler = guarded(route.needs, route.handler)
        # FTS clients put `endpoint/` before `/jobs`; Apache merges the slashes in front of FTS3.
        for path in (route.path, "/{slashes:/+}" + route.path.removeprefix("/")):
            app.router.add_route(route.method, path, handler)
            if route.method == "GET" and route.media != STREAM:
                app.router.add_route("HEAD", path, handler)
    return app
