"""What can be looked up: jobs that are over, files of all jobs, names, the optimizer's figures."""

from __future__ import annotations

from typing import Final, cast

from aiohttp import web

from transfer_engine.clock import Clock
from transfer_engine.errors import NotFound
from transfer_engine.guarded import Gate, Guarded
from transfer_engine.model import JobId
from transfer_engine.service.boundary import answer, caller_of, read_body
from transfer_engine.service.wire import catalogue as wire
from transfer_engine.service.wire.documents import SUBMISSION
from transfer_engine.service.wire.views import JOB_COLUMNS, file_objects, job_object
from transfer_engine.service.wire.words import Refused
from transfer_engine.store.api import NameKind
from transfer_engine.views import FileView, JobView

EVOLUTION_MAX: Final = 50
"""FTS3's number of decisions in an answer."""
NAMES_MAX: Final = 500
SCHEMA: Final = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SUBMISSION.json_schema()}
FIXED_NUMBERS: Final = (
    "The optimizer finds its numbers itself, and nobody can set them; to bound what runs on a link: POST /config/links"
)


class Catalogue:
    """The handlers of `/archive`, `/files`, `/autocomplete`, `/optimizer`, `/status`, `/admin`, `/api-docs`."""

    def __init__(self, *, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock

    def _of(self, request: web.Request) -> Guarded:
        return self._gate.of(caller_of(request))

    # Jobs that are over

    async def archive(self, _: web.Request) -> web.Response:
        """Where archived jobs are."""
        return answer(wire.ARCHIVE)

    async def archived(self, request: web.Request) -> web.Response:
        """A job that is over, with its files."""
        job, files = await self._archived(request)
        return answer({**job_object(job), "files": file_objects(job, files)})

    async def archived_field(self, request: web.Request) -> web.Response:
        """One value of it."""
        job, files = await self._archived(request)
        field = request.match_info["field"]
        if field == "files":
            return answer(file_objects(job, files))
        getter = JOB_COLUMNS.get(field)
        if getter is None:
            raise NotFound("No such field")
        return answer(getter(job))

    async def _archived(self, request: web.Request) -> tuple[JobView, list[FileView]]:
        job_id = JobId(request.match_info["job_id"])
        found = await self._of(request).reader.jobs_by_id([job_id], files=True)
        if job_id not in found or found[job_id][0].finished_at is None:
            raise NotFound(f'No job with the id "{job_id[:100]}" has been found in the archive')
        return found[job_id]

    # Lists

    async def files(self, request: web.Request) -> web.Response:
        """Files that match the filters, newest first."""
        where = wire.parse_files(request.query, now=self._clock.now())
        reader = self._of(request).reader
        found = await reader.file_list(where) if where.limit else []
        jobs = await reader.jobs_by_id(list(dict.fromkeys(file.job_id for file in found)), files=False)
        return answer([file_objects(jobs[file.job_id][0], [file])[0] for file in found if file.job_id in jobs])

    async def autocomplete(self, request: web.Request) -> web.Response:
        """Names that begin with something."""
        of = cast("NameKind", request.match_info["kind"])
        if of not in {"dn", "vo", "source", "destination", "storage"}:
            raise web.HTTPNotFound
        return answer(await self._of(request).reader.names(of, request.query.get("term", ""), NAMES_MAX))

    # The optimizer

    async def optimizes(self, request: web.Request) -> web.Response:
        """Does the optimizer bound anything?"""
        return answer(self._of(request).decisions.enabled)

    async def evolution(self, request: web.Request) -> web.Response:
        """Its newest decisions, newest first."""
        found = self._of(request).decisions.newest(wire.parse_ends(request.query), EVOLUTION_MAX)
        return answer(wire.evolution_objects(found))

    async def current(self, request: web.Request) -> web.Response:
        """How many it lets run now."""
        return answer(wire.current_objects(self._of(request).decisions.last(wire.parse_ends(request.query))))

    async def set_current(self, request: web.Request) -> web.Response:
        """Nobody sets that."""
        await read_body(request)
        raise Refused(FIXED_NUMBERS)

    # The instance

    async def activity(self, request: web.Request) -> web.Response:
        """What the instances of the service do: this one."""
        return answer(wire.hosts_object(len(self._of(request).running())))

    async def force(self, request: web.Request) -> web.Response:
        """Start files out of turn: those that could not be, and why."""
        file_ids = wire.parse_start(await read_body(request))
        return answer(wire.start_objects(await self._of(request).force(file_ids)))

    async def submission_schema(self, _: web.Request) -> web.Response:
        """The JSON schema of a submission."""
        return answer(SCHEMA)
