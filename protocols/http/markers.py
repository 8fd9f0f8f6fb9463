"""The body of a COPY: bytes in, progress and the result out. No I/O, no clock.

    body   = *( marker / other-line ) result *ignored
    marker = "Perf Marker" LF *( key ":" value LF ) "End" LF
    result = ("success" / "failure" / "failed" / "aborted") [":" text]

Source: draft-http-tpc §4.2, and the servers: XRootD's last line has no newline, dCache indents,
some send CRLF, DPM sends one marker per stripe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocols.api import Marker
from protocols.errors import MESSAGE_MAX, printable

LINE_MAX: Final = 4096
BODY_MAX: Final = 16 * 1024 * 1024
STRIPES_MAX: Final = 8192
BYTES_MAX: Final = (1 << 63) - 1
CONNECTIONS_MAX: Final = 64

_FAILURES: Final = (b"failure", b"failed", b"aborted")


@dataclass(frozen=True, slots=True)
class Success:
    """The storage says that the copy is done."""

    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The storage says that the copy failed; `text` is its reason."""

    text: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """The peer breaks the grammar's bounds; nothing that follows is looked at."""

    reason: str


Event = Marker | Success | Failure | Malformed


class MarkerParser:
    """Incremental; what comes out does not depend on how the bytes were cut.

    Feed blocks until `done`, then `finish()` at the end of the body for a last line without newline.
    """

    __slots__ = (
        "_connections",
        "_done",
        "_in_marker",
        "_index",
        "_n_bytes",
        "_pending",
        "_reported",
        "_stripes",
        "_value",
    )

    def __init__(self) -> None:
        self._pending = b""
        self._n_bytes = 0
        self._done = False
        self._in_marker = False
        self._index = 0
        self._value: int | None = None
        self._connections: tuple[str, ...] = ()
        self._stripes: dict[int, int] = {}
        self._reported = 0

    @property
    def done(self) -> bool:
        """Whether a result (or a breach of the bounds) was seen; later bytes are ignored."""
        return self._done

    def feed(self, block: bytes) -> list[Event]:
        """Take the next bytes; what they completed, in order, a result only as the last."""
        events: list[Event] = []
        if self._done:
            return events
        room = BODY_MAX - self._n_bytes
        self._n_bytes += len(block)
        lines = (self._pending + block[:room]).split(b"\n")
        self._pending = lines.pop()
        for line in lines:
            if self._take(line, events):
                return events
        if len(self._pending) > LINE_MAX:
            self._give_up(f"a line of more than {LINE_MAX} bytes in the answer to COPY", events)
        elif len(block) > room:
            self._give_up(f"more than {BODY_MAX} bytes of progress in the answer to COPY", events)
        return events

    def finish(self) -> list[Event]:
        """The end of the body: what its last line, without newline, says."""
        events: list[Event] = []
        if not self._done and self._pending:
            self._take(self._pending, events)
        self._pending = b""
        return events

    def _take(self, raw: bytes, events: list[Event]) -> bool:
        """Look at one line; True when it is the last that counts."""
        if len(raw) > LINE_MAX:
            self._give_up(f"a line of more than {LINE_MAX} bytes in the answer to COPY", events)
            return True
        line = raw.strip()
        word = line[:7].lower()
        if word == b"success":
            self._done = True
            events.append(Success(_text(line)))
        elif word.startswith(_FAILURES):
            self._done = True
            events.append(Failure(_text(line.partition(b":")[2]) or _text(line)))
        elif word == b"perf ma" and line.lower() == b"perf marker":
            # A marker without its "End" is forgotten: its value may be cut short.
            self._in_marker, self._index, self._value = True, 0, None
        elif self._in_marker:
            if line.lower() == b"end":
                events.append(self._marker())
            else:
                self._key(line)
        return self._done

    def _key(self, line: bytes) -> None:
        key, _, value = line.partition(b":")
        name = key.strip().lower()
        if name == b"stripe bytes transferred":
            self._value = _number(value)
        elif name == b"stripe index":
            index = _number(value)
            self._index = -1 if index is None else index
        elif name == b"remoteconnections":
            names = value.split(b",")[:CONNECTIONS_MAX]
            self._connections = tuple(text for name in names if (text := _text(name)))

    def _marker(self) -> Marker:
        self._in_marker = False
        if self._value is not None and 0 <= self._index < STRIPES_MAX:
            self._stripes[self._index] = max(self._stripes.get(self._index, 0), self._value)
            total = sum(self._stripes.values()) if len(self._stripes) > 1 else self._stripes[self._index]
            self._reported = max(self._reported, min(total, BYTES_MAX))
        return Marker(bytes_done=self._reported, n_stripes=max(len(self._stripes), 1), connections=self._connections)

    def _give_up(self, reason: str, events: list[Event]) -> None:
        self._done = True
        events.append(Malformed(reason))


def _number(value: bytes) -> int | None:
    """A count, clamped to 0 … 2⁶³-1; None when it is no number. A fraction is dropped (GridFTP heritage)."""
    digits = value.strip().partition(b".")[0]
    if digits.startswith(b"-"):
        return 0 if digits[1:].isdigit() else None
    if not digits.isdigit():
        return None
    return int(digits) if len(digits) < 19 else min(int(digits), BYTES_MAX)  # noqa: PLR2004 - 2⁶³ has 19 digits


def _text(raw: bytes) -> str:
    text = raw.decode("utf-8", errors="replace").strip()
    # Most lines are clean, and looking at each character costs more than the rest of the line.
    return text if text.isprintable() and "  " not in text and len(text) <= MESSAGE_MAX else printable(text)
