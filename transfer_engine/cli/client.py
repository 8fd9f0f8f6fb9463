"""Commands that talk to a running job service: submit, status, list, wait, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from protocols.errors import printable
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.identity import identity
from transfer_engine.cli.lists import is_url
from transfer_engine.cli.output import Stop, put, put_json, say, stop
from transfer_engine.states import JOB_TERMINAL, JobState

WHOLE_FILES: Final = 10_000
"""Longest list that `submit` makes one job of."""
JOB_FILES: Final = 1000
"""Most files in each job of a longer list."""
SHOWN: Final = 20
"""Failed transfers of a job that `wait` names one by one."""
LIST_MAX: Final = 500
"""Most jobs that a service lists."""
IDS_MAX: Final = 200
"""Jobs asked for in one request."""
POLL_FIRST_S: Final = 0.2
POLL_MAX_S: Final = 2.0
OK, NOT_FOUND, MULTI, CLIENT_ERROR = 200, 404, 207, 400
UNAVAILABLE = 503
FILES: Final = "file_id,file_state,source_surl,dest_surl,reason,filesize,finish_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """The options of `submit`, as given."""

    overwrite: bool = False
    checksum: str | None = None
    verify: str = "both"
    priority: int | None = None
    activity: str | None = None
    retry: int | None = None
    metadata: str | None = None


class Service:
    """One job service, by its URL."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request; (status, JSON value). Raises `Stop` when there is no answer of a job service."""
        try:
            async with self._session.request(method, self._url + path, json=body) as answer:
                raw = await answer.read()
                try:
                    return answer.status, json.loads(raw) if raw else None
                except ValueError:
                    stop(f"{self._url} answers {answer.status}, but not as a job service", Exit.UNREACHABLE)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            hint = "start one with `transfer-engine serve --no-auth`, or name another with --service URL"
            stop(f"the service at {self._url} cannot be reached: {_why(error)}; {hint}", Exit.UNREACHABLE)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The same for requests that must succeed."""
        status, value = await self.call(method, path, body)
        if status >= CLIENT_ERROR:
            message = value.get("message") or value.get("http_message") if isinstance(value, dict) else None
            stop(message or f"the service answers {status}", _exit_of(status))
        return value

    async def jobs(self, ids: Sequence[str], *, files: bool) -> list[dict[str, Any]]:
        """The job objects of `ids`, in their order; those that do not exist carry `http_status` 404."""
        found: list[dict[str, Any]] = []
        for block in _blocks(ids, IDS_MAX):
            query = f"?files={FILES}" if files else ""
            # The trailing comma asks for a list, also for a single id.
            status, value = await self.call("GET", f"/jobs/{','.join(block)},{query}")
            if status not in {OK, MULTI, NOT_FOUND} or not isinstance(value, list):
                message = value.get("message") if isinstance(value, dict) else None
                stop(message or f"the service answers {status}", _exit_of(status))
            found += value
        return found


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        text = error.os_error.strerror or ""
        # asyncio's own texts repeat the address, which the message has already.
        return text if text and "Connect call failed" not in text else os.strerror(error.os_error.errno)
    return str(error) or type(error).__name__


def _exit_of(status: int) -> Exit:
    if status == NOT_FOUND:
        return Exit.NOT_FOUND
    if status in {401, 403}:
        return Exit.DENIED
    if status in {429, UNAVAILABLE}:
        return Exit.TEMPORARY
    return Exit.USAGE if status < 500 else Exit.ERROR  # noqa: PLR2004 - HTTP's own border


def _blocks(items: Sequence[Any], n: int) -> Iterator[Sequence[Any]]:
    for at in range(0, len(items), n):
        yield items[at : at + n]


async def jobs_of(pairs: AsyncIterator[tuple[str, str]]) -> AsyncIterator[Sequence[tuple[str, str]]]:
    """The pairs of each job to be: all of them up to `WHOLE_FILES`, else `JOB_FILES` at a time."""
    block: list[tuple[str, str]] = []
    at_most = WHOLE_FILES
    async for pair in pairs:
        if len(block) == at_most:
            at_most = JOB_FILES
            for one in _blocks(block, at_most):
                yield one
            block = []
        block.append(pair)
    if block:
        yield block


@contextlib.asynccontextmanager
async def service(url: str) -> AsyncIterator[Service]:
    """A connection to a job service. Raises: Stop: that is no URL of one."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname is not None and parts.port != 0
    except ValueError:
        good = False
    if not good:
        stop(f"--service: expected a URL such as http://127.0.0.1:8446, got {url!r}", Exit.USAGE)
    timeout = aiohttp.ClientTimeout(total=300, sock_connect=10)
    headers, tls = identity(url)
    async with aiohttp.ClientSession(
        timeout=timeout,
        headers={"Accept": "application/json", **headers},
        connector=aiohttp.TCPConnector(ssl=tls),
    ) as session:
        yield Service(url, session)


