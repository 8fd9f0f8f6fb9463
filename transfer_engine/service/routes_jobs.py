"""The operations on jobs."""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter

from transfer_engine.callers import Need
from transfer_engine.service.boundary import Handler
from transfer_engine.service.jobs import Jobs
from transfer_engine.service.route import ANYTHING, NO_JOB, JsonType, Route
from transfer_engine.service.wire.documents import MODIFICATION, SUBMISSION
from transfer_engine.service.wire.views import AttemptObject, FileObject, JobEntry, JobObject, MissingJob

JOB_ID: Final[JsonType] = TypeAdapter(dict[str, str])
JOBS: Final[JsonType] = TypeAdapter(list[JobObject])
ENTRIES: Final[JsonType] = TypeAdapter(JobEntry | MissingJob | list[JobEntry | MissingJob])
FILES: Final[JsonType] = TypeAdapter(list[FileObject])
STATES: Final[JsonType] = TypeAdapter(str | list[str])

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


def job_routes(jobs: Jobs) -> list[Route]:
    """Everything below `/jobs`, but for what `routes_orders` and `routes_explain` have."""
    return [*_collection_routes(jobs), *_job_routes(jobs)]


def _collection_routes(jobs: Jobs) -> list[Route]:
    listing = [
        Route(
            name=name,
            method="GET",
            path=path,
            needs=Need.USER,
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
            needs=Need.USER,
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
            needs=Need.USER,
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
            needs=Need.USER,
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
            needs=Need.USER,
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
            needs=Need.USER,
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


def _of_job(name: str, path: str, summary: str, handler: Handler, kind: JsonType) -> Route:
    """A question about one job."""
    return Route(
        name=name,
        method="GET",
        path=path,
        needs=Need.USER,
        summary=summary,
        handler=handler,
        answers=kind,
        statuses={404: "no such job, file or field"},
    )
