"""What may happen to a destination: FTS's overwrite words, its report, its clean-up, its strict copies."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import CopyFailed, Overloaded
from protocols.scripted import Lie, Lost, Rule, ScriptedAdapter, SimFile
from transfer_engine import FileState, JobOptions, JobRequest, JobState, JobType, Transfer
from transfer_engine.engine import Engine
from transfer_engine.model import Verify
from transfer_engine.testing import run

S = FileState
SIZE = 1_000_000
EXISTS = "DESTINATION [17] Destination file exists and overwrite is not enabled"


def storages_of(storages: ScriptedAdapter, *hosts: str) -> Transfer:
    for host in hosts or ("b",):
        storages.storage(f"sim://{host}")
    storages.storage("sim://a").add("/f", size_bytes=SIZE)
    return Transfer.of("sim://a/f", "sim://b/f")


def failing(storages: ScriptedAdapter, n: int = 1, *, at_bytes: int | None = 500) -> None:
    """The first copies fail in the middle and leave a partial file."""
    rule = Rule(
        match="sim://b/*",
        operations=frozenset({"copy"}),
        attempts=range(1, n + 1),
        error=lambda: CopyFailed("disk"),
        at_bytes=at_bytes,
    )
    storages.add_rule(rule)


def foreign(storages: ScriptedAdapter, endpoint: str = "sim://b") -> SimFile:
    return storages.storage(endpoint).add("/f", size_bytes=7)


async def outcome(engine: Engine, transfer: Transfer, **options: Any) -> tuple[JobState, str | None]:
    job = await engine.wait(await engine.submit(transfer, options=JobOptions(**options)))
    (file,) = await engine.files(job.job_id)
    return job.state, file.reason


@pytest.mark.parametrize("options", [{}, {"overwrite_on_retry": True}, {"overwrite_hops": True}])
def test_a_first_attempt_leaves_what_is_there(options: dict[str, Any]) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = storages_of(storages)
        there = foreign(storages)
        assert await outcome(engine, transfer, **options) == (JobState.FAILED, EXISTS)
        assert storages.storage("sim://b").files()["/f"] == there

    run(scenario)


@pytest.mark.parametrize(("on_retry", "state"), [(True, JobState.FINISHED), (False, JobState.FAILED)])
def test_overwrite_on_retry_begins_with_the_second_attempt(on_retry: bool, state: JobState) -> None:
    """Somebody's file came between the first attempt, which failed, and the second."""

    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = storages_of(storages)
        failing(storages, at_bytes=None)
        job_id = await engine.submit(transfer, options=JobOptions(overwrite_on_retry=on_retry, retry_delay_s=60))
        while not (await engine.files(job_id))[0].n_failed:
            await asyncio.sleep(1)
        foreign(storages)
        assert (await engine.wait(job_id)).state is state
        size = storages.storage("sim://b").files()["/f"].size_bytes
        assert size == (SIZE if on_retry else 7)

    run(scenario)


@pytest.mark.parametrize(
    ("there", "hops", "state"),
    [
        ("b", True, [S.FINISHED, S.FINISHED]),
        ("c", True, [S.FINISHED, S.FAILED]),
        ("b", False, [S.FAILED, S.NOT_USED]),
    ],
)
def test_overwrite_hop_replaces_what_is_on_the_way_but_not_at_the_end(
    there: str, hops: bool, state: list[FileState]
) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages_of(storages, "b", "c")
        foreign(storages, f"sim://{there}")
        legs = tuple(Transfer.of(*pair) for pair in itertools.pairwise(f"sim://{host}/f" for host in "abc"))
        options = JobOptions(overwrite_hops=hops)
        job_id = await engine.submit(JobRequest(transfers=legs, job_type=JobType.MULTIHOP, options=options))
        await engine.wait(job_id)
        files = await engine.files(job_id)
        assert [file.state for file in files] == state
        assert EXISTS in {file.reason for file in files} or S.FAILED not in state
        unused = [file for file in files if file.state is S.NOT_USED]
        assert all(file.reason is None for file in unused)

    run(scenario)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("checksum", [None, "MD5:" + "0" * 32])
