"""The configuration as FTS3 writes it: what is sent, and what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from transfer_engine.errors import Invalid
from transfer_engine.sealed import AuditEntry
from transfer_engine.service.wire.views import HOST
from transfer_engine.service.wire.words import Refused, document_error, timestamp, value_error
from transfer_engine.tunable_rows import (
    ANY,
    TPC_SUPPORT,
    ActivityRow,
    AuthorizeRow,
    GlobalRow,
    LinkRow,
    Row,
    Rows,
    SeRow,
    ShareRow,
)

ACTIVE_DEFAULT: Final = 2
"""FTS3's limits of a link that is configured without any."""
MALFORMED_FROM: Final = 20
"""Digits of numbers that nobody means."""
MALFORMED: Final = "Malformed configuration"
SERVICE: Final = "transfer-engine"
NO_CLOUDS: Final = "Cloud storages with keys of their own are not supported: the service keeps no such keys"

Values = dict[str, Any]

DOCUMENT: Final = TypeAdapter(Values)
ROWS: Final = TypeAdapter(list[Values])
BY_NAME: Final = TypeAdapter(dict[str, Values])

_NUMBERS: Final = frozenset(
    {
        "retry", "max_time_queue", "global_timeout", "sec_per_mb", "min_active", "max_active", "optimizer_mode",
        "tcp_buffer_size", "nostreams", "share", "inbound_max_active", "outbound_max_active",
        "inbound_max_throughput", "outbound_max_throughput", "debug_level",
    }
)  # fmt: skip
_FLAGS: Final = frozenset({"no_streaming", "show_user_dn", "no_delegation", "active"})
_YES: Final = frozenset({"true", "yes", "on"})
_NO: Final = frozenset({"false", "no", "off"})


@with_config(ConfigDict(title="Authorization"))
class AuthorizeObject(TypedDict):
    """Somebody may do something."""

    dn: str
    operation: str


@with_config(ConfigDict(title="AuditEntry"))
class AuditObject(TypedDict):
    """One order, of whom and about what."""

    datetime: str | None
    dn: str
    action: str
    config: str


@with_config(ConfigDict(title="Host"))
class HostObject(TypedDict):
    """One instance of the service."""

    hostname: str
    service_name: str
    beat: str | None
    drain: bool


@with_config(ConfigDict(title="SetActivityShares"))
class SetActivitiesObject(TypedDict):
    """The weights of a VO's activities as they were set."""

    vo: str
    activity_share: list[dict[str, float]]
    active: bool


# What is sent


def read_values(body: bytes) -> Values:
    """A document of names and values. Raises: Refused."""
    try:
        return DOCUMENT.validate_json(body)
    except ValidationError as error:
        raise document_error(error) from error


def plain(values: Mapping[str, Any]) -> Values:
    """Values as rows have them: FTS3 takes numbers and flags in words as well. Raises: Refused."""
    return {key: _plain(key, value) for key, value in values.items()}


