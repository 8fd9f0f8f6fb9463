"""The operations on the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pydantic import TypeAdapter

from transfer_engine.callers import Need
from transfer_engine.service.boundary import Handler
from transfer_engine.service.config import Configuration
from transfer_engine.service.route import ANYTHING, NOTHING, JsonType, Route
from transfer_engine.service.wire.config import (
    BY_NAME,
    DOCUMENT,
    ROWS,
    AuditObject,
    AuthorizeObject,
    HostObject,
    SetActivitiesObject,
)

WRONG: Final = "a value is missing or wrong; the message names it"
FORBIDDEN: Final = "the caller may not set this"
NONE_THERE: Final = "nothing of this name is configured"


def config_routes(config: Configuration) -> list[Route]:
    """Everything below `/config`, but for the drain."""
    return [
        _get(
            "config", "/config", "The instances of the service", config.hosts, TypeAdapter(list[HostObject]), Need.READ
        ),
        _get(
            "configAudit",
            "/config/audit",
            "The newest orders of operators, newest first: of everybody, or of the VOs that the caller looks after",
            config.audit,
            TypeAdapter(list[AuditObject]),
        ),
        *_global_routes(config),
        *_link_routes(config),
        *_share_routes(config),
        *_activity_routes(config),
        *_storage_routes(config),
        *_authorize_routes(config),
        *_cloud_routes(config),
    ]


def _get(name: str, path: str, summary: str, handler: Handler, answers: JsonType, needs: Need = Need.VO_READ) -> Route:
    return Route(name=name, method="GET", path=path, needs=needs, summary=summary, handler=handler, answers=answers)


def _set(name: str, path: str, summary: str, handler: Handler, answers: JsonType, needs: Need) -> Route:
    return Route(
        name=name,
        method="POST",
        path=path,
        needs=needs,
        summary=summary,
        handler=handler,
        answers=answers,
        body=DOCUMENT,
        statuses={400: WRONG, 403: FORBIDDEN, 409: "there are too many rows already"},
    )


def _drop(
    name: str, path: str, summary: str, handler: Handler, needs: Need, query: Mapping[str, str] | None = None
) -> Route:
    return Route(
        name=name,
        method="DELETE",
        path=path,
        needs=needs,
        summary=summary,
        handler=handler,
        answers=NOTHING,
        query=query or {},
        statuses={403: FORBIDDEN, **({400: WRONG} if query else {})},
        success=204,
    )


def _global_routes(config: Configuration) -> list[Route]:
    path = "/config/global"
    return [
        _get("globals", path, "Defaults of the transfers of each VO, and of all (*)", config.globals, BY_NAME),
        _set("setGlobals", path, "Set defaults of a VO, or (*) of all", config.set_global, BY_NAME, Need.VO_CONTROL),
        _drop(
            "dropGlobals",
            path,
            "Set no defaults of a VO",
            config.drop_global,
            Need.VO_CONTROL,
            {"vo_name": "the VO, or * for all"},
        ),
    ]


def _link_routes(config: Configuration) -> list[Route]:
    path, one = "/config/links", "/config/links/{symbolicname}"
    added = _set(
        "setLink", path, "Set the limits of a link; * stands for any end", config.set_link, DOCUMENT, Need.CONTROL
    )
    found = _get("linkConfig", one, "One link that is configured", config.link, DOCUMENT)
    return [
        _get("linkConfigs", path, "The links that are configured", config.links, ROWS),
        replace(added, success=201),
        replace(found, statuses={404: NONE_THERE}),
        _drop("dropLink", one, "Set nothing of a link", config.drop_link, Need.CONTROL),
    ]


def _share_routes(config: Configuration) -> list[Route]:
    """What one VO gets, others lose: no VO sets its own."""
    path = "/config/shares"
    ends = {"source": "scheme://host or *", "destination": "scheme://host or *", "vo": "the VO"}
    return [
        _get("shares", path, "The shares of VOs on links", config.shares, ROWS),
        _set(
            "setShare",
            path,
            "Set the share of a VO on a link: the share",
            config.set_share,
            TypeAdapter(float),
            Need.CONTROL,
        ),
        _drop("dropShare", path, "Set no share of a VO on a link", config.drop_share, Need.CONTROL, ends),
    ]


def _activity_routes(config: Configuration) -> list[Route]:
    path, one = "/config/activity_shares", "/config/activity_shares/{vo}"
    found = _get("activitySharesOfVo", one, "The shares of one VO's activities", config.activities_of, DOCUMENT)
    dropped = _drop(
        "dropActivityShares", one, "Set no shares of a VO's activities", config.drop_activities, Need.VO_CONTROL
    )
    return [
        _get("activityShares", path, "The shares of activities, by VO", config.activities, BY_NAME),
        _set(
            "setActivityShares",
            path,
            "Set the shares of a VO's activities",
            config.set_activities,
            TypeAdapter(SetActivitiesObject),
            Need.VO_CONTROL,
        ),
        replace(found, statuses={403: FORBIDDEN, 404: NONE_THERE}),
        replace(dropped, statuses={403: FORBIDDEN, 404: NONE_THERE}),
    ]


def _storage_routes(config: Configuration) -> list[Route]:
    path = "/config/se"
    found = _get("storageConfigs", path, "What is configured of storages, by endpoint", config.storages, BY_NAME)
    return [
        replace(found, query={"se": "only this one, scheme://host"}),
        _set(
            "setStorages",
            path,
            "Set limits of storages (of one VO: operations only): what is set now of the last one",
            config.set_storages,
            TypeAdapter(list[object]),
            Need.VO_CONTROL,
        ),
        _drop(
            "dropStorage",
            path,
            "Set nothing of a storage",
            config.drop_storage,
            Need.CONTROL,
            {"se": "scheme://host, or *"},
        ),
    ]


def _authorize_routes(config: Configuration) -> list[Route]:
    path = "/config/authorize"
    found = _get(
        "authorizations",
        path,
        "Who has been given what",
        config.authorized,
        TypeAdapter(list[AuthorizeObject]),
        Need.READ,
    )
    return [
        replace(found, query={"dn": "only of this user", "operation": "only this one"}),
        _set(
            "authorize", path, "Let somebody do something", config.authorize, TypeAdapter(AuthorizeObject), Need.ADMIN
        ),
        _drop(
            "forbid",
            path,
            "Let somebody do something no more",
            config.forbid,
            Need.ADMIN,
            {"dn": "whom", "operation": "what; not given: anything"},
        ),
    ]


def _cloud_routes(config: Configuration) -> list[Route]:
    path = "/config/cloud_storage"
    refused = {400: "always: no keys of clouds are kept"}
    none = {404: "always: there is none"}
    found = _get("clouds", path, "Always empty", config.clouds, TypeAdapter(list[object]), Need.READ)
    one = path + "/{name}"
    added = _set("addCloud", path, "Refused", config.refuse_cloud, ANYTHING, Need.CONTROL)
    of_user = _set("addCloudUser", one, "Refused", config.no_cloud, ANYTHING, Need.CONTROL)
    return [
        found,
        replace(added, statuses=refused),
        replace(_get("cloud", one, "Always unknown", config.no_cloud, ANYTHING, Need.READ), statuses=none),
        replace(of_user, statuses=none),
        replace(_drop("dropCloud", one, "Always unknown", config.no_cloud, Need.CONTROL), statuses=none),
        replace(
            _drop("dropCloudUser", one + "/{user}", "Always unknown", config.no_cloud, Need.CONTROL), statuses=none
        ),
    ]
