"""What operators order over HTTP: bans, drain, holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from aiohttp import web

from transfer_engine.bans import HTTP_FAMILY, spellings
from transfer_engine.errors import Conflict, NotFound
from transfer_engine.guarded import Gate, Guarded
from transfer_engine.model import JobId
from transfer_engine.places import Ban
from transfer_engine.service.boundary import answer, caller_of, read_body
from transfer_engine.service.wire.control import (
    AffectedObject,
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
from transfer_engine.service.wire.views import HOST, job_state
from transfer_engine.service.wire.words import TERMINAL_JOB, no_job
from transfer_engine.states import JOB_TERMINAL
from transfer_engine.store.api import JobFilter

NO_CONTENT: Final = 204


class Controls:
    """The handlers of `/ban`, `/config/drain` and the holds of jobs."""

    def __init__(self, *, gate: Gate) -> None:
        self._gate = gate

    def _of(self, request: web.Request) -> Guarded:
        return self._gate.of(caller_of(request))

    async def ban_storage(self, request: web.Request) -> web.Response:
        """Ban a storage: the ids of the jobs that it concerns."""
        engine = self._of(request)
        wanted = parse_ban(await read_body(request), engine.caller)
        done = await engine.control(wanted.vo).ban(
            wanted.endpoint,
            vo=wanted.vo,
            cancel=wanted.cancel,
            allow_submit=wanted.allow_submit,
            for_s=wanted.for_s,
            until=wanted.until,
            message=wanted.message,
            by=engine.caller.user_dn,
        )
        await engine.audit("ban-se", wanted.endpoint, asdict(wanted))
        return answer(done.job_ids if wanted.cancel else await self._waiting_for(engine, done.ban))

    @staticmethod
    async def _waiting_for(engine: Guarded, ban: Ban) -> list[JobId]:
        """Open jobs that read from or write to the storage; those of several storages are not listed by any."""
        found: dict[JobId, None] = {}
        for endpoint in spellings(ban.endpoint)[: len(HTTP_FAMILY)]:
            for where in (
                JobFilter(open_only=True, vo=ban.vo, source_se=endpoint, limit=OPEN_MAX),
                JobFilter(open_only=True, vo=ban.vo, dest_se=endpoint, limit=OPEN_MAX),
            ):
                found.update(dict.fromkeys(job.job_id for job in await engine.reader.jobs(where)))
        return list(found)

    async def cancel_vo(self, request: web.Request) -> web.Response:
        """Cancel what has not ended of a VO: how much that was."""
        return await self._cancel_all(self._of(request), request.match_info["vo"])

    async def cancel_everything(self, request: web.Request) -> web.Response:
        """Cancel what has not ended of everybody: how much that was."""
        return await self._cancel_all(self._of(request), None)

    @staticmethod
    async def _cancel_all(engine: Guarded, vo: str | None) -> web.Response:
        n_jobs, n_files = await engine.cancel_all(vo)
        return answer(AffectedObject(affected_files=n_files, affected_dm=0, affected_jobs=n_jobs))

    async def unban_storage(self, request: web.Request) -> web.Response:
        """Lift the ban of a storage; none is fine, too."""
        engine = self._of(request)
        endpoint = parse_storage(request.query.get("storage"))
        vo = parse_vo(request.query.get("vo"), engine.caller)
        await engine.control(vo).unban(endpoint, vo=vo, by=engine.caller.user_dn)
        await engine.audit("unban-se", endpoint, {"vo": vo})
        return web.Response(status=NO_CONTENT)

    async def banned_storages(self, request: web.Request) -> web.Response:
        """The storages that are banned: for everybody, and for the VOs that the caller looks after."""
        engine = self._of(request)
        return answer([ban_object(ban) for ban in engine.bans() if engine.looks_after(ban.vo)])

    async def ban_user(self, request: web.Request) -> web.Response:
        """Ban a user: the ids of the jobs that were cancelled."""
        engine = self._of(request)
        user_dn, message = parse_user_ban(await read_body(request))
        if user_dn == engine.caller.user_dn:
            raise Conflict("The user tried to ban (her|his)self")
        job_ids = await engine.control(None).ban_user(user_dn, message=message, by=engine.caller.user_dn)
        await engine.audit("ban-dn", user_dn, {"message": message})
        return answer(job_ids)

    async def unban_user(self, request: web.Request) -> web.Response:
        """Lift the ban of a user; none is fine, too."""
        engine = self._of(request)
        user_dn = parse_user(request.query)
        await engine.control(None).unban_user(user_dn, by=engine.caller.user_dn)
        await engine.audit("unban-dn", user_dn)
        return web.Response(status=NO_CONTENT)

    async def banned_users(self, request: web.Request) -> web.Response:
        """The users who are banned."""
        return answer([user_ban_object(ban) for ban in self._of(request).control(None).banned_users()])

    async def drain(self, request: web.Request) -> web.Response:
        """Start nothing new on this node, or work again."""
        engine = self._of(request)
        on = parse_drain(await read_body(request))
        await engine.control(None).drain(on, by=engine.caller.user_dn)
        await engine.audit("drain", HOST, {"drain": on})
        return answer(None)

    async def draining(self, request: web.Request) -> web.Response:
        """Whether the node is drained, and how far it is."""
        return answer(drain_object(self._of(request).control(None).draining()))

    async def hold(self, request: web.Request) -> web.Response:
        """Put a job on hold."""
        return await self._hold(request, held=True)

    async def resume(self, request: web.Request) -> web.Response:
        """Let a job go on."""
        return await self._hold(request, held=False)

    async def _hold(self, request: web.Request, *, held: bool) -> web.Response:
        engine = self._of(request)
        job_id = JobId(request.match_info["job_id"])
        try:
            job = await engine.writable(job_id)
            if job.state in JOB_TERMINAL:
                raise Conflict(TERMINAL_JOB)
            await engine.hold(job_id, held=held)
            state = job_state(await engine.reader.job(job_id))
        except NotFound as error:
            raise NotFound(no_job(job_id)) from error
        return answer(HoldObject(job_id=job_id, job_state=state.value, held=held))
