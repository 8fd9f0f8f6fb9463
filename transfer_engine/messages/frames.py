"""STOMP 1.2 frames ↔ bytes. Pure; `Frames` is fed in pieces of any size.

Source: STOMP Protocol Specification 1.2, "STOMP Frames", "Augmented BNF", "Value Encoding".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

FRAME_MAX: Final = 256 * 1024
"""Longest frame that is taken from a broker, in bytes: receipts and errors are short."""

_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c"}
_ESCAPE: Final = re.compile(r"[\\\n\r:]")
_MEANS: Final = {escaped: plain for plain, escaped in _ESCAPES.items()}
_ESCAPED: Final = re.compile(r"\\.")


class BadFrame(Exception):
    """What came is not STOMP 1.2."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame from a broker."""

    command: str
    headers: Mapping[str, str]
    body: bytes


def encode(command: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A frame to send."""
    length = b"content-length:%d\n" % len(body) if body else b""
    return head(command, headers) + length + b"\n" + body + b"\0"


def head(command: str, headers: Mapping[str, str]) -> bytes:
    """The beginning of a frame, to which more headers may be added. CONNECT has no escapes, as in STOMP 1.0."""
    if command != "CONNECT":
        headers = {_escape(name): _escape(value) for name, value in headers.items()}
    return "\n".join([command, *(f"{name}:{value}" for name, value in headers.items()), ""]).encode()


def _escape(value: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPES[match[0]], value)


def _unescape(value: str) -> str:
    return _ESCAPED.sub(lambda match: _MEANS.get(match[0], match[0]), value)


class Frames:
    """Cuts what a broker sends into frames; line ends between them are heart-beats."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with this piece. Raises: BadFrame."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame
        if len(self._buffer) > FRAME_MAX:
            msg = f"a frame is longer than {FRAME_MAX} bytes"
            raise BadFrame(msg)

    def _next(self) -> Frame | None:
        start = 0
        while start < len(self._buffer) and self._buffer[start] in b"\r\n":
            start += 1
        del self._buffer[:start]
        head_end = re.search(rb"\r?\n\r?\n", self._buffer)
        if head_end is None:
            return None
        head = bytes(self._buffer[: head_end.start()]).decode("utf-8", "replace")
        lines = [line.removesuffix("\r") for line in head.split("\n")]
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                msg = f"a header has no colon: {line[:80]!r}"
                raise BadFrame(msg)
            headers.setdefault(_unescape(name), _unescape(value))
        end = self._end_of_body(headers, head_end.end())
        if end is None:
            return None
        body = bytes(self._buffer[head_end.end() : end])
        del self._buffer[: end + 1]
        return Frame(lines[0], headers, body)

    def _end_of_body(self, headers: Mapping[str, str], start: int) -> int | None:
        length = headers.get("content-length")
        if length is None:
            found = self._buffer.find(b"\0", start)
            return None if found < 0 else found
        if not length.isdecimal() or int(length) > FRAME_MAX:
            msg = f"content-length {length[:20]!r}"
            raise BadFrame(msg)
        end = start + int(length)
        if len(self._buffer) <= end:
            return None
        if self._buffer[end]:
            msg = "a body does not end where it says"
            raise BadFrame(msg)
        return end
