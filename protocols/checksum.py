"""Checksums: parse what users and servers write, compare, compute.

A value is kept in one form: algorithm name in lower case and lower-case hex, zero-padded to the
algorithm's width. adler32 is the community's: it comes with and without leading zeros, in either
case; `Digest` headers carry some algorithms in hex and others in base64 (RFC 3230), `Repr-Digest`
all in base64 (RFC 9530).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import google_crc32c
from zlib_ng import zlib_ng

WIDTHS: Final[Mapping[str, int]] = {
    "adler32": 8,
    "crc32": 8,
    "crc32c": 8,
    "md5": 32,
    "sha1": 40,
    "sha256": 64,
    "sha512": 128,
}
"""Known algorithms → number of hex digits."""

ALIASES: Final[Mapping[str, str]] = {
    "adler": "adler32",
    "ad": "adler32",
    "sha": "sha1",
    "sha-1": "sha1",
    "sha-256": "sha256",
    "sha-512": "sha512",
}

WIRE_NAMES: Final[Mapping[str, str]] = {"sha1": "sha", "sha256": "sha-256", "sha512": "sha-512"}
"""Our name → the name in `Want-Digest`, where they differ (RFC 3230's registry)."""

_HEX: Final = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Checksum:
    """One checksum in normal form."""

    algorithm: str
    value: str
    """Lower-case hex of the algorithm's full width."""

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


def algorithm_name(text: str) -> str:
    """The name that this module uses for `text`; ValueError for an unknown one."""
    name = text.strip().lower()
    name = ALIASES.get(name, name)
    if name not in WIDTHS:
        msg = f"unknown checksum algorithm {text.strip()!r}, expected one of {', '.join(WIDTHS)}"
        raise ValueError(msg)
    return name


def from_hex(algorithm: str, value: str) -> Checksum:
    """Normalise a hex value; ValueError says what is wrong with it.

    Leading zeros may be missing (dCache leaves them out) for the 32-bit sums, never for digests.
    """
    name = algorithm_name(algorithm)
    width = WIDTHS[name]
    digits = value.strip().lower().removeprefix("0x")
    if not _HEX.fullmatch(digits):
        msg = f"checksum value {value.strip()!r} is not hexadecimal"
        raise ValueError(msg)
    if len(digits) > width or (len(digits) < width and width != 8):  # noqa: PLR2004 - 32-bit sums are 8 digits
        msg = f"checksum value {value.strip()!r} has {len(digits)} digits, {name} has {width}"
        raise ValueError(msg)
    return Checksum(name, digits.zfill(width))


def parse(text: str) -> Checksum:
    """A user's `ALGORITHM:HEX` (`ADLER32:02fa10b3`); ValueError says what was expected.

    Source: the `checksum` key of an FTS submission; a bare value is taken as adler32, FTS's default.
    """
    algorithm, colon, value = text.strip().partition(":")
    if not colon:
        algorithm, value = "adler32", algorithm
    if not value:
        msg = f"checksum {text.strip()!r} has no value, expected ALGORITHM:HEX"
        raise ValueError(msg)
    return from_hex(algorithm, value)


def _from_base64(name: str, value: str) -> Checksum | None:
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return Checksum(name, raw.hex()) if len(raw) * 2 == WIDTHS[name] else None


def _from_digest_value(name: str, value: str) -> Checksum | None:
    """One `Digest` value: hex or base64, told apart by length and alphabet.

    adler32 and crc32 are hex (RFC 3230 and practice); md5 and sha are base64, but old DPM sends
    md5 in hex; crc32c is base64 on XRootD 5 and hex on XRootD 6. The two never collide: base64 of
    4 bytes ends in `==`, and base64 of a digest is shorter than its hex.
    """
    try:
        return from_hex(name, value)
    except ValueError:
        return _from_base64(name, value)


def parse_digest_header(header: str) -> dict[str, Checksum]:
    """The value of a `Digest` header (RFC 3230) → {algorithm: checksum}; unknown parts are left out."""
    found: dict[str, Checksum] = {}
    for part in header.split(","):
        algorithm, equals, value = part.strip().partition("=")
        try:
            name = algorithm_name(algorithm)
        except ValueError:
            continue
        checksum = _from_digest_value(name, value.strip().strip('"')) if equals else None
        if checksum is not None:
            found[name] = checksum
    return found


def parse_repr_digest_header(header: str) -> dict[str, Checksum]:
    """The value of a `Repr-Digest` header (RFC 9530: `name=:base64:`) → {algorithm: checksum}."""
    found: dict[str, Checksum] = {}
    for part in header.split(","):
        algorithm, equals, value = part.strip().partition("=")
        value = value.strip()
        if not (equals and value.startswith(":") and value.endswith(":")):
            continue
        try:
            name = algorithm_name(algorithm)
        except ValueError:
            continue
        checksum = _from_base64(name, value.strip(":"))
        if checksum is not None:
            found[name] = checksum
    return found


def to_base64(checksum: Checksum) -> str:
    """The value in base64, as `Repr-Digest` and RFC 3230's md5 and sha want it."""
    return base64.b64encode(bytes.fromhex(checksum.value)).decode("ascii")


class Hasher(Protocol):
    """A checksum that grows block by block."""

    def update(self, block: bytes, /) -> None:
        """Add the next bytes."""

    def checksum(self) -> Checksum:
        """The value over everything added so far."""


class _Rolling:
    """A 32-bit sum with a function (block, previous) → next."""

    def __init__(self, name: str, function: Callable[[bytes, int], int], start: int) -> None:
        self._name = name
        self._function = function
        self._value = start

    def update(self, block: bytes, /) -> None:
        self._value = self._function(block, self._value)

    def checksum(self) -> Checksum:
        return Checksum(self._name, f"{self._value & 0xFFFFFFFF:08x}")


class _Crc32c:
    def __init__(self) -> None:
        self._sum = google_crc32c.Checksum()

    def update(self, block: bytes, /) -> None:
        self._sum.update(block)

    def checksum(self) -> Checksum:
        return Checksum("crc32c", self._sum.digest().hex())


class _Digest:
    def __init__(self, name: str) -> None:
        self._name = name
        self._hash = hashlib.new(name, usedforsecurity=False)

    def update(self, block: bytes, /) -> None:
        self._hash.update(block)

    def checksum(self) -> Checksum:
        return Checksum(self._name, self._hash.hexdigest())


def hasher(algorithm: str) -> Hasher:
    """A new hasher for a known algorithm; ValueError for another."""
    name = algorithm_name(algorithm)
    if name == "adler32":
        return _Rolling(name, zlib_ng.adler32, 1)
    if name == "crc32":
        return _Rolling(name, zlib_ng.crc32, 0)
    if name == "crc32c":
        return _Crc32c()
    return _Digest(name)


def compute(algorithm: str, data: bytes) -> Checksum:
    """The checksum of bytes in memory."""
    digest = hasher(algorithm)
    digest.update(data)
    return digest.checksum()
