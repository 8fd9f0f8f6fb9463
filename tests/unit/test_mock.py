"""`mock://` alone: each argument of gfal2's mock plugin, and what a whole engine makes of them."""

from __future__ import annotations

import asyncio
import errno as codes
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from protocols.api import CopyRequest, Mode, Timeouts
from protocols.checksum import Checksum, compute
from protocols.errors import (
    AlreadyExists,
    CopyFailed,
    Denied,
    Missing,
    NoSpace,
    Overloaded,
    Refused,
    SizeMismatch,
    TimedOut,
    TransferError,
    Unavailable,
)
from protocols.mock import MockAdapter
from transfer_engine import FileState, JobOptions, JobRequest, JobState, JobType, Transfer
from transfer_engine.config import Settings
from transfer_engine.model import Verify
from transfer_engine.testing import deps, run_virtual
from transfer_engine.views import FileView
from transfer_engine.wiring import TransferEngine, storages

SOURCE, TARGET = "mock://a/f?size=1000", "mock://b/f?size_post=1000"


def looking(scenario: Callable[[MockAdapter], Awaitable[Any]]) -> Any:
    return run_virtual(lambda: scenario(MockAdapter()))


async def copy(adapter: MockAdapter, source: str = SOURCE, target: str = TARGET, **more: Any) -> Any:
    request = CopyRequest(source_url=source, destination_url=target, mode=Mode.PULL, **more)
    markers: list[int] = []
    end = await adapter.copy(request, lambda marker: markers.append(marker.bytes_done))
    return end, markers


def test_the_looks_of_one_copy() -> None:
    async def scenario(adapter: MockAdapter) -> None:
        assert (await adapter.stat(SOURCE)).size_bytes == 1000
        with pytest.raises(Missing, match="mock://b/f: No such file or directory"):
            await adapter.stat(TARGET)
        await copy(adapter)
        for _ in range(2):
            assert (await adapter.stat(TARGET)).size_bytes == 1000
        assert await adapter.delete(TARGET)
        assert not await adapter.delete(TARGET)
        with pytest.raises(Missing):
            await adapter.stat(TARGET)

    looking(scenario)


def test_nothing_stays_for_the_next_copy() -> None:
    async def scenario(adapter: MockAdapter) -> None:
        for _ in range(2):

            async def one() -> None:
                await adapter.stat(SOURCE)
                with pytest.raises(Missing):
                    await adapter.stat(TARGET)
                await copy(adapter)

            async with asyncio.TaskGroup() as group:
                group.create_task(one())

    looking(scenario)


@pytest.mark.parametrize("there", ["size_pre=7", "exists=1", "access=1"])
def test_a_destination_that_exists(there: str) -> None:
    async def scenario(adapter: MockAdapter) -> None:
        url = f"mock://b/f?{there}&size_post=9"
        await adapter.stat(SOURCE)
        assert (await adapter.stat(url)).size_bytes == (7 if "size_pre" in there else None)
        assert await adapter.delete(url)
        with pytest.raises(Missing):
            await adapter.stat(url)
        await copy(adapter, target=url)
        assert (await adapter.stat(url)).size_bytes == 9

    looking(scenario)


@pytest.mark.parametrize("nothing", ["size_pre=0", "exists=0", "access=no", ""])
def test_a_destination_that_does_not(nothing: str) -> None:
    async def scenario(adapter: MockAdapter) -> None:
        await adapter.stat(SOURCE)
        with pytest.raises(Missing):
            await adapter.stat(f"mock://b/f?{nothing}")
        with pytest.raises(Denied, match="Permission denied"):
            await adapter.stat("mock://b/f?access_errno=13")

    looking(scenario)


@pytest.mark.parametrize(
    ("source", "target", "declared", "size"),
    [
        ("size=5", "size_post=6", None, 6),
        ("size=5", "", 5, 0),
        ("", "", 7, 7),
        ("", "", None, 0),
        ("", "size_post=3", 7, 3),
        ("size=x", "size_post=-1", None, 0),
    ],
)
def test_how_long_a_copy_is(source: str, target: str, declared: int | None, size: int) -> None:
    async def scenario(adapter: MockAdapter) -> None:
        url = f"mock://b/f?{target}"
        await adapter.stat(f"mock://a/f?{source}")
        await copy(adapter, f"mock://a/f?{source}", url, size_bytes=declared)
        assert (await adapter.stat(url)).size_bytes == size

    looking(scenario)


