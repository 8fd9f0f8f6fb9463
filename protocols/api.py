"""The contract between whoever drives a copy and whoever speaks to a storage.

An `Adapter` performs single operations on the wire. It keeps no queue, retries nothing by itself
(but for a request that verifiably never left), and forgets a transfer when its call returns.

What every implementation promises, and `tests/contract` checks:

* Each method either returns what its docstring says or raises a `TransferError`; the only other
  exception that leaves it is `asyncio.CancelledError`.
* Cancelling a call closes the connection it used. For `copy` that is the only way to stop a
  running third-party copy: the storage notices at its next progress marker, and may leave a
  partial file behind.
* Nothing secret is part of an error, a log record or a `repr`.
* `copy` returns only after the storage reported success in words. That alone does not prove that
  the destination is right: sizes and checksums are the caller's to compare.
* Every wait is bounded by a value of `Timeouts`. Time is the event loop's, so that a loop with
  virtual time drives an adapter faithfully.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from protocols.checksum import Checksum
from protocols.credentials import ANONYMOUS, Credential

__all__ = [
    "ANONYMOUS",
    "Adapter",
    "Capabilities",
    "CopyEnd",
    "CopyRequest",
    "Credential",
    "Entry",
    "Marker",
    "Mode",
    "OnMarker",
    "ReadStream",
    "Stat",
    "Timeouts",
]


class Mode(StrEnum):
    """How the bytes travel."""

    PULL = "pull"
    """COPY goes to the destination, which fetches from the source."""
    PUSH = "push"
    """COPY goes to the source, which sends to the destination."""
    STREAM = "stream"
    """The engine reads here and writes there; not an adapter's mode, but `protocols.streaming`'s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each kind of wait may take, all in seconds."""

    connect_s: float = 30.0
    """Until a TCP and TLS connection stands."""
    request_s: float = 60.0
    """Until a metadata request (stat, delete, make directory) is answered completely."""
    digest_s: float = 300.0
    """The same when a checksum is asked for: the storage may have to read the file."""
    first_response_s: float = 150.0
    """Until a COPY's status line. XRootD 5 looks at the passive party first and says nothing meanwhile, up to 120 s."""
    silence_s: float = 120.0
    """Between two things heard on a running COPY. Markers come every 5 s; some servers send none for short copies."""
    stall_s: float = 300.0
    """Without a byte of progress, though markers keep coming."""
    total_s: float | None = None
    """For the whole copy; None: no such limit, progress is what counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What a storage says of one path."""

    size_bytes: int | None
    """Length; None when the storage does not say (chunked HEAD, directory)."""
    is_directory: bool = False
    checksums: Mapping[str, Checksum] = field(default_factory=dict)
    """By algorithm name, normalised; empty when none was asked for or offered."""
    modified_at: datetime | None = None
    """Aware; by the storage's clock, so for display and stability checks only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of a directory listing."""

    name: str
    """Last path component, decoded."""
    url: str
    is_directory: bool
    size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """One progress report of a running copy."""

    bytes_done: int
    """Over all stripes, since the copy began, never less than in an earlier marker."""
    n_stripes: int = 1
    connections: tuple[str, ...] = ()
    """`tcp:ADDRESS:PORT` of the data connections, as the server names them."""


OnMarker = Callable[[Marker], None]
"""Called in the event loop for each marker, in order; must not block or raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """One third-party copy of one file."""

    source_url: str
    destination_url: str
    mode: Mode
    source_credential: Credential = ANONYMOUS
    destination_credential: Credential = ANONYMOUS
    overwrite: bool = False
    """False sends `Overwrite: F`. Servers honour it on pull only, so check first."""
    size_bytes: int | None = None
    checksum: Checksum | None = None
    """The source's, when known; sent as `Repr-Digest` where the server understands it."""
    n_streams: int | None = None
    client_info: str = ""
    """For the storage's log: `job-id=…;file-id=…;retry=…`."""
    scitag: int | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyEnd:
    """How a successful copy ended."""

    message: str
    """The storage's success line."""
    bytes_done: int
    """From the last marker; 0 when there was none."""
    n_markers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What is known of an endpoint."""

    pull: bool | None = None
    """It can be the active party of a pull; None: not known yet, worth trying."""
    push: bool | None = None
    """The same of a push."""
    digests: frozenset[str] = frozenset()
    """Algorithms it has answered with before: where one is left out once, it is worth asking again."""
    replaces: bool = False
    """`write` puts a file in the place of another one at once, when it is complete, and else leaves the old one."""


@runtime_checkable
class ReadStream(Protocol):
    """The bytes of one file, in order."""

    @property
    def size_bytes(self) -> int | None:
        """Length that the storage announced for the whole file, or None."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield blocks of 1 byte to 4 MiB until the end; raise `TransferError` when cut short."""


class Adapter(Protocol):
    """One family of storages, spoken to through URLs of its schemes."""

    @property
    def schemes(self) -> frozenset[str]:
        """The URL schemes it takes, lower-case."""

    def capabilities(self, url: str) -> Capabilities:
        """What is known so far of the endpoint of `url`; no I/O."""

    async def stat(
        self, url: str, *, credential: Credential = ANONYMOUS, digest: str | None = None, timeouts: Timeouts = ...
    ) -> Stat:
        """Look at one path.

        Args:
            digest: algorithm to ask for along with the size. The answer may lack it or hold
                another one; a storage that refuses to say raises nothing for that alone.

        Raises: Missing, Denied, Unavailable, Overloaded, TimedOut, BadServer.
        """

    async def list_directory(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = ...
    ) -> list[Entry]:
        """The direct children of a directory, in the storage's order; the directory itself is not among them.

        Raises: Missing, Refused (not a directory), Denied, Unsupported, Unavailable, TimedOut.
        """

    async def make_parents(self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = ...) -> None:
        """Create the directories above `url` that are missing; those that exist are no error.

        Raises: Denied, Unavailable, TimedOut, Refused (a parent is a file).
        """

    async def delete(self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = ...) -> bool:
        """Remove one file; True when it was there, False when it was already gone.

        Raises: Denied, Refused, Unavailable, TimedOut.
        """

    async def copy(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        """Have the storages copy directly; `request.mode` is PULL or PUSH.

        Returns: after the storage's success line.
        Raises: any `TransferError`. `unsettled` on it tells whether the storage may still be
            writing: True for OutcomeUnknown, Stalled and TimedOut after the request went out.
        Cancel: closes the connection; the destination may hold a partial file that still grows.
        """

    def read(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = ...
    ) -> AbstractAsyncContextManager[ReadStream]:
        """Open one file for reading from its start.

        Raises: on entry as `stat`.
        """

    async def write(
        self,
        url: str,
        blocks: AsyncIterator[bytes],
        *,
        size_bytes: int | None,
        overwrite: bool,
        credential: Credential = ANONYMOUS,
        timeouts: Timeouts = ...,
    ) -> None:
        """Write one file from `blocks`; parents are the caller's to make.

        Args:
            size_bytes: sent as Content-Length. Chunked uploads fail now and then on XRootD 5.

        Raises: any `TransferError`; an error that `blocks` raises passes through unchanged.
        Cancel: a partial file may stay behind.
        """

    async def aclose(self) -> None:
        """Close every connection; the adapter is not used afterwards."""
