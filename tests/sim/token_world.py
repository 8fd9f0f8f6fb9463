"""A token issuer in virtual time, and storages that look at the tokens they are shown."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

from protocols.api import ANONYMOUS, CopyEnd, CopyRequest, Credential, OnMarker, Stat
from protocols.credentials import Secret
from protocols.errors import Denied
from protocols.scripted import ScriptedAdapter
from transfer_engine.config import Settings
from transfer_engine.credentials.api import Away, Granted, Refusal, Wanted
from transfer_engine.credentials.claims import read
from transfer_engine.model import JobRequest, Transfer
from transfer_engine.testing import deps, run_virtual
from transfer_engine.wiring import TransferEngine

ISSUER = "https://iam.example/"
OWNER = "00000000deadbeef"
READ, WRITE = "storage.read:/data", "storage.modify:/data storage.read:/data"
_serial = itertools.count(1)


def jwt(**claims: Any) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)] + [b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class ScriptedIssuer:
    """`Issuers` without a network. Every request takes `answer_s`.

    Attributes:
        away: requests fail; `refusal` (a code of RFC 6749): they are refused.
        rotates: a refresh token is good for one use.
        asked: (kind, wanted, token) of each request that reached it.
    """

    def __init__(self, now: Callable[[], float], *, lifetime_s: float = 3600.0) -> None:
        self.now = now
        self.lifetime_s = lifetime_s
        self.answer_s = 0.2
        self.away = False
        self.refusal: str | None = None
        self.rotates = True
        self.asked: list[tuple[str, Wanted, str]] = []
        self.n_failed = 0
        self.good: dict[str, tuple[str, str]] = {}
        """Refresh token → (subject, scope)."""
        self.n_at_once = self.n_at_once_max = 0

    def token(self, scope: str = f"{READ} offline_access", *, subject: str = "rucio", **claims: Any) -> str:
        now = self.now()
        found = {
            "iss": ISSUER,
            "sub": subject,
            "aud": "storages",
            "scope": scope,
            "jti": next(_serial),
            "nbf": now,
            "iat": now,
            "exp": now + self.lifetime_s,
        } | claims
        return jwt(**found)

    def n(self, kind: str) -> int:
        return sum(one == kind for one, _, _ in self.asked)

    def serves(self, issuer: str) -> bool:
        return issuer.removesuffix("/") == ISSUER.removesuffix("/")

    async def exchange(self, wanted: Wanted, subject: Secret) -> Granted:
        await self._answer("exchange", wanted, subject)
        claims = read(subject)
        assert claims is not None
        if claims.expires_at <= self.now():
            raise Refusal("invalid_token", "invalid_token (Access token expired)")
        return self._grant(claims.subject, wanted.scope, first=True)

    async def refresh(self, wanted: Wanted, refresh: Secret) -> Granted:
        await self._answer("refresh", wanted, refresh)
        known = self.good.get(refresh.reveal())
        if known is None:
            raise Refusal("invalid_grant", "invalid_grant (Invalid refresh token)")
        if self.rotates:
            del self.good[refresh.reveal()]
        return self._grant(known[0], wanted.scope, first=self.rotates)

    async def _answer(self, kind: str, wanted: Wanted, token: Secret) -> None:
        self.n_at_once += 1
        self.n_at_once_max = max(self.n_at_once, self.n_at_once_max)
        await asyncio.sleep(self.answer_s)
        self.n_at_once -= 1
        if self.away:
            self.n_failed += 1
            raise Away("it answers with 503")
        self.asked.append((kind, wanted, token.reveal()))
        if self.refusal is not None:
            raise Refusal(self.refusal, self.refusal)

    def _grant(self, subject: str, scope: str, *, first: bool) -> Granted:
        refresh = f"refresh-{next(_serial)}" if first else None
        if refresh is not None:
            self.good[refresh] = subject, scope
        access = self.token(scope, subject=subject)
        return Granted(
            access=Secret(access),
            refresh=None if refresh is None else Secret(refresh),
            expires_at=self.now() + self.lifetime_s,
            lifetime_s=self.lifetime_s,
        )


class TokenStorages(ScriptedAdapter):
    """Scripted storages that want a token which holds, with the right to do what is asked."""

    def __init__(self, clock: Callable[[], float], **more: Any) -> None:
        super().__init__(**more)
        self.clock = clock
        self.shown: list[tuple[str, str, Credential]] = []

    def _check(self, operation: str, url: str, credential: Credential, right: str) -> None:
        self.shown.append((operation, url, credential))
        claims = None if credential.token is None else read(credential.token)
        if claims is None or claims.expires_at <= self.clock() or not any(w.startswith(right) for w in claims.scope):
            raise Denied("permission denied")

    async def stat(self, url: str, *, credential: Credential = ANONYMOUS, **more: Any) -> Stat:
        self._check("stat", url, credential, "storage.read")
        return await super().stat(url, credential=credential, **more)

    async def delete(self, url: str, *, credential: Credential = ANONYMOUS, **more: Any) -> bool:
        self._check("delete", url, credential, "storage.modify")
        return await super().delete(url, credential=credential, **more)

    async def copy(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        self._check("copy", request.source_url, request.source_credential, "storage.read")
        self._check("copy", request.destination_url, request.destination_credential, "storage.modify")
        return await super().copy(request, on_marker)

    def tokens(self, url: str) -> set[str]:
        """Those that a storage was shown."""
        return {c.token.reveal() for _, seen, c in self.shown if c.token is not None and seen.startswith(url)}


class World:
    """An engine whose transfers have tokens."""

    def __init__(self, settings: Settings | None = None, database: str = "sqlite://") -> None:
        self.deps = deps(asyncio.get_running_loop(), 0)
        self.issuer = ScriptedIssuer(self.deps.clock.now)
        self.storages = TokenStorages(self.deps.clock.now, rng=random.Random(0))
        self.settings = settings or Settings()
        self.database = database
        for host in "abc":
            self.storages.storage(f"sim://{host}")

    def engine(self) -> TransferEngine:
        return TransferEngine(
            self.database,
            settings=self.settings,
            adapters=[self.storages],
            deps=self.deps,
            inline=True,
            issuers=self.issuer,
        )

    def now(self) -> float:
        return self.deps.clock.now()

    def file(self, n: int = 0, *, size: int = 1_000_000, source: str = "", destination: str = "") -> Transfer:
        """A file with tokens; new ones where none are given."""
        self.storages.storage("sim://a").add(f"/data/{n}", size_bytes=size)
        return Transfer(
            sources=(f"sim://a/data/{n}",),
            destination=f"sim://b/data/{n}",
            size_bytes=size,
            source_tokens=(Secret(source or self.issuer.token()),),
            destination_token=Secret(destination or self.issuer.token(f"{WRITE} offline_access")),
        )


def request(*transfers: Transfer, **more: Any) -> JobRequest:
    return JobRequest(**({"transfers": transfers, "cred_id": OWNER} | more))


def in_world(
    scenario: Callable[[World], Awaitable[None]], settings: Settings | None = None, database: str = "sqlite://"
) -> None:
    async def main() -> None:
        await scenario(World(settings, database))

    run_virtual(main)
