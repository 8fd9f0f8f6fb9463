"""Large bodies by turns: reading one takes ten times its size of memory, and half a minute of a processor.

Whoever may submit could otherwise stop the service with a dozen of them. A body that waits for its turn is not
read: it stays with the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from aiohttp import web

from transfer_engine.callers import Caller
from transfer_engine.identity.api import TooMany

LARGE_BYTES: Final = 1 << 20
"""Some 2,000 files; clients send a few hundred at a time."""
AT_ONCE: Final = 3
WAIT_S: Final = 60.0
RETRY_AFTER_S: Final = 30.0


class LargeBodies:
    """Lets a caller send one at a time, and all callers together a few."""

    def __init__(self, *, wait_s: float = WAIT_S) -> None:
        """Args: wait_s: how long a turn is waited for."""
        self._wait_s = wait_s
        self._all = asyncio.Semaphore(AT_ONCE)
        self._of: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, request: web.Request, caller: Caller) -> AsyncIterator[None]:
        """The time of a request; one with a large body gets it when it is its turn.

        Raises: TooMany: others were before it for too long.
        """
        if not _is_large(request) or not caller.known:
            # Of strangers no body is read.
            yield
            return
        # Not by credential: one person makes as many proxies as there are attributes.
        name = f"{caller.issuer} {caller.user_dn}"
        own = self._of.get(name)
        if own is None:
            own = self._of[name] = asyncio.Lock()
        await self._wait_for(own)
        try:
            await self._wait_for(self._all)
            try:
                yield
            finally:
                self._all.release()
        finally:
            own.release()

    async def _wait_for(self, place: asyncio.Lock | asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await place.acquire()
        except TimeoutError:
            message = "Too many large requests at once: send fewer files with each"
            raise TooMany(message, retry_after_s=RETRY_AFTER_S) from None


def _is_large(request: web.Request) -> bool:
    if not request.body_exists:
        return False
    announced = request.content_length
    return announced is None or announced > LARGE_BYTES
