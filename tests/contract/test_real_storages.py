"""The HTTP adapter against real XRootD, nginx, Apache and rclone, one at a time and streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from protocols.api import ANONYMOUS, CopyRequest, Credential, Mode
from protocols.checksum import compute
from protocols.credentials import Secret
from protocols.errors import ChecksumMismatch, Denied, Missing, Refused, TransferError
from protocols.http import HttpAdapter
from protocols.streaming import stream_copy
from tests.contract.wire import BRIEF, DATA, SMALL, WRITE, blocks, credential, ignore

pytestmark = [pytest.mark.real, pytest.mark.asyncio]

ALL = ["xrootd-a", "xrootd-token-a", "nginx", "apache", "rclone"]
XROOTD = ["xrootd-a", "xrootd-token-a"]
PASSIVE = ["nginx", "apache", "rclone"]


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
    await adapter.write(url, blocks(SMALL), size_bytes=len(SMALL), overwrite=False, credential=who, timeouts=BRIEF)
    assert storage.read("made/by us/deep/file.bin") == SMALL


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
async def test_a_file_of_many_blocks_is_written(storages, adapter, name):
    storage = storages[name]
    url, data = f"{storage.url}/written.bin", DATA * 20
    await adapter.write(
        url, blocks(data), size_bytes=len(data), overwrite=True, credential=credential(storage), timeouts=BRIEF
    )
    assert storage.read("written.bin") == data


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
    source.put(name, SMALL)
    copy = CopyRequest(
        source_url=f"{source.https_url}/{name}",
        destination_url=f"{destination.https_url}/streamed/{name}",
        mode=Mode.STREAM,
        destination_credential=credential(destination),
        size_bytes=len(SMALL),
        timeouts=BRIEF,
    )
    await adapter.make_parents(copy.destination_url, credential=copy.destination_credential, timeouts=BRIEF)
    streamed = await stream_copy(adapter, adapter, copy, ignore, digest="md5")
    assert streamed.checksum == compute("md5", SMALL)
    assert streamed.end.bytes_done == len(SMALL)
    assert destination.read(f"streamed/{name}") == SMALL


async def test_blocks_that_break_leave_their_own_error(storages, adapter):
    async def broken() -> AsyncIterator[bytes]:
        yield SMALL
        raise ChecksumMismatch("the source changed")

    with pytest.raises(ChecksumMismatch, match="the source changed"):
        await adapter.write(
            f"{storages['nginx'].url}/broken.bin",
            broken(),
            size_bytes=len(SMALL) + 1,
            overwrite=True,
            timeouts=BRIEF,
        )


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