def test_what_is_in_the_way_is_reported_when_it_was_asked_for(asked: bool, checksum: str | None) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages_of(storages)
        there = foreign(storages)
        transfer = Transfer.of("sim://a/f", "sim://b/f", checksum=checksum)
        options = JobOptions(dst_file_report=asked, verify=Verify.NONE)
        job = await engine.wait(await engine.submit(transfer, options=options))
        (file,) = await engine.files(job.job_id)
        algorithm = "md5" if checksum else "adler32"
        seen = there.checksum(algorithm)
        assert seen is not None
        assert file.failure is not None
        assert file.failure.get("dst_file") == (
            {
                "file_size": 7,
                "checksum_type": algorithm.upper(),
                "checksum_value": seen.value,
                "file_on_tape": False,
                "file_on_disk": True,
            }
            if asked
            else None
        )

    run(scenario)


def test_a_report_without_a_checksum_is_still_a_report() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = storages_of(storages)
        foreign(storages)
        storages.add_rule(Rule(match="sim://b/*", operations=frozenset({"stat"}), digests=False))
        job = await engine.wait(await engine.submit(transfer, options=JobOptions(dst_file_report=True)))
        (file,) = await engine.files(job.job_id)
        assert file.failure is not None
        report = file.failure["dst_file"]
        assert (report["file_size"], report["checksum_type"], report["checksum_value"]) == (7, "", "")

    run(scenario)


@pytest.mark.parametrize("keep", [True, False])
def test_remains_stay_when_the_job_says_so(keep: bool) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = storages_of(storages)
        failing(storages, 9)
        state, _ = await outcome(engine, transfer, keep_remains=keep, retries_max=0)
        assert state is JobState.FAILED
        assert bool(storages.storage("sim://b").files()) is keep
        assert any(entry.operation == "delete" for entry in storages.journal) is not keep

    run(scenario)


def test_remains_of_a_cancelled_copy_stay_when_the_job_says_so() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages_of(storages)
        storages.storage("sim://a").add("/g", size_bytes=10**12)
        transfer = Transfer.of("sim://a/g", "sim://b/g")
        job_id = await engine.submit(transfer, options=JobOptions(keep_remains=True))
        await asyncio.sleep(60)
        await engine.cancel(job_id)
        while (await engine.files(job_id))[0].state is not S.CANCELED:
            await asyncio.sleep(1)
        assert "/g" in storages.storage("sim://b").files()
        assert not any(entry.operation == "delete" for entry in storages.journal)

    run(scenario)


def test_the_next_attempt_replaces_remains_that_are_ours_without_being_asked() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = storages_of(storages)
        failing(storages)
        assert await outcome(engine, transfer, keep_remains=True) == (JobState.FINISHED, None)
        assert storages.storage("sim://b").files()["/f"].size_bytes == SIZE

    run(scenario)


def looks(storages: ScriptedAdapter, url: str) -> int:
    return sum(entry.operation == "stat" and entry.url == url for entry in storages.journal)


@pytest.mark.parametrize(("declared", "n_source"), [(SIZE, 0), (None, 1)])
def test_a_strict_copy_asks_little_and_still_has_evidence(declared: int | None, n_source: int) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages_of(storages)
        transfer = Transfer.of("sim://a/f", "sim://b/f", size_bytes=declared, checksum="ADLER32:1")
        job = await engine.wait(await engine.submit(transfer, options=JobOptions(strict_copy=True)))
        (file,) = await engine.files(job.job_id)
        assert (file.state, file.evidence, file.seen_bytes) == (S.FINISHED, "size", SIZE)
        assert looks(storages, "sim://a/f") == n_source
        assert looks(storages, "sim://b/f") == 2

    run(scenario)


@pytest.mark.parametrize("lie", [Lie.SHORT, Lie.NOTHING])
@pytest.mark.parametrize("declared", [SIZE, None])
def test_a_strict_copy_is_not_believed_without_a_look(lie: Lie, declared: int | None) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages_of(storages)
        storages.rule("sim://b/*", operations={"copy"}, lie=lie)
        transfer = Transfer.of("sim://a/f", "sim://b/f", size_bytes=declared)
        state, reason = await outcome(engine, transfer, strict_copy=True, retries_max=0)
        assert state is JobState.FAILED
        assert reason is not None
        assert reason.startswith("DESTINATION [")

    run(scenario)


def test_a_strict_copy_leaves_what_is_there() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages_of(storages)
        there = foreign(storages)
        transfer = Transfer.of("sim://a/f", "sim://b/f", size_bytes=SIZE)
        assert await outcome(engine, transfer, strict_copy=True) == (JobState.FAILED, EXISTS)
        assert storages.storage("sim://b").files()["/f"] == there

    run(scenario)


