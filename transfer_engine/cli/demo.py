"""`demo`: what it looks like on a terminal, and on anything else."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import uvloop

from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import put, say, size
from transfer_engine.demo.run import JOB_FILES, MUST_FAIL, Demo, Verdict, opened

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH_S: Final = 0.25
LINE_EVERY_S: Final = 3.0
WINDOW_S: Final = 3.0
"""Rates are means over this time."""


@dataclass(slots=True)
class _Rates:
    """Bytes and files over the last seconds, per link and in all."""

    samples: deque[tuple[float, int, dict[tuple[str, str], int]]] = field(default_factory=deque)

    def add(self, now: float, n_done: int, by_link: dict[tuple[str, str], int]) -> None:
        self.samples.append((now, n_done, by_link))
        while now - self.samples[0][0] > WINDOW_S:
            self.samples.popleft()

    def of(self, link: tuple[str, str]) -> float:
        (t0, _, first), (t1, _, last) = self.samples[0], self.samples[-1]
        return max(0.0, (last.get(link, 0) - first.get(link, 0)) / (t1 - t0)) if t1 > t0 else 0.0

    @property
    def files_s(self) -> float:
        (t0, n0, _), (t1, n1, _) = self.samples[0], self.samples[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


def demo(*, seconds: float | None, files: int, seed: int, plain: bool) -> Exit:
    """Run the demo to its end, or until it is interrupted."""
    with contextlib.suppress(asyncio.CancelledError):
        return uvloop.run(_main(seconds=seconds, files=files, seed=seed, plain=plain))
    say("interrupted; nothing is left behind")
    return Exit.INTERRUPTED


async def _main(*, seconds: float | None, files: int, seed: int, plain: bool) -> Exit:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    async with opened(n_files=files, seed=seed) as running:
        began = loop.time()
        put(f"4 storages, 12 links, the job service at {running.url}")
        load = loop.create_task(_load(running, files, seconds))
        screen = _Screen(running)
        try:
            if plain or not sys.stdout.isatty():
                await screen.print_lines(load)
            else:
                await screen.show_table(load)
            load.result()
        finally:
            load.cancel()
        return _summary(running, await running.verdict(), loop.time() - began)


async def _load(running: Demo, files: int, seconds: float | None) -> None:
    """Submit, and with `seconds` go on submitting until then; ends when every transfer has."""
    loop = asyncio.get_running_loop()
    end = None if seconds is None else loop.time() + seconds
    await running.submit_failures()
    await running.submit(files)
    while end is not None and loop.time() < end:
        waiting = sum(link.ready for link in running.engine.links())
        if waiting < files // 2:
            await running.submit(JOB_FILES)
        await asyncio.sleep(REFRESH_S)
    for job_id in running.jobs:
        await running.engine.wait(job_id)


class _Screen:
    """Looks at the engine a few times a second and shows it."""

    def __init__(self, running: Demo) -> None:
        self._running = running
        self._rates = _Rates()
        self._ended = 0

    def _sample(self) -> None:
        engine = self._running.engine
        by_link = {(link.source_se, link.dest_se): link.bytes_done for link in engine.links()}
        for one in engine.running():
            key = (one.link.source_se, one.link.dest_se)
            by_link[key] = by_link.get(key, 0) + one.bytes_done
        self._ended = sum(link.finished + link.failed for link in engine.links())
        self._rates.add(asyncio.get_running_loop().time(), self._ended, by_link)

    def _head(self) -> str:
        engine = self._running.engine
        links = engine.links()
        running = len(engine.running())
        ready = sum(link.ready for link in links)
        delayed = max(0, self._running.n_submitted - self._ended - running - ready)
        rate = sum(self._rates.of((link.source_se, link.dest_se)) for link in links)
        return (
            f"{self._ended}/{self._running.n_submitted} ended, {running} active, {ready} waiting, "
            f"{delayed} to be retried · {self._rates.files_s:.1f} files/s, {size(rate)}/s"
        )

    async def print_lines(self, load: asyncio.Task[None]) -> None:
        """One line every few seconds."""
        due = 0.0
        loop = asyncio.get_running_loop()
        while not load.done():
            self._sample()
            if loop.time() >= due:
                put(self._head())
                due = loop.time() + LINE_EVERY_S
            await asyncio.wait([load], timeout=REFRESH_S)

    async def show_table(self, load: asyncio.Task[None]) -> None:
        """A live table of links."""
        from rich.console import Console
        from rich.live import Live

        console = Console()
        with Live(console=console, refresh_per_second=5, transient=True) as live:
            while not load.done():
                self._sample()
                live.update(self._table(console))
                await asyncio.wait([load], timeout=REFRESH_S)

    def _table(self, console: Console) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("link")
        for name in ("waiting", "active", "done", "failed", "retried", "rate"):
            table.add_column(name, justify="right")
        for link in self._running.engine.links():
            rate = self._rates.of((link.source_se, link.dest_se))
            table.add_row(
                f"{self._running.name_of(link.source_se)} → {self._running.name_of(link.dest_se)}",
                str(link.ready or "·"),
                Text(str(link.active or "·"), style="bold" if link.active else "dim"),
                Text(str(link.finished), style="green"),
                Text(str(link.failed or "·"), style="red" if link.failed else "dim"),
                str(link.retried or "·"),
                f"{size(rate)}/s" if rate else "·",
            )
        hint = f"in another terminal: transfer-engine list --service {self._running.url}"
        lines: list[RenderableType] = [Text(self._head(), no_wrap=True, overflow="ellipsis"), Text(""), table]
        if console.size.height > len(self._running.engine.links()) + 5:
            lines += [Text(""), Text(hint, style="dim", no_wrap=True, overflow="ellipsis")]
        return Group(*lines)


def _summary(running: Demo, verdict: Verdict, spent: float) -> Exit:
    total = sum(verdict.states.values())
    states = ", ".join(f"{n} {state}" for state, n in sorted(verdict.states.items()))
    put(f"{total} transfers in {spent:.0f} s: {states}")
    put(f"{size(verdict.n_bytes)} moved by {verdict.n_attempts} attempts, verified by size and checksum")
    n_repeated = sum(link.retried for link in running.engine.links())
    put(f"{verdict.n_faults} faults injected by the storages; {n_repeated} attempts repeated because of them")
    for file in verdict.failed:
        hint = file.failure["hint"] if file.failure else ""
        put(f"failed, as it must: {file.dest_url.rpartition('/')[2]}: {file.reason} ({hint})")
    for problem in verdict.problems:
        put(f"WRONG: {problem}")
    if verdict.problems or len(verdict.failed) != MUST_FAIL:
        put(f"not as it must be: {len(verdict.problems)} problems, {len(verdict.failed)} failed instead of {MUST_FAIL}")
        return Exit.ERROR
    put("the storages' own records agree: every finished file is there and right, and nothing else is")
    return Exit.OK
