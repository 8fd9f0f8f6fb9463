"""Engines die at any moment; accepted jobs end rightly all the same."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from tests.sim.crashes import CHARACTERS, FAULTLESS, Death, World
from transfer_engine import JobOptions, JobRequest, JobType, Transfer
from transfer_engine.testing import run_virtual

pytestmark = pytest.mark.slow
N_CRASHES = 25


def crowded(path: Path, seed: int) -> World:
    """Sixty jobs on storages of every character, some cancelled, some with foreign files in their way."""
    world = World(path / "transfers.db", seed, outage=0.02 if seed % 2 else 0.0)
    rng = random.Random(seed)
    hosts = list(CHARACTERS)
    for n in range(40):
        transfers = []
        for m in range(4):
            size = int(10 ** rng.uniform(3, 8.2))
            world.storages.storage("sim://source").add(f"/f/{n}/{m}", size_bytes=size, seed=n * 10 + m)
            destination = f"sim://{hosts[(n + m) % len(hosts)]}/d/{n}/{m}"
            if n % 5 == 2 and m == 1:
                world.put_foreign(destination)
            transfers.append(Transfer.of(f"sim://source/f/{n}/{m}", destination))
        world.jobs.append(JobRequest(transfers=tuple(transfers), key=f"job-{n}", vo=f"vo{n % 2}"))
        if n % 4 == 0:
            world.jobs.append(replicas(world, n, FAULTLESS[n // 4 % 3]))
            world.jobs.append(hops(world, n, rng.sample(hosts, 3)))
    world.to_cancel = {4, 9, 18, 27}
    return world


def replicas(world: World, n: int, host: str) -> JobRequest:
    """Two files; of each the first replica is gone."""
    transfers = []
    for m in range(2):
        for place in "bc":
            world.storages.storage("sim://source").add(f"/r/{n}/{m}{place}", size_bytes=5_000_000, seed=n + m)
        sources = tuple(f"sim://source/r/{n}/{m}{place}" for place in "abc")
        transfers.append(Transfer(sources=sources, destination=f"sim://{host}/r/{n}/{m}"))
    return JobRequest(transfers=tuple(transfers), key=f"replicas-{n}")


def hops(world: World, n: int, through: list[str]) -> JobRequest:
    """A route through three storages."""
    world.storages.storage("sim://source").add(f"/h/{n}", size_bytes=5_000_000, seed=n)
    places = [f"sim://{host}/h/{n}" for host in ("source", *through)]
    transfers = tuple(Transfer.of(*pair) for pair in itertools.pairwise(places))
    return JobRequest(transfers=transfers, key=f"hops-{n}", job_type=JobType.MULTIHOP)


def some_death(rng: random.Random) -> Death:
    kind = rng.choice(("time", "store", "adapter"))
    if kind == "time":
        return Death(after_s=rng.uniform(0.01, 60))
    return Death(kind=kind, k=rng.randint(1, 60), after=rng.random() < 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_accepted_jobs_end_rightly_however_often_the_engine_dies(tmp_path: Path, seed: int) -> None:
    async def main() -> list[str]:
        world = crowded(tmp_path, seed)
        rng = random.Random(seed)
        n_deaths = 0
        for _ in range(N_CRASHES):
            n_deaths += await world.live(some_death(rng), pause_s=8.0)
        assert n_deaths >= 20
        # A database that cannot be read when the engine opens it ends a life too.
        while await world.live(Death()):
            assert world.outage
            n_deaths += 1
            assert n_deaths < 2 * N_CRASHES
        return await world.verdict()

    assert run_virtual(main) == []


def single(path: Path, host: str) -> World:
    world = World(path)
    world.storages.storage("sim://source").add("/f", size_bytes=7_000_000, seed=5)
    world.jobs.append(JobRequest(transfers=(Transfer.of("sim://source/f", f"sim://{host}/f"),), key="k"))
    return world


def survives(path: Path, host: str, *deaths: Death, cancel: bool = False) -> bool:
    """Whether any of the deaths came; the last life ends everything."""

    path.unlink(missing_ok=True)

    async def main() -> bool:
        world = single(path, host)
        if cancel:
            world.to_cancel = {0}
        died = False
        for death in deaths:
            died = await world.live(death, pause_s=0.5 if cancel else 0) or died
        await world.live(Death(), pause_s=0)
        assert await world.verdict() == []
        if cancel:
            assert world.storages.storage(f"sim://{host}").files() in ({}, {"/f": world_file(world)})
        return died

    return run_virtual(main)


def world_file(world: World) -> object:
    return world.storages.storage("sim://source").files()["/f"]


@pytest.mark.parametrize("host", FAULTLESS)
@pytest.mark.parametrize("kind", ["store", "adapter"])
@pytest.mark.parametrize("after", [False, True])
def test_death_at_every_call_of_one_transfer(tmp_path: Path, host: str, kind: str, after: bool) -> None:
    k = 0
    while survives(tmp_path / "t.db", host, Death(kind=kind, k=(k := k + 1), after=after)):
        assert k < 50
    assert k > 4


@pytest.mark.parametrize("host", FAULTLESS)
def test_death_at_every_call_and_again_in_the_recovery(tmp_path: Path, host: str) -> None:
    for first in range(4, 7):
        for second in range(1, 5):
            deaths = (Death(kind="store", k=first), Death(kind="store", k=second, after=True))
            survives(tmp_path / "t.db", host, *deaths)
            survives(tmp_path / "t.db", host, deaths[0], Death(kind="adapter", k=second, after=True))


@pytest.mark.parametrize("host", FAULTLESS)
def test_death_at_every_second_of_one_copy(tmp_path: Path, host: str) -> None:
    for n in range(1, 12):
        survives(tmp_path / "t.db", host, Death(after_s=n * 0.71), Death(after_s=n * 1.9))


@pytest.mark.parametrize("kind", ["store", "adapter"])
@pytest.mark.parametrize("host", FAULTLESS)
def test_death_at_every_call_of_a_cancellation(tmp_path: Path, host: str, kind: str) -> None:
    k = 0
    while survives(tmp_path / "t.db", host, Death(kind=kind, k=(k := k + 1), after=k % 2 == 0), cancel=True):
        assert k < 60
    assert k > 3


def test_overwriting_is_not_mistaken_for_a_foreign_file(tmp_path: Path) -> None:
    async def main() -> list[str]:
        world = single(tmp_path / "t.db", "zombie")
        world.storages.storage("sim://zombie").add("/f", size_bytes=7_000_000, seed=6)
        world.jobs[0] = JobRequest(transfers=world.jobs[0].transfers, options=JobOptions(overwrite=True), key="k")
        for n in range(6):
            await world.live(Death(after_s=1.0 + n), pause_s=0)
        await world.live(Death(), pause_s=0)
        return await world.verdict()

    assert run_virtual(main) == []
