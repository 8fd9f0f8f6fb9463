"""What operators set while the engine runs: the rows of each table, checked. Data only.

They are what FTS3's configuration has: limits of storages and links, shares of VOs and activities,
defaults of a VO's transfers, who may do what. A value of 0 or null for a limit means what it means
there: nothing is set, and what is set elsewhere or in the settings holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from transfer_engine.errors import Invalid

ANY: Final = "*"
"""Every storage, every VO."""
SPEED: Final = 1024 * 1024
"""Bytes per second of FTS3's unit of throughput, "MB/s"."""
TEXT_MAX: Final = 1024

Slots = Annotated[int, Field(ge=0, le=100_000)]
Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX, pattern=r"^[^\x00-\x1f\x7f]+$")]
Weight = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


def _flag(value: object) -> object:
    return bool(value) if type(value) is int and value in {0, 1} else value


Flag = Annotated[bool, BeforeValidator(_flag)] | None
"""FTS3's own tools and tests write 0 and 1."""

TPC_SUPPORT: Final = ("FULL", "PULL", "PUSH", "NONE")
OPERATIONS: Final = ("transfer", "deleg", "config", "admin", "datamanagement")
"""What a DN may be allowed beside its own transfers, in FTS3's words."""


class Row(BaseModel):
    """One row: an unknown key is an error, and no value is taken for another type's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SeRow(Row):
    """A storage, or (`*`) what holds for all that are not named."""

    inbound_max_active: Slots | None = None
    outbound_max_active: Slots | None = None
    inbound_max_throughput: Number | None = None
    """MB/s."""
    outbound_max_throughput: Number | None = None
    tpc_support: Literal["FULL", "PULL", "PUSH", "NONE"] | None = None
    """What it can do as the active party of a copy."""
    # What follows is kept and shown.
    site: Annotated[str, Field(max_length=TEXT_MAX)] | None = None
    se_metadata: Annotated[str, Field(max_length=TEXT_MAX)] | None = None
    udt: Flag = None
    ipv6: Flag = None
    debug_level: Annotated[int, Field(ge=0, le=10)] | None = None
    skip_eviction: Flag = None
    eviction: Flag = None
    overwrite_disk_enabled: Flag = None


class LinkRow(Row):
    """The transfers from a storage to another; `*` stands for any."""

    symbolicname: Text
    source: Text
    destination: Text
    min_active: Slots = 0
    max_active: Slots = 0
    optimizer_mode: Annotated[int, Field(ge=0, le=3)] | None = None
    tcp_buffer_size: Annotated[int, Field(ge=0, le=1 << 30)] | None = None
    nostreams: Annotated[int, Field(ge=0, le=16)] | None = None
    no_delegation: Flag = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_active and self.max_active < self.min_active:
            msg = "max_active is lower than min_active"
            raise ValueError(msg)
        return self


class ShareRow(Row):
    """The weight of a VO on a link."""

    source: Text
    destination: Text
    vo: Text
    share: Weight


class ActivityRow(Row):
    """The weights of a VO's activities."""

    vo: Text
    share: Annotated[Mapping[Text, Weight], Field(min_length=1, max_length=1000)]
    active: bool = True


class GlobalRow(Row):
    """What holds for the transfers of a VO, or of all (`*`), that do not say."""

    vo_name: Text = ANY
    retry: Annotated[int, Field(ge=0, le=1000)] | None = None
    max_time_queue: Annotated[int, Field(ge=0, le=87_600)] | None = None
    """Hours."""
    global_timeout: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Seconds."""
    sec_per_mb: Number | None = None
    no_streaming: Flag = None
    show_user_dn: Flag = None


class AuthorizeRow(Row):
    """Somebody may do something."""

    dn: Text
    operation: Literal["transfer", "deleg", "config", "admin", "datamanagement"]


class OperationRow(Row):
    """How many operations of a kind run at a time at a storage for a VO."""

    se: Text
    vo: Text
    operation: Text
    concurrent: Slots


class Rows(BaseModel):
    """All that is set."""

    model_config = ConfigDict(frozen=True)

    se: Mapping[str, SeRow] = Field(default_factory=dict)
    """By endpoint, or `*`."""
    operations: tuple[OperationRow, ...] = ()
    links: Mapping[str, LinkRow] = Field(default_factory=dict)
    """By symbolic name."""
    shares: tuple[ShareRow, ...] = ()
    activities: Mapping[str, ActivityRow] = Field(default_factory=dict)
    """By VO."""
    globals: Mapping[str, GlobalRow] = Field(default_factory=dict)
    """By VO, or `*`."""
    authorize: tuple[AuthorizeRow, ...] = ()

    def link(self, source_se: str, dest_se: str) -> LinkRow | None:
        """The row of exactly these ends."""
        ends = (source_se, dest_se)
        return next((row for row in self.links.values() if (row.source, row.destination) == ends), None)


R = TypeVar("R", bound=Row)


def row_of(kind: type[R], values: Mapping[str, Any], where: str = "") -> R:
    """A row from values that somebody sent. Raises: Invalid: names the key and what was expected."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        text = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        field = ".".join(part for part in (where, key) if part)
        raise Invalid(text[:1].lower() + text[1:], field=field or None) from error


def dump(rows: object) -> str:
    """Part of `Rows` as JSON text."""
    return json.dumps(_plain(rows), ensure_ascii=False, sort_keys=True)


def _plain(rows: object) -> Any:
    if isinstance(rows, BaseModel):
        return rows.model_dump(mode="json")
    if isinstance(rows, Mapping):
        return {key: _plain(value) for key, value in rows.items()}
    if isinstance(rows, tuple | list):
        return [_plain(value) for value in rows]
    return rows
