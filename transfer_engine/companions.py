"""What lives as long as an engine and follows what it commits, without ever holding it up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

log = logging.getLogger(__name__)

FINISH_S: Final = 5.0
"""How long companions may go on when the engine has ended."""


class Companion(Protocol):
    """Something that runs beside the dispatcher."""

    async def open(self) -> None:
        """Make ready, before anything is accepted. Raises: StoreUnavailable: the engine does not open either."""

    async def run(self) -> None:
        """Do what it does until `finish` lets it end, or it is cancelled."""

    def tell(self) -> None:
        """Something was committed."""

    def finish(self) -> None:
        """Nothing more will be committed: `run` is to end, soon."""

    def position(self) -> int | None:
        """`seq` of the last event that it needs no longer; None: it needs none."""

    def trouble(self) -> str | None:
        """Why it does not do what it should, in words; None: it does."""


class Companions:
    """The companions of one engine."""

    def __init__(self, companions: Sequence[Companion]) -> None:
        self._companions = tuple(companions)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Make them ready. Raises: StoreUnavailable."""
        for companion in self._companions:
            await companion.open()

    def start(self) -> None:
        """Let them run."""
        loop = asyncio.get_running_loop()
        for companion in self._companions:
            task = loop.create_task(companion.run(), name=type(companion).__name__)
            task.add_done_callback(_ended)
            self._tasks.append(task)

    def tell(self) -> None:
        """Something was committed."""
        for companion in self._companions:
            companion.tell()

    def position(self) -> int | None:
        """`seq` of the last event that none of them needs any longer; None: there is none that needs any."""
        positions = [at for companion in self._companions if (at := companion.position()) is not None]
        return min(positions, default=None)

    def troubles(self) -> list[str]:
        """What keeps them from what they do, in words."""
        return [why for companion in self._companions if (why := companion.trouble()) is not None]

    async def finish(self) -> None:
        """Nothing more will be committed: let them end, for a few seconds."""
        for companion in self._companions:
            companion.finish()
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=FINISH_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("%s ended; transfers go on without it", task.get_name(), exc_info=error)
