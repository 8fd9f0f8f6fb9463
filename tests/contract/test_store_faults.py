"""What every store promises when its database fails: all or nothing, for each caller alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError

from protocols.errors import Again
from tests.contract import stores
from tests.contract.stores import (
    AGAIN,
    DATABASES,
    DONE,
    NEVER,
    NOW,
    UNKNOWN,
    Stores,
    claim,
    job,
    route,
    settled,
    transfer,
)
from transfer_engine.errors import StoreUnavailable
from transfer_engine.model import Assignment, JobOptions, PlannedJob, Reroute
from transfer_engine.places import Ban
from transfer_engine.states import JobType
from transfer_engine.store import schema
from transfer_engine.store.api import WaitingFilter
from transfer_engine.store.sqlite import SqliteStore
from transfer_engine.store.tables import metadata

STATEMENTS_MAX = 60


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


class FailNth:
    """Makes the n-th statement of the writing connection fail, commits included."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.left = n
        self.failed = False

    def statement(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.failed = True
            raise OperationalError("planned", {}, Exception("disk I/O error"))

    @contextmanager
    def on(self, store: SqliteStore) -> Iterator[None]:
        connection = store._writer._connection
        assert connection is not None
        event.listen(connection.engine, "before_cursor_execute", self.statement)
        event.listen(connection.engine, "commit", self.statement)
        try:
            yield
        finally:
            event.remove(connection.engine, "before_cursor_execute", self.statement)
            event.remove(connection.engine, "commit", self.statement)


@dataclass
class World:
    """A store with something in every state."""

    store: SqliteStore
    waiting: PlannedJob
    orders: list[Assignment]
    replica: Assignment
    hop: Assignment

    @classmethod
    async def make(cls, store: SqliteStore) -> World:
        waiting = job(transfer(50), transfer(51), options=JobOptions(deadline_at=NOW + 50))
        await store.insert(waiting)
        await store.insert(job(transfer(61, sources=2), vo="w"))
        orders = await stores.started(store, job(*(transfer(n) for n in range(5)), vo="v"))
        (replica,) = await stores.started(store, job(transfer(60, sources=2)))
        (hop,) = await stores.started(store, job(*route(2), job_type=JobType.MULTIHOP))
        await settled(store, orders[4], AGAIN)
        return cls(store, waiting, orders, replica, hop)


Act = Callable[[World], Awaitable[Any]]


async def _claim(world: World) -> Any:
    return await claim(world.store, (await world.store.backlog()).shifts)


async def _reroute(world: World) -> Any:
    prefer = {"auto": {"https://src1.org": (1.0, 0.0)}}
    moves = [
        Reroute(queue_id=choice.queue.id, priority=choice.priority, n=10, prefer=prefer)
        for choice in await world.store.choices(10)
    ]
    assert await world.store.reroute(moves)


BAN = Ban(
    endpoint="https://src0.org", vo=None, cancel=False, allow_submit=False, until=None, message="", by="", since=NOW
)
FAILURE = stores.failure(Again.NEVER)

ACTS: dict[str, Act] = {
    "insert": lambda w: w.store.insert(job(transfer(99, activity="new"), vo="new")),
    "claim": _claim,
    "mark copying": lambda w: w.store.mark_copying(w.orders[0].file_id, w.orders[0].epoch),
    "finish": lambda w: settled(w.store, w.orders[0], DONE),
    "retry": lambda w: settled(w.store, w.orders[0], AGAIN),
    "fail": lambda w: settled(w.store, w.orders[0], NEVER),
    "lose": lambda w: settled(w.store, w.orders[0], UNKNOWN),
    "next replica": lambda w: settled(w.store, w.replica, NEVER),
    "next hop": lambda w: settled(w.store, w.hop, DONE),
    "cancel": lambda w: w.store.cancel(w.orders[0].job_id, NOW),
    "priority": lambda w: w.store.set_priority(w.waiting.job_id, 1),
    "promote": lambda w: w.store.promote(NOW + 10_000, 10),
    "hold": lambda w: w.store.hold(w.waiting.job_id, held=True),
    "ban": lambda w: w.store.put_ban(BAN),
    "lift": lambda w: w.store.lift_ban("https://src0.org", None),
    "keep": lambda w: w.store.keep("name", "text"),
    "reroute": _reroute,
    "cancel waiting": lambda w: w.store.cancel_waiting(WaitingFilter(endpoint="https://src0.org"), NOW, 50, FAILURE),
    "expire": lambda w: w.store.expire(NOW + 60, 10),
    "prune": lambda w: w.store.prune_events(2),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("act", ACTS)
async def test_a_failing_statement_leaves_everything_as_it_was(database: Stores, act: str) -> None:
    """Whichever statement fails, nothing is changed; then the same call succeeds as if nothing had been."""
    async with database.open() as store:
        world = await World.make(store)
        before = await stores.snapshot(store)
        for n in range(1, STATEMENTS_MAX):
            fault = FailNth(n)
            with fault.on(store):
                try:
                    await ACTS[act](world)
                except StoreUnavailable:
                    assert fault.failed
                    assert await stores.snapshot(store) == before
                    continue
            assert not fault.failed, "a statement failed and the call says that it succeeded"
            break
        else:
            pytest.fail(f"{act} takes more than {STATEMENTS_MAX} statements")
        assert n > 2
        await _check(store)
        await store.insert(job(transfer(100, activity="new"), vo="new"))
        await _check(store)


@pytest.mark.asyncio
async def test_a_failing_take_over_leaves_everything_as_it_was(tmp_path: Path) -> None:
    database = Stores("sqlite-file", tmp_path)
    async with database.open("one") as store:
        await World.make(store)
    async with database.open("two") as store:
        before = await stores.snapshot(store)
        for n in range(1, STATEMENTS_MAX):
            fault = FailNth(n)
            with fault.on(store):
                try:
                    taken = await store.take_over(NOW, 100)
                except StoreUnavailable:
                    assert await stores.snapshot(store) == before
                    continue
            assert len(taken) == 6
            break
        await _check(store)


async def _check(store: SqliteStore) -> None:
    """What must hold of every database at every commit."""
    rows = await stores.snapshot(store)
    queues = {row[0] for row in rows["queues"]}
    columns = {table: [column.name for column in metadata.tables[table].columns] for table in rows}
    transfers = [dict(zip(columns["transfers"], row, strict=True)) for row in rows["transfers"]]
    jobs = {row[0]: dict(zip(columns["jobs"], row, strict=True)) for row in rows["jobs"]}
    counters = dict(rows["counters"])
    assert {t["queue_id"] for t in transfers} <= queues
    assert {t["job_ref"] for t in transfers} == set(jobs)
    assert counters["queues"] > max(queues)
    assert counters["transfers"] > max(t["id"] for t in transfers)
    assert counters["jobs"] > max(jobs)


@pytest.mark.asyncio
async def test_a_failed_commit_is_forgotten_by_the_caches(tmp_path: Path) -> None:
    """Numbers and queues of a transaction that was rolled back are not in the database, nor in memory."""
    database = Stores("sqlite-file", tmp_path)
    async with database.open("one") as store:
        commit = FailNth(1)
        connection = store._writer._connection
        assert connection is not None
        event.listen(connection.engine, "commit", commit.statement)
        with pytest.raises(StoreUnavailable):
            await store.insert(job(transfer(1)))
        await store.insert(job(transfer(2)))
        await _check(store)
    async with database.open("two") as store:
        assert len((await store.backlog()).shifts) == 1
        await store.insert(job(transfer(3)))
        await _check(store)


@pytest.mark.asyncio
async def test_one_bad_operation_does_not_take_the_others_with_it(database: Stores) -> None:
    """They share a transaction until one fails; then each gets its own."""
    async with database.open() as store:
        bad = job(transfer(1), params={"a": 1})
        object.__setattr__(bad, "deadline_at", object())
        good = [job(transfer(n), vo=f"vo{n}") for n in range(2, 8)]
        tasks = []
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_outcome(store, planned)) for planned in (*good[:3], bad, *good[3:])]
        outcomes = [task.result() for task in tasks]
        assert [isinstance(outcome, Exception) for outcome in outcomes] == [n == 3 for n in range(7)]
        assert sum(s.n_ready for s in (await store.backlog()).shifts) == len(good)
        await _check(store)


