"""The table of routes: the one list that dispatching and the OpenAPI document are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter

from transfer_engine.service.boundary import Handler
from transfer_engine.service.control import Controls
from transfer_engine.service.explain import Explaining
from transfer_engine.service.instance import Instance
from transfer_engine.service.jobs import Jobs
from transfer_engine.service.wire.control import (
    BAN,
    DRAIN,
    USER_BAN,
    BanObject,
    DrainObject,
    HoldObject,
    UserBanObject,
)
from transfer_engine.service.wire.documents import MODIFICATION, SUBMISSION
from transfer_engine.service.wire.explain import (
    DecisionObject,
    ExplanationObject,
    JobExplanation,
    LinkObject,
    TroubleObject,
)
from transfer_engine.service.wire.instance import CallerObject, DelegationObject, ServiceObject
from transfer_engine.service.wire.views import AttemptObject, FileObject, JobEntry, JobObject, MissingJob

JsonType = TypeAdapter[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation.

    Attributes:
        name: unique; OpenAPI's operation id.
        path: with `{name}` for each parameter, which stands for one segment.
        answers: type of the answer with status `success`; 204 has none.
        body: type of the request's body, or None.
        query: name → what it means.
        statuses: further statuses → when.
        own: those of `statuses` that are answered with the type `answers`, not with an error.
    """

    name: str
    method: str
    path: str
    summary: str
    handler: Handler
    answers: JsonType
    body: JsonType | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[int, str] = field(default_factory=dict)
    own: frozenset[int] = frozenset()
    success: int = 200


ANYTHING: Final[JsonType] = TypeAdapter(Any)
TEXTS: Final[JsonType] = TypeAdapter(dict[str, str])
JOB_ID: Final[JsonType] = TypeAdapter(dict[str, str])
JOBS: Final[JsonType] = TypeAdapter(list[JobObject])
ENTRIES: Final[JsonType] = TypeAdapter(JobEntry | MissingJob | list[JobEntry | MissingJob])
FILES: Final[JsonType] = TypeAdapter(list[FileObject])
STATES: Final[JsonType] = TypeAdapter(str | list[str])
IDS: Final[JsonType] = TypeAdapter(list[str])
NOTHING: Final[JsonType] = TypeAdapter(None)
HELD: Final[JsonType] = TypeAdapter(HoldObject)

NO_JOB: Final = "no such job"
BY_ID: Final = {207: "several ids, at least one of them unknown: a list", 404: "one id, and it is unknown"}
LIST_QUERY: Final = {
    "user_dn": "only jobs of this user",
    "vo_name": "only jobs of this VO",
    "dlg_id": "only jobs with this delegation id; it must be the caller's own",
    "state_in": "only jobs in these states, separated by commas",
    "source_se": "only jobs from this storage, scheme://host",
    "dest_se": "only jobs to this storage, scheme://host",
    "fields": "only these keys of each job, separated by commas",
    "limit": "at most so many, 0 to 500, newest first",
    "time_window": "only jobs submitted in the last HOURS or HOURS:MINUTES",
}


def routes(instance: Instance, jobs: Jobs, controls: Controls, explaining: Explaining) -> list[Route]:
    """All operations of the service, in order of precedence."""
    return [
        *_instance_routes(instance),
        *_ban_routes(controls),
        *_control_routes(controls),
        *_explain_routes(explaining),
        *_collection_routes(jobs),
        *_job_routes(jobs),
    ]


def _instance_routes(instance: Instance) -> list[Route]:
    about: list[tuple[str, str, str, Handler, JsonType, dict[int, str]]] = [
        ("service", "/", "What the service is", instance.service, TypeAdapter(ServiceObject), {}),
        ("whoami", "/whoami", "Who is asking", instance.whoami, TypeAdapter(CallerObject), {}),
        (
            "delegation",
            "/delegation/{delegation_id}",
            "What is left of the caller's credential",
            instance.delegation,
            TypeAdapter(DelegationObject),
            {403: "somebody else's credential"},
        ),
        ("healthz", "/healthz", "Is the process alive?", instance.healthz, TEXTS, {}),
        ("readyz", "/readyz", "Can it accept and move?", instance.readyz, TEXTS, {503: "not now; says why"}),
        ("openapi", "/openapi.json", "This document", instance.openapi, ANYTHING, {}),
    ]
    return [
        Route(name=name, method="GET", path=path, summary=summary, handler=handler, answers=kind, statuses=statuses)
        for name, path, summary, handler, kind, statuses in about
    ]


def _collection_routes(jobs: Jobs) -> list[Route]:
    listing = [
        Route(
            name=name,
            method="GET",
            path=path,
            summary="List jobs; without a state and a limit or time window, those that have not ended",
            handler=jobs.listing,
            answers=JOBS,
            query=LIST_QUERY,
            statuses={400: "a filter is wrong", 403: "the list of somebody else"},
        )
        for name, path in (("listJobs", "/jobs"), ("listJobsSlash", "/jobs/"))
    ]
    submission = [
        Route(
            name=name,
            method=method,
            path=path,
            summary="Submit a job; answered when it is stored",
            handler=jobs.submit,
            answers=JOB_ID,
            body=SUBMISSION,
            statuses={
                400: "the document is wrong; nothing was stored",
                405: "deletions are not done",
                409: "the id was used before",
                413: "the body is too large",
            },
        )
        for name, method, path in (
            ("submitJob", "POST", "/jobs"),
            ("putJob", "PUT", "/jobs"),
            ("submitJobSlash", "POST", "/jobs/"),
            ("putJobSlash", "PUT", "/jobs/"),
        )
    ]
    return listing + submission


