"""Writes of users: carried out also when nobody waits any more, and remembered when the store could not take one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from transfer_engine.errors import StoreUnavailable
from transfer_engine.store.api import Store

T = TypeVar("T")

LOOK_S: Final = 2.0
"""Longest wait for a write that only shows whether there can be one."""


class Writes:
    """The writes under way of one engine."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._tasks: set[asyncio.Task[Any]] = set()
        self._trouble: str | None = None
        """Why the last one failed."""

    async def __call__(self, write: Callable[[], Awaitable[T]], then: Callable[[T], None]) -> T:
        """Write and tell, also when the caller gives up waiting: what is committed is carried out."""

        async def both() -> T:
            try:
                result = await write()
            except StoreUnavailable as error:
                self._trouble = str(error)
                raise
            self._trouble = None
            then(result)
            return result

        task = asyncio.get_running_loop().create_task(both())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def ended(self) -> None:
        """Wait for those under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def why_not(self) -> str | None:
        """Why nothing can be written: the last write failed, and so does another one now. None: it does not."""
        if self._trouble is not None:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self(lambda: self._store.keep("written", str(self._now())), lambda _: None)
        return self._trouble