@pytest.mark.parametrize(
    ("given", "verify", "where", "reason"),
    [
        (True, Verify.BOTH, "a", "SOURCE [5] Source and user-defined ADLER32 checksum do not match (OTHER != SUM)"),
        (True, Verify.SOURCE, "a", "SOURCE [5] Source and user-defined ADLER32 checksum do not match (OTHER != SUM)"),
        (
            True,
            Verify.TARGET,
            "b",
            "DESTINATION [5] User-defined and destination ADLER32 checksum do not match (SUM != OTHER)",
        ),
        (
            True,
            Verify.BOTH,
            "b",
            "DESTINATION [5] User-defined and destination ADLER32 checksum do not match (SUM != OTHER)",
        ),
        (
            False,
            Verify.BOTH,
            "b",
            "DESTINATION [5] Source and destination ADLER32 checksum do not match (SUM != OTHER)",
        ),
    ],
)
def test_the_sentences_about_checksums_are_ftss(given: bool, verify: Verify, where: str, reason: str) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = storages_of(storages)
        true = SimFile(size_bytes=SIZE)
        if where == "a":
            storages.storage("sim://a").put("/f", true.corrupted())
        storages.rule("sim://b/*", operations={"copy"}, lie=Lie.CORRUPT)
        right, wrong = true.checksum("adler32"), true.corrupted().checksum("adler32")
        assert right is not None
        assert wrong is not None
        if given:
            transfer = replace(transfer, checksum=str(right))
        found = await outcome(engine, transfer, verify=verify, retries_max=0)
        assert found == (JobState.FAILED, reason.replace("SUM", right.value).replace("OTHER", wrong.value))

    run(scenario)


def test_a_size_that_differs_is_told_in_ftss_words() -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        transfer = storages_of(storages)
        storages.rule("sim://b/*", operations={"copy"}, lie=Lie.SHORT)
        _, reason = await outcome(engine, transfer, retries_max=0)
        assert reason == f"DESTINATION [22] Source and destination file size mismatch ({SIZE} != {SIZE // 2})"

    run(scenario)


KINDS = (
    JobOptions(),
    JobOptions(overwrite=True),
    JobOptions(overwrite_on_retry=True),
    JobOptions(strict_copy=True),
    JobOptions(keep_remains=True),
    JobOptions(keep_remains=True, overwrite_on_retry=True, dst_file_report=True),
    JobOptions(keep_remains=True, strict_copy=True),
)


def troubled(storages: ScriptedAdapter) -> None:
    copies = frozenset({"copy"})
    for rule in (
        Rule(operations=copies, chance=0.1, error=lambda: CopyFailed("disk"), at_bytes=1000),
        Rule(operations=copies, chance=0.05, lost=Lost.COMPLETED),
        Rule(operations=copies, chance=0.05, lost=Lost.GOES_ON),
        Rule(operations=copies, chance=0.05, lost=Lost.STOPPED),
        Rule(operations=copies, chance=0.05, lie=Lie.SHORT),
        Rule(operations=copies, chance=0.03, stall=True, at_bytes=5000),
        Rule(operations=frozenset({"stat"}), chance=0.02, error=lambda: Overloaded("busy", retry_after_s=30)),
    ):
        storages.add_rule(rule)


@pytest.mark.parametrize("seed", range(6))
def test_nobodys_file_is_lost_and_nothing_short_is_finished_whatever_is_asked_for(seed: int) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        troubled(storages)
        storages.storage("sim://a")
        there, jobs = {}, {}
        for n in range(105):
            storages.storage("sim://a").add(f"/{n}", size_bytes=10_000 * (n + 1), seed=n)
            if n % 4 == 0:
                there[n] = storages.storage("sim://b").add(f"/{n}", size_bytes=7, seed=1000 + n)
        storages.storage("sim://b")
        for n in range(105):
            transfer = Transfer.of(f"sim://a/{n}", f"sim://b/{n}", size_bytes=None if n % 3 else 10_000 * (n + 1))
            jobs[n] = await engine.submit(transfer, options=KINDS[n % len(KINDS)])
        for n, job_id in jobs.items():
            state = (await engine.wait(job_id)).state
            options = KINDS[n % len(KINDS)]
            found = storages.storage("sim://b").files().get(f"/{n}")
            if n in there and not options.overwrite:
                assert (state, found) == (JobState.FAILED, there[n])
            elif state is JobState.FINISHED:
                source = storages.storage("sim://a").files()[f"/{n}"]
                assert found is not None
                assert found.size_bytes == source.size_bytes
                assert options.strict_copy or found.checksum("adler32") == source.checksum("adler32")
        assert not [entry for entry in storages.journal if entry.operation == "conflict"]

    run(scenario, seed=seed)
