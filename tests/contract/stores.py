"""The stores that the contract is checked on, and what its tests share: jobs, claims, outcomes, snapshots."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from protocols.errors import Again, Phase, Scope
from transfer_engine import settle, submission
from transfer_engine.config import RetrySettings
from transfer_engine.model import (
    Applied,
    Assignment,
    Change,
    Claim,
    Done,
    Evidence,
    Failed,
    Failure,
    JobRequest,
    Outcome,
    PlannedJob,
    Released,
    Shift,
    Transfer,
    Unknown,
)
from transfer_engine.retry import RetryPolicy
from transfer_engine.states import FileState
from transfer_engine.store.api import Inserted, JobFilter
from transfer_engine.store.memory import MemoryStore
from transfer_engine.store.memory_tables import Tables
from transfer_engine.store.sqlite import SqliteStore
from transfer_engine.store.tables import metadata

NOW = 1_700_000_000.0
SCHEMES = frozenset({"http", "https", "dav", "davs"})
DATABASES = ("sqlite-file", "sqlite-memory")
"""A PostgreSQL store joins by a name here and a branch in `Stores.make`."""
KINDS = (*DATABASES, "memory")
DURABLE = ("sqlite-file", "memory")
"""Those with which a second store goes on where the first one ended."""
AnyStore = SqliteStore | MemoryStore
_serial = itertools.count(1)


class Stores:
    """Makes stores of one kind, all on the same database."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.path = directory / "transfers.db"
        self.tables = Tables()

    def make(self, incarnation: str = "one") -> AnyStore:
        if self.kind == "memory":
            return MemoryStore(incarnation=incarnation, now=lambda: NOW, tables=self.tables)
        if self.kind == "sqlite-memory":
            return SqliteStore("sqlite://", incarnation=incarnation, now=lambda: NOW, inline=True)
        return SqliteStore(f"sqlite:///{self.path}", incarnation=incarnation, now=lambda: NOW)

    @asynccontextmanager
    async def open(self, incarnation: str = "one") -> AsyncIterator[AnyStore]:
        store = self.make(incarnation)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


def transfer(n: int = 0, *, destination: str | None = None, sources: int = 1, **more: Any) -> Transfer:
    places = tuple(f"https://src{place}.org/f{n}" for place in range(sources))
    return Transfer(sources=places, destination=destination or f"https://dst.org/f{n}", **more)


def job(*transfers: Transfer, **request: Any) -> PlannedJob:
    chosen = transfers or (transfer(),)
    new_id = str(uuid.UUID(int=next(_serial)))
    return submission.plan(JobRequest(transfers=chosen, **request), now=NOW, new_id=new_id, schemes=SCHEMES)


def route(n_hops: int = 3) -> tuple[Transfer, ...]:
    return tuple(Transfer.of(f"https://h{n}.org/f", f"https://h{n + 1}.org/f") for n in range(n_hops))


async def claim(store: AnyStore, shifts: Sequence[Shift], n: int | None = None) -> list[Assignment]:
    """Claim what became ready."""
    wanted = [Claim(s.queue.id, s.priority, s.n_ready if n is None else n) for s in shifts if s.n_ready > 0]
    return await store.claim(wanted, NOW)


async def started(store: AnyStore, planned: PlannedJob, *, copying: bool = True) -> list[Assignment]:
    """Insert and claim a job, up to its COPY."""
    inserted: Inserted = await store.insert(planned)
    orders = await claim(store, inserted.shifts)
    for order in orders:
        if copying:
            assert await store.mark_copying(order.file_id, order.epoch)
    return orders


async def ready(store: AnyStore) -> dict[tuple[int, int], int]:
    """What can be claimed, by (queue, priority)."""
    return {(s.queue.id, s.priority): s.n_ready for s in (await store.backlog()).shifts}


def change_of(order: Assignment, outcome: Outcome, *, now: float = NOW) -> Change:
    return settle.decide(order, outcome, now=now, policy=RetryPolicy(RetrySettings()), rng=random.Random(0))


async def settled(store: AnyStore, order: Assignment, outcome: Outcome, *, now: float = NOW) -> Applied:
    return await store.apply(change_of(order, outcome, now=now))


def failure(again: Again = Again.SOON, **more: Any) -> Failure:
    values: dict[str, Any] = {
        "code": "COPY_FAILED",
        "scope": Scope.TRANSFER,
        "phase": Phase.TRANSFER,
        "errno": 5,
        "message": "disk",
        "hint": "-",
    }
    return Failure(again=again, **(values | more))


DONE = Done(
    evidence=Evidence(size_bytes=10, checksum=None, method="size"),
    mode="pull",
    bytes_moved=10,
    transfer_s=1.0,
    started_at=NOW,
)
AGAIN = Failed(failure=failure(), clean=True, started_at=NOW)
NEVER = Failed(failure=failure(Again.NEVER), clean=True, started_at=NOW)
UNCHARGED = Failed(failure=failure(), clean=False, started_at=NOW, charge=False)
UNKNOWN = Unknown(failure=failure(), started_at=NOW)
RELEASED = Released()


async def states(store: AnyStore, planned: PlannedJob) -> list[FileState]:
    return [file.state for file in await store.files(planned.job_id)]


def _dump(connection: Connection, batch: Sequence[None]) -> list[dict[str, list[tuple[Any, ...]]]]:
    found = {
        table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
        for table in metadata.sorted_tables
    }
    return [found] * len(batch)


async def snapshot(store: AnyStore) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that is stored, as committed: of a database every row of every table."""
    if isinstance(store, MemoryStore):
        jobs = await store.jobs(JobFilter(limit=1_000_000))
        files = [file for job in jobs for file in await store.files(job.job_id)]
        return {
            "jobs": [(job,) for job in jobs],
            "transfers": [(file,) for file in files],
            "attempts": [(a,) for file in files for a in await store.attempts(file.job_id, file.file_id)],
            "events": [(event,) for event in await store.events(0, 1_000_000)],
            "bans": [(ban,) for ban in await store.bans()],
            "ready": [(shift,) for shift in (await store.backlog()).shifts],
        }
    dump: dict[str, list[tuple[Any, ...]]] = await store._writer.submit(_dump, None)
    return dump
