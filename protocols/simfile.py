"""Files whose content follows from a few numbers, for the scripted adapter.

A simulated file is its size and a seed: the content is the seed as 8 bytes, then zeros. So a file
of any size costs nothing, its bytes can be produced when somebody reads them, and its adler32 is
known without producing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from protocols.checksum import Checksum, algorithm_name, compute, hasher

HEADER_BYTES: Final = 8
BLOCK_BYTES: Final = 1 << 20
HASHED_MAX: Final = 64 << 20
"""Up to this size other sums than adler32 are computed, from bytes that are produced for it."""
_MODULUS: Final = 65521


@dataclass(frozen=True, slots=True, kw_only=True)
class SimFile:
    """One immutable simulated file."""

    size_bytes: int
    seed: int = 0
    checksums: Mapping[str, Checksum] = field(default_factory=dict)
    """What the storage says instead of the truth, by algorithm; for storages that lie."""
    data: bytes | None = None
    """Content that does not follow the pattern, kept as it is."""

    def blocks(self) -> Iterator[bytes]:
        """The content, in blocks of at most 1 MiB."""
        if self.data is not None:
            for start in range(0, len(self.data), BLOCK_BYTES):
                yield self.data[start : start + BLOCK_BYTES]
            return
        head = self._header()
        zeros = bytes(BLOCK_BYTES)
        if self.size_bytes:
            yield head + zeros[: min(self.size_bytes, BLOCK_BYTES) - len(head)]
        for start in range(BLOCK_BYTES, self.size_bytes, BLOCK_BYTES):
            yield zeros[: min(BLOCK_BYTES, self.size_bytes - start)]

    def checksum(self, algorithm: str) -> Checksum | None:
        """What the storage says; None when it cannot (another sum than adler32 of a huge file)."""
        name = algorithm_name(algorithm)
        if name in self.checksums:
            return self.checksums[name]
        if self.data is not None:
            return compute(name, self.data)
        if name == "adler32":
            return self._adler32()
        if self.size_bytes > HASHED_MAX:
            return None
        digest = hasher(name)
        for block in self.blocks():
            digest.update(block)
        return digest.checksum()

    def cut(self, size_bytes: int) -> SimFile:
        """The first `size_bytes` of it."""
        if size_bytes >= self.size_bytes:
            return self
        data = None if self.data is None else self.data[:size_bytes]
        return SimFile(size_bytes=max(size_bytes, 0), seed=self.seed, data=data)

    def corrupted(self) -> SimFile:
        """The same length with other bytes; an empty file stays as it is."""
        if self.data is not None:
            return SimFile(size_bytes=self.size_bytes, data=bytes(b ^ 1 for b in self.data))
        return SimFile(size_bytes=self.size_bytes, seed=self.seed ^ 1)

    def _header(self) -> bytes:
        # Little-endian: a seed that differs in its lowest bit differs in the very first byte.
        return (self.seed % (1 << 64)).to_bytes(HEADER_BYTES, "little")[: self.size_bytes]

    def _adler32(self) -> Checksum:
        """A zero byte leaves the low half and adds it once to the high half (RFC 1950)."""
        head = self._header()
        start = int(compute("adler32", head).value, 16)
        low, high = start & 0xFFFF, start >> 16
        high = (high + (self.size_bytes - len(head)) * low) % _MODULUS
        return Checksum("adler32", f"{(high << 16) | low:08x}")


class Recorder:
    """Takes the blocks of an upload and becomes a `SimFile`."""

    DATA_MAX: Final = 64 << 20

    def __init__(self) -> None:
        self.size_bytes = 0
        self._head = b""
        self._data: bytearray | None = bytearray()
        self._patterned = True

    def add(self, block: bytes) -> None:
        """Take the next bytes; ValueError when content without the pattern outgrows 64 MiB."""
        rest = block
        if len(self._head) < HEADER_BYTES:
            rest = block[HEADER_BYTES - len(self._head) :]
            self._head += block[: HEADER_BYTES - len(self._head)]
        self._patterned = self._patterned and rest.count(0) == len(rest)
        self.size_bytes += len(block)
        if self._data is not None:
            if self.size_bytes <= self.DATA_MAX:
                self._data += block
            else:
                self._data = None
        if self._data is None and not self._patterned:
            msg = "the scripted adapter keeps at most 64 MiB of real content"
            raise ValueError(msg)

    def file(self) -> SimFile:
        """Everything added so far."""
        if self._patterned:
            return SimFile(size_bytes=self.size_bytes, seed=int.from_bytes(self._head, "little"))
        return SimFile(size_bytes=self.size_bytes, data=bytes(self._data or b""))
