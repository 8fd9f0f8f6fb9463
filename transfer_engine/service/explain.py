"""Why nothing moves, over HTTP: of a job, a transfer, a link, an endpoint; and what was decided and seen there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

from transfer_engine.clock import Clock
from transfer_engine.errors import NotFound
from transfer_engine.guarded import Gate, Guarded
from transfer_engine.model import JobId
from transfer_engine.service.boundary import answer, caller_of
from transfer_engine.service.wire.explain import (
    decision_objects,
    explanation_object,
    job_explanation,
    link_object,
    parse_file_id,
    parse_limit,
    parse_question,
    trouble_object,
)
from transfer_engine.service.wire.words import FOREIGN_FILE, no_job
from transfer_engine.states import TERMINAL

THREAD_OBJECTS: Final = 500
"""Answers with more objects than this are written in a thread."""


class Explaining:
    """The handlers of explanations."""

    def __init__(self, *, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock

    async def job(self, request: web.Request) -> web.Response:
        """Every transfer of a job that has not ended."""
        job_id = JobId(request.match_info["job_id"])
        limit = parse_limit(request.query.get("limit"))
        engine = self._of(request)
        known = await engine.reader.jobs_by_id([job_id], files=True)
        if job_id not in known:
            raise NotFound(no_job(job_id))
        job, views = known[job_id]
        found = await engine.explainer.transfers(job, views, limit)
        n_open, now = sum(view.state not in TERMINAL for view in views), self._clock.now()
        return await _written(lambda: answer(job_explanation(job, n_open, found, now)), len(found))

    async def file(self, request: web.Request) -> web.Response:
        """One transfer of a job."""
        job_id = JobId(request.match_info["job_id"])
        file_id = parse_file_id(request.match_info["file_id"])
        engine = self._of(request)
        if job_id not in await engine.reader.jobs_by_id([job_id], files=False):
            raise NotFound(no_job(job_id))
        view = await engine.reader.file(file_id)
        if view.job_id != job_id:
            raise NotFound(FOREIGN_FILE)
        return answer(explanation_object(await engine.explainer.file(view), self._clock.now()))

    async def ask(self, request: web.Request) -> web.Response:
        """An endpoint, a link, or a transfer."""
        question = parse_question(request.query, files=True)
        engine = self._of(request)
        explainer = engine.explainer
        if question.file_id is not None:
            found = await engine.explain_file(question.file_id)
        elif question.link is not None:
            found = await explainer.link(question.link)
        else:
            assert question.endpoint is not None, "a question names one of the three"
            found = await explainer.endpoint(question.endpoint)
        return answer(explanation_object(found, self._clock.now()))

    async def links(self, request: web.Request) -> web.Response:
        """Every link with work now or since the start."""
        engine = self._of(request)
        outlooks = await engine.explainer.links()
        links, now = engine.links(), self._clock.now()
        by_ends = {(link.source_se, link.dest_se): outlook for link, outlook in outlooks.items()}
        return await _written(
            lambda: answer([link_object(one, by_ends.get((one.source_se, one.dest_se)), now) for one in links]),
            len(links),
        )

    async def history(self, request: web.Request) -> web.Response:
        """What the optimizer decided about an endpoint or a link."""
        question = parse_question(request.query, files=False)
        return answer(decision_objects(self._of(request).explainer.history(*question.places())))

    async def health(self, request: web.Request) -> web.Response:
        """The places that fail, are left alone, or come back."""
        return answer([trouble_object(row) for row in self._of(request).explainer.troubles()])

    def _of(self, request: web.Request) -> Guarded:
        return self._gate.of(caller_of(request))


async def _written(write: Callable[[], web.Response], n_objects: int) -> web.Response:
    """What `write` returns; a large answer is written beside the event loop."""
    return await asyncio.to_thread(write) if n_objects > THREAD_OBJECTS else write()
