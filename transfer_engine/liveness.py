"""Copies that crawl: those that move fewer bytes than the floor rate for a long time are ended.

A copy that stands still is noticed by the adapter (`Timeouts.silence_s`, `Timeouts.stall_s`). One that goes
on at a kilobyte per second is healthy by every one of these measures and holds its slots for days. So the
mean rate over `floor_s` is compared with a floor. The time counts from the first byte, so that a source
that has to be staged or a storage that looks around first is left alone, and not any more once all bytes
have arrived: what a storage does then (checksums, commits) moves none.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from protocols.errors import Stalled


class Floor:
    """Follows one copy's count of bytes."""

    __slots__ = ("_began", "_bytes_s", "_check_at", "_half", "_middle", "_span_s", "slow")

    def __init__(self, *, bytes_s: float, span_s: float) -> None:
        """Args: bytes_s: the floor; 0: there is none.  span_s: over which the mean is taken, at least."""
        self._bytes_s = bytes_s
        self._span_s = span_s
        self._began: tuple[float, int] | None = None
        """(instant, bytes) from which the mean counts."""
        self._middle: tuple[float, int] | None = None
        """The same, about half a span later: the next beginning."""
        self._half = self._check_at = 0.0
        self.slow: str | None = None
        """Why the copy is to be ended, once it is."""

    def heard(self, n_bytes: int, size_bytes: int | None, now: float) -> bool:
        """Take in a report; True: the copy crawls. Args: now: of any clock that only goes forward."""
        if not self._bytes_s or n_bytes <= 0 or self.slow is not None:
            return False
        if self._began is None:
            self._start((now, n_bytes), None)
            return False
        if now < self._half:
            return False
        if self._middle is None:
            self._middle = (now, n_bytes)
        if now < self._check_at:
            return False
        since, before = self._began
        rate = (n_bytes - before) / (now - since)
        if rate >= self._bytes_s or (size_bytes is not None and n_bytes >= size_bytes):
            self._start(self._middle, (now, n_bytes))
            return False
        self.slow = (
            f"only {n_bytes - before} bytes moved within {now - since:.0f} s: "
            f"{rate:.0f} B/s, the floor is {self._bytes_s:g} B/s"
        )
        return True

    def _start(self, began: tuple[float, int], middle: tuple[float, int] | None) -> None:
        self._began = began
        self._half = began[0] + self._span_s / 2
        self._check_at = began[0] + self._span_s
        self._middle = middle


class Pace:
    """Ends the copy that it is wrapped around when that crawls."""

    def __init__(self, *, bytes_s: float, span_s: float) -> None:
        """See `Floor`."""
        self._bytes_s = bytes_s
        self._span_s = span_s
        self._floor: Floor | None = None
        self._scope: asyncio.Timeout | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def heard(self, n_bytes: int, size_bytes: int | None) -> None:
        """Take in a report of the copy."""
        if self._floor is None or self._scope is None or not self._bytes_s:
            return
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        if self._floor.heard(n_bytes, size_bytes, now):
            self._scope.reschedule(now)

    def kept(self, *, unsettled: bool) -> _Kept:
        """While this is open, a copy runs. Args: unsettled: the storage may go on writing when it is ended.

        Raises: Stalled: the copy crawled.
        """
        return _Kept(self, unsettled=unsettled)

    def begin(self) -> asyncio.Timeout:
        """A copy begins; what it is to run in."""
        self._floor = Floor(bytes_s=self._bytes_s, span_s=self._span_s)
        self._scope = asyncio.Timeout(None)
        return self._scope

    def end(self) -> str | None:
        """It has ended; why it was too slow, if it was."""
        slow = None if self._floor is None else self._floor.slow
        self._floor = self._scope = None
        return slow


class _Kept:
    """See `Pace.kept`; a generator would cost twice as much, for each copy."""

    __slots__ = ("_pace", "_scope", "_unsettled")

    def __init__(self, pace: Pace, *, unsettled: bool) -> None:
        self._pace = pace
        self._unsettled = unsettled
        self._scope: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        self._scope = self._pace.begin()
        await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._scope is not None, "entered before"
        timed_out = isinstance(error, TimeoutError)
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            timed_out = True
        slow = self._pace.end()
        if timed_out and slow is not None:
            raise Stalled(slow, unsettled=self._unsettled) from None