def _job_routes(jobs: Jobs) -> list[Route]:
    return [
        Route(
            name="showJobs",
            method="GET",
            path="/jobs/{ids}",
            summary="One job, or with commas a list of jobs",
            handler=jobs.show,
            answers=ENTRIES,
            query={"files": "show these columns of the jobs' files, separated by commas"},
            statuses=BY_ID,
            own=frozenset(BY_ID),
        ),
        Route(
            name="cancelJobs",
            method="DELETE",
            path="/jobs/{ids}",
            summary="Cancel one job, or with commas several",
            handler=jobs.cancel,
            answers=ENTRIES,
            statuses=BY_ID,
            own=frozenset(BY_ID),
        ),
        Route(
            name="modifyJobs",
            method="POST",
            path="/jobs/{ids}",
            summary="Change the priority of one job, or with commas of several",
            handler=jobs.modify,
            answers=ENTRIES,
            body=MODIFICATION,
            statuses=BY_ID | {400: "the priority is not one"},
            own=frozenset(BY_ID),
        ),
        _of_job("listFiles", "/jobs/{job_id}/files", "The files of a job", jobs.files, FILES),
        _of_job("listDeletions", "/jobs/{job_id}/dm", "Always empty", jobs.deletions, TypeAdapter(list[Any])),
        Route(
            name="cancelFiles",
            method="DELETE",
            path="/jobs/{job_id}/files/{file_ids}",
            summary="Cancel one file, or with commas several; answers their states",
            handler=jobs.cancel_files,
            answers=STATES,
            statuses={400: "not an ordinary job, or not a number", 404: NO_JOB},
        ),
        _of_job(
            "listRetries",
            "/jobs/{job_id}/files/{file_id}/retries",
            "The failed attempts of a file",
            jobs.retries,
            TypeAdapter(list[AttemptObject]),
        ),
        _of_job("showField", "/jobs/{job_id}/{field}", "One value of a job", jobs.field, ANYTHING),
    ]


def _ban_routes(controls: Controls) -> list[Route]:
    forbidden = {403: "the caller may not operate the node"}
    return [
        Route(
            name="banStorage",
            method="POST",
            path="/ban/se",
            summary="Ban a storage for the caller's VO (vo: another, or * for all); answers the jobs that it concerns",
            handler=controls.ban_storage,
            answers=IDS,
            body=BAN,
            statuses=forbidden | {400: "no storage, or another value is wrong"},
        ),
        Route(
            name="unbanStorage",
            method="DELETE",
            path="/ban/se",
            summary="Lift the ban of a storage",
            handler=controls.unban_storage,
            answers=NOTHING,
            query={"storage": "scheme://host", "vo": "the VO of the ban, * for that of all; else the caller's"},
            statuses=forbidden | {400: "no storage"},
            success=204,
        ),
        Route(
            name="bannedStorages",
            method="GET",
            path="/ban/se",
            summary="The storages that are banned",
            handler=controls.banned_storages,
            answers=TypeAdapter(list[BanObject]),
            statuses=forbidden,
        ),
        Route(
            name="banUser",
            method="POST",
            path="/ban/dn",
            summary="Ban a user and cancel the user's jobs; answers their ids",
            handler=controls.ban_user,
            answers=IDS,
            body=USER_BAN,
            statuses=forbidden | {400: "no user", 409: "the user is the caller"},
        ),
        Route(
            name="unbanUser",
            method="DELETE",
            path="/ban/dn",
            summary="Lift the ban of a user",
            handler=controls.unban_user,
            answers=NOTHING,
            query={"user_dn": "the user"},
            statuses=forbidden | {400: "no user"},
            success=204,
        ),
        Route(
            name="bannedUsers",
            method="GET",
            path="/ban/dn",
            summary="The users who are banned",
            handler=controls.banned_users,
            answers=TypeAdapter(list[UserBanObject]),
            statuses=forbidden,
        ),
    ]


def _control_routes(controls: Controls) -> list[Route]:
    ended = {404: NO_JOB, 409: "the job has ended"}
    return [
        Route(
            name="drain",
            method="POST",
            path="/config/drain",
            summary="Start nothing new on this node, or work again",
            handler=controls.drain,
            answers=NOTHING,
            body=DRAIN,
            statuses={400: "another host, or a value is wrong", 403: "the caller may not operate the node"},
        ),
        Route(
            name="draining",
            method="GET",
            path="/config/drain",
            summary="Whether the node is drained, what still runs, and roughly for how long",
            handler=controls.draining,
            answers=TypeAdapter(DrainObject),
            statuses={403: "the caller may not operate the node"},
        ),
        Route(
            name="holdJob",
            method="POST",
            path="/jobs/{job_id}/hold",
            summary="Let what waits of a job wait until it is resumed",
            handler=controls.hold,
            answers=HELD,
            statuses=ended,
        ),
        Route(
            name="resumeJob",
            method="POST",
            path="/jobs/{job_id}/resume",
            summary="Let a job that is on hold go on",
            handler=controls.resume,
            answers=HELD,
            statuses=ended,
        ),
    ]


def _explain_routes(explaining: Explaining) -> list[Route]:
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
        Route(name=name, method="GET", path=path, summary=summary, handler=handler, answers=kind, query=query,
              statuses=statuses)
        for name, path, summary, handler, kind, query, statuses in asked
    ]  # fmt: skip


def _of_job(name: str, path: str, summary: str, handler: Handler, kind: JsonType) -> Route:
    """A question about one job."""
    return Route(
        name=name,
        method="GET",
        path=path,
        summary=summary,
        handler=handler,
        answers=kind,
        statuses={404: "no such job, file or field"},
    )
