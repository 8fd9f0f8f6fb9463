"""Run the real engine on a scenario, in virtual time, from a seed."""

from __future__ import annotations

import asyncio
import gc
import heapq
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final, Protocol

from transfer_engine.clock import Deps
from transfer_engine.config import Settings
from transfer_engine.limits import LimitTable
from transfer_engine.model import JobId, JobRequest, Transfer
from transfer_engine.places import Link
from transfer_engine.shares import ShareTable
from transfer_engine.simulation import arrivals, namespace
from transfer_engine.simulation.arrivals import Arrival
from transfer_engine.simulation.bound import Demand
from transfer_engine.simulation.fairness import Fairness, Look
from transfer_engine.simulation.integral import Integral
from transfer_engine.simulation.namespace import SimPath
from transfer_engine.simulation.oracle import OnTrace, Oracle, Sharer
from transfer_engine.simulation.result import Result
from transfer_engine.simulation.scenario import Scenario
from transfer_engine.simulation.series import Series
from transfer_engine.simulation.storages import SimulatedStorages
from transfer_engine.store.memory import SIMULATION_URL
from transfer_engine.testing import deps, run_virtual
from transfer_engine.views import JobView
from transfer_engine.wiring import TransferEngine

COLLECT_EVERY: Final = 200_000
"""New objects between two looks for cycles; transfers leave hardly any behind."""


class Mover(Protocol):
    """Whoever moves the files: the engine, or another scheduler to compare it with."""

    async def submit(self, transfers: JobRequest, /) -> JobId:
        """Take a job."""

    async def wait(self, job_id: JobId, /) -> JobView:
        """Wait until it has ended."""

    def active(self) -> Mapping[Link, int]:
        """Link → transfers that hold a slot now."""

    def backlog(self) -> Mapping[tuple[Link, str, str], int]:
        """(link, VO, activity) → transfers that could start if there were room."""


Build = Callable[[SimulatedStorages, Settings, Deps], AbstractAsyncContextManager[Mover]]
"""Makes a mover on these storages."""
OnSample = Callable[[float, int, int], None]
"""Virtual time in seconds, files submitted, files finished."""


def real_engine(storages: SimulatedStorages, settings: Settings, given: Deps) -> TransferEngine:
    """The engine itself, with its queue in memory."""
    return TransferEngine(SIMULATION_URL, settings=settings, adapters=[storages], deps=given, inline=True)


