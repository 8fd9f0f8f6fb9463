"""Bugs planted on purpose: the oracle of the crash tests must notice each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.contract.stores import DONE, RELEASED, claim, job, settled, started
from tests.sim.crashes import SETTINGS, Death, World
from transfer_engine import Settings, Transfer, attempt, preparing, recovery, urls
from transfer_engine.model import Applied, Assignment, Change, Evidence, JobOptions, JobRequest
from transfer_engine.store.sqlite import SqliteStore
from transfer_engine.store.tables import transfers
from transfer_engine.testing import run_virtual

pytestmark = pytest.mark.slow


def verdict(world: World, n_crashes: int = 6) -> list[str]:
    async def main() -> list[str]:
        for n in range(n_crashes):
            await world.live(Death(after_s=2.0 + n), pause_s=0)
        await world.live(Death(), pause_s=0)
        return await world.verdict()

    return run_virtual(main)


def world_of(path: Path, host: str, *, n: int = 6, **more: Any) -> World:
    world = World(path / "t.db", **more)
    for m in range(n):
        world.storages.storage("sim://source").add(f"/{m}", size_bytes=9_000_000, seed=m)
        world.jobs.append(JobRequest(transfers=(Transfer.of(f"sim://source/{m}", f"sim://{host}/{m}"),), key=f"{m}"))
    return world


@pytest.mark.parametrize("host", ["zombie", "laggard", "prompt", "liar"])
def test_without_a_bug_nothing_is_noticed(tmp_path: Path, host: str) -> None:
    assert verdict(world_of(tmp_path, host)) == []


class _ForgetsCopies(SqliteStore):
    """What was being copied is given back as if it had not begun."""

    async def take_over(self, now: float, limit: int) -> list[Assignment]:
        def forget(connection: Any, batch: Any) -> list[None]:
            connection.execute(update(transfers).values(copying=0))
            return [None] * len(batch)

        await self._writer.submit(forget, None)
        return await super().take_over(now, limit)


class _AnnouncesNothing(SqliteStore):
    """The copy is announced in memory only."""

    async def mark_copying(self, file_id: int, epoch: int) -> bool:
        return True


class _IgnoresEpochs(SqliteStore):
    """Whoever comes late is believed."""

    async def apply(self, change: Change) -> Applied:
        def current(connection: Any, batch: Any) -> list[int]:
            query = select(transfers.c.epoch).where(transfers.c.id == change.file_id)
            return [connection.execute(query).scalar_one()] * len(batch)

        epoch: int = await self._writer.submit(current, None)
        return await super().apply(replace(change, epoch=epoch))


@pytest.mark.parametrize(
    ("store_class", "host", "symptom"),
    [
        (_ForgetsCopies, "zombie", "two writers"),
        (_ForgetsCopies, "laggard", "two writers"),
        (_AnnouncesNothing, "prompt", "Destination file exists"),
    ],
)
def test_a_forgetful_store_is_noticed(tmp_path: Path, store_class: type[SqliteStore], host: str, symptom: str) -> None:
    wrong = verdict(world_of(tmp_path, host, store_class=store_class))
    assert [line for line in wrong if symptom in line]


def test_no_quarantine_is_noticed(tmp_path: Path) -> None:
    hasty = Settings(**(SETTINGS.model_dump() | {"transfer": {"quarantine_s": 0.0}}))
    assert [line for line in verdict(world_of(tmp_path, "zombie", settings=hasty)) if "two writers" in line]


def _believes(_stat: object, _expected: object, *, required: bool) -> None:
    """Nothing is ever wrong."""


def test_no_verification_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "mismatch", _believes)
    wrong = verdict(world_of(tmp_path, "liar", n=20), n_crashes=0)
    assert [line for line in wrong if "wrong file" in line]


def test_adoption_without_comparison_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "mismatch", _believes)
    monkeypatch.setattr(
        recovery,
        "evidence_of",
        lambda stat, *_, **__: Evidence(size_bytes=stat.size_bytes, checksum=None, method="size", adopted=True),
    )
    assert [line for line in verdict(world_of(tmp_path, "prompt")) if "wrong file" in line]


def test_charging_for_crashes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: Callable[..., Any] = recovery.Probe.run

    async def charging(self: Any, failure: Any, started_at: float, *, charge: bool) -> Any:
        return await run(self, failure, started_at, charge=True)

    monkeypatch.setattr(recovery.Probe, "run", charging)
    assert [line for line in verdict(world_of(tmp_path, "prompt")) if "charged" in line]


def test_deleting_what_belongs_to_others_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ruthless(self: Any, _expected: object) -> None:
        await self.ends.delete_destination()

    monkeypatch.setattr(preparing.Preparation, "prepare_destination", ruthless)
    world = world_of(tmp_path, "prompt")
    world.put_foreign("sim://prompt/3")
    assert [line for line in verdict(world) if "somebody else" in line]


def test_two_attempts_at_one_destination_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = itertools.count()
    monkeypatch.setattr(urls, "key_of", lambda _place: next(keys))
    world = world_of(tmp_path, "prompt", n=1)
    again = replace(world.jobs[0], key="again", options=JobOptions(overwrite=True))
    world.jobs = [replace(again, key="first"), again]
    assert [line for line in verdict(world, n_crashes=0) if "two writers" in line]


@pytest.mark.asyncio
@pytest.mark.parametrize("store_class", [SqliteStore, _IgnoresEpochs])
async def test_ignored_epochs_are_noticed(store_class: type[SqliteStore]) -> None:
    store = store_class("sqlite://", incarnation="one", now=lambda: 0.0, inline=True)
    await store.open()
    (old,) = await started(store, job(), copying=False)
    await settled(store, old, RELEASED)
    await claim(store, (await store.backlog()).shifts)
    assert (await settled(store, old, DONE)).won is (store_class is _IgnoresEpochs)
    await store.close()
