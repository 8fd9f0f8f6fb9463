"""Users who change their minds: every write of the engine at random moments, until everything has ended."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.sim.crashes import CHARACTERS, Death, Life, World
from transfer_engine import FileState, JobId, JobOptions, JobRequest, JobState, JobType, Transfer
from transfer_engine.engine import Engine
from transfer_engine.states import JOB_TERMINAL, TERMINAL, roll_up
from transfer_engine.store.api import JobFilter
from transfer_engine.testing import EPOCH, run_virtual

pytestmark = pytest.mark.slow
HOSTS = list(CHARACTERS)


class Users:
    """Submit, cancel, hurry; all by chance."""

    def __init__(self, engine: Engine, world: World, rng: random.Random) -> None:
        self.engine = engine
        self.world = world
        self.rng = rng
        self.jobs: list[JobId] = []
        self.numbers = itertools.count()

    def _source(self) -> str:
        n = next(self.numbers)
        size = int(10 ** self.rng.uniform(3, 7.8))
        self.world.storages.storage("sim://source").add(f"/{n}", size_bytes=size, seed=n)
        return f"sim://source/{n}"

    def _request(self) -> JobRequest:
        rng = self.rng
        kind = rng.choice((JobType.NORMAL, JobType.REPLICAS, JobType.MULTIHOP))
        deadline = EPOCH + asyncio.get_running_loop().time() + rng.uniform(1, 200) if rng.random() < 0.3 else None
        options = JobOptions(deadline_at=deadline, overwrite=rng.random() < 0.5, retries_max=rng.randint(0, 5))
        if kind is JobType.MULTIHOP:
            n = next(self.numbers)
            places = [self._source(), *(f"sim://{host}/h{n}" for host in rng.sample(HOSTS, 3))]
            transfers = tuple(Transfer.of(*pair) for pair in itertools.pairwise(places))
        else:
            transfers = tuple(
                Transfer(
                    sources=(
                        self._source(),
                        *([self._source(), "sim://source/gone"] if kind is JobType.REPLICAS else ()),
                    ),
                    # Few names: jobs get into each other's way.
                    destination=f"sim://{rng.choice(HOSTS)}/d{rng.randint(0, 40)}",
                )
                for _ in range(rng.randint(1, 4))
            )
        return JobRequest(
            transfers=transfers, options=options, job_type=kind, priority=rng.randint(1, 5), vo=rng.choice(("a", "b"))
        )

    async def act(self) -> None:
        choice = self.rng.random()
        if choice < 0.5 or not self.jobs:
            self.jobs.append(await self.engine.submit(self._request()))
            return
        job_id = self.rng.choice(self.jobs[-8:])
        if choice < 0.65:
            await self.engine.cancel(job_id)
        elif choice < 0.85:
            files = await self.engine.files(job_id)
            await self.engine.cancel(job_id, [f.file_id for f in files if self.rng.random() < 0.4])
        else:
            await self.engine.set_priority(job_id, self.rng.randint(1, 5))


async def check(engine: Engine, jobs: list[JobId]) -> bool:
    """What holds at every moment; whether everything has ended."""
    over = True
    for job_id in jobs:
        job, files = (await engine.reader.jobs_by_id([job_id], files=True))[job_id]
        assert (job.finished_at is not None) == (job.state in JOB_TERMINAL)
        assert job.n_finished + job.n_failed + job.n_canceled <= job.n_files
        if job.state in JOB_TERMINAL:
            expected = roll_up(
                job.job_type,
                n_files=job.n_files,
                n_finished=job.n_finished,
                n_failed=job.n_failed,
                n_canceled=job.n_canceled,
                begun=True,
            )
            assert job.state is expected
        finished = {f.file_index for f in files if f.state is FileState.FINISHED}
        assert job.n_finished == len(finished)
        quiet = all(f.state in TERMINAL | {FileState.NOT_USED} for f in files)
        assert not quiet or job.state in JOB_TERMINAL, [f.state for f in files]
        over = over and quiet
    return over


@pytest.mark.parametrize("seed", range(4))
def test_everything_ends_whatever_users_do(tmp_path: Path, seed: int) -> None:
    async def main() -> Counter[JobState]:
        world = World(tmp_path / "t.db", seed)
        rng = random.Random(seed)
        engine = world.engine(Life(Death()))
        async with engine:
            users = Users(engine, world, rng)
            for _ in range(150):
                await users.act()
                await asyncio.sleep(rng.choice((0, 0, 0.001, 1, 5, 20)))
            async with asyncio.timeout(50_000):
                while not await check(engine, users.jobs):
                    await asyncio.sleep(30)
            await asyncio.sleep(60)
            assert engine.ready
            assert not engine.running()
            assert all(link.active == 0 and link.ready == 0 for link in engine.links())
            assert not [entry for entry in world.storages.journal if entry.operation == "conflict"]
            return Counter([(await engine.status(job_id)).state for job_id in users.jobs])

    ends = run_virtual(main)
    assert ends[JobState.FINISHED]
    assert ends[JobState.CANCELED]


@pytest.mark.parametrize("seed", range(3))
def test_everything_ends_whatever_users_do_though_engines_die(tmp_path: Path, seed: int) -> None:
    async def main() -> None:
        world = World(tmp_path / "t.db", seed)
        rng = random.Random(seed)
        users = Users(world.engine(Life(Death())), world, rng)

        async def act() -> None:
            while True:
                await users.act()
                await asyncio.sleep(rng.choice((0, 0.001, 1, 5)))

        for _ in range(12):
            life = Life(Death(kind=rng.choice(("store", "adapter")), k=rng.randint(10, 80), after=rng.random() < 0.5))
            users.engine = world.engine(life)
            try:
                await users.engine.__aenter__()
            except asyncio.CancelledError:
                continue
            task = asyncio.get_running_loop().create_task(act())
            await life.over.wait()
            await world._bury(users.engine, task)
        async with world.engine(Life(Death())) as engine, asyncio.timeout(50_000):
            # Those too whose acceptance nobody heard of.
            jobs = [job.job_id for job in await engine.reader.jobs(JobFilter(limit=10_000))]
            assert set(users.jobs) <= set(jobs)
            while not await check(engine, jobs):
                await asyncio.sleep(30)
            await asyncio.sleep(60)
            assert engine.ready
            assert not engine.running()
        assert not [entry for entry in world.storages.journal if entry.operation == "conflict"]

    run_virtual(main)
