"""Lists of transfers and of names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.stores import KINDS, NOW, Stores, job, settled, started, transfer
from transfer_engine.callers import Sight
from transfer_engine.model import Done, Evidence
from transfer_engine.states import FileState
from transfer_engine.store.api import FileFilter

pytestmark = pytest.mark.asyncio

DONE = Done(
    evidence=Evidence(size_bytes=1, checksum=None, method="size"),
    mode="pull",
    bytes_moved=1,
    transfer_s=1.0,
    started_at=NOW,
)


@pytest.fixture(params=KINDS)
def stores(request, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


async def test_transfers_of_open_jobs_are_listed_newest_first_and_filtered(stores: Stores) -> None:
    async with stores.open() as store:
        first, second = job(transfer(1), transfer(2), vo="x", user_dn="/CN=a", cred_id="1"), job(transfer(3), vo="y")
        over = job(transfer(4), vo="x")
        (order,) = await started(store, over)
        await settled(store, order, DONE)
        await store.insert(first)
        (running,) = await started(store, second)

        async def listed(**filters) -> list[str]:
            return [view.dest_url[-1] for view in await store.file_list(FileFilter(**filters))]

        assert await listed() == ["3", "2", "1"]
        assert await listed(vo="x") == ["2", "1"]
        assert await listed(limit=2) == ["3", "2"]
        assert await listed(states=frozenset({FileState.ACTIVE})) == ["3"]
        assert await listed(states=frozenset()) == []
        assert await listed(dest_url="https://dst.org/f2") == ["2"]
        assert await listed(source_se="https://src0.org") == ["3", "2", "1"]
        assert await listed(dest_se="https://src0.org") == []
        assert await listed(ended_after=NOW - 5) == ["4"]
        assert await listed(ended_after=NOW + 1_000_000) == []
        assert await listed(sight=Sight(cred_id="1")) == ["2", "1"]
        assert await listed(sight=Sight(user_dn="/CN=a")) == ["2", "1"]
        assert await listed(sight=Sight(vos=frozenset({"y"}))) == ["3"]
        assert await listed(sight=Sight()) == []
        assert running.file_id


async def test_names_are_completed_in_order(stores: Stores) -> None:
    async with stores.open() as store:
        for vo, user_dn in (("atlas", "/DC=ch/CN=b"), ("atlas", "/DC=ch/CN=a"), ("cms", "/DC=org/CN=c_")):
            await store.insert(job(transfer(), vo=vo, user_dn=user_dn))
        assert await store.names("dn", "/DC=ch", 10) == ["/DC=ch/CN=a", "/DC=ch/CN=b"]
        assert await store.names("dn", "", 2) == ["/DC=ch/CN=a", "/DC=ch/CN=b"]
        assert await store.names("dn", "%", 10) == []
        assert await store.names("vo", "at", 10) == ["atlas"]
        assert await store.names("source", "https://", 10) == ["https://src0.org"]
        assert await store.names("destination", "https://d", 10) == ["https://dst.org"]
        assert await store.names("storage", "", 10) == ["https://dst.org", "https://src0.org"]
