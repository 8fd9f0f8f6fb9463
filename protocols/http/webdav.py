"""Metadata: HEAD, PROPFIND, MKCOL, DELETE, and checksums (RFC 9110, RFC 4918, RFC 3230, RFC 9530)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from protocols.api import Credential, Entry, Stat, Timeouts
from protocols.checksum import (
    WIRE_NAMES,
    Checksum,
    algorithm_name,
    from_hex,
    parse,
    parse_digest_header,
    parse_repr_digest_header,
)
from protocols.errors import BadServer, Missing, Phase, Refused, TimedOut, TransferError, Unsupported
from protocols.http import faults, propfind
from protocols.http.quirks import Quirks, Record
from protocols.http.urls import endpoint_of, with_slash
from protocols.http.wire import Answer, Request, Wire, read_body

PROPFIND_MAX: Final = 1 << 20
LISTING_MAX: Final = 256 << 20
"""A listing is parsed as it arrives; this only stops a server that never ends."""
DIGEST_POLL_S: Final = 15.0
DIGEST_PATIENCE_S: Final = 5.0
"""How long a checksum may take before we look whether the path is a directory."""
_MODERN: Final = frozenset({"sha256", "sha512"})
"""Algorithms of RFC 9530 that dCache offers only that way."""
_GONE: Final = frozenset({404, 410})
_NO_PROPFIND: Final = frozenset({400, 405, 501})


class Metadata:
    """Single metadata requests, with what was learned of each endpoint."""

    def __init__(self, *, wire: Wire, quirks: Quirks, etag_md5_endpoints: Collection[str] = ()) -> None:
        """`etag_md5_endpoints`: `scheme://host:port` whose ETag is the md5 of the content."""
        self._wire = wire
        self._quirks = quirks
        self._etag_md5 = frozenset(etag_md5_endpoints)

    def request(
        self,
        method: str,
        url: URL,
        credential: Credential,
        timeouts: Timeouts,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Request:
        """A request of this kind."""
        return Request(
            method=method,
            url=url,
            credential=credential,
            headers=headers or {},
            connect_s=timeouts.connect_s,
            body=body,
        )

    # -- stat ---------------------------------------------------------------------------------

    async def stat(self, url: URL, *, credential: Credential, digest: str | None, timeouts: Timeouts) -> Stat:
        """See `Adapter.stat`.

        HEAD alone proves a file only when it brings a checksum: XRootD answers HEAD on a directory
        with 200 and a length of 4096. Otherwise PROPFIND decides, where the server has it.
        """
        record = self._quirks.of(endpoint_of(url))
        if digest is None and record.propfind:
            found = await self._propfind(url, credential, timeouts, record)
            if found is not None:
                return found
        name = None if digest is None else algorithm_name(digest)
        async with contextlib.nullcontext() if name is None else record.digest_gate:
            head = await self._patient_head(url, credential, name, timeouts, record)
        if isinstance(head, Stat):
            return head
        if head.status in _GONE:
            raise self._error(head, "HEAD", url)
        if 200 <= head.status < 300:  # noqa: PLR2004 - HTTP
            stat = self._from_head(head, url, record, name)
            is_file = bool(stat.checksums) and stat.size_bytes is not None
            if is_file or stat.is_directory or record.propfind is False:
                return stat
            return await self._propfind_or(stat, url, credential, timeouts)
        return await self._without_digest(head, url, credential, name, timeouts)

    async def _without_digest(
        self, head: Answer, url: URL, credential: Credential, name: str | None, timeouts: Timeouts
    ) -> Stat:
        """HEAD was refused: because of the digest (a directory, no checksums here), as a method, or as such."""
        record = self._quirks.of(endpoint_of(url))
        if name is None and head.status not in {405, 501, 403}:
            raise self._error(head, "HEAD", url)
        if head.status in {429, 503} or (head.status == 401):  # noqa: PLR2004 - HTTP
            raise self._error(head, "HEAD", url)
        if record.propfind is not False and (found := await self._propfind(url, credential, timeouts, record)):
            return found
        if name is not None:
            again = await self._head(url, credential, None, timeouts)
            if 200 <= again.status < 300:  # noqa: PLR2004 - HTTP
                return self._from_head(again, url, record, None)
            head = again
        raise self._error(head, "HEAD", url)

    async def _propfind_or(self, stat: Stat, url: URL, credential: Credential, timeouts: Timeouts) -> Stat:
        record = self._quirks.of(endpoint_of(url))
        try:
            found = await self._propfind(url, credential, timeouts, record)
        except TransferError as failure:
            # A token for reading may not allow listing; a file that vanished meanwhile is news.
            if isinstance(failure, Missing):
                raise
            return stat
        if found is None:
            return stat
        size = stat.size_bytes if found.size_bytes is None and not found.is_directory else found.size_bytes
        return Stat(
            size_bytes=size,
            is_directory=found.is_directory,
            checksums=stat.checksums,
            modified_at=found.modified_at or stat.modified_at,
        )

    async def _patient_head(
        self, url: URL, credential: Credential, name: str | None, timeouts: Timeouts, record: Record
    ) -> Answer | Stat:
        """HEAD; when the checksum takes long, what PROPFIND says of a directory, else the first of two HEADs."""
        if name is None or not (record.family is None or record.family.digest_may_hang):
            return await self._head(url, credential, name, timeouts)
        async with asyncio.TaskGroup() as group:
            head = group.create_task(self._caught_head(url, credential, name, timeouts))
            tries = {head}
            done, _ = await asyncio.wait(tries, timeout=DIGEST_PATIENCE_S)
            if not done:
                unknown = Stat(size_bytes=None)
                found = await self._propfind_or(unknown, url, credential, timeouts)
                if found.is_directory:
                    head.cancel()
                    return found
                # XRootD puts a request off for 30 s now and then, a second one is answered at once.
                tries.add(group.create_task(self._caught_head(url, credential, name, timeouts)))
                done, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
            answer = done.pop().result()
            for other in tries:
                other.cancel()
        if isinstance(answer, TransferError):
            raise answer
        return answer

    async def _caught_head(
        self, url: URL, credential: Credential, name: str, timeouts: Timeouts
    ) -> Answer | TransferError:
        """As a value, because a task group would wrap what its task raises."""
        try:
            return await self._head(url, credential, name, timeouts)
        except TransferError as failure:
            return failure

    async def _head(self, url: URL, credential: Credential, name: str | None, timeouts: Timeouts) -> Answer:
        headers: dict[str, str] = {}
        if name is not None:
            wire_name = WIRE_NAMES.get(name, name)
            headers["Want-Digest"] = wire_name
            if name in _MODERN:
                headers["Want-Repr-Digest"] = f"{wire_name}=9"
        limit_s = timeouts.request_s if name is None else timeouts.digest_s
        request = self.request("HEAD", url, credential, timeouts, headers)
        if name is not None and url.scheme == "https":
            family = self._quirks.of(endpoint_of(url)).family
            if family is None or family.digests_alone:
                request = replace(request, alone=True)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        while True:
            answer = await self._wire.exchange(request, limit_s=max(end_s - loop.time(), 0.0))
            # DPM: the checksum is still being computed.
            if answer.status != 202 or name is None:  # noqa: PLR2004 - HTTP
                return answer
            if loop.time() + DIGEST_POLL_S >= end_s:
                raise TimedOut(f"{request.subject}: no checksum within {limit_s:g} s", phase=Phase.PREPARATION)
            await asyncio.sleep(DIGEST_POLL_S)

    def _from_head(self, head: Answer, url: URL, record: Record, name: str | None) -> Stat:
        headers = head.headers
        checksums = checksums_of(headers, etag_is_md5=endpoint_of(url) in self._etag_md5) if name else {}
        if not record.digests >= checksums.keys():
            record.digests.update(checksums)
        length = headers.get("Content-Length", "")
        # nginx and Apache redirect a directory to its name with a slash.
        slashed = head.url.raw_path.endswith("/") and not url.raw_path.endswith("/")
        return Stat(
            size_bytes=int(length) if length.isascii() and length.isdigit() and not slashed else None,
            is_directory=slashed,
            checksums=checksums,
            modified_at=parse_date(headers.get("Last-Modified")),
        )

    async def _propfind(self, url: URL, credential: Credential, timeouts: Timeouts, record: Record) -> Stat | None:
        """What PROPFIND says; None when the server does not have it."""
        request = self.request(
            "PROPFIND", url, credential, timeouts, {"Depth": "0", "Content-Type": "application/xml"}, propfind.REQUEST
        )
        answer = await self._wire.exchange(request, limit_s=timeouts.request_s, body_max=PROPFIND_MAX)
        if answer.status != 207:  # noqa: PLR2004 - RFC 4918
            if answer.status in _NO_PROPFIND or 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP
                record.propfind = False
                return None
            raise self._error(answer, "PROPFIND", url)
        parser = propfind.PropfindParser()
        try:
            parser.feed(answer.body)
            resources = parser.finish()
        except propfind.Unreadable as failure:
            raise BadServer(f"{request.subject}: the answer is {failure}") from None
        if not resources:
            raise BadServer(f"{request.subject}: the answer names nothing")
        record.propfind = True
        row = resources[0]
        return Stat(
            size_bytes=None if row.is_directory else row.size_bytes,
            is_directory=row.is_directory,
            modified_at=parse_date(row.modified),
        )

    # -- the others ---------------------------------------------------------------------------

    async def list_directory(self, url: URL, *, credential: Credential, timeouts: Timeouts) -> list[Entry]:
        """See `Adapter.list_directory`."""
        target = with_slash(url)
        headers = {"Depth": "1", "Content-Type": "application/xml"}
        request = self.request("PROPFIND", target, credential, timeouts, headers, propfind.REQUEST)
        try:
            async with asyncio.timeout(timeouts.digest_s), self._wire.open(request) as response:
                if response.status != 207:  # noqa: PLR2004 - RFC 4918
                    body = await read_body(response, 64 * 1024)
                    answer = Answer(response.status, response.headers, body, response.url)
                    if answer.status in {405, 501} or 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP
                        raise Unsupported(f"{request.subject}: this server does not list directories")
                    raise self._error(answer, "PROPFIND", url)
                rows = await _rows(response)
        except TimeoutError:
            raise TimedOut(f"{request.subject}: not complete within {timeouts.digest_s:g} s") from None
        except propfind.Unreadable as failure:
            raise BadServer(f"{request.subject}: the answer is {failure}") from None
        except (aiohttp.ClientError, OSError) as failure:
            raise faults.from_exception(failure, subject=request.subject) from None
        return _entries(rows, url)

    async def delete(self, url: URL, *, credential: Credential, timeouts: Timeouts) -> bool:
        """See `Adapter.delete`."""
        if url.raw_path.endswith("/"):
            raise Refused(f"DELETE {url.with_query(None)}: names a directory", phase=Phase.PREPARATION)
        record = self._quirks.of(endpoint_of(url))
        if record.family is None or record.family.deletes_trees:
            # Plain WebDAV servers remove a directory with everything below it.
            try:
                stat = await self.stat(url, credential=credential, digest=None, timeouts=timeouts)
            except Missing:
                return False
            if stat.is_directory:
                raise Refused(f"DELETE {url.with_query(None)}: is a directory", phase=Phase.PREPARATION)
        request = self.request("DELETE", url, credential, timeouts)
        answer = await self._wire.exchange(request, limit_s=timeouts.request_s)
        if answer.status in _GONE:
            return False
        if answer.status in {200, 202, 204}:
            return True
        raise self._error(answer, "DELETE", url)

    async def make_directory(self, url: URL, *, credential: Credential, timeouts: Timeouts) -> int:
        """MKCOL once; the status: 201 or 200 made, 405 there already, 404 or 409 the parent is missing."""
        request = self.request("MKCOL", with_slash(url), credential, timeouts)
        answer = await self._wire.exchange(request, limit_s=timeouts.request_s)
        if answer.status in {200, 201, 204, 405, 404, 409}:
            record = self._quirks.of(endpoint_of(url))
            xrootd = record.family is not None and record.family.name == "xrootd"
            if xrootd and record.put_redirects is None and endpoint_of(answer.url) == endpoint_of(url):
                # An XRootD head node sends MKCOL on as it does PUT; this one answered by itself.
                record.put_redirects = False
            return answer.status
        raise self._error(answer, "MKCOL", url)

    async def server_of(self, url: URL, *, credential: Credential, timeouts: Timeouts) -> Record:
        """The record of an endpoint, after asking it who it is when nothing is known yet."""
        record = self._quirks.of(endpoint_of(url))
        if record.family is None:
            await self._wire.exchange(self.request("OPTIONS", url, credential, timeouts), limit_s=timeouts.request_s)
        return record

    @staticmethod
    def _error(answer: Answer, method: str, url: URL) -> TransferError:
        text = faults.readable(answer.body)
        error = faults.from_status(answer.status, text, answer.headers, subject=f"{method} {url.with_query(None)}")
        error.phase = Phase.PREPARATION
        return error


async def _rows(response: aiohttp.ClientResponse) -> list[propfind.Resource]:
    parser = propfind.PropfindParser()
    n_bytes = 0
    while block := await response.content.readany():
        n_bytes += len(block)
        if n_bytes > LISTING_MAX:
            msg = "larger than 256 MiB"
            raise propfind.Unreadable(msg)
        parser.feed(block)
    return parser.finish()


def _entries(rows: list[propfind.Resource], url: URL) -> list[Entry]:
    """The children among the rows, with URLs below `url`."""
    own = propfind.path_of(url.raw_path)
    base = f"{url.scheme}://{url.raw_authority}{url.raw_path.rstrip('/')}"
    entries: list[Entry] = []
    for row in rows:
        path = propfind.path_of(row.href)
        if path == own:
            if not row.is_directory:
                raise Refused(f"{url.with_query(None)}: is not a directory", phase=Phase.PREPARATION)
            continue
        name = path.rpartition("/")[2]
        if not name:
            continue
        entries.append(
            Entry(
                name=name,
                url=f"{base}/{quote(name)}",
                is_directory=row.is_directory,
                size_bytes=None if row.is_directory else row.size_bytes,
            )
        )
    return entries


def parse_date(text: str | None) -> datetime | None:
    """An HTTP date, aware; None when it is none."""
    if not text:
        return None
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def checksums_of(headers: Mapping[str, str], *, etag_is_md5: bool = False) -> dict[str, Checksum]:
    """Every checksum of the whole file that the headers hold, the standard ones first."""
    found: dict[str, Checksum] = {}
    sources: tuple[tuple[str, Callable[[str], dict[str, Checksum]]], ...] = (
        ("Digest", parse_digest_header),
        ("Repr-Digest", parse_repr_digest_header),
        ("Content-MD5", _content_md5),
        ("OC-Checksum", _oc_checksum),
    )
    for name, reader in sources:
        if (value := headers.get(name)) is not None:
            found = reader(value) | found
    if etag_is_md5 and "md5" not in found and (etag := headers.get("ETag", "").strip('"')):
        found |= _hex_md5(etag)
    return found


def _content_md5(value: str) -> dict[str, Checksum]:
    """RFC 1864: base64 of 16 bytes; some send hex."""
    try:
        raw = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    return {"md5": Checksum("md5", raw.hex())} if len(raw) == 16 else _hex_md5(value)  # noqa: PLR2004 - md5


def _hex_md5(value: str) -> dict[str, Checksum]:
    try:
        return {"md5": from_hex("md5", value)}
    except ValueError:
        return {}


def _oc_checksum(value: str) -> dict[str, Checksum]:
    try:
        checksum = parse(value)
    except ValueError:
        return {}
    return {checksum.algorithm: checksum}
