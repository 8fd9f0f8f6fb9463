"""What every adapter promises, on each of them: the scripted fake, and HTTP against a server of our own.

Mock storages hold no files: what needs some does not run on them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from protocols.api import Adapter, CopyRequest, Mode
from protocols.checksum import compute
from protocols.errors import AlreadyExists, Missing, ParentMissing, Refused, SizeMismatch, TransferError
from protocols.file import FileAdapter
from protocols.http import HttpAdapter
from protocols.mock import MockAdapter
from protocols.registry import Registry
from protocols.scripted import ScriptedAdapter
from protocols.streaming import stream_copy
from tests.tpc_server import TpcServer

pytestmark = pytest.mark.asyncio

DATA = bytes(range(256)) * 1000


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Two storages behind one adapter."""

    adapter: Adapter
    a: str
    b: str
    copies: bool
    """Whether they copy between themselves."""


KINDS = ["scripted", "http", "http-raw-names", "file"]


@asynccontextmanager
async def lab_of(kind: str, tmp_path: Path) -> AsyncIterator[Lab]:
    async with AsyncExitStack() as stack:
        if kind == "scripted":
            scripted = ScriptedAdapter()
            for name in "ab":
                scripted.storage(f"sim://{name}", needs_parents=True)
            yield Lab(adapter=scripted, a="sim://a", b="sim://b", copies=True)
        elif kind == "mock":
            yield Lab(adapter=MockAdapter(), a="mock://a", b="mock://b", copies=True)
        elif kind == "file":
            for name in "ab":
                (tmp_path / name).mkdir()
            local, base = FileAdapter(sync=False), tmp_path.as_uri()
            yield Lab(adapter=local, a=f"{base}/a", b=f"{base}/b", copies=False)
        else:
            servers = [TpcServer(encodes_hrefs=kind == "http") for _ in "ab"]
            urls = [(await stack.enter_async_context(server.running())).url for server in servers]
            http = HttpAdapter()
            stack.push_async_callback(http.aclose)
            yield Lab(adapter=http, a=urls[0], b=urls[1], copies=True)


@pytest_asyncio.fixture(params=KINDS)
async def lab(request, tmp_path) -> AsyncIterator[Lab]:
    async with lab_of(request.param, tmp_path) as found:
        yield found


@pytest_asyncio.fixture(params=[*KINDS, "mock"])
async def any_lab(request, tmp_path) -> AsyncIterator[Lab]:
    async with lab_of(request.param, tmp_path) as found:
        yield found


async def blocks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 60_000):
        yield data[start : start + 60_000]


async def put(lab: Lab, url: str, data: bytes = DATA, *, overwrite: bool = False) -> str:
    await lab.adapter.make_parents(url)
    await lab.adapter.write(url, blocks(data), size_bytes=len(data), overwrite=overwrite)
    return url


async def get(lab: Lab, url: str) -> bytes:
    async with lab.adapter.read(url) as stream:
        data = b"".join([block async for block in stream])
        assert stream.size_bytes in {None, len(data)}
    return data


def copying(lab: Lab) -> None:
    if not lab.copies:
        pytest.skip("these storages do not copy between themselves")


@pytest.mark.parametrize("name", ["f", "a b", "100%25", "ü", "x+y&z;=", "d/e/f"])
@pytest.mark.parametrize("data", [DATA, b"", b"1"], ids=["many", "none", "one"])
async def test_written_seen_listed_read_and_deleted(lab, name, data):
    url = await put(lab, f"{lab.a}/{name}", data)
    stat = await lab.adapter.stat(url, digest="adler32")
    assert (stat.size_bytes, stat.is_directory) == (len(data), False)
    assert stat.checksums == {"adler32": compute("adler32", data)}
    assert (await lab.adapter.stat(url)).size_bytes == len(data)
    assert await get(lab, url) == data
    [entry] = await lab.adapter.list_directory(url.rpartition("/")[0])
    assert (entry.is_directory, entry.size_bytes) == (False, len(data))
    assert await get(lab, entry.url) == data
    assert await lab.adapter.delete(url)
    assert not await lab.adapter.delete(url)


async def test_nothing_there(lab):
    url = f"{lab.a}/nothing"
    for digest in (None, "adler32"):
        with pytest.raises(Missing):
            await lab.adapter.stat(url, digest=digest)
    with pytest.raises(Missing):
        await get(lab, url)
    with pytest.raises(Missing):
        await lab.adapter.list_directory(url)
    assert not await lab.adapter.delete(url)


async def test_directories(lab):
    url = await put(lab, f"{lab.a}/d/e/f", b"1")
    stat = await lab.adapter.stat(f"{lab.a}/d")
    assert (stat.is_directory, stat.size_bytes) == (True, None)
    assert (await lab.adapter.stat(f"{lab.a}/d", digest="adler32")).is_directory
    [entry] = await lab.adapter.list_directory(f"{lab.a}/d")
    assert (entry.name, entry.is_directory, entry.size_bytes) == ("e", True, None)
    with pytest.raises(TransferError):
        await lab.adapter.list_directory(url)
    with pytest.raises(Refused):
        await lab.adapter.make_parents(f"{url}/below/g")
    with pytest.raises(TransferError):
        await lab.adapter.delete(f"{lab.a}/d")
    assert await get(lab, url) == b"1"


