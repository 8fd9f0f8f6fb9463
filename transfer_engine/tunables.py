"""What operators set while the engine runs: kept, put in force at once, and in force again after a restart.

Each table is one text in the store. A change is on disk before it holds, and holds before its call returns.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from protocols.api import Capabilities
from transfer_engine.banning import Write
from transfer_engine.bans import parse_endpoint
from transfer_engine.callers import Grant
from transfer_engine.errors import Conflict, Invalid
from transfer_engine.limits import LimitTable
from transfer_engine.shares import ShareTable
from transfer_engine.store.api import Store
from transfer_engine.tunable_merge import Defaults, capabilities_of, grants_of, limits_of, shares_of
from transfer_engine.tunable_rows import (
    ANY,
    ActivityRow,
    AuthorizeRow,
    GlobalRow,
    LinkRow,
    OperationRow,
    Row,
    Rows,
    SeRow,
    ShareRow,
    dump,
    row_of,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "config:se": ("se", "operations"),
    "config:links": ("links",),
    "config:shares": ("shares",),
    "config:activity-shares": ("activities",),
    "config:global": ("globals",),
    "config:authorize": ("authorize",),
}
"""Name under which the store keeps a table → fields of `Rows` that are in it. A change is of one table."""
ROWS_MAX: Final = 10_000
"""Most rows of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """All that follows from what is set."""

    limits: LimitTable
    shares: ShareTable
    defaults: Defaults
    capabilities: Mapping[str, Capabilities]


