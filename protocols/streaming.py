"""Read here, write there: the copy for storages that cannot copy by themselves.

Bytes flow block by block, with at most one block in hand; size and checksum are computed on the way,
so that what was written is known even when neither end offers a checksum.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from protocols.api import Adapter, CopyEnd, CopyRequest, Marker, OnMarker, ReadStream
from protocols.checksum import Checksum, hasher
from protocols.errors import ChecksumMismatch, Phase, Scope, SizeMismatch, Stalled, TimedOut, TransferError

MARKER_BYTES = 8 * 1024 * 1024
"""A progress report at least each so many bytes, """
MARKER_S = 5.0
"""and after so many seconds: as often as storages that copy by themselves tell theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A finished streamed copy."""

    end: CopyEnd
    checksum: Checksum
    """Over the bytes that passed through."""


class _Flow:
    """The bytes on their way, counted and summed."""

    def __init__(
        self, reader: ReadStream, on_marker: OnMarker, digest: str, stall_s: float, expected: Checksum | None
    ) -> None:
        self._reader = reader
        self._expected = expected
        self._on_marker = on_marker
        self._stall_s = stall_s
        self._reported = 0
        self._report_at = 0.0
        self.hasher = hasher(digest)
        self.bytes_done = 0
        self.n_markers = 0
        self.watch: asyncio.Timeout | None = None

    async def blocks(self) -> AsyncIterator[bytes]:
        """The file's blocks; each one that moves gives the copy another `stall_s`."""
        loop = asyncio.get_running_loop()
        async for block in self._reader:
            self.hasher.update(block)
            yield block
            # The consumer has taken the block: that is progress at both ends.
            self.bytes_done += len(block)
            now = loop.time()
            if self.watch is not None:
                self.watch.reschedule(now + self._stall_s)
            if self.bytes_done - self._reported >= MARKER_BYTES or now >= self._report_at:
                self._report_at = now + MARKER_S
                self.report()
        # Before the end is told to the destination: one that replaces a file keeps the old one then.
        seen = self.hasher.checksum()
        if self._expected is not None and self._expected.algorithm == seen.algorithm and self._expected != seen:
            name = seen.algorithm.upper()
            msg = f"Source and expected {name} checksum do not match ({seen.value} != {self._expected.value})"
            raise ChecksumMismatch(msg, scope=Scope.SOURCE)

    def report(self) -> None:
        self._reported = self.bytes_done
        self.n_markers += 1
        self._on_marker(Marker(bytes_done=self.bytes_done))


async def stream_copy(
    source: Adapter, destination: Adapter, request: CopyRequest, on_marker: OnMarker, *, digest: str
) -> Streamed:
    """Copy one file through this process.

    Args: digest: the algorithm to compute on the way.
    Raises: any `TransferError`, with the scope of the side that failed; never `unsettled`: the
        destination's connection is closed, and what it wrote ends there.
    """
    timeouts = request.timeouts
    try:
        async with asyncio.timeout(timeouts.total_s):
            return await _flow(source, destination, request, on_marker, digest)
    except TimeoutError:
        msg = f"the copy took longer than {timeouts.total_s:g} s"
        raise TimedOut(msg) from None


async def _flow(
    source: Adapter, destination: Adapter, request: CopyRequest, on_marker: OnMarker, digest: str
) -> Streamed:
    timeouts = request.timeouts
    async with source.read(request.source_url, credential=request.source_credential, timeouts=timeouts) as reader:
        size = reader.size_bytes if reader.size_bytes is not None else request.size_bytes
        flow = _Flow(reader, on_marker, digest, timeouts.stall_s, request.checksum)
        try:
            async with asyncio.timeout(timeouts.first_response_s + timeouts.stall_s) as flow.watch:
                await destination.write(
                    request.destination_url,
                    flow.blocks(),
                    size_bytes=size,
                    overwrite=request.overwrite,
                    credential=request.destination_credential,
                    timeouts=timeouts,
                )
        except TimeoutError:
            if flow.watch is None or not flow.watch.expired():
                raise
            msg = f"no bytes moved for {timeouts.stall_s:g} s"
            raise Stalled(msg) from None
        except TransferError as error:
            if error.scope is Scope.TRANSFER:
                error.at(Scope.DESTINATION, Phase.TRANSFER)
            raise
    if size is not None and flow.bytes_done != size:
        msg = f"source sent {flow.bytes_done} of {size} bytes"
        raise SizeMismatch(msg, scope=Scope.SOURCE)
    flow.report()
    end = CopyEnd(message="success: streamed", bytes_done=flow.bytes_done, n_markers=flow.n_markers)
    return Streamed(end=end, checksum=flow.hasher.checksum())
