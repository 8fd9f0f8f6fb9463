"""What every store promises of the tokens of transfers: kept with the job, handed out, moved with their source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from protocols.credentials import Secret
from tests.contract.stores import DURABLE, KINDS, NEVER, NOW, Stores, change_of, claim, job, route, snapshot, started
from transfer_engine.errors import Conflict, Invalid
from transfer_engine.model import PlannedJob, Reroute, Transfer
from transfer_engine.sealed import StoredToken
from transfer_engine.states import JobType
from transfer_engine.submission import token_id

pytestmark = pytest.mark.asyncio
OWNER = "00000000deadbeef"


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path)


def name(text: str) -> str:
    return token_id(Secret(text))


def transfer(n: int = 0, sources: int = 1, **more: object) -> Transfer:
    return Transfer(
        sources=tuple(f"https://src{place}.org/f{n}" for place in range(sources)),
        destination=f"https://dst.org/f{n}",
        source_tokens=tuple(Secret(f"src{place}") for place in range(sources)),
        destination_token=Secret("dst"),
        **more,  # type: ignore[arg-type]
    )


def stored(text: str, **changes: object) -> StoredToken:
    token = StoredToken(
        token_id=name(text),
        cred_id=OWNER,
        issuer="https://iam.example/",
        audience="",
        scope="storage.read:/",
        expires_at=NOW + 3600,
        managed=True,
        since=NOW,
        sealed=b"sealed " + text.encode(),
    )
    return replace(token, **changes)  # type: ignore[arg-type]


def with_tokens(planned: PlannedJob, *tokens: StoredToken) -> PlannedJob:
    return replace(planned, tokens=tokens)


async def test_an_attempt_gets_the_names_of_its_tokens_and_of_their_owner(database: Stores) -> None:
    async with database.open() as store:
        planned = with_tokens(job(transfer(1, 2), transfer(2), cred_id=OWNER), stored("src0"), stored("dst"))
        (order, other) = await started(store, planned)
        for one in (order, other):
            assert (one.cred_id, one.src_token_id, one.dst_token_id) == (OWNER, name("src0"), name("dst"))
        files = await store.files(planned.job_id)
        assert [file.src_token_id for file in files] == [name("src0"), name("src1"), name("src0")]
        assert {file.dst_token_id for file in files} == {name("dst")}
        assert await store.token(name("src0"), OWNER) == stored("src0")
        assert await store.token(name("src0"), "somebody else") is None


async def test_a_job_without_tokens_has_none(database: Stores) -> None:
    async with database.open() as store:
        (order,) = await started(store, job(Transfer.of("https://a.org/f", "https://b.org/f"), cred_id=OWNER))
        assert (order.cred_id, order.src_token_id, order.dst_token_id) == (OWNER, None, None)


@pytest.mark.parametrize("kind", DURABLE)
async def test_who_takes_over_gets_them_too(kind: str, tmp_path: Path) -> None:
    stores = Stores(kind, tmp_path)
    async with stores.open() as store:
        await started(store, with_tokens(job(transfer(), cred_id=OWNER), stored("src0"), stored("dst")))
    async with stores.open("two") as store:
        (order,) = await store.take_over(NOW, 10)
        assert (order.cred_id, order.src_token_id, order.dst_token_id) == (OWNER, name("src0"), name("dst"))
        assert await store.token(name("dst"), OWNER) == stored("dst")


async def test_a_source_takes_its_token_along_when_replicas_are_exchanged(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, 3), cred_id=OWNER)
        (shift,) = (await store.insert(planned)).shifts
        prefer = {
            "auto": {"https://src0.org": (9.0, 0.0), "https://src1.org": (9.0, 0.0), "https://src2.org": (1.0, 0.0)}
        }
        shifts = await store.reroute([Reroute(queue_id=shift.queue.id, priority=shift.priority, n=10, prefer=prefer)])
        files = await store.files(planned.job_id)
        assert [file.source_se for file in files] == [f"https://src{n}.org" for n in (2, 1, 0)]
        assert [file.src_token_id for file in files] == [name(f"src{n}") for n in (2, 1, 0)]
        (order,) = await claim(store, shifts)
        assert order.source_url == "https://src2.org/f1"
        assert order.src_token_id == name("src2")


async def test_the_next_replica_reads_with_its_own_token(database: Stores) -> None:
    async with database.open() as store:
        planned = job(transfer(1, 3), cred_id=OWNER)
        (order,) = await started(store, planned)
        prefer = {"auto": {"https://src1.org": (9.0, 0.0), "https://src2.org": (1.0, 0.0)}}
        applied = await store.apply(replace(change_of(order, NEVER), prefer=prefer))
        (following,) = await claim(store, applied.shifts)
        assert following.source_url == "https://src2.org/f1"
        assert following.src_token_id == name("src2")


async def test_each_hop_has_tokens_of_its_own(database: Stores) -> None:
    hops = [
        replace(hop, source_tokens=(Secret(f"from{n}"),), destination_token=Secret(f"to{n}"))
        for n, hop in enumerate(route(2))
    ]
    async with database.open() as store:
        planned = job(*hops, job_type=JobType.MULTIHOP, cred_id=OWNER)
        await store.insert(planned)
        files = await store.files(planned.job_id)
        assert [(file.src_token_id, file.dst_token_id) for file in files] == [
            (name(f"from{n}"), name(f"to{n}")) for n in range(2)
        ]


async def test_a_job_that_is_refused_leaves_no_token(database: Stores) -> None:
    async with database.open() as store:
        await store.insert(job(transfer(1), job_id="one"))
        with pytest.raises(Conflict):
            await store.insert(with_tokens(job(transfer(2), job_id="one"), stored("src0")))
        assert await store.token(name("src0"), OWNER) is None


async def test_a_token_that_was_renewed_is_not_put_back(database: Stores) -> None:
    async with database.open() as store:
        await store.insert(with_tokens(job(transfer(1), cred_id=OWNER), stored("src0"), stored("src0")))
        renewed = stored("src0", renewable=True, expires_at=NOW + 9000, sealed=b"newer")
        await store.put_tokens([renewed], renew=True)
        await store.insert(with_tokens(job(transfer(2), cred_id=OWNER), stored("src0")))
        assert await store.token(name("src0"), OWNER) == renewed


async def test_a_renewed_token_makes_no_other_job(database: Stores) -> None:
    async with database.open() as store:
        first = job(transfer(1), key="k", cred_id=OWNER)
        renewed = replace(transfer(1), source_tokens=(Secret("newer"),))
        again = job(renewed, key="k", cred_id=OWNER)
        assert first.fingerprint == again.fingerprint
        assert (await store.insert(first)).new
        assert not (await store.insert(with_tokens(again, stored("newer")))).new
        (file,) = await store.files(first.job_id)
        assert file.src_token_id == name("src0"), "the one that was accepted"
        assert await store.token(name("newer"), OWNER) is None


async def test_what_ends_while_it_is_needed_and_cannot_be_renewed_is_found(database: Stores) -> None:
    async with database.open() as store:
        tokens = [
            stored("src0", expires_at=NOW + 500),
            stored("dst", expires_at=NOW + 100),
            stored("src1", expires_at=NOW + 9000),
            stored("src2", expires_at=NOW - 1),
        ]
        planned = with_tokens(job(transfer(1, 3), cred_id=OWNER), *tokens)
        orders = await started(store, planned)
        useless = [
            stored("for nobody", expires_at=NOW + 100),
            replace(stored("src0", expires_at=NOW + 100), cred_id="somebody else"),
        ]
        await store.put_tokens(useless)
        assert await store.unrenewed_tokens(NOW, NOW + 600, 10) == [tokens[1], tokens[0]]
        assert await store.unrenewed_tokens(NOW, NOW + 600, 1) == [tokens[1]]
        await store.put_tokens([replace(tokens[1], renewable=True)], renew=True)
        await store.put_tokens([replace(tokens[0], managed=False)], renew=True)
        assert await store.unrenewed_tokens(NOW, NOW + 600, 10) == []
        await store.put_tokens(tokens, renew=True)
        assert len(await store.unrenewed_tokens(NOW, NOW + 600, 10)) == 2
        await store.cancel(planned.job_id, NOW)
        assert orders
        assert len(await store.unrenewed_tokens(NOW, NOW + 600, 10)) == 2, "what is being cleaned up needs them"


async def test_no_token_itself_is_stored(database: Stores) -> None:
    secret = "canary-of-a-token"
    async with database.open() as store:
        given = replace(transfer(1), source_tokens=(Secret(secret),), destination_token=Secret(secret))
        await started(store, job(given, key="k", cred_id=OWNER))
        assert secret not in repr(await snapshot(store))


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nX: y", "é", "x" * 16_385])
async def test_what_cannot_be_a_token_is_refused(bad: str) -> None:
    with pytest.raises(Invalid, match=r"files\[0\].source_tokens: expected a bearer token"):
        job(replace(transfer(1), source_tokens=(Secret(bad),)))


async def test_tokens_go_with_sources_one_by_one() -> None:
    with pytest.raises(Invalid, match="Length of source_tokens should be equal"):
        job(replace(transfer(1, 2), source_tokens=(Secret("a"),)))
