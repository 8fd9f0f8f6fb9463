"""An event loop whose clock jumps to the next timer: hours pass in milliseconds.

Everything that is waited for must be a timer or another task. The loop is asyncio's own with its middle
exchanged: timers are kept as tuples, which compare without calling Python, first come first served where
they are due at the same instant; the operating system is asked about files only when there are any.
A simulation turns this loop some ten times for each transfer.
"""

# ruff: noqa: SLF001 - this is a part of asyncio's loop, and reads handles as that does
from __future__ import annotations

import asyncio
import heapq
import selectors
from asyncio import Handle, TimerHandle
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

Ts = TypeVarTuple("Ts")

RESOLUTION_S: Final = 1e-9
"""Timers that are due within it are due now."""
VOID_MAX: Final = 100
"""Cancelled timers that are kept at most, unless they are fewer than the others."""


class DeadlockError(RuntimeError):
    """Nothing is left to do and no timer will ever fire: somebody waits for a wake-up that was lost."""


class _Files(selectors.SelectSelector):
    """Counts what is registered: asking for it is dear."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self.n += 1
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self.n -= 1
        return key


class _Soon(Handle):
    """A callback of the next turn, without what only debugging needs."""

    __slots__ = ()

    def __init__(  # the parent's constructor is what is avoided
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: VirtualTimeLoop, context: Context | None
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _Later(TimerHandle):
    """A callback at an instant, likewise."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualTimeLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        """Do not call it any more."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = _nothing
            self._args = ()
            if self._scheduled:
                self._loop.count_void()


def _nothing() -> None:
    """What a cancelled timer would call."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    _ready: deque[Any]
    _stopping: bool
    _closed: bool
    _signal_handlers: dict[int, Handle]
    if TYPE_CHECKING:

        def _process_events(self, event_list: list[tuple[selectors.SelectorKey, int]]) -> None: ...

    def __init__(self) -> None:
        self._files = _Files()
        super().__init__(self._files)
        self._now = 0.0
        self._timers: list[tuple[float, int, _Later | asyncio.Future[None]]] = []
        """(when, how many were set before it, what is due), as a heap."""
        self._n_timers = 0
        self._n_void = 0

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None) -> Handle:
        """See `asyncio.AbstractEventLoop.call_soon`."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = _Soon(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """See `asyncio.AbstractEventLoop.call_later`."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """See `asyncio.AbstractEventLoop.call_at`."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        timer = _Later(when, callback, args, self, context)
        self._n_timers += 1
        heapq.heappush(self._timers, (when, self._n_timers, timer))
        return timer

    def after(self, delay_s: float) -> asyncio.Future[None]:
        """To be awaited instead of `asyncio.sleep`, at half its price."""
        future: asyncio.Future[None] = asyncio.Future(loop=self)
        self._n_timers += 1
        heapq.heappush(self._timers, (self._now + delay_s, self._n_timers, future))
        return future

    def count_void(self) -> None:
        """A timer that is still in the heap was cancelled."""
        self._n_void += 1
        if self._n_void > VOID_MAX and self._n_void * 2 > len(self._timers):
            self._timers[:] = [row for row in self._timers if not row[2].cancelled()]
            heapq.heapify(self._timers)
            self._n_void = 0

    def _run_once(self) -> None:
        """One turn: what is due, after a jump when nothing is."""
        ready, timers = self._ready, self._timers
        # One is the loop's own pipe, which signals come through.
        if self._files.n > 1 or self._signal_handlers:
            self._poll()
        if not ready and not self._stopping:
            self._jump()
        due = self._now + RESOLUTION_S
        while timers and timers[0][0] < due:
            timer = heapq.heappop(timers)[2]
            if not isinstance(timer, _Later):
                if not timer.done():
                    timer.set_result(None)
                continue
            timer._scheduled = False
            if timer._cancelled:
                self._n_void -= 1
            else:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - the task boundary itself, as asyncio has it
                    text = f"Exception in callback {handle._callback!r}"
                    self.call_exception_handler({"message": text, "exception": error, "handle": handle})

    def _jump(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            if isinstance(heapq.heappop(timers)[2], _Later):
                self._n_void -= 1
        if timers:
            self._now = max(self._now, timers[0][0])
            return
        self._poll()
        if not self._ready:
            raise DeadlockError("nothing to do and no timer pending")

    def _poll(self) -> None:
        """Take in what files and threads have to say."""
        self._process_events(self._files.select(0))
