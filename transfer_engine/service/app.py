"""The aiohttp application: routes, boundary, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from transfer_engine.clock import Clock, SystemClock
from transfer_engine.config_service import ServiceSettings
from transfer_engine.service.boundary import boundary
from transfer_engine.service.control import Controls
from transfer_engine.service.explain import Explaining
from transfer_engine.service.instance import Instance, version
from transfer_engine.service.jobs import Jobs
from transfer_engine.service.openapi import document
from transfer_engine.service.routes import Route, routes

if TYPE_CHECKING:
    from transfer_engine.engine import Engine


def build_table(engine: Engine, settings: ServiceSettings, clock: Clock | None = None) -> list[Route]:
    """All operations, with the OpenAPI document made and published."""
    timer = clock or SystemClock()
    instance = Instance(engine=engine, clock=timer)
    jobs = Jobs(engine=engine, settings=settings, clock=timer)
    table = routes(instance, jobs, Controls(engine=engine), Explaining(engine=engine, clock=timer))
    instance.publish(document(table, version()))
    return table


def build_app(engine: Engine, settings: ServiceSettings, *, clock: Clock | None = None) -> web.Application:
    """The job service on an open engine.

    Args: clock: what `max_time_in_queue` and `time_window` count from; None: the machine's.
    """
    app = web.Application(middlewares=[boundary], client_max_size=settings.body_max_bytes)
    table = build_table(engine, settings, clock)
    for route in table:
        app.router.add_route(route.method, route.path, route.handler, name=route.name)
    # FTS clients put `endpoint/` before `/jobs`; Apache merges the slashes in front of FTS3.
    for route in table:
        app.router.add_route(route.method, "/{slashes:/+}" + route.path.removeprefix("/"), route.handler)
    return app
