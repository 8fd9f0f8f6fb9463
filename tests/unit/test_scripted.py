"""The scripted adapter: what its rules do, in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from protocols.api import CopyRequest, Marker, Mode, Timeouts
from protocols.checksum import compute
from protocols.errors import (
    AlreadyExists,
    CopyFailed,
    Missing,
    OutcomeUnknown,
    ParentMissing,
    Refused,
    Scope,
    Stalled,
    TimedOut,
    Unavailable,
    Unsupported,
)
from protocols.scripted import Lie, Lost, Rule, ScriptedAdapter, SimFile
from transfer_engine.testing import run_virtual

A, B = "sim://a/f", "sim://b/f"
SIZE = 1_000_000_000
"""Ten seconds at the default rate."""


def storages(**default) -> ScriptedAdapter:
    adapter = ScriptedAdapter(default=Rule(**default))
    adapter.storage("sim://a").add("/f", size_bytes=SIZE, seed=3)
    adapter.storage("sim://b")
    return adapter


def request(**more) -> CopyRequest:
    return CopyRequest(**({"source_url": A, "destination_url": B, "mode": Mode.PULL} | more))


def ignore(_marker: Marker) -> None:
    """No marker matters here."""


async def size(adapter: ScriptedAdapter, url: str = B) -> int | None:
    return (await adapter.stat(url)).size_bytes


def test_a_copy_takes_its_time_and_reports_it():
    adapter, markers = storages(), []

    async def main():
        end = await adapter.copy(request(), markers.append)
        assert asyncio.get_running_loop().time() == pytest.approx(10)
        assert end.bytes_done == SIZE
        source, copied = await adapter.stat(A, digest="adler32"), await adapter.stat(B, digest="adler32")
        assert (source.size_bytes, source.checksums) == (copied.size_bytes, copied.checksums)

    run_virtual(main)
    assert [marker.bytes_done for marker in markers] == pytest.approx([SIZE // 2, SIZE], rel=1e-3)
    assert [entry.operation for entry in adapter.journal] == ["copy", "copied", "stat", "stat"]


def test_errors_by_attempt():
    adapter = storages()
    adapter.rule("sim://b/*", operations={"copy"}, attempts=range(1, 3), error=lambda: CopyFailed("disk"))

    async def main():
        for _ in range(2):
            with pytest.raises(CopyFailed):
                await adapter.copy(request(), ignore)
        await adapter.copy(request(), ignore)

    run_virtual(main)


def test_an_error_halfway_leaves_a_partial_file():
    adapter = storages()
    adapter.add_rule(Rule(match=A, operations=frozenset({"copy"}), error=lambda: CopyFailed("x"), at_bytes=1000))

    async def main():
        with pytest.raises(CopyFailed):
            await adapter.copy(request(), ignore)
        assert await size(adapter) == 1000

    run_virtual(main)


@pytest.mark.parametrize(
    ("lost", "at_once", "later"),
    [(Lost.COMPLETED, SIZE, SIZE), (Lost.GOES_ON, SIZE // 2, SIZE), (Lost.STOPPED, SIZE // 2, SIZE // 2)],
)
def test_lost_answers(lost, at_once, later):
    adapter = storages()
    adapter.rule("sim://b", operations={"copy"}, lost=lost)

    async def main():
        with pytest.raises(OutcomeUnknown) as caught:
            await adapter.copy(request(), ignore)
        assert caught.value.unsettled
        assert await size(adapter) == pytest.approx(at_once, rel=1e-4)
        await asyncio.sleep(60)
        assert await size(adapter) == pytest.approx(later, rel=1e-4)

    run_virtual(main)


def test_a_second_writer_is_a_conflict_in_the_journal():
    adapter = storages()
    adapter.rule("sim://b", operations={"copy"}, attempts=range(1, 2), lost=Lost.GOES_ON)

    async def main():
        with pytest.raises(OutcomeUnknown):
            await adapter.copy(request(), ignore)
        await adapter.copy(request(overwrite=True), ignore)

    run_virtual(main)
    assert "conflict" in {entry.operation for entry in adapter.journal}


@pytest.mark.parametrize("lie", list(Lie))
def test_lies(lie):
    adapter = storages()
    adapter.rule("sim://b", operations={"copy"}, lie=lie)

    async def main():
        await adapter.copy(request(), ignore)
        if lie is Lie.NOTHING:
            with pytest.raises(Missing):
                await adapter.stat(B)
            return
        source, copied = await adapter.stat(A, digest="adler32"), await adapter.stat(B, digest="adler32")
        assert (source.size_bytes == copied.size_bytes) is (lie is Lie.CORRUPT)
        assert source.checksums != copied.checksums

    run_virtual(main)


@pytest.mark.parametrize(("silent", "limit_s"), [(False, 300.0), (True, 120.0)])
def test_stalls_end_by_their_limit(silent, limit_s):
    adapter = storages(stall=True, silent=silent)

    async def main():
        with pytest.raises(Stalled) as caught:
            await adapter.copy(request(), ignore)
        assert caught.value.unsettled
        assert asyncio.get_running_loop().time() == pytest.approx(limit_s)

    run_virtual(main)


def test_slow_answers_time_out():
    adapter = storages(latency_s=100.0)

    async def main():
        with pytest.raises(TimedOut):
            await adapter.stat(A, timeouts=Timeouts(request_s=50.0))
        assert asyncio.get_running_loop().time() == pytest.approx(50.0)

    run_virtual(main)


def test_the_whole_copy_has_a_limit():
    async def main():
        with pytest.raises(TimedOut):
            await storages().copy(request(timeouts=Timeouts(total_s=4.0)), ignore)
        assert asyncio.get_running_loop().time() == pytest.approx(4.0)

    run_virtual(main)


def test_a_cancelled_copy_writes_on_for_a_while():
    adapter = storages()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await adapter.copy(request(), ignore)
        assert await size(adapter) == pytest.approx(SIZE * 0.2, rel=1e-3)
        await asyncio.sleep(60)
        assert await size(adapter) == pytest.approx(SIZE * 0.7, rel=1e-3)

    run_virtual(main)
    assert "cancelled" in {entry.operation for entry in adapter.journal}


def test_what_a_destination_refuses():
    adapter = ScriptedAdapter()
    adapter.storage("sim://a", push=False).add("/f", size_bytes=1)
    storage = adapter.storage("sim://b", pull=False, needs_parents=True)
    storage.add("/d/there", size_bytes=1)

    async def main():
        with pytest.raises(Unsupported):
            await adapter.copy(request(mode=Mode.PULL), ignore)
        with pytest.raises(Unsupported):
            await adapter.copy(request(mode=Mode.PUSH), ignore)
        with pytest.raises(Unavailable):
            await adapter.stat("sim://nowhere/x")
        with pytest.raises(ParentMissing):
            adapter.check_destination("sim://b/new/f", overwrite=False)
        with pytest.raises(AlreadyExists) as caught:
            adapter.check_destination("sim://b/d/there", overwrite=False)
        assert caught.value.scope is Scope.DESTINATION
        with pytest.raises(Refused):
            adapter.check_destination("sim://b/d", overwrite=True)
        with pytest.raises(Refused):
            await adapter.make_parents("sim://b/d/there/below/f")

    run_virtual(main)


def test_chance_is_the_seeds():
    def outcomes(seed: int) -> list[bool]:
        adapter = ScriptedAdapter(rng=random.Random(seed))
        adapter.storage("sim://a").add("/f", size_bytes=1)
        adapter.add_rule(Rule(chance=0.5, error=lambda: Unavailable("chance")))
        found = []

        async def main():
            for _ in range(30):
                try:
                    await adapter.stat(A)
                    found.append(True)
                except Unavailable:
                    found.append(False)

        run_virtual(main)
        return found

    assert outcomes(1) == outcomes(1)
    assert len(set(outcomes(1))) == 2


@pytest.mark.parametrize("n_bytes", [0, 1, 7, 8, 9, 65_521, 1 << 20, (3 << 20) + 5])
def test_the_checksum_of_a_pattern_is_that_of_its_bytes(n_bytes):
    file = SimFile(size_bytes=n_bytes, seed=0xDEADBEEF_CAFE)
    data = b"".join(file.blocks())
    assert len(data) == n_bytes
    for name in ("adler32", "md5", "crc32c"):
        assert file.checksum(name) == compute(name, data)
    half = file.cut(n_bytes // 2)
    assert half.checksum("adler32") == compute("adler32", data[: n_bytes // 2])


def test_huge_files_cost_nothing():
    file = SimFile(size_bytes=10**15, seed=1)
    assert file.checksum("adler32") != file.corrupted().checksum("adler32")
    assert file.checksum("md5") is None