def _plain(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if key in _NUMBERS:
        try:
            return int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
        except ValueError as error:
            raise Refused(f"Field {key} is expected to be a number", field=key) from error
    word = value.strip().lower()
    if key in _FLAGS and word in _YES | _NO:
        return word in _YES
    return value


def refused(error: Invalid) -> Invalid:
    """The same refusal in FTS3's words, where it has any."""
    if error.message == "unknown key" and error.field is not None:
        return Refused(f"Field {error.field} unknown", field=error.field)
    if error.message == "max_active is lower than min_active":
        return Refused(error.message, field="max_active")
    return error


def parse_link(body: bytes, known: Mapping[str, LinkRow]) -> Values:
    """A link. Raises: Refused."""
    values = read_values(body)
    name = values.get("symbolicname")
    if not name:
        raise Refused("Missing symbolicname", field="symbolicname")
    for key in ("source", "destination"):
        if key in values and not values[key]:
            raise Refused("Missing source and/or destination", field=key)
    if not isinstance(name, str) or name not in known:
        fresh = {"source": ANY, "destination": ANY, "min_active": ACTIVE_DEFAULT, "max_active": ACTIVE_DEFAULT}
        values = fresh | values
    try:
        return plain(values)
    except Refused as error:
        if error.field in {"min_active", "max_active"}:
            raise Refused(f"Active must be an integer ({values[error.field]!r})", field=error.field) from error
        raise


def parse_share(body: bytes) -> Values:
    """The weight of a VO on a link. Raises: Refused."""
    values = read_values(body)
    try:
        found = plain(values)
    except Refused as error:
        raise Refused("Bad share value", field="share") from error
    share = found.get("share")
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise Refused("Bad share value", field="share")
    if not all(found.get(key) for key in ("source", "destination", "vo")) or not share:
        raise Refused("Missing source, destination, vo and/or share", field="share" if not share else "source")
    return found


def parse_activities(body: bytes) -> Values:
    """The weights of a VO's activities: `{"a": 1}` or `[{"a": 1}]`. Raises: Refused."""
    values = read_values(body)
    if not values.get("vo"):
        raise Refused("Missing VO", field="vo")
    share = values.get("share")
    if not share:
        raise Refused("Missing share", field="share")
    entries: list[Any] = share if isinstance(share, list) else [share]
    weights: dict[str, Any] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise value_error("share: expected activities and their weights", field="share")
        weights |= entry
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise Refused("Share weight must be a number", field=f"share.{name}")
    return plain({**values, "share": weights, "active": values.get("active", True)})


def parse_storages(body: bytes) -> tuple[dict[str, Values], dict[str, dict[str, dict[str, int]]]]:
    """(storage → its values, storage → VO → operation → how many at a time). Raises: Refused."""
    infos: dict[str, Values] = {}
    operations: dict[str, dict[str, dict[str, int]]] = {}
    for se, config in read_values(body).items():
        if not se.strip() or not isinstance(config, dict) or set(config) - {"se_info", "operations"}:
            raise Refused(MALFORMED, field=se[:100] or "storage")
        info, limits = config.get("se_info") or {}, config.get("operations") or {}
        if not isinstance(info, dict) or not isinstance(limits, dict):
            raise Refused(MALFORMED, field=se[:100])
        if info:
            infos[se] = _storage(info)
        for vo, numbers in limits.items():
            if not isinstance(numbers, dict):
                raise Refused(MALFORMED, field=f"{se[:100]}.operations")
            operations.setdefault(se, {})[vo] = {name: _concurrent(n) for name, n in numbers.items()}
    if not infos and not operations:
        raise Refused(MALFORMED)
    return infos, operations


def _storage(info: Values) -> Values:
    tpc = info.get("tpc_support")
    if tpc is not None and tpc not in TPC_SUPPORT:
        raise Refused(f"tpc_support must be one of {', '.join(TPC_SUPPORT)}", field="tpc_support")
    return plain(info)


def _concurrent(n: Any) -> int:
    """As in FTS3 nothing and less unsets it."""
    whole = isinstance(n, int) and not isinstance(n, bool)
    if not whole and not (isinstance(n, str) and n.isdecimal() and len(n) < MALFORMED_FROM):
        raise Refused(MALFORMED, field="operations")
    return max(int(n), 0)


def parse_authorization(body: bytes) -> Values:
    """Who may do what. Raises: Refused."""
    values = read_values(body)
    if not values.get("dn") or not values.get("operation"):
        raise Refused("Missing dn and/or operation", field="dn" if not values.get("dn") else "operation")
    return values


def parameter(query: Mapping[str, str], name: str, missing: str) -> str:
    """A parameter that must be there. Raises: Refused: with the sentence `missing`."""
    value = query.get(name)
    if not value:
        raise Refused(missing, field=name)
    return value


# What is shown


def row_object(row: Row) -> Values:
    """All values of a row."""
    return row.model_dump(mode="json")


def storages_object(rows: Rows, se: str | None) -> dict[str, Values]:
    """`GET /config/se`."""
    found: dict[str, Values] = {
        name: {"se_info": row_object(row)} for name, row in rows.se.items() if se in {None, name}
    }
    for row in rows.operations:
        if se in {None, row.se}:
            by_vo = found.setdefault(row.se, {}).setdefault("operations", {})
            by_vo.setdefault(row.vo, {})[row.operation] = row.concurrent
    return found


def set_storage_object(row: SeRow | None, se: str, operations: Any) -> list[Any]:
    """The answer to a change of a storage: what is set now, and the operations that were sent."""
    return [None if row is None else {"storage": se, **row_object(row)}, operations]


def globals_object(rows: Rows) -> dict[str, Values]:
    """`GET /config/global`; the row of all is always there."""
    return {vo: row_object(row) for vo, row in {ANY: GlobalRow(), **rows.globals}.items()}


def links_object(rows: Rows) -> list[Values]:
    """`GET /config/links`."""
    return [row_object(row) for _, row in sorted(rows.links.items())]


def shares_object(rows: Rows) -> list[Values]:
    """`GET /config/shares`."""
    return [row_object(row) | {"share": number(row)} for row in rows.shares]


def number(row: ShareRow) -> int | float:
    """A share: a whole number, as FTS3 has them, where it is one."""
    return int(row.share) if row.share.is_integer() else row.share


def activities_object(row: ActivityRow) -> Values:
    """The weights of one VO's activities."""
    return {"share": dict(row.share), "active": row.active}


def set_activities_object(row: ActivityRow) -> SetActivitiesObject:
    """The answer to a change of them."""
    return SetActivitiesObject(
        vo=row.vo, activity_share=[{name: weight} for name, weight in row.share.items()], active=row.active
    )


def authorize_objects(rows: Sequence[AuthorizeRow], dn: str | None, operation: str | None) -> list[AuthorizeObject]:
    """`GET /config/authorize`."""
    return [
        AuthorizeObject(dn=row.dn, operation=row.operation)
        for row in rows
        if dn in {None, "", row.dn} and operation in {None, "", row.operation}
    ]


def audit_objects(entries: Sequence[AuditEntry]) -> list[AuditObject]:
    """`GET /config/audit`."""
    return [
        AuditObject(
            datetime=timestamp(entry.at),
            dn=entry.user_dn,
            action=entry.action,
            config=f"{entry.object}: {entry.detail}" if entry.detail else entry.object,
        )
        for entry in entries
    ]


def host_object(now: float, *, drain: bool) -> HostObject:
    """A row of `GET /config`."""
    return HostObject(hostname=HOST, service_name=SERVICE, beat=timestamp(now), drain=drain)
