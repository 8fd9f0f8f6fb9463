"""What every store promises of choosing among replicas, and of where a transfer stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.stores import (
    DONE,
    KINDS,
    NEVER,
    NOW,
    UNCHARGED,
    Stores,
    change_of,
    claim,
    failure,
    job,
    ready,
    route,
    settled,
    started,
    states,
    transfer,
)
from transfer_engine.errors import NotFound
from transfer_engine.model import FileId, Position, Reroute, Shift, Transfer
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store.api import WaitingFilter

pytestmark = pytest.mark.asyncio
S = FileState
SRC = [f"https://src{n}.org" for n in range(4)]


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


def better(shift: Shift, costs: dict[int, tuple[float, float]], n: int = 100, strategy: str = "auto") -> Reroute:
    """Costs by number of the source."""
    prefer = {strategy: {SRC[place]: cost for place, cost in costs.items()}}
    return Reroute(queue_id=shift.queue.id, priority=shift.priority, n=n, prefer=prefer)


def by_source(shifts: tuple[Shift, ...]) -> dict[str, tuple[int, int]]:
    return {s.queue.source_se: (s.n_ready, s.n_bytes) for s in shifts}


# Choices


async def test_a_choice_is_where_another_replica_is_left_and_the_order_is_not_given(database: Stores) -> None:
    async with database.open() as store:
        await store.insert(job(transfer(1), vo="one"))
        await store.insert(job(transfer(2, sources=3, selection_strategy="orderly"), vo="given"))
        await store.insert(job(*route(3), job_type=JobType.MULTIHOP))
        assert await store.choices(10) == []
        several = job(*(transfer(n, sources=2) for n in range(3, 6)), vo="several")
        (shift,) = (await store.insert(several)).shifts
        (found,) = await store.choices(10)
        assert (found.queue, found.priority, found.n) == (shift.queue, 3, 3)
        (order, *_) = await claim(store, [shift], 1)
        assert (found.sources, found.strategies) == (frozenset({SRC[1]}), frozenset({"auto"}))
        assert [c.n for c in await store.choices(10)] == [2]
        await settled(store, order, NEVER)
        assert [c.n for c in await store.choices(10)] == [2], "the second replica has none behind it"
        await store.hold(several.job_id, held=True)
        assert await store.choices(10) == []


async def test_choices_are_so_many_queues(database: Stores) -> None:
    async with database.open() as store:
        for n in range(5):
            await store.insert(job(transfer(n, sources=2), vo=f"vo{n}"))
        assert len(await store.choices(3)) == 3
        every = await store.choices(10)
        assert len({c.queue.id for c in every}) == 5
        for place, choice in enumerate(every):
            assert await store.choices(10, (choice.queue.id, choice.priority)) == every[place + 1 :]


async def test_what_is_behind_is_seen_page_by_page(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n, sources=2 + n % 2) for n in range(250)))
        (shift,) = (await store.insert(planned)).shifts
        ids = [f.file_id for f in await store.files(planned.job_id) if f.state is S.SUBMITTED]
        (first,) = await store.choices(10)
        assert (first.n, first.last) == (100, ids[99])
        behind = await store.choice_behind(shift.queue.id, shift.priority, first.last, 120)
        assert behind is not None
        assert (behind.n, behind.last, behind.sources) == (120, ids[219], frozenset(SRC[1:3]))
        end = await store.choice_behind(shift.queue.id, shift.priority, behind.last, 120)
        assert end is not None
        assert (end.n, end.last) == (30, ids[249])
        assert await store.choice_behind(shift.queue.id, shift.priority, end.last, 120) is None
        move = replace(better(shift, {0: (9, 0), 1: (1, 0)}, n=2), after=first.last)
        assert by_source(await store.reroute([move])) == {SRC[0]: (-2, 0), SRC[1]: (2, 0)}
        moved = [
            f.file_id for f in await store.files(planned.job_id) if (f.state, f.source_se) == (S.SUBMITTED, SRC[1])
        ]
        assert moved == ids[100:102]


# The next replica after a failure


async def test_the_best_of_the_replicas_that_are_left_is_the_next_one(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=4, size_bytes=70))
        (order,) = await started(store, planned)
        prefer = {"auto": {SRC[0]: (1.0, 0.0), SRC[2]: (9.0, 0.0), SRC[3]: (3.0, 0.1)}}
        applied = await store.apply(replace(change_of(order, NEVER), prefer=prefer))
        assert by_source(applied.shifts) == {SRC[2]: (1, 70)}
        (second,) = await claim(store, applied.shifts)
        assert (second.queue.source_se, second.source_url, second.follows) == (SRC[2], f"{SRC[2]}/f1", True)
        assert [f.source_se for f in await store.files(planned.job_id)] == [SRC[0], SRC[2], SRC[1], SRC[3]]
        (third,) = await claim(store, (await settled(store, second, NEVER)).shifts)
        assert third.queue.source_se == SRC[1]
        applied = await store.apply(replace(change_of(third, NEVER), prefer={"auto": {}}))
        (fourth,) = await claim(store, applied.shifts)
        assert (await settled(store, fourth, DONE)).job_ended
        assert (await store.job(planned.job_id)).source_se == SRC[3]


async def test_after_a_failure_the_given_order_is_kept(database: Stores) -> None:
    async with database.open() as store:
        (order,) = await started(store, job(transfer(1, sources=3, selection_strategy="orderly")))
        prefer = {"auto": {SRC[2]: (1.0, 0.0)}}
        applied = await store.apply(replace(change_of(order, NEVER), prefer=prefer))
        assert by_source(applied.shifts) == {SRC[1]: (1, 0)}


# Reroute


async def test_the_better_replica_is_taken_and_the_other_one_stays_behind_it(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=3, size_bytes=70))
        (shift,) = (await store.insert(planned)).shifts
        before = await store.files(planned.job_id)
        shifts = await store.reroute([better(shift, {0: (9, 0), 1: (5, 0), 2: (1, 0)})])
        assert by_source(shifts) == {SRC[0]: (-1, -70), SRC[2]: (1, 70)}
        files = await store.files(planned.job_id)
        assert [f.file_id for f in files] == [f.file_id for f in before]
        assert [f.state for f in files] == [S.SUBMITTED, S.NOT_USED, S.NOT_USED]
        assert [f.source_se for f in files] == [SRC[2], SRC[1], SRC[0]]
        assert [f.source_url for f in files] == [f"{SRC[n]}/f1" for n in (2, 1, 0)]
        (order,) = await claim(store, shifts)
        assert (order.source_url, order.queue.source_se, order.follows) == (f"{SRC[2]}/f1", SRC[2], True)
        (second,) = await claim(store, (await settled(store, order, NEVER)).shifts)
        (third,) = await claim(store, (await settled(store, second, NEVER)).shifts)
        assert [o.queue.source_se for o in (second, third)] == [SRC[1], SRC[0]]
        assert (await settled(store, third, DONE)).job_ended
        assert (await store.job(planned.job_id)).source_se == SRC[0]


async def test_the_size_decides_with_the_rate(database: Stores) -> None:
    """Far and fast for the elephant, near and slow for the mouse; an unknown size counts as none."""
    async with database.open() as store:
        sizes = (10, 1000, None)
        planned = job(*(transfer(n, sources=2, size_bytes=size) for n, size in enumerate(sizes)))
        shifts = (await store.insert(planned)).shifts
        assert len(shifts) == 2, "nobody knows in which class of sizes the last one belongs"
        shifts = await store.reroute([better(shift, {0: (1, 1.0), 1: (100, 0.1)}) for shift in shifts])
        assert by_source(shifts) == {SRC[0]: (-1, -1000), SRC[1]: (1, 1000)}
        first = (await store.files(planned.job_id))[::2]
        assert [f.source_se for f in first] == [SRC[0], SRC[1], SRC[0]]


async def test_what_is_as_good_stays(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=3))
        (shift,) = (await store.insert(planned)).shifts
        assert await store.reroute([better(shift, {0: (1, 0), 1: (1, 0), 2: (1, 0)})]) == ()
        shifts = await store.reroute([better(shift, {0: (2, 0), 1: (1, 0), 2: (1, 0)})])
        assert by_source(shifts) == {SRC[0]: (-1, 0), SRC[1]: (1, 0)}


async def test_a_source_that_is_not_listed_is_never_taken(database: Stores) -> None:
    async with database.open() as store:
        (shift,) = (await store.insert(job(transfer(1, sources=3)))).shifts
        assert await store.reroute([better(shift, {})]) == ()
        assert await store.reroute([better(shift, {0: (9e9, 9e9)})]) == ()
        shifts = await store.reroute([better(shift, {2: (9e9, 9e9)})])
        assert by_source(shifts) == {SRC[0]: (-1, 0), SRC[2]: (1, 0)}


async def test_the_oldest_are_looked_at_and_only_of_that_queue_and_priority(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n, sources=2) for n in range(5)))
        (shift,) = (await store.insert(planned)).shifts
        await store.insert(job(transfer(9, sources=2), priority=5))
        await store.insert(job(transfer(9, sources=2), vo="other"))
        shifts = await store.reroute([better(shift, {1: (1, 0)}, n=2)])
        assert by_source(shifts) == {SRC[0]: (-2, 0), SRC[1]: (2, 0)}
        firsts = (await store.files(planned.job_id))[::2]
        assert [f.source_se for f in firsts] == [SRC[1]] * 2 + [SRC[0]] * 3


async def test_what_must_keep_its_source_keeps_it(database: Stores) -> None:
    async with database.open() as store:
        given = job(transfer(1, sources=2, selection_strategy="orderly"))
        other = job(transfer(2, sources=2, selection_strategy="queue"))
        owned = job(transfer(3, sources=2), vo="owned")
        held = job(transfer(4, sources=2))
        hops = job(*route(2), job_type=JobType.MULTIHOP)
        kept = [given, other, owned, held, hops]
        shifts = [shift for planned in (given, other, held, hops) for shift in (await store.insert(planned)).shifts]
        (order,) = await started(store, owned)
        shifts += (await settled(store, order, UNCHARGED)).shifts
        await store.hold(held.job_id, held=True)
        before = [await store.files(planned.job_id) for planned in kept]
        moves = [better(shift, {1: (1, 0), 2: (1, 0)}) for shift in shifts]
        orderly = [better(shift, {1: (1, 0)}, strategy="orderly") for shift in shifts]
        assert await store.reroute([*moves, *orderly]) == ()
        assert [await store.files(planned.job_id) for planned in kept] == before


async def test_a_replica_that_was_tried_is_not_tried_again(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, sources=3))
        (order,) = await started(store, planned)
        shifts = (await settled(store, order, NEVER)).shifts
        moved = await store.reroute([better(shifts[0], {0: (1, 0), 1: (9, 0), 2: (5, 0)})])
        assert by_source(moved) == {SRC[1]: (-1, 0), SRC[2]: (1, 0)}
        assert await states(store, planned) == [S.FAILED, S.SUBMITTED, S.NOT_USED]


async def test_only_a_replica_of_the_same_file_that_is_not_used_is_taken(database: Stores) -> None:
    async with database.open() as store:
        one = Transfer(sources=(f"{SRC[0]}/1", f"{SRC[1]}/1", f"{SRC[3]}/1"), destination="https://dst.org/1")
        two = Transfer(sources=(f"{SRC[0]}/2", f"{SRC[2]}/2"), destination="https://dst.org/2")
        planned = job(one, two)
        (shift,) = (await store.insert(planned)).shifts
        await store.cancel_waiting(WaitingFilter(endpoint=SRC[1]), NOW, 10, failure())
        shifts = await store.reroute([better(shift, {0: (9, 0), 1: (1, 0), 2: (2, 0), 3: (3, 0)})])
        assert by_source(shifts) == {SRC[0]: (-2, 0), SRC[2]: (1, 0), SRC[3]: (1, 0)}
        files = await store.files(planned.job_id)
        assert [f.source_se for f in files] == [SRC[3], SRC[1], SRC[0], SRC[2], SRC[0]]
        assert await states(store, planned) == [S.SUBMITTED, S.CANCELED, S.NOT_USED, S.SUBMITTED, S.NOT_USED]


async def test_a_move_back_and_forth_leaves_everything_as_it_was(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n, sources=2, size_bytes=n) for n in range(4)))
        (shift,) = (await store.insert(planned)).shifts
        before, queues = await store.files(planned.job_id), await ready(store)
        away = await store.reroute([better(shift, {1: (1, 0)})])
        (there,) = [s for s in away if s.n_ready > 0]
        back = await store.reroute([better(there, {0: (1, 0)})])
        assert sum(s.n_bytes for s in (*away, *back)) == 0
        assert await store.files(planned.job_id) == before
        assert await ready(store) == queues


# Position


async def test_where_a_transfer_stands(database: Stores) -> None:
    async with database.open() as store:
        planned = job(*(transfer(n, size_bytes=10 if n else 0) for n in range(5)))
        (shift,) = (await store.insert(planned)).shifts
        await store.insert(job(transfer(9, size_bytes=500), priority=5))
        files = await store.files(planned.job_id)
        here = await store.position(files[3].file_id)
        assert here == Position(n_before=3, bytes_before=20, job_held=False, predecessor=None, dest_driven_by=None)
        (order, *_) = await claim(store, [shift], 2)
        assert (await store.position(files[3].file_id)).n_before == 1
        assert (await store.position(order.file_id)).n_before == 0
        await store.hold(planned.job_id, held=True)
        here = await store.position(files[4].file_id)
        assert (here.n_before, here.job_held) == (0, True)
        with pytest.raises(NotFound):
            await store.position(FileId(999))


async def test_what_stands_before_a_hop_or_replica(database: Stores) -> None:
    async with database.open() as store:
        hops, replicas = job(*route(3), job_type=JobType.MULTIHOP), job(transfer(1, sources=2), transfer(2, sources=2))
        (first,) = await started(store, hops)
        await store.insert(replicas)
        one, two, three = [f.file_id for f in await store.files(hops.job_id)]
        assert [(await store.position(f)).predecessor for f in (one, two, three)] == [None, S.ACTIVE, S.NOT_USED]
        four, five, six, seven = [f.file_id for f in await store.files(replicas.job_id)]
        found = [(await store.position(f)).predecessor for f in (four, five, six, seven)]
        assert found == [None, S.SUBMITTED, None, S.SUBMITTED]
        await settled(store, first, DONE)
        assert (await store.position(three)).predecessor is S.SUBMITTED
        assert (await store.job(hops.job_id)).state is JobState.ACTIVE


async def test_who_writes_the_same_destination(database: Stores) -> None:
    async with database.open() as store:
        (order,) = await started(store, job(transfer(1)))
        second = job(transfer(1), vo="other")
        await store.insert(second)
        (file,) = await store.files(second.job_id)
        assert (await store.position(file.file_id)).dest_driven_by == order.file_id
        assert (await store.position(order.file_id)).dest_driven_by is None
        await settled(store, order, DONE)
        assert (await store.position(file.file_id)).dest_driven_by is None