def _file(source: str, destination: str, options: SubmitOptions) -> dict[str, Any]:
    for name in (source, destination):
        if not is_url(name):
            stop(f"{name!r}: expected a URL; a service does not see files of this machine, `cp` does", Exit.USAGE)
    file: dict[str, Any] = {"sources": [source], "destinations": [destination]}
    if options.checksum is not None:
        file["checksum"] = options.checksum
    if options.activity is not None:
        file["activity"] = options.activity
    return file


async def submit(
    url: str, pairs: AsyncIterator[tuple[str, str]], options: SubmitOptions, *, as_json: bool, wait: bool
) -> Exit:
    """Submit pairs; prints the ids of the jobs, one a line, as they are accepted."""
    params: dict[str, Any] = {"verify_checksum": options.verify, "overwrite": options.overwrite}
    if options.priority is not None:
        params["priority"] = options.priority
    if options.retry is not None:
        # FTS's wire has 0 for "the service's own value" and a negative number for none.
        params["retry"] = options.retry or -1
    if options.metadata is not None:
        try:
            params["job_metadata"] = json.loads(options.metadata)
        except ValueError as error:
            stop(f"--metadata: not JSON: {error}", Exit.USAGE)
    ids: list[str] = []
    async with service(url) as at:
        try:
            async for block in jobs_of(pairs):
                files = [_file(source, destination, options) for source, destination in block]
                answer = await at.ask("POST", "/jobs", {"files": files, "params": params})
                ids.append(answer["job_id"])
                if as_json:
                    put_json({"job_id": answer["job_id"], "files": len(files)})
                else:
                    put(answer["job_id"])
        except Stop as error:
            if ids:
                raise Stop(f"{error.message}; only the {len(ids)} jobs named above were accepted", error.code) from None
            raise
    if not ids:
        stop("nothing to submit", Exit.USAGE)
    return await wait_for(url, ids, timeout_s=None, as_json=as_json) if wait else Exit.OK


