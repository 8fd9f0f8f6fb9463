"""What can go wrong between the engine and a storage, and whether trying again can help.

Every class says *what to do*, not what the server said: the wording is classified once, in
`protocols.http.faults`, and nobody reads message text afterwards.

    TransferError
    ├── Unavailable        the party cannot be reached or is broken for now         try again
    │   └── Overloaded     it says so itself (429, 503), maybe with Retry-After     try again, slower
    ├── TimedOut           an answer or the whole copy took too long                try again
    │   └── Stalled        the copy is open but no bytes move                       try again
    ├── CopyFailed         the storage reports that the copy failed                 try again
    ├── OutcomeUnknown     the copy's connection ended without a final line         look, then decide
    ├── ChecksumMismatch   bytes differ                                             try again, few times
    │   └── SourceCorrupt  the source differs from the catalogue                    never here
    ├── ChecksumUnavailable  one is required and not offered                        never here
    ├── SizeMismatch       length differs                                           try again, few times
    ├── BadServer          the peer breaks the protocol                             try again, few times
    ├── NoSpace            the destination is full                                  try again, much later
    ├── Missing            no such file                                             never here
    │   └── ParentMissing  the directory above the destination is not there         make it, then again
    ├── AlreadyExists      the destination is there and must not be replaced        never here
    ├── Denied             credentials are missing, expired or not sufficient       never here
    ├── Unsupported        this party cannot do what was asked                      another mode may
    └── Refused            the request itself is wrong (URL, directory, name)       never
"""

from __future__ import annotations

import errno as _errno
from enum import StrEnum
from typing import ClassVar, Self


class Scope(StrEnum):
    """Whose side the failure is on; FTS's words, which clients read."""

    SOURCE = "SOURCE"
    DESTINATION = "DESTINATION"
    TRANSFER = "TRANSFER"
    AGENT = "AGENT"


class Phase(StrEnum):
    """How far the attempt had come."""

    PREPARATION = "PREPARATION"
    TRANSFER = "TRANSFER"
    FINALIZATION = "FINALIZATION"


class Again(StrEnum):
    """What trying the same thing again can bring."""

    SOON = "soon"
    """The cause passes by itself: back off and repeat."""
    FEW = "few"
    """Chance may have played a part: repeat once or twice, not for ever."""
    LATE = "late"
    """Somebody has to act first (a full storage): repeat after a long wait."""
    NEVER = "never"
    """The same request gives the same answer."""


MESSAGE_MAX = 2048
"""Longest error text that is kept, in characters."""


def printable(text: str, limit: int = MESSAGE_MAX) -> str:
    """`text` without control characters and at most `limit` long.

    A storage chooses the text of its failures; what it sends ends in terminals, logs and web
    pages, so escape sequences and line breaks are turned into blanks.
    """
    clean = text[: limit * 2]
    if not clean.isprintable():
        clean = "".join(c if c.isprintable() else " " for c in clean)
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


class TransferError(Exception):
    """A failure of one attempt, with everything a person or a retry policy needs.

    Attributes:
        code: stable machine-readable name of the class of failure.
        again: what trying again can bring.
        scope: whose side it is on.
        phase: how far the attempt was.
        errno: the POSIX number that FTS would report.
        message: what happened, printable, at most `MESSAGE_MAX` characters, without secrets.
        hint: what a user can do about it.
        retry_after_s: seconds that the party itself asked to wait, or None.
        unsettled: True when the storage may still be writing the destination.
        status: the HTTP status behind it, or None.
    """

    code: ClassVar[str] = "TRANSFER_ERROR"
    again: ClassVar[Again] = Again.SOON
    errno_default: ClassVar[int] = _errno.EIO
    hint_default: ClassVar[str] = "look at the storage's own log"

    def __init__(
        self,
        message: str,
        *,
        scope: Scope = Scope.TRANSFER,
        phase: Phase = Phase.TRANSFER,
        errno: int | None = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
        unsettled: bool = False,
        status: int | None = None,
    ) -> None:
        self.message = printable(message)
        self.scope = scope
        self.phase = phase
        self.errno = self.errno_default if errno is None else errno
        self.hint = hint or self.hint_default
        self.retry_after_s = retry_after_s
        self.unsettled = unsettled
        self.status = status
        super().__init__(self.message)

    def at(self, scope: Scope, phase: Phase) -> Self:
        """The same error, placed: the caller knows which side it was talking to."""
        self.scope = scope
        self.phase = phase
        return self

    def __str__(self) -> str:
        return self.message


