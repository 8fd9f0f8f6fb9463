"""What a `cp` will do: pairs of URLs, from arguments, lists and directories."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from protocols.api import Adapter, Credential, Stat
from protocols.errors import Missing, TransferError
from protocols.file import path_of
from transfer_engine.cli.exits import BY_CODE, Exit
from transfer_engine.cli.lists import as_url, child, last_name, read_pairs
from transfer_engine.cli.output import say, stop

LOOKS: Final = 16
"""Looks at storages at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """The options of `cp`, as given."""

    overwrite: bool = False
    recursive: bool = False
    dry_run: bool = False
    as_json: bool = False
    quiet: bool = False
    checksum: str | None = None
    mode: str = "auto"
    parallel: int = 20
    timeout_s: float | None = None
    retries: int | None = None
    from_file: str | None = None
    config: Path | None = None
    ca: Path | None = None
    token_file: Path | None = None
    insecure: bool = False

    @property
    def expected_checksum(self) -> str | None:
        """`ALGORITHM:HEX`, when it was given as that."""
        return self.checksum if self.checksum and ":" in self.checksum else None


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

    async def _glance(self, url: str) -> Stat | None:
        try:
            return await self.look(url)
        except TransferError:
            # The copy itself will meet the same storage, and say what is wrong with it.
            return None

    async def single(self, source: str, destination: str) -> Pair:
        """The file SRC, and where it goes: into DST when that is a directory, else to DST itself."""
        async with asyncio.TaskGroup() as group:
            source_look = group.create_task(self._glance(source))
            look = None if destination.endswith("/") else group.create_task(self._glance(destination))
        here = source_look.result()
        if here is not None and here.is_directory:
            stop(f"{source} is a directory: -r copies all below it", Exit.USAGE)
        there = look.result() if look is not None else None
        if look is None or (there is not None and there.is_directory):
            destination = child(destination, last_name(source))
        return Pair(source, destination, here.size_bytes if here is not None else None)

    async def tree(self, source: str, destination: str) -> AsyncIterator[Pair]:
        """Every file below a directory, mirrored below `destination`."""
        waiting = [(source, destination, _real(source))]
        while waiting:
            here, there, above = waiting.pop()
            try:
                entries = await self._adapter_for(here).list_directory(here, credential=self._credential(here))
            except TransferError as error:
                stop(f"{here} cannot be listed: {error.message}; {error.hint}", BY_CODE.get(error.code, Exit.ERROR))
            for entry in entries:
                goal = child(there, _plain(last_name(entry.url), here))
                if not entry.is_directory:
                    yield Pair(entry.url, goal, entry.size_bytes)
                elif above & (real := _real(entry.url)):
                    say(f"{entry.url} leads back to a directory above it and is not followed")
                else:
                    waiting.append((entry.url, goal, above | real))


def _plain(name: str, directory: str) -> str:
    """A name from a listing, which the storage chose; one that leads elsewhere is not followed."""
    decoded = unquote(name)
    if decoded in {"", ".", ".."} or "/" in decoded or "\0" in decoded:
        stop(f"{directory} lists {decoded!r}, which is no name of a file", Exit.REFUSED)
    return name


def _real(url: str) -> frozenset[str]:
    """The directory behind the links of a local URL; nothing for others, whose servers do not lead in circles."""
    try:
        return frozenset({os.path.realpath(path_of(url))}) if url.startswith("file:") else frozenset()
    except TransferError:
        return frozenset()


def check(source: str | None, destination: str | None, options: CopyOptions) -> None:
    """Raise `Stop` when arguments and options do not go together."""
    if options.from_file is not None and source is not None:
        stop("give SRC DST or --from-file, not both", Exit.USAGE)
    if options.from_file is None and (source is None or destination is None):
        stop("expected SRC DST, or --from-file LIST", Exit.USAGE)
    if options.expected_checksum and (options.from_file is not None or options.recursive):
        stop("--checksum ALGORITHM:HEX is for one file; --checksum ALGORITHM compares many", Exit.USAGE)


async def pairs_of(
    planner: Planner, source: str | None, destination: str | None, options: CopyOptions
) -> AsyncIterator[Pair]:
    """Every file to copy, as it is found; raises `Stop`."""
    if options.from_file is None:
        one, two = as_url(source or ""), as_url(destination or "")
        if not options.recursive:
            yield await planner.single(one, two)
            return
        async for pair in planner.tree(one, two):
            yield pair
        return
    async for here, there in read_pairs(options.from_file):
        one, two = as_url(here), as_url(there)
        if options.recursive:
            async for pair in planner.tree(one, two):
                yield pair
        else:
            yield Pair(one, child(two, last_name(one)) if two.endswith("/") else two)
