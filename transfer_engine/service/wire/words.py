"""FTS3's sentences, letters and times, as clients compare them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from transfer_engine.errors import EngineError, Invalid
from transfer_engine.model import Verify

BAD_JSON: Final = "Badly formatted JSON request"
VALUE: Final = "Invalid value within the request: "
NO_DELETION: Final = "Deletion jobs are no longer supported by FTS"
FOUND: Final = "200 Ok"
UNCHANGED: Final = "304 Not Modified"
TERMINAL_JOB: Final = "The job is in a terminal state"
FOREIGN_FILE: Final = "File does not belong to the job"
DUPLICATED_SID: Final = "The sid provided by the user is duplicated"
CANCELED_JOB: Final = "Job canceled by the user"
FILES_FAILED: Final = "One or more files failed. Please have a look at the details for more information"

VERIFY_LETTERS: Final[Mapping[Verify, str]] = {
    Verify.NONE: "n",
    Verify.SOURCE: "s",
    Verify.TARGET: "t",
    Verify.BOTH: "b",
}

_UNITS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 3600}
_DURATION: Final = re.compile(r"([+-]?[0-9]{1,12})([smhd]?)")


class Refused(Invalid):
    """A request that FTS refuses, in FTS's words: the message is complete, `field` is for programs."""


def timestamp(at: float | None) -> str | None:
    """`YYYY-MM-DDTHH:MM:SS`, UTC, without a zone; None for None."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def duration_s(text: str) -> int:
    """Seconds of `10s`, `5m`, `3h`, `1d`; a bare number is hours. Raises: ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        msg = f"expected hours, or a number with s, m, h or d, got {text[:40]!r}"
        raise ValueError(msg)
    return int(match[1]) * _UNITS[match[2]]


def no_job(job_id: str) -> str:
    """What is said of a job that does not exist."""
    return f'No job with the id "{job_id[:100]}" has been found'


def value_error(message: str, *, field: str | None = None) -> Refused:
    """A refusal of one value."""
    return Refused(VALUE + message, field=field)


def document_error(error: ValidationError) -> Refused:
    """The first thing that is wrong with a document, with the place where it is."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Refused(BAD_JSON)
    place = ""
    for part in first["loc"]:
        # A place inside a union ends in names of pydantic's own.
        if isinstance(part, str) and (part in {"bool", "str"} or not part.isidentifier()):
            break
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    place = place.lstrip(".")
    if not place:
        return Refused("Expecting a dictionary")
    return value_error(f"{place}: {first['msg']}", field=place)


def refusal(error: EngineError) -> str:
    """The message of an error, for people.

    FTS names no field where the offending URL speaks for itself; clients and their tests know
    these sentences by heart, so they stay as they are.
    """
    if isinstance(error, Refused):
        return error.message
    if not isinstance(error, Invalid) or error.field is None:
        return str(error)
    if error.message.startswith("Missing "):
        return VALUE + error.message.partition(", expected")[0]
    return f"{VALUE}{error.field}: {error.message}"
