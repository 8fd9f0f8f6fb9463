"""One service with two issuers that need no network, for the tests of who a request comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.issuer import OidcIssuer, rsa_key
from tests.service import NOW, FixedClock
from transfer_engine.config_service import AuthSettings
from transfer_engine.identity.api import Shown
from transfer_engine.identity.authenticator import TheAuthenticator
from transfer_engine.identity.fetching import NotHad

ISSUER = "https://issuer.example"
STORAGE_ISSUER = "https://storages.example"
AUDIENCE = "https://fts.example"


@dataclass
class Shelf:
    """Documents without a network; `away` makes it unreachable."""

    issuer: OidcIssuer
    away: bool = False
    fetched: list[str] = field(default_factory=list)
    told: Callable[[str], None] = lambda _url: None

    async def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        self.told(url)
        if self.away:
            raise NotHad("it cannot be reached (test)")
        if url.endswith("/.well-known/openid-configuration"):
            found = {"issuer": self.issuer.url + "/", "jwks_uri": self.issuer.url + "/jwk"}
            return json.dumps({**found, **self.issuer.configuration}).encode()
        return self.issuer.key_set()

    async def aclose(self) -> None:
        """Holds nothing."""


class World:
    """A clock, two issuers, one authenticator."""

    def __init__(self, *, changes: dict[str, Any] | None = None, auth: dict[str, Any] | None = None, **more: Any):
        self.clock = FixedClock()
        self.issuer = OidcIssuer(clock=self.clock, url=ISSUER)
        self.storages = OidcIssuer(clock=self.clock, url=STORAGE_ISSUER, keys=[rsa_key(2)])
        self.shelf = Shelf(self.issuer)
        first = {"issuer": ISSUER, "audiences": [AUDIENCE], "vo": "escape", **(changes or {})}
        second = {"issuer": STORAGE_ISSUER, "audiences": [AUDIENCE], "vo": "other", "storage_only": True}
        self.auth = AuthSettings.model_validate({"issuers": [first, second], **(auth or {})})
        self.authenticator = TheAuthenticator(
            self.auth,
            clock=self.clock,
            documents={ISSUER: self.shelf, STORAGE_ISSUER: Shelf(self.storages)},
            **more,
        )

    def claims(self, **changes: Any) -> dict[str, Any]:
        return self.issuer.claims(**{"aud": AUDIENCE, **changes})

    def token(self, **changes: Any) -> str:
        return self.issuer.sign(self.claims(**changes))

    async def caller(self, token: str, **shown: Any):
        return await self.authenticator.identify(Shown(authorization=f"Bearer {token}", peer="192.0.2.1", **shown))


__all__ = ["AUDIENCE", "ISSUER", "NOW", "STORAGE_ISSUER", "Shelf", "World"]
