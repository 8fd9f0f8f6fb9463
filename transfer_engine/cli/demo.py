"""`demo`: what it looks like on a terminal, and on anything else."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import uvloop

from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import PROGRAM, put, say, size
from transfer_engine.demo.run import N_LINKS, SITES, Demo, opened
from transfer_engine.demo.verdict import Verdict
from transfer_engine.figures import LinkStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH_S: Final = 0.2
LINE_EVERY_S: Final = 3.0
WINDOW_S: Final = 3.0
"""Rates are means over this time."""
BAR_WIDTH: Final = 50
SUMMARY_WIDTH: Final = 76
PROBLEMS_MAX: Final = 20
"""Problems that are told one by one."""

LinkKey = tuple[str, str]
"""Source and destination endpoint."""


def demo(*, seconds: float | None, files: int, seed: int, plain: bool) -> Exit:
    """Run the demo to its end, or until it is interrupted.

    Args:
        seconds: keep submitting for this long; None: `files` files, once.
        plain: lines instead of a live table, as when stdout is no terminal.

    Returns: OK when every file is as it must be, by the storages' own records; else ERROR, or INTERRUPTED.
    """
    try:
        return uvloop.run(_main(seconds=seconds, files=files, seed=seed, plain=plain))
    except asyncio.CancelledError:
        say("interrupted; nothing is left behind")
        return Exit.INTERRUPTED


async def _main(*, seconds: float | None, files: int, seed: int, plain: bool) -> Exit:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None, "runs in a task"

    def interrupt() -> None:
        # A second Ctrl-C must not interrupt the cleaning up after the first.
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    async with opened(seed=seed) as running:
        began = loop.time()
        put(f"{len(SITES)} storages ({', '.join(f'{site.name} {site.kind}' for site in SITES)}), {N_LINKS} links")
        load = loop.create_task(running.carry_out(n_files=files, seconds=seconds))
        try:
            await _show(running, load, plain=plain)
        finally:
            load.cancel()
            await asyncio.wait([load])
        load.result()
        return _summary(await running.verdict(), loop.time() - began)


async def _show(running: Demo, load: asyncio.Task[None], *, plain: bool) -> None:
    """Show how it goes until `load` is done."""
    watch = _Watch(running)
    console = None if plain else _terminal()
    try:
        if console is None:
            await _print_lines(watch, load)
        else:
            await _show_table(watch, load, console)
    except asyncio.CancelledError:
        look = watch.look()
        put(f"stopping at {look.n_ended} of {look.n_submitted} ended, {look.counts}")
        raise


def _hint(running: Demo) -> str:
    return f"in another terminal: {PROGRAM} list --service {running.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The state of the demo at one moment."""

    n_submitted: int
    n_ended: int
    n_active: int
    n_ready: int
    files_s: float
    bytes_s: float
    links: dict[LinkKey, LinkStatus]
    link_bytes_s: dict[LinkKey, float]

    @property
    def counts(self) -> str:
        delayed = max(0, self.n_submitted - self.n_ended - self.n_active - self.n_ready)
        return f"{self.n_active} active, {self.n_ready} waiting, {delayed} to be retried"

    @property
    def rates(self) -> str:
        return f"{self.files_s:.1f} files/s, {size(self.bytes_s)}/s"

    @property
    def in_words(self) -> str:
        return f"{self.n_ended} of {self.n_submitted} ended, {self.counts}; {self.rates}"


@dataclass(slots=True)
class _Watch:
    """Looks at the engine and remembers enough for rates."""

    running: Demo
    _samples: deque[tuple[float, int, dict[LinkKey, int]]] = field(default_factory=deque)
    """(when, transfers ended, bytes moved on each link)"""

    def look(self) -> _Look:
        engine = self.running.engine
        links = {(link.source_se, link.dest_se): link for link in engine.links()}
        active = engine.running()
        moved = {key: link.bytes_done for key, link in links.items()}
        for one in active:
            key = (one.link.source_se, one.link.dest_se)
            moved[key] = moved.get(key, 0) + one.bytes_done
        n_ended = sum(link.finished + link.failed for link in links.values())
        now = asyncio.get_running_loop().time()
        self._samples.append((now, n_ended, moved))
        while now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()
        since, n_before, before = self._samples[0]
        span = max(now - since, REFRESH_S)
        # What a failed attempt had moved is not counted any more: a rate is not negative for that.
        link_bytes_s = {key: max(0, n - before.get(key, 0)) / span for key, n in moved.items()}
        return _Look(
            n_submitted=self.running.n_submitted,
            n_ended=n_ended,
            n_active=len(active),
            n_ready=sum(link.ready for link in links.values()),
            files_s=(n_ended - n_before) / span,
            bytes_s=sum(link_bytes_s.values()),
            links=links,
            link_bytes_s=link_bytes_s,
        )


