"""Where HTTP meets the engine: bodies in, answers and errors out. Every request passes here once."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic_core import to_json

from protocols.masking import shapeless
from transfer_engine.callers import LOOPBACK, Caller, Need
from transfer_engine.errors import EngineError, Forbidden, Invalid
from transfer_engine.guarded import REFUSED, Gate
from transfer_engine.identity.api import Authenticator, Shown
from transfer_engine.service.large import LargeBodies
from transfer_engine.service.origin import check_origin
from transfer_engine.service.wire.submission import DeletionJob
from transfer_engine.service.wire.words import BAD_JSON, Refused, refusal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ChainOf = Callable[[asyncio.BaseTransport], tuple[bytes, ...]]
"""The client's certificates of a connection, DER, the leaf first."""

BODY_S: Final = 60.0
"""How long a client may take to send a body: a slow one must not hold memory for ever."""
RETRY_AFTER_S: Final = 5
"""What a client is told to wait when the store cannot answer."""
CONTENT_TYPES: Final = frozenset({"application/json", "application/x-www-form-urlencoded"})

CALLER: Final = web.RequestKey("caller", Caller)
"""Under which a request carries its caller."""

_LATER: Final = frozenset({429, 503})
"""Statuses that say when to ask again."""
_TOLD: Final = frozenset({*range(400, 500), 501, 503})
"""Statuses of errors that are the caller's business; others are a defect of the service."""
_PHRASES: Final[Mapping[int, str]] = {419: "Authentication Timeout"}
"""Of statuses that only FTS3 has."""

_SENTENCES: Final[Mapping[int, str]] = {
    404: (
        "The requested URL was not found on the server. If you entered the URL manually please check your spelling "
        "and try again."
    ),
    405: "The method is not allowed for the requested URL.",
}

log = logging.getLogger(__name__)


def answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=to_json(value), status=status, content_type="application/json", headers=headers)


def error_answer(
    status: int, message: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """FTS's form of an error: `status` with its phrase, and `message`; `field` when one value is to blame.

    Clients log what they are told: a secret that was sent in a wrong place does not come back.
    """
    phrase = _PHRASES.get(status) or HTTPStatus(status).phrase
    body = {"status": f"{status} {phrase}", "message": shapeless(message)}
    if field is not None:
        body["field"] = shapeless(field)
    return web.Response(
        body=to_json(body), status=status, reason=phrase, content_type="application/json", headers=headers
    )


async def read_body(request: web.Request, *, within_s: float = BODY_S) -> bytes:
    """The body of a request. Raises: Refused: wrong type. HTTPException: compressed, too large, too slow."""
    # A compressed body can be a thousand times larger than it looks, and no FTS client sends one.
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise web.HTTPUnsupportedMediaType
    # A form is what curl announces by itself; its content must be JSON all the same.
    if request.content_type not in CONTENT_TYPES:
        raise Refused("Expecting application/json or application/x-www-form-urlencoded", field="Content-Type")
    announced = request.content_length
    if announced is not None and announced > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(max_size=request.client_max_size, actual_size=announced)
    try:
        async with asyncio.timeout(within_s):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Refused(BAD_JSON) from error


def caller_of(request: web.Request) -> Caller:
    """Who sent a request: put there by the boundary, before any handler runs."""
    return request[CALLER]


def guarded(needs: Need, handler: Handler) -> Handler:
    """A handler that runs for callers who meet its need."""

    async def checked(request: web.Request) -> web.StreamResponse:
        if not caller_of(request).may(needs):
            raise Forbidden(REFUSED)
        return await handler(request)

    return checked


class Boundary:
    """Identifies the caller, runs the handler, and turns whatever goes wrong into one of FTS's answers."""

    def __init__(self, authenticator: Authenticator, gate: Gate, chain_of: ChainOf) -> None:
        self._authenticator = authenticator
        self._gate = gate
        self._chain_of = chain_of
        self._large = LargeBodies()

    @property
    def middleware(self) -> Middleware:
        """For aiohttp."""

        @web.middleware
        async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                caller = request[CALLER] = await self._identify(request)
                async with self._large.turn(request, caller):
                    return await handler(request)
            except web.HTTPException as error:
                return _http_error(error)
            except DeletionJob as error:
                return error_answer(405, str(error), headers={"Allow": "GET,POST,PUT"})
            except EngineError as error:
                if error.status in _TOLD:
                    return _engine_error(error)
                return _internal_error(request, error)
            except Exception as error:  # noqa: BLE001 - the request boundary: whatever it is, the service goes on
                return _internal_error(request, error)

        return boundary

    async def _identify(self, request: web.Request) -> Caller:
        transport = request.transport
        shown = Shown(
            authorization=request.headers.get("Authorization"),
            peer=request.remote,
            chain=() if transport is None else self._chain_of(transport),
            headers=_joined(request),
        )
        caller = await self._authenticator.identify(shown)
        check_origin(request, by_name=caller.method == LOOPBACK)
        if self._gate.is_banned(caller):
            raise Forbidden("The user has been banned")
        return caller


def _joined(request: web.Request) -> dict[str, str]:
    """All headers; one that came several times as one value (RFC 9110, 5.2).

    Then nobody is believed for a header of their own to which a web server in front has added the true one.
    """
    headers: dict[str, str] = {}
    for key, value in request.headers.items():
        name = key.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _http_error(error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        headers = {"Allow": ",".join(sorted({*error.allowed_methods, "OPTIONS"}))}
        if error.method == "OPTIONS":
            return web.Response(headers=headers)
        return error_answer(error.status, _SENTENCES[405], headers=headers)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return error_answer(error.status, error.text or error.reason)
    return error_answer(error.status, _SENTENCES.get(error.status, error.reason))


def _engine_error(error: EngineError) -> web.Response:
    headers = None
    if error.status in _LATER:
        wait_s = getattr(error, "retry_after_s", None) or RETRY_AFTER_S
        headers = {"Retry-After": f"{max(wait_s, 1):.0f}"}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        log.warning("cannot answer now", extra={"event": "store-unavailable", "reason": str(error)})
    field = error.field if isinstance(error, Invalid) else None
    return error_answer(error.status, refusal(error), field=field, headers=headers)


def _internal_error(request: web.Request, error: Exception) -> web.Response:
    number = secrets.token_hex(6)
    log.error(
        "request failed",
        exc_info=error,
        extra={"event": "request-failed", "error_id": number, "method": request.method, "path": request.path},
    )
    return error_answer(500, f"Internal error {number}: the log of the service says more under this number")
