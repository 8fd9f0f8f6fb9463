"""The one table: what a server said or did → what to do about it.

Everybody raises what this module makes, and nobody reads message text afterwards. The first row
that matches decides, texts before statuses: the status of a failed COPY differs between servers
(a missing parent is 400, 409 or 500), while their wording comes from POSIX and libcurl.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

import aiohttp

from protocols.api import Mode
from protocols.errors import (
    AlreadyExists,
    BadServer,
    ChecksumMismatch,
    CopyFailed,
    Denied,
    Missing,
    NoSpace,
    Overloaded,
    ParentMissing,
    Phase,
    Refused,
    Scope,
    TimedOut,
    TransferError,
    Unavailable,
    Unsupported,
)
from protocols.http.addresses import WHERE, AddressForbidden
from protocols.masking import shapeless

RETRY_AFTER_MAX_S: Final = 900.0


class Side(Enum):
    """Which party of a copy a text is about."""

    PASSIVE = "the party that the storage with the COPY connects to"
    ACTIVE = "the storage that got the COPY"
    DESTINATION = "the destination, whichever party it is"
    BOTH = "cannot be told"


@dataclass(frozen=True, slots=True)
class TextRow:
    """One wording."""

    pattern: re.Pattern[str]
    error: type[TransferError]
    errno: int
    side: Side
    hint: str | None = None


def _row(
    pattern: str, error: type[TransferError], number: int, side: Side = Side.BOTH, hint: str | None = None
) -> TextRow:
    return TextRow(re.compile(pattern, re.IGNORECASE), error, number, side, hint)


_TLS_HINT: Final = "the two storages do not trust each other's certificates: check CA, CRL, host name and expiry"

TEXT_ROWS: Final = (
    # dCache: "verification failed: adler32 X != Y", "checksum verification failed"; XRootD 6: "Mismatch between
    # client-provided and remote server checksums". First, as they may quote file names.
    _row(
        r"verification failed|mismatch between .*checksum|checksums? (mismatch|do(es)? not match)",
        ChecksumMismatch,
        errno.EIO,
    ),
    # XRootD 5, head node: the location is being looked up; the next try finds it.
    _row(
        r"failed to open local resource",
        Unavailable,
        errno.EAGAIN,
        Side.ACTIVE,
        "the storage was still locating the file",
    ),
    # StoRM and dCache for a destination below a directory that does not exist.
    _row(
        r"parent (directory|path|collection)?.*(missing|not exist|not found)|no such (parent|directory)",
        ParentMissing,
        errno.ENOENT,
        Side.DESTINATION,
    ),
    # POSIX texts (strerror) that XRootD relays from its file system or the passive party.
    _row(r"no such file|(?<!host )(?<!name )not found|does not exist", Missing, errno.ENOENT),
    _row(r"directory not empty", Refused, errno.ENOTEMPTY, Side.BOTH, "the path names a directory"),
    _row(r"is a directory|not a file", Refused, errno.EISDIR, Side.BOTH, "the path names a directory"),
    _row(r"not a directory", Refused, errno.ENOTDIR, Side.BOTH, "a parent of the path is a file"),
    _row(r"permission denied|not authorized|authorization denied|operation not permitted", Denied, errno.EACCES),
    _row(r"file exists|already exists", AlreadyExists, errno.EEXIST, Side.DESTINATION),
    # libcurl in XRootD: "Unsupported protocol".
    _row(r"unsupported|not supported|not implemented", Unsupported, errno.EPROTONOSUPPORT),
    _row(r"name too long", Refused, errno.ENAMETOOLONG, Side.DESTINATION, "a name in the path is too long"),
    _row(r"read-only file system", Denied, errno.EROFS, Side.DESTINATION),
)

LATE_TEXT_ROWS: Final = (
    # XRootD: "Unable to write …; no space left on device", "disk quota exceeded"; dCache: "no space".
    _row(r"no space|quota|insufficient storage|disk full", NoSpace, errno.ENOSPC, Side.DESTINATION),
    # XRootD 5 says "interacting with local filesystem" here, but it is the source that sends nothing.
    _row(
        r"no bytes have been (received|sent)|too slow",
        CopyFailed,
        errno.ETIMEDOUT,
        Side.PASSIVE,
        "the other storage stalls",
    ),
    # libcurl: "SSL peer certificate or SSH remote key was not OK", "SSL connect error".
    _row(r"certificate|\bssl\b|\btls\b|handshake", BadServer, errno.EPROTO, Side.PASSIVE, _TLS_HINT),
    # libcurl: "Couldn't resolve host name"; dCache: "Unknown source hostname"; Java: UnknownHostException.
    _row(
        r"resolve|unknown (source |destination )?host|name or service not known",
        Unavailable,
        errno.EHOSTUNREACH,
        Side.PASSIVE,
    ),
    # libcurl: "Couldn't connect to server"; Java: ConnectException; dCache: "connection failed for PUT".
    _row(
        r"couldn.t connect|failed to connect|connection failed|connectexception|connection refused|no route",
        Unavailable,
        errno.ECONNREFUSED,
        Side.PASSIVE,
    ),
    # libcurl: "Timeout was reached".
    _row(r"timed? ?out", CopyFailed, errno.ETIMEDOUT, Side.PASSIVE),
    # libcurl: "Transferred a partial file", "Server returned nothing (no headers, no data)", "Failed sending data to
    # the peer"; dCache: "failed to send PUT request".
    _row(
        r"partial file|returned nothing|fail\w* (sending data|to send)|connection (reset|closed)|end.of.file",
        CopyFailed,
        errno.ECONNRESET,
        Side.PASSIVE,
    ),
    # XRootD: "Error when interacting with local filesystem: …".
    _row(r"local file ?system|input/output error", CopyFailed, errno.EIO, Side.ACTIVE),
    _row(r"restarted|shutting down|not accepted|busy|overload|too many", Unavailable, errno.EBUSY, Side.ACTIVE),
    # "aborted" alone: the storage's operator, or its own limits.
    _row(r"cancell?ed|aborted", CopyFailed, errno.ECANCELED, Side.ACTIVE),
)

# How the servers quote the status of the passive party: XRootD 5 "Remote side failed with status code 404", XRootD 6
# "remote host returned '404 Not Found' while fetching file size", dCache "rejected GET: 404 Not Found", StoRM "Error
# fetching U: 404" and "Error pushing …: 404".
PASSIVE_STATUS: Final = re.compile(
    r"(?:remote (?:side|host|server)\b.{0,80}?|rejected (?:GET|PUT|HEAD|POST)\b[^0-9]{0,10}"
    r"|error (?:fetching|pushing|sending)\b.{0,400}?[:\s]|status(?: code)?[ :=]{1,3}|HTTP/[0-9.]+ )'?\(?([1-5]\d\d)\b",
    re.IGNORECASE | re.DOTALL,
)
_PASSIVE_WORDS: Final = re.compile(
    r"remote (?:side|host|server)|rejected (?:GET|PUT|HEAD)|error (?:fetching|pushing)|remote=", re.IGNORECASE
)

STATUS_ROWS: Final[Mapping[int, tuple[type[TransferError], int]]] = {
    # RFC 9110, RFC 4918, RFC 6585; the class by what repeating can bring.
    400: (Refused, errno.EINVAL),
    401: (Denied, errno.EACCES),
    403: (Denied, errno.EACCES),
    404: (Missing, errno.ENOENT),
    405: (Unsupported, errno.ENOSYS),
    408: (TimedOut, errno.ETIMEDOUT),
    409: (Unavailable, errno.EBUSY),  # a file that is being written (dCache)
    410: (Missing, errno.ENOENT),
    412: (AlreadyExists, errno.EEXIST),
    413: (Refused, errno.EFBIG),
    414: (Refused, errno.ENAMETOOLONG),
    421: (Unavailable, errno.ECOMM),
    423: (Unavailable, errno.EBUSY),
    425: (Unavailable, errno.EBUSY),
    429: (Overloaded, errno.EBUSY),
    501: (Unsupported, errno.ENOSYS),
    503: (Overloaded, errno.EBUSY),
    504: (TimedOut, errno.ETIMEDOUT),
    507: (NoSpace, errno.ENOSPC),
}


def _by_status(status: int) -> tuple[type[TransferError], int]:
    """The row of a status; unknown ones by their hundreds (RFC 9110 §15)."""
    other = (Unavailable, errno.ECOMM) if status >= 500 else (Refused, errno.EINVAL)  # noqa: PLR2004 - HTTP
    return STATUS_ROWS.get(status, other)


_TAG: Final = re.compile(r"(?s)<(?:style|script|head)\b.*?</(?:style|script|head)>|<[^>]{0,400}>")


def strip_secrets(text: str) -> str:
    """`text` without tokens: a server may quote the URL or the header that it was sent."""
    return shapeless(text)


def readable(body: bytes) -> str:
    """An error body as one line of plain text, at most some hundred characters."""
    return " ".join(_TAG.sub(" ", body[:8192].decode("utf-8", errors="replace")).split())[:600]


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` asks for, between 0 and 900; None when there is none to understand.

    Args:
        now: for the form with a date; None: a date is not understood.
    """
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), RETRY_AFTER_MAX_S)
    if now is None:
        return None
    try:
        wait_s = (parsedate_to_datetime(text).replace(tzinfo=UTC) - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """The same from an answer's headers; a date is compared with the server's own `Date`."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        now = parsedate_to_datetime(headers.get("Date", "")).replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError):
        now = None
    return retry_after(value, now)


def from_status(status: int, text: str, headers: Mapping[str, str], *, subject: str) -> TransferError:
    """The error for an answer to a metadata request, a read or a write.

    Args:
        text: the readable body, "" when there is none.
        subject: what was asked, for the message: "HEAD https://…".
    """
    row = _first(TEXT_ROWS, text) if status in {400, 409, 500} else None
    if row is None and status >= 500:  # noqa: PLR2004 - HTTP
        row = _first(LATE_TEXT_ROWS, text)
    if row is not None and row.error is not ChecksumMismatch:
        error, number = row.error, row.errno
    else:
        error, number = _by_status(status)
    message = strip_secrets(f"{subject}: HTTP {status}{': ' + text if text else ''}")
    return error(message, errno=number, retry_after_s=retry_after_of(headers), status=status)


def _first(rows: tuple[TextRow, ...], text: str) -> TextRow | None:
    return next((row for row in rows if row.pattern.search(text)), None) if text else None


def scope_of(side: Side, mode: Mode) -> Scope:
    """SOURCE or DESTINATION for a side of a copy in `mode`."""
    match side:
        case Side.BOTH:
            return Scope.TRANSFER
        case Side.DESTINATION:
            return Scope.DESTINATION
        case Side.PASSIVE:
            return Scope.SOURCE if mode is Mode.PULL else Scope.DESTINATION
        case Side.ACTIVE:
            return Scope.DESTINATION if mode is Mode.PULL else Scope.SOURCE


def from_copy_text(text: str, *, mode: Mode) -> TransferError:
    """The error for a `failure:` line, or for the text of a refused COPY.

    Order: wording that is permanent, the passive party's status, a full disk, what may pass; an
    unknown wording is `CopyFailed`, which may be repeated.
    """
    message = strip_secrets(text) or "the storage gave no reason"
    quoted = PASSIVE_STATUS.search(text)
    passive = bool(quoted or _PASSIVE_WORDS.search(text))
    row = _first(TEXT_ROWS, text)
    if row is None and quoted:
        return _quoted_status(int(quoted[1]), message, mode)
    row = row or _first(LATE_TEXT_ROWS, text)
    if row is None:
        scope = scope_of(Side.PASSIVE if passive else Side.BOTH, mode)
        return CopyFailed(message, scope=scope)
    side = row.side
    if side is Side.BOTH and row.error is not ChecksumMismatch:
        side = Side.PASSIVE if _is_passive(text) else Side.ACTIVE
    error = row.error
    if error is Missing and scope_of(side, mode) is Scope.DESTINATION:
        # A file that is about to be written cannot be missing: what is missing is above it.
        error = ParentMissing
    return error(message, scope=scope_of(side, mode), errno=row.errno, hint=row.hint)


def _is_passive(text: str) -> bool:
    """Whether the wording is quoted from the passive party.

    XRootD 6 ends every reason with `local=…, remote=…`, so that tail tells nothing; and what it could
    not do itself it calls "Unable to open …" or "… local resource".
    """
    reason = re.split(r",\s*local=", text, maxsplit=1)[0]
    return bool(PASSIVE_STATUS.search(reason) or _PASSIVE_WORDS.search(reason))


def _quoted_status(status: int, message: str, mode: Mode) -> TransferError:
    scope = scope_of(Side.PASSIVE, mode)
    error, number = _by_status(status)
    if scope is Scope.DESTINATION and (error is Missing or status == 409):  # noqa: PLR2004 - HTTP
        error, number = ParentMissing, errno.ENOENT
    return error(message, scope=scope, errno=number, status=status)


def from_copy_status(status: int, text: str, headers: Mapping[str, str], *, mode: Mode) -> TransferError:
    """The error for a COPY that a server known for TPC refused with an HTTP status."""
    message = f"COPY: HTTP {status}{': ' + text if text else ''}"
    wait_s = retry_after_of(headers)
    if text and (PASSIVE_STATUS.search(text) or _first(TEXT_ROWS, text)):
        found = from_copy_text(text, mode=mode)
        # StoRM and XRootD answer 412 for a file that exists, whatever they say along with it.
        found.message, found.status, found.retry_after_s = strip_secrets(message), status, wait_s
        found.phase = Phase.PREPARATION
        return found
    scope = scope_of(Side.ACTIVE, mode)
    error, number = _by_status(status)
    if status == 409 and mode is Mode.PULL:  # noqa: PLR2004 - StoRM: the parent directory is missing (RFC 4918 §9.8.5)
        error, number = ParentMissing, errno.ENOENT
    elif error is Missing or error is AlreadyExists:
        # 404 is relayed from the source by XRootD 6 on pull, and is the source itself on push (dCache, StoRM).
        scope = Scope.SOURCE if error is Missing else Scope.DESTINATION
    elif error is NoSpace:
        scope = Scope.DESTINATION
    elif status == 500 and (late := _first(LATE_TEXT_ROWS, text)):  # noqa: PLR2004 - XRootD 6: curl's text
        error, number, scope = late.error, late.errno, scope_of(late.side, mode)
    elif status == 502:  # noqa: PLR2004 - a gateway in front of the storage
        error, number = Unavailable, errno.ECOMM
    return error(
        strip_secrets(message), scope=scope, phase=Phase.PREPARATION, errno=number, retry_after_s=wait_s, status=status
    )


_TLS: Final = "check CA directory, host name and expiry of the certificate"
_ALERT: Final = re.compile(r"\[SSL: \w*_ALERT_(UNKNOWN_CA|ACCESS_DENIED|\w*CERTIFICATE\w*)\]")
"""OpenSSL's names of the alerts (RFC 8446, 6.2) by which a peer refuses the certificate it was shown, or misses one."""
_OURS: Final = "the storage does not take the certificate or proxy: see that its CA is known there and its lifetime"
_DNS: Final = "the host name does not resolve: check it, and the DNS"

EXCEPTION_ROWS: Final[
    tuple[tuple[tuple[type[BaseException], ...], type[TransferError], int | None, str | None], ...]
] = (
    # Most special first: aiohttp's classes overlap (a certificate failure is also an OSError). None: the failure's own.
    ((AddressForbidden,), Refused, errno.EPERM, WHERE),
    (
        (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, ssl.SSLError),
        BadServer,
        errno.EPROTO,
        _TLS,
    ),
    ((aiohttp.ClientConnectorDNSError,), Unavailable, errno.EHOSTUNREACH, _DNS),
    ((aiohttp.ConnectionTimeoutError,), Unavailable, errno.ETIMEDOUT, None),
    ((aiohttp.ClientConnectorError,), Unavailable, None, None),
    ((aiohttp.InvalidURL,), Refused, errno.EINVAL, None),
    ((TimeoutError,), TimedOut, errno.ETIMEDOUT, None),
    ((aiohttp.ClientPayloadError,), Unavailable, errno.ECONNRESET, "the answer was cut short"),
    ((aiohttp.ClientResponseError, aiohttp.http.HttpProcessingError), BadServer, errno.EPROTO, None),
    ((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError), Unavailable, errno.ECONNRESET, None),
)


def from_exception(failure: BaseException, *, subject: str) -> TransferError:
    """The error for a request that got no complete answer; the text of the cause is kept, without secrets."""
    # aiohttp writes of every connection, plain ones too, how a certificate would have been checked.
    told = re.sub(r" ssl:(default|True)(?= \[)", "", str(failure)) or type(failure).__name__
    text = strip_secrets(f"{subject}: {told}")
    if isinstance(failure, aiohttp.ClientConnectorError) and isinstance(failure.os_error, AddressForbidden):
        failure = failure.os_error
    if _ALERT.search(str(failure)):
        return Denied(text, hint=_OURS)
    for kinds, error, number, hint in EXCEPTION_ROWS:
        if isinstance(failure, kinds):
            own = getattr(failure, "errno", None)
            return error(text, errno=number if number is not None else own or errno.ECONNREFUSED, hint=hint)
    return Unavailable(text)
