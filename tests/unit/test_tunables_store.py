"""What is set and cannot be kept is not in force; what is in force is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.service import running_service
from transfer_engine.config import Limits, Shares
from transfer_engine.errors import Conflict, StoreUnavailable
from transfer_engine.limits import LimitTable
from transfer_engine.shares import ShareTable
from transfer_engine.store.memory import MemoryStore
from transfer_engine.tunables import ROWS_MAX, Tunables, Tuned

pytestmark = pytest.mark.asyncio

SE = "https://a.example"


class Texts(MemoryStore):
    """A store that may be full."""

    full = False

    async def keep(self, name: str, text: str) -> None:
        if self.full:
            raise StoreUnavailable("disk full")
        await super().keep(name, text)


async def write(work: Callable[[], Awaitable[Any]], then: Callable[[Any], None]) -> Any:
    result = await work()
    then(result)
    return result


async def tunables(store: Texts, applied: list[Tuned]) -> Tunables:
    found = Tunables(
        store=store,
        limits=LimitTable.of(Limits()),
        shares=ShareTable.of(Shares()),
        modes=("pull",),
        apply=applied.append,
        write=write,
    )
    await found.load()
    return found


async def test_what_cannot_be_kept_is_not_in_force():
    store = Texts(incarnation="one", now=lambda: 0.0)
    await store.open()
    applied: list[Tuned] = []
    found = await tunables(store, applied)
    assert applied == []
    await found.set_storages({SE: {"inbound_max_active": 5}}, {SE: {"x": {"staging": 1}}})
    store.full = True
    for change in (
        found.set_storages({SE: {"inbound_max_active": 9}}, {}),
        found.drop_storage(SE),
        found.set_link({"symbolicname": "l", "source": SE, "destination": "*"}),
        found.set_share({"source": SE, "destination": "*", "vo": "x", "share": 1}),
        found.set_activities({"vo": "x", "share": {"a": 1}}),
        found.set_global({"retry": 1}),
        found.authorize({"dn": "me", "operation": "admin"}),
    ):
        with pytest.raises(StoreUnavailable):
            await change
    assert [tuned.limits.of_inbound(SE) for tuned in applied] == [5]
    assert found.grants_of("me") == ()
    store.full = False
    again = await tunables(store, applied)
    assert again.rows == found.rows
    assert again.tuned.limits == found.tuned.limits


async def test_a_change_that_changes_nothing_is_not_written():
    store = Texts(incarnation="one", now=lambda: 0.0)
    await store.open()
    found = await tunables(store, [])
    store.full = True
    assert await found.drop_link("none") is None
    assert await found.drop_storage(SE) is None
    assert await found.drop_share(SE, "*", "x") is None
    assert await found.forbid("me", None) == ()


async def test_rows_have_a_bound():
    store = Texts(incarnation="one", now=lambda: 0.0)
    await store.open()
    found = await tunables(store, [])
    rows = {f"https://h{n}.example": {"udt": True} for n in range(ROWS_MAX + 1)}
    with pytest.raises(Conflict, match="rows of this kind"):
        await found.set_storages(rows, {})
    assert not found.rows.se


async def test_a_store_that_cannot_answer_is_503_and_changes_nothing():
    async with running_service() as service:
        await service.call("POST", "/config/global", {"retry": 1})
        service.engine.fails = StoreUnavailable("disk full")
        for path, body in (
            ("/config/global", {"retry": 2}),
            ("/config/links", {"symbolicname": "x"}),
            ("/config/se", {SE: {"se_info": {"udt": True}}}),
            ("/config/authorize", {"dn": "me", "operation": "admin"}),
        ):
            assert (await service.call("POST", path, body))[0] == 503
        assert (await service.call("DELETE", "/config/global?vo_name=*"))[0] == 503
        assert (await service.call("GET", "/config/global"))[1]["*"]["retry"] == 1
        assert (await service.call("GET", "/config/links"))[1] == []
