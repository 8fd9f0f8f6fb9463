"""What clients ask in paths and query strings, and the small documents that change a job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from transfer_engine.callers import Caller
from transfer_engine.errors import Forbidden
from transfer_engine.model import PRIORITY_MAX, PRIORITY_MIN, FileId, JobId
from transfer_engine.service.wire.documents import MODIFICATION, PriorityDocument
from transfer_engine.service.wire.words import Refused, document_error, value_error
from transfer_engine.states import JobState
from transfer_engine.store.api import JobFilter

LIST_MAX: Final = 500
"""Largest `limit` that a client may ask for."""
OPEN_MAX: Final = 10_000
"""Most jobs in an answer to a list without `limit`, which FTS leaves open."""

_WINDOW: Final = re.compile(r"([0-9]{1,6})(?::([0-9]{1,6}))?")
_STATES: Final = frozenset(state.value for state in JobState)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobList:
    """A list that was asked for; `fields` empty means all."""

    where: JobFilter
    fields: tuple[str, ...]


def parse_priority(body: bytes) -> int | None:
    """The new priority, or None when the document changes nothing. Raises: Refused."""
    try:
        document = MODIFICATION.validate_json(body)
    except ValidationError as error:
        refused = document_error(error)
        raise (Refused("Invalid priority value", field=refused.field) if refused.field else refused) from error
    priority = (document.get("params") or PriorityDocument()).get("priority")
    if priority is not None and not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise Refused("Invalid priority value", field="params.priority")
    return priority


def parse_ids(text: str) -> tuple[list[JobId], bool]:
    """Job ids of a path, each once, and whether the answer is a list: any comma asks for one, even at the end.

    A job that is named a thousand times would be read and shown, with all its files, as often.
    """
    return [JobId(part) for part in dict.fromkeys(text.split(",")) if part], "," in text


def parse_file_ids(text: str) -> tuple[list[FileId], bool]:
    """File ids of a path, and whether the answer is a list. Raises: Refused: one is not a number."""
    parts = [part for part in dict.fromkeys(text.split(",")) if part]
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) < len(str(1 << 62))):
            raise value_error(f"expected file ids, got {part[:40]!r}", field="file_ids")
    return [FileId(int(part)) for part in parts], "," in text


def parse_columns(text: str | None) -> tuple[str, ...]:
    """The names of a comma-separated list, without blanks and empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def parse_list(query: Mapping[str, str], *, caller: Caller, now: float) -> JobList:
    """The filters of `GET /jobs`.

    Without `state_in`, or with it but neither `limit` nor `time_window`, only jobs that have not
    ended are meant. States that this service never shows match nothing.

    Raises: Refused, Forbidden: the list of somebody else.
    """
    credential, user_dn = query.get("dlg_id") or None, query.get("user_dn") or None
    if credential is not None and credential != caller.delegation_id:
        raise Forbidden("The provided delegation id does not match your delegation id")
    if user_dn is not None and user_dn != caller.user_dn:
        raise Refused("The provided DN and delegation id do not correspond to the same user", field="user_dn")
    limit = parse_limit(query.get("limit"), LIST_MAX)
    window_s = parse_window_s(query.get("time_window"))
    states = parse_columns(query.get("state_in"))
    ended_too = bool(states) and (limit is not None or window_s is not None)
    where = JobFilter(
        states=frozenset(JobState(state) for state in states if state in _STATES) if states else None,
        open_only=not ended_too,
        vo=query.get("vo_name") or None,
        user_dn=user_dn,
        cred_id=credential,
        source_se=query.get("source_se") or None,
        dest_se=query.get("dest_se") or None,
        submitted_after=None if window_s is None else now - window_s,
        limit=OPEN_MAX if limit is None else limit,
    )
    return JobList(where=where, fields=parse_columns(query.get("fields")))


def parse_limit(text: str | None, most: int) -> int | None:
    """The most rows that are wanted; None: nothing is said. Raises: Refused."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= most):
        raise Refused(f"The limit must be positive and less or equal than {most}", field="limit")
    return int(text)


def parse_window_s(text: str | None) -> float | None:
    """Seconds of `HOURS` or `HOURS:MINUTES`; None: nothing is said. Raises: Refused."""
    if not text:
        return None
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise value_error(f"time_window: expected HOURS or HOURS:MINUTES, got {text[:40]!r}", field="time_window")
    return int(match[1]) * 3600 + int(match[2] or 0) * 60
