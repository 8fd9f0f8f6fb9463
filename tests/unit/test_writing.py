"""Writes of users: carried out to their end, and a store that takes none is noticed and looked at again."""

from __future__ import annotations

import asyncio

import pytest

from transfer_engine.errors import NotFound, StoreUnavailable
from transfer_engine.store.memory import MemoryStore
from transfer_engine.writing import Writes

pytestmark = pytest.mark.asyncio


class Moody(MemoryStore):
    """It takes no writes while it is `full`."""

    full = False

    async def keep(self, name: str, text: str) -> None:
        if self.full:
            raise StoreUnavailable("the disk is full")
        await super().keep(name, text)


async def moody() -> Moody:
    store = Moody(incarnation="one", now=lambda: 1.0)
    await store.open()
    return store


async def test_a_store_that_takes_nothing_is_noticed_and_looked_at_again():
    store = await moody()
    write = Writes(store, lambda: 1.0)
    assert await write.why_not() is None
    assert await store.kept("written") is None, "nobody looks without a reason"
    store.full = True
    with pytest.raises(StoreUnavailable):
        await write(lambda: store.keep("a", "b"), lambda _: None)
    assert await write.why_not() == "the disk is full"
    store.full = False
    assert await write.why_not() is None, "it is seen by a write of its own"
    assert await store.kept("written") == "1.0"


async def test_other_errors_are_the_callers():
    store = await moody()
    write = Writes(store, lambda: 1.0)

    async def missing() -> None:
        raise NotFound("no such job")

    with pytest.raises(NotFound):
        await write(missing, lambda _: None)
    assert await write.why_not() is None


async def test_what_is_committed_is_told_though_nobody_waits():
    store = await moody()
    write, go, told = Writes(store, lambda: 1.0), asyncio.Event(), []

    async def slow() -> int:
        await go.wait()
        return 7

    task = asyncio.create_task(write(slow, told.append))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await write.ended()
    assert told == [7]