class Unavailable(TransferError):
    """The party cannot be reached, or answers that it is broken for now."""

    code = "UNAVAILABLE"
    errno_default = _errno.ECOMM
    hint_default = "check that the storage is up and reachable"


class Overloaded(Unavailable):
    """The party asks to be spared (429, 503); `retry_after_s` when it said for how long."""

    code = "OVERLOADED"
    errno_default = _errno.EBUSY
    hint_default = "the storage is overloaded: lower its limits"


class TimedOut(TransferError):
    """An answer, or the whole copy, took longer than allowed."""

    code = "TIMED_OUT"
    errno_default = _errno.ETIMEDOUT
    hint_default = "raise the timeout, or check the storage's load"


class Stalled(TimedOut):
    """The copy's connection is open, but no marker comes or no bytes move."""

    code = "STALLED"
    hint_default = "the storage stopped moving bytes: check both ends' disks and network"


class CopyFailed(TransferError):
    """The storage says that the copy failed, for a reason that may pass."""

    code = "COPY_FAILED"


class OutcomeUnknown(TransferError):
    """The copy's connection ended without a final line: done, failed, or still being written."""

    code = "OUTCOME_UNKNOWN"
    errno_default = _errno.ECONNABORTED
    hint_default = "the destination is looked at before anything is repeated"


class ChecksumMismatch(TransferError):
    """The bytes differ from what was expected."""

    code = "CHECKSUM_MISMATCH"
    again = Again.FEW
    hint_default = "compare the source with the catalogue: it may be corrupt itself"


class SourceCorrupt(ChecksumMismatch):
    """The source itself differs from what the catalogue says."""

    code = "SOURCE_CORRUPT"
    again = Again.NEVER
    hint_default = "the source replica is corrupt or the catalogue is wrong: declare it bad"


class ChecksumUnavailable(TransferError):
    """A checksum is required, and nobody offers one to compare with."""

    code = "CHECKSUM_UNAVAILABLE"
    again = Again.NEVER
    errno_default = _errno.EOPNOTSUPP
    hint_default = "name an algorithm that the storages know (adler32 mostly), or stream the file through the engine"


class SizeMismatch(TransferError):
    """The length differs from what was expected."""

    code = "SIZE_MISMATCH"
    again = Again.FEW
    errno_default = _errno.EINVAL
    hint_default = "the copy was cut short, or the source changed"


class BadServer(TransferError):
    """The peer breaks the protocol (endless line, loop of redirects, no such message)."""

    code = "BAD_SERVER"
    again = Again.FEW
    errno_default = _errno.EPROTO
    hint_default = "the storage or something in front of it does not speak the protocol"


class NoSpace(TransferError):
    """The destination is full or over quota."""

    code = "NO_SPACE"
    again = Again.LATE
    errno_default = _errno.ENOSPC
    hint_default = "free space or raise the quota at the destination"


class Missing(TransferError):
    """There is no such file."""

    code = "MISSING"
    again = Again.NEVER
    errno_default = _errno.ENOENT
    hint_default = "check the path; declare the replica lost if it should be there"


class ParentMissing(Missing):
    """The directory above the destination is missing; nothing was written.

    The caller may `make_parents` and repeat.
    """

    code = "PARENT_MISSING"
    hint_default = "create the directory above the destination"


class AlreadyExists(TransferError):
    """The destination exists and must not be replaced."""

    code = "ALREADY_EXISTS"
    again = Again.NEVER
    errno_default = _errno.EEXIST
    hint_default = "ask for overwriting, or remove the file"


class Denied(TransferError):
    """The credential is missing, expired or not sufficient."""

    code = "DENIED"
    again = Again.NEVER
    errno_default = _errno.EACCES
    hint_default = "check the credential's lifetime, audience, scopes and path"


class Unsupported(TransferError):
    """This party cannot do what was asked; another copy mode may work."""

    code = "UNSUPPORTED"
    again = Again.NEVER
    errno_default = _errno.ENOSYS
    hint_default = "use another copy mode"


class Refused(TransferError):
    """The request itself is wrong for this storage (a directory, a bad name, a bad URL)."""

    code = "REFUSED"
    again = Again.NEVER
    errno_default = _errno.EINVAL
    hint_default = "check the URL"
