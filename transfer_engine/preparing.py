"""Before a copy: is the source what it should be, and is the destination free?

Of a destination nothing is removed but what an attempt of the engine left there, or what the user asked
to overwrite.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.api import Stat
from protocols.errors import (
    AlreadyExists,
    ChecksumUnavailable,
    Missing,
    Phase,
    Refused,
    Scope,
    SizeMismatch,
    SourceCorrupt,
    TransferError,
)
from transfer_engine.config import TransferSettings
from transfer_engine.ends import Ends
from transfer_engine.model import Evidence, Verify
from transfer_engine.patience import patiently, surely
from transfer_engine.verification import Expected, evidence_of, mismatch

AT_SOURCE: Final = frozenset({Verify.SOURCE, Verify.BOTH})
AT_DESTINATION: Final = frozenset({Verify.TARGET, Verify.BOTH})


class Preparation:
    """The looks before the copy of one attempt."""

    def __init__(self, ends: Ends, settings: TransferSettings) -> None:
        self.ends = ends
        self._order = ends.order
        self._settings = settings
        self.replaces = False
        """The old file stays until the new one is complete: nothing was removed before."""

    async def look_at_source(self) -> Expected:
        """What the destination must look like after the copy. Raises: TransferError of scope SOURCE."""
        order = self._order
        if order.options.strict_copy and order.size_bytes is not None:
            return Expected(size_bytes=order.size_bytes, checksum=None, algorithm=None)
        algorithm, verify = self.algorithm(), order.options.compares
        needs_source_sum = verify in AT_SOURCE or (verify is Verify.TARGET and not order.checksum)
        digest = algorithm if needs_source_sum else None
        try:
            stat = await surely(lambda: self.ends.stat_source(digest), digest, self.ends.source_digests)
            self._check_source(stat, algorithm)
        except TransferError as error:
            raise error.at(Scope.SOURCE, Phase.PREPARATION) from None
        # A storage that does not know the algorithm answers with another one: better than none.
        other = next(iter(stat.checksums.values()), None)
        checksum = order.checksum or stat.checksums.get(algorithm) or other
        at_destination = verify in AT_DESTINATION and checksum is not None
        return Expected(
            size_bytes=stat.size_bytes if stat.size_bytes is not None else order.size_bytes,
            checksum=checksum if at_destination else None,
            algorithm=checksum.algorithm if at_destination and checksum else None,
            others=stat.checksums if at_destination else {},
            proven=order.checksum is None or (needs_source_sum and algorithm in stat.checksums),
            given=order.checksum is not None,
        )

    def algorithm(self) -> str:
        """The checksum algorithm of this transfer: the user's, else the engine's."""
        return self._order.checksum.algorithm if self._order.checksum else self._settings.checksum

    def _check_source(self, stat: Stat, algorithm: str) -> None:
        order = self._order
        if stat.is_directory:
            raise Refused("source is a directory, not a file")
        if order.size_bytes is not None and stat.size_bytes is not None and order.size_bytes != stat.size_bytes:
            raise SizeMismatch(f"source has {stat.size_bytes} bytes, the submission says {order.size_bytes}")
        verify = order.options.compares
        if verify not in AT_SOURCE:
            return
        seen = stat.checksums.get(algorithm)
        must = self._settings.require_checksum or (verify is Verify.SOURCE and order.checksum is not None)
        if seen is None and must:
            raise ChecksumUnavailable(f"source offers no {algorithm.upper()} checksum, and one is required")
        if seen is not None and order.checksum is not None and seen != order.checksum:
            raise SourceCorrupt(
                f"Source and user-defined {algorithm.upper()} checksum do not match "
                f"({seen.value} != {order.checksum.value})"
            )

    async def prepare_destination(self, expected: Expected) -> Evidence | None:
        """Make sure that nothing is in the way; evidence when a complete file of ours is there already.

        Raises: TransferError of scope DESTINATION.
        """
        order, ends = self._order, self.ends
        try:
            try:
                stat = await patiently(lambda: ends.stat_destination(expected.algorithm if order.dest_owned else None))
            except Missing:
                return None
            if stat.is_directory:
                raise Refused("destination is a directory")
            if order.dest_owned and self._is_complete(stat, expected):
                return evidence_of(stat, expected, adopted=True)
            if not (order.overwrites or order.dest_owned):
                raise AlreadyExists("Destination file exists and overwrite is not enabled")
            if ends.destination.capabilities(order.dest_url).replaces and not order.dest_owned:
                self.replaces = True
                return None
            await ends.delete_destination()
        except TransferError as error:
            raise error.at(Scope.DESTINATION, Phase.PREPARATION) from None
        return None

    @staticmethod
    def _is_complete(stat: Stat, expected: Expected) -> bool:
        """What an earlier attempt left is taken over only when its checksum proves it."""
        if expected.checksum is None or expected.checksum.algorithm not in stat.checksums:
            return False
        return mismatch(stat, expected, required=True) is None

    async def existing_file(self) -> dict[str, Any] | None:
        """What is at a destination that is in the way, in FTS's words; None: not asked for, or it does not answer.

        Rucio takes such a transfer for done when size and checksum are those of its catalogue. FTS's keys;
        nothing here knows of tapes, so what is seen is on disk.
        """
        if not self._order.options.dst_file_report:
            return None
        algorithm = self.algorithm()
        try:
            stat = await surely(lambda: self.ends.stat_destination(algorithm), algorithm, self.ends.destination_digests)
        except TransferError:
            return None
        seen = stat.checksums.get(algorithm) or next(iter(stat.checksums.values()), None)
        return {
            "file_size": stat.size_bytes,
            # Rucio calls string methods on both, whether or not the storage offered a checksum.
            "checksum_type": seen.algorithm.upper() if seen else "",
            "checksum_value": seen.value if seen else "",
            "file_on_tape": False,
            "file_on_disk": True,
        }
