"""What is in a file: bytes that follow from a seed, or bytes that arrived.

Bytes from a seed cost neither memory nor disk: the file is a tile, repeated, each copy of it
stamped with its number, so that two blocks that change places change the file. Bytes that arrived
are kept in memory until the storage's budget is used up, then in a temporary file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final, Protocol

from protocols.checksum import Checksum, Hasher, hasher

BLOCK_BYTES: Final = 256 * 1024
"""Length of a tile and of the blocks in which files are read."""

STAMP_BYTES: Final = 16

ALGORITHMS: Final = ("adler32", "md5", "crc32c")


class Content(Protocol):
    """The bytes of one file."""

    @property
    def size_bytes(self) -> int:
        """How many there are now."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; empty at the end."""

    def checksum(self, algorithm: str) -> Checksum:
        """Over the bytes that are there now; ValueError for an algorithm outside `ALGORITHMS`."""

    def close(self) -> None:
        """Give back what it occupies."""


class SeededContent:
    """`size_bytes` bytes that follow from `seed`; the same on every machine."""

    __slots__ = ("_known", "_seed", "_tile", "size_bytes")

    def __init__(self, *, size_bytes: int, seed: int) -> None:
        if size_bytes < 0:
            msg = f"a file of {size_bytes} bytes cannot be"
            raise ValueError(msg)
        self.size_bytes = size_bytes
        self._seed = seed
        self._tile: bytes | None = None
        self._known: dict[str, Checksum] = {}

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        end = min(self.size_bytes, offset + length)
        tile = self._tile or hashlib.shake_128(b"tile %d" % self._seed).digest(min(self.size_bytes, BLOCK_BYTES))
        # Small files come by the ten thousand and are read once or twice; only long reads profit from the tile.
        if self.size_bytes > BLOCK_BYTES:
            self._tile = tile if end < self.size_bytes else None
        parts = []
        while offset < end:
            number, start = divmod(offset, BLOCK_BYTES)
            stamp = hashlib.blake2b(b"%d %d" % (self._seed, number), digest_size=STAMP_BYTES).digest()
            block = (stamp + tile[STAMP_BYTES:])[start : start + end - offset]
            parts.append(block)
            offset += len(block)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def checksum(self, algorithm: str) -> Checksum:
        """Computed when first asked for, then remembered."""
        if algorithm not in self._known:
            digest = _offered(algorithm)
            for offset in range(0, self.size_bytes, BLOCK_BYTES):
                digest.update(self.read(offset, BLOCK_BYTES))
            self._known[algorithm] = digest.checksum()
        return self._known[algorithm]

    def close(self) -> None:
        """Forget the tile."""
        self._tile = None


def _offered(algorithm: str) -> Hasher:
    if algorithm not in ALGORITHMS:
        msg = f"no {algorithm} here, only {', '.join(ALGORITHMS)}"
        raise ValueError(msg)
    return hasher(algorithm)


class Budget:
    """Memory that the files of one storage may take together, and where the rest goes."""

    def __init__(self, *, memory_max_bytes: int) -> None:
        self.memory_max_bytes = memory_max_bytes
        self.used_bytes = 0
        self._spool: TemporaryDirectory[str] | None = None
        self._n_spooled = 0

    def next_path(self) -> Path:
        """A new name in a temporary directory, which is made when first needed."""
        if self._spool is None:
            self._spool = TemporaryDirectory(prefix="model-storage-")
        self._n_spooled += 1
        return Path(self._spool.name) / f"{self._n_spooled:08d}"

    def close(self) -> None:
        """Remove the temporary directory and what is in it."""
        if self._spool is not None:
            self._spool.cleanup()
            self._spool = None


@dataclass(slots=True, kw_only=True)
class ArrivedContent:
    """Bytes that came over the wire, with their checksums kept up as they come."""

    budget: Budget
    size_bytes: int = 0
    _memory: bytearray = field(default_factory=bytearray)
    _file: BinaryIO | None = None
    _path: Path | None = None
    _digests: dict[str, Hasher] = field(default_factory=lambda: {name: hasher(name) for name in ALGORITHMS})

    def append(self, block: bytes) -> None:
        """Add the next bytes; moves to disk what no longer fits the budget."""
        for digest in self._digests.values():
            digest.update(block)
        self.size_bytes += len(block)
        if self._file is None and self.budget.used_bytes + len(block) > self.budget.memory_max_bytes:
            self._spill()
        if self._file is not None:
            self._file.seek(0, 2)
            self._file.write(block)
        else:
            self._memory += block
            self.budget.used_bytes += len(block)

    def _spill(self) -> None:
        self._path = self.budget.next_path()
        self._file = self._path.open("w+b")
        self._file.write(self._memory)
        self.budget.used_bytes -= len(self._memory)
        self._memory = bytearray()

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        if self._file is None:
            return bytes(memoryview(self._memory)[offset : offset + length])
        self._file.seek(offset)
        return self._file.read(length)

    def checksum(self, algorithm: str) -> Checksum:
        """Over what has arrived so far."""
        if algorithm not in self._digests:
            _offered(algorithm)
        return self._digests[algorithm].checksum()

    def close(self) -> None:
        """Drop the bytes, in memory or on disk; a reader in between sees the end of the file."""
        self.budget.used_bytes -= len(self._memory)
        self._memory = bytearray()
        if self._file is not None and self._path is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._file = None
