"""One COPY: pull or push headers, the progress body, deadlines, and what each end means.

Success is a line that says so and nothing else: nginx answers 204 and Apache 201 to a COPY that
they carried out inside their own file system.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import aiohttp

from protocols.api import CopyEnd, CopyRequest, Marker, Mode, OnMarker
from protocols.checksum import Checksum, to_base64
from protocols.errors import (
    BadServer,
    Denied,
    OutcomeUnknown,
    ParentMissing,
    Phase,
    Refused,
    Scope,
    Stalled,
    TimedOut,
    TransferError,
    Unavailable,
    Unsupported,
    printable,
)
from protocols.http import faults
from protocols.http.directories import Directories
from protocols.http.macaroon import Macaroons
from protocols.http.markers import Failure, Malformed, MarkerParser, Success
from protocols.http.quirks import Quirks, Record
from protocols.http.urls import endpoint_of, wire_url
from protocols.http.webdav import Metadata
from protocols.http.wire import Request, Wire, read_body
from protocols.masking import masking

STARTED: Final = frozenset({200, 201, 202})
DRAIN_S: Final = 5.0
DRAIN_MAX: Final = 64 * 1024
DOUBTS_MAX: Final = 3
CLIENT_INFO_MAX: Final = 512
_NOT_TPC: Final = frozenset({405, 501, 502})
"""COPY is no method here, or not to other servers (rclone, wsgidav)."""
_PERHAPS_NOT_TPC: Final = frozenset({400, 404, 409})
"""nginx 400, Apache and wsgidav 404 to a COPY with `Source`; but a TPC server may mean this very file."""
_REPR_NAMES: Final = {"adler32": "adler", "sha1": "sha", "sha256": "sha-256", "sha512": "sha-512"}
"""Names in the registry of RFC 9530 where they differ from ours."""


class Watch:
    """The deadlines of one running copy, as one instant of loop time."""

    def __init__(self, request: CopyRequest, scope: asyncio.Timeout) -> None:
        """The copy starts now; until the first answer only the first-response limit counts."""
        self._limits = request.timeouts
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        self._progress_s: float | None = None
        self._bytes = 0
        self._set(self._start_s + self._limits.first_response_s)

    def heard(self, bytes_done: int = -1) -> None:
        """Something arrived: any bytes, or a marker with its count."""
        now = self._loop.time()
        if self._progress_s is None or bytes_done > self._bytes:
            self._progress_s = now
            self._bytes = max(bytes_done, self._bytes)
        self._set(min(now + self._limits.silence_s, self._progress_s + self._limits.stall_s))

    def expired(self) -> TransferError:
        """Which of the limits it was."""
        now, limits = self._loop.time(), self._limits
        if limits.total_s is not None and now >= self._start_s + limits.total_s:
            return TimedOut(f"the copy was not done within {limits.total_s:g} s", unsettled=True)
        if self._progress_s is None:
            return TimedOut(f"no answer to COPY within {limits.first_response_s:g} s", unsettled=True)
        if now >= self._progress_s + limits.stall_s:
            return Stalled(f"no bytes moved for {limits.stall_s:g} s", unsettled=True)
        return Stalled(f"no progress marker for {limits.silence_s:g} s", unsettled=True)

    def _set(self, at_s: float) -> None:
        if self._limits.total_s is not None:
            at_s = min(at_s, self._start_s + self._limits.total_s)
        self._scope.reschedule(at_s)


class Copier:
    """Drives third-party copies."""

    def __init__(
        self, *, wire: Wire, quirks: Quirks, metadata: Metadata, directories: Directories, macaroons: Macaroons
    ) -> None:
        self._wire = wire
        self._quirks = quirks
        self._metadata = metadata
        self._directories = directories
        self._macaroons = macaroons

    async def run(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        """See `Adapter.copy`."""
        request = await self._macaroons.equip(request)
        shown = [request.source_credential, request.destination_credential]
        with masking(shown, [request.source_url, request.destination_url]):
            return await self._run(request, on_marker)

    async def _run(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        http_request = _http_request(request)
        record = await self._may_try(request, http_request)
        if record.family is not None and record.family.copies_once:
            http_request = replace(http_request, headers={**http_request.headers, "Connection": "close"})
        watch: Watch | None = None
        try:
            async with asyncio.timeout(None) as scope:
                watch = Watch(request, scope)
                async with self._wire.open(http_request) as response:
                    return await self._evaluate(request, response, record, watch, on_marker)
        except TimeoutError:
            if watch is None:
                raise
            raise watch.expired() from None
        except ParentMissing:
            self._directories.forget(wire_url(request.destination_url))
            raise
        except Denied as failure:
            self._explain(request, failure)
            raise
        except Unavailable as failure:
            # No connection to the storage that should get the COPY: its side, not the transfer's.
            if failure.scope is Scope.TRANSFER:
                failure.scope = faults.scope_of(faults.Side.ACTIVE, request.mode)
            raise

    def _explain(self, request: CopyRequest, failure: Denied) -> None:
        """Without a token for the passive party it is no wonder that it lets nobody in."""
        pull = request.mode is Mode.PULL
        url = request.source_url if pull else request.destination_url
        credential = request.source_credential if pull else request.destination_credential
        if failure.scope is faults.scope_of(faults.Side.PASSIVE, request.mode) and (
            why := self._macaroons.why_none(url, credential)
        ):
            failure.hint = f"the {failure.scope.lower()} gave no macaroon to show there ({why}): submit with tokens"

    async def _may_try(self, request: CopyRequest, http_request: Request) -> Record:
        """The active party's record; Unsupported where COPY cannot work or would do something else.

        A push to a server that does not speak TPC copies locally when `Destination` bears its own
        host name, so it goes only to servers that are known to speak it, or that are on another host.
        """
        pull = request.mode is Mode.PULL
        record = self._quirks.of(endpoint_of(http_request.url))
        if (record.pull if pull else record.push) is False:
            raise _unsupported(request, "known from earlier tries")
        if pull or record.speaks_tpc:
            return record
        record = await self._metadata.server_of(
            http_request.url, credential=request.source_credential, timeouts=request.timeouts
        )
        if record.speaks_tpc:
            return record
        same_host = http_request.url.raw_host == wire_url(request.destination_url).raw_host
        if same_host or (record.family is not None and record.family.copies_locally):
            record.push = False
            raise _unsupported(request, "a plain WebDAV server would copy inside itself")
        return record

    async def _evaluate(
        self,
        request: CopyRequest,
        response: aiohttp.ClientResponse,
        record: Record,
        watch: Watch,
        on_marker: OnMarker,
    ) -> CopyEnd:
        watch.heard()
        if response.status in STARTED:
            return await self._body(request, response, record, watch, on_marker)
        if response.status < 400:  # noqa: PLR2004 - HTTP
            if record.speaks_tpc:
                raise OutcomeUnknown(f"COPY: HTTP {response.status} without a result", unsettled=True)
            self._no_tpc(request, record)
            raise _unsupported(request, f"HTTP {response.status} without a result line")
        try:
            body = await read_body(response, 64 * 1024)
        except (aiohttp.ClientError, OSError):
            body = b""
        raise self._refusal(request, response, record, body)

    def _refusal(
        self, request: CopyRequest, response: aiohttp.ClientResponse, record: Record, body: bytes
    ) -> TransferError:
        parser = MarkerParser()
        events = [*parser.feed(body), *parser.finish()]
        failure = next((event for event in events if isinstance(event, Failure)), None)
        final = self._quirks.of(endpoint_of(response.url))
        if failure is not None:
            record.proved_tpc = True
        elif not (record.speaks_tpc or final.speaks_tpc):
            if response.status in _NOT_TPC:
                self._no_tpc(request, record)
                return _unsupported(request, f"HTTP {response.status}")
            if response.status in _PERHAPS_NOT_TPC:
                self._doubt(request, record)
                return _unsupported(request, f"HTTP {response.status} from a server not known for third-party copy")
        text = failure.text if failure is not None else faults.readable(body)
        return faults.from_copy_status(response.status, text, response.headers, mode=request.mode)

    async def _body(
        self,
        request: CopyRequest,
        response: aiohttp.ClientResponse,
        record: Record,
        watch: Watch,
        on_marker: OnMarker,
    ) -> CopyEnd:
        """Read markers until a result line, the end of the body, or a lost connection."""
        parser = MarkerParser()
        n_markers = bytes_done = 0
        ended = False
        while not (ended or parser.done):
            try:
                block = await response.content.readany()
            except (aiohttp.ClientError, OSError) as lost:
                raise OutcomeUnknown(_lost_text(lost), unsettled=True) from None
            ended = not block
            for event in parser.finish() if ended else parser.feed(block):
                match event:
                    case Marker():
                        n_markers += 1
                        event = _clamped(event, request.size_bytes)  # noqa: PLW2901 - the same marker within bounds
                        bytes_done = max(bytes_done, event.bytes_done)
                        record.proved_tpc = True
                        on_marker(event)
                    case Success(text):
                        self._proved(request, record)
                        await _drain(response)
                        return CopyEnd(message=faults.strip_secrets(text), bytes_done=bytes_done, n_markers=n_markers)
                    case Failure(text):
                        self._proved(request, record)
                        raise faults.from_copy_text(text, mode=request.mode)
                    case Malformed(reason):
                        raise BadServer(reason, unsettled=True)
            watch.heard(bytes_done)
        if n_markers or record.speaks_tpc or not _is_framed(response):
            raise OutcomeUnknown("the answer to COPY ended without a result line", unsettled=True)
        self._no_tpc(request, record)
        raise _unsupported(request, f"HTTP {response.status} without markers or a result line")

    @staticmethod
    def _proved(request: CopyRequest, record: Record) -> None:
        record.proved_tpc = True
        record.n_doubts = 0
        if request.mode is Mode.PULL:
            record.pull = True
        else:
            record.push = True

    @staticmethod
    def _no_tpc(request: CopyRequest, record: Record) -> None:
        if record.configured:
            return
        if request.mode is Mode.PULL:
            record.pull = False
        else:
            record.push = False

    def _doubt(self, request: CopyRequest, record: Record) -> None:
        """A status that a TPC server may use for this file only: believed of a known family, or the third time."""
        record.n_doubts += 1
        if record.n_doubts >= DOUBTS_MAX or (record.family is not None and record.family.copies_locally):
            self._no_tpc(request, record)


def _http_request(request: CopyRequest) -> Request:
    if request.mode not in {Mode.PULL, Mode.PUSH}:
        raise Refused("a storage copies by pull or push only", scope=Scope.AGENT, phase=Phase.PREPARATION)
    pull = request.mode is Mode.PULL
    source, destination = wire_url(request.source_url), wire_url(request.destination_url)
    passive = request.source_credential if pull else request.destination_credential
    headers = {
        "Source" if pull else "Destination": str(source if pull else destination),
        "Overwrite": "T" if request.overwrite else "F",
        # Without it dCache asks for GridSite delegation when TLS shows a client certificate.
        "Credential": "none",
        # The engine compares size and checksum itself; dCache would fail where there is no common algorithm.
        "RequireChecksumVerification": "false",
        # DPM: redirect to the https port of the disk node.
        "Secure-Redirection": "1",
    }
    if passive.token:
        headers["TransferHeaderAuthorization"] = f"Bearer {passive.token.reveal()}"
    if request.n_streams is not None:
        headers["X-Number-Of-Streams"] = str(request.n_streams)
    if request.client_info:
        headers["ClientInfo"] = printable(request.client_info, CLIENT_INFO_MAX).encode("ascii", "replace").decode()
    if request.scitag is not None:
        headers["SciTag"] = str(request.scitag)
    if pull and request.checksum is not None:
        headers["Repr-Digest"] = _repr_digest(request.checksum)
    return Request(
        method="COPY",
        url=destination if pull else source,
        credential=request.destination_credential if pull else request.source_credential,
        headers=headers,
        connect_s=request.timeouts.connect_s,
        side_effect=True,
    )


def _repr_digest(checksum: Checksum) -> str:
    return f"{_REPR_NAMES.get(checksum.algorithm, checksum.algorithm)}=:{to_base64(checksum)}:"


def _clamped(marker: Marker, size_bytes: int | None) -> Marker:
    """Never more than the file has: one absurd count must not poison rates and estimates."""
    if size_bytes is None or marker.bytes_done <= size_bytes:
        return marker
    return Marker(bytes_done=size_bytes, n_stripes=marker.n_stripes, connections=marker.connections)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read what follows the success line, so that the connection can serve again.

    A body that breaks off here never reached its end: something between us and the storage may have
    made up what we saw, so the outcome is not taken as proven.
    """
    if response.content.at_eof():
        return
    n_bytes = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            while n_bytes < DRAIN_MAX and (block := await response.content.readany()):
                n_bytes += len(block)
    except TimeoutError:
        return
    except (aiohttp.ClientError, OSError) as lost:
        raise OutcomeUnknown(_lost_text(lost), unsettled=True) from None


def _is_framed(response: aiohttp.ClientResponse) -> bool:
    """Whether the end of the body was announced: else a cut connection looks like an end."""
    headers = response.headers
    return "Content-Length" in headers or "chunked" in headers.get("Transfer-Encoding", "").lower()


def _lost_text(lost: BaseException) -> str:
    reason = faults.strip_secrets(str(lost) or type(lost).__name__)
    return f"the connection of the running copy was lost: {reason}"


def _unsupported(request: CopyRequest, reason: str) -> Unsupported:
    scope = Scope.DESTINATION if request.mode is Mode.PULL else Scope.SOURCE
    return Unsupported(f"the storage does not do {request.mode}: {reason}", scope=scope, phase=Phase.PREPARATION)
