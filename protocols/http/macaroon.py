"""Macaroons: a storage's own bearer tokens for one file, had with a certificate, to be shown by the other storage.

The party that carries a COPY out cannot show the user's certificate to the other one, as it has not its key.
So each storage is asked for a token that is good for this file, for what the copy does with it, and for about as
long as the copy may take (dCache and XRootD; the request is dCache's). What gives no macaroons may have a token
endpoint (RFC 8414, StoRM). A storage that gives neither is not asked again for a while, and the copy is
tried without: a file that everybody may read needs no token.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from protocols.api import CopyRequest
from protocols.credentials import TOKEN_MAX, Credential, Secret
from protocols.errors import TransferError
from protocols.http import faults
from protocols.http.urls import endpoint_of, same_site, wire_url
from protocols.http.wire import Request, Wire, read_body

READ: Final = ("READ_METADATA", "DOWNLOAD", "LIST")
WRITE: Final = ("READ_METADATA", "DOWNLOAD", "LIST", "MANAGE", "UPLOAD", "DELETE")
"""MANAGE: XRootD asks for it when a file is written over."""
ANSWER_MAX: Final = 64 * 1024
"""StoRM answers the unknown POST with the file itself: of that no more is read."""
ASKING_S: Final = 30.0
VALID_MIN, VALID_MAX_MIN, SPARE_MIN = 180, 24 * 60, 10
"""Minutes: of a macaroon when nothing else is known; at most, which is XRootD's own limit; beyond the copy's end."""
SLOW_BYTES_S: Final = 1 << 20
NEVER_S, DENIED_S, LATER_S = 3600.0, 300.0, 60.0
"""How long it is not asked again: whoever gives none; who gives none to this user; who could not answer."""
ENDPOINTS_MAX: Final = 4096
SCOPE_MAX: Final = 256
"""Longest `scope` that StoRM takes."""

_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~+/=-]{{1,{TOKEN_MAX}}}")
_HTTP_OK: Final = 200
_DENIED: Final = frozenset({401, 403})
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class _NotGivenError(Exception):
    """No token, and for how long there is no use in asking again."""

    def __init__(self, why: str, pause_s: float, *, for_all: bool = True) -> None:
        self.why = why
        self.pause_s = pause_s
        self.for_all = for_all
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class _Refusal:
    until_s: float
    why: str


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked for."""

    url: URL
    credential: Credential
    activities: tuple[str, ...]
    minutes: int
    connect_s: float


