"""What every store shows of other people's jobs: nothing, whichever way it is asked."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.contract.stores import KINDS, NOW, Stores, job, transfer
from transfer_engine.callers import EVERYTHING, Sight
from transfer_engine.errors import NotFound
from transfer_engine.model import JobId
from transfer_engine.store.api import JobFilter
from transfer_engine.store.seen import SeenReader, covers

pytestmark = pytest.mark.asyncio

VOS, USERS, CREDENTIALS = ("ska", "cta", "o'vo"), ("/CN=alice", "/CN=bob"), ("a" * 16, "b" * 16)
SIGHTS = [
    EVERYTHING,
    Sight(),
    *(
        Sight(vos=frozenset(vos), cred_id=cred_id, user_dn=user_dn)
        for vos in ((), ("ska",), ("cta", "o'vo"), ("nobody",))
        for cred_id in (None, CREDENTIALS[0], "c" * 16)
        for user_dn in (None, USERS[0], "/CN=ali")
    ),
]


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


async def test_everything_is_shown_through_one_sight(database: Stores) -> None:
    async with database.open() as store:
        for n, (vo, user_dn, cred_id) in enumerate(itertools.product(VOS, USERS, CREDENTIALS)):
            await store.insert(job(transfer(n), vo=vo, user_dn=user_dn, cred_id=cred_id))
        jobs = await store.jobs(JobFilter())
        assert len(jobs) == 12
        ids = [one.job_id for one in jobs]
        for sight in SIGHTS:
            seen = {one.job_id for one in jobs if covers(sight, one)}
            reader = SeenReader(store, sight)
            assert {one.job_id for one in await reader.jobs(JobFilter())} == seen
            assert {one.job_id for one in await store.jobs(JobFilter(sight=sight))} == seen
            assert set(await reader.jobs_by_id(ids, files=True)) == seen
            assert {event.job_id for event in await reader.events(0, 100)} == seen
            newest = await store.jobs(JobFilter(limit=3, sight=sight))
            assert len(newest) == min(3, len(seen)), "the limit counts what is seen"
            for job_id in ids:
                file_id = (await store.files(job_id))[0].file_id
                asked = (
                    reader.job(job_id),
                    reader.files(job_id),
                    reader.file(file_id),
                    reader.attempts(job_id, file_id),
                    reader.position(file_id),
                )
                for question in asked:
                    if job_id in seen:
                        await question
                    else:
                        with pytest.raises(NotFound):
                            await question


async def test_what_is_not_seen_is_denied_in_the_words_for_what_is_not_there(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1), vo="cta")
        await store.insert(planned)
        file_id = (await store.files(planned.job_id))[0].file_id
        reader = SeenReader(store, Sight(vos=frozenset({"ska"})))
        for known, unknown in (
            (reader.job(planned.job_id), store.job(JobId("nope"))),
            (reader.files(planned.job_id), store.files(JobId("nope"))),
            (reader.file(file_id), store.file(type(file_id)(file_id + 1000))),
        ):
            with pytest.raises(NotFound) as hidden:
                await known
            with pytest.raises(NotFound) as missing:
                await unknown
            words = str(hidden.value).replace(planned.job_id, "nope").replace(str(file_id), str(file_id + 1000))
            assert words == str(missing.value)


async def test_the_record_of_orders_is_shown_by_vo(database: Stores) -> None:
    from transfer_engine.sealed import AuditEntry

    async with database.open() as store:
        for vo in ("ska", "cta", "ska"):
            await store.record(AuditEntry(at=NOW, user_dn="/CN=op", vo=vo, action="ban-se", object="https://a.org"))
        ska = SeenReader(store, Sight(vos=frozenset({"ska"})))
        assert [entry.vo for entry in await ska.audit(10)] == ["ska", "ska"]
        assert await ska.audit(10, "cta") == []
        assert await SeenReader(store, Sight(cred_id="a" * 16)).audit(10) == []
        assert len(await SeenReader(store, EVERYTHING).audit(10)) == 3
