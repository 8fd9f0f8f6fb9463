"""Copy through this process: read here, write there, checksum on the way.

For storages that cannot copy between themselves, and for local files. Memory is one block and what
the two connections buffer, whatever the size of the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from protocols.api import Adapter, CopyEnd, CopyRequest, Marker, OnMarker, ReadStream
from protocols.checksum import Checksum, Hasher, hasher
from protocols.errors import Phase, Scope, SizeMismatch, Stalled, TimedOut, TransferError

MARKER_S: Final = 1.0
"""Progress is reported at most this often."""
ALGORITHM: Final = "adler32"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnd:
    """How a streamed copy ended, and the truth about the bytes that went through."""

    end: CopyEnd
    checksum: Checksum
    """Over all bytes, in the algorithm of the request's checksum, or adler32."""


class _Meter:
    """Counts, hashes and watches the blocks that pass."""

    def __init__(self, digest: Hasher, on_marker: OnMarker, scope: asyncio.Timeout, request: CopyRequest) -> None:
        self._digest = digest
        self._on_marker = on_marker
        self._scope = scope
        self._limits = request.timeouts
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        self._marked_s = self._start_s
        self.n_bytes = 0
        self.n_markers = 0
        self.touch(self._limits.first_response_s + self._limits.connect_s)

    async def through(self, stream: ReadStream, expected: int | None) -> AsyncGenerator[bytes, None]:
        """The blocks of `stream`; SizeMismatch at the end when there were too few or too many."""
        async for block in stream:
            self._digest.update(block)
            self.n_bytes += len(block)
            if expected is not None and self.n_bytes > expected:
                raise self._wrong_size(expected)
            self.touch(self._limits.stall_s)
            yield block
            # Only here the destination has taken it.
            self.touch(self._limits.stall_s)
            if self._loop.time() - self._marked_s >= MARKER_S:
                self.mark()
        if expected is not None and self.n_bytes != expected:
            raise self._wrong_size(expected)

    def touch(self, limit_s: float) -> None:
        """Bytes moved: the next ones have this long."""
        at_s = self._loop.time() + limit_s
        if self._limits.total_s is not None:
            at_s = min(at_s, self._start_s + self._limits.total_s)
        self._scope.reschedule(at_s)

    def mark(self) -> None:
        """Report what has passed so far."""
        self._marked_s = self._loop.time()
        self.n_markers += 1
        self._on_marker(Marker(bytes_done=self.n_bytes))

    def expired(self) -> TransferError:
        """Which limit it was; the connections are closed, so nobody writes any more."""
        total_s = self._limits.total_s
        if total_s is not None and self._loop.time() >= self._start_s + total_s:
            return TimedOut(f"the copy was not done within {total_s:g} s")
        return Stalled(f"no bytes moved for too long, after {self.n_bytes} bytes")

    def _wrong_size(self, expected: int) -> SizeMismatch:
        return SizeMismatch(f"the source sent {self.n_bytes} bytes, {expected} expected", scope=Scope.SOURCE)


async def stream_copy(
    source: Adapter, destination: Adapter, request: CopyRequest, on_marker: OnMarker, *, algorithm: str | None = None
) -> StreamEnd:
    """Copy one file through this process; `request.mode` is not looked at.

    The caller checks and prepares the destination before, and compares the checksum after: a wrong
    one is returned, not raised.

    Args:
        algorithm: of the checksum to compute; None: that of `request.checksum`, else adler32.

    Raises: what `source.read` and `destination.write` raise, SizeMismatch, Stalled, TimedOut.
    Cancel: closes both connections; a partial file may stay at the destination.
    """
    name = algorithm or (request.checksum.algorithm if request.checksum else ALGORITHM)
    digest = hasher(name)
    meter: _Meter | None = None
    try:
        async with asyncio.timeout(None) as scope:
            meter = _Meter(digest, on_marker, scope, request)
            await _run(source, destination, request, meter)
    except TimeoutError:
        if meter is None:
            raise
        raise meter.expired() from None
    meter.mark()
    end = CopyEnd(message="success: streamed", bytes_done=meter.n_bytes, n_markers=meter.n_markers)
    return StreamEnd(end=end, checksum=digest.checksum())


async def _run(source: Adapter, destination: Adapter, request: CopyRequest, meter: _Meter) -> None:
    try:
        opening = source.read(request.source_url, credential=request.source_credential, timeouts=request.timeouts)
        async with opening as stream:
            size = stream.size_bytes if stream.size_bytes is not None else request.size_bytes
            if request.size_bytes is not None and size != request.size_bytes:
                raise SizeMismatch(
                    f"the source has {size} bytes, {request.size_bytes} expected",
                    scope=Scope.SOURCE,
                    phase=Phase.PREPARATION,
                )
            await destination.write(
                request.destination_url,
                meter.through(stream, size),
                size_bytes=size,
                overwrite=request.overwrite,
                credential=request.destination_credential,
                timeouts=request.timeouts,
            )
    except TransferError as failure:
        if failure.scope is Scope.TRANSFER and failure.phase is Phase.PREPARATION:
            failure.scope = Scope.SOURCE
        raise