def _line(job: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for file in job.get("files") or []:
        counts[file["file_state"]] = counts.get(file["file_state"], 0) + 1
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    return f"{job['job_id']}  {job['job_state']:<13}  {job['submit_time']}  {states}".rstrip()


async def status(url: str, ids: Sequence[str], *, as_json: bool) -> Exit:
    """Print how jobs are."""
    async with service(url) as at:
        jobs = await at.jobs(ids, files=True)
    missing = _missing(jobs)
    for job in jobs:
        if as_json:
            put_json(job)
        elif job not in missing:
            put(_line(job))
            for file in _with_reason(job):
                put("  " + _file_line(file))
    return Exit.NOT_FOUND if missing else Exit.OK


def _with_reason(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [file for file in job.get("files") or [] if file["reason"]]


def _file_line(file: dict[str, Any]) -> str:
    return printable(f"{file['file_state']:<9} {file['source_surl']} → {file['dest_surl']}: {file['reason']}")


def _missing(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    missing = [job for job in jobs if job.get("http_status") != "200 Ok"]
    for job in missing:
        say(f"{job['job_id']}: {job.get('http_message') or 'no such job'}")
    return missing


async def wait_for(url: str, ids: Sequence[str], *, timeout_s: float | None, as_json: bool) -> Exit:
    """Wait until jobs have ended, print each as it does."""
    shown: dict[str, dict[str, Any]] = {}
    missing: list[dict[str, Any]] = []
    pause = POLL_FIRST_S
    try:
        async with asyncio.timeout(timeout_s), service(url) as at:
            left = list(dict.fromkeys(ids))
            while left:
                jobs = await at.jobs(left, files=False)
                missing += _missing(jobs)
                gone = {job["job_id"] for job in missing}
                ended = [job["job_id"] for job in jobs if job.get("job_state") in JOB_TERMINAL]
                for job in await at.jobs(ended, files=True) if ended else []:
                    shown[job["job_id"]] = job
                    if as_json:
                        put_json(job)
                    else:
                        put(_line(job))
                        _tell_reasons(job)
                left = [one for one in left if one not in shown and one not in gone]
                if left:
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, POLL_MAX_S)
    except TimeoutError:
        say(f"not ended after {timeout_s:g} s; the jobs go on")
        return Exit.TIMED_OUT
    if missing:
        return Exit.NOT_FOUND
    states = {job["job_state"] for job in shown.values()}
    if states == {"FINISHED"}:
        return Exit.OK
    return Exit.SOME_FAILED if states & {"FINISHED", "FINISHEDDIRTY"} else Exit.ALL_FAILED


def _tell_reasons(job: dict[str, Any]) -> None:
    reasons = _with_reason(job)
    for file in reasons[:SHOWN]:
        say(_file_line(file))
    if len(reasons) > SHOWN:
        say(f"… and {len(reasons) - SHOWN} more: transfer-engine status {job['job_id']}")


async def cancel(url: str, ids: Sequence[str], *, as_json: bool) -> Exit:
    """Cancel jobs, print what they are then."""
    async with service(url) as at:
        code = Exit.OK
        for block in _blocks(ids, IDS_MAX):
            status, value = await at.call("DELETE", f"/jobs/{','.join(block)},")
            if status not in {OK, MULTI, NOT_FOUND} or not isinstance(value, list):
                message = value.get("message") if isinstance(value, dict) else None
                stop(message or f"the service answers {status}", _exit_of(status))
            for job in value:
                if as_json:
                    put_json(job)
                elif "job_state" in job:
                    note = job.get("http_message")
                    put(f"{job['job_id']}  {job['job_state']}" + (f"  ({note})" if note else ""))
                if "job_state" not in job:
                    say(f"{job['job_id']}: {job.get('http_message') or 'no such job'}")
                    code = Exit.NOT_FOUND
    return code


def _states(given: str | None) -> list[str]:
    """The job states asked for, comma-separated; None: all."""
    known = [state.value for state in JobState]
    if given is None:
        return known
    asked = [word.strip().upper() for word in given.split(",") if word.strip()]
    for word in asked:
        if word not in known:
            stop(f"--state: expected some of {', '.join(known)}, got {word}", Exit.USAGE)
    return asked or known


async def list_jobs(url: str, *, states: str | None, limit: int | None, as_json: bool) -> Exit:
    """Print the jobs of a service; those that have not ended, when no state or limit is asked for."""
    query: list[str] = []
    if states is not None or limit is not None:
        # FTS's dialect tells of jobs that have ended only up to a limit, and when their states are named.
        query = [f"state_in={','.join(_states(states))}", f"limit={limit or LIST_MAX}"]
    async with service(url) as at:
        jobs = await at.ask("GET", "/jobs" + ("?" + "&".join(query) if query else ""))
    for job in jobs:
        if as_json:
            put_json(job)
        else:
            put(_line(job))
    if not jobs and not as_json:
        say("no jobs" if query else "no unfinished jobs; --limit N also lists jobs that have ended")
    return Exit.OK
