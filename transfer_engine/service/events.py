"""State changes as they happen, as server-sent events: `GET /events`.

Each event has the outbox's number as its id, so that a client that was away goes on where it was, and none
is lost that is still kept. Callers see the events of jobs that they see.

Source: WHATWG HTML, "Server-sent events" (media type, `id`, `event`, `data`, `retry`, `Last-Event-ID`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from transfer_engine.callers import Caller
from transfer_engine.errors import EngineError, Invalid
from transfer_engine.guarded import Gate, Guarded
from transfer_engine.identity.api import TooMany
from transfer_engine.model import JobId
from transfer_engine.service.boundary import caller_of
from transfer_engine.views import StoredEvent

CLIENTS_MAX: Final = 200
CLIENTS_OF_CALLER_MAX: Final = 10
RETRY_AFTER_S: Final = 30.0
KEEP_ALIVE_S: Final = 15.0
"""Longest silence: proxies end connections that are silent for a minute."""
WRITE_S: Final = 30.0
"""A client that has not taken what was sent to it by then is dropped."""
QUEUE_MAX: Final = 100
GATHER_S: Final = 0.1
"""How late an event may be, so that many clients do not ask the store at every commit."""
RECONNECT_MS: Final = 2000

log = logging.getLogger(__name__)

_SEQ: Final = re.compile(r"[0-9]{1,18}")


class Events:
    """The handler of `/events`, and everybody who is connected to it."""

    def __init__(self, *, gate: Gate, keep_alive_s: float = KEEP_ALIVE_S, write_s: float = WRITE_S) -> None:
        self._gate = gate
        self._keep_alive_s = keep_alive_s
        self._write_s = write_s
        self._clients: Counter[str] = Counter()
        self._ending = asyncio.Event()

    async def close(self, _app: web.Application) -> None:
        """End all streams: the service stops."""
        self._ending.set()

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """The stream; from `after` or `Last-Event-ID`, else from now on; of one job, or all that the caller sees."""
        after = _after(request)
        job_id = JobId(request.query["job_id"]) if request.query.get("job_id") else None
        caller = caller_of(request)
        engine = self._gate.of(caller)
        if job_id is not None:
            await engine.reader.job(job_id)
        with self._admitted(caller.delegation_id):
            gap = await self._gap(engine, after)
            if gap is not None:
                after = gap
            elif after is None:
                # From when the client asked, not from when it has the answer's head.
                after = await engine.reader.last_event()
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    # nginx would hold events back until a buffer is full.
                    "X-Accel-Buffering": "no",
                }
            )
            await response.prepare(request)
            # A client that has gone, or does not read, is nobody's trouble.
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._write(response, f"retry: {RECONNECT_MS}\n\n")
                if gap is not None:
                    await self._write(response, f"id: {gap}\nevent: gap\ndata: {{}}\n\n")
                # Who may see them is asked once for each request: the answer ends with what it was given for.
                async with asyncio.timeout(self._gate.left_s(caller)):
                    await self._relay(response, engine.events(after, job_id, gather_s=GATHER_S), caller)
            return response

    @contextlib.contextmanager
    def _admitted(self, who: str) -> Iterator[None]:
        if self._clients.total() >= CLIENTS_MAX or self._clients[who] >= CLIENTS_OF_CALLER_MAX:
            raise TooMany("Too many clients follow events already", retry_after_s=RETRY_AFTER_S)
        self._clients[who] += 1
        try:
            yield
        finally:
            self._clients[who] -= 1
            if not self._clients[who]:
                del self._clients[who]

    @staticmethod
    async def _gap(engine: Guarded, after: int | None) -> int | None:
        """Where to go on when events after the cursor are not kept any more; None: they are."""
        if after is None:
            return None
        first, last = await engine.reader.first_event(), await engine.reader.last_event()
        if after > last:
            # A cursor of another database.
            return last
        return first - 1 if first > after + 1 else None

    async def _relay(self, response: web.StreamResponse, events: AsyncIterator[StoredEvent], caller: Caller) -> None:
        """Pass events on until the client goes, the stream ends or the service does."""
        queue: asyncio.Queue[StoredEvent | None] = asyncio.Queue(QUEUE_MAX)
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(_pump(events, queue), name="events-pump"),
            loop.create_task(self._drain(response, queue, caller), name="events-drain"),
            loop.create_task(self._ending.wait(), name="events-end"),
        ]
        try:
            await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not tasks[1].cancelled():
            tasks[1].result()

    async def _drain(
        self, response: web.StreamResponse, queue: asyncio.Queue[StoredEvent | None], caller: Caller
    ) -> None:
        while True:
            event, silent = None, False
            try:
                async with asyncio.timeout(self._keep_alive_s):
                    event = await queue.get()
            except TimeoutError:
                silent = True
            if self._gate.is_banned(caller):
                return
            if silent:
                await self._write(response, ": still here\n\n")
                continue
            parts = []
            while event is not None:
                parts.append(_text(event))
                if queue.empty():
                    break
                event = queue.get_nowait()
            await self._write(response, "".join(parts))
            if event is None:
                return

    async def _write(self, response: web.StreamResponse, text: str) -> None:
        async with asyncio.timeout(self._write_s):
            await response.write(text.encode())


async def _pump(events: AsyncIterator[StoredEvent], queue: asyncio.Queue[StoredEvent | None]) -> None:
    try:
        async for event in events:
            await queue.put(event)
    except EngineError as error:
        # The client comes again with its cursor.
        log.warning("a stream of events ended", extra={"event": "events-ended", "reason": str(error)})
    await queue.put(None)


def _after(request: web.Request) -> int | None:
    """The cursor. A browser that comes again has the old address, and says with the header where it was."""
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    if not text:
        return None
    if _SEQ.fullmatch(text) is None:
        raise Invalid("expected the id of an event", field="after")
    return int(text)


def _text(event: StoredEvent) -> str:
    document = {
        "job_id": event.job_id,
        "file_id": event.file_id,
        "state": event.state,
        "reason": event.reason,
        "time": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(document, separators=(',', ':'))}\n\n"
