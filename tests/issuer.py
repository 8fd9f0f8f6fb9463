"""A small OpenID Connect issuer for tests, on loopback: discovery, keys, and a token endpoint as Indigo IAM has it.

It is honest by default. Tests make it dishonest: `jwks`, `configuration`, `failing` and `hold` change what
it answers and when; `calls` counts what it was asked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import unquote_plus

import trustme
from aiohttp import web
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from transfer_engine.clock import Clock, SystemClock

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
ANY = "https://wlcg.cern.ch/jwt/v1/any"


@cache
def rsa_key(number: int = 1) -> RSAKey:
    """An RSA key, made once in a test run."""
    return RSAKey.generate_key(2048, {"kid": f"rsa{number}"})


@cache
def ec_key(curve: str = "P-256", number: int = 1) -> ECKey:
    return ECKey.generate_key(curve, {"kid": f"ec{curve}-{number}"})  # type: ignore[arg-type]


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes, key: Any, algorithm: str) -> str:
    """A token as it is asked for, right or wrong; bytes are taken as they are."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = f"{b64(head)}.{b64(body)}"
    return f"{text}.{b64(JWSRegistry.algorithms[algorithm].sign(text.encode(), key))}"


@dataclass
class Refresh:
    """What a refresh token stands for."""

    subject: str
    scope: str
    client_id: str


