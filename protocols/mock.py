"""`mock://`: storages that exist only in the arguments of their URLs, for tests of clients.

The arguments are those of gfal2's mock plugin, which tests of Rucio and FTS write:

    size            length of the source                      list        it is a directory: name:mode(octal):size,…
    size_pre        a file is at the destination, so long     checksum    what the storage says, of any algorithm
    size_post       length of the destination after the copy  exists, access  1: a file is at the destination
    errno           every look fails                          access_errno    the look at the destination fails
    wait            seconds before each look is answered      rd_path     no directory can be made below this URL
    time            seconds that the copy takes               transfer_errno  the copy fails
    open_errno, read_errno, read_wait   of reading            signal      whoever looks is killed: a failure

    mock://host/path?size=1000  →  mock://host/path2?size_post=1000&time=5

There are no files: nothing stays at a destination when its copy is over, and every URL is a source. As in the
plugin, whether a look is at the source, or at the destination before or after the copy, follows from
the order of the looks of one copy; there it counts them per process, here per task.

Where Rucio's tests have them so, it differs from the plugin: a copy takes no time without `time`, which also
counts on the source; and a source without `size` is as long as the submission says, and so is its copy.
"""

from __future__ import annotations

import asyncio
import errno as codes
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs
from weakref import WeakKeyDictionary

from protocols.api import (
    ANONYMOUS,
    Capabilities,
    CopyEnd,
    CopyRequest,
    Credential,
    Entry,
    Marker,
    OnMarker,
    ReadStream,
    Stat,
    Timeouts,
)
from protocols.checksum import Checksum, algorithm_name, from_hex
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

MARKER_S: Final = 1.0
"""Between two progress markers."""
BLOCK: Final = 1 << 20
NUMBER_MAX: Final = 1 << 62
DIRECTORY: Final = 0o040000
"""The file type of a directory in a mode, as `stat` has it."""
_DEFAULTS: Final = Timeouts()

_KINDS: Final[Mapping[int, type[TransferError]]] = {
    codes.ENOENT: Missing,
    codes.EEXIST: AlreadyExists,
    codes.EACCES: Denied,
    codes.EPERM: Denied,
    codes.ENOSPC: NoSpace,
    codes.EDQUOT: NoSpace,
    codes.ETIMEDOUT: TimedOut,
    codes.EBUSY: Overloaded,
    codes.EAGAIN: Overloaded,
    codes.ECOMM: Unavailable,
    codes.ECONNREFUSED: Unavailable,
    codes.EHOSTDOWN: Unavailable,
    codes.EHOSTUNREACH: Unavailable,
    codes.EINVAL: Refused,
    codes.EISDIR: Refused,
    codes.ENOTDIR: Refused,
    codes.ENAMETOOLONG: Refused,
    codes.ENOSYS: Refused,
    codes.EPROTONOSUPPORT: Refused,
}
"""POSIX number → what it means here; any other is a failure that may pass."""


def failure_of(number: int) -> TransferError:
    """The failure that an error number stands for, with the system's own words."""
    return _KINDS.get(number, CopyFailed)(os.strerror(number), errno=number)


@dataclass(frozen=True, slots=True)
class _Arguments:
    """The query of one URL."""

    values: Mapping[str, list[str]]

    @classmethod
    def of(cls, url: str) -> _Arguments:
        return cls(parse_qs(url.partition("?")[2], keep_blank_values=True, errors="replace"))

    def text(self, name: str) -> str:
        return self.values.get(name, [""])[0]

    def number(self, name: str) -> int:
        """0 for whatever is no positive number, as the plugin reads it."""
        text = self.text(name)
        return min(int(text), NUMBER_MAX) if text.isascii() and text.isdigit() and len(text) <= 20 else 0  # noqa: PLR2004

    def size(self, name: str) -> int | None:
        """None when it is not there."""
        return self.number(name) if name in self.values else None

    def check(self, name: str) -> None:
        """Fail with the error number of this argument, if there is one."""
        number = self.number(name)
        if number:
            raise failure_of(number)


