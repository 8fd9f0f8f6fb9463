"""Is the destination what it should be? Comparison of what was seen with what was expected. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.api import Stat
from protocols.checksum import Checksum
from protocols.errors import ChecksumMismatch, Phase, Scope, SizeMismatch, TransferError
from transfer_engine.model import Evidence


@dataclass(slots=True, kw_only=True)
class Expected:
    """What the destination must look like."""

    size_bytes: int | None
    checksum: Checksum | None
    algorithm: str | None
    """What to ask the destination for; None: its size is enough."""


def mismatch(stat: Stat, expected: Expected, *, required: bool) -> TransferError | None:
    """What is wrong with a destination, or None when it is as expected.

    Args: required: a checksum that was asked for but is not offered counts as wrong.
    """
    if stat.size_bytes is None or (expected.size_bytes is not None and stat.size_bytes != expected.size_bytes):
        wrong: TransferError = SizeMismatch(
            f"Source and destination file size mismatch ({expected.size_bytes} != {stat.size_bytes})"
        )
        return wrong.at(Scope.DESTINATION, Phase.FINALIZATION)
    if expected.checksum is None:
        return None
    seen = stat.checksums.get(expected.checksum.algorithm)
    name = expected.checksum.algorithm.upper()
    if seen is None:
        if not required:
            return None
        wrong = ChecksumMismatch(f"destination offers no {name} checksum, and one is required")
        return wrong.at(Scope.DESTINATION, Phase.FINALIZATION)
    if seen == expected.checksum:
        return None
    wrong = ChecksumMismatch(
        f"Source and destination {name} checksum do not match ({expected.checksum.value} != {seen.value})"
    )
    return wrong.at(Scope.DESTINATION, Phase.FINALIZATION)


def evidence_of(stat: Stat, expected: Expected, *, adopted: bool = False) -> Evidence:
    """What was seen of a destination that `mismatch` found nothing wrong with."""
    seen = stat.checksums.get(expected.checksum.algorithm) if expected.checksum else None
    assert stat.size_bytes is not None, "mismatch() lets no unknown size pass"
    method = "size+checksum" if seen is not None else "size"
    return Evidence(size_bytes=stat.size_bytes, checksum=seen, method=method, adopted=adopted)
