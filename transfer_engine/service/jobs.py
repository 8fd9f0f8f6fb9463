"""Jobs over HTTP: submit, look, cancel, change. Reads go to the reader, writes to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from aiohttp import web

from transfer_engine.clock import Clock
from transfer_engine.config_service import ServiceSettings
from transfer_engine.errors import Conflict, NotFound
from transfer_engine.guarded import Gate, Guarded
from transfer_engine.model import FileId, JobId
from transfer_engine.service.boundary import answer, caller_of, read_body
from transfer_engine.service.delegation import Delegations
from transfer_engine.service.tokens import StorageTokens
from transfer_engine.service.wire.query import (
    OPEN_MAX,
    parse_columns,
    parse_file_ids,
    parse_ids,
    parse_list,
    parse_priority,
)
from transfer_engine.service.wire.submission import parse_submission
from transfer_engine.service.wire.views import (
    JOB_COLUMNS,
    attempt_objects,
    cancels_alone,
    file_objects,
    file_state,
    job_entry,
    job_object,
    missing_job,
)
from transfer_engine.service.wire.words import (
    DUPLICATED_SID,
    FOREIGN_FILE,
    FOUND,
    TERMINAL_JOB,
    UNCHANGED,
    Refused,
    no_job,
)
from transfer_engine.states import JOB_TERMINAL
from transfer_engine.store.api import Canceled
from transfer_engine.views import FileView, JobView

T = TypeVar("T")

THREAD_BYTES: Final = 256 * 1024
"""Bodies beyond this are read in a thread, so that a large job does not hold up everybody."""
THREAD_OBJECTS: Final = 2000
"""Answers with more files or jobs than this are written in a thread."""
AT_ONCE: Final = 100
"""Most jobs of one request that are changed at the same time, to share a commit."""


class Jobs:
    """The handlers of everything below `/jobs`."""

    def __init__(
        self,
        *,
        gate: Gate,
        settings: ServiceSettings,
        clock: Clock,
        tokens: StorageTokens,
        delegations: Delegations,
    ) -> None:
        """Args: tokens: says which tokens of files are taken. delegations: who has to delegate before."""
        self._tokens = tokens
        self._delegations = delegations
        self._gate = gate
        self._settings = settings
        self._clock = clock

    async def submit(self, request: web.Request) -> web.Response:
        """Accept a job: the answer is sent when it is stored."""
        body = await read_body(request)
        caller = caller_of(request)
        await self._delegations.check(caller)

        def parse() -> Any:
            now = self._clock.now()
            return parse_submission(
                body, caller=caller, now=now, files_max=self._settings.files_max, rules=self._tokens.rules(now)
            )

        job = await asyncio.to_thread(parse) if len(body) > THREAD_BYTES else parse()
        await self._tokens.verify(job)
        try:
            job_id = await self._gate.of(caller).submit(job)
        except Conflict as error:
            raise Conflict(DUPLICATED_SID if job.job_id else str(error)) from error
        return answer({"job_id": job_id})

    async def listing(self, request: web.Request) -> web.Response:
        """Jobs that match the filters."""
        wanted = parse_list(request.query, caller=caller_of(request), now=self._clock.now())
        if wanted.where.limit == 0 or wanted.where.states == frozenset():
            return answer([])
        found = await self._of(request).reader.jobs(wanted.where)
        cut = {"X-Truncated-At": str(OPEN_MAX)} if len(found) >= OPEN_MAX else None
        return await _written(
            lambda: answer([job_object(job, wanted.fields) for job in found], headers=cut), len(found)
        )

    async def show(self, request: web.Request) -> web.Response:
        """One job, or a list of them; with `files=` also the named columns of their files."""
        ids, many = parse_ids(request.match_info["ids"])
        columns = parse_columns(request.query.get("files"))
        engine = self._of(request)
        found = await engine.reader.jobs_by_id(ids, files=bool(columns))

        def entries() -> list[tuple[int, Any]]:
            shown: list[tuple[int, Any]] = []
            for job_id in ids:
                if job_id not in found:
                    shown.append((404, missing_job(job_id)))
                    continue
                job, files = found[job_id]
                more: dict[str, Any] = {"files": file_objects(job, files, columns, engine.on_hold)} if columns else {}
                shown.append((200, job_entry(job, **more)))
            return shown

        n_files = sum(len(files) for _, files in found.values())
        return await _written(lambda: self._by_id(entries(), many=many), n_files)

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel jobs; what has ended stays as it is."""
        ids, many = parse_ids(request.match_info["ids"])

        engine = self._of(request)

        async def cancel(job_id: JobId) -> Canceled | None:
            try:
                return await engine.cancel(job_id)
            except NotFound:
                return None

        done = await _each(cancel, ids)
        ended = {canceled.job_id for canceled in done if canceled is not None and canceled.was_terminal}
        return await self._changed(engine, ids, ended, many=many, files=False)

    async def modify(self, request: web.Request) -> web.Response:
        """Change the priority of jobs; what has ended stays as it is."""
        ids, many = parse_ids(request.match_info["ids"])
        priority = parse_priority(await read_body(request))
        engine = self._of(request)
        before = await engine.reader.jobs_by_id(ids, files=False)
        ended = {job_id for job_id, (job, _) in before.items() if job.state in JOB_TERMINAL}

        async def change(job_id: JobId) -> None:
            if priority is not None:
                await engine.set_priority(job_id, priority)

        await _each(change, [job_id for job_id in before if job_id not in ended])
        return await self._changed(engine, ids, ended, many=many, files=True)

    async def _changed(
        self, engine: Guarded, ids: Sequence[JobId], ended: Collection[JobId], *, many: bool, files: bool
    ) -> web.Response:
        """The jobs after a change that those in `ended` did not take part in."""
        found = await engine.reader.jobs_by_id(ids, files=files)

        def entry(job_id: JobId) -> tuple[int, Any]:
            if job_id not in found:
                return 404, missing_job(job_id)
            job, listed = found[job_id]
            more: dict[str, Any] = {"http_message": TERMINAL_JOB if job_id in ended else None}
            if files:
                more["files"] = file_objects(job, listed, on_hold=engine.on_hold)
            return 200, job_entry(job, status=UNCHANGED if job_id in ended else FOUND, **more)

        n_files = sum(len(listed) for _, listed in found.values())
        return await _written(lambda: self._by_id([entry(job_id) for job_id in ids], many=many), n_files)

    async def files(self, request: web.Request) -> web.Response:
        """All files of a job."""
        job, files = await self._load(request, files=True)
        on_hold = self._of(request).on_hold
        return await _written(lambda: answer(file_objects(job, files, on_hold=on_hold)), len(files))

    async def cancel_files(self, request: web.Request) -> web.Response:
        """Cancel some files of a job: their states, one text for one id."""
        file_ids, many = parse_file_ids(request.match_info["file_ids"])
        job, _ = await self._load(request, files=False)
        if not cancels_alone(job.job_type):
            raise Refused(f"Multihop or reuse jobs must be cancelled at once ({job.job_type.value})")
        states: dict[FileId, str] = {}
        if file_ids:
            canceled = await self._of(request).cancel(job.job_id, file_ids)
            states = {file_id: file_state(state) for file_id, state in canceled.states}
        shown = [states.get(file_id, FOREIGN_FILE) for file_id in file_ids]
        return answer(shown if many or not shown else shown[0])

    async def retries(self, request: web.Request) -> web.Response:
        """The attempts of a file that failed."""
        job, _ = await self._load(request, files=False)
        file_ids, many = parse_file_ids(request.match_info["file_id"])
        if many or len(file_ids) != 1:
            raise Refused("expected one file id", field="file_id")
        reader = self._of(request).reader
        attempts = await reader.attempts(job.job_id, file_ids[0])
        return answer(attempt_objects(await reader.file(file_ids[0]), attempts))

    async def deletions(self, request: web.Request) -> web.Response:
        """The deletions of a job, of which there are none; clients ask for them all the same."""
        await self._load(request, files=False)
        return answer([])

    async def field(self, request: web.Request) -> web.Response:
        """One value of a job."""
        job, _ = await self._load(request, files=False)
        getter = JOB_COLUMNS.get(request.match_info["field"])
        if getter is None:
            raise NotFound("No such field")
        return answer(getter(job))

    def _of(self, request: web.Request) -> Guarded:
        return self._gate.of(caller_of(request))

    async def _load(self, request: web.Request, *, files: bool) -> tuple[JobView, Sequence[FileView]]:
        job_id = JobId(request.match_info["job_id"])
        found = await self._of(request).reader.jobs_by_id([job_id], files=files)
        if job_id not in found:
            raise NotFound(no_job(job_id))
        return found[job_id]

    @staticmethod
    def _by_id(entries: Sequence[tuple[int, Any]], *, many: bool) -> web.Response:
        """One id: its object with its status. Several: a list, 207 when one of them is an error."""
        if not many:
            status, entry = entries[0]
            return answer(entry, status=status)
        partly = any(status != 200 for status, _ in entries)  # noqa: PLR2004 - HTTP's own number
        return answer([entry for _, entry in entries], status=207 if partly else 200)


async def _written(write: Callable[[], web.Response], n_objects: int) -> web.Response:
    """What `write` returns; a large answer is written beside the event loop."""
    return await asyncio.to_thread(write) if n_objects > THREAD_OBJECTS else write()


async def _each(operation: Callable[[JobId], Awaitable[T]], ids: Sequence[JobId]) -> list[T]:
    """Run `operation` for each id, some at a time; results in order. The first failure is raised."""
    results: list[T] = []

    async def one(job_id: JobId) -> T:
        return await operation(job_id)

    for start in range(0, len(ids), AT_ONCE):
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(job_id)) for job_id in ids[start : start + AT_ONCE]]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        results += [task.result() for task in tasks]
    return results
