"""`cp`: an engine for one command, nothing left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from protocols import checksum as checksums
from protocols.registry import Registry
from transfer_engine.cli.exits import Exit, of_failures
from transfer_engine.cli.lists import as_url, child, last_name, read_pairs
from transfer_engine.cli.output import put, put_json, say, size, stop
from transfer_engine.cli.plan import Pair, Planner, show_plan
from transfer_engine.config import Settings, load
from transfer_engine.model import FileView, JobId, JobOptions, Transfer, Verify
from transfer_engine.states import FileState
from transfer_engine.wiring import TransferEngine, credential_source, storages

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

JOB_FILES: Final = 10_000
"""Most transfers in one of the command's own jobs."""
REFRESH_S: Final = 0.2
SHOWN_FAILURES: Final = 20
FORCE_AFTER: Final = 2
"""Interrupts after which nothing is waited for any more."""


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


@dataclass(slots=True)
class _Tally:
    """What the command has to account for."""

    n_files: int = 0
    n_finished: int = 0
    total_bytes: int | None = 0


def settings_of(options: CopyOptions) -> Settings:
    """Settings from file, environment and these options."""
    tls: dict[str, Any] = {}
    if options.ca is not None:
        tls["ca"] = options.ca
    if options.token_file is not None:
        tls["token_file"] = options.token_file
    if options.insecure:
        tls["verify"] = False
    n = options.parallel
    limits = {"node": n, "link": n, "endpoint_inbound": n, "endpoint_outbound": n, "streamed": n}
    retry = {"delay_s": 2.0} if options.config is None else {}
    return load(options.config, {"tls": tls, "limits": limits, "retry": retry, "database": "sqlite://"})


def job_options(options: CopyOptions) -> JobOptions:
    """How each file is to be copied."""
    return JobOptions(
        verify=Verify.BOTH,
        overwrite=options.overwrite,
        retries_max=options.retries,
        timeout_s=options.timeout_s,
        modes=None if options.mode == "auto" else (options.mode,),
    )


async def copy(source: str | None, destination: str | None, options: CopyOptions) -> Exit:
    """Run the command."""
    settings = settings_of(options)
    if options.checksum and ":" not in options.checksum:
        try:
            name = checksums.algorithm_name(options.checksum)
        except ValueError as error:
            stop(f"--checksum: {error}", Exit.USAGE)
        settings = settings.model_copy(
            update={"transfer": settings.transfer.model_copy(update={"checksum": name, "require_checksum": True})}
        )
    adapters = storages(settings, local=True)
    credential = credential_source(settings.tls)
    registry = Registry(adapters)
    planner = Planner(registry.adapter_for, credential)
    if options.dry_run:
        async with registry:
            pairs = [pair async for pair in _pairs(planner, source, destination, options)]
            return await show_plan(planner, pairs, overwrite=options.overwrite, as_json=options.as_json)
    async with TransferEngine("sqlite://", settings=settings, adapters=adapters) as engine:
        return await _Run(engine, planner, options).to_end(source, destination)


async def _pairs(
    planner: Planner, source: str | None, destination: str | None, options: CopyOptions
) -> AsyncIterator[Pair]:
    if options.from_file is not None:
        if source is not None:
            stop("give SRC DST or --from-file, not both", Exit.USAGE)
        listed: Iterator[tuple[str, str]] = ((as_url(a), as_url(b)) for a, b in read_pairs(options.from_file))
    elif source is None or destination is None:
        stop("expected SRC DST, or --from-file LIST", Exit.USAGE)
    else:
        listed = iter([(as_url(source), as_url(destination))])
    for one, two in listed:
        if options.recursive:
            async for pair in planner.tree(one, two):
                yield pair
        elif options.from_file is not None:
            yield Pair(one, child(two, last_name(one)) if two.endswith("/") else two)
        else:
            yield Pair(one, await planner.target(one, two))


