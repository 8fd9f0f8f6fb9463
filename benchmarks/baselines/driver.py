"""What every baseline is made of: files that wait, attempts that run, jobs that end.

A baseline decides which file starts when, and what becomes of a failed one. What an attempt says to the
storages is the engine's own `Attempt` for all of them, so that the comparison is of schedulers alone.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from protocols.api import Adapter
from transfer_engine.attempt import Attempt, Progress, Tools, anonymous
from transfer_engine.clock import Deps
from transfer_engine.config import Settings, TransferSettings
from transfer_engine.model import Assignment, FileId, JobId, JobOptions, JobRequest, Queue, QueueId
from transfer_engine.places import Link
from transfer_engine.simulation.storages import SimulatedStorages
from transfer_engine.states import JobState, JobType
from transfer_engine.views import JobView


@dataclass(slots=True, eq=False)
class Job:
    """A job and how far it is."""

    job_id: JobId
    vo: str
    priority: int
    submitted_at: float
    transfers: str
    """One line per file, `source destination size`: a million files as objects would not fit."""
    n_files: int
    ended: asyncio.Event
    n_finished: int = 0
    n_failed: int = 0


@dataclass(slots=True, eq=False)
class File:
    """One transfer in the queue."""

    number: int
    """FTS's file id: the order of submission."""
    job: Job
    index: int
    link: Link
    activity: str
    n_failed: int = 0
    dest_owned: bool = False


@dataclass(slots=True, eq=False)
class Running:
    """One attempt."""

    file: File
    order: Assignment
    attempt: Attempt
    progress: Progress
    began_at: float


class _Only:
    """One adapter for every URL."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def adapter_for(self, url: str) -> Adapter:
        del url
        return self._adapter


class Driver(ABC):
    """A `Mover` without its scheduler."""

    def __init__(
        self, storages: SimulatedStorages, settings: Settings, given: Deps, *, transfer: TransferSettings | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.deps = given
        self.tools = Tools(
            adapters=_Only(storages),
            credentials=anonymous,
            settings=transfer or settings.transfer,
            clock=given.clock,
        )
        self.running: dict[int, Running] = {}
        """File number → attempt."""
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs: dict[JobId, Job] = {}
        self._n_files = 0
        self._ready: Counter[tuple[Link, str, str]] = Counter()
        self._slots: Counter[Link] = Counter()

    # What a scheduler is

    def loops(self) -> Iterable[Coroutine[Any, Any, None]]:
        """What it does by itself as time goes on."""
        return ()

    @abstractmethod
    def arrived(self, files: Sequence[File]) -> None:
        """Files of one job were submitted, in order."""

    @abstractmethod
    async def drive(self, running: Running) -> None:
        """Make the attempt and say what becomes of the file."""

    # Its life

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for coroutine in self.loops():
            self._spawn(coroutine)
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What the simulation asks

    async def submit(self, request: JobRequest, /) -> JobId:
        """Take a job."""
        job = Job(
            job_id=JobId(self.deps.new_id()),
            vo=request.vo,
            priority=request.priority,
            submitted_at=self.deps.clock.now(),
            transfers="\n".join(f"{row.sources[0]} {row.destination} {row.size_bytes}" for row in request.transfers),
            n_files=len(request.transfers),
            ended=asyncio.Event(),
        )
        self._jobs[job.job_id] = job
        files = []
        for index, row in enumerate(request.transfers):
            self._n_files += 1
            link = Link(_endpoint(row.sources[0]), _endpoint(row.destination))
            files.append(File(self._n_files, job, index, link, row.activity))
            self.becomes_ready(files[-1])
        self.arrived(files)
        return job.job_id

    async def wait(self, job_id: JobId, /) -> JobView:
        """Wait until it has ended."""
        job = self._jobs[job_id]
        await job.ended.wait()
        del self._jobs[job_id]
        return _view(job, self.deps.clock.now())

    def active(self) -> Mapping[Link, int]:
        """Link → transfers that hold a slot now."""
        return {link: n for link, n in self._slots.items() if n}

    def backlog(self) -> Mapping[tuple[Link, str, str], int]:
        """(link, VO, activity) → transfers that could start if there were room."""
        return {key: n for key, n in self._ready.items() if n}

    # What a scheduler does

    def becomes_ready(self, file: File) -> None:
        """It may start from now on."""
        self._ready[file.link, file.job.vo, file.activity] += 1

    def start(self, file: File, options: JobOptions) -> None:
        """Take a slot and `drive` it."""
        self._ready[file.link, file.job.vo, file.activity] -= 1
        self._slots[file.link] += 1
        order, progress = self._order(file, options), Progress()
        running = Running(file, order, Attempt(order, self.tools, _always, progress), progress, self.loop.time())
        self.running[file.number] = running
        self._spawn(self.drive(running))

    def release(self, running: Running) -> None:
        """Give its slot back."""
        del self.running[running.file.number]
        self._slots[running.file.link] -= 1

    def end(self, file: File, *, finished: bool) -> None:
        """It has ended for good."""
        job = file.job
        job.n_finished += finished
        job.n_failed += not finished
        if job.n_finished + job.n_failed == job.n_files:
            job.ended.set()

    def _order(self, file: File, options: JobOptions) -> Assignment:
        source, destination, size = file.job.transfers.split("\n")[file.index].split(" ")
        now = self.deps.clock.now()
        return Assignment(
            file_id=FileId(file.number),
            epoch=file.n_failed + 1,
            job_id=file.job.job_id,
            job_ref=0,
            job_type=JobType.NORMAL,
            file_index=file.index,
            queue=Queue(QueueId(0), file.link.source_se, file.link.dest_se, file.job.vo, file.activity),
            priority=file.job.priority,
            source_url=source,
            dest_url=destination,
            size_bytes=None if size == "None" else int(size),
            checksum=None,
            options=options,
            scitag=None,
            n_failed=file.n_failed,
            follows=False,
            dest_owned=file.dest_owned,
            copying=False,
            submitted_at=file.job.submitted_at,
            claimed_at=now,
        )


def size_of(file: File) -> int:
    """Bytes, as submitted; 0 when nobody said."""
    size = file.job.transfers.split("\n")[file.index].rpartition(" ")[2]
    return 0 if size == "None" else int(size)


def _endpoint(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].lower()}"


async def _always() -> bool:
    """Nobody else drives these files."""
    return True


def _view(job: Job, now: float) -> JobView:
    state = JobState.FINISHED
    if job.n_failed:
        state = JobState.FINISHEDDIRTY if job.n_finished else JobState.FAILED
    return JobView(
        job_id=job.job_id,
        state=state,
        job_type=JobType.NORMAL,
        vo=job.vo,
        user_dn="",
        cred_id="",
        priority=job.priority,
        submitted_at=job.submitted_at,
        finished_at=now,
        reason=None,
        source_se=None,
        dest_se=None,
        metadata=None,
        options=JobOptions(),
        params={},
        cancel_requested=False,
        n_files=job.n_files,
        n_finished=job.n_finished,
        n_failed=job.n_failed,
        n_canceled=0,
    )
