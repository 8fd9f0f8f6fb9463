"""The whole engine on scripted storages in virtual time: one transfer, and what can happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from protocols.errors import CopyFailed, Denied, Missing, NoSpace, Overloaded, Scope
from protocols.scripted import Lie, Lost, Rule, ScriptedAdapter
from transfer_engine import FileState, Invalid, JobOptions, JobRequest, JobState, JobType, Settings, Transfer
from transfer_engine.engine import Engine
from transfer_engine.testing import run

Scenario = Callable[[Engine, ScriptedAdapter], Awaitable[None]]


def _file(storages: ScriptedAdapter, name: str = "/f", size: int = 1_000_000) -> Transfer:
    storages.storage("sim://a").add(name, size_bytes=size)
    for host in "bc":
        storages.storage(f"sim://{host}")
    return Transfer.of(f"sim://a{name}", f"sim://b{name}")


def _copies(storages: ScriptedAdapter) -> int:
    return sum(entry.operation == "copy" for entry in storages.journal)


def test_a_transfer_finishes_with_evidence() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        job = await engine.wait(await engine.submit(_file(storages)))
        assert job.state is JobState.FINISHED
        (file,) = await engine.files(job.job_id)
        assert file.state is FileState.FINISHED
        assert file.evidence == "size+checksum"
        assert file.seen_bytes == 1_000_000
        assert storages.storage("sim://b").files().get("/f") is not None

    run(scenario)


@pytest.mark.parametrize("lie", list(Lie))
def test_a_lying_storage_is_caught_and_the_transfer_repeated(lie: Lie) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://b/*", operations={"copy"}, attempts=range(1, 2), lie=lie)
        job = await engine.wait(await engine.submit(_file(storages)))
        assert job.state is JobState.FINISHED
        assert _copies(storages) == 2
        (file,) = await engine.files(job.job_id)
        assert file.n_failed == 1
        (attempt,) = await engine.reader.attempts(job.job_id, file.file_id)
        assert attempt.epoch == 1

    run(scenario)


@pytest.mark.parametrize("lost", list(Lost))
def test_a_lost_answer_is_looked_for_before_anything_is_repeated(lost: Lost) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://b/*", operations={"copy"}, attempts=range(1, 2), lost=lost)
        job = await engine.wait(await engine.submit(_file(storages, size=4_000_000_000)))
        assert job.state is JobState.FINISHED
        assert not [entry for entry in storages.journal if entry.operation == "conflict"]
        assert _copies(storages) == (2 if lost is Lost.STOPPED else 1)

    run(scenario)


def test_failures_that_cannot_pass_are_not_repeated() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        _file(storages)
        job = await engine.wait(await engine.submit(Transfer.of("sim://a/none", "sim://b/none")))
        assert job.state is JobState.FAILED
        (file,) = await engine.files(job.job_id)
        assert file.failure is not None
        assert (file.failure["code"], file.failure["scope"]) == ("MISSING", "SOURCE")
        assert file.n_failed == 1
        assert file.reason is not None
        assert file.reason.startswith("SOURCE [2] ")

    run(scenario)


def test_an_existing_destination_is_never_touched_without_overwrite() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        foreign = storages.storage("sim://b").add("/f", size_bytes=7)
        job = await engine.wait(await engine.submit(_file(storages)))
        (file,) = await engine.files(job.job_id)
        assert (job.state, file.failure and file.failure["code"]) == (JobState.FAILED, "ALREADY_EXISTS")
        assert storages.storage("sim://b").files().get("/f") == foreign
        again = await engine.submit(_file(storages), options=JobOptions(overwrite=True))
        assert (await engine.wait(again)).state is JobState.FINISHED

    run(scenario)


def test_the_next_replica_is_tried_at_once() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.storage("sim://b")
        for host in "acd":
            storages.storage(f"sim://{host}")
        storages.storage("sim://d").add("/f", size_bytes=10)
        transfer = Transfer(sources=("sim://a/f", "sim://c/f", "sim://d/f"), destination="sim://b/f")
        job = await engine.wait(await engine.submit(transfer))
        assert (job.state, job.job_type, job.source_se) == (JobState.FINISHED, JobType.REPLICAS, "sim://d")
        states = [file.state for file in await engine.files(job.job_id)]
        assert states == [FileState.FAILED, FileState.FAILED, FileState.FINISHED]

    run(scenario)


def test_unused_replicas_stay_unused() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = Transfer(sources=(_file(storages).sources[0], "sim://c/f"), destination="sim://b/f")
        job = await engine.wait(await engine.submit(transfer))
        states = [file.state for file in await engine.files(job.job_id)]
        assert (job.state, states) == (JobState.FINISHED, [FileState.FINISHED, FileState.NOT_USED])

    run(scenario)


def _route(storages: ScriptedAdapter) -> JobRequest:
    first = _file(storages)
    return JobRequest(transfers=(first, Transfer.of("sim://b/f", "sim://c/f")), job_type=JobType.MULTIHOP)


def test_hops_follow_one_another() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        job = await engine.wait(await engine.submit(_route(storages)))
        assert (job.state, job.source_se, job.dest_se) == (JobState.FINISHED, "sim://a", "sim://c")
        assert storages.storage("sim://c").files().get("/f") is not None

    run(scenario)


def test_a_route_ends_with_its_first_broken_hop() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://b/*", operations={"copy"}, error=lambda: Denied("no"))
        job = await engine.wait(await engine.submit(_route(storages)))
        states = [file.state for file in await engine.files(job.job_id)]
        assert (job.state, states) == (JobState.FAILED, [FileState.FAILED, FileState.NOT_USED])

    run(scenario)


def test_retry_after_is_waited_for() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        loop = asyncio.get_running_loop()
        storages.rule(
            "sim://b/*", operations={"copy"}, attempts=range(1, 2), error=lambda: Overloaded("busy", retry_after_s=200)
        )
        job = await engine.wait(await engine.submit(_file(storages)))
        assert job.state is JobState.FINISHED
        assert loop.time() >= 200

    run(scenario)


def test_a_full_destination_is_tried_again_much_later_and_then_given_up() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://b/*", operations={"copy"}, error=lambda: NoSpace("full"))
        job_id = await engine.submit(_file(storages), options=JobOptions(retries_max=2))
        job = await engine.wait(job_id)
        assert job.state is JobState.FAILED
        assert _copies(storages) == 3
        assert asyncio.get_running_loop().time() >= 900

    run(scenario)


def test_cancel_of_a_running_transfer_leaves_nothing_behind() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        job_id = await engine.submit(_file(storages, size=100_000_000_000))
        await asyncio.sleep(30)
        assert [running.phase for running in engine.running()] == ["copying"]
        canceled = await engine.cancel(job_id)
        assert canceled.n_canceled == 1
        assert (await engine.status(job_id)).state is JobState.CANCELED
        while engine.running():
            await asyncio.sleep(1)
        (file,) = await engine.files(job_id)
        assert file.state is FileState.CANCELED
        assert storages.storage("sim://b").files().get("/f") is None

    run(scenario)


def test_cancel_of_a_waiting_job_ends_it_at_once_and_frees_nothing_twice() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        running = await engine.submit(_file(storages, "/big", size=10_000_000_000))
        await asyncio.sleep(1)
        waiting = await engine.submit(_file(storages, "/small"))
        assert (await engine.cancel(waiting)).running == ()
        assert (await engine.wait(waiting)).state is JobState.CANCELED
        assert (await engine.cancel(waiting)).was_terminal
        assert (await engine.wait(running)).state is JobState.FINISHED
        await asyncio.sleep(1)
        assert all(link.ready == 0 and link.active == 0 for link in engine.links())

    run(scenario, settings=Settings(limits={"link": 1}))  # type: ignore[arg-type]


def test_limits_hold_at_every_moment_and_nothing_idles() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfers = [_file(storages, f"/{n}", size=500_000_000) for n in range(40)]
        job_id = await engine.submit(transfers)
        seen = set()
        while (await engine.status(job_id)).finished_at is None:
            seen.add(len(engine.running()))
            await asyncio.sleep(0.7)
        assert max(seen) == 4
        assert asyncio.get_running_loop().time() < 40 * 5 / 4 * 1.3

    run(scenario, settings=Settings(limits={"link": 4}))  # type: ignore[arg-type]


def test_two_transfers_to_one_destination_run_one_after_the_other() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        one = _file(storages, size=1_000_000_000)
        storages.storage("sim://c").add("/g", size_bytes=5)
        two = Transfer.of("sim://c/g", "sim://b/f")
        jobs = [await engine.submit(t, options=JobOptions(overwrite=True)) for t in (one, two)]
        for job_id in jobs:
            assert (await engine.wait(job_id)).state is JobState.FINISHED
        assert not [entry for entry in storages.journal if entry.operation == "conflict"]

    run(scenario)


def test_what_waits_longer_than_its_deadline_is_cancelled() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        await engine.submit(_file(storages, "/big", size=1_000_000_000_000))
        await asyncio.sleep(1)
        from transfer_engine.testing import EPOCH

        job_id = await engine.submit(_file(storages, "/late"), options=JobOptions(deadline_at=EPOCH + 600))
        job = await engine.wait(job_id)
        assert job.state is JobState.CANCELED
        (file,) = await engine.files(job_id)
        assert file.reason is not None
        assert "stayed in the queue for too long" in file.reason
        assert 600 <= asyncio.get_running_loop().time() < 640

    run(scenario, settings=Settings(limits={"link": 1}))  # type: ignore[arg-type]


def test_the_same_key_is_the_same_job() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        from transfer_engine import Conflict

        first = await engine.submit(_file(storages), key="rule-1")
        assert await engine.submit(_file(storages), key="rule-1") == first
        with pytest.raises(Conflict):
            await engine.submit(_file(storages, "/other"), key="rule-1")

    run(scenario)


def test_events_come_in_order_and_resume_from_a_cursor() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        job_id = await engine.submit(_file(storages))
        seen = [(event.kind, event.state) async for event in engine.events(0, job_id)]
        assert seen == [
            ("job", "SUBMITTED"),
            ("transfer", "ACTIVE"),
            ("job", "ACTIVE"),
            ("transfer", "FINISHED"),
            ("job", "FINISHED"),
        ]
        first = await anext(aiter(engine.events(0)))
        second = await anext(aiter(engine.events(first.seq)))
        assert second.seq > first.seq

    run(scenario)


@pytest.mark.parametrize(
    ("transfer", "field"),
    [
        (Transfer.of("nonsense", "sim://b/f"), "files[0].sources"),
        (Transfer.of("ftp://a/f", "sim://b/f"), "files[0].sources"),
        (Transfer.of("sim://a/f", "sim://b/"), "files[0].destinations"),
        (Transfer.of("sim://a/f", "sim://b/x/../f"), "files[0].destinations"),
        (Transfer.of("sim://a/f", "sim://b/f", checksum="adler32:xyz"), "files[0].checksum"),
        (Transfer.of("sim://a/f", "sim://b/f", size_bytes=-1), "files[0].filesize"),
        (Transfer(sources=(), destination="sim://b/f"), "files[0].sources"),
        (Transfer.of("sim://a/f", "sim://a/f"), "files[0]"),
    ],
)
def test_bad_input_names_its_field_and_stores_nothing(transfer: Transfer, field: str) -> None:
    async def scenario(engine: Engine, _storages: ScriptedAdapter) -> None:
        with pytest.raises(Invalid) as caught:
            await engine.submit(transfer)
        assert caught.value.field == field
        assert await engine.reader.last_event() == 0

    run(scenario)


@pytest.mark.parametrize("seed", range(12))
def test_everything_ends_rightly_under_random_faults(seed: int) -> None:
    """The oracle is the storages' own journal: no two writers, no wrong file called finished."""

    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        copy, look = frozenset({"copy"}), frozenset({"stat"})
        for rule in (
            Rule(operations=copy, chance=0.08, error=lambda: CopyFailed("disk"), at_bytes=1000),
            Rule(operations=copy, chance=0.05, lost=Lost.COMPLETED),
            Rule(operations=copy, chance=0.05, lost=Lost.GOES_ON),
            Rule(operations=copy, chance=0.05, lost=Lost.STOPPED),
            Rule(operations=copy, chance=0.05, lie=Lie.CORRUPT),
            Rule(operations=copy, chance=0.03, lie=Lie.SHORT),
            Rule(operations=copy, chance=0.03, stall=True, at_bytes=5000),
            Rule(operations=look, chance=0.02, error=lambda: Overloaded("busy", retry_after_s=30)),
        ):
            storages.add_rule(rule)
        hosts = "abcd"
        for host in hosts:
            storages.storage(f"sim://{host}")
        transfers = []
        for n in range(150):
            source, dest = hosts[n % 4], hosts[(n + 1 + n // 4 % 3) % 4]
            storages.storage(f"sim://{source}").add(f"/src/{n}", size_bytes=10_000 * (n + 1) ** 2)
            transfers.append(Transfer.of(f"sim://{source}/src/{n}", f"sim://{dest}/dst/{n}"))
        jobs = [await engine.submit(transfers[at : at + 10], vo=f"vo{at % 3}") for at in range(0, 150, 10)]
        n_finished = 0
        for job_id in jobs:
            await engine.wait(job_id)
            for file in await engine.files(job_id):
                host, path = file.dest_url[len("sim://") :].split("/", 1)
                there = storages.storage(f"sim://{host}").files().get("/" + path)
                if file.state is FileState.FINISHED:
                    source = storages.storage(file.source_se).files().get("/" + file.source_url.split("/", 3)[3])
                    assert there is not None
                    assert source is not None
                    assert there.size_bytes == source.size_bytes
                    assert there.checksum("adler32") == source.checksum("adler32")
                    n_finished += 1
                else:
                    assert file.state is FileState.FAILED
        assert n_finished >= 140
        assert not [entry for entry in storages.journal if entry.operation == "conflict"]
        await asyncio.sleep(1)
        assert not engine.running()
        assert all(link.ready == 0 and link.active == 0 for link in engine.links())

    run(scenario, seed=seed)


def test_a_missing_source_is_not_a_storage_fault_for_others() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://a/gone", operations={"stat"}, error=lambda: Missing("gone"))
        good = [_file(storages, f"/{n}") for n in range(5)]
        job = await engine.wait(await engine.submit([*good, Transfer.of("sim://a/gone", "sim://b/gone")]))
        assert (job.state, job.n_finished, job.n_failed) == (JobState.FINISHEDDIRTY, 5, 1)

    run(scenario)


def test_remains_of_a_failed_attempt_go_with_the_cancellation_of_its_retry() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.add_rule(
            Rule(match="sim://b/*", operations=frozenset({"copy"}), error=lambda: CopyFailed("disk"), at_bytes=500)
        )
        stuck = storages.rule("sim://b/*", operations={"delete"}, error=lambda: Overloaded("busy"))
        transfer = _file(storages)
        storages.storage("sim://b")
        job_id = await engine.submit(transfer, options=JobOptions(retry_delay_s=600))
        while not any(link.retried for link in engine.links()):
            await asyncio.sleep(1)
        assert storages.storage("sim://b").files()
        assert (await engine.files(job_id))[0].state is FileState.SUBMITTED
        storages.remove_rule(stuck)
        await engine.cancel(job_id)
        while (await engine.files(job_id))[0].state is not FileState.CANCELED:
            await asyncio.sleep(1)
        assert storages.storage("sim://b").files() == {}

    run(scenario)


def test_trouble_at_the_destination_spends_no_replica() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        _file(storages)
        storages.storage("sim://c").add("/f", size_bytes=1_000_000)
        storages.rule(
            "sim://b/*",
            operations={"copy"},
            attempts=range(1, 3),
            error=lambda: CopyFailed("disk", scope=Scope.DESTINATION),
        )
        transfer = Transfer(sources=("sim://a/f", "sim://c/f"), destination="sim://b/f")
        job = await engine.wait(await engine.submit(transfer))
        states = [file.state for file in await engine.files(job.job_id)]
        assert states == [FileState.FINISHED, FileState.NOT_USED]

    run(scenario)
