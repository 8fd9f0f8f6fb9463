"""What can be looked up, and what FTS3 has and this service has not."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pydantic import TypeAdapter

from transfer_engine.callers import Need
from transfer_engine.service.boundary import Handler
from transfer_engine.service.catalogue import Catalogue
from transfer_engine.service.foreign import Foreign
from transfer_engine.service.route import ANYTHING, IDS, JsonType, Route
from transfer_engine.service.wire.catalogue import (
    FILE_IDS,
    CurrentObject,
    EvolutionObject,
    HostActivityObject,
    StartObject,
)
from transfer_engine.service.wire.config import DOCUMENT
from transfer_engine.service.wire.views import FileObject

NOT_ARCHIVED: Final = "no such job, or one that is not over, or that the caller may not see"
ENDS: Final = {"source_se": "only from this storage", "dest_se": "only to this storage"}
FILES_QUERY: Final = {
    "vo_name": "only of this VO",
    "state_in": "only in these states, separated by commas",
    "source_se": "only from this storage, scheme://host",
    "dest_se": "only to this storage, scheme://host",
    "dest_surl": "only this destination",
    "limit": "at most so many, 0 to 1000",
    "time_window": "of jobs that ended in the last HOURS or HOURS:MINUTES; not given: of those that have not ended",
}
NAMES: Final = {"term": "how they begin"}


def catalogue_routes(catalogue: Catalogue) -> list[Route]:
    """Lists, archive, names, the optimizer's figures, the instance."""
    archived = "/archive/{job_id}"
    return [
        _get("archive", "/archive", "Where jobs are that are over", catalogue.archive, ANYTHING),
        replace(
            _get("archivedJob", archived, "A job that is over, with its files", catalogue.archived, ANYTHING),
            statuses={404: NOT_ARCHIVED},
        ),
        replace(
            _get("archivedField", archived + "/{field}", "One value of it", catalogue.archived_field, ANYTHING),
            statuses={404: f"{NOT_ARCHIVED}, or no such value"},
        ),
        replace(
            _get("files", "/files", "Files of all jobs", catalogue.files, TypeAdapter(list[FileObject])),
            query=FILES_QUERY,
            statuses={400: "a filter makes no sense"},
        ),
        replace(
            _get("names", "/autocomplete/{kind}", "Users, VOs, storages", catalogue.autocomplete, IDS, Need.READ),
            query=NAMES,
            statuses={404: "there are only dn, vo, source, destination and storage"},
        ),
        *_optimizer_routes(catalogue),
        _get(
            "hosts",
            "/status/hosts",
            "What the instances of the service do",
            catalogue.activity,
            TypeAdapter(dict[str, HostActivityObject]),
            Need.READ,
        ),
        Route(
            name="forceStart",
            method="POST",
            path="/admin/force-start",
            needs=Need.ADMIN,
            summary="Start files now, past all limits: those that could not be started",
            handler=catalogue.force,
            answers=TypeAdapter(list[StartObject]),
            body=FILE_IDS,
            statuses={400: "no list of numbers", 409: "nothing can be started here now"},
        ),
        _get(
            "submissionSchema",
            "/api-docs/schema/submit",
            "The JSON schema of a submission",
            catalogue.submission_schema,
            ANYTHING,
        ),
    ]


def _optimizer_routes(catalogue: Catalogue) -> list[Route]:
    path = "/optimizer/current"
    return [
        _get("optimizes", "/optimizer", "Is the optimizer at work?", catalogue.optimizes, TypeAdapter(bool)),
        replace(
            _get(
                "evolution",
                "/optimizer/evolution",
                "Its newest 50 decisions, newest first",
                catalogue.evolution,
                TypeAdapter(list[EvolutionObject]),
            ),
            query=ENDS,
        ),
        replace(
            _get("current", path, "How many it lets run", catalogue.current, TypeAdapter(list[CurrentObject])),
            query=ENDS,
        ),
        Route(
            name="setCurrent",
            method="POST",
            path=path,
            needs=Need.CONTROL,
            summary="Refused: limits of links are set by /config/links",
            handler=catalogue.set_current,
            answers=ANYTHING,
            body=DOCUMENT,
            statuses={400: "always"},
        ),
    ]


def foreign_routes(foreign: Foreign) -> list[Route]:
    """What answers as FTS3 does where nothing is registered."""
    always = {400: "always: directories are not looked at"}
    looks = [
        replace(
            _get(f"dm{name.capitalize()}", f"/dm/{name}", "Refused", foreign.no_data_management, ANYTHING),
            statuses=always,
        )
        for name in ("list", "stat")
    ]
    changes = [
        Route(
            name=f"dm{name.capitalize()}",
            method="POST",
            path=f"/dm/{name}",
            needs=Need.USER,
            summary="Refused",
            handler=foreign.no_data_management,
            answers=ANYTHING,
            statuses=always,
        )
        for name in ("mkdir", "unlink", "rmdir", "rename")
    ]
    unregistered = {403: "nobody has been authenticated, or (always) the cloud is not registered"}
    clouds: list[tuple[str, str, Handler, dict[int, str]]] = [
        ("cloudAccess", "/cs/access_request/{service}", foreign.no_user, {404: "always: nobody is registered"}),
        ("cloudRequest", "/cs/access_request/{service}/request", foreign.no_service, unregistered),
        ("cloudGrant", "/cs/access_grant/{service}", foreign.no_grant, {400: "always: nobody is registered"}),
        ("cloudContent", "/cs/remote_content/{service}", foreign.no_content, unregistered | {400: "no surl"}),
        ("cloudLink", "/cs/file_urllink/{service}/{path}", foreign.no_service, unregistered),
    ]
    dropped = _get("dropCloudGrant", "/cs/access_grant/{service}", "Always unknown", foreign.no_user, ANYTHING)
    return [
        *looks,
        *changes,
        _get("cloudRegistered", "/cs/registered/{service}", "Always false", foreign.registered, TypeAdapter(bool)),
        *(
            replace(_get(name, path, "No cloud is registered", handler, ANYTHING), statuses=statuses)
            for name, path, handler, statuses in clouds
        ),
        replace(dropped, method="DELETE", statuses={404: "always: nobody is registered"}),
    ]


def _get(name: str, path: str, summary: str, handler: Handler, answers: JsonType, needs: Need = Need.USER) -> Route:
    return Route(name=name, method="GET", path=path, needs=needs, summary=summary, handler=handler, answers=answers)
