"""Is the destination what it should be? Comparison of what was seen with what was expected. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.api import Stat
from protocols.checksum import Checksum
from protocols.errors import ChecksumMismatch, ChecksumUnavailable, Phase, Scope, SizeMismatch, TransferError
from transfer_engine.model import Evidence


@dataclass(slots=True, kw_only=True)
class Expected:
    """What the destination must look like."""

    size_bytes: int | None
    checksum: Checksum | None
    algorithm: str | None
    """What to ask the destination for; None: its size is enough."""
    others: Mapping[str, Checksum] = field(default_factory=dict)
    """What the source said, by algorithm: compared where the destination does not know the wanted one."""
    proven: bool = True
    """What the user gave has been compared with the source, or nothing was given."""
    given: bool = False
    """`checksum` is what the user gave, not what the source said."""


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
    wanted, seen = _comparable(stat, expected)
    name = expected.checksum.algorithm.upper()
    if not expected.proven and expected.checksum.algorithm not in stat.checksums:
        wrong = ChecksumUnavailable(f"neither storage offers the {name} checksum that was given")
        return wrong.at(Scope.DESTINATION, Phase.FINALIZATION)
    if seen is None or wanted is None:
        if not required:
            return None
        wrong = ChecksumUnavailable(f"destination offers no {name} checksum, and one is required")
        return wrong.at(Scope.DESTINATION, Phase.FINALIZATION)
    if seen == wanted:
        return None
    # FTS's words, which Rucio's operators and tests search for.
    by = "User-defined" if expected.given and wanted is expected.checksum else "Source"
    wrong = ChecksumMismatch(
        f"{by} and destination {wanted.algorithm.upper()} checksum do not match ({wanted.value} != {seen.value})"
    )
    return wrong.at(Scope.DESTINATION, Phase.FINALIZATION)


def _comparable(stat: Stat, expected: Expected) -> tuple[Checksum | None, Checksum | None]:
    """(expected, seen) of the wanted algorithm, else of one that both ends offer, else None."""
    assert expected.checksum is not None, "there is something to compare"
    seen = stat.checksums.get(expected.checksum.algorithm)
    if seen is not None:
        return expected.checksum, seen
    for wanted in expected.others.values():
        seen = stat.checksums.get(wanted.algorithm)
        if seen is not None:
            return wanted, seen
    return None, None


def evidence_of(stat: Stat, expected: Expected, *, adopted: bool = False) -> Evidence:
    """What was seen of a destination that `mismatch` found nothing wrong with."""
    seen = _comparable(stat, expected)[1] if expected.checksum else None
    assert stat.size_bytes is not None, "mismatch() lets no unknown size pass"
    method = "size+checksum" if seen is not None else "size"
    return Evidence(size_bytes=stat.size_bytes, checksum=seen, method=method, adopted=adopted)
