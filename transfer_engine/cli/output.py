"""What a person or a script gets to see: errors on stderr, results on stdout."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Final, NoReturn

from protocols.errors import printable
from protocols.masking import shapeless
from transfer_engine.cli.exits import Exit
from transfer_engine.redaction import Redacting

PROGRAM: Final = "transfer-engine"
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


class Stop(Exception):
    """End the command with a message and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.ERROR) -> None:
        self.message = message
        self.code = code
        super().__init__(message)


def say(message: str) -> None:
    """One line for a person, on stderr; what a storage or service says in it cannot move the cursor."""
    sys.stderr.write(f"{PROGRAM}: {shapeless(printable(message))}\n")
    sys.stderr.flush()


def stop(message: str, code: Exit) -> NoReturn:
    """Raise `Stop`."""
    raise Stop(message, code)


def put(text: str) -> None:
    """One line of result, on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def put_json(value: Any) -> None:
    """One JSON value on one line, on stdout."""
    put(json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str))


def size(n_bytes: float) -> str:
    """Bytes in decimal units, three digits: `1.23 GB`."""
    value = float(n_bytes)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:  # noqa: PLR2004 - three digits
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def log_to_stderr(level: int) -> None:
    """Log lines for an operator, on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
