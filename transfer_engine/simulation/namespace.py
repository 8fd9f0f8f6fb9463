"""Simulated files: their URL says all of them, so that millions cost no memory. Pure.

    sim://HOST/ORIGIN/STREAM/NUMBER.SIZE

is file NUMBER of a stream, SIZE bytes long, which was first at ORIGIN. It is at its origin from the
beginning; elsewhere a bit says whether it has been copied there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import xxhash

from protocols.checksum import WIDTHS, Checksum, algorithm_name

SCHEME = "sim"


class SimPath(NamedTuple):
    """A URL, taken apart."""

    host: str
    origin: str
    stream: str
    number: int
    size_bytes: int
    name: str
    """All behind the host: the same wherever the file is."""


def url(host: str, origin: str, stream: str, number: int, size_bytes: int) -> str:
    """The URL of a file at `host`."""
    return f"{SCHEME}://{host}/{origin}/{stream}/{number}.{size_bytes}"


def url_at(host: str, path: SimPath) -> str:
    """The URL of the same file at `host`."""
    return f"{SCHEME}://{host}{path.name}"


def endpoint(host: str) -> str:
    """The engine's name of a storage."""
    return f"{SCHEME}://{host}"


@lru_cache(maxsize=8192)  # each URL is looked at several times while its copy runs
def parse(text: str) -> SimPath | None:
    """Take a URL apart; None when it is not of that form."""
    parts = text.split("/", 5)
    try:
        _, _, host, origin, stream, tail = parts
        number, _, size = tail.partition(".")
        return SimPath(host, origin, stream, int(number), int(size), text[len(SCHEME) + 3 + len(host) :])
    except ValueError:
        return None


def checksum(path: SimPath, algorithm: str, *, corrupt: bool = False) -> Checksum | None:
    """A value that every copy of the file has, and no other file; None for an unknown algorithm."""
    return _checksum(path.name, algorithm, corrupt)


@lru_cache(maxsize=8192)  # asked for at the source, and soon after at the destination
def _checksum(file: str, algorithm: str, corrupt: bool) -> Checksum | None:
    try:
        name = algorithm_name(algorithm)
    except ValueError:
        return None
    text = xxhash.xxh3_128_hexdigest(file.encode(), seed=int(corrupt))
    width = WIDTHS[name]
    return Checksum(name, (text * (width // len(text) + 1))[:width])


class Presence:
    """Which files are where, one bit each; and what is there only in part or is not what it should be."""

    def __init__(self) -> None:
        self._copied: dict[tuple[str, str], bytearray] = {}
        self._removed: set[str] = set()
        self._parts: dict[str, int] = {}
        self._corrupt: set[str] = set()

    def size(self, text: str, path: SimPath) -> int | None:
        """Bytes at this URL now; None: no such file."""
        if self._parts and (part := self._parts.get(text)) is not None:
            return part
        if path.host == path.origin:
            return None if text in self._removed else path.size_bytes
        bits = self._copied.get((path.host, path.stream))
        byte, bit = divmod(path.number, 8)
        there = bits is not None and byte < len(bits) and bits[byte] >> bit & 1
        return path.size_bytes if there else None

    def is_corrupt(self, text: str) -> bool:
        """Whether its bytes are wrong."""
        return text in self._corrupt

    def put(self, text: str, path: SimPath, *, corrupt: bool = False) -> None:
        """The whole file is there now."""
        self._parts.pop(text, None)
        if corrupt:
            self._corrupt.add(text)
        else:
            self._corrupt.discard(text)
        if path.host == path.origin:
            self._removed.discard(text)
        else:
            self._mark(path, present=True)

    def put_part(self, text: str, n_bytes: int) -> None:
        """So much of it is there now."""
        self._parts[text] = n_bytes

    def remove(self, text: str, path: SimPath) -> bool:
        """Take it away; False when it was not there."""
        was_there = self.size(text, path) is not None
        self._parts.pop(text, None)
        self._corrupt.discard(text)
        if path.host == path.origin:
            self._removed.add(text)
        elif was_there:
            self._mark(path, present=False)
        return was_there

    def _mark(self, path: SimPath, *, present: bool) -> None:
        bits = self._copied.setdefault((path.host, path.stream), bytearray())
        byte, bit = divmod(path.number, 8)
        if byte >= len(bits):
            if not present:
                return
            bits.extend(bytes(max(byte + 1 - len(bits), len(bits) // 8)))
        if present:
            bits[byte] |= 1 << bit
        else:
            bits[byte] &= ~(1 << bit)
