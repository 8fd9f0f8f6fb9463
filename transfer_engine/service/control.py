"""What operators order over HTTP: bans, drain, holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from transfer_engine.bans import HTTP_FAMILY, spellings
from transfer_engine.errors import Conflict, Forbidden, NotFound
from transfer_engine.model import JobId
from transfer_engine.places import Ban
from transfer_engine.service.auth import Caller, identify
from transfer_engine.service.boundary import answer, read_body
from transfer_engine.service.wire.control import (
    HoldObject,
    ban_object,
    drain_object,
    parse_ban,
    parse_drain,
    parse_storage,
    parse_user,
    parse_user_ban,
    parse_vo,
    user_ban_object,
)
from transfer_engine.service.wire.query import OPEN_MAX
from transfer_engine.service.wire.views import job_state
from transfer_engine.service.wire.words import TERMINAL_JOB, no_job
from transfer_engine.states import JOB_TERMINAL
from transfer_engine.store.api import JobFilter

if TYPE_CHECKING:
    from transfer_engine.engine import Engine

NO_CONTENT: Final = 204


class Controls:
    """The handlers of `/ban`, `/config/drain` and the holds of jobs."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    async def ban_storage(self, request: web.Request) -> web.Response:
        """Ban a storage: the ids of the jobs that it concerns."""
        caller = _operator(request)
        wanted = parse_ban(await read_body(request), caller)
        done = await self._engine.control.ban(
            wanted.endpoint,
            vo=wanted.vo,
            cancel=wanted.cancel,
            allow_submit=wanted.allow_submit,
            for_s=wanted.for_s,
            until=wanted.until,
            message=wanted.message,
            by=caller.user_dn,
        )
        return answer(done.job_ids if wanted.cancel else await self._waiting_for(done.ban))

    async def _waiting_for(self, ban: Ban) -> list[JobId]:
        """Open jobs that read from or write to the storage; those of several storages are not listed by any."""
        found: dict[JobId, None] = {}
        for endpoint in spellings(ban.endpoint)[: len(HTTP_FAMILY)]:
            for where in (
                JobFilter(open_only=True, vo=ban.vo, source_se=endpoint, limit=OPEN_MAX),
                JobFilter(open_only=True, vo=ban.vo, dest_se=endpoint, limit=OPEN_MAX),
            ):
                found.update(dict.fromkeys(job.job_id for job in await self._engine.reader.jobs(where)))
        return list(found)

    async def unban_storage(self, request: web.Request) -> web.Response:
        """Lift the ban of a storage; none is fine, too."""
        caller = _operator(request)
        endpoint = parse_storage(request.query.get("storage"))
        await self._engine.control.unban(endpoint, vo=parse_vo(request.query.get("vo"), caller), by=caller.user_dn)
        return web.Response(status=NO_CONTENT)

    async def banned_storages(self, request: web.Request) -> web.Response:
        """The storages that are banned."""
        _operator(request)
        return answer([ban_object(ban) for ban in self._engine.control.bans()])

    async def ban_user(self, request: web.Request) -> web.Response:
        """Ban a user: the ids of the jobs that were cancelled."""
        caller = _operator(request)
        user_dn, message = parse_user_ban(await read_body(request))
        if user_dn == caller.user_dn:
            raise Conflict("The user tried to ban (her|his)self")
        return answer(await self._engine.control.ban_user(user_dn, message=message, by=caller.user_dn))

    async def unban_user(self, request: web.Request) -> web.Response:
        """Lift the ban of a user; none is fine, too."""
        caller = _operator(request)
        await self._engine.control.unban_user(parse_user(request.query), by=caller.user_dn)
        return web.Response(status=NO_CONTENT)

    async def banned_users(self, request: web.Request) -> web.Response:
        """The users who are banned."""
        _operator(request)
        return answer([user_ban_object(ban) for ban in self._engine.control.banned_users()])

    async def drain(self, request: web.Request) -> web.Response:
        """Start nothing new on this node, or work again."""
        caller = _operator(request)
        await self._engine.control.drain(parse_drain(await read_body(request)), by=caller.user_dn)
        return answer(None)

    async def draining(self, request: web.Request) -> web.Response:
        """Whether the node is drained, and how far it is."""
        _operator(request)
        return answer(drain_object(self._engine.control.draining()))

    async def hold(self, request: web.Request) -> web.Response:
        """Put a job on hold."""
        return await self._hold(request, held=True)

    async def resume(self, request: web.Request) -> web.Response:
        """Let a job go on."""
        return await self._hold(request, held=False)

    async def _hold(self, request: web.Request, *, held: bool) -> web.Response:
        job_id = JobId(request.match_info["job_id"])
        try:
            job = await self._engine.reader.job(job_id)
            if job.state in JOB_TERMINAL:
                raise Conflict(TERMINAL_JOB)
            control = self._engine.control
            await (control.hold(job_id) if held else control.resume(job_id))
            state = job_state(await self._engine.reader.job(job_id))
        except NotFound as error:
            raise NotFound(no_job(job_id)) from error
        return answer(HoldObject(job_id=job_id, job_state=state.value, held=held))


def _operator(request: web.Request) -> Caller:
    """The caller, who may operate the node. Raises: Forbidden: in FTS's words."""
    caller = identify(request)
    if "config" not in dict(caller.levels):
        raise Forbidden("Not enough permissions")
    return caller
