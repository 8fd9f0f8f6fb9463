"""File contents through this process: GET and PUT."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

from protocols.api import Credential, ReadStream, Timeouts
from protocols.errors import (
    CopyFailed,
    OutcomeUnknown,
    ParentMissing,
    Phase,
    Scope,
    SizeMismatch,
    Stalled,
    TimedOut,
    TransferError,
    Unavailable,
)
from protocols.http import faults
from protocols.http.quirks import Quirks, Record
from protocols.http.urls import endpoint_of
from protocols.http.wire import Request, Wire, read_body

BLOCK_BYTES: Final = 1 << 20
REPLAY_MAX: Final = 8 << 20
"""A head node redirects while the body is on its way already; this much can be sent once more."""
FIRST_BYTES: Final = 16 * 1024
"""What is sent before waiting for a redirect: a head node closes the connection on a body that it does not want,
and the reset may overtake its answer."""
HOLD_UNKNOWN_S: Final = 2.0
HOLD_KNOWN_S: Final = 15.0
"""How long a redirect may take: XRootD asks its disk servers for the file first."""
WRITTEN: Final = frozenset({200, 201, 202, 204})


class HttpReadStream:
    """The body of one GET; it knows when it was cut short."""

    def __init__(self, response: aiohttp.ClientResponse, *, subject: str, stall_s: float) -> None:
        self._response = response
        self._subject = subject
        self._stall_s = stall_s
        length = response.headers.get("Content-Length", "")
        self._size = int(length) if length.isascii() and length.isdigit() else None

    @property
    def size_bytes(self) -> int | None:
        """The Content-Length."""
        return self._size

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        n_bytes = 0
        while block := await self._next():
            n_bytes += len(block)
            yield block
        if self._size is not None and n_bytes != self._size:
            raise self._cut(f"{n_bytes} of {self._size} bytes came")

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_s):
                return await self._response.content.readany()
        except TimeoutError:
            message = f"{self._subject}: no bytes came for {self._stall_s:g} s"
            raise Stalled(message, scope=Scope.SOURCE) from None
        except (aiohttp.ClientError, OSError) as failure:
            raise self._cut(str(failure) or type(failure).__name__) from None

    def _cut(self, reason: str) -> CopyFailed:
        return CopyFailed(faults.strip_secrets(f"{self._subject}: cut short: {reason}"), scope=Scope.SOURCE)


class _Replay:
    """One-shot blocks that can be sent again from the start while they fit into a bounded buffer.

    aiohttp iterates it anew for each hop. An error of the blocks is kept: aiohttp would wrap it.
    """

    def __init__(
        self,
        blocks: AsyncIterator[bytes],
        scope: asyncio.Timeout,
        *,
        size_bytes: int | None,
        stall_s: float,
        hold_s: float,
    ) -> None:
        """`hold_s`: how long to wait for a redirect after the first bytes."""
        self._blocks = blocks
        self._size_bytes = size_bytes
        self._hold_s = hold_s
        self._scope = scope
        self._stall_s = stall_s
        self._kept: deque[bytes] | None = deque()
        self._n_kept = 0
        self._exhausted = False
        self.failure: Exception | None = None
        self.n_bytes = 0
        self.started = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        if self.failure is not None:
            raise self.failure
        if self.started and self._kept is None:
            msg = "redirected after more of the body was sent than is kept"
            self.failure = Unavailable(msg, scope=Scope.DESTINATION)
            raise self.failure
        first = not self.started
        self.started = True
        for block in list(self._kept or ()):
            yield block
        while (block_or_none := await self._take()) is not None:
            block = block_or_none
            if first and self._hold_s:
                yield block[:FIRST_BYTES]
                block = block[FIRST_BYTES:]
                # A redirect ends this generator here, by closing the connection.
                await asyncio.sleep(self._hold_s)
            first = False
            if block:
                yield block

    async def _take(self) -> bytes | None:
        # The source's slowness is watched by the source's own reader.
        if self._exhausted:
            return None
        self._scope.reschedule(None)
        try:
            block = await anext(self._blocks, None)
        except Exception as failure:
            self.failure = failure
            raise
        self.touch()
        if block is None:
            self._exhausted = True
            if self._size_bytes is not None and self.n_bytes < self._size_bytes:
                # The server would wait for the rest for ever.
                message = f"{self.n_bytes} bytes were there to send, {self._size_bytes} announced"
                self.failure = SizeMismatch(message, scope=Scope.SOURCE)
                raise self.failure
            return None
        self.n_bytes += len(block)
        if self._kept is not None:
            self._n_kept += len(block)
            self._kept.append(block)
            if self._n_kept > REPLAY_MAX:
                self._kept = None
        return block

    def touch(self, limit_s: float | None = None) -> None:
        """Something moved: the destination has the whole limit again."""
        wait_s = self._stall_s if limit_s is None else limit_s
        self._scope.reschedule(asyncio.get_running_loop().time() + wait_s)


class Bodies:
    """Reads and writes whole files."""

    def __init__(self, *, wire: Wire, quirks: Quirks) -> None:
        self._wire = wire
        self._quirks = quirks

    @asynccontextmanager
    async def read(self, url: URL, *, credential: Credential, timeouts: Timeouts) -> AsyncIterator[ReadStream]:
        """See `Adapter.read`."""
        request = Request(
            method="GET",
            url=url,
            credential=credential,
            headers={},
            connect_s=timeouts.connect_s,
            read_bufsize=BLOCK_BYTES,
        )
        opening = self._wire.open(request)
        try:
            async with asyncio.timeout(timeouts.first_response_s):
                response = await opening.__aenter__()
        except TimeoutError:
            message = f"{request.subject}: no answer within {timeouts.first_response_s:g} s"
            raise TimedOut(message, phase=Phase.PREPARATION) from None
        try:
            if response.status != 200:  # noqa: PLR2004 - HTTP
                raise await _error(response, request, timeouts.request_s)
            yield HttpReadStream(response, subject=request.subject, stall_s=timeouts.stall_s)
        finally:
            await opening.__aexit__(None, None, None)

    async def write(
        self,
        url: URL,
        blocks: AsyncIterator[bytes],
        *,
        size_bytes: int | None,
        overwrite: bool,
        credential: Credential,
        timeouts: Timeouts,
    ) -> None:
        """See `Adapter.write`."""
        headers: dict[str, str] = {}
        if size_bytes is not None:
            headers["Content-Length"] = str(size_bytes)
        if not overwrite:
            # RFC 9110 §13.1.2; Apache and wsgidav honour it, XRootD and nginx overwrite all the same.
            headers["If-None-Match"] = "*"
        record = self._quirks.of(endpoint_of(url))
        hold_s = _hold_s(record, size_bytes)
        replay: _Replay | None = None
        try:
            async with asyncio.timeout(timeouts.connect_s + timeouts.stall_s) as scope:
                stall_s = max(timeouts.stall_s, timeouts.first_response_s)
                replay = _Replay(blocks, scope, size_bytes=size_bytes, stall_s=stall_s, hold_s=hold_s)
                request = Request(
                    method="PUT",
                    url=url,
                    credential=credential,
                    headers=headers,
                    connect_s=timeouts.connect_s,
                    body=b"" if size_bytes == 0 else replay,
                    side_effect=True,
                )
                async with self._wire.open(request) as response:
                    record.put_redirects = endpoint_of(response.url) != endpoint_of(url)
                    if response.status not in WRITTEN:
                        raise self._refused(await _error(response, request, timeouts.request_s), url)
        except TimeoutError:
            raise Stalled(f"PUT {url.with_query(None)}: no bytes were taken", scope=Scope.DESTINATION) from None
        except TransferError as failure:
            if replay is not None and replay.failure is not None:
                raise replay.failure from None
            if isinstance(failure, OutcomeUnknown) and record.put_redirects is None:
                # Perhaps a redirect that came too late: the next try waits longer for it.
                record.put_redirects = True
            raise failure.at(Scope.DESTINATION, failure.phase) from None
        if size_bytes is not None and size_bytes and replay.n_bytes != size_bytes:
            message = f"PUT {url.with_query(None)}: {replay.n_bytes} bytes were sent, {size_bytes} announced"
            raise SizeMismatch(message, scope=Scope.DESTINATION)

    def _refused(self, error: TransferError, url: URL) -> TransferError:
        family = self._quirks.of(endpoint_of(url)).family
        nginx = error.status == 500 and family is not None and family.put_500_is_parent  # noqa: PLR2004 - HTTP
        # RFC 4918 §9.7.1 says 409; rclone 404, nginx 500.
        if nginx or error.status in {404, 409}:
            return ParentMissing(error.message, scope=Scope.DESTINATION, status=error.status)
        return error


def _hold_s(record: Record, size_bytes: int | None) -> float:
    """How long to wait for a redirect before the body is sent on: not for small files, nor where none comes."""
    if size_bytes is not None and size_bytes <= FIRST_BYTES:
        return 0.0
    if record.put_redirects is None:
        return HOLD_UNKNOWN_S if record.family is not None and record.family.redirects_puts else 0.0
    return HOLD_KNOWN_S if record.put_redirects else 0.0


async def _error(response: aiohttp.ClientResponse, request: Request, limit_s: float) -> TransferError:
    try:
        async with asyncio.timeout(limit_s):
            body = await read_body(response, 64 * 1024)
    except (aiohttp.ClientError, OSError):
        body = b""
    return faults.from_status(response.status, faults.readable(body), response.headers, subject=request.subject)
