"""Tokens of transfers in a whole engine: renewed before they end, waited for, refused, left alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocols.credentials import Secret
from protocols.errors import CopyFailed, Denied
from protocols.scripted import Lost, Rule
from tests.sim.token_world import OWNER, READ, WRITE, World, in_world, request
from transfer_engine import FileState, JobId, JobOptions, JobRequest, JobState, Settings
from transfer_engine.reasons import Why
from transfer_engine.testing import EPOCH
from transfer_engine.wiring import TransferEngine

HOUR = 3600.0


async def held(engine: TransferEngine, job: JobRequest) -> JobId:
    """Submit a job that waits until `control.resume`."""
    await engine.control.drain()
    job_id = await engine.submit(job)
    await engine.control.hold(job_id)
    await engine.control.drain(on=False)
    return job_id


async def failure_of(engine: TransferEngine, job_id: str) -> dict[str, str]:
    (file,) = await engine.files(job_id)  # type: ignore[arg-type]
    assert file.failure is not None
    return dict(file.failure)


def test_a_token_that_holds_is_used_as_it_is() -> None:
    async def scenario(world: World) -> None:
        file = world.file()
        async with world.engine() as engine:
            job = await engine.wait(await engine.submit(request(file)))
            assert job.state is JobState.FINISHED
        assert world.issuer.asked == []
        assert world.storages.tokens("sim://a") == {file.source_tokens[0].reveal()}
        assert file.destination_token is not None
        assert world.storages.tokens("sim://b") == {file.destination_token.reveal()}

    in_world(scenario)


@pytest.mark.parametrize("rotates", [True, False])
def test_a_token_that_would_end_in_the_queue_is_exchanged_before_and_refreshed_at_the_start(rotates: bool) -> None:
    async def scenario(world: World) -> None:
        world.issuer.rotates = rotates
        async with world.engine() as engine:
            job_id = await held(engine, request(world.file()))
            await asyncio.sleep(5 * HOUR)
            assert world.issuer.n("exchange") == 2, "one of each token, while it held"
            assert world.issuer.n("refresh") == 0, "nobody needs a token of a transfer that waits"
            await engine.control.resume(job_id)
            assert (await engine.wait(job_id)).state is JobState.FINISHED
            assert world.issuer.n("refresh") == 2
        for kind, wanted, _ in world.issuer.asked:
            scopes = set(wanted.scope.split())
            assert wanted.audience == ("storages",)
            assert scopes - {"offline_access"} in ({READ}, set(WRITE.split()))
            assert ("offline_access" in scopes) == (kind == "exchange")

    in_world(scenario)


def test_500_transfers_share_one_request() -> None:
    async def scenario(world: World) -> None:
        async with world.engine() as engine:
            files = [world.file(n) for n in range(500)]
            job_id = await held(engine, request(*files))
            await asyncio.sleep(2 * HOUR)
            assert world.issuer.n("exchange") == 2, "500 tokens of one principal, audience and scope are one"
            await engine.control.resume(job_id)
            assert (await engine.wait(job_id)).state is JobState.FINISHED
            assert world.issuer.n("refresh") == 2

    in_world(scenario)


def test_two_owners_and_two_subjects_share_nothing() -> None:
    async def scenario(world: World) -> None:
        world.issuer.lifetime_s = 200.0
        source = world.issuer.token()
        others = world.issuer.token(subject="somebody")
        async with world.engine() as engine:
            jobs = [
                await held(engine, request(world.file(0, source=source))),
                await held(engine, request(world.file(1, source=source), cred_id="1111111111111111")),
                await held(engine, request(world.file(2, source=others))),
            ]
            await asyncio.sleep(1000)
            for job_id in jobs:
                await engine.control.resume(job_id)
            for job_id in jobs:
                assert (await engine.wait(job_id)).state is JobState.FINISHED
        exchanged = [token for kind, wanted, token in world.issuer.asked if kind == "exchange" and READ in wanted.scope]
        read = [token for token in exchanged if token in {source, others}]
        assert sorted(read) == sorted([source, source, others])

    in_world(scenario)


def test_transfers_wait_for_an_issuer_that_is_away_and_go_on() -> None:
    async def scenario(world: World) -> None:
        async with world.engine() as engine:
            job_id = await held(engine, request(world.file()))
            await asyncio.sleep(5 * HOUR)
            world.issuer.away = True
            await engine.control.resume(job_id)
            await asyncio.sleep(5)
            (running,) = engine.running()
            assert running.phase == "waiting for a token from https://iam.example"
            explained = await engine.explainer.transfer(running.file_id)
            assert explained.reasons[0].code is Why.TOKEN
            assert "https://iam.example" in explained.reasons[0].text
            await asyncio.sleep(10 * HOUR)
            (file,) = await engine.files(job_id)
            assert file.state in {FileState.SUBMITTED, FileState.ACTIVE}
            assert file.n_failed == 0, "it is not the transfer's fault"
            assert world.issuer.n_failed < 3000
            world.issuer.away = False
            async with asyncio.timeout(1200):
                assert (await engine.wait(job_id)).state is JobState.FINISHED

    in_world(scenario)


def test_a_token_with_minutes_left_is_used_while_its_issuer_is_away() -> None:
    async def scenario(world: World) -> None:
        world.issuer.away = True
        file = world.file()
        async with world.engine() as engine:
            await asyncio.sleep(HOUR - 240)
            job = await engine.wait(await engine.submit(request(file)))
            assert job.state is JobState.FINISHED
        assert world.issuer.asked == []
        assert world.issuer.n_failed > 0

    in_world(scenario)


def test_what_the_issuer_refuses_fails_with_a_hint() -> None:
    async def scenario(world: World) -> None:
        async with world.engine() as engine:
            job_id = await held(engine, request(world.file()))
            await asyncio.sleep(5 * HOUR)
            world.issuer.refusal = "invalid_grant"
            await engine.control.resume(job_id)
            assert (await engine.wait(job_id)).state is JobState.FAILED
            failure = await failure_of(engine, job_id)
            assert (failure["code"], failure["scope"], failure["phase"]) == ("TOKEN_REFUSED", "SOURCE", "PREPARATION")
            assert failure["message"] == "https://iam.example does not renew the transfer's token: invalid_grant"
            assert "submit again with a new token" in failure["hint"]
            assert [
                row for row in engine._dispatcher.governor.health.report() if row.place.name in {"sim://a", "sim://b"}
            ] == []

    in_world(scenario)


def test_a_client_that_the_issuer_does_not_accept_is_the_operators_trouble() -> None:
    async def scenario(world: World) -> None:
        async with world.engine() as engine:
            world.issuer.refusal = "invalid_client"
            job_id = await held(engine, request(world.file()))
            await asyncio.sleep(2 * HOUR)
            await engine.control.resume(job_id)
            await asyncio.sleep(60)
            (file,) = await engine.files(job_id)
            assert file.state is FileState.FAILED, "the tokens ended meanwhile: nothing can be exchanged any more"
            assert (await failure_of(engine, job_id))["code"] in {"TOKEN_ENDED", "CLIENT_REFUSED"}

    in_world(scenario)


@pytest.mark.parametrize("why", ["asked for", "no offline_access", "another issuer"])
def test_an_unmanaged_token_is_used_as_it_is_and_fails_clearly_when_it_has_ended(why: str) -> None:
    async def scenario(world: World) -> None:
        issued = {"another issuer": {"iss": "https://other.example"}}.get(why, {})
        ending = "" if why == "no offline_access" else " offline_access"
        token = world.issuer.token(f"{WRITE}{ending}", **issued)
        options = {"unmanaged_tokens": True} if why == "asked for" else {}
        async with world.engine() as engine:
            good = await engine.submit(request(world.file(1, source=token, destination=token), **options))
            assert (await engine.wait(good)).state is JobState.FINISHED
            late = await held(engine, request(world.file(2, source=token, destination=token), **options))
            await asyncio.sleep(HOUR)
            await engine.control.resume(late)
            assert (await engine.wait(late)).state is JobState.FAILED
            failure = await failure_of(engine, late)
            assert (failure["code"], failure["again"], failure["scope"]) == ("TOKEN_ENDED", "never", "SOURCE")
            assert failure["message"].startswith("the transfer's token ended at 2023-11-14T23:13:20Z, ")
        assert world.issuer.asked == []
        assert world.storages.tokens("sim://") == {token}

    in_world(scenario)


def test_a_refresh_token_outlives_the_engine(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with world.engine() as engine:
            job_id = await held(engine, request(world.file()))
            await asyncio.sleep(2 * HOUR)
        async with world.engine() as engine:
            await engine.control.resume(job_id)
            assert (await engine.wait(job_id)).state is JobState.FINISHED
        assert world.issuer.n("exchange") == 2

    in_world(scenario, database=str(tmp_path / "t.db"))


def test_tokens_that_end_soon_after_a_restart_are_exchanged(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with world.engine() as engine:
            job_id = await held(engine, request(world.file()))
        await asyncio.sleep(HOUR - 100)
        async with world.engine() as engine:
            await asyncio.sleep(200)
            await engine.control.resume(job_id)
            assert (await engine.wait(job_id)).state is JobState.FINISHED

    in_world(scenario, database=str(tmp_path / "t.db"))


def test_no_secret_is_in_the_database(tmp_path: Path) -> None:
    secrets: list[str] = []

    async def scenario(world: World) -> None:
        file = world.file()
        async with world.engine() as engine:
            job_id = await held(engine, request(file))
            await asyncio.sleep(2 * HOUR)
            await engine.control.resume(job_id)
            await engine.wait(job_id)
        assert file.destination_token is not None
        secrets.extend([file.source_tokens[0].reveal(), file.destination_token.reveal(), *world.issuer.good])

    in_world(scenario, database=str(tmp_path / "t.db"))
    found = b"".join(part.read_bytes() for part in tmp_path.iterdir() if not part.name.endswith(".key"))
    assert len(secrets) == 4
    assert not [secret for secret in secrets if secret.encode() in found]


def test_what_is_left_of_a_long_copy_is_removed_with_a_fresh_token() -> None:
    async def scenario(world: World) -> None:
        world.storages.add_rule(
            Rule(match="sim://b", operations=frozenset({"copy"}), error=lambda: CopyFailed("disk"), at_bytes=10**12)
        )
        async with world.engine() as engine:
            file = world.file(size=2 * 10**12)
            job_id = await engine.submit(request(file, options=JobOptions(retries_max=0)))
            assert (await engine.wait(job_id)).state is JobState.FAILED
        assert world.storages.storage("sim://b").files() == {}
        assert file.destination_token is not None
        deleted = [c.token.reveal() for kind, _, c in world.storages.shown if kind == "delete" and c.token is not None]
        assert file.destination_token.reveal() not in deleted

    in_world(scenario)


def test_a_lost_copy_is_looked_for_with_a_fresh_token() -> None:
    async def scenario(world: World) -> None:
        world.storages.rule("sim://b/*", operations={"copy"}, attempts=range(1, 2), lost=Lost.COMPLETED)
        async with world.engine() as engine:
            job = await engine.wait(await engine.submit(request(world.file(size=10**12))))
            assert job.state is JobState.FINISHED

    in_world(scenario)


def test_a_copy_that_is_refused_when_its_token_has_ended_is_repeated_with_a_new_one() -> None:
    async def scenario(world: World) -> None:
        denied = Rule(
            match="sim://b/data/1",
            operations=frozenset({"copy"}),
            attempts=range(1, 2),
            error=lambda: Denied("permission denied"),
            at_bytes=5 * 10**11,
        )
        world.storages.add_rule(denied)
        async with world.engine() as engine:
            job = await engine.wait(await engine.submit(request(world.file(1, size=10**12))))
            assert job.state is JobState.FINISHED
            world.storages.add_rule(replace(denied, match="sim://b/data/2", at_bytes=1000))
            other = await engine.wait(await engine.submit(request(world.file(2, size=10**12))))
            assert other.state is JobState.FAILED, "it was refused with a token that still holds"

    in_world(scenario)


def test_nobody_looks_for_ever_with_a_token_that_has_ended() -> None:
    async def scenario(world: World) -> None:
        world.storages.rule("sim://b/*", operations={"copy"}, lost=Lost.STOPPED)
        token = world.issuer.token(WRITE)
        async with world.engine() as engine:
            job_id = await engine.submit(request(world.file(size=10**12, source=token, destination=token)))
            async with asyncio.timeout(4 * HOUR):
                assert (await engine.wait(job_id)).state is JobState.FAILED
            assert not engine.running()

    in_world(scenario)


def test_the_next_replica_is_read_with_its_own_token() -> None:
    async def scenario(world: World) -> None:
        world.storages.storage("sim://c").add("/data/0", size_bytes=1_000_000)
        tokens = [world.issuer.token() for _ in range(2)]
        file = replace(
            world.file(),
            sources=("sim://a/data/gone", "sim://c/data/0"),
            source_tokens=tuple(map(Secret, tokens)),
            selection_strategy="orderly",
        )
        async with world.engine() as engine:
            assert (await engine.wait(await engine.submit(request(file)))).state is JobState.FINISHED
        assert world.storages.tokens("sim://a") == {tokens[0]}
        assert world.storages.tokens("sim://c") == {tokens[1]}

    in_world(scenario)


def test_a_job_of_a_certificate_without_its_proxy_fails_and_nothing_else_is_shown() -> None:
    async def scenario(world: World) -> None:
        plain = replace(world.file(), source_tokens=(), destination_token=None)
        options = JobOptions(own_credential=True, retries_max=0)
        async with world.engine() as engine:
            job_id = await engine.submit(request(plain, options=options))
            assert (await engine.wait(job_id)).state is JobState.FAILED
            failure = await failure_of(engine, job_id)
            assert (failure["code"], failure["scope"]) == ("PROXY_ENDED", "SOURCE")
            assert "delegate again" in failure["hint"]
        assert world.storages.shown == []

    in_world(scenario)


def test_tokens_of_minutes_are_not_renewed_for_every_transfer() -> None:
    async def scenario(world: World) -> None:
        world.issuer.lifetime_s = 120.0
        async with world.engine() as engine:
            source, destination = world.issuer.token(), world.issuer.token(f"{WRITE} offline_access")
            files = [world.file(n, source=source, destination=destination, size=10**9) for n in range(200)]
            job_id = await engine.submit(request(*files))
            began = world.now()
            assert (await engine.wait(job_id)).state is JobState.FINISHED
            assert len(world.issuer.asked) <= 4 + 2 * (world.now() - began) / 50

    in_world(scenario, settings=Settings(limits={"link": 4}))  # type: ignore[arg-type]


def test_a_vault_that_cannot_open_a_token_says_so(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with world.engine() as engine:
            job_id = await held(engine, request(world.file(), options=JobOptions(retries_max=0)))
        (tmp_path / "t.db.key").unlink()
        async with world.engine() as engine:
            await engine.control.resume(job_id)
            assert (await engine.wait(job_id)).state is JobState.FAILED
            failure = await failure_of(engine, job_id)
            assert failure["code"] == "SECRET_LOST"
            assert "vault.key_file" in failure["hint"]

    in_world(scenario, database=str(tmp_path / "t.db"))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "[x"},
        {"aud": ["[x", "]"]},
        {"aud": "\ud800"},
        {"aud": ["\ud800", "a\u0000b", {"a": 1}, "x" * 5000]},
        {"aud": {"a": 1}},
        {"sub": "\ud800"},
        {"sub": {"a": 1}},
        {"iat": 10**400},
        {"nbf": -(10**400), "iat": "soon"},
        {"iat": EPOCH + 10**9},
        {"scope": ["storage.read:/data", "\ud800", 7, "offline_access", "storage.modify:/data"]},
        {"scope": "offline_access storage.read:/\ud800 storage.read:/data storage.modify:/data"},
        {"scope": "storage.read:/data storage.modify:/data offline_access " + "x " * 5000},
    ],
)
def test_whatever_a_token_says_of_itself_breaks_nothing(claims: dict[str, Any]) -> None:
    async def scenario(world: World) -> None:
        odd = world.issuer.token(**({"scope": f"{WRITE} offline_access"} | claims))
        async with world.engine() as engine:
            job_id = await held(engine, request(world.file(1, source=odd, destination=odd)))
            other = await held(engine, request(world.file(2)))
            await asyncio.sleep(1.5 * HOUR)
            for one in (job_id, other):
                await engine.control.resume(one)
            assert (await engine.wait(other)).state is JobState.FINISHED
            assert (await engine.wait(job_id)).state is JobState.FINISHED
            assert not engine._dispatcher._resting

    in_world(scenario)


def test_the_owner_is_part_of_what_a_token_is() -> None:
    async def scenario(world: World) -> None:
        file = world.file()
        async with world.engine() as engine:
            await engine.wait(await engine.submit(request(file)))
            tokens = await engine._store.token("0" * 16, OWNER)
            assert tokens is None

    in_world(scenario)
