"""The last net under the log: no line goes out with what looks like a secret, or as two lines.

Nothing relies on it. Secrets are kept out of messages where these are made, and tests prove that without this
net; it is for the library, the version or the mistake that nobody has seen yet.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Final

from protocols.masking import shapeless

_FORMING: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What begins a new line or steers a terminal."""
_QUOTED: Final = re.compile(r"[\s\"=]|^$")
FIELD_MAX: Final = 2048
"""Longest value of a field, in characters."""


def one_line(text: str) -> str:
    """`text` for a log: whatever somebody chose in it cannot look like a line of its own."""
    return _FORMING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def field(value: Any) -> str:
    """The value of a field, in quotes where it would not end with the next blank."""
    text = str(value)
    text = text if len(text) <= FIELD_MAX else text[: FIELD_MAX - 1] + "…"
    if text.isprintable() and not _QUOTED.search(text):
        return text
    return one_line(json.dumps(text, ensure_ascii=False))


class Redacting(logging.Formatter):
    """`LEVEL message key=value …`: the message is constant, the fields follow, a traceback below; no secrets.

    It works on the finished text, so that arguments, fields, tracebacks and whatever else is formatted pass it.
    """

    PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """One line per record, the traceback below."""
        return shapeless(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """The line, with the record's own fields at its end."""
        fields = [f" {key}={field(value)}" for key, value in vars(record).items() if key not in self.PLAIN]
        return one_line(super().formatMessage(record)) + "".join(fields)
