"""Exit codes, in one table: scripts decide by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    TEMPORARY = 5
    SOME_FAILED = 6
    ALL_FAILED = 7
    MISMATCH = 8
    TIMED_OUT = 9
    UNREACHABLE = 10
    REFUSED = 11
    INTERRUPTED = 130


MEANING: Final[Mapping[Exit, str]] = {
    Exit.OK: "all done",
    Exit.ERROR: "another error",
    Exit.USAGE: "wrong usage, or bad input",
    Exit.NOT_FOUND: "source (or job) not found",
    Exit.DENIED: "permission or credential",
    Exit.TEMPORARY: "temporary: try again",
    Exit.SOME_FAILED: "some transfers failed",
    Exit.ALL_FAILED: "all transfers failed, and trying again will not help",
    Exit.MISMATCH: "checksum or size mismatch",
    Exit.TIMED_OUT: "waiting timed out; the job goes on",
    Exit.UNREACHABLE: "the service cannot be reached",
    Exit.REFUSED: "refused by policy",
    Exit.INTERRUPTED: "interrupted",
}

BY_CODE: Final[Mapping[str, Exit]] = {
    "MISSING": Exit.NOT_FOUND,
    "PARENT_MISSING": Exit.NOT_FOUND,
    "DENIED": Exit.DENIED,
    "TOKEN_ENDED": Exit.DENIED,
    "TOKEN_REFUSED": Exit.DENIED,
    "CLIENT_REFUSED": Exit.DENIED,
    "PROXY_ENDED": Exit.DENIED,
    "SECRET_LOST": Exit.DENIED,
    "CHECKSUM_MISMATCH": Exit.MISMATCH,
    "SOURCE_CORRUPT": Exit.MISMATCH,
    "SIZE_MISMATCH": Exit.MISMATCH,
    "UNAVAILABLE": Exit.TEMPORARY,
    "ISSUER_UNAVAILABLE": Exit.TEMPORARY,
    "OVERLOADED": Exit.TEMPORARY,
    "TIMED_OUT": Exit.TEMPORARY,
    "STALLED": Exit.TEMPORARY,
    "NO_SPACE": Exit.TEMPORARY,
    "OUTCOME_UNKNOWN": Exit.TEMPORARY,
    "COPY_FAILED": Exit.TEMPORARY,
}
"""Error code of a failed transfer → exit code."""


def of_failures(codes: Iterable[str], n_finished: int) -> Exit:
    """The exit code for transfers that failed with `codes`, beside `n_finished` that did not."""
    exits = {BY_CODE.get(code, Exit.ALL_FAILED) for code in codes}
    if not exits:
        return Exit.OK
    if n_finished:
        return Exit.SOME_FAILED
    return exits.pop() if len(exits) == 1 else Exit.ALL_FAILED


def epilog() -> str:
    """The table, for `--help`."""
    rows = "\n".join(f"{code.value:>5}  {text}" for code, text in MEANING.items())
    # The mark keeps the lines as they are.
    return f"\b\nExit codes:\n{rows}"