async def test_a_parent_is_missing(lab):
    url = f"{lab.b}/no/parent/f"
    with pytest.raises(ParentMissing):
        await lab.adapter.write(url, blocks(DATA), size_bytes=len(DATA), overwrite=False)
    await put(lab, url)


async def test_nothing_is_replaced_unless_asked_for(lab):
    url = await put(lab, f"{lab.a}/f")
    with pytest.raises(AlreadyExists):
        await put(lab, url, b"other")
    assert await get(lab, url) == DATA
    await put(lab, url, b"other", overwrite=True)
    assert await get(lab, url) == b"other"


async def test_an_upload_that_ends_early(any_lab):
    with pytest.raises(SizeMismatch):
        await any_lab.adapter.write(f"{any_lab.a}/f", blocks(b"abc"), size_bytes=4, overwrite=False)


async def test_the_source_of_an_upload_fails(any_lab):
    failure = LookupError("the source's own")

    async def failing() -> AsyncIterator[bytes]:
        yield b"abc"
        raise failure

    with pytest.raises(LookupError) as caught:
        await any_lab.adapter.write(f"{any_lab.a}/f", failing(), size_bytes=10, overwrite=False)
    assert caught.value is failure


@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH])
@pytest.mark.parametrize("data", [DATA, b""], ids=["many", "none"])
async def test_a_copy(lab, mode, data):
    copying(lab)
    source = await put(lab, f"{lab.a}/a b/ü", data)
    target = f"{lab.b}/x/y z%25"
    await lab.adapter.make_parents(target)
    if mode is Mode.PUSH and source.startswith("http"):
        # An unknown server is trusted with a push on its own host name only after it proved third-party copy.
        await copy(lab, await put(lab, f"{lab.b}/proof"), f"{lab.a}/proof", Mode.PULL)
    markers: list[int] = []
    request = CopyRequest(source_url=source, destination_url=target, mode=mode)
    end = await lab.adapter.copy(request, lambda marker: markers.append(marker.bytes_done))
    assert end.message
    assert end.bytes_done <= len(data)
    assert markers == sorted(markers)
    assert await get(lab, target) == data


async def copy(lab: Lab, source: str, target: str, mode: Mode, *, overwrite: bool = False) -> None:
    request = CopyRequest(source_url=source, destination_url=target, mode=mode, overwrite=overwrite)
    await lab.adapter.copy(request, lambda _marker: None)


async def test_a_copy_replaces_only_when_asked_to(lab):
    copying(lab)
    source, target = await put(lab, f"{lab.a}/f"), await put(lab, f"{lab.b}/f", b"other")
    with pytest.raises(AlreadyExists):
        await copy(lab, source, target, Mode.PULL)
    assert await get(lab, target) == b"other"
    await copy(lab, source, target, Mode.PULL, overwrite=True)
    assert await get(lab, target) == DATA


async def test_a_copy_of_nothing(lab):
    copying(lab)
    with pytest.raises(Missing) as caught:
        await copy(lab, f"{lab.a}/nothing", f"{lab.b}/f", Mode.PULL)
    assert caught.value.scope == "SOURCE"
    with pytest.raises(ParentMissing) as caught:
        await copy(lab, await put(lab, f"{lab.a}/f"), f"{lab.b}/no/parent/f", Mode.PULL)
    assert caught.value.scope == "DESTINATION"


async def test_a_streamed_copy(lab):
    source = await put(lab, f"{lab.a}/f")
    request = CopyRequest(source_url=source, destination_url=f"{lab.b}/f", mode=Mode.STREAM)
    streamed = await stream_copy(lab.adapter, lab.adapter, request, lambda _marker: None, digest="adler32")
    assert streamed.checksum == compute("adler32", DATA)
    assert await get(lab, f"{lab.b}/f") == DATA


async def test_the_registry_finds_it(any_lab):
    registry = Registry([any_lab.adapter])
    assert registry.adapter_for(any_lab.a.upper()) is any_lab.adapter
    with pytest.raises(TransferError, match="known: "):
        registry.adapter_for("gopher://h/x")
    assert any_lab.adapter.capabilities(any_lab.a) is not None


@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH])
async def test_a_copy_is_seen_at_its_destination(any_lab, mode):
    lab = any_lab
    copying(lab)
    source, target = f"{lab.a}/f", f"{lab.b}/f"
    if lab.a.startswith("mock"):
        source, target = f"{source}?size={len(DATA)}", f"{target}?size_post={len(DATA)}"
    else:
        await put(lab, source)
        if mode is Mode.PUSH and source.startswith("http"):
            await copy(lab, await put(lab, f"{lab.b}/proof"), f"{lab.a}/proof", Mode.PULL)
    assert (await lab.adapter.stat(source)).size_bytes == len(DATA)
    with pytest.raises(Missing):
        await lab.adapter.stat(target)
    await copy(lab, source, target, mode)
    assert (await lab.adapter.stat(target)).size_bytes == len(DATA)
    assert await lab.adapter.delete(target)
    with pytest.raises(Missing):
        await lab.adapter.stat(target)
