"""Tokens of OpenID Connect issuers: from the text of a token to who it stands for.

Source: WLCG Common JWT Profiles 1.x; RFC 8725 (JWT Best Current Practices). The algorithm is the issuer's
by the settings, the keys are the issuer's by its own discovery: a token says which key, never where it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from transfer_engine.clock import Clock
from transfer_engine.config_service import Issuer
from transfer_engine.errors import Invalid
from transfer_engine.identity import claims as claiming
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.claims import TokenUser
from transfer_engine.identity.jwks import Documents, IssuerKeys
from transfer_engine.identity.jwt import Unverified
from transfer_engine.identity.keys import KID_MAX, verify
from transfer_engine.identity.scopes import allows, granted

_FOREIGN: Final = frozenset({"jku", "jwk", "x5u", "x5c"})
"""Header members that bring a key along, or say where one is."""
_OTHER: Final = frozenset({"crit", "b64", "zip", "enc", "cty"})
"""Members that make something else of a token than a signed set of claims; no extension is understood."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
"""Of access tokens (RFC 9068); one for another purpose, such as `logout+jwt`, opens nothing."""


def key(issuer: str) -> str:
    """Under which name an issuer is kept: without a `/` at the end."""
    return issuer.removesuffix("/")


def check_header(header: Mapping[str, Any]) -> tuple[str, str | None]:
    """(algorithm, key id). Raises: BadCredential: the header asks for something that is not done."""
    if _FOREIGN & header.keys():
        raise BadCredential("the token brings its own key")
    if _OTHER & header.keys():
        raise BadCredential("the token's header asks for something that is not understood")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise BadCredential("the token is not an access token")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise BadCredential("the token does not say how it is signed")
    if kid is not None and not (isinstance(kid, str) and 1 <= len(kid) <= KID_MAX and kid.isprintable()):
        raise BadCredential("the token's key id is none")
    return algorithm, kid


class Tokens:
    """Believes the tokens of the issuers in the settings, for this service."""

    def __init__(
        self, issuers: Sequence[Issuer], *, clock: Clock, documents: Mapping[str, Documents] | None = None
    ) -> None:
        """Fetches nothing yet.

        Args:   documents: issuer's URL as in the settings → where its documents come from; else the network.
        Raises: Invalid: an issuer is there twice, or cannot be trusted.
        """
        self._clock = clock
        self._issuers: dict[str, tuple[Issuer, IssuerKeys]] = {}
        for issuer in issuers:
            if key(issuer.issuer) in self._issuers:
                raise Invalid(f"{issuer.issuer} is there twice", field="auth.issuers")
            source = (documents or {}).get(issuer.issuer)
            self._issuers[key(issuer.issuer)] = issuer, IssuerKeys(issuer, clock=clock, documents=source)

    def keys_of(self, issuer: str) -> IssuerKeys | None:
        """The keys of an issuer in the settings."""
        found = self._issuers.get(key(issuer))
        return None if found is None else found[1]

    async def user(self, token: Unverified) -> TokenUser:
        """Who a token stands for. Raises: BadCredential. IssuerUnavailable: nobody can say."""
        issuer, _keys = self._named(token)
        if issuer.storage_only:
            raise BadCredential("tokens of this issuer are for storages, not for this service")
        await self.check_signature(token)
        return self._believed(token.claims, issuer)

    async def check_signature(self, token: Unverified) -> None:
        """Raises: BadCredential: it is not signed by its issuer, which is one of these. IssuerUnavailable."""
        algorithm, kid = check_header(token.header)
        issuer, keys = self._named(token)
        if algorithm not in issuer.algorithms:
            raise BadCredential(f"the token is signed in another way than {', '.join(issuer.algorithms)}")
        _check_signature(token, await keys.keys(kid, algorithm), algorithm)

    def _named(self, token: Unverified) -> tuple[Issuer, IssuerKeys]:
        """The issuer that a token says it is from. Raises: BadCredential: it is none of the settings'."""
        found = None if token.issuer is None else self._issuers.get(key(token.issuer))
        if found is None:
            raise BadCredential("the token's issuer is not one of those that are believed here")
        return found

    def _believed(self, claims: Mapping[str, Any], issuer: Issuer) -> TokenUser:
        claiming.check_profile(claims)
        claiming.check_audience(claims, issuer.audiences)
        expires_at = claiming.check_times(claims, self._clock.now())
        scopes = claiming.scopes(claims)
        held = granted(scopes)
        if missing := [scope for scope in issuer.scopes if not allows(held, scope)]:
            raise BadCredential(f"the token lacks the scope {' '.join(missing)}")
        groups = claiming.groups(claims)
        subject = claiming.subject(claims)
        self._check_distinct(issuer, subject)
        return TokenUser(
            issuer=key(issuer.issuer) + "/",
            subject=subject,
            groups=groups,
            vos=claiming.vos_of(groups, issuer),
            scopes=scopes,
            expires_at=expires_at,
        )

    def _check_distinct(self, issuer: Issuer, subject: str) -> None:
        """Raises: BadCredential: FTS3's id of a user, from issuer and subject in a row, would be another issuer's."""
        own = key(issuer.issuer)
        whole = f"{own}/{subject}"
        if any(other != own and len(other) > len(own) and whole.startswith(f"{other}/") for other in self._issuers):
            raise BadCredential("the token's subject could be one of another issuer")

    async def run(self) -> None:
        """Keep all issuers' keys fresh, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _, keys in self._issuers.values():
                tasks.create_task(keys.run())

    async def aclose(self) -> None:
        """Close the connections to the issuers."""
        for _, keys in self._issuers.values():
            await keys.aclose()


def _check_signature(token: Unverified, fitting: Sequence[Any], algorithm: str) -> None:
    """Two keys may have one id while an issuer changes them. Raises: BadCredential: none of them signed it."""
    for number, candidate in enumerate(fitting, 1):
        try:
            return verify(token, candidate, algorithm)
        except BadCredential:
            if number == len(fitting):
                raise
    raise BadCredential("the token's signature is wrong")
