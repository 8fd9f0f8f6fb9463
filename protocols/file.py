"""Files of this machine (`file:///path`): the other end of a streamed copy.

A written file appears under its name only when it is complete and on disk: it is written beside it
under a temporary name, synchronised, and renamed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final, Protocol
from urllib.parse import quote, unquote

import aiofiles
import aiofiles.os

from protocols.api import (
    ANONYMOUS,
    Capabilities,
    CopyEnd,
    CopyRequest,
    Credential,
    Entry,
    OnMarker,
    ReadStream,
    Stat,
    Timeouts,
)
from protocols.checksum import Checksum, hasher
from protocols.errors import (
    AlreadyExists,
    CopyFailed,
    Denied,
    Missing,
    NoSpace,
    ParentMissing,
    Phase,
    Refused,
    Scope,
    SizeMismatch,
    TransferError,
    Unsupported,
)

BLOCK_BYTES: Final = 4 << 20
TEMPORARY_MARK: Final = ".part-"
_DEFAULTS: Final = Timeouts()

_BY_ERRNO: Final[dict[int, type[TransferError]]] = {
    errno.ENOENT: Missing,
    errno.EEXIST: AlreadyExists,
    errno.EACCES: Denied,
    errno.EPERM: Denied,
    errno.EROFS: Denied,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EISDIR: Refused,
    errno.ENOTDIR: Refused,
    errno.ENAMETOOLONG: Refused,
    errno.ELOOP: Refused,
}


class _BinaryFile(Protocol):
    async def read(self, size: int = ..., /) -> bytes: ...


def path_of(url: str) -> Path:
    """The path of a `file:` URL; Refused for another host or a relative path."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if scheme.lower() != "file" or not separator or not slash or host not in {"", "localhost"}:
        raise Refused(f"{url}: expected file:///absolute/path", scope=Scope.AGENT, phase=Phase.PREPARATION)
    decoded = "/" + unquote(path)
    if "\0" in decoded:
        raise Refused("a path cannot hold a NUL", scope=Scope.AGENT, phase=Phase.PREPARATION)
    return Path(decoded)


def _error(failure: OSError, path: Path) -> TransferError:
    number = failure.errno or errno.EIO
    kind = _BY_ERRNO.get(number, CopyFailed)
    return kind(f"{path}: {os.strerror(number)}", errno=number, phase=Phase.PREPARATION)


