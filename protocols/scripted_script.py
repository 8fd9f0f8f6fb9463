"""The vocabulary of a script: rules, ways to lose an answer, ways to lie, and the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from protocols.errors import TransferError
from protocols.simfile import SimFile

OPERATIONS: Final = frozenset({"stat", "list", "mkdir", "delete", "copy", "read", "write"})


class Lost(StrEnum):
    """What the storage does after the connection of a copy was lost."""

    COMPLETED = "completed"
    """It had just finished: only the answer is lost."""
    GOES_ON = "goes-on"
    """It writes on to the end, as StoRM does: a zombie."""
    STOPPED = "stopped"
    """It stops there and leaves a partial file, as XRootD does."""


class Lie(StrEnum):
    """What is at the destination after the storage said success."""

    SHORT = "short"
    """Half of the file."""
    CORRUPT = "corrupt"
    """The right length, other bytes."""
    NOTHING = "nothing"
    """No file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one operation goes; the defaults are a storage without faults."""

    match: str = "*"
    """Shell pattern over the whole URL (`sim://a/*`), or an endpoint (`sim://a`) for all below it."""
    operations: frozenset[str] = OPERATIONS
    attempts: range | None = None
    """Which attempts at one URL (per operation, from 1) it is for: `range(1, 3)` the first two; None: all."""
    chance: float = 1.0
    """Probability that it applies when it matches."""
    latency_s: float = 0.0
    """Before the first answer."""
    rate_bytes_s: float = 100e6
    error: Callable[[], TransferError] | None = None
    """Makes the error to raise: at once, or where `at_bytes` says."""
    at_bytes: int | None = None
    """How far a copy comes before it fails, stalls or loses its answer; None: 0, half of the file for `lost`."""
    stall: bool = False
    """From `at_bytes` on no bytes move, but markers keep coming."""
    silent: bool = False
    """No markers at all; with `stall`, no answer either."""
    lost: Lost | None = None
    lie: Lie | None = None
    digests: bool = True
    """False: the storage knows no checksums."""
    cancel_lag_s: float = 5.0
    """How long a cancelled copy goes on writing: real storages notice at their next marker."""

    def applies(self, operation: str, url: str, attempt: int) -> bool:
        """Whether it is for the `attempt`-th (from 1) such operation on `url`."""
        if operation not in self.operations or (self.attempts is not None and attempt not in self.attempts):
            return False
        return fnmatchcase(url, self.match) or url.startswith(self.match.rstrip("/") + "/")

    def told(self, file: SimFile) -> SimFile:
        """The file that really ends at the destination."""
        if self.lie is Lie.SHORT:
            return file.cut(file.size_bytes // 2)
        return file.corrupted() if self.lie is Lie.CORRUPT else file


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One thing that happened."""

    at_s: float
    """Loop time."""
    operation: str
    """An operation's name when it begins; `copied`, `written`, `failed`, `cancelled`, `conflict` (two writers)."""
    url: str
    """The destination for copies."""
    n_bytes: int = 0
