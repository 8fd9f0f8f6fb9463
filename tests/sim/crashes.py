"""Engines that die and storages that survive them: the harness of the crash tests, and their oracle.

A `Life` is one process. When it dies, nothing that it still does reaches the store or a storage, and its
connections are gone: copies in flight are cancelled, which each storage takes in its own way. The next
life opens the same database file. What really happened is read from the storages alone.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from protocols.api import Capabilities, CopyEnd, CopyRequest, OnMarker, Stat
from protocols.registry import Registry
from protocols.scripted import Lie, Lost, Rule, ScriptedAdapter, SimFile
from protocols.scripted_storage import split_url
from transfer_engine import testing
from transfer_engine.attempt import Tools, anonymous
from transfer_engine.config import Settings
from transfer_engine.dispatcher import Rules
from transfer_engine.engine import Engine
from transfer_engine.errors import StoreUnavailable
from transfer_engine.health import Health
from transfer_engine.limits import LimitTable
from transfer_engine.model import JobId, JobRequest
from transfer_engine.optimizer import Optimizer
from transfer_engine.retry import RetryPolicy
from transfer_engine.shares import ShareTable
from transfer_engine.states import JOB_TERMINAL, TERMINAL, FileState, JobType
from transfer_engine.store.sqlite import SqliteStore
from transfer_engine.views import FileView

T = TypeVar("T")

SETTINGS = Settings(
    limits={"link": 6, "node": 20},  # type: ignore[arg-type]
    retry={"retries_max": 30, "few_max": 30, "delay_max_s": 60.0},  # type: ignore[arg-type]
)
CHARACTERS = {
    "zombie": (Rule(match="sim://zombie", operations=frozenset({"copy"}), rate_bytes_s=1e6, cancel_lag_s=math.inf),),
    "laggard": (Rule(match="sim://laggard", operations=frozenset({"copy"}), rate_bytes_s=1e6, cancel_lag_s=9.0),),
    "prompt": (Rule(match="sim://prompt", operations=frozenset({"copy"}), rate_bytes_s=1e6, cancel_lag_s=0.0),),
    "liar": tuple(
        Rule(match="sim://liar", operations=frozenset({"copy"}), rate_bytes_s=1e6, chance=chance, **how)
        for chance, how in (
            (0.1, {"lie": Lie.CORRUPT}),
            (0.1, {"lie": Lie.SHORT}),
            (0.05, {"lie": Lie.NOTHING}),
            (0.1, {"lost": Lost.GOES_ON}),
            (0.1, {"lost": Lost.STOPPED}),
            (0.1, {"lost": Lost.COMPLETED}),
            (1.0, {}),
        )
    ),
}
"""How a storage takes the loss of a copy's connection, and what else it does."""
FAULTLESS = ("zombie", "laggard", "prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """When a life ends: at the k-th call of a kind, before or after it had its effect, or after some time."""

    kind: str = "time"
    k: int = 0
    after: bool = False
    after_s: float | None = None


class Life:
    """Whether the process still lives."""

    def __init__(self, death: Death) -> None:
        self.death = death
        self.dead = False
        self.over = asyncio.Event()
        self.calls: Counter[str] = Counter()
        self.on_death: list[Callable[[], None]] = []

    async def call(self, kind: str, act: Callable[[], Awaitable[Any]]) -> Any:
        """Do something that leaves a trace outside, unless death comes first; or lose its answer."""
        self._check()
        self.calls[kind] += 1
        fatal = self.death.kind == kind and self.calls[kind] == self.death.k
        if fatal and not self.death.after:
            self.die()
        self._check()
        try:
            result = await act()
        finally:
            if fatal:
                self.die()
            self._check()
        return result

    def die(self) -> None:
        if not self.dead:
            self.dead = True
            for act in self.on_death:
                act()
            self.over.set()

    def _check(self) -> None:
        if self.dead:
            raise asyncio.CancelledError


class MortalStore:
    """A store that can be reached by the living only."""

    def __init__(self, inner: SqliteStore, life: Life, rng: random.Random, outage: float = 0.0) -> None:
        self.inner = inner
        self._life = life
        self._rng = rng
        self._outage = outage
        life.on_death.append(lambda: inner._writer._pending.clear())  # noqa: PLW0108 - the list is replaced now and then

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def call(*args: Any, **more: Any) -> Any:
            if self._outage and self._rng.random() < self._outage:
                msg = "planned"
                raise StoreUnavailable(msg)
            return await self._life.call("store", lambda: method(*args, **more))

        return call

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        if self._life.dead:
            # A process that is gone writes nothing any more; the kernel drops its locks.
            self.inner._writer._close()
            self.inner._drop_lock()
        else:
            await self.inner.close()


class MortalAdapter:
    """Storages that can be reached by the living only."""

    def __init__(self, inner: ScriptedAdapter, life: Life) -> None:
        self._inner = inner
        self._life = life
        self.schemes = inner.schemes

    def capabilities(self, url: str) -> Capabilities:
        return self._inner.capabilities(url)

    async def stat(self, url: str, **more: Any) -> Stat:
        found: Stat = await self._life.call("adapter", lambda: self._inner.stat(url, **more))
        return found

    async def delete(self, url: str, **more: Any) -> bool:
        found: bool = await self._life.call("adapter", lambda: self._inner.delete(url, **more))
        return found

    async def make_parents(self, url: str, **more: Any) -> None:
        await self._life.call("adapter", lambda: self._inner.make_parents(url, **more))

    async def copy(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        end: CopyEnd = await self._life.call("adapter", lambda: self._inner.copy(request, on_marker))
        return end

    async def aclose(self) -> None:
        """The storages stay."""


class WatchedStorages(ScriptedAdapter):
    """Notes it when a file is deleted under the hands of its writer."""

    async def delete(self, url: str, **more: Any) -> bool:
        storage, path = self._at(url)
        if storage.writer(path, self.now()) is not None:
            self.note("conflict", url)
        return await super().delete(url, **more)


async def _insist(ask: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(1)


@dataclass
class World:
    """Storages, a database file, and what a client wants."""

    path: Path
    seed: int = 0
    jobs: list[JobRequest] = field(default_factory=list)
    to_cancel: set[int] = field(default_factory=set)
    """Places in `jobs` that the client cancels some time after their acceptance."""
    settings: Settings = SETTINGS
    store_class: type[SqliteStore] = SqliteStore
    outage: float = 0.0
    """Probability that the store cannot answer a call."""
    n_lives: int = 0
    accepted: dict[int, JobId] = field(default_factory=dict)
    canceled: set[int] = field(default_factory=set)
    foreign: dict[str, SimFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.storages = WatchedStorages(rng=random.Random(self.seed))
        for host in ("source", *CHARACTERS):
            self.storages.storage(f"sim://{host}")
        for rules in CHARACTERS.values():
            for rule in rules:
                self.storages.add_rule(rule)

    def put_foreign(self, url: str) -> None:
        """Somebody else's file, at a destination."""
        endpoint, path = split_url(url)
        self.foreign[url] = self.storages.storage(endpoint).add(path, size_bytes=777, seed=99)

    def engine(self, life: Life) -> Engine:
        self.n_lives += 1
        deps = testing.deps(asyncio.get_running_loop(), self.seed * 10_000 + self.n_lives)
        inner = self.store_class(f"sqlite:///{self.path}", incarnation=deps.new_id(), now=deps.clock.now, inline=True)
        store = MortalStore(inner, life, self.rng, self.outage)
        registry = Registry([MortalAdapter(self.storages, life)])  # type: ignore[list-item]
        settings = self.settings
        return Engine(
            store=store,
            reader=store,
            tools=Tools(adapters=registry, credentials=anonymous, settings=settings.transfer, clock=deps.clock),
            rules=Rules(
                limits=LimitTable.of(settings.limits),
                shares=ShareTable.of(settings.shares),
                retry=RetryPolicy(settings.retry),
                health=Health(settings.breaker, deps.rng),
                optimizer=Optimizer(settings.optimizer),
                events_keep=settings.events.keep,
            ),
            deps=deps,
            schemes=registry.schemes,
        )

    async def live(self, death: Death, *, pause_s: float = 1.0, limit_s: float = 100_000.0) -> bool:
        """One life; True when it ended by its death, False when everything had been done before."""
        life = Life(death)
        engine = self.engine(life)
        try:
            await engine.__aenter__()
        except asyncio.CancelledError:
            assert life.dead
            return True
        except StoreUnavailable:
            assert self.outage
            return True
        store: MortalStore = engine._store  # type: ignore[assignment]
        loop = asyncio.get_running_loop()
        client = loop.create_task(self._client(engine, pause_s))
        done = loop.create_task(self._until_done(store.inner, client))
        over = loop.create_task(life.over.wait())
        await asyncio.wait({done, over}, timeout=death.after_s or limit_s, return_when=asyncio.FIRST_COMPLETED)
        died = not done.done() or life.dead
        if not died:
            await asyncio.sleep(30)
            assert not engine.running(), "everything has ended, but something is still being driven"
            assert all(link.active == 0 and link.ready == 0 for link in engine.links())
        assert died is False or life.dead or death.after_s is not None, "this life goes on for ever"
        life.die()
        await self._bury(engine, client, done, over)
        return died

    @staticmethod
    async def _bury(engine: Engine, *tasks: asyncio.Task[Any]) -> None:
        loop_task = engine._loop_task
        assert loop_task is not None
        for task in (*tasks, loop_task, *engine._write._tasks):
            task.cancel()
        await asyncio.wait({*tasks, loop_task, *engine._write._tasks})
        for task in (*tasks, loop_task):
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]
        await engine._store.close()

    async def _client(self, engine: Engine, pause_s: float) -> None:
        """Submit what is not known to be accepted, cancel what is not known to be cancelled."""
        for place, request in enumerate(self.jobs):
            if place not in self.accepted:
                if pause_s:
                    await asyncio.sleep(self.rng.random() * 2 * pause_s)
                self.accepted[place] = await _insist(lambda request=request: engine.submit(request))  # type: ignore[misc]
            if place in self.to_cancel - self.canceled:
                await asyncio.sleep(self.rng.random() * 10 * pause_s)
                await _insist(lambda place=place: engine.cancel(self.accepted[place]))  # type: ignore[misc]
                self.canceled.add(place)

    async def _until_done(self, store: SqliteStore, client: asyncio.Task[None]) -> None:
        await client
        while True:
            files = [file for job_id in self.accepted.values() for file in await store.files(job_id)]
            if all(file.state in TERMINAL | {FileState.NOT_USED} for file in files):
                return
            await asyncio.sleep(5)

    # The oracle

    async def verdict(self) -> list[str]:
        """Everything that went wrong, by what the storages hold; empty when nothing did."""
        life = Life(Death())
        engine = self.engine(life)
        store: MortalStore = engine._store  # type: ignore[assignment]
        await store.open()
        try:
            return await self._judge(store.inner)
        finally:
            await store.inner.close()

    async def _judge(self, store: SqliteStore) -> list[str]:
        wrong = [f"two writers at {e.url} ({e.at_s:.0f} s)" for e in self.storages.journal if e.operation == "conflict"]
        for url, file in self.foreign.items():
            endpoint, path = split_url(url)
            if self.storages.storage(endpoint).files().get(path) != file:
                wrong.append(f"a file of somebody else is gone: {url}")
        n_files = 0
        for place, job_id in self.accepted.items():
            job = await store.job(job_id)
            if job.state not in JOB_TERMINAL:
                wrong.append(f"job {place} is {job.state}")
            files = await store.files(job_id)
            n_files += len(files)
            if len(files) != sum(len(transfer.sources) for transfer in self.jobs[place].transfers):
                wrong.append(f"job {place} has {len(files)} transfers")
            if job.job_type is JobType.REPLICAS:
                wrong += self._judge_replicas(place, files)
                continue
            by_state = Counter(file.state for file in files)
            counts = (by_state[FileState.FINISHED], by_state[FileState.FAILED], by_state[FileState.CANCELED])
            if counts != (job.n_finished, job.n_failed, job.n_canceled):
                wrong.append(f"job {place} counts {counts}, says {job.n_finished, job.n_failed, job.n_canceled}")
            for file in files:
                wrong += self._judge_file(place, file)
        if n_files != sum(count.n for count in await store.counts()):
            wrong.append("the states do not add up to what was accepted")
        if len(self.accepted) != len(self.jobs):
            wrong.append("not every job was accepted")
        return wrong

    def _judge_replicas(self, place: int, files: list[FileView]) -> list[str]:
        """Replicas whose source is gone fail, the first good one delivers, those behind it stay unused."""
        good = [file for file in files if file.state is FileState.FINISHED]
        wrong = [problem for file in good for problem in self._judge_file(place, file)]
        if place in self.to_cancel:
            return wrong
        indices = {file.file_index for file in files}
        if sorted(file.file_index for file in good) != sorted(indices):
            wrong.append(f"job {place}: of {len(indices)} files {len(good)} have one finished replica")
        for file in files:
            missing = file.failure is not None and file.failure["code"] == "MISSING"
            if not (file in good or file.state is FileState.NOT_USED or missing):
                wrong.append(f"job {place}: replica {file.source_url} is {file.state}: {file.reason}")
        return wrong

    def _judge_file(self, place: int, file: FileView) -> list[str]:
        name = f"transfer {file.file_id} → {file.dest_url}"
        if file.state not in TERMINAL:
            return [f"{name} is {file.state}"]
        endpoint, path = split_url(file.dest_url)
        there = self.storages.storage(endpoint).files().get(path)
        if file.dest_url in self.foreign:
            return [f"{name} is {file.state}, but a foreign file was in the way"] * (file.state is FileState.FINISHED)
        if place in self.to_cancel:
            return []
        if file.state is not FileState.FINISHED:
            return [f"{name} is {file.state}: {file.reason}"]
        origin = self.storages.storage(file.source_se).files()[split_url(file.source_url)[1]]
        if there != origin:
            return [f"{name} is FINISHED with a wrong file: {there}"]
        if any(host in endpoint for host in FAULTLESS) and file.n_failed:
            return [f"{name} was charged with {file.n_failed} failures that the crashes made"]
        return []