class FileAdapter:
    """Local files; third-party copies are not its business."""

    def __init__(self, *, sync: bool = True) -> None:
        """`sync`: False leaves it to the kernel when written data reaches the disk."""
        self._sync = sync

    @property
    def schemes(self) -> frozenset[str]:
        """Only `file`."""
        return frozenset({"file"})

    def capabilities(self, url: str) -> Capabilities:
        """Neither pull nor push; a file is replaced by renaming."""
        del url
        return Capabilities(pull=False, push=False, replaces=True)

    async def stat(
        self, url: str, *, credential: Credential = ANONYMOUS, digest: str | None = None, timeouts: Timeouts = _DEFAULTS
    ) -> Stat:
        """Look at the path; a checksum is computed from the content, within `digest_s`."""
        del credential
        path = path_of(url)
        try:
            found = await aiofiles.os.stat(path)
            modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
            if S_ISDIR(found.st_mode):
                return Stat(size_bytes=None, is_directory=True, modified_at=modified_at)
            if not S_ISREG(found.st_mode):
                raise Refused(f"{path}: is not a regular file", phase=Phase.PREPARATION)
            checksums: dict[str, Checksum] = {}
            if digest is not None:
                checksum = await self._checksum(path, digest, timeouts.digest_s)
                checksums = {checksum.algorithm: checksum} if checksum is not None else {}
        except OSError as failure:
            raise _error(failure, path) from None
        return Stat(size_bytes=found.st_size, checksums=checksums, modified_at=modified_at)

    @staticmethod
    async def _checksum(path: Path, algorithm: str, limit_s: float) -> Checksum | None:
        digest = hasher(algorithm)
        try:
            async with asyncio.timeout(limit_s), aiofiles.open(path, "rb", buffering=0) as file:
                while block := await file.read(BLOCK_BYTES):
                    # Hash functions let go of the interpreter's lock, so the event loop goes on meanwhile.
                    await asyncio.to_thread(digest.update, block)
        except TimeoutError:
            return None
        return digest.checksum()

    async def list_directory(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> list[Entry]:
        """The direct children, by name; files that are just being written are left out."""
        del credential, timeouts
        path = path_of(url)
        base = url.rstrip("/")
        try:
            rows = await asyncio.to_thread(_scan, path)
        except OSError as failure:
            raise _error(failure, path) from None
        return [
            Entry(name=name, url=f"{base}/{quote(os.fsencode(name))}", is_directory=is_directory, size_bytes=size)
            for name, is_directory, size in rows
        ]

    async def make_parents(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> None:
        """Create the directories above the path."""
        del credential, timeouts
        parent = path_of(url).parent
        try:
            await aiofiles.os.makedirs(parent, exist_ok=True)
        except FileExistsError:
            raise Refused(f"{parent}: is a file, not a directory", phase=Phase.PREPARATION) from None
        except OSError as failure:
            raise _error(failure, parent) from None

    async def delete(self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS) -> bool:
        """Remove the file; never a directory."""
        del credential, timeouts
        path = path_of(url)
        try:
            await aiofiles.os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as failure:
            raise _error(failure, path) from None
        return True

    async def copy(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        """Not possible: nobody but this process can reach the file."""
        del on_marker
        raise Unsupported(f"local files are copied by streaming, not by {request.mode}", phase=Phase.PREPARATION)

    def read(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> AbstractAsyncContextManager[ReadStream]:
        """Open the file; blocks of 4 MiB."""
        del credential, timeouts
        return self._read(path_of(url))

    @asynccontextmanager
    async def _read(self, path: Path) -> AsyncIterator[ReadStream]:
        try:
            found = await aiofiles.os.stat(path)
            if S_ISDIR(found.st_mode):
                raise _error(OSError(errno.EISDIR, ""), path)
            opened = await aiofiles.open(path, "rb", buffering=0)
        except OSError as failure:
            raise _error(failure, path) from None
        try:
            yield _FileStream(opened, path, found.st_size)
        finally:
            await opened.close()

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
        """Write beside the path, then rename: readers see the old file or the whole new one."""
        del credential, timeouts
        path = path_of(url)
        temporary = path.with_name(f".{path.name[:200]}{TEMPORARY_MARK}{secrets.token_hex(6)}")
        try:
            await self._prepare(path, overwrite=overwrite)
            n_bytes = await self._fill(temporary, blocks)
            if size_bytes is not None and n_bytes != size_bytes:
                raise SizeMismatch(f"{path}: got {n_bytes} bytes, {size_bytes} were announced", scope=Scope.SOURCE)
            await asyncio.to_thread(_publish, temporary, path, overwrite=overwrite, sync=self._sync)
        finally:
            # Also when cancelled; the call is short, so it is not put off to a thread.
            temporary.unlink(missing_ok=True)

    @staticmethod
    async def _prepare(path: Path, *, overwrite: bool) -> None:
        place = {"scope": Scope.DESTINATION, "phase": Phase.PREPARATION}
        if await aiofiles.os.path.isdir(path):
            raise Refused(f"{path}: is a directory", **place)  # type: ignore[arg-type]  # a dict of keywords
        if not overwrite and await asyncio.to_thread(os.path.lexists, path):
            raise AlreadyExists(f"{path}: file exists", **place)  # type: ignore[arg-type]  # a dict of keywords
        if not await aiofiles.os.path.isdir(path.parent):
            raise ParentMissing(f"{path.parent}: no such directory", **place)  # type: ignore[arg-type]  # the same

    async def _fill(self, temporary: Path, blocks: AsyncIterator[bytes]) -> int:
        n_bytes = 0
        file = None
        try:
            file = await aiofiles.open(temporary, "xb", buffering=0)
        except OSError as failure:
            raise _error(failure, temporary).at(Scope.DESTINATION, Phase.PREPARATION) from None
        try:
            # An OSError of `blocks` is the source's and passes; only ours is turned into a TransferError.
            async for block in blocks:
                n_bytes += len(block)
                await self._write_all(file, block, temporary)
            if self._sync:
                await asyncio.to_thread(os.fsync, file.fileno())
        finally:
            await file.close()
        return n_bytes

    @staticmethod
    async def _write_all(file: _Writer, block: bytes, temporary: Path) -> None:
        rest = memoryview(block)
        try:
            while rest:
                # Unbuffered, so a write may be short, as on a disk that is nearly full.
                rest = rest[await file.write(rest) :]
        except OSError as failure:
            raise _error(failure, temporary).at(Scope.DESTINATION, Phase.TRANSFER) from None

    async def aclose(self) -> None:
        """Nothing is kept open between calls."""


class _Writer(Protocol):
    async def write(self, data: memoryview, /) -> int: ...


class _FileStream:
    """The content of an open file."""

    def __init__(self, file: _BinaryFile, path: Path, size_bytes: int) -> None:
        self._file = file
        self._path = path
        self._size = size_bytes

    @property
    def size_bytes(self) -> int | None:
        """Length when it was opened."""
        return self._size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        n_bytes = 0
        try:
            while block := await self._file.read(BLOCK_BYTES):
                n_bytes += len(block)
                yield block
        except OSError as failure:
            raise _error(failure, self._path).at(Scope.SOURCE, Phase.TRANSFER) from None
        if n_bytes < self._size:
            raise CopyFailed(f"{self._path}: became shorter while it was read", scope=Scope.SOURCE)


def _scan(path: Path) -> list[tuple[str, bool, int | None]]:
    """(name, is it a directory, size) of the children by name; links count as what they lead to."""
    with os.scandir(path) as entries:
        rows = [_row(entry) for entry in entries if TEMPORARY_MARK not in entry.name]
    return sorted(rows, key=lambda row: row[0])


def _row(entry: os.DirEntry[str]) -> tuple[str, bool, int | None]:
    try:
        is_directory = entry.is_dir()
        return entry.name, is_directory, None if is_directory else entry.stat().st_size
    except OSError:
        # A link that leads nowhere, or a file that was just removed, is trouble of whoever reads it, not of the others.
        return entry.name, False, None


def _publish(temporary: Path, path: Path, *, overwrite: bool, sync: bool) -> None:
    try:
        if overwrite:
            temporary.replace(path)
        else:
            _move_to_free_name(temporary, path)
        if sync:
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except OSError as failure:
        raise _error(failure, path).at(Scope.DESTINATION, Phase.FINALIZATION) from None


def _move_to_free_name(temporary: Path, path: Path) -> None:
    """Rename unless the name is taken: a hard link fails then, a rename would replace."""
    try:
        os.link(temporary, path)
    except OSError as failure:
        if failure.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}:
            raise
        # No hard links here (FAT, some FUSE): look first, with the small race that this leaves.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        temporary.replace(path)
