"""The whole engine under everything at once, from seeds: it ends, it keeps its limits, and nothing is left over.

More seeds: `GOVERNED_SEEDS=200 pytest tests/sim/test_governed.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from protocols.scripted import ScriptedAdapter
from tests.sim.governed import DESTINATIONS, SOURCES, Auditor, Crowd, engine_of, settings_of
from transfer_engine.engine import Engine
from transfer_engine.limits import LimitTable
from transfer_engine.states import JOB_TERMINAL
from transfer_engine.testing import run_virtual

pytestmark = pytest.mark.slow
SEEDS = range(int(os.environ.get("GOVERNED_SEEDS", "8")))
ACTS = 120
LIVES = 2
"""Of an engine with a database; each has half of what happens."""


def _storages(seed: int) -> ScriptedAdapter:
    storages = ScriptedAdapter(rng=random.Random(seed), journal_max=10)
    for endpoint in (*SOURCES, *DESTINATIONS):
        storages.storage(endpoint)
    return storages


async def _live(auditor: Auditor, crowd: Crowd, rng: random.Random, n_acts: int) -> None:
    for n in range(n_acts):
        await crowd.act()
        await asyncio.sleep(rng.choice((0, 0, 0, 0.001, 1, 7, 40)))
        if n % 5 == 0:
            auditor.check_counts()
            await auditor.check_nobody_waits_in_vain()
    assert crowd.engine.ready


async def _until_over(engine: Engine, auditor: Auditor, crowd: Crowd) -> None:
    await crowd.relent()
    # Retries of full storages, pauses, lost attempts that are looked for, breakers: all of it is over by then.
    for _ in range(40):
        await asyncio.sleep(60)
        await auditor.check_nobody_waits_in_vain()
        if not engine.running() and not engine._dispatcher.board.scheduler.n_ready:
            break
    # What a limit of 0 keeps back waits for ever, and so does what follows it.
    for job_id in crowd.jobs:
        await engine.cancel(job_id)
    for _ in range(100):
        await asyncio.sleep(30)
        if all([(await engine.job(job_id)).state in JOB_TERMINAL for job_id in crowd.jobs]) and not engine.running():
            return
    raise AssertionError(f"not over: {[(run.file_id, run.phase) for run in engine.running()]}")


async def _scenario(seed: int, path: Path | None) -> None:
    rng = random.Random(seed)
    settings, storages = settings_of(rng), _storages(seed)
    crowd: Crowd | None = None
    n_lives = 1 if path is None else LIVES
    for life in range(n_lives):
        engine = engine_of(settings, storages, seed=seed * 10 + life, rng=rng, path=path)
        auditor = Auditor(engine._dispatcher, LimitTable.of(settings.limits))
        async with engine:
            if crowd is None:
                crowd = Crowd(engine, storages, rng)
            crowd.engine = engine
            await _live(auditor, crowd, rng, ACTS // n_lives)
            if life == n_lives - 1:
                await _until_over(engine, auditor, crowd)
                auditor.check_nothing_is_left()
            engine._store.outage = 0.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_ends_and_nothing_is_left_over(seed: int, tmp_path: Path) -> None:
    run_virtual(lambda: _scenario(seed, tmp_path / "t.db" if seed % 4 == 1 else None))
