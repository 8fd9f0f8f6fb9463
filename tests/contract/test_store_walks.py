"""What every store promises of any sequence of calls: its shifts add up, and all stores do the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.contract.stores import KINDS, AnyStore, Stores
from tests.contract.walk import Walk
from transfer_engine.states import DRIVEN, FileState
from transfer_engine.store.api import JobFilter
from transfer_engine.views import FileView, JobView

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]
N_STEPS = 60


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
async def test_shifts_add_up_to_the_backlog(kind: str, seed: int, tmp_path: Path) -> None:
    async with Stores(kind, tmp_path).open() as store:
        walk = Walk(store, random.Random(seed))
        await walk.insert()
        for _ in range(N_STEPS):
            await walk.step()
            await walk.check()
            await _check_rows(store)


@pytest.mark.parametrize("seed", range(100, 105))
async def test_stores_cannot_be_told_apart(seed: int, tmp_path: Path) -> None:
    async with Stores("sqlite-memory", tmp_path).open() as one, Stores("memory", tmp_path).open() as two:
        walks = [Walk(store, random.Random(seed)) for store in (one, two)]
        for walk in walks:
            await walk.insert()
        for _ in range(N_STEPS):
            for walk in walks:
                await walk.step()
            assert walks[0].said == walks[1].said
            assert await _everything(one) == await _everything(two)
        assert {k: v for k, v in walks[0].board.items() if v != [0, 0]} == {
            k: v for k, v in walks[1].board.items() if v != [0, 0]
        }


async def _everything(store: AnyStore) -> dict[str, tuple[JobView, list[FileView]]]:
    ids = [view.job_id for view in await store.jobs(JobFilter())]
    return dict(sorted((await store.jobs_by_id(ids, files=True)).items()))


async def _check_rows(store: AnyStore) -> None:
    """Of one file never two rows are under way, and its job's counts are those of its files."""
    for job, files in (await _everything(store)).values():
        if job.job_type == "H":
            continue
        by_index: dict[int, list[FileState]] = {}
        for file in files:
            by_index.setdefault(file.file_index, []).append(file.state)
        live = [[s for s in states if s in DRIVEN | {FileState.SUBMITTED}] for states in by_index.values()]
        assert all(len(states) <= 1 for states in live)
        ended = sum(not states for states in live) + sum(FileState.CANCELING in states for states in live)
        assert ended == job.n_finished + job.n_failed + job.n_canceled
