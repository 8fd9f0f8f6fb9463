"""One HTTP request: redirects by hand, secrets only to whom they are for, every wait bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from protocols.api import Credential
from protocols.errors import BadServer, Denied, OutcomeUnknown, Refused, TimedOut, TransferError
from protocols.http import faults
from protocols.http.quirks import Quirks, family_of
from protocols.http.session import Sessions
from protocols.http.urls import endpoint_of, listed, redirect_target, same_site

HOPS_MAX: Final = 5
BODY_MAX: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RETRIED: Final = frozenset({"PROPFIND", "MKCOL"})
"""Idempotent, but unknown to aiohttp, which by itself repeats HEAD, GET, PUT, DELETE and OPTIONS once
when the server closed an idle connection."""
_NOT_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
_FAILURES: Final = (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer to a metadata request."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    url: URL
    """Where it came from, after redirects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request before its first hop."""

    method: str
    url: URL
    credential: Credential
    headers: Mapping[str, str]
    connect_s: float
    body: object = None
    """Anything that aiohttp takes, iterable anew for each hop."""
    side_effect: bool = False
    """True for COPY and PUT: when the connection is lost, something may have happened."""
    read_bufsize: int = 1 << 16
    alone: bool = False
    """Needs a connection of its own, which stays open for a moment after the answer."""

    @property
    def subject(self) -> str:
        """For messages: method and URL without its query, where tokens may be."""
        return f"{self.method} {self.url.with_query(None)}"


@lru_cache(maxsize=64)
def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s)


class Wire:
    """Sends requests over the pools of `Sessions`."""

    def __init__(self, *, sessions: Sessions, quirks: Quirks, credential_hosts: Collection[str] = ()) -> None:
        """`credential_hosts`: hosts that may be shown secrets when redirected to; `.example.org` for all below it."""
        self._sessions = sessions
        self._quirks = quirks
        self._credential_hosts = frozenset(host.lower() for host in credential_hosts)

    async def exchange(self, request: Request, *, limit_s: float, body_max: int = BODY_MAX) -> Answer:
        """Send, follow redirects, read the answer up to `body_max` bytes (more is dropped with the connection)."""
        try:
            async with asyncio.timeout(limit_s), self.open(request) as response:
                body = b"" if request.method == "HEAD" else await read_body(response, body_max)
                return Answer(response.status, response.headers, body, response.url)
        except TimeoutError:
            raise TimedOut(f"{request.subject}: no answer within {limit_s:g} s") from None
        except (aiohttp.ClientError, OSError) as failure:
            raise faults.from_exception(failure, subject=request.subject) from None

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's headers after redirects; leaving closes the connection unless the body was read to its end.

        Only what happens before the headers is turned into a `TransferError` here.
        """
        pool = await self._sessions.acquire(request.credential)
        session = self._sessions.alone(pool) if request.alone else pool.session
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._follow(session, request)
            yield response
        finally:
            if response is not None:
                # Idempotent after the end of the body, when the connection is back in the pool already.
                response.close()
            if request.alone:
                await self._sessions.linger(session)
            await self._sessions.release(pool)

    async def _follow(self, session: aiohttp.ClientSession, request: Request) -> aiohttp.ClientResponse:
        url, seen = request.url, {request.url}
        for _ in range(HOPS_MAX + 1):
            response = await self._send(session, request, url)
            location = response.headers.get("Location") if response.status in _REDIRECTS else None
            if location is None:
                return response
            status = response.status
            # Reading the rest of it is not worth a round trip; HEAD and empty bodies keep the connection.
            response.close()
            url = _next(request, url, status, location)
            if url in seen:
                raise BadServer(f"{request.subject}: redirects in a loop")
            seen.add(url)
        raise BadServer(f"{request.subject}: more than {HOPS_MAX} redirects")

    def _headers(self, request: Request, url: URL) -> CIMultiDict[str]:
        headers = CIMultiDict(request.headers)
        if url is request.url or same_site(request.url, url) or listed(url.raw_host or "", self._credential_hosts):
            token = request.credential.token
            if token:
                headers["Authorization"] = f"Bearer {token.reveal()}"
        else:
            for name in [name for name in headers if name.lower().startswith(("transferheader", "copy-header"))]:
                headers.popall(name, None)
        return headers

    async def _send(self, session: aiohttp.ClientSession, request: Request, url: URL) -> aiohttp.ClientResponse:
        headers = self._headers(request, url)
        retries = 1 if request.method in _RETRIED else 0
        while True:
            try:
                response = await session.request(
                    request.method,
                    url,
                    headers=headers,
                    data=request.body,
                    allow_redirects=False,
                    timeout=_timeout(request.connect_s),
                    read_bufsize=request.read_bufsize,
                )
            except (aiohttp.ServerDisconnectedError, ConnectionResetError) as failure:
                if retries:
                    retries -= 1
                    continue
                raise _lost(request, failure) from None
            except _FAILURES as failure:
                raise _lost(request, failure) from None
            record = self._quirks.of(endpoint_of(url))
            if record.family is None:
                record.family = family_of(response.headers.get("Server"))
            return response


def _next(request: Request, base: URL, status: int, location: str) -> URL:
    # RFC 9110 §15.4.4: 303 turns the method into GET, which is a success that did nothing.
    if status == 303 and request.method not in {"GET", "HEAD"}:  # noqa: PLR2004 - HTTP
        raise BadServer(f"{request.subject}: redirected with 303, which would drop the method")
    try:
        target = redirect_target(base, location)
    except ValueError:
        raise BadServer(f"{request.subject}: redirected to something that is no URL of HTTP") from None
    if base.scheme == "https" and target.scheme == "http":
        raise BadServer(f"{request.subject}: redirected from https to plain http")
    return target


def _lost(request: Request, failure: Exception) -> TransferError:
    """What it means that no answer came: harmless unless the request may have had an effect."""
    error = faults.from_exception(failure, subject=request.subject)
    if isinstance(failure, ValueError) and not isinstance(failure, aiohttp.ClientError):
        return Refused(f"{request.subject}: the request cannot be sent, a header or the URL holds control characters")
    if not request.side_effect or isinstance(failure, _NOT_SENT):
        return error
    # TLS 1.3 reports a rejected client certificate on the first read: nothing was accepted.
    if isinstance(failure, ssl.SSLError) or "[SSL" in str(failure):
        return error if isinstance(error, BadServer | Denied) else BadServer(error.message)
    if isinstance(error, BadServer):
        error.unsettled = True
        return error
    return OutcomeUnknown(error.message, unsettled=True)


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """At most `limit` bytes of the body."""
    parts: list[bytes] = []
    room = limit
    while room > 0 and (block := await response.content.readany()):
        parts.append(block[:room])
        room -= len(block)
    return b"".join(parts)
