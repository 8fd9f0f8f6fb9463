"""What operators set over HTTP: limits, shares, defaults, and who may do what."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from aiohttp import web

from transfer_engine.clock import Clock
from transfer_engine.errors import Forbidden, Invalid, NotFound
from transfer_engine.guarded import REFUSED, Gate, Guarded
from transfer_engine.service.boundary import answer, caller_of, read_body
from transfer_engine.service.wire import config as wire
from transfer_engine.service.wire.words import Refused
from transfer_engine.tunable_rows import ANY, Row
from transfer_engine.tunables import Tunables

T = TypeVar("T")
R = TypeVar("R", bound=Row)

AUDITED_MAX: Final = 1000
"""Newest entries of the record of orders that are shown."""
NO_CONTENT: Final = 204


class Configuration:
    """The handlers below `/config`, but for the drain."""

    def __init__(self, *, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock

    def _of(self, request: web.Request) -> Guarded:
        return self._gate.of(caller_of(request))

    async def _set(
        self,
        engine: Guarded,
        action: str,
        about: str,
        change: Awaitable[tuple[R | None, R]],
    ) -> R:
        """Make a change and record what was there before and what is there now."""
        before, after = await _in_fts_words(change)
        await engine.audit(action, about, {"old": _shown(before), "new": _shown(after)})
        return after

    async def _drop(self, engine: Guarded, action: str, about: str, change: Awaitable[R | None]) -> web.Response:
        """Take something away; that there was nothing is fine, too."""
        gone = await _in_fts_words(change)
        if gone is not None:
            await engine.audit(action, about, {"old": _shown(gone), "new": None})
        return web.Response(status=NO_CONTENT)

    # The instance

    async def hosts(self, request: web.Request) -> web.Response:
        """The instances of the service: this one."""
        drained = self._of(request).control(None).draining().on
        return answer([wire.host_object(self._clock.now(), drain=drained)])

    async def audit(self, request: web.Request) -> web.Response:
        """The newest orders."""
        return answer(wire.audit_objects(await self._of(request).reader.audit(AUDITED_MAX)))

    # Defaults

    async def globals(self, request: web.Request) -> web.Response:
        """The defaults of VOs."""
        return answer(wire.globals_object(self._of(request).configured()))

    async def set_global(self, request: web.Request) -> web.Response:
        """Set defaults of a VO, or of all: the defaults of VOs."""
        engine = self._of(request)
        values = wire.plain(wire.read_values(await read_body(request)))
        vo = _text(values.get("vo_name"), ANY)
        await self._set(engine, "set-globals", vo, engine.tunables(vo).set_global(values))
        return answer(wire.globals_object(engine.configured()))

    async def drop_global(self, request: web.Request) -> web.Response:
        """Set no defaults of a VO."""
        engine = self._of(request)
        vo = wire.parameter(request.query, "vo_name", "Missing VO name")
        return await self._drop(engine, "delete-globals", vo, engine.tunables(vo).drop_global(vo))

    # Links

    async def links(self, request: web.Request) -> web.Response:
        """The links that are configured."""
        return answer(wire.links_object(self._of(request).configured()))

    async def link(self, request: web.Request) -> web.Response:
        """One of them."""
        name = request.match_info["symbolicname"]
        row = self._of(request).configured().links.get(name)
        if row is None:
            raise NotFound(f"Link {name[:100]} does not exist")
        return answer(wire.row_object(row))

    async def set_link(self, request: web.Request) -> web.Response:
        """Set a link: what is set now."""
        engine = self._of(request)
        tunables = engine.tunables(None)
        values = wire.parse_link(await read_body(request), tunables.rows.links)
        row = await self._set(engine, "link", str(values["symbolicname"]), tunables.set_link(values))
        return answer(wire.row_object(row), status=201)

    async def drop_link(self, request: web.Request) -> web.Response:
        """Set nothing of a link."""
        engine = self._of(request)
        name = request.match_info["symbolicname"]
        return await self._drop(engine, "link-delete", name, engine.tunables(None).drop_link(name))

    # Shares

    async def shares(self, request: web.Request) -> web.Response:
        """The shares of links that are configured."""
        return answer(wire.shares_object(self._of(request).configured()))

    async def set_share(self, request: web.Request) -> web.Response:
        """Set the weight of a VO on a link: the weight."""
        engine = self._of(request)
        values = wire.parse_share(await read_body(request))
        about = f"{values['source']}, {values['destination']}, {_text(values['vo'])}"
        change = engine.tunables(None).set_share(values)
        return answer(wire.number(await self._set(engine, "share-set", about, change)))

    async def drop_share(self, request: web.Request) -> web.Response:
        """Set no weight of a VO on a link."""
        engine = self._of(request)
        missing = "Missing source, destination and/or vo"
        source, destination, vo = (
            wire.parameter(request.query, name, missing) for name in ("source", "destination", "vo")
        )
        about = f"{source}, {destination}, {vo}"
        change = engine.tunables(None).drop_share(source, destination, vo)
        return await self._drop(engine, "share-delete", about, change)

    async def activities(self, request: web.Request) -> web.Response:
        """The weights of activities."""
        rows = self._of(request).configured().activities
        return answer({vo: wire.activities_object(row) for vo, row in rows.items()})

    async def activities_of(self, request: web.Request) -> web.Response:
        """Those of one VO."""
        engine, vo = self._of(request), request.match_info["vo"]
        if not engine.looks_after(vo):
            raise Forbidden(REFUSED)
        row = engine.configured().activities.get(vo)
        if row is None:
            raise NotFound(f"No activity shares for {vo[:100]}")
        return answer(wire.activities_object(row))

    async def set_activities(self, request: web.Request) -> web.Response:
        """Set them: what is set now."""
        engine = self._of(request)
        values = wire.parse_activities(await read_body(request))
        vo = _text(values["vo"])
        change = engine.tunables(vo).set_activities(values)
        return answer(wire.set_activities_object(await self._set(engine, "activity-share", vo, change)))

    async def drop_activities(self, request: web.Request) -> web.Response:
        """Set none of a VO."""
        engine = self._of(request)
        vo = request.match_info["vo"]
        tunables = engine.tunables(vo)
        if vo not in tunables.rows.activities:
            raise NotFound(f"No activity shares for {vo[:100]}")
        return await self._drop(engine, "activity-share-delete", vo, tunables.drop_activities(vo))

    # Storages

    async def storages(self, request: web.Request) -> web.Response:
        """The storages that are configured, or one of them."""
        return answer(wire.storages_object(self._of(request).configured(), request.query.get("se") or None))

    async def set_storages(self, request: web.Request) -> web.Response:
        """Set storages: what is set now of the last one, and its operations."""
        engine = self._of(request)
        infos, operations = wire.parse_storages(await read_body(request))
        tunables: Tunables | None = engine.tunables(None) if infos else None
        for vos in operations.values():
            for vo in vos:
                tunables = engine.tunables(vo)
        assert tunables is not None, "a change of nothing has been refused"
        before, after = await _in_fts_words(tunables.set_storages(infos, operations))
        for se, row in after.items():
            await engine.audit("set-se-config", se, {"old": _shown(before[se]), "new": _shown(row)})
        for se, limits in operations.items():
            await engine.audit("set-se-limits", se, {"new": limits})
        last = [*infos, *operations][-1]
        return answer(wire.set_storage_object(tunables.row(last), last, operations.get(last)))

    async def drop_storage(self, request: web.Request) -> web.Response:
        """Set nothing of a storage."""
        engine = self._of(request)
        se = wire.parameter(request.query, "se", "Missing storage (se)")
        return await self._drop(engine, "delete-se-config", se, engine.tunables(None).drop_storage(se))

    # Who may do what

    async def authorized(self, request: web.Request) -> web.Response:
        """Who has been given what."""
        query = request.query
        rows = self._of(request).configured().authorize
        return answer(wire.authorize_objects(rows, query.get("dn"), query.get("operation")))

    async def authorize(self, request: web.Request) -> web.Response:
        """Let somebody do something: the same again."""
        engine = self._of(request)
        tunables = engine.authorizing()
        values = wire.parse_authorization(await read_body(request))
        about = str(values["dn"])
        return answer(wire.row_object(await self._set(engine, "authorize", about, tunables.authorize(values))))

    async def forbid(self, request: web.Request) -> web.Response:
        """Take it back."""
        engine = self._of(request)
        tunables = engine.authorizing()
        dn = wire.parameter(request.query, "dn", "Missing DN parameter")
        gone = await tunables.forbid(dn, request.query.get("operation") or None)
        if gone:
            await engine.audit("revoke", dn, {"old": [_shown(row) for row in gone], "new": None})
        return web.Response(status=NO_CONTENT)

    # Clouds

    async def clouds(self, _: web.Request) -> web.Response:
        """The cloud storages that are registered: none."""
        return answer([])

    async def no_cloud(self, _: web.Request) -> web.Response:
        """There is none of this name."""
        raise NotFound("The storage does not exist")

    async def refuse_cloud(self, _: web.Request) -> web.Response:
        """None can be registered."""
        raise Refused(wire.NO_CLOUDS)


def _text(value: Any, default: str = "") -> str:
    """The VO that a change concerns; what is no text is refused with the rest of the row."""
    return value if isinstance(value, str) and value else default


def _shown(row: Row | None) -> Any:
    return None if row is None else row.model_dump(exclude_none=True)


async def _in_fts_words(change: Awaitable[T]) -> T:
    try:
        return await change
    except Invalid as error:
        raise wire.refused(error) from error
