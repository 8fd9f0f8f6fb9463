"""The table of routes: the one list that dispatching, permissions and the OpenAPI document are made from."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from transfer_engine.callers import Need
from transfer_engine.service.boundary import Handler
from transfer_engine.service.catalogue import Catalogue
from transfer_engine.service.config import Configuration
from transfer_engine.service.control import Controls
from transfer_engine.service.delegation import Delegations
from transfer_engine.service.events import Events
from transfer_engine.service.explain import Explaining
from transfer_engine.service.foreign import Foreign
from transfer_engine.service.instance import Instance
from transfer_engine.service.jobs import Jobs
from transfer_engine.service.route import ANYTHING, TEXTS, JsonType, Route
from transfer_engine.service.routes_catalogue import catalogue_routes, foreign_routes
from transfer_engine.service.routes_config import config_routes
from transfer_engine.service.routes_delegation import delegation_routes
from transfer_engine.service.routes_events import event_routes
from transfer_engine.service.routes_explain import explain_routes
from transfer_engine.service.routes_jobs import job_routes
from transfer_engine.service.routes_orders import order_routes
from transfer_engine.service.wire.instance import CallerObject, ServiceObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """Who handles what."""

    instance: Instance
    delegations: Delegations
    jobs: Jobs
    controls: Controls
    configuration: Configuration
    catalogue: Catalogue
    explaining: Explaining
    events: Events


def routes(handlers: Handlers) -> list[Route]:
    """All operations of the service, in order of precedence."""
    return [
        *_instance_routes(handlers.instance),
        *delegation_routes(handlers.delegations),
        *order_routes(handlers.controls),
        *config_routes(handlers.configuration),
        *explain_routes(handlers.explaining),
        *event_routes(handlers.events),
        *catalogue_routes(handlers.catalogue),
        *foreign_routes(Foreign()),
        *job_routes(handlers.jobs),
    ]


def _instance_routes(instance: Instance) -> list[Route]:
    about: list[tuple[str, str, str, Handler, JsonType, dict[int, str]]] = [
        ("service", "/", "What the service is", instance.service, TypeAdapter(ServiceObject), {}),
        ("whoami", "/whoami", "Who is asking", instance.whoami, TypeAdapter(CallerObject), {}),
        ("healthz", "/healthz", "Is the process alive?", instance.healthz, TEXTS, {}),
        ("readyz", "/readyz", "Can it accept and move?", instance.readyz, TEXTS, {503: "not now; says why"}),
        ("openapi", "/openapi.json", "This document", instance.openapi, ANYTHING, {}),
    ]
    return [
        Route(
            name=name,
            method="GET",
            path=path,
            needs=Need.NOTHING,
            summary=summary,
            handler=handler,
            answers=kind,
            statuses=statuses,
        )
        for name, path, summary, handler, kind, statuses in about
    ]
