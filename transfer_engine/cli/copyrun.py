"""One run of `cp`: hand the files to an engine, show how it goes, and clean up when it is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from transfer_engine.cli.exits import Exit, of_failures
from transfer_engine.cli.output import put, put_json, say, size, stop
from transfer_engine.cli.plan import CopyOptions, Pair
from transfer_engine.cli.progress import Tally, progress_bar
from transfer_engine.engine import Engine
from transfer_engine.model import JobId, JobOptions, Transfer, Verify
from transfer_engine.states import FileState
from transfer_engine.views import FileView, StoredEvent

JOB_FILES: Final = 10_000
"""Most transfers in one of the command's own jobs."""
SHOWN: Final = 20
"""Files that are named one by one on stderr."""
EVENTS_BLOCK: Final = 500
CLEAN_MORE_S: Final = 30.0
"""How much longer than the quarantine cleaning up may take."""


def job_options(options: CopyOptions) -> JobOptions:
    """How each file is to be copied."""
    return JobOptions(
        verify=Verify.BOTH,
        overwrite=options.overwrite,
        retries_max=options.retries,
        timeout_s=options.timeout_s,
        modes=None if options.mode == "auto" else (options.mode,),
    )


class CopyRun:
    """One run of the command."""

    def __init__(
        self, engine: Engine, pairs: AsyncIterator[Pair], options: CopyOptions, quarantine_s: float = 15.0
    ) -> None:
        """`quarantine_s`: how long the engine watches the remains of a copy that was stopped."""
        self._engine = engine
        self._pairs = pairs
        self._options = options
        self._quarantine_s = quarantine_s
        self._jobs: list[JobId] = []
        self._tally = Tally()
        self._interrupted = asyncio.Event()
        self._leave = asyncio.Event()
        self._told = 0
        """Cursor of the events that were printed."""
        self._began = asyncio.get_running_loop().time()

    async def to_end(self) -> Exit:
        """Copy everything; its exit code. Raises `Stop`, also for a directory that cannot be listed half-way."""
        loop = asyncio.get_running_loop()
        work = loop.create_task(self._work())
        tasks: list[asyncio.Task[None]] = [work]
        if self._options.as_json:
            reporter = loop.create_task(self._report())
            # It ends with an error when nobody reads its lines any more: then nothing more is copied for them.
            reporter.add_done_callback(self._reporter_ended)
            tasks.append(reporter)
        try:
            with self._signals():
                await self._first_of(work, self._interrupted)
                if not work.done() or work.exception() is not None:
                    work.cancel()
                    await asyncio.wait([work])
                    await self._clean_up()
            if not work.cancelled():
                work.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return await self._summary(interrupted=work.cancelled())

    def interrupt(self) -> None:
        """Stop copying and clean up; the second time: leave at once."""
        if self._interrupted.is_set():
            self._leave.set()
        self._interrupted.set()

    def _reporter_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.interrupt()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.interrupt)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _first_of(self, task: asyncio.Task[Any], event: asyncio.Event, timeout_s: float | None = None) -> None:
        waiting = asyncio.get_running_loop().create_task(event.wait())
        try:
            await asyncio.wait([task, waiting], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def _work(self) -> None:
        block: list[Transfer] = []
        wanted = not self._options.as_json and not self._options.quiet
        async with progress_bar(self._engine, self._tally, wanted=wanted):
            async for pair in self._pairs:
                self._tally.count(pair.size_bytes)
                block.append(Transfer.of(pair.source, pair.destination, checksum=self._options.expected_checksum))
                if len(block) >= JOB_FILES:
                    await self._submit(block)
                    block = []
            if block:
                await self._submit(block)
            if not self._jobs:
                stop("nothing to copy", Exit.NOT_FOUND)
            for job_id in self._jobs:
                await self._engine.wait(job_id)

    async def _submit(self, block: Sequence[Transfer]) -> None:
        # What was accepted must be known to whoever cleans up, also when an interrupt falls between the two.
        accepting = asyncio.get_running_loop().create_task(
            self._engine.submit(block, options=job_options(self._options))
        )
        accepting.add_done_callback(self._accepted)
        try:
            await asyncio.shield(accepting)
        except asyncio.CancelledError:
            await asyncio.wait([accepting])
            raise
        self._tally.n_submitted += len(block)

    def _accepted(self, task: asyncio.Task[JobId]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._jobs.append(task.result())

    async def _clean_up(self) -> None:
        """Stop what runs and remove what it left, as long as that takes a person's patience."""
        if not self._jobs:
            return
        cleaning = asyncio.get_running_loop().create_task(self._cancel_all())
        if self._engine.running() and not self._options.quiet:
            say(
                "stopping the copies and removing what they left, which takes "
                f"about {self._quarantine_s:.0f} s; another Ctrl-C leaves at once"
            )
        await self._first_of(cleaning, self._leave, self._quarantine_s + CLEAN_MORE_S)
        cleaning.cancel()
        await asyncio.wait([cleaning])
        left = self._engine.running()
        for one in left[:SHOWN]:
            say(f"{(await self._engine.reader.file(one.file_id)).dest_url}: may be incomplete: remove it")
        if len(left) > SHOWN:
            say(f"… and {len(left) - SHOWN} more may be incomplete")

    async def _cancel_all(self) -> None:
        for job_id in self._jobs:
            await self._engine.cancel(job_id)
        while self._engine.running():  # noqa: ASYNC110 - a person is waiting, and nothing tells of the last one
            await asyncio.sleep(0.05)

    async def _report(self) -> None:
        """Every change as a JSON line, for ever."""
        async for event in self._engine.events(0):
            self._tell(event)

    def _tell(self, event: StoredEvent) -> None:
        put_json(_event(event))
        self._told = event.seq

    async def _tell_rest(self) -> None:
        while block := await self._engine.reader.events(self._told, EVENTS_BLOCK):
            for event in block:
                self._tell(event)

    async def _summary(self, *, interrupted: bool) -> Exit:
        if self._options.as_json:
            await self._tell_rest()
        failed: list[FileView] = []
        n_bytes = n_finished = n_verified = n_canceled = 0
        for job_id in self._jobs:
            for file in await self._engine.files(job_id):
                if file.state is FileState.FINISHED:
                    n_finished += 1
                    n_bytes += file.seen_bytes or 0
                    n_verified += "checksum" in (file.evidence or "")
                elif file.failure and file.state is FileState.FAILED:
                    failed.append(file)
                else:
                    n_canceled += 1
                if self._options.as_json:
                    put_json(_as_json(file))
        code = of_failures([str(file.failure["code"]) for file in failed if file.failure], n_finished)
        if interrupted:
            code = Exit.INTERRUPTED
        spent = max(asyncio.get_running_loop().time() - self._began, 1e-6)
        _tell_failures(failed)
        if self._options.as_json:
            put_json(
                {
                    "event": "summary",
                    "files": n_finished + len(failed) + n_canceled,
                    "finished": n_finished,
                    "failed": len(failed),
                    "canceled": n_canceled,
                    "verified_by_checksum": n_verified,
                    "bytes": n_bytes,
                    "seconds": round(spent, 3),
                    "exit_code": int(code),
                }
            )
        elif not self._options.quiet and (sys.stdout.isatty() or code):
            how = "size and checksum" if n_verified == n_finished else f"size ({n_verified} also by checksum)"
            done = f", {size(n_bytes)} in {spent:.1f} s ({size(n_bytes / spent)}/s), verified: {how}"
            ended = f"{n_finished} of {self._tally.n_files} files copied{done if n_finished else ''}"
            put(f"interrupted: {ended}" if code is Exit.INTERRUPTED else ended)
        return code


def _tell_failures(failed: Sequence[FileView]) -> None:
    for file in failed[:SHOWN]:
        failure = file.failure or {}
        say(f"{file.source_url} → {file.dest_url}: {failure.get('code')}: {file.reason}; {failure.get('hint')}")
    if len(failed) > SHOWN:
        say(f"… and {len(failed) - SHOWN} more failed")


def _event(event: StoredEvent) -> dict[str, Any]:
    line: dict[str, Any] = {"event": event.kind, "at": event.at, "job_id": event.job_id, "state": event.state}
    if event.file_id is not None:
        line["file_id"] = event.file_id
    if event.reason:
        line["reason"] = event.reason
    return line


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
        "attempts": file.epoch,
        "error": dict(file.failure) if file.failure else None,
    }