class Macaroons:
    """Asks storages for them, and remembers those that give none."""

    def __init__(self, *, wire: Wire, now: Callable[[], float]) -> None:
        """Args: now: loop time."""
        self._wire = wire
        self._now = now
        self._refusals: OrderedDict[tuple[str, str], _Refusal] = OrderedDict()
        self._issuers: OrderedDict[str, URL] = OrderedDict()
        """Endpoint → where it gives tokens, of those that give no macaroons."""

    async def equip(self, request: CopyRequest) -> CopyRequest:
        """The request with a token for each side that has a certificate only, as far as its storage gives one.

        Both are asked at a time. Never raises: without a token the copy itself will tell what is wrong.
        """
        sides = (
            (request.source_url, request.source_credential, READ),
            (request.destination_url, request.destination_credential, WRITE),
        )
        if not any(_lacks_token(url, credential) for url, credential, _ in sides):
            return request
        minutes, connect_s = _minutes(request), request.timeouts.connect_s
        async with asyncio.TaskGroup() as group:
            source, destination = (
                group.create_task(self._equipped(_Wish(wire_url(url), credential, activities, minutes, connect_s)))
                for url, credential, activities in sides
            )
        return replace(request, source_credential=source.result(), destination_credential=destination.result())

    def why_none(self, url: str, credential: Credential) -> str | None:
        """Why there was no token for the one who shows this; None: there was, or none was needed."""
        if not _lacks_token(url, credential):
            return None
        endpoint = endpoint_of(wire_url(url))
        refusal = self._refusal(endpoint, "") or self._refusal(endpoint, _fingerprint(credential))
        return None if refusal is None else refusal.why

    async def _equipped(self, wish: _Wish) -> Credential:
        if not _lacks_token(str(wish.url), wish.credential):
            return wish.credential
        endpoint, user = endpoint_of(wish.url), _fingerprint(wish.credential)
        if self._refusal(endpoint, "") or self._refusal(endpoint, user):
            return wish.credential
        try:
            async with asyncio.timeout(ASKING_S):
                return replace(wish.credential, token=await self._token(wish, endpoint))
        except TimeoutError:
            self._remember(endpoint, "", f"no answer within {ASKING_S:g} s", LATER_S)
        except _NotGivenError as refusal:
            self._remember(endpoint, "" if refusal.for_all else user, refusal.why, refusal.pause_s)
        except TransferError as failure:
            self._remember(endpoint, "", failure.message, LATER_S)
        except (aiohttp.ClientError, OSError) as failure:
            self._remember(endpoint, "", type(failure).__name__, LATER_S)
        return wish.credential

    def _refusal(self, endpoint: str, user: str) -> _Refusal | None:
        found = self._refusals.get((endpoint, user))
        if found is not None and found.until_s <= self._now():
            del self._refusals[endpoint, user]
            return None
        return found

    def _remember(self, endpoint: str, user: str, why: str, pause_s: float) -> None:
        self._refusals[endpoint, user] = _Refusal(self._now() + pause_s, faults.strip_secrets(why))
        self._refusals.move_to_end((endpoint, user))
        if len(self._refusals) > ENDPOINTS_MAX:
            self._refusals.popitem(last=False)

    async def _token(self, wish: _Wish, endpoint: str) -> Secret:
        issuer = self._issuers.get(endpoint)
        if issuer is not None:
            return await self._from_issuer(wish, issuer)
        try:
            return await self._macaroon(wish)
        except _NotGivenError as refusal:
            if refusal.pause_s != NEVER_S:
                raise
            issuer = await self._issuer(wish)
            if issuer is None:
                raise
        token = await self._from_issuer(wish, issuer)
        self._issuers[endpoint] = issuer
        if len(self._issuers) > ENDPOINTS_MAX:
            self._issuers.popitem(last=False)
        return token

    async def _macaroon(self, wish: _Wish) -> Secret:
        asked = {"caveats": [f"activity:{','.join(wish.activities)}"], "validity": f"PT{wish.minutes}M"}
        headers = {"Content-Type": "application/macaroon-request", "Accept": "application/json"}
        answer = await self._ask(wish, "POST", wish.url, headers, json.dumps(asked).encode())
        return _secret(answer.get("macaroon"))

    async def _issuer(self, wish: _Wish) -> URL | None:
        """Where the storage gives tokens: on its own host only, as the certificate is shown there."""
        place = URL(
            f"{wish.url.scheme}://{wish.url.raw_authority}/.well-known/oauth-authorization-server", encoded=True
        )
        try:
            answer = await self._ask(wish, "GET", place, {"Accept": "application/json"}, None)
            found = wire_url(str(answer.get("token_endpoint")))
        except (_NotGivenError, TransferError):
            return None
        return found if same_site(wish.url, found) else None

    async def _from_issuer(self, wish: _Wish, issuer: URL) -> Secret:
        scope = " ".join(f"{activity}:{wish.url.path}" for activity in wish.activities)
        form = {"grant_type": "client_credentials", "lifetime": str(60 * wish.minutes)}
        if len(scope) <= SCOPE_MAX:
            form["scope"] = scope
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        answer = await self._ask(wish, "POST", issuer, headers, urlencode(form).encode())
        return _secret(answer.get("access_token"))

    async def _ask(
        self, wish: _Wish, method: str, url: URL, headers: dict[str, str], body: bytes | None
    ) -> dict[str, Any]:
        """The object that the storage answers with. Raises: _NotGivenError: it answers anything else."""
        request = Request(
            method=method,
            url=url,
            credential=wish.credential,
            headers=headers,
            connect_s=wish.connect_s,
            body=body,
        )
        async with self._wire.open(request) as response:
            status = response.status
            if status in _DENIED:
                raise _NotGivenError(f"HTTP {status}", DENIED_S, for_all=False)
            if status in _LATER:
                raise _NotGivenError(f"HTTP {status}", LATER_S)
            if status != _HTTP_OK:
                raise _NotGivenError(f"HTTP {status}", NEVER_S)
            # XRootD 5.5.3 sends no type at all.
            kind = response.headers.get("Content-Type", "application/json")
            if "json" not in kind.lower() or (response.content_length or 0) > ANSWER_MAX:
                raise _NotGivenError("it answers with something else", NEVER_S)
            if not same_site(url, response.url):
                raise _NotGivenError("it sends elsewhere for them", NEVER_S)
            content = await read_body(response, ANSWER_MAX + 1)
        return _object(content)


def _object(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content) if len(content) <= ANSWER_MAX else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _NotGivenError("it answers with something else", NEVER_S)
    return answer


def _secret(value: object) -> Secret:
    """A token that fits into a header, and is none of ours to look into."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise _NotGivenError("its answer holds no token", NEVER_S)
    return Secret(value)


def _lacks_token(url: str, credential: Credential) -> bool:
    """Only in TLS a certificate is shown."""
    return credential.token is None and credential.shows_certificate and wire_url(url).scheme == "https"


def _fingerprint(credential: Credential) -> str:
    """Names a user in what is remembered, without holding the secret."""
    shown = credential.pem.reveal() if credential.pem is not None else str(credential.certificate)
    return hashlib.sha256(shown.encode()).hexdigest()


def _minutes(request: CopyRequest) -> int:
    """How long the copy may take: twice its limit, or what it would at a slow rate; and something to spare."""
    if request.timeouts.total_s is not None:
        wanted = 2 * request.timeouts.total_s / 60 + SPARE_MIN
    else:
        wanted = max(VALID_MIN, (request.size_bytes or 0) / SLOW_BYTES_S / 60 + SPARE_MIN)
    return min(int(wanted) + 1, VALID_MAX_MIN)