async def _print_lines(watch: _Watch, load: asyncio.Task[None]) -> None:
    """One line every few seconds."""
    put(_hint(watch.running))
    loop = asyncio.get_running_loop()
    due = loop.time() + LINE_EVERY_S
    while not load.done():
        look = watch.look()
        if loop.time() >= due:
            put(look.in_words)
            due += LINE_EVERY_S
        await asyncio.wait([load], timeout=REFRESH_S)


def _terminal() -> Console | None:
    """The terminal on stdout, if there is one on which the cursor can be moved."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    console = Console()
    return None if console.is_dumb_terminal else console


async def _show_table(watch: _Watch, load: asyncio.Task[None], console: Console) -> None:
    """A live table of links; its last state stays on the screen."""
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while not load.done():
            live.update(_screen(watch), refresh=True)
            await asyncio.wait([load], timeout=REFRESH_S)
        live.update(_screen(watch), refresh=True)


def _screen(watch: _Watch) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    look = watch.look()
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(1, look.n_submitted), completed=look.n_ended, width=BAR_WIDTH)
    head.add_row(bar, f"{look.n_ended} of {look.n_submitted} ended")
    return Group(
        Text(_hint(watch.running), style="dim", no_wrap=True, overflow="ellipsis"),
        Text(),
        head,
        Text(f"{look.counts}; {look.rates}", no_wrap=True, overflow="ellipsis"),
        Text(),
        _table(watch.running, look),
    )


def _table(running: Demo, look: _Look) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("link", no_wrap=True)
    for name in ("waiting", "active", "done", "failed", "retried"):
        table.add_column(name, justify="right", min_width=7, no_wrap=True)
    # As wide as the widest rate, so that nothing moves when rates change.
    table.add_column("rate", justify="right", min_width=len("99.9 MB/s"), no_wrap=True)

    def count(n: int, style: str) -> Text:
        return Text(str(n), style=style) if n else Text("·", style="dim")

    for name, key in running.links():
        link, rate = look.links.get(key), look.link_bytes_s.get(key, 0.0)
        table.add_row(
            name,
            count(link.ready if link else 0, ""),
            count(link.active if link else 0, "bold"),
            count(link.finished if link else 0, "green"),
            count(link.failed if link else 0, "red"),
            count(link.retried if link else 0, "yellow"),
            Text(f"{size(rate)}/s") if rate else Text("·", style="dim"),
        )
    return table


def _summary(verdict: Verdict, spent_s: float) -> Exit:
    """Tell how it ended."""
    states = ", ".join(f"{n} {state}" for state, n in sorted(verdict.states.items()))
    put("")
    put(f"{verdict.states.total()} transfers in {spent_s:.0f} s: {states}")
    put(f"{size(verdict.n_bytes)} moved in {verdict.n_attempts} attempts, verified by size and checksum")
    repeated = f"{verdict.n_retried} files took more than one attempt"
    put(f"{verdict.n_faults} faults injected, {verdict.n_healed} healed; {repeated}")
    kinds = ", ".join(f"{n} {fault.replace('_', ' ')}" for fault, n in sorted(verdict.faults.items()))
    for line in textwrap.wrap(kinds, SUMMARY_WIDTH):
        put(f"  {line}")
    if verdict.failed:
        put("failed, each with its reason and what to do:")
    for file in verdict.failed:
        put(f"  {file.dest_url.rpartition('/')[2]}: {file.reason}")
        put(f"    {(file.failure or {}).get('hint', '')}")
    if not verdict.problems:
        put("As it must be: by the storages' own records every finished file is right,")
        put("nothing else is there, and only what could not succeed has failed.")
        return Exit.OK
    for problem in verdict.problems[:PROBLEMS_MAX]:
        put(f"WRONG: {problem}")
    put(f"NOT as it must be: {len(verdict.problems)} problems")
    return Exit.ERROR