def simulate(
    scenario: Scenario,
    *,
    seed: int | None = None,
    build: Build = real_engine,
    on_trace: OnTrace | None = None,
    on_sample: OnSample | None = None,
) -> Result:
    """Run a scenario to its end.

    Args:
        seed: None: the scenario's own. Equal seeds give equal runs, event for event.
        on_trace: told a line for each event of the storages.
        on_sample: told how far the run is, whenever a sample is taken.
    """
    number = scenario.seed if seed is None else seed
    with _seldom_collected():
        return run_virtual(lambda: _Run(scenario, number, on_trace, on_sample).run(build))


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Python looks for cycles less often: with millions of objects its usual pace takes a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_EVERY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Run:
    """One run; made inside the virtual loop."""

    def __init__(self, scenario: Scenario, seed: int, on_trace: OnTrace | None, on_sample: OnSample | None) -> None:
        self._scenario = scenario
        self._seed = seed
        self._on_sample = on_sample
        self._loop = asyncio.get_running_loop()
        self._settings = scenario.engine_settings()
        self._limits = LimitTable.of(self._settings.limits)
        self._oracle = Oracle(scenario.streams, self._limits, on_trace)
        self._storages = SimulatedStorages(scenario, self._oracle, seed=seed)
        self._demand = Demand(scenario, self._storages.plant)
        self._oracle.on_copied = self._copied
        self._fairness = Fairness(ShareTable.of(self._settings.shares), self._limits, scenario.window_s)
        self._series = Series()
        self._n_jobs = 0
        self._n_files = 0
        self._n_bytes = 0
        self._n_ended = 0
        self._n_failed = 0
        self._fed = False
        self._done = asyncio.Event()

    def _copied(self, at_s: float, source: SimPath, destination: str) -> None:
        lost = self._storages.luck.lost(source, destination)
        self._demand.add(at_s, source.host, destination, source.size_bytes, lost)

    async def run(self, build: Build) -> Result:
        began = time.process_time()
        async with (
            build(self._storages, self._settings, deps(self._loop, self._seed)) as mover,
            asyncio.TaskGroup() as group,
        ):
            main = group.create_task(self._carry_out(mover))
            await asyncio.wait([main], timeout=self._scenario.duration_s or self._scenario.limit_s)
            self._look(mover)
            self._oracle.closed = True
            result = self._result(time.process_time() - began)
            main.cancel()
        return result

    async def _carry_out(self, mover: Mover) -> None:
        """Feed and watch until every job has ended."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(mover))
            await self._feed(mover, group)
            self._fed = True
            self._check_done()
            await self._done.wait()
            watching.cancel()

    async def _feed(self, mover: Mover, group: asyncio.TaskGroup) -> None:
        """Submit what arrives when it arrives."""
        began = self._loop.time()
        for arrival in self._arrivals():
            wait_s = began + arrival.at_s - self._loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            job_id = await mover.submit(self._request(arrival))
            self._n_jobs += 1
            group.create_task(self._follow(mover, job_id))

    def _arrivals(self) -> Iterator[Arrival]:
        every = [
            arrivals.arrivals(stream, index, self._seed, self._scenario.job_files_max)
            for index, stream in enumerate(self._scenario.streams)
        ]
        return heapq.merge(*every, key=lambda arrival: (arrival.at_s, arrival.stream))

    def _request(self, arrival: Arrival) -> JobRequest:
        stream, now = self._scenario.streams[arrival.stream], self._loop.time()
        transfers = []
        for number, (source, destination, size) in enumerate(arrival.files, arrival.first):
            self._n_bytes += size
            transfers.append(
                Transfer(
                    sources=(namespace.url(source, source, stream.name, number, size),),
                    destination=namespace.url(destination, source, stream.name, number, size),
                    size_bytes=size,
                    activity=stream.activity,
                )
            )
        self._n_files += len(transfers)
        self._oracle.arrived(stream.name, arrival.first, now, (destination for _, destination, _ in arrival.files))
        return JobRequest(transfers=tuple(transfers), vo=stream.vo, priority=stream.priority)

    async def _follow(self, mover: Mover, job_id: JobId) -> None:
        job = await mover.wait(job_id)
        self._n_ended += 1
        self._n_failed += job.n_failed + job.n_canceled
        self._check_done()

    def _check_done(self) -> None:
        if self._fed and self._n_ended == self._n_jobs:
            self._done.set()

    async def _watch(self, mover: Mover) -> None:
        while True:
            await asyncio.sleep(self._scenario.sample_s)
            self._look(mover)
            if self._on_sample is not None:
                self._on_sample(self._loop.time(), self._n_files, sum(self._oracle.link_files.values()))

    def _look(self, mover: Mover) -> None:
        """Take one sample."""
        moving = self._storages.traffic.moved()
        by_sharer: dict[Sharer, float] = {}
        by_link: dict[tuple[str, str], float] = dict(self._oracle.link_bytes)
        for (link, stream_name), n_bytes in moving.items():
            key = self._oracle.sharer(stream_name, link[1])
            by_sharer[key] = by_sharer.get(key, 0.0) + n_bytes
            by_link[link] = by_link.get(link, 0.0) + n_bytes
        look = Look(
            now=self._loop.time(),
            backlog=mover.backlog(),
            active=mover.active(),
            services=self._oracle.services,
            moving=by_sharer,
            limits=getattr(mover, "limits", dict)(),
            emptied=frozenset(self._oracle.emptied),
        )
        self._oracle.emptied.clear()
        self._oracle.slots(look.active)
        self._fairness.look(look)
        self._series.add(look.now, self._figures(look, by_link))

    def _figures(self, look: Look, by_link: Mapping[tuple[str, str], float]) -> dict[str, float]:
        found: dict[str, float] = {}

        def add(name: str, value: float) -> None:
            found[name] = found.get(name, 0) + value

        for link, n in look.active.items():
            source, destination = _host(link.source_se), _host(link.dest_se)
            add(f"active_out {source}", n)
            add(f"active_in {destination}", n)
            add(f"active_link {source} > {destination}", n)
        for (_, vo, activity), n in look.backlog.items():
            add(f"waiting {vo} / {activity}", n)
        for (source, destination), total in by_link.items():
            add(f"goodput_bytes_s {source} > {destination}", total)
        for key in look.services:
            account = look.account(key)
            add(f"service_slots {key[1]} / {key[2]}", account.slot_s)
            add(f"service_bytes_s {key[1]} / {key[2]}", account.n_bytes)
        return found

    def _result(self, cpu_s: float) -> Result:
        return Result(
            scenario=self._scenario.name,
            seed=self._seed,
            ended_s=self._loop.time(),
            complete=self._done.is_set(),
            n_jobs=self._n_jobs,
            n_files=self._n_files,
            n_bytes=self._n_bytes,
            n_finished=sum(self._oracle.link_files.values()),
            n_failed=self._n_failed,
            first_s=min(self._demand.first_s, self._loop.time()),
            bound=self._demand.bound(self._limits),
            utilisation=self._utilisation(),
            fairness=self._fairness,
            oracle=self._oracle,
            series=self._series,
            cpu_s=cpu_s,
        )

    def _utilisation(self) -> dict[str, float]:
        plant, first_s, end_s = self._storages.plant, self._demand.first_s, self._oracle.last_end_s
        found: dict[str, float] = {}
        for name, capacity in plant.capacities.items():
            varying = plant.varying.get(name)
            integral = Integral(capacity.bytes_s) if varying is None else Integral.of(varying)
            could = integral.until(end_s) - integral.until(first_s) if end_s > first_s else 0.0
            did = sum(n for link, n in self._oracle.link_bytes.items() if name in plant.uses(*link))
            if did and could > 0:
                found[name] = did / could
        return found


def _host(se: str) -> str:
    return se.partition("://")[2]
