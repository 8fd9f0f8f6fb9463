"""Follow what happens: every state change in commit order, for whoever asks, as often as they ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from transfer_engine.callers import Sight
from transfer_engine.model import JobId
from transfer_engine.states import JOB_TERMINAL
from transfer_engine.store.api import Reader
from transfer_engine.views import StoredEvent

EVENTS_BLOCK: Final = 500
"""Events read from the store at a time."""


class Following:
    """Everybody who follows an engine's events."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ended = False
        self._news: set[asyncio.Event] = set()

    def tell(self) -> None:
        """Something was committed."""
        for news in self._news:
            news.set()

    def end(self) -> None:
        """Nothing more will be."""
        self._ended = True
        self.tell()

    async def events(
        self, after: int | None, job_id: JobId | None, sight: Sight, gather_s: float
    ) -> AsyncIterator[StoredEvent]:
        """See `Engine.events`."""
        cursor = await self._reader.last_event() if after is None else after
        news = asyncio.Event()
        self._news.add(news)
        try:
            while not self._ended:
                news.clear()
                newest = await self._reader.last_event()
                block = await self._reader.events(cursor, EVENTS_BLOCK, job_id, sight)
                for event in block:
                    cursor = event.seq
                    yield event
                    if job_id is not None and event.kind == "job" and event.state in JOB_TERMINAL:
                        return
                if len(block) < EVENTS_BLOCK:
                    # What nobody here may see is not looked at again.
                    cursor = max(cursor, newest)
                    await news.wait()
                    if gather_s > 0 and not self._ended:
                        await asyncio.sleep(gather_s)
        finally:
            self._news.discard(news)
