"""Lists of files, names and hosts, the optimizer's figures, and orders to start, as FTS3 writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from transfer_engine.decisions import Decision
from transfer_engine.forcing import FILES_MAX, Start
from transfer_engine.limits import ANY
from transfer_engine.model import FileId
from transfer_engine.places import Link
from transfer_engine.service.wire.query import parse_columns, parse_limit, parse_window_s
from transfer_engine.service.wire.views import HOST, file_state
from transfer_engine.service.wire.words import Refused, timestamp
from transfer_engine.states import FileState
from transfer_engine.store.api import FileFilter

FILES_LISTED_MAX: Final = 1000
"""Largest `limit` of `GET /files`."""
FILE_IDS: Final = TypeAdapter(list[int])
NOT_A_LIST: Final = "Only accepts a list of integer fileIDs"


@with_config(ConfigDict(title="Evolution"))
class EvolutionObject(TypedDict):
    """One decision of the optimizer. Speeds are bytes per second; `*` stands for all other ends of a storage."""

    datetime: str | None
    source_se: str
    dest_se: str
    ema: float
    active: int
    throughput: float
    success: float | None
    rationale: str
    diff: int
    actual_active: int
    queue_size: int
    filesize_avg: float | None
    filesize_stddev: float | None


@with_config(ConfigDict(title="OptimizerValue"))
class CurrentObject(TypedDict):
    """How many the optimizer lets run now."""

    source_se: str
    dest_se: str
    datetime: str | None
    ema: float
    active: int
    nostreams: int


@with_config(ConfigDict(title="NotStarted"))
class StartObject(TypedDict):
    """A file that was not started, and why."""

    file_id: int
    error: str


@with_config(ConfigDict(title="HostActivity"))
class HostActivityObject(TypedDict):
    """What one instance of the service does."""

    active: int
    staging: int


ARCHIVE: Final[Mapping[str, Any]] = {
    "_links": {
        "curies": [{"name": "fts", "href": "https://gitlab.cern.ch/fts/fts3"}],
        "fts:archivedJob": {"href": "/archive/{id}", "title": "Archived job information", "templated": True},
    }
}


def parse_files(query: Mapping[str, str], *, now: float) -> FileFilter:
    """The filters of `GET /files`: files of jobs that have not ended, or with `time_window` of those that have since.

    FTS3 takes any `limit` for 1000 and any `time_window` for none. Raises: Refused.
    """
    limit, window_s = parse_limit(query.get("limit"), FILES_LISTED_MAX), parse_window_s(query.get("time_window"))
    wanted = frozenset(parse_columns(query.get("state_in")))
    return FileFilter(
        states=frozenset(state for state in FileState if file_state(state) in wanted) if wanted else None,
        vo=query.get("vo_name") or None,
        source_se=query.get("source_se") or None,
        dest_se=query.get("dest_se") or None,
        dest_url=query.get("dest_surl") or None,
        ended_after=None if window_s is None else now - window_s,
        limit=FILES_LISTED_MAX if limit is None else limit,
    )


def parse_ends(query: Mapping[str, str]) -> Link:
    """Which links of the optimizer are meant; no value: any."""
    return Link((query.get("source_se") or ANY).lower(), (query.get("dest_se") or ANY).lower())


def parse_start(body: bytes) -> list[FileId]:
    """The files that are to be started. Raises: Refused: in FTS's words."""
    try:
        found = FILE_IDS.validate_json(body, strict=True)
    except ValidationError as error:
        broken = error.errors(include_url=False)[0]["type"] == "json_invalid"
        raise Refused("Malformed input" if broken else NOT_A_LIST) from error
    if len(found) > FILES_MAX or any(not 0 <= number < 1 << 62 for number in found):
        raise Refused(f"Expected at most {FILES_MAX} ids of files")
    return [FileId(number) for number in found]


def start_objects(starts: Sequence[Start]) -> list[StartObject]:
    """Those that were not started; FTS3 says nothing of the others."""
    return [StartObject(file_id=one.file_id, error=one.error) for one in starts if one.error is not None]


def evolution_objects(decisions: Sequence[Decision]) -> list[EvolutionObject]:
    """Rows of `GET /optimizer/evolution`."""
    return [
        EvolutionObject(
            datetime=timestamp(decision.adjustment.at),
            source_se=decision.link.source_se,
            dest_se=decision.link.dest_se,
            ema=_goodput(decision),
            active=decision.adjustment.after,
            throughput=_goodput(decision),
            success=None,
            rationale=decision.adjustment.reason,
            diff=decision.adjustment.after - decision.adjustment.before,
            actual_active=decision.active,
            queue_size=decision.waiting,
            filesize_avg=None,
            filesize_stddev=None,
        )
        for decision in decisions
    ]


def current_objects(decisions: Sequence[Decision]) -> list[CurrentObject]:
    """Rows of `GET /optimizer/current`."""
    return [
        CurrentObject(
            source_se=decision.link.source_se,
            dest_se=decision.link.dest_se,
            datetime=timestamp(decision.adjustment.at),
            ema=_goodput(decision),
            active=decision.adjustment.after,
            nostreams=1,
        )
        for decision in decisions
    ]


def _goodput(decision: Decision) -> float:
    found = decision.adjustment.numbers.get("goodput_bytes_s", 0.0)
    return found if math.isfinite(found) else 0.0


def hosts_object(n_active: int) -> dict[str, HostActivityObject]:
    """`GET /status/hosts`."""
    return {HOST: HostActivityObject(active=n_active, staging=0)}
