"""The demo: model storages with some faults, the engine, the job service, a mixed load, and the truth about it.

Everything runs in one event loop on loopback. Submissions go through the service's REST interface as
any FTS client's would; whether the result is right is asked of the storages, not of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from transfer_engine.config import load
from transfer_engine.demo.faults import Fault, Faults, Rule
from transfer_engine.demo.storage import ModelStorage
from transfer_engine.model import FileView, JobId
from transfer_engine.service.server import serve
from transfer_engine.states import JOB_TERMINAL, FileState
from transfer_engine.wiring import TransferEngine

MB: Final = 1_000_000
JOB_FILES: Final = 20
ACTIVITIES: Final = ("production", "user", "tests")

MUST_FAIL: Final = 3
"""Transfers of the demo that cannot succeed."""
CHANCES: Final = {
    Fault.UNAVAILABLE: 0.03,
    Fault.FAILURE_LINE: 0.03,
    Fault.CORRUPT: 0.03,
    Fault.SHORT: 0.02,
    Fault.CUT_DONE: 0.02,
    Fault.CUT_PARTIAL: 0.02,
}
"""Of the first COPY to each file; the second one works."""


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
    Site("DELTA", "xrootd", 25 * MB),
)
SETTINGS: Final[dict[str, Any]] = {
    "limits": {"link": 3, "endpoint_inbound": 8, "endpoint_outbound": 8},
    "retry": {"delay_s": 1.0, "retries_max": 4},
    "transfer": {"quarantine_s": 2.0},
    "service": {"host": "127.0.0.1", "port": 0, "grace_s": 0.0},
    "tls": {"discover": False},
}


@dataclass(slots=True)
class Verdict:
    """What the storages' own records say in the end."""

    states: Counter[str] = field(default_factory=Counter)
    n_bytes: int = 0
    n_attempts: int = 0
    n_faults: int = 0
    failed: list[FileView] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Empty when every state is true and nothing is where it should not be."""


class Demo:
    """Storages, engine and service, started together and ended together."""

    def __init__(self, directory: Path, *, n_files: int, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - a demo that can be repeated
        self.n_files = n_files
        self.n_submitted = 0
        self.storages = [
            ModelStorage(
                name=site.name,
                kind=site.kind,
                seed=seed + number,
                host=f"127.0.0.{number + 2}",
                bandwidth_bytes_s=site.bandwidth_bytes_s,
                marker_period_s=1.0,
                faults=Faults(
                    rules=(Rule(fault=Fault.NO_DIGEST, method="HEAD", path="/data/*0", times=3),),
                    rates=CHANCES,
                    attempts_max=1,
                    zombie_s=0.5,
                ),
            )
            for number, site in enumerate(SITES)
        ]
        settings = load(None, {**SETTINGS, "database": f"sqlite:///{directory / 'demo.db'}"})
        self.engine = TransferEngine(settings=settings)
        self._settings = settings
        self.url = ""
        self.jobs: list[JobId] = []
        self._expected: dict[tuple[str, str], tuple[int, str]] = {}
        """(storage, path) → size and adler32 of what may be there in the end."""
        self._foreign: dict[tuple[str, str], tuple[int, str]] = {}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Demo]:
        """Start everything; leaving ends everything."""
        async with contextlib.AsyncExitStack() as stack:
            for storage in self.storages:
                await stack.enter_async_context(storage)
            await stack.enter_async_context(self.engine)
            ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            service = asyncio.get_running_loop().create_task(
                serve(self.engine, self._settings.service, on_ready=ready.set_result)
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

    async def submit(self, n: int) -> None:
        """Submit `n` more files through REST, in jobs of 20."""
        async with aiohttp.ClientSession() as session:
            for first in range(0, n, JOB_FILES):
                files = [self._file() for _ in range(min(JOB_FILES, n - first))]
                await self._post(session, files)
                # The first ones shall move while the others are still being submitted.
                await asyncio.sleep(0)

    async def submit_failures(self) -> None:
        """A few transfers that cannot succeed: two sources are missing, one destination is taken."""
        taken = self.storages[1]
        there = taken.add_file("/data/taken", 1234)
        self._foreign[taken.url, "/data/taken"] = (1234, there.value)
        good = self.storages[0].add_file("/data/wanted", 4321)
        files: list[dict[str, Any]] = [
            {"sources": [f"{self.storages[0].url}/data/gone-{n}"], "destinations": [f"{taken.url}/copy/gone-{n}"]}
            for n in (1, 2)
        ]
        source = f"{self.storages[0].url}/data/wanted"
        files.append({"sources": [source], "destinations": [f"{taken.url}/data/taken"], "checksum": f"{good}"})
        async with aiohttp.ClientSession() as session:
            await self._post(session, files)

    async def _post(self, session: aiohttp.ClientSession, files: list[dict[str, Any]]) -> None:
        params = {"verify_checksum": "both", "priority": self._rng.choice((2, 3, 3, 4))}
        async with session.post(f"{self.url}/jobs", json={"files": files, "params": params}) as answer:
            value = await answer.json()
            if answer.status != 200:  # noqa: PLR2004 - FTS's only success
                msg = f"the service refused the demo's own job: {value}"
                raise RuntimeError(msg)
        self.jobs.append(JobId(value["job_id"]))
        self.n_submitted += len(files)

    def _file(self) -> dict[str, Any]:
        number = self.n_submitted + len(self._expected)
        source, destination = self._rng.sample(self.storages, 2)
        # Many small files, a few large ones, as in a data lake.
        size = int(10 ** self._rng.triangular(4.0, 7.4, 6.6))
        checksum = source.add_file(f"/data/{number:06d}", size)
        self._expected[destination.url, f"/copy/{number:06d}"] = (size, checksum.value)
        return {
            "sources": [f"{source.url}/data/{number:06d}"],
            "destinations": [f"{destination.url}/copy/{number:06d}"],
            "filesize": size,
            "checksum": str(checksum),
            "activity": self._rng.choice(ACTIVITIES),
        }

    # What is known

    def name_of(self, endpoint: str) -> str:
        """The demo's name of an endpoint (`http://127.0.0.2` → ALPHA)."""
        for site, storage in zip(SITES, self.storages, strict=True):
            if storage.url.rpartition(":")[0] == endpoint:
                return site.name
        return endpoint

    async def ended(self) -> bool:
        """Whether every job has ended."""
        for job_id in self.jobs:
            if (await self.engine.status(job_id)).state not in JOB_TERMINAL:
                return False
        return True

    async def verdict(self) -> Verdict:
        """Compare what the engine says with what the storages have."""
        verdict = Verdict()
        there = {(s.url, path): what for s in self.storages for path, what in s.files().items()}
        wanted: dict[tuple[str, str], tuple[int, str]] = dict(self._foreign)
        for job_id in self.jobs:
            for file in await self.engine.files(job_id):
                verdict.states[file.state.value] += 1
                verdict.n_attempts += file.n_failed + (file.state is FileState.FINISHED)
                if file.state is FileState.FINISHED:
                    place = _place(file.dest_url)
                    wanted[place] = self._expected[place]
                    verdict.n_bytes += file.seen_bytes or 0
                elif file.state is FileState.FAILED:
                    verdict.failed.append(file)
        verdict.n_faults = sum(storage.n_faults for storage in self.storages)
        verdict.problems = _compare(wanted, there, self.storages)
        return verdict


def _place(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path}"


def _compare(
    wanted: dict[tuple[str, str], tuple[int, str]],
    there: dict[tuple[str, str], tuple[int, str]],
    storages: Sequence[ModelStorage],
) -> list[str]:
    """Everything that is not as it must be, one line each."""
    problems = [
        f"{url}{path} should be there and right"
        for (url, path), what in wanted.items()
        if there.get((url, path)) != what
    ]
    problems += [
        f"{url}{path} is there, though no transfer to it finished"
        for url, path in there
        if path.startswith("/copy/") and (url, path) not in wanted
    ]
    problems += [f"{s.url}{path} was left half-written" for s in storages for path in s.partial_files()]
    problems += [f"{s.url}: {entry}" for s in storages for entry in s.journal.violations()]
    return problems


@contextlib.asynccontextmanager
async def opened(*, n_files: int, seed: int) -> AsyncIterator[Demo]:
    """A demo in a directory of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="transfer-engine-demo-") as name:
        async with Demo(Path(name), n_files=n_files, seed=seed).open() as demo:
            yield demo
