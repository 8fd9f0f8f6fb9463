"""Questions why nothing moves, and what was decided."""

from __future__ import annotations

from pydantic import TypeAdapter

from transfer_engine.callers import Need
from transfer_engine.service.boundary import Handler
from transfer_engine.service.explain import Explaining
from transfer_engine.service.route import NO_JOB, JsonType, Route
from transfer_engine.service.wire.explain import (
    DecisionObject,
    ExplanationObject,
    JobExplanation,
    LinkObject,
    TroubleObject,
)


def explain_routes(explaining: Explaining) -> list[Route]:
    """All of them."""
    link = {"source_se": "of a link: scheme://host", "dest_se": "of a link: scheme://host"}
    endpoint = {"endpoint": "a storage, scheme://host"}
    asked: list[tuple[str, str, str, Handler, JsonType, dict[str, str], dict[int, str]]] = [
        (
            "explainJob",
            "/jobs/{job_id}/explain",
            "Why the transfers of a job that have not ended do not move, and when they will",
            explaining.job,
            TypeAdapter(JobExplanation),
            {"limit": "at most so many transfers, 1 to 5000, the oldest first"},
            {400: "the limit is not one", 404: NO_JOB},
        ),
        (
            "explainFile",
            "/jobs/{job_id}/files/{file_id}/explain",
            "The same for one transfer",
            explaining.file,
            TypeAdapter(ExplanationObject),
            {},
            {400: "not a number", 404: "no such job, or the file is not in it"},
        ),
        (
            "explain",
            "/explain",
            "What keeps back those who wait for an endpoint or a link; or one transfer by its id",
            explaining.ask,
            TypeAdapter(ExplanationObject),
            endpoint | link | {"file_id": "a transfer"},
            {400: "none or several of the three, or no endpoint", 404: "no such transfer"},
        ),
        (
            "links",
            "/links",
            "Every link with work now or since the start",
            explaining.links,
            TypeAdapter(list[LinkObject]),
            {},
            {},
        ),
        (
            "optimizerHistory",
            "/optimizer/history",
            "What the optimizer decided about an endpoint or a link, and why; oldest first",
            explaining.history,
            TypeAdapter(list[DecisionObject]),
            endpoint | link,
            {400: "neither an endpoint nor a link"},
        ),
        (
            "troubledStorages",
            "/health/storages",
            "The storages and links that fail, are left alone, or come back",
            explaining.health,
            TypeAdapter(list[TroubleObject]),
            {},
            {},
        ),
    ]
    return [
        Route(
            name=name,
            method="GET",
            path=path,
            needs=Need.USER,
            summary=summary,
            handler=handler,
            answers=kind,
            query=query,
            statuses=statuses,
        )
        for name, path, summary, handler, kind, query, statuses in asked
    ]
