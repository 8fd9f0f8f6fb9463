"""The keys of one issuer: found by discovery, kept, renewed, and for a while believed when it is away.

Source: OpenID Connect Discovery 1.0 §4 (RFC 8414), WLCG Common JWT Profiles 1.x, "Token Verification":
keys are cached for six hours or so, and a key that is not known is looked for, but not at every request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from transfer_engine.clock import Clock
from transfer_engine.config_service import Issuer
from transfer_engine.errors import Invalid, IssuerUnavailable
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.fetching import Fetcher, NotHad, is_safe
from transfer_engine.identity.jwt import strict_object
from transfer_engine.identity.keys import SigningKey, candidates, parse_keys

UNKNOWN_KID_S: Final = 60.0
"""Shortest time between two looks for a key that is not known."""
AGAIN_S: Final = 10.0
"""Shortest time between two tries at an issuer that cannot be reached."""
LOOK_S: Final = 30.0
"""How often `run` looks whether keys are due."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What an issuer says of itself."""

    jwks_uri: str
    token_endpoint: str | None


class Documents(Protocol):
    """Where the issuer's documents come from; `Fetcher` is one."""

    async def fetch(self, url: str) -> bytes:
        """The document. Raises: NotHad."""

    async def aclose(self) -> None:
        """Close what it holds."""


def same_issuer(one: str, other: str) -> bool:
    """Is it the same issuer? Compared as text (RFC 7519 §4.1.1), but for one `/` at the end."""
    return one.removesuffix("/") == other.removesuffix("/")


class IssuerKeys:
    """Keys of one issuer. Safe to use by many requests at once: they share one fetch."""

    def __init__(self, issuer: Issuer, *, clock: Clock, documents: Documents | None = None) -> None:
        """Fetches nothing yet. Raises: Invalid: the issuer's keys could only be had over plain HTTP."""
        self.issuer = issuer.issuer
        self._settings = issuer
        self._clock = clock
        # Only an issuer on this machine may go without TLS, and only if the settings say `http`.
        self._plain = issuer.issuer.startswith("http://")
        if not is_safe(issuer.issuer, plain_loopback=self._plain):
            raise Invalid(
                f"{issuer.issuer}: expected https, or http on loopback, without user and fragment",
                field="auth.issuers.issuer",
            )
        self._documents = documents or Fetcher(ca=issuer.ca, plain_loopback=self._plain)
        self._fetching = asyncio.Lock()
        self._keys: tuple[SigningKey, ...] = ()
        self._metadata: Metadata | None = None
        self._had_at: float | None = None
        self._tried_at: float | None = None
        self._n_tries = 0
        self._failure: str | None = None
        self._in_background = False

    async def keys(self, kid: str | None, algorithm: str) -> tuple[SigningKey, ...]:
        """The keys that may have signed a token with this header, at least one.

        Raises: BadCredential: the issuer has no such key. IssuerUnavailable: nobody can say.
        """
        now = self._clock.now()
        if not self._usable(now):
            await self._renew(AGAIN_S)
            self._require(self._usable(self._clock.now()))
        elif self._due(now) and not self._in_background and not self._fetching.locked():
            await self._renew(UNKNOWN_KID_S)
        found = candidates(self._keys, kid, algorithm)
        if not found:
            await self._renew(UNKNOWN_KID_S)
            found = candidates(self._keys, kid, algorithm)
        if not found:
            # Nobody knows whether an issuer that cannot be asked has made a new key meanwhile.
            self._require(self._failure is None)
            raise BadCredential("the token's issuer has no key that it names")
        return found

    async def metadata(self) -> Metadata:
        """What the issuer says of itself. Raises: IssuerUnavailable."""
        if not self._usable(self._clock.now()):
            await self._renew(AGAIN_S)
        if self._metadata is None:
            self._require(False)
        assert self._metadata is not None
        return self._metadata

    async def run(self) -> None:
        """Keep the keys fresh, until cancelled: no request then waits for a renewal."""
        self._in_background = True
        try:
            while True:
                if self._due(self._clock.now()):
                    await self._renew(UNKNOWN_KID_S)
                await asyncio.sleep(LOOK_S)
        finally:
            self._in_background = False

    async def aclose(self) -> None:
        """Close its connections."""
        await self._documents.aclose()

    def _usable(self, now: float) -> bool:
        return self._had_at is not None and now - self._had_at < self._settings.jwks_max_s

    def _due(self, now: float) -> bool:
        return self._had_at is None or now - self._had_at >= self._settings.jwks_refresh_s

    def _require(self, fulfilled: bool) -> None:
        if not fulfilled:
            why = self._failure or "they have not been fetched"
            raise IssuerUnavailable(
                f"The keys of token issuer {self.issuer} cannot be had now: {why}", retry_after_s=AGAIN_S
            )

    async def _renew(self, apart_s: float) -> None:
        """Fetch the keys, unless somebody did so meanwhile or less than `apart_s` ago; failures are kept, not raised.

        Cancel: safe; whoever else waits then fetches.
        """
        n_tries = self._n_tries
        async with self._fetching:
            now = self._clock.now()
            if self._n_tries != n_tries or (self._tried_at is not None and 0 <= now - self._tried_at < apart_s):
                return
            try:
                metadata, keys = await self._fetch()
            except (NotHad, ValueError) as failure:
                self._failure = str(failure)
                log.warning("keys of a token issuer not had", extra={"issuer": self.issuer, "why": self._failure})
            else:
                self._metadata, self._keys, self._failure = metadata, keys, None
                self._had_at = self._clock.now()
            self._tried_at = self._clock.now()
            self._n_tries += 1

    async def _fetch(self) -> tuple[Metadata, tuple[SigningKey, ...]]:
        place = f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration"
        try:
            document = strict_object(await self._documents.fetch(place))
        except ValueError:
            raise NotHad("its configuration is not a JSON object") from None
        metadata = self._checked(document)
        try:
            keys = parse_keys(await self._documents.fetch(metadata.jwks_uri))
        except ValueError:
            raise NotHad("its keys are not a JWK Set") from None
        if not keys:
            raise NotHad("it has no key that tokens could be checked with")
        return metadata, keys

    def _checked(self, document: Mapping[str, Any]) -> Metadata:
        """Raises: NotHad: it is another issuer's configuration, or names places that are not fetched from."""
        named = document.get("issuer")
        if not isinstance(named, str) or not same_issuer(named, self.issuer):
            raise NotHad("its configuration is another issuer's")
        jwks_uri = document.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not is_safe(jwks_uri, plain_loopback=self._plain):
            raise NotHad("its configuration names no place of its keys that is fetched from")
        endpoint = document.get("token_endpoint")
        safe = isinstance(endpoint, str) and is_safe(endpoint, plain_loopback=self._plain)
        return Metadata(jwks_uri=jwks_uri, token_endpoint=str(endpoint) if safe else None)
