"""What a `cp` will do: pairs of URLs, from arguments, lists and directories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from protocols.api import Adapter, Credential, Stat
from protocols.errors import Missing, TransferError
from transfer_engine.cli.exits import BY_CODE, Exit
from transfer_engine.cli.lists import child, last_name
from transfer_engine.cli.output import put, put_json, size, stop

LOOKS: Final = 16
"""Looks at storages at a time."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One file to copy."""

    source: str
    destination: str
    size_bytes: int | None = None


class Planner:
    """Asks storages what is there."""

    def __init__(self, adapter_for: Callable[[str], Adapter], credential: Callable[[str], Credential]) -> None:
        self._adapter_for = adapter_for
        self._credential = credential
        self._looks = asyncio.Semaphore(LOOKS)

    async def look(self, url: str) -> Stat | None:
        """What is at `url`; None when nothing is."""
        async with self._looks:
            try:
                return await self._adapter_for(url).stat(url, credential=self._credential(url))
            except Missing:
                return None

    async def target(self, source: str, destination: str) -> str:
        """Where SRC goes: into DST when that is a directory, else to DST itself."""
        if not destination.endswith("/"):
            try:
                there = await self.look(destination)
            except TransferError:
                # The copy itself will meet the same storage, and say what is wrong with it.
                return destination
            if there is None or not there.is_directory:
                return destination
        return child(destination, last_name(source))

    async def tree(self, source: str, destination: str) -> AsyncIterator[Pair]:
        """Every file below a directory, mirrored below `destination`."""
        waiting = [(source, destination)]
        while waiting:
            here, there = waiting.pop()
            try:
                entries = await self._adapter_for(here).list_directory(here, credential=self._credential(here))
            except TransferError as error:
                stop(f"{here} cannot be listed: {error.message}; {error.hint}", BY_CODE.get(error.code, Exit.ERROR))
            for entry in entries:
                goal = child(there, last_name(entry.url))
                if entry.is_directory:
                    waiting.append((entry.url, goal))
                else:
                    yield Pair(entry.url, goal, entry.size_bytes)


async def show_plan(planner: Planner, pairs: Iterable[Pair], *, overwrite: bool, as_json: bool) -> Exit:
    """Print what would be done, and change nothing."""

    async def one(pair: Pair) -> tuple[Pair, str, int | None]:
        try:
            source = await planner.look(pair.source)
            if source is None:
                return pair, "source missing", None
            if source.is_directory:
                return pair, "source is a directory (use -r)", None
            there = await planner.look(pair.destination)
        except TransferError as error:
            return pair, f"cannot be told: {error.message}", None
        if there is None:
            return pair, "copy", source.size_bytes
        return pair, "overwrite" if overwrite else "exists, would fail without --overwrite", source.size_bytes

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(pair)) for pair in pairs]
    total, problems = 0, 0
    for task in tasks:
        pair, action, n_bytes = task.result()
        does = action in {"copy", "overwrite"}
        total += (n_bytes or 0) if does else 0
        problems += not does
        if as_json:
            put_json({"source": pair.source, "destination": pair.destination, "action": action, "bytes": n_bytes})
        else:
            put(
                f"{action}: {pair.source} → {pair.destination}" + (f" ({size(n_bytes)})" if n_bytes is not None else "")
            )
    if not as_json:
        put(f"{len(tasks) - problems} of {len(tasks)} would be copied, {size(total)}")
    return Exit.OK if not problems else Exit.SOME_FAILED if problems < len(tasks) else Exit.ALL_FAILED
