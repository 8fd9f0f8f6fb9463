"""A database that an earlier version made goes on with everything in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, create_engine, inspect, text

from tests.contract.stores import (
    DONE,
    NEVER,
    NOW,
    RELEASED,
    Stores,
    claim,
    job,
    route,
    settled,
    started,
    states,
    transfer,
)
from transfer_engine.model import JobId
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store import schema
from transfer_engine.store.api import JobFilter, WaitingFilter
from transfer_engine.store.tables import HELD_AT

S = FileState
JOBS: tuple[dict[str, Any], ...] = (
    {"ref": 1, "job_id": "plain", "job_type": "N", "state": "ACTIVE", "n_files": 3},
    {"ref": 2, "job_id": "route", "job_type": "H", "state": "SUBMITTED", "n_files": 3},
    {"ref": 3, "job_id": "replicas", "job_type": "R", "state": "SUBMITTED", "n_files": 1},
)
ROWS: tuple[dict[str, Any], ...] = (
    {"id": 1, "job_ref": 1, "file_index": 0, "follows": 0, "state": "FINISHED", "retry_at": None},
    {"id": 2, "job_ref": 1, "file_index": 1, "follows": 0, "state": "SUBMITTED", "retry_at": NOW + 5},
    {"id": 3, "job_ref": 1, "file_index": 2, "follows": 0, "state": "SUBMITTED", "retry_at": None},
    {"id": 4, "job_ref": 2, "file_index": 0, "follows": 1, "state": "SUBMITTED", "retry_at": None},
    {"id": 5, "job_ref": 2, "file_index": 1, "follows": 1, "state": "NOT_USED", "retry_at": None},
    {"id": 6, "job_ref": 2, "file_index": 2, "follows": 0, "state": "NOT_USED", "retry_at": None},
    {"id": 7, "job_ref": 3, "file_index": 0, "follows": 1, "state": "SUBMITTED", "retry_at": None},
    {"id": 8, "job_ref": 3, "file_index": 0, "follows": 0, "state": "NOT_USED", "retry_at": None},
)


def first_version(connection: Connection) -> None:
    """What 0001 wrote."""
    command.upgrade(schema._config(connection), "0001")
    connection.execute(text("INSERT INTO queues VALUES (1, 'https://a.org', 'https://b.org', 'cms', 'default')"))
    connection.execute(text("INSERT INTO counters VALUES ('jobs', 4), ('transfers', 9), ('queues', 2)"))
    for row in JOBS:
        connection.execute(
            text(
                "INSERT INTO jobs (ref, job_id, job_type, state, vo, user_dn, cred_id, priority, submitted_at, options,"
                " fingerprint, n_files, n_finished) VALUES (:ref, :job_id, :job_type, :state, 'cms', 'me', '', 3, 1.0,"
                " '{}', '', :n_files, :n_finished)"
            ),
            row | {"n_finished": int(row["ref"] == 1)},
        )
    for row in ROWS:
        connection.execute(
            text(
                "INSERT INTO transfers (id, job_ref, file_index, follows, state, queue_id, priority, source_url,"
                " dest_url, dest_key, size_bytes, selection_strategy, retry_at) VALUES (:id, :job_ref, :file_index,"
                " :follows, :state, 1, 3, :source, :destination, :key, 10, 'auto', :retry_at)"
            ),
            row
            | {
                "source": f"https://a.org/{row['id']}",
                "destination": f"https://b.org/{row['job_ref']}/{row['file_index']}",
                "key": row["job_ref"] * 100 + row["file_index"],
            },
        )


@pytest.mark.asyncio
async def test_the_first_version_goes_on(tmp_path: Path) -> None:
    database = Stores("sqlite-file", tmp_path)
    engine = create_engine(f"sqlite:///{database.path}")
    with engine.begin() as connection:
        first_version(connection)
    engine.dispose()
    async with database.open() as store:
        views = {view.job_id: view for view in await store.jobs(JobFilter())}
        assert {name: (view.state, view.held) for name, view in views.items()} == {
            "plain": (JobState.ACTIVE, False),
            "route": (JobState.SUBMITTED, False),
            "replicas": (JobState.SUBMITTED, False),
        }
        found = [file for name in ("plain", "route", "replicas") for file in await store.files(JobId(name))]
        assert [(f.file_id, f.state.value, f.retry_at) for f in found] == [
            (row["id"], row["state"], row["retry_at"]) for row in ROWS
        ]
        backlog = await store.backlog()
        assert [(s.n_ready, s.n_bytes) for s in backlog.shifts] == [(3, 30)]
        assert backlog.next_due_at == NOW + 5
        assert [choice.n for choice in await store.choices(10)] == [1], "a hop is no replica"
        orders = await claim(store, backlog.shifts)
        assert [(order.file_id, order.follows) for order in orders] == [(3, False), (4, True), (7, True)]
        (hop,) = await claim(store, (await settled(store, orders[1], DONE)).shifts)
        (replica,) = await claim(store, (await settled(store, orders[2], NEVER)).shifts)
        assert (hop.file_id, replica.file_id) == (5, 8)
        assert (await settled(store, hop, RELEASED)).won
        where = WaitingFilter(endpoint="https://a.org")
        canceled = await store.cancel_waiting(where, NOW, 10, NEVER.failure)
        assert {one.job_id: one.n_canceled for one in canceled} == {"plain": 1, "route": 2}
        planned = job(transfer(1))
        await store.insert(planned)
        assert (await store.files(planned.job_id))[0].file_id == 9


@pytest.mark.asyncio
async def test_the_way_back_to_the_first_version(tmp_path: Path) -> None:
    """What the scheduler held goes on there, and what it did not know is gone."""
    database = Stores("sqlite-file", tmp_path)
    async with database.open() as store:
        planned = job(*route(2), job_type=JobType.MULTIHOP)
        (order,) = await started(store, planned)
        await store.hold(planned.job_id, held=True)
        await settled(store, order, DONE)
        assert await states(store, planned) == [S.FINISHED, S.SUBMITTED]
    engine = create_engine(f"sqlite:///{database.path}")
    with engine.begin() as connection:
        assert (
            connection.execute(text("SELECT count(*) FROM transfers WHERE retry_at = :t"), {"t": HELD_AT}).scalar() == 1
        )
        command.downgrade(schema._config(connection), "0001")
        rows = connection.execute(text("SELECT follows, state, retry_at FROM transfers ORDER BY id")).all()
        assert [tuple(row) for row in rows] == [(1, "FINISHED", None), (0, "SUBMITTED", None)]
        assert not {"bans", "kept"} & set(inspect(connection).get_table_names())
        assert "held" not in {column["name"] for column in inspect(connection).get_columns("jobs")}
    engine.dispose()
    async with database.open("two") as store:
        assert [s.n_ready for s in (await store.backlog()).shifts] == [1]
