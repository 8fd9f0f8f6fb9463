"""The demo: model storages with some faults, the engine, the job service, a mixed load, and the truth about it.

Everything runs in one event loop on loopback. Submissions go through the service's REST interface as
any FTS client's would; whether the result is right is asked of the storages, not of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import aiohttp

from transfer_engine.config import load
from transfer_engine.demo.faults import Fault, Faults, Rule
from transfer_engine.demo.storage import ModelStorage
from transfer_engine.demo.verdict import Plan, Verdict, judge, place_of
from transfer_engine.engine import Engine
from transfer_engine.errors import EngineError
from transfer_engine.model import JobId
from transfer_engine.service.server import open_door, serve
from transfer_engine.states import TERMINAL, FileState
from transfer_engine.wiring import TransferEngine

MB: Final = 1_000_000
JOB_FILES: Final = 20
BACKLOG_FILES: Final = 40
"""Files that wait while the demo goes on for a given time: few, so that it ends soon after."""
LOOK_S: Final = 0.25
"""How often it is looked at what waits, and what has ended."""
ACTIVITIES: Final = ("production", "user", "tests")
PRIORITIES: Final = (2, 3, 3, 4)

CHANCES: Final[Mapping[Fault, float]] = {
    Fault.UNAVAILABLE: 0.03,
    Fault.FAILURE_LINE: 0.03,
    Fault.CORRUPT: 0.03,
    Fault.SHORT: 0.02,
    Fault.CUT_DONE: 0.02,
    Fault.CUT_PARTIAL: 0.02,
}
"""Of the first COPY to each file; the second one works."""
NO_DIGESTS: Final = Rule(fault=Fault.NO_DIGEST, method="HEAD", path="/data/*0", times=3)


@dataclass(frozen=True, slots=True)
class Site:
    """One storage of the demo."""

    name: str
    kind: str
    bandwidth_bytes_s: float


SITES: Final = (
    Site("ALPHA", "xrootd", 60 * MB),
    Site("BRAVO", "dcache", 45 * MB),
    Site("CHARLIE", "storm", 45 * MB),
    Site("DELTA", "xrootd", 20 * MB),
)
N_LINKS: Final = len(SITES) * (len(SITES) - 1)
SETTINGS: Final[Mapping[str, Any]] = {
    "limits": {"link": 3, "endpoint_inbound": 8, "endpoint_outbound": 8},
    "retry": {"delay_s": 1.0, "retries_max": 4},
    "transfer": {"quarantine_s": 2.0},
    "service": {"host": "127.0.0.1", "port": 0, "grace_s": 0.0},
    "tls": {"discover": False},
}


def _storage(number: int, site: Site, seed: int) -> ModelStorage:
    return ModelStorage(
        name=site.name,
        kind=site.kind,
        seed=seed + number,
        host=f"127.0.0.{number + 2}",
        bandwidth_bytes_s=site.bandwidth_bytes_s,
        marker_period_s=1.0,
        faults=Faults(rules=(NO_DIGESTS,), rates=CHANCES, attempts_max=1, zombie_s=0.5),
    )


async def _start(storage: ModelStorage) -> None:
    try:
        await storage.start()
    except OSError as error:
        # Linux has all of 127.0.0.0/8; elsewhere only 127.0.0.1 is there by itself.
        msg = f"the demo's storages listen on {storage.host}, which cannot be used here: {error.strerror or error}"
        raise EngineError(msg) from error


class Demo:
    """Storages, engine and service, started together and ended together: see `opened`.

    Attributes:
        url: the job service's.
        n_submitted: transfers accepted so far.
    """

    def __init__(self, directory: Path, *, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - a demo that can be repeated
        self._storages = [_storage(number, site, seed) for number, site in enumerate(SITES)]
        self._settings = load(None, {**SETTINGS, "database": f"sqlite:///{directory / 'demo.db'}"})
        self.engine: Engine = TransferEngine(settings=self._settings)
        self.url = ""
        self.n_submitted = 0
        self._jobs: list[JobId] = []
        self._plan = Plan()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Demo]:
        """Start everything; leaving ends everything."""
        async with contextlib.AsyncExitStack() as stack:
            for storage in self._storages:
                # Also what was interrupted on its way up is taken down.
                stack.push_async_callback(storage.stop)
                await _start(storage)
            await stack.enter_async_context(self.engine)
            ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            service = asyncio.get_running_loop().create_task(
                serve(self.engine, self._settings.service, open_door(), on_ready=ready.set_result)
            )
            try:
                waited: list[asyncio.Future[Any]] = [service, ready]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if service.done():
                    service.result()
                self.url = ready.result()
                yield self
            finally:
                service.cancel()
                await asyncio.wait([service])

    # The load

    async def carry_out(self, *, n_files: int, seconds: float | None) -> None:
        """Submit the load and wait until all of it has ended.

        Args:
            n_files: how many files, besides a few that must fail.
            seconds: keep submitting for this long instead, with at most `n_files` waiting.
        """
        submitted = asyncio.Event()
        async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
            group.create_task(self._release(submitted))
            await self._post(session, self._hopeless())
            if seconds is None:
                await self._submit(session, n_files)
            else:
                await self._keep_busy(session, n_max=min(n_files, BACKLOG_FILES), seconds=seconds)
            submitted.set()

    async def _keep_busy(self, session: aiohttp.ClientSession, *, n_max: int, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            n_waiting = sum(link.ready for link in self.engine.links())
            await self._submit(session, min(JOB_FILES, n_max - n_waiting))
            await asyncio.sleep(min(LOOK_S, max(0.0, end - loop.time())))

    async def _submit(self, session: aiohttp.ClientSession, n_files: int) -> None:
        for first in range(0, n_files, JOB_FILES):
            await self._post(session, [self._file() for _ in range(min(JOB_FILES, n_files - first))])

    async def _post(self, session: aiohttp.ClientSession, files: list[dict[str, Any]]) -> None:
        params = {"verify_checksum": "both", "priority": self._rng.choice(PRIORITIES)}
        async with session.post(f"{self.url}/jobs", json={"files": files, "params": params}) as answer:
            value = await answer.json()
            if answer.status != 200:  # noqa: PLR2004 - FTS's only success
                msg = f"the service refused the demo's own job: {value}"
                raise RuntimeError(msg)
        self.n_submitted += len(files)
        self._jobs.append(JobId(value["job_id"]))

    async def _release(self, submitted: asyncio.Event) -> None:
        """Have the storages forget the bytes of what has finished, until all has ended: a demo needs little room.

        Raises: EngineError: the engine has stopped.
        """
        going_on: list[JobId] = []
        n_seen = 0
        while going_on or n_seen < len(self._jobs) or not submitted.is_set():
            going_on += self._jobs[n_seen:]
            n_seen = len(self._jobs)
            for job_id in tuple(going_on):
                if await self._release_finished(job_id):
                    going_on.remove(job_id)
            if going_on:
                with contextlib.suppress(TimeoutError):
                    await self.engine.wait(going_on[0], LOOK_S)
            else:
                await asyncio.sleep(LOOK_S)

    async def _release_finished(self, job_id: JobId) -> bool:
        """Whether every transfer of the job has ended; the bytes of those that finished are gone then."""
        storages = {storage.url: storage for storage in self._storages}
        files = await self.engine.files(job_id)
        for file in files:
            if file.state is FileState.FINISHED:
                url, path = place_of(file.dest_url)
                storages[url].release(path)
        return all(file.state in TERMINAL for file in files)

    def _file(self) -> dict[str, Any]:
        number = len(self._plan.copies) + 1
        source, destination = self._rng.sample(self._storages, 2)
        # Many small files, a few large ones, as in a data lake: 10 kB to 25 MB.
        size = int(10 ** self._rng.triangular(4.0, 7.4, 6.6))
        checksum = source.add_file(f"/data/{number:06d}", size, seed=number)
        self._plan.sources[source.url, f"/data/{number:06d}"] = (size, checksum.value)
        self._plan.copies[destination.url, f"/copy/{number:06d}"] = (size, checksum.value)
        return {
            "sources": [f"{source.url}/data/{number:06d}"],
            "destinations": [f"{destination.url}/copy/{number:06d}"],
            "filesize": size,
            "checksum": str(checksum),
            "activity": self._rng.choice(ACTIVITIES),
        }

    def _hopeless(self) -> list[dict[str, Any]]:
        """Transfers that cannot succeed: two sources are missing, one destination is taken."""
        source, destination = self._storages[0], self._storages[1]
        for storage, path, size in ((source, "/data/wanted", 4321), (destination, "/data/taken", 1234)):
            self._plan.sources[storage.url, path] = (size, storage.add_file(path, size).value)
        files = []
        for there, here, code in (
            ("/data/gone-1", "/copy/gone-1", "MISSING"),
            ("/data/gone-2", "/copy/gone-2", "MISSING"),
            ("/data/wanted", "/data/taken", "ALREADY_EXISTS"),
        ):
            self._plan.hopeless[destination.url, here] = code
            files.append({"sources": [f"{source.url}{there}"], "destinations": [f"{destination.url}{here}"]})
        return files

    # What is known

    def links(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Every link: its name, and its source and destination endpoint as the engine has them."""
        endpoints = [(site.name, f"http://{s.host}") for site, s in zip(SITES, self._storages, strict=True)]
        for (source, source_se), (destination, dest_se) in permutations(endpoints, 2):
            yield f"{source} → {destination}", (source_se, dest_se)

    async def verdict(self) -> Verdict:
        """Compare what the engine says with what the storages have."""
        files = [file for job_id in self._jobs for file in await self.engine.files(job_id)]
        return judge(self._plan, files, self._storages)


@contextlib.asynccontextmanager
async def opened(*, seed: int) -> AsyncIterator[Demo]:
    """A demo in a directory of its own, which is gone afterwards.

    Raises: EngineError: a storage cannot listen on its loopback address.
    """
    with tempfile.TemporaryDirectory(prefix="transfer-engine-demo-") as name:
        async with Demo(Path(name), seed=seed).open() as demo:
            yield demo
