"""Third-party copies between real storages, and what broken ones look like."""

from __future__ import annotations

import asyncio

import pytest

from protocols.api import CopyRequest, Mode, Timeouts
from protocols.checksum import compute
from protocols.errors import (
    AlreadyExists,
    CopyFailed,
    Missing,
    OutcomeUnknown,
    Overloaded,
    TimedOut,
    TransferError,
    Unavailable,
)
from tests.contract.wire import BRIEF, DATA, ignore, request
from tests.storages.faults import Busy, Cut, FaultProxy, Hang, Loop, LoseAnswer

pytestmark = [pytest.mark.real, pytest.mark.asyncio]

PASSIVE = ["nginx", "apache", "rclone"]


@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH])
@pytest.mark.parametrize("pair", [("xrootd-a", "xrootd-b"), ("xrootd-token-a", "xrootd-token-b")], ids=lambda p: p[0])
async def test_copy_between_xrootd(storages, adapter, pair, mode):
    source, destination = (storages[name] for name in pair)
    name = f"{mode}.bin"
    source.put(name, DATA)
    end = await adapter.copy(
        request(source, destination, name, mode, size_bytes=len(DATA), checksum=compute("adler32", DATA)), ignore
    )
    assert end.message.lower().startswith("success")
    assert destination.read(name) == DATA


@pytest.mark.parametrize("passive", PASSIVE)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_xrootd_copies_with_plain_webdav(storages, adapter, passive, secure):
    active, other = storages["xrootd-a"], storages[passive]
    kind = "https" if secure else "http"
    other.put(f"from-{passive}-{kind}.bin", DATA)
    active.put(f"to-{passive}-{kind}.bin", DATA[:5000])
    base, here = (other.https_url, active.https_url) if secure else (other.url, active.url)
    pull = CopyRequest(
        source_url=f"{base}/from-{passive}-{kind}.bin",
        destination_url=f"{here}/from-{passive}-{kind}.bin",
        mode=Mode.PULL,
        timeouts=BRIEF,
    )
    await adapter.copy(pull, ignore)
    assert active.read(f"from-{passive}-{kind}.bin") == DATA
    push = CopyRequest(
        source_url=f"{here}/to-{passive}-{kind}.bin",
        destination_url=f"{base}/to-{passive}-{kind}.bin",
        mode=Mode.PUSH,
        timeouts=BRIEF,
    )
    await adapter.copy(push, ignore)
    assert other.read(f"to-{passive}-{kind}.bin") == DATA[:5000]


async def test_a_missing_source_fails_the_copy(storages, adapter):
    with pytest.raises((Missing, CopyFailed)) as caught:
        await adapter.copy(request(storages["xrootd-a"], storages["xrootd-b"], "none.bin", Mode.PULL), ignore)
    assert not caught.value.unsettled


async def test_an_existing_destination_is_kept(storages, adapter):
    source, destination = storages["xrootd-a"], storages["xrootd-b"]
    source.put("keep.bin", DATA)
    destination.put("keep.bin", b"old")
    with pytest.raises(AlreadyExists):
        await adapter.copy(request(source, destination, "keep.bin", Mode.PULL), ignore)
    assert destination.read("keep.bin") == b"old"
    await adapter.copy(request(source, destination, "keep.bin", Mode.PULL, overwrite=True), ignore)
    assert destination.read("keep.bin") == DATA


@pytest.mark.parametrize("destination", PASSIVE)
async def test_plain_webdav_is_not_believed_to_copy(storages, adapter, destination):
    """nginx and Apache answer 204 or 201 to a COPY and copy something of their own, or nothing."""
    source = storages["xrootd-a"]
    source.put("believe.bin", DATA)
    with pytest.raises(TransferError):
        await adapter.copy(request(source, storages[destination], "believe.bin", Mode.PULL), ignore)


# ---- with faults in between


async def test_an_overloaded_storage_says_for_how_long(storages, adapter):
    async with FaultProxy(storages["xrootd-b"].url) as proxy:
        proxy.add(Busy(7))
        with pytest.raises(Overloaded) as caught:
            await adapter.stat(f"{proxy.url}/x", timeouts=BRIEF)
        assert caught.value.retry_after_s == 7
        copy = CopyRequest(
            source_url=f"{storages['xrootd-a'].url}/x",
            destination_url=f"{proxy.url}/x",
            mode=Mode.PULL,
            timeouts=BRIEF,
        )
        with pytest.raises(Overloaded):
            await adapter.copy(copy, ignore)


@pytest.mark.parametrize("fault", [LoseAnswer(), LoseAnswer(keep_head=True), Cut(after_bytes=20)])
async def test_a_lost_answer_is_an_unknown_outcome(storages, adapter, fault):
    source, destination = storages["xrootd-a"], storages["xrootd-b"]
    name = f"unknown-{type(fault).__name__}-{getattr(fault, 'keep_head', '')}.bin"
    source.put(name, DATA)
    async with FaultProxy(destination.url) as proxy:
        proxy.add(fault, methods={"COPY"})
        copy = CopyRequest(
            source_url=f"{source.url}/{name}", destination_url=f"{proxy.url}/{name}", mode=Mode.PULL, timeouts=BRIEF
        )
        with pytest.raises(OutcomeUnknown) as caught:
            await adapter.copy(copy, ignore)
        assert caught.value.unsettled
        assert proxy.count("COPY") == 1


async def test_an_endless_redirect_ends(storages, adapter):
    async with FaultProxy(storages["xrootd-a"].url) as proxy:
        proxy.add(Loop())
        with pytest.raises(TransferError):
            await adapter.stat(f"{proxy.url}/x", timeouts=BRIEF)
        assert len(proxy.seen) < 50


async def test_a_cut_download_is_noticed(storages, adapter):
    storages["nginx"].put("cut.bin", DATA)
    async with FaultProxy(storages["nginx"].url) as proxy:
        proxy.add(Cut(after_bytes=50_000), methods={"GET"})
        with pytest.raises(TransferError):
            async with adapter.read(f"{proxy.url}/cut.bin", timeouts=BRIEF) as stream:
                _ = [block async for block in stream]


async def test_silence_is_timed(storages, adapter):
    async with FaultProxy(storages["xrootd-a"].url) as proxy:
        proxy.add(Hang())
        with pytest.raises(TimedOut):
            await adapter.stat(f"{proxy.url}/x", timeouts=Timeouts(request_s=0.2))


async def test_nobody_listens(adapter, unused_tcp_port):
    with pytest.raises(Unavailable):
        await adapter.stat(f"http://localhost:{unused_tcp_port}/x", timeouts=BRIEF)


async def test_a_cancelled_copy_closes_its_connection(storages, adapter):
    source = storages["xrootd-a"]
    source.put("cancel.bin", DATA)
    async with FaultProxy(storages["xrootd-b"].url) as proxy:
        proxy.add(Hang(), methods={"COPY"})
        copy = CopyRequest(
            source_url=f"{source.url}/cancel.bin",
            destination_url=f"{proxy.url}/cancel.bin",
            mode=Mode.PULL,
            timeouts=BRIEF,
        )
        task = asyncio.create_task(adapter.copy(copy, ignore))
        await proxy.arrived("COPY")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await proxy.idle()