class Tunables:
    """What is set on one engine. Each `set` answers with the row that was there (None: none) and the new one."""

    def __init__(
        self,
        *,
        store: Store,
        limits: LimitTable,
        shares: ShareTable,
        modes: Sequence[str],
        apply: Callable[[Tuned], None],
        write: Write,
    ) -> None:
        """Args: limits, shares, modes: those of the settings. apply: put into force."""
        self._store = store
        self._limits = limits
        self._shares = shares
        self._modes = tuple(modes)
        self._apply = apply
        self._write = write
        self._lock = asyncio.Lock()
        self.rows = Rows()
        self.tuned = self._tuned()

    def _tuned(self) -> Tuned:
        return Tuned(
            limits=limits_of(self._limits, self.rows),
            shares=shares_of(self._shares, self.rows),
            defaults=Defaults(self.rows, self._modes),
            capabilities=capabilities_of(self.rows),
        )

    async def load(self) -> None:
        """Go on with what was set. Raises: StoreUnavailable."""
        found: dict[str, Any] = {}
        for name, fields in TABLES.items():
            text = await self._store.kept(name)
            if text is not None:
                found |= _read(name, fields, text)
        self.rows = Rows.model_construct(**{**dict(Rows()), **found})
        self.tuned = self._tuned()
        if found:
            self._apply(self.tuned)

    async def _change(self, changed: Mapping[str, Any]) -> None:
        if any(len(rows) > ROWS_MAX for rows in changed.values()):
            raise Conflict(f"there are {ROWS_MAX} rows of this kind already")
        rows = self.rows.model_copy(update=dict(changed))
        (table,) = (name for name, fields in TABLES.items() if changed.keys() & set(fields))
        await self._store.keep(table, dump({field: getattr(rows, field) for field in TABLES[table]}))
        self.rows = rows
        self.tuned = self._tuned()
        self._apply(self.tuned)

    async def _do(self, change: Callable[[], tuple[T, dict[str, Any]]]) -> T:
        """Decide on a change with nothing in between, keep it, put it in force."""

        async def locked() -> T:
            async with self._lock:
                answer, fields = change()
                if fields:
                    await self._change(fields)
                return answer

        return await self._write(locked, lambda _: None)

    # Storages

    async def set_storages(
        self, infos: Mapping[str, Mapping[str, Any]], operations: Mapping[str, Mapping[str, Mapping[str, int]]]
    ) -> tuple[dict[str, SeRow | None], dict[str, SeRow]]:
        """Set what is given of storages, and leave the rest; all of it or nothing.

        Args: infos: endpoint (or `*`) → values. operations: endpoint → VO → operation → how many at a time; 0: unset.
        Raises: Invalid, StoreUnavailable.
        """
        new_operations = [
            row_of(OperationRow, {"se": storage(se), "vo": vo, "operation": name, "concurrent": n}, se)
            for se, vos in operations.items()
            for vo, numbers in vos.items()
            for name, n in numbers.items()
        ]

        def change() -> tuple[tuple[dict[str, SeRow | None], dict[str, SeRow]], dict[str, Any]]:
            before = {storage(se): self.rows.se.get(storage(se)) for se in infos}
            after = {
                storage(se): row_of(SeRow, {**_values(before[storage(se)]), **values}) for se, values in infos.items()
            }
            fields: dict[str, Any] = {"se": {**self.rows.se, **after}}
            if new_operations:
                named = {(row.se, row.vo, row.operation): row for row in (*self.rows.operations, *new_operations)}
                fields["operations"] = tuple(row for row in named.values() if row.concurrent)
            return (before, after), fields

        return await self._do(change)

    def row(self, se: str) -> SeRow | None:
        """What is set of a storage. Raises: Invalid."""
        return self.rows.se.get(storage(se))

    async def drop_storage(self, se: str) -> SeRow | None:
        """Set nothing of a storage; what was set, or None. Its operations go as well. Raises: StoreUnavailable."""

        def change() -> tuple[SeRow | None, dict[str, Any]]:
            key = storage(se)
            before = self.rows.se.get(key)
            others = {name: row for name, row in self.rows.se.items() if name != key}
            left = tuple(row for row in self.rows.operations if row.se != key)
            gone = before is not None or left != self.rows.operations
            return before or (SeRow() if gone else None), {"se": others, "operations": left} if gone else {}

        return await self._do(change)

    # Links

    async def set_link(self, values: Mapping[str, Any]) -> tuple[LinkRow | None, LinkRow]:
        """Set what is given of a link, by its symbolic name, and leave the rest.

        Raises: Invalid; also when another name has the same ends. StoreUnavailable.
        """

        def change() -> tuple[tuple[LinkRow | None, LinkRow], dict[str, Any]]:
            before = self.rows.links.get(str(values.get("symbolicname")))
            row = row_of(LinkRow, {**_values(before), **values})
            row = row.model_copy(
                update={"source": storage(row.source, "source"), "destination": storage(row.destination, "destination")}
            )
            same = self.rows.link(row.source, row.destination)
            if same is not None and same.symbolicname != row.symbolicname:
                raise Invalid(f"the same ends are configured as {same.symbolicname}", field="symbolicname")
            return (before, row), {"links": {**self.rows.links, row.symbolicname: row}}

        return await self._do(change)

    async def drop_link(self, name: str) -> LinkRow | None:
        """Set nothing of a link; what was set, or None. Raises: StoreUnavailable."""
        return await self._do(lambda: self._without("links", name))

    def _without(self, field: str, key: str) -> tuple[Any, dict[str, Any]]:
        rows = getattr(self.rows, field)
        if key not in rows:
            return None, {}
        return rows[key], {field: {name: row for name, row in rows.items() if name != key}}

    # Shares

    async def set_share(self, values: Mapping[str, Any]) -> tuple[ShareRow | None, ShareRow]:
        """Set the weight of a VO on a link. Raises: Invalid, StoreUnavailable."""
        row = row_of(ShareRow, values)
        row = row.model_copy(
            update={"source": storage(row.source, "source"), "destination": storage(row.destination, "destination")}
        )

        def change() -> tuple[tuple[ShareRow | None, ShareRow], dict[str, Any]]:
            key = (row.source, row.destination, row.vo)
            named = {(one.source, one.destination, one.vo): one for one in self.rows.shares}
            return (named.get(key), row), {"shares": tuple({**named, key: row}.values())}

        return await self._do(change)

    async def drop_share(self, source: str, destination: str, vo: str) -> ShareRow | None:
        """Set no weight; what was set, or None. Raises: Invalid, StoreUnavailable."""
        key = (storage(source, "source"), storage(destination, "destination"), vo)

        def change() -> tuple[ShareRow | None, dict[str, Any]]:
            left = tuple(one for one in self.rows.shares if (one.source, one.destination, one.vo) != key)
            gone = next((one for one in self.rows.shares if one not in left), None)
            return gone, {} if gone is None else {"shares": left}

        return await self._do(change)

    async def set_activities(self, values: Mapping[str, Any]) -> tuple[ActivityRow | None, ActivityRow]:
        """Set the weights of a VO's activities. Raises: Invalid, StoreUnavailable."""
        row = row_of(ActivityRow, values)
        return await self._do(
            lambda: ((self.rows.activities.get(row.vo), row), {"activities": {**self.rows.activities, row.vo: row}})
        )

    async def drop_activities(self, vo: str) -> ActivityRow | None:
        """Set no weights; what was set, or None. Raises: StoreUnavailable."""
        return await self._do(lambda: self._without("activities", vo))

    # Defaults

    async def set_global(self, values: Mapping[str, Any]) -> tuple[GlobalRow | None, GlobalRow]:
        """Set what is given for a VO, or (`*`) all, and leave the rest. Raises: Invalid, StoreUnavailable."""
        vo = row_of(GlobalRow, values).vo_name

        def change() -> tuple[tuple[GlobalRow | None, GlobalRow], dict[str, Any]]:
            before = self.rows.globals.get(vo)
            row = row_of(GlobalRow, {**_values(before), **values})
            return (before, row), {"globals": {**self.rows.globals, vo: row}}

        return await self._do(change)

    async def drop_global(self, vo: str) -> GlobalRow | None:
        """Set nothing for a VO; what was set, or None. Raises: StoreUnavailable."""
        return await self._do(lambda: self._without("globals", vo))

    # Who may do what

    def grants_of(self, dn: str) -> tuple[Grant, ...]:
        """The roles that somebody was given: `config` makes an operator, `admin` an administrator."""
        return grants_of(self.rows, dn)

    async def authorize(self, values: Mapping[str, Any]) -> tuple[AuthorizeRow | None, AuthorizeRow]:
        """Let somebody do something. Raises: Invalid, StoreUnavailable."""
        row = row_of(AuthorizeRow, values)

        def change() -> tuple[tuple[AuthorizeRow | None, AuthorizeRow], dict[str, Any]]:
            if row in self.rows.authorize:
                return (row, row), {}
            return (None, row), {"authorize": (*self.rows.authorize, row)}

        return await self._do(change)

    async def forbid(self, dn: str, operation: str | None) -> tuple[AuthorizeRow, ...]:
        """Let somebody do something no more, or (None) nothing; what was there. Raises: StoreUnavailable."""

        def change() -> tuple[tuple[AuthorizeRow, ...], dict[str, Any]]:
            gone = tuple(row for row in self.rows.authorize if row.dn == dn and operation in {None, row.operation})
            left = tuple(row for row in self.rows.authorize if row not in gone)
            return gone, {"authorize": left} if gone else {}

        return await self._do(change)


def storage(text: str, field: str = "se") -> str:
    """`*`, or an endpoint as it is looked up. Raises: Invalid."""
    return ANY if text == ANY else parse_endpoint(text, field)


def _values(row: Row | None) -> dict[str, Any]:
    return {} if row is None else row.model_dump(exclude_none=True)


def _read(table: str, fields: Sequence[str], text: str) -> dict[str, Any]:
    try:
        kept = json.loads(text)
        # As Python, not as JSON: so that a strict row takes what `dump` wrote and nothing else.
        return {field: TypeAdapter(_kind(field)).validate_python(kept[field]) for field in fields}
    except (ValueError, KeyError, TypeError):
        log.exception("what was configured cannot be read; going on without it", extra={"table": table})
        return {}


def _kind(field: str) -> Any:
    return Rows.model_fields[field].annotation
