"""Bans, drain and holds as FTS3 writes them. Keys that FTS3 does not have: `vo`, `for_s`, `until`, and all of holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from transfer_engine.bans import UserBan, parse_endpoint
from transfer_engine.callers import Caller
from transfer_engine.control import Drain
from transfer_engine.places import Ban
from transfer_engine.service.wire.views import HOST
from transfer_engine.service.wire.words import Refused, document_error, timestamp, value_error

EVERYBODY: Final = "*"
"""The VO of a ban that holds for all of them."""
_INSTANT: Final = "%Y-%m-%dT%H:%M:%S"


@with_config(ConfigDict(title="Ban"))
class BanDocument(TypedDict, total=False):
    """What `POST /ban/se` takes. FTS3 takes a `timeout`, which means nothing there either."""

    storage: str | None
    status: str | None
    timeout: Any
    allow_submit: bool | None
    message: str | None
    vo: str | None
    for_s: float | None
    until: str | None


@with_config(ConfigDict(title="UserBan"))
class UserBanDocument(TypedDict, total=False):
    """What `POST /ban/dn` takes."""

    user_dn: str | None
    message: str | None


@with_config(ConfigDict(title="DrainRequest"))
class DrainDocument(TypedDict, total=False):
    """What `POST /config/drain` takes."""

    hostname: str | None
    drain: bool


@with_config(ConfigDict(title="BannedStorage"))
class BanObject(TypedDict):
    """A storage that is banned."""

    se: str
    vo: str
    status: str
    message: str
    addition_time: str | None
    admin_dn: str
    until: str | None


@with_config(ConfigDict(title="BannedUser"))
class UserBanObject(TypedDict):
    """A user who is banned."""

    dn: str
    status: str
    message: str
    addition_time: str | None
    admin_dn: str


@with_config(ConfigDict(title="Drain"))
class DrainObject(TypedDict):
    """Whether the node starts nothing new, and how far it is."""

    hostname: str
    drain: bool
    since: str | None
    by: str | None
    running: int
    eta_s: float | None


@with_config(ConfigDict(title="Affected"))
class AffectedObject(TypedDict):
    """How much was cancelled; deletions (`dm`) are none."""

    affected_files: int
    affected_dm: int
    affected_jobs: int


@with_config(ConfigDict(title="Hold"))
class HoldObject(TypedDict):
    """A job that was put on hold or let go on."""

    job_id: str
    job_state: str
    held: bool


BAN: Final = TypeAdapter(BanDocument)
USER_BAN: Final = TypeAdapter(UserBanDocument)
DRAIN: Final = TypeAdapter(DrainDocument)


@dataclass(frozen=True, slots=True, kw_only=True)
class BanRequest:
    """A ban that was asked for."""

    endpoint: str
    vo: str | None
    cancel: bool
    allow_submit: bool
    for_s: float | None
    until: float | None
    message: str


def _read(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise document_error(error) from error


def parse_ban(body: bytes, caller: Caller) -> BanRequest:
    """A ban. As in FTS3 it cancels, and holds for the caller's VO, where the document says nothing else."""
    document: BanDocument = _read(BAN, body)
    status = (document.get("status") or "cancel").upper()
    if status not in {"CANCEL", "WAIT"}:
        raise Refused("status can only be cancel or wait", field="status")
    allow_submit = bool(document.get("allow_submit"))
    if allow_submit and status == "CANCEL":
        raise Refused("allow_submit and status = CANCEL can not be combined", field="allow_submit")
    until = document.get("until")
    return BanRequest(
        endpoint=parse_storage(document.get("storage")),
        vo=parse_vo(document.get("vo"), caller),
        cancel=status == "CANCEL",
        allow_submit=allow_submit,
        for_s=document.get("for_s"),
        until=None if until is None else _parse_instant(until),
        message=document.get("message") or "",
    )


def parse_storage(text: str | None) -> str:
    """The storage of a ban. Raises: Refused, Invalid."""
    if not text:
        raise Refused("Missing storage parameter", field="storage")
    return parse_endpoint(text, "storage")


def parse_vo(text: str | None, caller: Caller) -> str | None:
    """The VO of a ban: as in FTS3 the caller's own, unless it is named; None: all."""
    if text is None:
        return caller.vo
    return None if text == EVERYBODY else text


def _parse_instant(text: str) -> float:
    try:
        return datetime.strptime(text.removesuffix("Z"), _INSTANT).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise value_error(f"until: expected YYYY-MM-DDTHH:MM:SS (UTC), got {text[:40]!r}", field="until") from error


def parse_user_ban(body: bytes) -> tuple[str, str]:
    """(user, message). Raises: Refused."""
    document: UserBanDocument = _read(USER_BAN, body)
    user_dn = document.get("user_dn")
    if not user_dn:
        raise Refused("Missing dn parameter", field="user_dn")
    return user_dn, document.get("message") or ""


def parse_user(query: Mapping[str, str]) -> str:
    """The user whose ban is to be lifted. Raises: Refused."""
    user_dn = query.get("user_dn")
    if not user_dn:
        raise Refused("Missing user_dn parameter", field="user_dn")
    return user_dn


def parse_drain(body: bytes) -> bool:
    """Whether to drain; without a host name this node is meant. Raises: Refused: in FTS's words."""
    try:
        document: DrainDocument = DRAIN.validate_json(body, strict=True)
    except ValidationError as error:
        refused = document_error(error)
        raise (Refused("Invalid drain request", field=refused.field) if refused.field else refused) from error
    if document.get("hostname") not in {None, HOST}:
        raise Refused("Host not found", field="hostname")
    return document.get("drain", True)


def ban_object(ban: Ban) -> BanObject:
    """One row of `GET /ban/se`."""
    status = "CANCEL" if ban.cancel else "WAIT_AS" if ban.allow_submit else "WAIT"
    return BanObject(
        se=ban.endpoint,
        vo=ban.vo or EVERYBODY,
        status=status,
        message=ban.message,
        addition_time=timestamp(ban.since),
        admin_dn=ban.by,
        until=timestamp(ban.until),
    )


def user_ban_object(ban: UserBan) -> UserBanObject:
    """One row of `GET /ban/dn`."""
    return UserBanObject(
        dn=ban.user_dn, status="CANCEL", message=ban.message, addition_time=timestamp(ban.since), admin_dn=ban.by
    )


def drain_object(drain: Drain) -> DrainObject:
    """`GET /config/drain`."""
    return DrainObject(
        hostname=HOST,
        drain=drain.on,
        since=timestamp(drain.since),
        by=drain.by,
        running=drain.n_running,
        eta_s=None if drain.eta_s is None else round(drain.eta_s, 1),
    )