@dataclass
class OidcIssuer:
    """One issuer. `url` is set while it runs.

    Attributes:
        clients: id → secret.
        rotates: a refresh token is good for one use, and the answer has the next one.
        failing: status that each path (`/token`, `/jwk`, `/.well-known/openid-configuration`) answers with instead.
        hold: while set to an event, answers of the token endpoint and of the keys wait for it.
    """

    clock: Clock = field(default_factory=SystemClock)
    clients: dict[str, str] = field(default_factory=lambda: {"engine": "s3cret"})
    lifetime_s: float = 3600.0
    rotates: bool = False
    keys: list[Any] = field(default_factory=lambda: [rsa_key()])
    jwks: bytes | None = None
    configuration: dict[str, Any] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    calls: Counter[str] = field(default_factory=Counter)
    forms: list[dict[str, str]] = field(default_factory=list)
    refreshes: dict[str, Refresh] = field(default_factory=dict)
    url: str = ""
    n_waiting: int = 0
    _path: str = ""
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    # Tokens made by hand

    def claims(self, subject: str = "alice", **changes: Any) -> dict[str, Any]:
        """The claims of a good token; a change to None takes a claim away."""
        now = int(self.clock.now())
        found: dict[str, Any] = {
            "iss": self.url + "/",
            "sub": subject,
            "aud": ANY,
            "iat": now,
            "nbf": now,
            "exp": now + int(self.lifetime_s),
            "jti": secrets.token_hex(16),
            "client_id": "tests",
            "wlcg.ver": "1.0",
            "scope": "openid",
        }
        found.update(changes)
        return {name: value for name, value in found.items() if value is not None}

    def token(self, subject: str = "alice", **changes: Any) -> str:
        """A token with these claims, signed with the first key. Claims with a dot: `**{"wlcg.groups": [...]}`."""
        return self.sign(self.claims(subject, **changes))

    def sign(self, claims: Mapping[str, Any], key: Any = None) -> str:
        key = key or self.keys[0]
        algorithm = "RS256" if key.key_type == "RSA" else {"P-256": "ES256", "P-384": "ES384"}[key.curve_name]
        return signed({"kid": key.kid, "alg": algorithm}, claims, key, algorithm)

    def key_set(self) -> bytes:
        if self.jwks is not None:
            return self.jwks
        return json.dumps({"keys": [{**key.as_dict(private=False), "use": "sig"} for key in self.keys]}).encode()

    # The server

    @asynccontextmanager
    async def running(self, authority: trustme.CA | None = None, *, path: str = "") -> AsyncIterator[OidcIssuer]:
        """Serve over http, or over https with a certificate of `authority`; `path` is part of the issuer's URL."""
        application = web.Application()
        application.router.add_get(f"{path}/.well-known/openid-configuration", self._discovery)
        application.router.add_get(f"{path}/jwk", self._jwk)
        application.router.add_post(f"{path}/token", self._token)
        context = None
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}{path}"
        self._path = path
        try:
            yield self
        finally:
            if self.hold is not None:
                self.hold.set()
            await runner.cleanup()

    async def waited(self) -> None:
        """Wait until a request waits for `hold`."""
        await self._arrived.wait()
        self._arrived.clear()

    async def _may_answer(self, request: web.Request) -> None:
        name = request.path.removeprefix(self._path)
        self.calls[name] += 1
        if self.hold is not None:
            self.n_waiting += 1
            self._arrived.set()
            await self.hold.wait()
            self.n_waiting -= 1
        if (status := self.failing.get(name)) is not None:
            raise _Failing(status)

    async def _discovery(self, request: web.Request) -> web.Response:
        await self._may_answer(request)
        found = {
            "issuer": self.url + "/",
            "jwks_uri": self.url + "/jwk",
            "token_endpoint": self.url + "/token",
            "grant_types_supported": ["client_credentials", "refresh_token", EXCHANGE],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            **self.configuration,
        }
        return web.json_response({name: value for name, value in found.items() if value is not None})

    async def _jwk(self, request: web.Request) -> web.Response:
        await self._may_answer(request)
        return web.Response(body=self.key_set(), content_type="application/json")

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        await self._may_answer(request)
        client = self._client(request)
        if client is None:
            return _error(401, "invalid_client", "Bad client credentials")
        kind = form.get("grant_type", "")
        self.calls[kind] += 1
        if kind == EXCHANGE:
            return self._exchange(client, form)
        if kind == "refresh_token":
            return self._refresh(client, form)
        if kind == "client_credentials":
            return self._answer(client, client, form.get("scope", ""), form, with_refresh=False)
        return _error(400, "unsupported_grant_type", f"Unsupported grant type: {kind}")

    def _client(self, request: web.Request) -> str | None:
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            login, _, password = base64.b64decode(shown, validate=True).decode().partition(":")
        except ValueError:
            return None
        # RFC 6749 §2.3.1: both are form-encoded before they are put together.
        login, password = unquote_plus(login), unquote_plus(password)
        known = self.clients.get(login)
        return login if known is not None and secrets.compare_digest(known.encode(), password.encode()) else None

    def _exchange(self, client: str, form: dict[str, str]) -> web.Response:
        subject_token = form.get("subject_token", "")
        if form.get("subject_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
            return _error(400, "invalid_request", "Unsupported subject token type")
        claims = self._own(subject_token)
        if claims is None:
            return _error(401, "invalid_token", "Invalid access token")
        if claims["exp"] <= self.clock.now():
            return _error(401, "invalid_token", "Access token expired")
        scope = form.get("scope") or str(claims.get("scope", ""))
        # IAM lets a client ask for `offline_access` beside what the subject token has, and for nothing else.
        if not set(scope.split()) - {"offline_access"} <= set(str(claims.get("scope", "")).split()):
            return _error(400, "invalid_scope", "Scope exceeds that of the subject token")
        with_refresh = "offline_access" in scope.split()
        return self._answer(client, str(claims["sub"]), scope, form, with_refresh=with_refresh, exchanged=True)

    def _own(self, token: str) -> dict[str, Any] | None:
        """The claims of a token of this issuer's, expired or not."""
        parts = token.split(".")
        if len(parts) != 3:
            return None
        head, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in parts[:2])
        key = next((key for key in self.keys if key.kid == head.get("kid")), None)
        signature = base64.urlsafe_b64decode(parts[2] + "==")
        text = f"{parts[0]}.{parts[1]}".encode()
        good = key is not None and JWSRegistry.algorithms[head["alg"]].verify(text, signature, key)
        return claims if good else None

    def _refresh(self, client: str, form: dict[str, str]) -> web.Response:
        shown = form.get("refresh_token", "")
        known = self.refreshes.get(shown)
        if known is None or known.client_id != client:
            return _error(400, "invalid_grant", "Invalid refresh token")
        scope = form.get("scope") or known.scope
        if not set(scope.split()) <= set(known.scope.split()):
            return _error(400, "invalid_scope", "Up-scoping is not allowed")
        if self.rotates:
            del self.refreshes[shown]
        return self._answer(client, known.subject, scope, form, with_refresh=self.rotates, kept=known.scope, old=shown)

    def _answer(
        self,
        client: str,
        subject: str,
        scope: str,
        form: dict[str, str],
        *,
        with_refresh: bool,
        exchanged: bool = False,
        kept: str | None = None,
        old: str | None = None,
    ) -> web.Response:
        audience: str | Sequence[str] = (form.get("audience") or form.get("aud") or ANY).split()
        audience = audience[0] if len(audience) == 1 else audience
        token = self.token(subject, scope=scope, aud=audience, client_id=client)
        found: dict[str, Any] = {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": int(self.lifetime_s),
            "scope": scope,
        }
        if exchanged:
            found["issued_token_type"] = ACCESS_TOKEN
        if with_refresh:
            # As IAM's: an unsigned JWT, which nobody but the issuer has to understand.
            identity = json.dumps({"jti": secrets.token_hex(16)}).encode()
            fresh = f"{b64(json.dumps({'alg': 'none'}).encode())}.{b64(identity)}."
            self.refreshes[fresh] = Refresh(subject, kept or scope, client)
            found["refresh_token"] = fresh
        elif old is not None:
            found["refresh_token"] = old
        return web.json_response(found, headers={"Cache-Control": "no-store"})


class _Failing(web.HTTPException):
    status_code = 500

    def __init__(self, status: int) -> None:
        self.status_code = status
        super().__init__(text='{"error":"temporarily_unavailable"}', content_type="application/json")


def _error(status: int, error: str, description: str) -> web.Response:
    headers = {"WWW-Authenticate": 'Basic realm="issuer"'} if status == 401 and error == "invalid_client" else {}
    return web.json_response({"error": error, "error_description": description}, status=status, headers=headers)
