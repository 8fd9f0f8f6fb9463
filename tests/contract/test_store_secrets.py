"""What every store promises of delegations, delegated credentials, tokens and the record of orders."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.stores import (
    DONE,
    DURABLE,
    KINDS,
    NEVER,
    NOW,
    Stores,
    claim,
    job,
    settled,
    transfer,
)
from transfer_engine.model import PlannedJob
from transfer_engine.sealed import AuditEntry, Delegated, Delegation, StoredToken
from transfer_engine.store.audit import BEGINNING, DETAIL_MAX, verify_audit

pytestmark = pytest.mark.asyncio

OWNER = "0123456789abcdef"
DAY = 86_400.0
LONG_AGO = NOW - 2 * DAY


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


def begun(delegation_id: str = OWNER, **more: Any) -> Delegation:
    values: dict[str, Any] = {"request": "-----BEGIN", "since": NOW, "sealed": b"\0\xff key"}
    return Delegation(delegation_id=delegation_id, **(values | more))


def delegated(delegation_id: str = OWNER, **more: Any) -> Delegated:
    values: dict[str, Any] = {
        "user_dn": '/DC=ch/CN=André, "x"',
        "vo": "atlas",
        "attributes": ("/atlas/Role=production", "/atlas"),
        "expires_at": NOW + 3600,
        "since": NOW,
        "sealed": b"\x01 proxy \0",
    }
    return Delegated(delegation_id=delegation_id, **(values | more))


def stored(token_id: str = "t1", cred_id: str = OWNER, **more: Any) -> StoredToken:
    values: dict[str, Any] = {
        "issuer": "https://issuer.org/",
        "audience": '["a", "b"]',
        "scope": "storage.read:/ offline_access",
        "expires_at": NOW + 3600,
        "managed": True,
        "since": NOW,
        "sealed": b"\x01 token \0",
    }
    return StoredToken(token_id=token_id, cred_id=cred_id, **(values | more))


def entry(n: int = 0, **more: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "at": NOW + n / 3,
        "user_dn": "/CN=op",
        "vo": "atlas",
        "action": "ban-se",
        "object": f"https://se{n}.org",
    }
    return AuditEntry(**(values | more))


# Delegations and credentials


async def test_a_delegation_that_was_begun_is_there(durable: Stores) -> None:
    async with durable.open() as store:
        assert await store.delegation(OWNER) is None
        await store.put_delegation(begun())
        assert await store.delegation(OWNER) == begun()
        await store.put_delegation(begun(sealed=b"another"))
        await store.put_delegation(begun("other"))
    async with durable.open("two") as store:
        assert await store.delegation(OWNER) == begun(sealed=b"another")
        assert await store.delegation("other") == begun("other")


async def test_a_delegated_credential_ends_the_delegation(durable: Stores) -> None:
    async with durable.open() as store:
        await store.put_delegation(begun())
        await store.put_delegation(begun("other"))
        await store.put_credential(delegated())
        assert await store.delegation(OWNER) is None
        assert await store.delegation("other") is not None
    async with durable.open("two") as store:
        assert await store.credential(OWNER) == delegated()
        assert await store.credential("other") is None


async def test_a_renewed_credential_replaces_the_one_before(kind: Stores) -> None:
    async with kind.open() as store:
        await store.put_credential(delegated(expires_at=NOW - 5))
        assert await store.credential(OWNER) == delegated(expires_at=NOW - 5)
        await store.put_credential(delegated(expires_at=NOW + 9, attributes=()))
        assert await store.credential(OWNER) == delegated(expires_at=NOW + 9, attributes=())


async def test_a_credential_is_forgotten_once(kind: Stores) -> None:
    async with kind.open() as store:
        await store.put_credential(delegated())
        await store.put_credential(delegated("other"))
        await store.put_delegation(begun())
        assert await store.drop_credential(OWNER) is True
        assert await store.drop_credential(OWNER) is False
        assert await store.credential(OWNER) is None
        assert await store.credential("other") == delegated("other")
        assert await store.delegation(OWNER) == begun()


async def test_of_many_at_once_the_last_one_stays(kind: Stores) -> None:
    async with kind.open() as store:
        async with asyncio.TaskGroup() as group:
            for n in range(20):
                group.create_task(store.put_credential(delegated(since=NOW + n)))
                group.create_task(store.put_delegation(begun("b", since=NOW + n)))
        assert await store.credential(OWNER) == delegated(since=NOW + 19)
        assert await store.delegation("b") == begun("b", since=NOW + 19)


# Tokens


async def test_a_token_that_is_there_stays(durable: Stores) -> None:
    async with durable.open() as store:
        assert await store.token("t1", OWNER) is None
        await store.put_tokens([stored(), stored("t2", managed=False)])
        await store.put_tokens([stored(sealed=b"late"), stored("t3")])
    async with durable.open("two") as store:
        assert await store.token("t1", OWNER) == stored()
        assert await store.token("t2", OWNER) == stored("t2", managed=False)
        assert await store.token("t3", OWNER) == stored("t3")


async def test_a_token_is_nobody_elses(kind: Stores) -> None:
    async with kind.open() as store:
        await store.put_tokens([stored(), stored(cred_id="other", sealed=b"theirs")])
        assert await store.token("t1", OWNER) == stored()
        assert await store.token("t1", "other") == stored(cred_id="other", sealed=b"theirs")
        assert await store.token("t1", "third") is None


async def test_a_token_is_renewed_where_it_is(kind: Stores) -> None:
    async with kind.open() as store:
        await store.put_tokens([stored(), stored(cred_id="other")])
        fresh = stored(expires_at=NOW + 9999, sealed=b"fresh", renewable=True)
        await store.put_tokens([replace(fresh, scope="something else", since=NOW + 7), stored("new")], renew=True)
        assert await store.token("t1", OWNER) == fresh
        assert await store.token("t1", "other") == stored(cred_id="other")
        assert await store.token("new", OWNER) == stored("new")
        await store.put_tokens([])


# What is forgotten


def with_tokens(source: str, destination: str) -> PlannedJob:
    planned = job(transfer())
    files = [replace(file, src_token_id=source, dst_token_id=destination) for file in planned.files]
    return replace(planned, files=files, cred_id=OWNER)


async def test_what_ended_long_ago_is_forgotten(kind: Stores) -> None:
    async with kind.open() as store:
        await store.put_delegation(begun("b1", since=LONG_AGO))
        await store.put_delegation(begun("b2"))
        await store.put_credential(delegated("c1", expires_at=LONG_AGO))
        await store.put_credential(delegated("c2", expires_at=NOW - DAY / 2))
        await store.put_tokens([stored("t1", expires_at=LONG_AGO), stored("t2", expires_at=NOW - DAY / 2)])
        assert await store.prune_secrets(NOW, 100) == 3
        assert [await store.delegation(name) for name in ("b1", "b2")] == [None, begun("b2")]
        assert await store.credential("c1") is None
        assert await store.credential("c2") is not None
        assert await store.token("t1", OWNER) is None
        assert await store.token("t2", OWNER) is not None
        assert await store.prune_secrets(NOW, 100) == 0


async def test_no_more_than_asked_for_is_forgotten_at_once(kind: Stores) -> None:
    async with kind.open() as store:
        await store.put_tokens([stored(f"t{n}", expires_at=LONG_AGO) for n in range(7)])
        for n in range(3):
            await store.put_credential(delegated(f"c{n}", expires_at=LONG_AGO))
            await store.put_delegation(begun(f"b{n}", since=LONG_AGO))
        assert [await store.prune_secrets(NOW, 4) for _ in range(5)] == [4, 4, 4, 1, 0]


async def test_what_an_open_transfer_needs_stays(kind: Stores) -> None:
    async with kind.open() as store:
        names = ("src", "dst", "free")
        await store.put_tokens([stored(name, expires_at=LONG_AGO) for name in names])
        await store.put_tokens([stored(name, "other", expires_at=LONG_AGO) for name in names])
        await store.put_credential(delegated(expires_at=LONG_AGO))
        await store.put_credential(delegated("other", expires_at=LONG_AGO))
        inserted = await store.insert(with_tokens("src", "dst"))
        assert await store.prune_secrets(NOW, 100) == 5
        assert await store.token("free", OWNER) is None
        assert await store.token("src", "other") is None
        for name in ("src", "dst"):
            assert await store.token(name, OWNER) is not None
        assert await store.credential(OWNER) is not None
        (order,) = await claim(store, inserted.shifts)
        assert await store.prune_secrets(NOW, 100) == 0
        await settled(store, order, NEVER)
        assert await store.prune_secrets(NOW, 100) == 3
        assert await store.token("src", OWNER) is None
        assert await store.credential(OWNER) is None


async def test_a_transfer_that_is_over_needs_nothing(kind: Stores) -> None:
    async with kind.open() as store:
        planned = job(transfer(1), transfer(2))
        files = [replace(file, src_token_id=f"s{n}") for n, file in enumerate(planned.files)]
        await store.put_tokens([stored(f"s{n}", expires_at=LONG_AGO) for n in range(2)])
        inserted = await store.insert(replace(planned, files=files, cred_id=OWNER))
        first = (await claim(store, inserted.shifts))[0]
        assert await store.mark_copying(first.file_id, first.epoch)
        await settled(store, first, DONE)
        # The job is open, and one of its transfers is over.
        assert await store.prune_secrets(NOW, 100) == 1
        assert await store.token("s0", OWNER) is None
        assert await store.token("s1", OWNER) is not None


# The record of orders


async def test_orders_are_recorded_newest_first(durable: Stores) -> None:
    async with durable.open() as store:
        assert await store.audit(10) == []
        for n in range(3):
            await store.record(entry(n, vo="cms" if n == 1 else "atlas"))
    async with durable.open("two") as store:
        await store.record(entry(3))
        found = await store.audit(10)
        assert [(one.seq, one.object) for one in found] == [(n + 1, f"https://se{n}.org") for n in (3, 2, 1, 0)]
        assert [one.seq for one in await store.audit(2)] == [4, 3]
        assert [one.seq for one in await store.audit(10, "cms")] == [2]
        assert await store.audit(10, "nobody") == []
        assert verify_audit(reversed(found)) is None


async def test_what_many_order_at_once_is_one_chain(kind: Stores) -> None:
    async with kind.open() as store:
        async with asyncio.TaskGroup() as group:
            for n in range(50):
                group.create_task(store.record(entry(n)))
        found = await store.audit(100)
        assert [one.seq for one in found] == list(range(50, 0, -1))
        assert verify_audit(reversed(found)) is None
        assert verify_audit(found[9::-1], before=found[10]) is None


async def test_every_store_makes_the_same_digests(tmp_path: Path) -> None:
    digests = set()
    for name in KINDS:
        stores = Stores(name, tmp_path)
        async with stores.open() as store:
            for n in range(3):
                await store.record(entry(n, detail='{"é": 1}'))
            digests.add(tuple(one.digest for one in await store.audit(10)))
    assert len(digests) == 1
    assert all(len(digest) == 64 and digest != BEGINNING for digest in digests.pop())


async def test_hostile_words_do_not_break_the_record(kind: Stores) -> None:
    async with kind.open() as store:
        await store.record(entry(user_dn="/CN=\ud800\0", object="x" * 9999, action="a" * 999, detail="d" * 999_999))
        (one,) = await store.audit(10)
        assert one.user_dn == "/CN=\ufffd\ufffd"
        assert (len(one.object), len(one.action), len(one.detail)) == (2048, 64, DETAIL_MAX)
        assert verify_audit([one]) is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 5), how=st.sampled_from(["change", "remove", "insert", "swap", "renumber"]), data=st.data())
async def test_whatever_is_done_to_the_record_shows(place: int, how: str, data: st.DataObject) -> None:
    async with Stores("memory", Path()).open() as store:
        for n in range(7):
            await store.record(entry(n))
        rows = (await store.audit(10))[::-1]
    if how == "change":
        field = data.draw(st.sampled_from(["user_dn", "vo", "action", "object", "detail", "at", "digest"]))
        other: dict[str, Any] = {field: NOW - 1 if field == "at" else "other"}
        rows[place] = replace(rows[place], **other)
    elif how == "remove":
        del rows[place]
    elif how == "insert":
        rows.insert(place, replace(entry(99), seq=place + 1, digest=rows[place].digest))
    elif how == "swap":
        rows[place], rows[place + 1] = rows[place + 1], rows[place]
    else:
        rows[place] = replace(rows[place], seq=rows[place].seq + 1)
    wrong = verify_audit(rows)
    assert wrong is not None
    assert wrong >= place