class _Run:
    """One run of the command."""

    def __init__(self, engine: TransferEngine, planner: Planner, options: CopyOptions) -> None:
        self._engine = engine
        self._planner = planner
        self._options = options
        self._jobs: list[JobId] = []
        self._tally = _Tally()
        self._began = asyncio.get_running_loop().time()
        self._interrupts = 0

    async def to_end(self, source: str | None, destination: str | None) -> Exit:
        # Owned here: awaited below, cancelled by the signal handler.
        work = asyncio.get_running_loop().create_task(self._work(source, destination))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted, work)
        try:
            return await work
        except asyncio.CancelledError:
            if self._interrupts < FORCE_AFTER:
                await self._clean_up()
            return Exit.INTERRUPTED
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _interrupted(self, work: asyncio.Future[Exit]) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            work.cancel()
        elif self._interrupts == FORCE_AFTER:
            for task in asyncio.all_tasks():
                task.cancel()

    async def _clean_up(self) -> None:
        """Stop what runs and remove what it left."""
        if self._engine.running():
            say("interrupted: stopping the copies and removing what they left; once more to leave at once")
        for job_id in self._jobs:
            await self._engine.cancel(job_id)
        while self._engine.running() and self._interrupts < FORCE_AFTER:  # noqa: ASYNC110 - a person is waiting
            await asyncio.sleep(0.05)

    async def _work(self, source: str | None, destination: str | None) -> Exit:
        how = job_options(self._options)
        block: list[Transfer] = []
        given = self._options.checksum if self._options.checksum and ":" in self._options.checksum else None
        async with contextlib.AsyncExitStack() as shown:
            await shown.enter_async_context(_shown(self._engine, self._tally, self._options))
            reporter: asyncio.Task[None] | None = None
            if self._options.as_json:
                reporter = asyncio.get_running_loop().create_task(self._report())
            async for pair in _pairs(self._planner, source, destination, self._options):
                self._count(pair)
                block.append(Transfer.of(pair.source, pair.destination, checksum=given))
                if len(block) >= JOB_FILES:
                    self._jobs.append(await self._engine.submit(block, options=how))
                    block = []
            if block:
                self._jobs.append(await self._engine.submit(block, options=how))
            if not self._jobs:
                stop("nothing to copy", Exit.NOT_FOUND)
            for job_id in self._jobs:
                await self._engine.wait(job_id)
            if reporter is not None:
                await asyncio.wait([reporter], timeout=0.5)
                reporter.cancel()
        return await self._summary()

    def _count(self, pair: Pair) -> None:
        self._tally.n_files += 1
        if pair.size_bytes is None:
            self._tally.total_bytes = None
        elif self._tally.total_bytes is not None:
            self._tally.total_bytes += pair.size_bytes

    async def _report(self) -> None:
        """Every change as a JSON line."""
        ended = 0
        async for event in self._engine.events(0):
            line: dict[str, Any] = {"event": event.kind, "at": event.at, "job_id": event.job_id, "state": event.state}
            if event.file_id is not None:
                line["file_id"] = event.file_id
            if event.reason:
                line["reason"] = event.reason
            put_json(line)
            ended += event.kind == "job" and event.state not in {"SUBMITTED", "ACTIVE"}
            if self._jobs and ended >= len(self._jobs):
                return

    async def _summary(self) -> Exit:
        failed: list[FileView] = []
        n_bytes = n_finished = n_verified = 0
        for job_id in self._jobs:
            for file in await self._engine.files(job_id):
                if file.state is FileState.FINISHED:
                    n_finished += 1
                    n_bytes += file.seen_bytes or 0
                    n_verified += "checksum" in (file.evidence or "")
                    if self._options.as_json:
                        put_json(_as_json(file))
                else:
                    failed.append(file)
        spent = max(asyncio.get_running_loop().time() - self._began, 1e-6)
        self._show_failures(failed)
        code = of_failures([str(f.failure["code"]) if f.failure else "" for f in failed], n_finished)
        if self._options.as_json:
            put_json(
                {
                    "event": "summary",
                    "files": n_finished + len(failed),
                    "finished": n_finished,
                    "failed": len(failed),
                    "verified_by_checksum": n_verified,
                    "bytes": n_bytes,
                    "seconds": round(spent, 3),
                    "exit_code": int(code),
                }
            )
        elif not self._options.quiet and (sys.stdout.isatty() or failed):
            how = "size and checksum" if n_verified == n_finished else f"size ({n_verified} also by checksum)"
            done = f", {size(n_bytes)} in {spent:.1f} s ({size(n_bytes / spent)}/s), verified: {how}"
            put(f"{n_finished} of {n_finished + len(failed)} files copied{done if n_finished else ''}")
        return code

    def _show_failures(self, failed: Sequence[FileView]) -> None:
        for file in failed:
            if self._options.as_json:
                put_json(_as_json(file))
        for file in failed[:SHOWN_FAILURES]:
            failure = file.failure or {"code": file.state.value, "message": "", "hint": ""}
            say(f"{file.source_url} → {file.dest_url}: {failure['code']}: {file.reason}; {failure['hint']}")
        if len(failed) > SHOWN_FAILURES:
            say(f"… and {len(failed) - SHOWN_FAILURES} more failed")


def _as_json(file: FileView) -> dict[str, Any]:
    """A file's end as one JSON object."""
    return {
        "event": "file",
        "file_id": file.file_id,
        "source": file.source_url,
        "destination": file.dest_url,
        "state": file.state.value,
        "bytes": file.seen_bytes,
        "checksum": file.seen_checksum,
        "verified": file.evidence,
        "mode": file.mode,
        "attempts": file.n_failed + (file.state is FileState.FINISHED),
        "error": dict(file.failure) if file.failure else None,
    }


@contextlib.asynccontextmanager
async def _shown(engine: TransferEngine, tally: _Tally, options: CopyOptions) -> AsyncIterator[None]:
    """A progress bar on a terminal, nothing elsewhere."""
    if options.as_json or options.quiet or not sys.stderr.isatty():
        yield
        return
    with _bar() as progress:
        bar = progress.add_task("", total=None, files="", states="")
        painter = asyncio.get_running_loop().create_task(_paint(engine, tally, progress, bar))
        try:
            yield
            _update(engine, tally, progress, bar)
        finally:
            painter.cancel()


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.fields[files]}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[states]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5) as progress:
        yield progress


async def _paint(engine: TransferEngine, tally: _Tally, progress: Progress, bar: TaskID) -> None:
    while True:
        _update(engine, tally, progress, bar)
        await asyncio.sleep(REFRESH_S)


def _update(engine: TransferEngine, tally: _Tally, progress: Progress, bar: TaskID) -> None:
    running = engine.running()
    links = engine.links()
    done = sum(link.bytes_done for link in links)
    moving = sum(one.bytes_done for one in running)
    ended = sum(link.finished + link.failed for link in links)
    total = tally.total_bytes
    if total is None and ended + len(running) >= tally.n_files:
        known = [one.size_bytes for one in running]
        total = done + sum(n for n in known if n is not None) if None not in known else None
    phases: dict[str, int] = {}
    for one in running:
        phases[one.phase] = phases.get(one.phase, 0) + 1
    states = ", ".join(f"{name} {n}" if n > 1 else name for name, n in sorted(phases.items()))
    progress.update(bar, completed=done + moving, total=total, files=f"{ended}/{tally.n_files}", states=states)