@pytest.mark.parametrize(
    ("source", "target", "seconds"), [("", "time=5", 5), ("time=30", "", 30), ("time=30", "time=2", 2), ("", "", 0)]
)
def test_how_long_a_copy_takes(source: str, target: str, seconds: int) -> None:
    async def scenario(adapter: MockAdapter) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        end, markers = await copy(adapter, f"mock://a/f?{source}", f"mock://b/f?size_post=100&{target}")
        assert loop.time() - began == pytest.approx(seconds)
        assert markers == [int(100 * (n + 1) / seconds) for n in range(seconds)]
        assert end.n_markers == seconds

    looking(scenario)


def test_a_copy_can_be_cancelled_and_has_a_deadline() -> None:
    async def scenario(adapter: MockAdapter) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(copy(adapter, target="mock://b/f?time=1000"))
        await asyncio.sleep(10)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert loop.time() == pytest.approx(10)
        with pytest.raises(TimedOut, match="longer than 60 s"):
            await copy(adapter, target="mock://b/f?time=1000", timeouts=Timeouts(total_s=60))

    looking(scenario)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (codes.ENOENT, Missing),
        (codes.EEXIST, AlreadyExists),
        (codes.EACCES, Denied),
        (codes.EPERM, Denied),
        (codes.ENOSPC, NoSpace),
        (codes.ETIMEDOUT, TimedOut),
        (codes.EBUSY, Overloaded),
        (codes.ECOMM, Unavailable),
        (codes.EHOSTDOWN, Unavailable),
        (codes.EISDIR, Refused),
        (codes.ENOSYS, Refused),
        (codes.EIO, CopyFailed),
        (9999, CopyFailed),
    ],
)
def test_error_numbers(number: int, kind: type[TransferError]) -> None:
    async def scenario(adapter: MockAdapter) -> None:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: adapter.stat(f"mock://a/f?errno={number}", digest="adler32"),
            lambda: adapter.delete(f"mock://a/f?errno={number}"),
            lambda: adapter.list_directory(f"mock://a/f?list=x&errno={number}"),
            lambda: copy(adapter, target=f"mock://b/f?transfer_errno={number}&time=100"),
            lambda: _read(adapter, f"mock://a/f?open_errno={number}"),
            lambda: _read(adapter, f"mock://a/f?size=1&read_errno={number}"),
        ]
        for call in calls:
            with pytest.raises(kind) as caught:
                await call()
            assert type(caught.value) is kind
            assert (caught.value.errno, caught.value.message) == (number, os.strerror(number))
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    looking(scenario)


@pytest.mark.parametrize("value", ["0", "-2", "x", "", "٣", "9" * 30])
def test_what_is_no_error_number(value: str) -> None:
    async def scenario(adapter: MockAdapter) -> None:
        assert (await adapter.stat(f"mock://a/f?size=1&errno={value}")).size_bytes == 1

    looking(scenario)


def test_waiting_and_signals() -> None:
    async def scenario(adapter: MockAdapter) -> None:
        loop = asyncio.get_running_loop()
        await adapter.stat("mock://a/f?wait=7")
        assert loop.time() == pytest.approx(7)
        with pytest.raises(TimedOut, match="no answer within 60 s"):
            await adapter.stat("mock://a/f?wait=100000")
        with pytest.raises(CopyFailed, match="killed by signal 11"):
            await adapter.stat("mock://a/f?signal=11")

    looking(scenario)


def test_checksums_are_of_any_algorithm_and_any_text() -> None:
    async def scenario(adapter: MockAdapter) -> None:
        url = "mock://a/f?checksum=0A0B0C"
        assert (await adapter.stat(url)).checksums == {}
        assert (await adapter.stat(url, digest="adler32")).checksums == {"adler32": Checksum("adler32", "000a0b0c")}
        stat = await adapter.stat("mock://a/f?checksum=randomString2", digest="md5")
        assert stat.checksums == {"md5": Checksum("md5", "randomString2")}
        assert (await adapter.stat("mock://a/f", digest="md5")).checksums == {}

    run_virtual(lambda: scenario(_AllSources()))


