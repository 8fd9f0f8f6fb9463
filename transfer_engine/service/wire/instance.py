"""The service and its caller as FTS3 shows them: `/`, `/whoami`, `/delegation`."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from transfer_engine.callers import Caller, Role
from transfer_engine.service.wire.ids import BASE_ID, vo_id
from transfer_engine.service.wire.words import timestamp

API_VERSION: Final = (3, 14, 0)
"""Of FTS3's REST interface that this service speaks."""
SCHEMA_VERSION: Final = (10, 0, 1)
"""Of FTS3's database; Rucio concludes from it what a service can do (8: overwriting of single hops)."""
DELEGATION_VERSION: Final = (1, 0, 0)
LOCAL_LIFETIME_S: Final = 24 * 3600
"""Shown as what is left of a local caller's credential, so that clients do not begin to delegate."""


@with_config(ConfigDict(title="Version"))
class VersionObject(TypedDict):
    """A version in three numbers."""

    major: int
    minor: int
    patch: int


@with_config(ConfigDict(title="Service"))
class ServiceObject(TypedDict):
    """What the service is."""

    delegation: VersionObject
    api: VersionObject
    core: VersionObject | None
    schema: VersionObject
    engine: dict[str, str]
    _links: dict[str, Any]


@with_config(ConfigDict(title="Caller"))
class CallerObject(TypedDict):
    """Who is asking, as far as the service knows."""

    user_dn: str
    dn: list[str]
    base_id: str
    voms_cred: list[str]
    vos: list[str]
    vos_id: list[str]
    roles: list[str]
    level: dict[str, str]
    delegation_id: str
    method: str
    is_root: bool


@with_config(ConfigDict(title="Delegation"))
class DelegationObject(TypedDict):
    """What is left of a delegated credential."""

    termination_time: str | None
    voms_attrs: list[str]


def _version(numbers: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip(("major", "minor", "patch"), numbers, strict=True))


def service_object(version: str) -> dict[str, Any]:
    """`GET /`. Clients format the numbers of `api` with %d and refuse to start without them."""
    return {
        "delegation": _version(DELEGATION_VERSION),
        "api": _version(API_VERSION),
        "core": None,
        "schema": _version(SCHEMA_VERSION),
        "engine": {"name": "transfer-engine", "version": version},
        "_links": {
            "curies": [{"name": "fts", "href": "/openapi.json"}],
            "fts:whoami": {"href": "/whoami", "title": "Check user certificate"},
            "fts:joblist": {
                "href": "/jobs{?vo_name,user_dn,dlg_id,state_in}",
                "title": "List of active jobs",
                "templated": True,
            },
            "fts:job": {
                "href": "/jobs/{id}",
                "title": "Job information",
                "templated": True,
                "hints": {"allow": ["GET", "DELETE"]},
            },
            "fts:jobsubmit": {"href": "/jobs", "hints": {"allow": ["POST", "PUT"]}},
            "fts:optimizer": {"href": "/optimizer", "title": "Optimizer"},
            "fts:archive": {"href": "/archive", "title": "Archive"},
            "fts:configaudit": {"href": "/config/audit", "title": "Configuration"},
            "fts:submitschema": {"href": "/api-docs/schema/submit", "title": "JSON schema of messages"},
            "fts:apidocs": {"href": "/openapi.json", "title": "API documentation"},
        },
    }


def caller_object(caller: Caller) -> CallerObject:
    """`GET /whoami`. Rucio computes deterministic job ids from `base_id` and the first of `vos`."""
    return CallerObject(
        user_dn=caller.user_dn,
        dn=[caller.user_dn],
        base_id=str(BASE_ID),
        voms_cred=list(caller.voms_cred),
        vos=list(caller.vos),
        vos_id=[str(vo_id(vo)) for vo in caller.vos],
        roles=roles_of(caller),
        level=levels_of(caller),
        delegation_id=caller.delegation_id,
        method=caller.method,
        is_root=caller.is_root,
    )


def roles_of(caller: Caller) -> list[str]:
    """FQAN roles of a proxy (FTS3's meaning), then what the caller is here."""
    named = [part.removeprefix("Role=") for fqan in caller.voms_cred for part in fqan.split("/") if "Role=" in part]
    ours = [grant.role.value if grant.vo is None else f"{grant.role.value}:{grant.vo}" for grant in caller.grants]
    return list(dict.fromkeys([*named, *ours]))


def levels_of(caller: Caller) -> dict[str, str]:
    """FTS3's operations, and how far the caller reaches with each: own (`private`), `vo`, `all`."""
    if not caller.known:
        return {}
    reach = {Role.OPERATOR: "all", Role.ADMIN: "all", Role.VO_OPERATOR: "vo"}.get(caller.role, "private")
    levels = {"transfer": reach, "deleg": "private"}
    if caller.role in {Role.OPERATOR, Role.ADMIN}:
        levels["config"] = "all"
    elif caller.role is Role.VO_OPERATOR:
        levels["config"] = "vo"
    if caller.role is Role.ADMIN:
        levels["admin"] = "all"
    return levels


def delegation_object(caller: Caller, now: float) -> DelegationObject:
    """`GET /delegation/<id>` of a caller whose credential the service does not need."""
    return DelegationObject(termination_time=timestamp(now + LOCAL_LIFETIME_S), voms_attrs=list(caller.voms_cred))
