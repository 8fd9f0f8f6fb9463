"""Where tokens for storages are exchanged and refreshed: this service as a client of its issuers.

Source: RFC 6749 §2.3.1, §5 and §6 (client authentication, answers, refreshing), RFC 8693 (exchange),
RFC 8414 (which authentication an issuer takes). Answers are bounded in time and size, redirects are not
followed: a token goes to its issuer's own endpoint and to nobody else.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import quote_plus

import aiohttp
from aiohttp import ClientTimeout

from protocols.credentials import TOKEN_MAX, Secret
from protocols.errors import printable
from protocols.masking import without
from transfer_engine.clock import Clock
from transfer_engine.config_service import Issuer
from transfer_engine.credentials import claims as reading
from transfer_engine.credentials.api import Away, Granted, Refusal, Wanted
from transfer_engine.errors import Invalid, IssuerUnavailable
from transfer_engine.identity.fetching import tls_context, why_away
from transfer_engine.identity.jwks import IssuerKeys
from transfer_engine.identity.jwt import strict_object

AT_A_TIME: Final = 8
"""Requests to one issuer at a time."""
ASK_S: Final = 30.0
ANSWER_MAX: Final = 64 * 1024
LIFETIME_S: Final = 300.0
"""Of a token that does not say when it ends, nor does the answer that it came with."""
TOLD_MAX: Final = 200

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type, not a token
_OK: Final = 200
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 400, 401, 403
_PASSING: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_CODE: Final = re.compile(r"[a-z_]{1,64}")
_SECRET_FIELDS: Final = ("subject_token", "refresh_token")
_SECRET_LIKE: Final = re.compile(r"[A-Za-z0-9_\-.+/=]{24,}")
"""Issuers repeat what they were sent (`Invalid refresh token: eyJ…`); nothing that long is a word."""


@dataclass(frozen=True, slots=True)
class _Client:
    """This service at one issuer."""

    settings: Issuer
    keys: IssuerKeys
    """Who knows where its endpoints are."""
    secret: Secret
    headers: Mapping[str, str] = field(repr=False)
    limit: asyncio.Semaphore
    session: list[aiohttp.ClientSession]
    """Empty until the first request."""


class Clients:
    """Implements `credentials.api.Issuers` for the issuers in the settings that name a client."""

    def __init__(self, issuers: Sequence[Issuer], clock: Clock) -> None:
        """Asks nothing yet. Raises: Invalid: a client without a secret, or an issuer that cannot be trusted."""
        self._now = clock.now
        self._clients: dict[str, _Client] = {}
        for issuer in issuers:
            if issuer.client_id is None:
                continue
            secret = _secret_of(issuer)
            headers = {"Authorization": _basic(issuer.client_id, secret)}
            keys = IssuerKeys(issuer, clock=clock)
            client = _Client(issuer, keys, Secret(secret), headers, asyncio.Semaphore(AT_A_TIME), [])
            self._clients[issuer.issuer.removesuffix("/")] = client

    def serves(self, issuer: str) -> bool:
        """See `Issuers.serves`."""
        return issuer.removesuffix("/") in self._clients

    async def exchange(self, wanted: Wanted, subject: Secret) -> Granted:
        """See `Issuers.exchange`."""
        form = {"grant_type": _EXCHANGE, "subject_token": subject.reveal(), "subject_token_type": _ACCESS_TOKEN}
        return await self._ask(wanted, form)

    async def refresh(self, wanted: Wanted, refresh: Secret) -> Granted:
        """See `Issuers.refresh`."""
        return await self._ask(wanted, {"grant_type": "refresh_token", "refresh_token": refresh.reveal()})

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.keys.aclose()
            while client.session:
                await client.session.pop().close()

    async def _ask(self, wanted: Wanted, form: dict[str, str]) -> Granted:
        client = self._clients[wanted.issuer.removesuffix("/")]
        if wanted.scope:
            form["scope"] = wanted.scope
        if wanted.audience:
            # Indigo IAM and CILogon take several with blanks between them, as a list in one parameter.
            form["audience"] = " ".join(wanted.audience)
        async with client.limit:
            try:
                endpoint = (await client.keys.metadata()).token_endpoint
            except IssuerUnavailable as error:
                raise Away(str(error)) from None
            if endpoint is None:
                raise Refusal("unsupported_grant_type", "it names no token endpoint in its configuration")
            status, retry_after_s, body = await self._post(client, endpoint, form)
        if status == _OK:
            return self._granted(body)
        problem = _problem(status, retry_after_s, body)
        if isinstance(problem, Refusal):
            # An issuer may repeat what it was sent.
            sent = [client.secret.reveal(), *(form[name] for name in _SECRET_FIELDS if name in form)]
            problem = Refusal(problem.code, without(str(problem), sent))
        raise problem

    async def _post(self, client: _Client, endpoint: str, form: dict[str, str]) -> tuple[int, float | None, bytes]:
        if not client.session:
            client.session.append(_session(client.settings))
        try:
            async with client.session[0].post(
                endpoint, data=form, headers=client.headers, allow_redirects=False, timeout=ClientTimeout(total=ASK_S)
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(16 * 1024):
                    body += chunk
                    if len(body) > ANSWER_MAX:
                        raise Away(f"its answer is longer than {ANSWER_MAX} bytes")
                return response.status, _seconds(response.headers.get("Retry-After")), bytes(body)
        except TimeoutError:
            raise Away(f"it does not answer within {ASK_S:.0f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            raise Away(why_away(failure)) from None

    def _granted(self, body: bytes) -> Granted:
        answer = _object(body)
        access, refresh = answer.get("access_token"), answer.get("refresh_token")
        if not _is_token(access) or (refresh is not None and not _is_token(refresh)):
            raise Away("its answer has no token")
        now, found = self._now(), reading.read(Secret(access))
        told = answer.get("expires_in")
        expires_in = float(told) if isinstance(told, int | float) and not isinstance(told, bool) else LIFETIME_S
        expires_at = found.expires_at if found is not None else now + expires_in
        begins_at = found.begins_at if found is not None else 0.0
        if expires_at <= now:
            raise Away("it gave a token that has ended already: check both clocks")
        return Granted(
            access=Secret(access),
            refresh=None if refresh is None else Secret(refresh),
            expires_at=expires_at,
            lifetime_s=max(expires_at - (begins_at or now), 1.0),
        )


def _session(issuer: Issuer) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls_context(issuer.ca), limit=AT_A_TIME),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    )


def _secret_of(issuer: Issuer) -> str:
    if issuer.client_secret is not None:
        return issuer.client_secret.get_secret_value()
    if issuer.client_secret_file is None:
        raise Invalid("client_id needs a client_secret or a client_secret_file", field="auth.issuers")
    try:
        secret = issuer.client_secret_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot be read: {type(error).__name__}", field=str(issuer.client_secret_file)) from None
    if not secret:
        raise Invalid("is empty", field=str(issuer.client_secret_file))
    return secret


def _basic(client_id: str, secret: str) -> str:
    """RFC 6749 §2.3.1: both are form-encoded before they are joined."""
    joined = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(joined.encode()).decode("ascii")


def _is_token(value: Any) -> TypeGuard[str]:
    return (
        isinstance(value, str) and 0 < len(value) <= TOKEN_MAX and value.isascii() and value.isprintable()
    ) and " " not in value


def _object(body: bytes) -> dict[str, Any]:
    try:
        return strict_object(body)
    except ValueError:
        raise Away("its answer is not a JSON object") from None


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


def _problem(status: int, retry_after_s: float | None, body: bytes) -> Away | Refusal:
    """What an answer other than 200 means."""
    if status not in {_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN}:
        return Away(f"it answers with {status}", retry_after_s=retry_after_s)
    try:
        answer = strict_object(body)
    except ValueError:
        # A firewall or a web server in front says so, not the issuer: nothing is decided.
        return Away(f"it answers with {status} and no reason", retry_after_s=retry_after_s)
    code, text = answer.get("error"), answer.get("error_description")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return Away(f"it answers with {status} and no reason", retry_after_s=retry_after_s)
    if code in _PASSING:
        return Away(f"it answers {code}", retry_after_s=retry_after_s)
    if not isinstance(text, str):
        return Refusal(code, code)
    return Refusal(code, f"{code} ({_SECRET_LIKE.sub('…', printable(text, TOLD_MAX))})")
