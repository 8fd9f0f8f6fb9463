"""Explanations as JSON, and what is asked for them. None of it is FTS3's; instants are written as it writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from transfer_engine.answers import Explanation, LinkOutlook
from transfer_engine.bans import parse_endpoint
from transfer_engine.figures import LinkStatus
from transfer_engine.health.wording import Row
from transfer_engine.model import FileId
from transfer_engine.places import Link, Place
from transfer_engine.reasons import Reason
from transfer_engine.service.wire.query import parse_file_ids
from transfer_engine.service.wire.views import job_state
from transfer_engine.service.wire.words import Refused, timestamp
from transfer_engine.views import JobView

SHOWN: Final = 1000
"""Transfers of a job that are explained when nothing else is asked for."""
SHOWN_MAX: Final = 5000
QUESTIONS: Final = "expected endpoint, or source_se and dest_se, or file_id"
PLACES: Final = "expected endpoint, or source_se and dest_se"


@with_config(ConfigDict(title="Reason"))
class ReasonObject(TypedDict):
    """One thing that keeps transfers back."""

    code: str
    text: str
    subject: NotRequired[str]
    used: NotRequired[float]
    limit: NotRequired[float]
    until: NotRequired[str]
    transfers: NotRequired[int]


@with_config(ConfigDict(title="PlaceFigures"))
class PlaceFigures(TypedDict):
    """How many run in a place, and how many may."""

    place: str
    kind: str
    used: int
    limit: int | None


@with_config(ConfigDict(title="Decision"))
class DecisionObject(TypedDict):
    """One decision of the optimizer."""

    at: str
    place: str
    kind: str
    before: int
    after: int
    reason: str
    numbers: dict[str, float]


@with_config(ConfigDict(title="Explanation"))
class ExplanationObject(TypedDict):
    """Why something does not move, where it stands, and when it will."""

    subject: str
    moving: bool
    code: str
    reason: str
    reasons: list[ReasonObject]
    state: NotRequired[str]
    file_id: NotRequired[int]
    job_id: NotRequired[str]
    n_before: NotRequired[int]
    bytes_before: NotRequired[int]
    start_at: str | None
    start_in_s: float | None
    finish_at: str | None
    finish_in_s: float | None
    unknown: NotRequired[str]
    deadline_at: NotRequired[str]
    deadline_in_s: NotRequired[float]
    known: NotRequired[bool]
    active: NotRequired[int]
    ready: NotRequired[int]
    delayed: NotRequired[int]
    places: NotRequired[list[PlaceFigures]]
    decisions: NotRequired[list[DecisionObject]]


@with_config(ConfigDict(title="JobExplanation"))
class JobExplanation(TypedDict):
    """Why the transfers of a job that have not ended do not move."""

    job_id: str
    job_state: str
    reason: str
    open: int
    left_out: int
    transfers: list[ExplanationObject]


@with_config(ConfigDict(title="LinkStatus"))
class LinkObject(TypedDict):
    """One link: what it does, did, and will."""

    source_se: str
    dest_se: str
    ready: int
    active: int
    finished: int
    failed: int
    retried: int
    bytes: int
    reason: ReasonObject | None
    start_at: str | None
    start_in_s: float | None
    finish_at: str | None
    finish_in_s: float | None


@with_config(ConfigDict(title="Trouble"))
class TroubleObject(TypedDict):
    """One place that fails, is left alone, or comes back."""

    place: str
    kind: str
    state: str
    since: str | None
    until: str | None
    limit: int | None
    active: int
    failures: dict[str, int]
    last: str
    text: str


# Questions


@dataclass(frozen=True, slots=True)
class Question:
    """What an explanation was asked for: one of the three."""

    endpoint: str | None = None
    link: Link | None = None
    file_id: FileId | None = None

    def places(self) -> tuple[Place, ...]:
        """Where the optimizer decides."""
        if self.link is not None:
            return (Place("link", self.link.source_se, self.link.dest_se),)
        assert self.endpoint is not None, "the question names an endpoint or a link"
        return Place("in", self.endpoint), Place("out", self.endpoint)


def parse_question(query: Mapping[str, str], *, files: bool) -> Question:
    """Raises: Refused: it names nothing, several things, or something that is no endpoint."""
    names = ("endpoint", "source_se", "dest_se", "file_id") if files else ("endpoint", "source_se", "dest_se")
    given = {name: query[name] for name in names if query.get(name)}
    match sorted(given):
        case ["endpoint"]:
            return Question(endpoint=parse_endpoint(given["endpoint"], "endpoint"))
        case ["dest_se", "source_se"]:
            source_se, dest_se = (parse_endpoint(given[name], name) for name in ("source_se", "dest_se"))
            return Question(link=Link(source_se, dest_se))
        case ["file_id"]:
            return Question(file_id=parse_file_id(given["file_id"]))
        case found:
            got = " and ".join(found) or "nothing"
            raise Refused(f"{QUESTIONS if files else PLACES}; got {got}", field=found[0] if found else None)


def parse_file_id(text: str) -> FileId:
    """One id of a transfer. Raises: Refused."""
    ids, many = parse_file_ids(text)
    if many or len(ids) != 1:
        raise Refused("expected one file id", field="file_id")
    return ids[0]


def parse_limit(text: str | None) -> int:
    """How many transfers of a job are to be explained. Raises: Refused."""
    if not text:
        return SHOWN
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= SHOWN_MAX):
        raise Refused(f"limit: expected 1 to {SHOWN_MAX}, got {text[:40]!r}", field="limit")
    return int(text)


# Answers


def explanation_object(found: Explanation, now: float) -> ExplanationObject:
    """One explanation."""
    shown: Any = found.as_json()
    shown["reasons"] = [_instant(row, "until") for row in shown["reasons"]]
    shown |= _span(found.start_at, found.finish_at, now)
    if found.deadline_at is not None:
        shown |= {"deadline_at": timestamp(found.deadline_at), "deadline_in_s": round(found.deadline_at - now, 1)}
    if "decisions" in shown:
        shown["decisions"] = [_instant(row, "at") for row in shown["decisions"]]
    answer: ExplanationObject = shown
    return answer


def _instant(row: dict[str, Any], key: str) -> Any:
    return row | {key: timestamp(row[key])} if key in row else row


def _span(start_at: float | None, finish_at: float | None, now: float) -> dict[str, Any]:
    return {
        "start_at": timestamp(start_at),
        "start_in_s": None if start_at is None else round(max(start_at - now, 0.0), 1),
        "finish_at": timestamp(finish_at),
        "finish_in_s": None if finish_at is None else round(max(finish_at - now, 0.0), 1),
    }


def job_explanation(job: JobView, n_open: int, found: Sequence[Explanation], now: float) -> JobExplanation:
    """All of a job; its own reason is the one that most of its transfers have."""
    state = job_state(job).value
    if found:
        code = Counter(one.reasons[0].code for one in found).most_common(1)[0][0]
        reason = next(one.text for one in found if one.reasons[0].code is code)
    else:
        reason = f"the job has ended: it is {state}"
    return JobExplanation(
        job_id=job.job_id,
        job_state=state,
        reason=reason,
        open=n_open,
        left_out=n_open - len(found),
        transfers=[explanation_object(one, now) for one in found],
    )


def link_object(link: LinkStatus, outlook: LinkOutlook | None, now: float) -> LinkObject:
    """One row of `GET /links`."""
    start_at, finish_at = (None, None) if outlook is None else (outlook.start_at, outlook.finish_at)
    row: Any = {
        "source_se": link.source_se,
        "dest_se": link.dest_se,
        "ready": link.ready,
        "active": link.active,
        "finished": link.finished,
        "failed": link.failed,
        "retried": link.retried,
        "bytes": link.bytes_done,
        "reason": None if outlook is None or outlook.reason is None else reason_object(outlook.reason),
    }
    found: LinkObject = row | _span(start_at, finish_at, now)
    return found


def reason_object(reason: Reason) -> ReasonObject:
    """One reason."""
    found: ReasonObject = _instant(reason.as_json(), "until")
    return found


def decision_objects(rows: Sequence[dict[str, Any]]) -> list[DecisionObject]:
    """`GET /optimizer/history`."""
    return [_instant(row, "at") for row in rows]


def trouble_object(row: Row) -> TroubleObject:
    """One row of `GET /health/storages`."""
    return TroubleObject(
        place=str(row.place),
        kind=row.place.kind,
        state=row.state,
        since=timestamp(row.since),
        until=timestamp(row.until),
        limit=row.limit,
        active=row.n_active,
        failures=dict(row.failures),
        last=row.last,
        text=row.text,
    )
