"""What really happened at a storage, in order: the oracle that tests compare the engine with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path


class Event(StrEnum):
    """What became of a path."""

    CREATED = "created"
    """A complete file where there was none."""
    OVERWRITTEN = "overwritten"
    """A complete file in place of another, complete or not."""
    PARTIAL = "partial"
    """Writing ended early and the bytes stayed."""
    DISCARDED = "discarded"
    """Writing ended early, or the file was deleted meanwhile, and nothing stayed."""
    DELETED = "deleted"
    DIRECTORY = "directory"
    VIOLATION = "violation"
    """Something that the engine must never cause; `note` says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the journal."""

    at_s: float
    """The loop's monotonic time."""
    method: str
    path: str
    event: Event
    size_bytes: int
    adler32: str
    """Of the bytes meant; empty where there are none."""
    writer: str
    """Request number at this storage, and the client's `ClientInfo` if it sent one."""
    note: str = ""


class Journal:
    """Append-only list of entries.

    Args:
        now: monotonic time in seconds.
        path: file that gets each entry as a line of JSON at once; None: memory only.
    """

    def __init__(self, *, now: Callable[[], float], path: Path | None = None) -> None:
        self._now = now
        self._file: TextIOWrapper | None = path.open("a", encoding="utf-8", buffering=1) if path else None
        self.entries: list[Entry] = []

    def add(
        self,
        event: Event,
        *,
        method: str,
        path: str,
        writer: str,
        size_bytes: int = 0,
        adler32: str = "",
        note: str = "",
    ) -> None:
        """Append one entry, dated now."""
        entry = Entry(
            at_s=self._now(),
            method=method,
            path=path,
            event=event,
            size_bytes=size_bytes,
            adler32=adler32,
            writer=writer,
            note=note,
        )
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(asdict(entry)) + "\n")

    def violations(self) -> list[Entry]:
        """The entries that should not be there."""
        return [entry for entry in self.entries if entry.event is Event.VIOLATION]

    def of(self, path: str) -> list[Entry]:
        """The entries of one path, oldest first."""
        return [entry for entry in self.entries if entry.path == path]

    def close(self) -> None:
        """Close the file; the entries stay readable."""
        if self._file is not None:
            self._file.close()
            self._file = None
