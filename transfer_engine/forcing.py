"""Start named transfers at once: past limits, shares, priorities and closed storages, not past orders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from transfer_engine.banning import Write
from transfer_engine.errors import Conflict, NotFound
from transfer_engine.model import FileId
from transfer_engine.places import Cap, Place
from transfer_engine.states import FileState
from transfer_engine.store.api import Forced, Reader, Store
from transfer_engine.views import FileView

log = logging.getLogger(__name__)

FILES_MAX: Final = 1000
"""Most transfers that are started by one order."""


@dataclass(frozen=True, slots=True)
class Start:
    """What became of the order to start one transfer; `error` None: it runs."""

    file_id: FileId
    error: str | None


class Forcing:
    """Starts out of turn. What runs then counts in every limit; nothing else starts there until it fits again."""

    def __init__(
        self,
        *,
        store: Store,
        reader: Reader,
        orders: Callable[[float], Mapping[Place, Cap]],
        now: Callable[[], float],
        write: Write,
        started: Callable[[Forced], None],
        why_not: Callable[[], str | None],
    ) -> None:
        """Args: orders: bans and drain in force. started: carry out what was claimed. why_not: nothing can start."""
        self._store = store
        self._reader = reader
        self._orders = orders
        self._now = now
        self._write = write
        self._started = started
        self._why_not = why_not

    async def start(self, file_ids: Sequence[FileId]) -> list[Start]:
        """Start these, as far as they wait; one answer for each, in the order asked for.

        Raises: Conflict: nothing can start here now. StoreUnavailable: nothing was started.
        """
        if (why := self._why_not()) is not None:
            raise Conflict(why)
        asked = list(dict.fromkeys(file_ids))
        refused: dict[FileId, str] = {}
        found: dict[FileId, FileView] = {}
        for file_id in asked:
            try:
                found[file_id] = await self._reader.file(file_id)
            except NotFound:
                refused[file_id] = "File does not exist"
        orders = self._orders(self._now())
        for file_id, view in found.items():
            if (ban := _ordered(view, orders)) is not None:
                refused[file_id] = ban
        able = [file_id for file_id in asked if file_id not in refused]
        forced = await self._write(lambda: self._store.claim_files(able, self._now()), self._started)
        started = {order.file_id for order in forced.orders}
        for file_id in able:
            if file_id not in started:
                refused[file_id] = await self._why(file_id)
        log.warning("started out of turn", extra={"event": "force", "file_ids": sorted(started)})
        return [Start(file_id, refused.get(file_id)) for file_id in asked]

    async def _why(self, file_id: FileId) -> str:
        """Why a transfer could not be claimed: what it is now."""
        view = await self._reader.file(file_id)
        position = await self._reader.position(file_id)
        if view.state is not FileState.SUBMITTED:
            return f"File is not in SUBMITTED state: it is {view.state.value}"
        if position.job_held:
            return "its job is on hold"
        if position.dest_driven_by is not None:
            return f"transfer {position.dest_driven_by} is writing the same destination"
        return "another transfer of the same destination was started"


def _ordered(view: FileView, orders: Mapping[Place, Cap]) -> str | None:
    """What an operator has ordered that keeps a transfer from starting."""
    for place in (
        Place("node", ""),
        Place("in", view.dest_se),
        Place("out", view.source_se),
        Place("vo-in", view.dest_se, view.vo),
        Place("vo-out", view.source_se, view.vo),
    ):
        cap = orders.get(place)
        if cap is not None:
            return cap.reason.text
    return None