@dataclass(slots=True)
class _Try:
    """One copy so far, from its first look on."""

    source: str
    removed: set[str] = field(default_factory=set)
    copied: dict[str, int] = field(default_factory=dict)
    """Destination → its length."""


class MockAdapter:
    """Storages that do what their URLs say."""

    def __init__(self) -> None:
        self._tries: WeakKeyDictionary[asyncio.Task[object], _Try] = WeakKeyDictionary()

    @property
    def schemes(self) -> frozenset[str]:
        """`mock`."""
        return frozenset({"mock"})

    def capabilities(self, url: str) -> Capabilities:
        """A mock storage fetches from a mock storage."""
        del url
        return Capabilities(pull=True, push=True)

    def _try(self, url: str) -> _Try:
        """What the current task has done; it begins with a look at its source."""
        task = asyncio.current_task()
        assert task is not None, "adapters are called in tasks"
        found = self._tries.get(task)
        if found is None:
            found = self._tries[task] = _Try(url)
        return found

    async def stat(
        self, url: str, *, credential: Credential = ANONYMOUS, digest: str | None = None, timeouts: Timeouts = _DEFAULTS
    ) -> Stat:
        """Look as the arguments say; see above for whose look it is."""
        del credential
        arguments, known = _Arguments.of(url), self._try(url)
        await _answer(arguments, timeouts.digest_s if digest else timeouts.request_s)
        if arguments.text("list"):
            return Stat(size_bytes=None, is_directory=True)
        if url in known.copied:
            size: int | None = known.copied[url]
        elif url == known.source:
            size = arguments.size("size")
        else:
            size = _before_copy(url, arguments, removed=url in known.removed)
        checksum = _checksum(arguments.text("checksum"), digest)
        return Stat(size_bytes=size, checksums={checksum.algorithm: checksum} if checksum else {})

    async def list_directory(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> list[Entry]:
        """What `list` names."""
        del credential
        arguments = _Arguments.of(url)
        await _answer(arguments, timeouts.request_s)
        if not arguments.text("list"):
            raise Refused(os.strerror(codes.ENOTDIR), errno=codes.ENOTDIR)
        base = url.partition("?")[0].rstrip("/")
        return [_entry(base, item) for item in arguments.text("list").split(",") if item]

    async def make_parents(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> None:
        """There are no directories; below an `rd_path` none can be made."""
        del credential, timeouts
        path = url.partition("?")[0]
        if any(read_only and path.startswith(read_only) for read_only in _Arguments.of(url).values.get("rd_path", [])):
            raise failure_of(codes.EPERM)

    async def delete(self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS) -> bool:
        """Gone for the rest of this copy."""
        del credential
        arguments, known = _Arguments.of(url), self._try(url)
        await _answer(arguments, timeouts.request_s)
        was_there = known.copied.pop(url, None) is not None or (url not in known.removed and _exists(arguments))
        known.removed.add(url)
        return was_there

    async def copy(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        """Wait for `time` seconds, then the destination is there."""
        source, destination = _Arguments.of(request.source_url), _Arguments.of(request.destination_url)
        known = self._try(request.source_url)
        size = destination.size("size_post")
        if size is None:
            size = 0 if "size" in source.values else request.size_bytes or 0
        seconds = destination.number("time") if "time" in destination.values else source.number("time")
        fails = destination.number("transfer_errno")
        limit = request.timeouts.total_s
        try:
            async with asyncio.timeout(limit):
                n_markers = await _pass(min(seconds, 1) if fails else seconds, size, on_marker)
        except TimeoutError:
            msg = f"the copy took longer than {limit:g} s"
            raise TimedOut(msg) from None
        destination.check("transfer_errno")
        known.copied[request.destination_url] = size
        return CopyEnd(message="success: mock", bytes_done=size if n_markers else 0, n_markers=n_markers)

    def read(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> AbstractAsyncContextManager[ReadStream]:
        """As many zero bytes as `size` says."""
        del credential, timeouts
        return self._read(url)

    @asynccontextmanager
    async def _read(self, url: str) -> AsyncIterator[ReadStream]:
        arguments = _Arguments.of(url)
        for name in ("errno", "open_errno"):
            arguments.check(name)
        yield _Zeros(arguments)

    async def write(
        self,
        url: str,
        blocks: AsyncIterator[bytes],
        *,
        size_bytes: int | None,
        overwrite: bool,
        credential: Credential = ANONYMOUS,
        timeouts: Timeouts = _DEFAULTS,
    ) -> None:
        """Take the bytes and keep their number."""
        del credential, timeouts
        arguments, known = _Arguments.of(url), self._try("")
        if not overwrite and (url in known.copied or (url not in known.removed and _exists(arguments))):
            raise failure_of(codes.EEXIST)
        arguments.check("open_errno")
        n_bytes = 0
        async for block in blocks:
            n_bytes += len(block)
        if size_bytes is not None and n_bytes != size_bytes:
            raise SizeMismatch(f"got {n_bytes} bytes, {size_bytes} were announced")
        arguments.check("transfer_errno")
        size = arguments.size("size_post")
        known.copied[url] = n_bytes if size is None else size

    async def aclose(self) -> None:
        """Nothing is open."""


class _Zeros:
    """A `ReadStream` of nothing."""

    def __init__(self, arguments: _Arguments) -> None:
        self._arguments = arguments

    @property
    def size_bytes(self) -> int | None:
        """As the URL says."""
        return self._arguments.number("size")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._arguments.number("size")
        while left:
            await asyncio.sleep(self._arguments.number("read_wait"))
            self._arguments.check("read_errno")
            yield bytes(min(left, BLOCK))
            left -= min(left, BLOCK)


async def _answer(arguments: _Arguments, limit_s: float) -> None:
    """What every look begins with: `wait`, `signal`, `errno`."""
    wait = arguments.number("wait")
    await asyncio.sleep(min(wait, limit_s))
    if wait > limit_s:
        raise TimedOut(f"no answer within {limit_s:g} s")
    signal = arguments.number("signal")
    if signal:
        raise CopyFailed(f"the copy was killed by signal {signal}", errno=codes.EINTR)
    arguments.check("errno")


def _exists(arguments: _Arguments) -> bool:
    return any(arguments.number(name) for name in ("size_pre", "exists", "access"))


def _before_copy(url: str, arguments: _Arguments, *, removed: bool) -> int | None:
    if not removed:
        if _exists(arguments):
            return arguments.size("size_pre")
        arguments.check("access_errno")
    raise Missing(f"{url.partition('?')[0]}: {os.strerror(codes.ENOENT)}")


def _checksum(value: str, algorithm: str | None) -> Checksum | None:
    if not value or algorithm is None:
        return None
    try:
        return from_hex(algorithm, value)
    except ValueError:
        # Tests write any text for a checksum that is to be wrong.
        return Checksum(algorithm_name(algorithm), value)


def _entry(base: str, item: str) -> Entry:
    name, _, rest = item.partition(":")
    mode, _, size = rest.partition(":")
    try:
        is_directory = bool(int(mode or "0", 8) & DIRECTORY)
    except ValueError:
        is_directory = False
    n_bytes = int(size) if size.isascii() and size.isdigit() and len(size) < 19 else 0  # noqa: PLR2004 - fits 64 bits
    return Entry(
        name=name, url=f"{base}/{name}", is_directory=is_directory, size_bytes=None if is_directory else n_bytes
    )


async def _pass(seconds: int, size: int, on_marker: OnMarker) -> int:
    """Let time pass, telling how far the copy is; the number of markers."""
    loop = asyncio.get_running_loop()
    began, n_markers = loop.time(), 0
    while (left := began + seconds - loop.time()) > 0:
        await asyncio.sleep(min(left, MARKER_S))
        share = min(1.0, (loop.time() - began) / seconds)
        on_marker(Marker(bytes_done=int(size * share)))
        n_markers += 1
    return n_markers
