"""The HTTP adapter against real XRootD, nginx, Apache and rclone: what the contract promises, on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from protocols.api import ANONYMOUS, CopyRequest, Credential, Mode, Timeouts
from protocols.checksum import compute
from protocols.credentials import Secret
from protocols.errors import (
    AlreadyExists,
    ChecksumMismatch,
    CopyFailed,
    Denied,
    Missing,
    OutcomeUnknown,
    Overloaded,
    Refused,
    TimedOut,
    TransferError,
    Unavailable,
)
from protocols.http import HttpAdapter
from protocols.streaming import stream_copy
from tests.storages.faults import Busy, Cut, FaultProxy, Hang, Loop, LoseAnswer

pytestmark = [pytest.mark.real, pytest.mark.asyncio]

DATA = bytes(range(256)) * 1000
BRIEF = Timeouts(
    connect_s=5.0, request_s=5.0, digest_s=10.0, first_response_s=10.0, silence_s=10.0, stall_s=10.0, total_s=20.0
)

ALL = ["xrootd-a", "xrootd-token-a", "nginx", "apache", "rclone"]
XROOTD = ["xrootd-a", "xrootd-token-a"]
PASSIVE = ["nginx", "apache", "rclone"]
READ, WRITE = "storage.read:/", "storage.read:/ storage.modify:/"


@pytest_asyncio.fixture
async def adapter(storages) -> AsyncIterator[HttpAdapter]:
    http = HttpAdapter(ca=storages.ca_file)
    yield http
    await http.aclose()


def credential(storage, scope: str = WRITE) -> Credential:
    return Credential(token=Secret(storage.token(scope))) if storage.needs_token else ANONYMOUS


def ignore(_marker: object) -> None:
    """No marker matters here."""


async def blocks(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def request(source, destination, name: str, mode: Mode, **more) -> CopyRequest:
    return CopyRequest(
        source_url=f"{source.url}/{name}",
        destination_url=f"{destination.url}/{name}",
        mode=mode,
        source_credential=credential(source, READ),
        destination_credential=credential(destination),
        timeouts=BRIEF,
        **more,
    )


# ---- one storage at a time


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_stat_of_a_file(storages, adapter, name, secure):
    storage = storages[name]
    storage.put("stat me.bin", DATA)
    base = storage.https_url if secure else storage.url
    stat = await adapter.stat(f"{base}/stat%20me.bin", credential=credential(storage), timeouts=BRIEF)
    assert stat.size_bytes == len(DATA)
    assert not stat.is_directory


@pytest.mark.parametrize("name", XROOTD)
@pytest.mark.parametrize("algorithm", ["adler32", "md5", "crc32c"])
async def test_digests(storages, adapter, name, algorithm):
    storage = storages[name]
    url = storage.put(f"digest-{algorithm}.bin", DATA)
    stat = await adapter.stat(url, credential=credential(storage), digest=algorithm, timeouts=BRIEF)
    assert stat.checksums[algorithm] == compute(algorithm, DATA)


@pytest.mark.parametrize("name", PASSIVE)
async def test_no_digest_is_no_error(storages, adapter, name):
    url = storages[name].put("no-digest.bin", DATA)
    stat = await adapter.stat(url, digest="adler32", timeouts=BRIEF)
    assert stat.size_bytes == len(DATA)
    assert "adler32" not in stat.checksums


@pytest.mark.parametrize("name", ALL)
async def test_stat_and_listing_of_a_directory(storages, adapter, name):
    storage = storages[name]
    storage.put("folder/one file.bin", b"1")
    storage.put("folder/inner/two.bin", b"22")
    url, who = f"{storage.url}/folder", credential(storage)
    assert (await adapter.stat(url, credential=who, timeouts=BRIEF)).is_directory
    entries = {entry.name: entry for entry in await adapter.list_directory(url, credential=who, timeouts=BRIEF)}
    assert set(entries) == {"one file.bin", "inner"}
    assert entries["one file.bin"].size_bytes == 1
    assert entries["inner"].is_directory
    assert not entries["one file.bin"].is_directory


@pytest.mark.parametrize("name", ALL)
async def test_what_is_not_there_is_missing(storages, adapter, name):
    storage = storages[name]
    url, who = f"{storage.url}/nowhere/file.bin", credential(storage)
    with pytest.raises(Missing):
        await adapter.stat(url, credential=who, timeouts=BRIEF)
    with pytest.raises(Missing):
        async with adapter.read(url, credential=who, timeouts=BRIEF):
            pass
    with pytest.raises(Missing):
        await adapter.list_directory(f"{storage.url}/nowhere", credential=who, timeouts=BRIEF)


@pytest.mark.parametrize("name", ALL)
async def test_parents_are_made_once_and_again(storages, adapter, name):
    storage = storages[name]
    who = credential(storage)
    url = f"{storage.url}/made/by%20us/deep/file.bin"
    for _ in range(2):
        await adapter.make_parents(url, credential=who, timeouts=BRIEF)
    assert (storage.data_dir / "made/by us/deep").is_dir()
    await adapter.write(url, blocks(DATA), size_bytes=len(DATA), overwrite=False, credential=who, timeouts=BRIEF)
    assert storage.read("made/by us/deep/file.bin") == DATA


@pytest.mark.parametrize("name", ALL)
async def test_a_parent_that_is_a_file_is_refused(storages, adapter, name):
    storage = storages[name]
    storage.put("a-file", b"x")
    url, who = f"{storage.url}/a-file/x/y.bin", credential(storage)

    async def place() -> None:
        await adapter.make_parents(url, credential=who, timeouts=BRIEF)
        # rclone 1.60 answers 405, "it exists", to MKCOL below a file: the write shows it then.
        await adapter.write(url, blocks(b"y"), size_bytes=1, overwrite=False, credential=who, timeouts=BRIEF)

    with pytest.raises(Missing if name == "rclone" else Refused):
        await place()
    assert storage.read("a-file") == b"x"


@pytest.mark.parametrize("name", ALL)
async def test_delete_tells_whether_it_was_there(storages, adapter, name):
    storage = storages[name]
    url, who = storage.put("delete me.bin", b"x").replace(" ", "%20"), credential(storage)
    assert await adapter.delete(url, credential=who, timeouts=BRIEF) is True
    assert "delete me.bin" not in storage.names()
    assert await adapter.delete(url, credential=who, timeouts=BRIEF) is False


@pytest.mark.parametrize("name", ALL)
async def test_a_file_is_read_in_blocks(storages, adapter, name):
    storage = storages[name]
    url = storage.put("read.bin", DATA)
    async with adapter.read(url, credential=credential(storage), timeouts=BRIEF) as stream:
        assert stream.size_bytes == len(DATA)
        assert b"".join([block async for block in stream]) == DATA


@pytest.mark.parametrize("name", ALL)
async def test_an_empty_file_survives_both_ways(storages, adapter, name):
    storage = storages[name]
    url, who = f"{storage.url}/empty.bin", credential(storage)
    await adapter.write(url, blocks(b""), size_bytes=0, overwrite=True, credential=who, timeouts=BRIEF)
    assert (await adapter.stat(url, credential=who, timeouts=BRIEF)).size_bytes == 0
    async with adapter.read(url, credential=who, timeouts=BRIEF) as stream:
        assert [block async for block in stream] == []


@pytest.mark.parametrize(
    "pair", [("nginx", "apache"), ("apache", "rclone"), ("rclone", "nginx"), ("nginx", "xrootd-token-a")], ids="-".join
)
async def test_a_copy_is_streamed_with_its_checksum(storages, adapter, pair):
    """Plain WebDAV servers cannot copy among themselves: the bytes pass through the caller."""
    source, destination = (storages[name] for name in pair)
    name = f"streamed-{source.name}.bin"
    source.put(name, DATA)
    copy = CopyRequest(
        source_url=f"{source.https_url}/{name}",
        destination_url=f"{destination.https_url}/streamed/{name}",
        mode=Mode.STREAM,
        destination_credential=credential(destination),
        size_bytes=len(DATA),
        timeouts=BRIEF,
    )
    await adapter.make_parents(copy.destination_url, credential=copy.destination_credential, timeouts=BRIEF)
    streamed = await stream_copy(adapter, adapter, copy, ignore, digest="md5")
    assert streamed.checksum == compute("md5", DATA)
    assert streamed.end.bytes_done == len(DATA)
    assert destination.read(f"streamed/{name}") == DATA


async def test_blocks_that_break_leave_their_own_error(storages, adapter):
    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise ChecksumMismatch("the source changed")

    with pytest.raises(ChecksumMismatch, match="the source changed"):
        await adapter.write(
            f"{storages['nginx'].url}/broken.bin",
            broken(),
            size_bytes=2 * len(DATA),
            overwrite=True,
            timeouts=BRIEF,
        )


# ---- third-party copies


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


# ---- credentials


@pytest.mark.parametrize("token", ["none", "expired", "weak"])
async def test_a_bad_token_is_denied(storages, adapter, token):
    storage = storages["xrootd-token-a"]
    url = storage.put("secret.bin", DATA)
    bad = {
        "none": ANONYMOUS,
        "expired": Credential(token=Secret(storage.token(WRITE, lifetime_s=-60))),
        "weak": Credential(token=Secret(storage.token("storage.read:/elsewhere"))),
    }[token]
    with pytest.raises(Denied):
        await adapter.stat(url, credential=bad, timeouts=BRIEF)
    with pytest.raises(Denied):
        await adapter.delete(url, credential=bad, timeouts=BRIEF)
    assert storage.read("secret.bin") == DATA


async def test_a_server_of_a_foreign_authority_is_not_trusted(storages):
    http = HttpAdapter(ca=None)
    url = f"{storages['xrootd-a'].https_url}/x"
    try:
        with pytest.raises(TransferError) as caught:
            await http.stat(url, timeouts=BRIEF)
    finally:
        await http.aclose()
    assert not isinstance(caught.value, Missing)


# ---- faults


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
