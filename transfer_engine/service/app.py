"""The aiohttp application: routes, boundary, limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from transfer_engine.clock import Clock, SystemClock
from transfer_engine.config_service import AuthSettings, ServiceSettings
from transfer_engine.guarded import Gate
from transfer_engine.identity.api import Authenticator
from transfer_engine.service.boundary import Boundary, ChainOf, guarded
from transfer_engine.service.control import Controls
from transfer_engine.service.explain import Explaining
from transfer_engine.service.instance import Instance, version
from transfer_engine.service.jobs import Jobs
from transfer_engine.service.openapi import document
from transfer_engine.service.route import Route
from transfer_engine.service.routes import Handlers, routes

if TYPE_CHECKING:
    from transfer_engine.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Who may come in.

    Attributes:
        auth: the settings that `authenticator` was made from.
    """

    auth: AuthSettings
    authenticator: Authenticator


def build_table(gate: Gate, settings: ServiceSettings, clock: Clock) -> list[Route]:
    """All operations, with the OpenAPI document made and published."""
    instance = Instance(gate=gate, clock=clock)
    table = routes(
        Handlers(
            instance=instance,
            jobs=Jobs(gate=gate, settings=settings, clock=clock),
            controls=Controls(gate=gate),
            explaining=Explaining(gate=gate, clock=clock),
        )
    )
    instance.publish(document(table, version()))
    return table


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
    gate = Gate(engine, timer)
    boundary = Boundary(door.authenticator, gate, chain_of)
    app = web.Application(middlewares=[boundary.middleware], client_max_size=settings.body_max_bytes)
    table = build_table(gate, settings, timer)
    for route in table:
        app.router.add_route(route.method, route.path, guarded(route.needs, route.handler), name=route.name)
    # FTS clients put `endpoint/` before `/jobs`; Apache merges the slashes in front of FTS3.
    for route in table:
        path = "/{slashes:/+}" + route.path.removeprefix("/")
        app.router.add_route(route.method, path, guarded(route.needs, route.handler))
    return app