class _AllSources(MockAdapter):
    """Each look is a copy's first."""

    def _try(self, url: str) -> Any:
        self._tries.clear()
        return super()._try(url)


def test_directories() -> None:
    async def scenario(adapter: MockAdapter) -> None:
        url = "mock://a/d/?list=f:0644:12,g:40755:4096,h,i:rw:x"
        assert (await adapter.stat(url)).is_directory
        entries = await adapter.list_directory(url)
        assert [(e.name, e.url, e.is_directory, e.size_bytes) for e in entries] == [
            ("f", "mock://a/d/f", False, 12),
            ("g", "mock://a/d/g", True, None),
            ("h", "mock://a/d/h", False, 0),
            ("i", "mock://a/d/i", False, 0),
        ]
        with pytest.raises(Refused, match="Not a directory"):
            await adapter.list_directory(SOURCE)
        await adapter.make_parents(SOURCE)
        with pytest.raises(Denied, match="Operation not permitted"):
            await adapter.make_parents("mock://a/ro/d/f?rd_path=mock://a/ro&rd_path=mock://a/other")

    looking(scenario)


async def _read(adapter: MockAdapter, url: str) -> bytes:
    async with adapter.read(url) as stream:
        return b"".join([block async for block in stream])


async def _blocks(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


def test_reading_and_writing() -> None:
    async def scenario(adapter: MockAdapter) -> None:
        data = await _read(adapter, "mock://a/f?size=3000000&read_wait=2")
        assert compute("adler32", data) == compute("adler32", bytes(3_000_000))
        assert asyncio.get_running_loop().time() == pytest.approx(6)
        await adapter.write("mock://b/w", _blocks(b"ab", b"c"), size_bytes=3, overwrite=False)
        assert (await adapter.stat("mock://b/w")).size_bytes == 3
        with pytest.raises(AlreadyExists):
            await adapter.write("mock://b/w", _blocks(b"x"), size_bytes=1, overwrite=False)
        await adapter.write("mock://b/w", _blocks(b"x"), size_bytes=1, overwrite=True)
        with pytest.raises(SizeMismatch):
            await adapter.write("mock://b/v", _blocks(b"x"), size_bytes=2, overwrite=False)
        with pytest.raises(NoSpace):
            await adapter.write("mock://b/v?transfer_errno=28", _blocks(b"x"), size_bytes=1, overwrite=False)
        await adapter.aclose()

    looking(scenario)


# A whole engine


def engine_of() -> TransferEngine:
    settings = Settings()
    return TransferEngine(
        "sqlite://",
        settings=settings,
        adapters=[MockAdapter()],
        deps=deps(asyncio.get_running_loop(), 0),
        inline=True,
    )


def end_of(*transfers: Transfer, job_type: JobType | None = None, **options: Any) -> tuple[JobState, list[FileView]]:
    async def main() -> tuple[JobState, list[FileView]]:
        async with engine_of() as engine:
            request = JobRequest(transfers=transfers, options=JobOptions(**options), job_type=job_type)
            job = await engine.wait(await engine.submit(request))
            return job.state, await engine.files(job.job_id)

    return run_virtual(main)


SUM = "02fa10b3"


@pytest.mark.parametrize(
    ("source", "target", "verify", "reason"),
    [
        ("", "", Verify.NONE, None),
        ("size=2", "size_post=2&time=5", Verify.NONE, None),
        ("time=30", "", Verify.NONE, None),
        (f"checksum={SUM}", f"checksum={SUM}", Verify.BOTH, None),
        (f"checksum={SUM}", "checksum=randomString2", Verify.SOURCE, None),
        (
            f"checksum={SUM}",
            "checksum=randomString2",
            Verify.TARGET,
            f"DESTINATION [5] User-defined and destination ADLER32 checksum do not match ({SUM} != randomString2)",
        ),
        (
            f"checksum={SUM}",
            "checksum=randomString2",
            Verify.BOTH,
            f"DESTINATION [5] User-defined and destination ADLER32 checksum do not match ({SUM} != randomString2)",
        ),
        (
            "checksum=1",
            "",
            Verify.BOTH,
            f"SOURCE [5] Source and user-defined ADLER32 checksum do not match (00000001 != {SUM})",
        ),
        ("errno=2", "", Verify.NONE, "SOURCE [2] No such file or directory"),
        ("errno=13", "", Verify.NONE, "SOURCE [13] Permission denied"),
        ("", "errno=13", Verify.NONE, "DESTINATION [13] Permission denied"),
        ("", "access_errno=1", Verify.NONE, "DESTINATION [1] Operation not permitted"),
        ("", "transfer_errno=1&time=9", Verify.NONE, "TRANSFER [1] Operation not permitted"),
        ("", "transfer_errno=5", Verify.NONE, "TRANSFER [5] Input/output error"),
        (
            "size=2",
            "size_post=3",
            Verify.NONE,
            "DESTINATION [22] Source and destination file size mismatch (2 != 3)",
        ),
        (
            "",
            "size_pre=1",
            Verify.NONE,
            "DESTINATION [17] Destination file exists and overwrite is not enabled",
        ),
        ("list=x", "", Verify.NONE, "SOURCE [22] source is a directory, not a file"),
    ],
)
def test_transfers_as_rucios_tests_write_them(source: str, target: str, verify: Verify, reason: str | None) -> None:
    transfer = Transfer.of(
        f"mock://s.cern.ch/p/f?{source}", f"mock://d.cern.ch/p/f?{target}", size_bytes=2, checksum=f"ADLER32:{SUM}"
    )
    state, (file,) = end_of(transfer, verify=verify)
    assert (state, file.reason) == (JobState.FINISHED if reason is None else JobState.FAILED, reason)
    assert file.seen_bytes == (2 if reason is None else None)


def test_a_destination_in_the_way_is_overwritten_when_asked() -> None:
    transfer = Transfer.of("mock://s/f", "mock://d/f?size_pre=1&size_post=2", size_bytes=2)
    state, _ = end_of(transfer, verify=Verify.NONE, overwrite=True)
    assert state is JobState.FINISHED


def test_hops_and_the_same_destination_again() -> None:
    urls = [f"mock://{host}/f" for host in "abc"]
    hops = [Transfer.of(urls[0], urls[1], size_bytes=2), Transfer.of(urls[1], urls[2], size_bytes=2)]
    state, files = end_of(*hops, job_type=JobType.MULTIHOP, verify=Verify.NONE)
    assert (state, [file.state for file in files]) == (JobState.FINISHED, [FileState.FINISHED] * 2)

    async def main() -> None:
        async with engine_of() as engine:
            for _ in range(2):
                job_id = await engine.submit(hops[0], options=JobOptions(verify=Verify.NONE))
                assert (await engine.wait(job_id)).state is JobState.FINISHED

    run_virtual(main)


def test_a_cancelled_copy_ends() -> None:
    async def main() -> None:
        async with engine_of() as engine:
            job_id = await engine.submit(Transfer.of("mock://s/f?time=3000", "mock://d/f", size_bytes=10**9))
            await asyncio.sleep(30)
            assert (await engine.files(job_id))[0].state is FileState.ACTIVE
            await engine.cancel(job_id)
            assert (await engine.wait(job_id)).state is JobState.CANCELED
            assert asyncio.get_running_loop().time() < 120

    run_virtual(main)


def test_mock_is_off_unless_it_is_switched_on() -> None:
    async def schemes(*, mock: bool) -> set[str]:
        settings = Settings(transfer={"mock": mock})  # type: ignore[arg-type]  # as a settings file has it
        adapters = storages(settings)
        found = {scheme for adapter in adapters for scheme in adapter.schemes}
        for adapter in adapters:
            await adapter.aclose()
        return found

    assert asyncio.run(schemes(mock=True)) - asyncio.run(schemes(mock=False)) == {"mock"}
    assert not Settings().transfer.mock
