"""Local files: written whole or not at all."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

import pytest

from protocols.api import CopyRequest, Mode
from protocols.checksum import compute
from protocols.errors import AlreadyExists, Missing, ParentMissing, Refused, SizeMismatch, Unsupported
from protocols.file import FileAdapter, path_of

pytestmark = pytest.mark.asyncio

DATA = bytes(range(256)) * 20_000


async def blocks(data: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]
    if then is not None:
        raise then


@pytest.fixture
def adapter():
    return FileAdapter(sync=False)


async def write(adapter, path, data=DATA, *, size=None, overwrite=False, then=None):
    size = len(data) if size is None else size
    await adapter.write(path.as_uri(), blocks(data, then), size_bytes=size, overwrite=overwrite)


async def test_written_and_read_back(tmp_path):
    adapter, path = FileAdapter(), tmp_path / "a b%20c ü"
    await write(adapter, path)
    assert path.read_bytes() == DATA
    stat = await adapter.stat(path.as_uri(), digest="adler32")
    assert (stat.size_bytes, stat.checksums["adler32"]) == (len(DATA), compute("adler32", DATA))
    async with adapter.read(path.as_uri()) as stream:
        assert stream.size_bytes == len(DATA)
        assert b"".join([block async for block in stream]) == DATA


async def test_a_file_in_the_way_is_kept_unless_overwriting(adapter, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"precious")
    with pytest.raises(AlreadyExists):
        await write(adapter, path)
    assert path.read_bytes() == b"precious"
    await write(adapter, path, overwrite=True)
    assert path.read_bytes() == DATA


async def test_a_file_that_appears_meanwhile_is_kept(adapter, tmp_path):
    path = tmp_path / "f"

    async def slow():
        yield b"ours"
        path.write_bytes(b"precious")

    with pytest.raises(AlreadyExists):
        await adapter.write(path.as_uri(), slow(), size_bytes=4, overwrite=False)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "source"), ValueError("source")])
async def test_a_failing_source_leaves_nothing_and_passes_through(adapter, tmp_path, failure):
    with pytest.raises(type(failure)) as caught:
        await write(adapter, tmp_path / "f", then=failure)
    assert caught.value is failure
    assert list(tmp_path.iterdir()) == []


async def test_the_wrong_length_leaves_nothing(adapter, tmp_path):
    with pytest.raises(SizeMismatch):
        await write(adapter, tmp_path / "f", size=len(DATA) + 1)
    assert list(tmp_path.iterdir()) == []


async def test_directories(adapter, tmp_path):
    path = tmp_path / "x" / "y" / "f"
    with pytest.raises(ParentMissing):
        await write(adapter, path)
    await adapter.make_parents(path.as_uri())
    await adapter.make_parents(path.as_uri())
    await write(adapter, path, b"1")
    assert [(e.name, e.is_directory, e.size_bytes) for e in await adapter.list_directory(tmp_path.as_uri())] == [
        ("x", True, None)
    ]
    assert [entry.url for entry in await adapter.list_directory(path.parent.as_uri())] == [path.as_uri()]
    with pytest.raises(Refused):
        await adapter.make_parents((path / "below").as_uri())
    with pytest.raises(Refused):
        await adapter.delete(path.parent.as_uri())
    with pytest.raises(Refused):
        await write(adapter, path.parent, overwrite=True)
    assert await adapter.delete(path.as_uri())
    assert not await adapter.delete(path.as_uri())
    with pytest.raises(Missing):
        await adapter.stat(path.as_uri())


async def test_third_party_copies_are_not_for_local_files(adapter):
    request = CopyRequest(source_url="file:///a", destination_url="file:///b", mode=Mode.PULL)
    with pytest.raises(Unsupported):
        await adapter.copy(request, print)


@pytest.mark.parametrize("url", ["file:relative", "file://host/x", "http://h/x", "/x", "file:///a%00b"])
async def test_urls_that_are_no_local_file(url):
    with pytest.raises(Refused):
        path_of(url)
