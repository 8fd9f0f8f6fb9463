"""The progress bar of `cp`: files, bytes, rate, time left, and what the copies are doing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from transfer_engine.cli.output import size
from transfer_engine.figures import LinkStatus, Running

if TYPE_CHECKING:
    from rich.progress import Progress

REFRESH_S: Final = 0.2


class Watched(Protocol):
    """What an engine tells of its work."""

    def running(self) -> list[Running]:
        """The transfers that are being driven now."""

    def links(self) -> list[LinkStatus]:
        """Every link with work."""


@dataclass(slots=True)
class Tally:
    """What the command has taken on so far."""

    n_files: int = 0
    """Found."""
    n_submitted: int = 0
    """Handed to the engine."""
    total_bytes: int | None = 0
    """None: somebody does not say."""

    def count(self, size_bytes: int | None) -> None:
        """Take on one more file."""
        self.n_files += 1
        if size_bytes is None:
            self.total_bytes = None
        elif self.total_bytes is not None:
            self.total_bytes += size_bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """What the bar shows at one moment."""

    files: str
    moved: str
    states: str
    completed: int
    total: float | None
    """Bytes; an estimate where storages have not said all sizes yet; None: not even that."""


def shown(running: Sequence[Running], links: Sequence[LinkStatus], tally: Tally) -> Shown:
    """The bar for this moment."""
    finished_bytes = sum(link.bytes_done for link in links)
    moved = finished_bytes + sum(one.bytes_done for one in running)
    ended = sum(link.finished + link.failed for link in links)
    ready = sum(link.ready for link in links)
    total = _total(running, finished_bytes, ended, tally)
    states = Counter(one.phase for one in running)
    states["waiting"] = ready
    states["to be retried"] = max(0, tally.n_submitted - ended - ready - len(running))
    words = ", ".join(f"{name} {n}" if n > 1 else name for name, n in sorted(states.items()) if n)
    exact = total is not None and total == tally.total_bytes
    return Shown(
        files=f"{ended}/{tally.n_files}",
        moved=f"{size(moved)} of {size(total)}" if exact and total is not None else size(moved),
        states=words,
        completed=moved,
        total=total,
    )


def _total(running: Sequence[Running], finished_bytes: int, ended: int, tally: Tally) -> float | None:
    if tally.total_bytes is not None:
        return tally.total_bytes if tally.n_files else None
    known = [one.size_bytes for one in running if one.size_bytes is not None]
    if not ended + len(known):
        return None
    return (finished_bytes + sum(known)) / (ended + len(known)) * tally.n_files


@contextlib.asynccontextmanager
async def progress_bar(engine: Watched, tally: Tally, *, wanted: bool) -> AsyncIterator[None]:
    """A bar on stderr while the block runs, if that is a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield
        return
    with _bar() as progress:
        painter = asyncio.get_running_loop().create_task(_paint(engine, tally, progress))
        try:
            yield
        finally:
            painter.cancel()


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.fields[files]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[moved]}"),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[states]}", style="dim"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)


async def _paint(engine: Watched, tally: Tally, progress: Progress) -> None:
    bar = progress.add_task("", total=None, files="", moved="", states="")
    while True:
        now = shown(engine.running(), engine.links(), tally)
        progress.update(
            bar, completed=now.completed, total=now.total, files=now.files, moved=now.moved, states=now.states
        )
        await asyncio.sleep(REFRESH_S)