async def _outcome(store: SqliteStore, planned: PlannedJob) -> Any:
    try:
        return await store.insert(planned)
    except Exception as error:  # noqa: BLE001 - whatever its caller gets
        return error


@pytest.mark.asyncio
async def test_a_newer_schema_is_refused_in_words(tmp_path: Path) -> None:
    database = Stores("sqlite-file", tmp_path)
    async with database.open():
        pass
    engine = create_engine(f"sqlite:///{database.path}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"9999.*upgrade"):
            await database.make().open()


@pytest.mark.asyncio
async def test_a_database_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    database = Stores("sqlite-file", tmp_path)
    database.path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await database.make().open()
    missing = Stores("sqlite-file", tmp_path / "nowhere")
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await missing.make().open()


def test_the_migrations_lead_to_the_schema_of_the_tables() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        schema.upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        for table in metadata.tables.values():
            migrated = {index["name"]: index for index in inspect(connection).get_indexes(table.name)}
            assert {str(index.name) for index in table.indexes} == set(migrated)
            for index in table.indexes:
                where = index.dialect_options["sqlite"]["where"]
                found = migrated[str(index.name)].get("dialect_options", {}).get("sqlite_where")
                assert (None if where is None else str(where)) == (None if found is None else str(found))
        checks = {
            str(check["name"]): check["sqltext"]
            for table in ("jobs", "transfers")
            for check in inspect(connection).get_check_constraints(table)
        }
        assert set(checks) == {"job_state", "file_state"}
    engine.dispose()
