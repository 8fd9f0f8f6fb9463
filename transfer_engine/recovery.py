"""What became of an attempt that nobody heard the end of: look at the destination, then believe it.

A third-party copy has no handle but its connection. When that is gone the storage may have finished,
failed, or still be writing: some storages cancel at the next progress marker, others never notice.
So the destination is watched:

    complete (size and checksum)      → adopted as done
    missing, for the whole quarantine → failed, nothing is left
    wrong, but changing               → somebody still writes: wait
    wrong, unchanged for a quarantine → removed, failed
    the storage does not answer       → wait, until the longest time for probing is over

A crash, a lost connection and a take-over all go this one way.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass
from typing import Final

from protocols.api import Stat
from protocols.errors import Again, Missing, Phase, Scope, TransferError
from transfer_engine.attempt import Tools
from transfer_engine.credentials.errors import TokenEnded, TokenRefused
from transfer_engine.model import Assignment, Cleaned, Done, Failed, Failure, Verify
from transfer_engine.patience import remove
from transfer_engine.verification import Expected, evidence_of, mismatch

LOOK_EVERY_S: Final = 5.0
"""Between two looks at a destination: the usual period of progress markers."""
LOOK_FIRST_S: Final = 0.5

LOST: Final = Failure(
    code="ENGINE_LOST",
    again=Again.SOON,
    scope=Scope.AGENT,
    phase=Phase.TRANSFER,
    errno=errno.ECONNABORTED,
    message="the engine stopped while the transfer was running",
    hint="nothing to do: the transfer is looked for and repeated if need be",
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look, comparable with the next."""

    size_bytes: int | None
    checksum: str | None
    missing: bool


class Probe:
    """Watches the destination of one lost attempt."""

    def __init__(self, order: Assignment, tools: Tools) -> None:
        self._order = order
        self._tools = tools
        self._destination = tools.adapters.adapter_for(order.dest_url)
        self._timeouts = tools.timeouts()
        self._began_at = tools.clock.now()

    async def run(self, failure: Failure, started_at: float, *, charge: bool) -> Done | Failed:
        """Find out how the attempt ended.

        Args: failure: what is reported if it did not succeed. charge: count it as the transfer's failure.
        """
        expected = await self._expected()
        stat, settled = await self._watch(expected)
        if stat is not None and settled and self._complete(stat, expected):
            return Done(
                evidence=evidence_of(stat, expected, adopted=True),
                mode="",
                bytes_moved=stat.size_bytes or 0,
                transfer_s=max(0.0, self._tools.clock.now() - started_at),
                started_at=started_at,
            )
        clean = settled and (stat is None or await self._remove())
        return Failed(failure=failure, clean=clean, started_at=started_at, charge=charge)

    async def clean(self, *, ended: bool = False) -> Cleaned:
        """The attempt was cancelled: wait until nothing writes any more, then remove what it left.

        Args: ended: nobody can be writing (the bytes went through this process).
        """
        if ended:
            return Cleaned(clean=await self._remove())
        stat, settled = await self._watch(None)
        return Cleaned(clean=settled and (stat is None or await self._remove()))

    async def _expected(self) -> Expected:
        """What a complete destination looks like; asks the source for what the submission does not say."""
        order = self._order
        verify = order.options.compares
        algorithm = order.checksum.algorithm if order.checksum else self._tools.settings.checksum
        wants_sum = verify is not Verify.NONE
        size, checksum = order.size_bytes, order.checksum
        if size is None or (wants_sum and checksum is None):
            source = self._tools.adapters.adapter_for(order.source_url)
            try:
                stat = await source.stat(
                    order.source_url,
                    credential=await self._tools.credentials.source(order),
                    digest=algorithm if wants_sum else None,
                    timeouts=self._timeouts,
                )
            except TransferError:
                # Without a source to compare with nothing is adopted; the attempt then counts as failed.
                return Expected(size_bytes=None, checksum=None, algorithm=None)
            size = stat.size_bytes
            checksum = checksum or stat.checksums.get(algorithm)
            if wants_sum and checksum is None and algorithm in source.capabilities(order.source_url).digests:
                return Expected(size_bytes=None, checksum=None, algorithm=None)
        return Expected(
            size_bytes=size,
            checksum=checksum if wants_sum else None,
            algorithm=algorithm if wants_sum and checksum else None,
            given=order.checksum is not None,
        )

    def _complete(self, stat: Stat, expected: Expected) -> bool:
        if expected.size_bytes is None:
            return False
        offered = self._destination.capabilities(self._order.dest_url).digests
        required = self._tools.settings.require_checksum or expected.algorithm in offered
        return mismatch(stat, expected, required=required) is None

    async def _watch(self, expected: Expected | None) -> tuple[Stat | None, bool]:
        """Look until the answer can be believed.

        Returns: (what is there or None, True), or (the last sight, False) when time ran out.
        """
        settings = self._tools.settings
        loop = asyncio.get_running_loop()
        give_up = loop.time() + settings.probe_max_s
        last: _Seen | None = None
        since = loop.time()
        wait = LOOK_FIRST_S
        stat: Stat | None = None
        while True:
            asked = loop.time()
            try:
                stat = await self._look(expected)
                seen = _seen(stat)
            except (TokenEnded, TokenRefused):
                # Nobody will ever be able to look; whatever still writes has had its time to end.
                await asyncio.sleep(settings.quarantine_s)
                return None, False
            except TransferError:
                stat, seen = None, None
            now = loop.time()
            if seen is None or seen != last:
                since, last = now, seen
            if seen is not None and stat is not None and expected is not None and self._witnessed(stat, expected):
                return stat, True
            if seen is not None and asked - since >= settings.quarantine_s:
                return stat, True
            if now >= give_up:
                return stat, False
            await asyncio.sleep(min(wait, max(settings.quarantine_s - (now - since), 0.05), give_up - now))
            wait = min(wait * 2, LOOK_EVERY_S)

    def _witnessed(self, stat: Stat, expected: Expected) -> bool:
        """Complete beyond doubt: the checksum says so, not the size alone."""
        if expected.checksum is None or expected.checksum.algorithm not in stat.checksums:
            return False
        return self._complete(stat, expected)

    async def _look(self, expected: Expected | None) -> Stat | None:
        digest = expected.algorithm if expected else None
        async with self._tools.looks:
            try:
                return await self._destination.stat(
                    self._order.dest_url,
                    credential=await self._tools.credentials.destination(self._order),
                    digest=digest,
                    timeouts=self._timeouts,
                )
            except Missing:
                return None

    async def _remove(self) -> bool:
        if self._order.options.keep_remains:
            return False
        if not await remove(self._delete, self._tools.settings.cleanup_s):
            return False
        try:
            return await self._look(None) is None
        except TransferError:
            return False

    async def _delete(self) -> bool:
        credential = await self._tools.credentials.destination(self._order)
        return await self._destination.delete(self._order.dest_url, credential=credential, timeouts=self._timeouts)


def _seen(stat: Stat | None) -> _Seen:
    if stat is None:
        return _Seen(None, None, missing=True)
    sums = ",".join(sorted(map(str, stat.checksums.values())))
    return _Seen(stat.size_bytes, sums, missing=False)
