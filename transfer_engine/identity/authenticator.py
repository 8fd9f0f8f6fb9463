"""Who a request comes from: token before certificate before this machine, and never one instead of the other.

As in FTS3 a bearer token is looked at first. What is shown must be good: a bad token beside a good
certificate is refused, and so is any bad credential from this machine. The reason is told to whoever
sent it and logged once; what was sent is in neither.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final

from protocols.credentials import Secret
from protocols.errors import printable
from transfer_engine.callers import CERTIFICATE, LOCAL_TOKEN, TOKEN, Caller, Grant, Role
from transfer_engine.clock import Clock
from transfer_engine.config_service import AuthSettings, ReverseProxy
from transfer_engine.identity.api import BadCredential, Certificates, CertificateUser, Shown
from transfer_engine.identity.failures import Failures, place_of
from transfer_engine.identity.jwks import Documents
from transfer_engine.identity.jwt import TOKEN_MAX, Unverified, take_apart
from transfer_engine.identity.local_tokens import LocalTokens, is_local
from transfer_engine.identity.loopback import ANYBODY, FORWARDED, is_loopback, local_caller
from transfer_engine.identity.oidc import Tokens
from transfer_engine.identity.roles import (
    OF_A_VO,
    ExtraGrants,
    Facts,
    Roles,
    no_extra_grants,
    short_id,
    vos_of_certificate,
)
from transfer_engine.identity.x509.names import usual_spelling
from transfer_engine.identity.x509.reverse_proxy import Forwarded, forwarded, is_front

SHOWN_MAX: Final = 200
"""Longest text of a refused credential's issuer or subject in the log."""
log = logging.getLogger(__name__)


class TheAuthenticator:
    """Implements `api.Authenticator` with everything that the settings believe."""

    def __init__(
        self,
        auth: AuthSettings,
        *,
        clock: Clock,
        certificates: Certificates | None = None,
        reverse_proxy: ReverseProxy = ReverseProxy(),  # noqa: B008 - frozen
        extra_grants: ExtraGrants = no_extra_grants,
        documents: Mapping[str, Documents] | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            certificates: reads chains; None: client certificates are refused.
            reverse_proxy: whose headers are believed; by default nobody's.
            extra_grants: roles that were given while the service runs.
            documents: see `Tokens`.
        Raises: Invalid: settings that cannot be meant.
        """
        auth = _usually_spelled(auth)
        self.tokens = Tokens(auth.issuers, clock=clock, documents=documents)
        self._auth = auth
        self._clock = clock
        self._certificates = certificates
        self._reverse_proxy = reverse_proxy
        self._roles = Roles(auth, extra_grants=extra_grants)
        self._local_tokens = LocalTokens(auth.tokens)
        self._local = local_caller(auth)
        self._failures = Failures(auth.failures_per_min)

    async def identify(self, shown: Shown) -> Caller:
        """See `Authenticator.identify`."""
        place = self._place(shown)
        seen: list[Unverified] = []
        try:
            certificate = self._certificate_shown(shown)
            if shown.authorization is not None:
                return await self._by_authorization(shown.authorization, place, seen)
            if certificate is not None:
                return self._by_certificate(certificate, place)
        except BadCredential as refused:
            # Also what is refused without any work is counted, and its lines in the log are.
            self._failures.check(place, b"", self._clock.now())
            self._refuse(place, refused, seen[0] if seen else None)
            raise
        return self._local if self._local is not None and self._is_here(shown) else ANYBODY

    async def run(self) -> None:
        """Keep the issuers' keys fresh, until cancelled; without it requests do so when keys are due."""
        await self.tokens.run()

    async def aclose(self) -> None:
        """Close the connections to issuers."""
        await self.tokens.aclose()

    # Tokens

    async def _by_authorization(self, header: str, place: str, seen: list[Unverified]) -> Caller:
        self._failures.check(place, header, self._clock.now())
        caller = await self._bearer(header, seen)
        self._failures.accepted(header)
        return caller

    async def _bearer(self, header: str, seen: list[Unverified]) -> Caller:
        """The caller with this header; what is seen of a token on the way is kept for the log."""
        scheme, _, rest = header.partition(" ")
        if scheme.lower() != "bearer":
            raise BadCredential("expected a bearer token in the Authorization header")
        text = rest.strip(" ")
        if not 1 <= len(text) <= TOKEN_MAX:
            raise BadCredential(f"expected a bearer token of 1 to {TOKEN_MAX} characters")
        if is_local(text):
            return self._by_local_token(Secret(text))
        token = take_apart(text)
        seen.append(token)
        user = await self.tokens.user(token)
        facts = Facts(method=TOKEN, user_dn=user.subject, issuer=user.issuer, groups=user.groups, vos=user.vos)
        return Caller(
            user_dn=user.subject,
            vos=user.vos,
            delegation_id=short_id(user.issuer, user.subject),
            method=TOKEN,
            grants=self._roles.grants(facts),
            shared_vos=self._roles.shared(user.vos),
            voms_cred=user.scopes,
            issuer=user.issuer,
            token=Secret(text),
            expires_at=user.expires_at,
        )

    def _by_local_token(self, token: Secret) -> Caller:
        user = self._local_tokens.user(token, self._clock.now())
        setting = user.setting
        vos = (setting.vo,)
        role = Role(setting.role)
        own = () if role is Role.USER else (Grant(role, setting.vo if role in OF_A_VO else None),)
        facts = Facts(method=LOCAL_TOKEN, user_dn=setting.name, vos=vos)
        return Caller(
            user_dn=setting.name,
            vos=vos,
            delegation_id=short_id("token:", setting.name),
            method=LOCAL_TOKEN,
            grants=tuple(dict.fromkeys((*own, *self._roles.grants(facts)))),
            shared_vos=self._roles.shared(vos),
            expires_at=user.expires_at,
        )

    # Certificates

    def _certificate_shown(self, shown: Shown) -> Forwarded | None:
        """What there is of a certificate; the one of the web server in front is never its users'."""
        front = is_front(shown.peer, self._reverse_proxy)
        if front and shown.authorization is not None:
            return None
        found = forwarded(shown.headers, shown.peer, self._reverse_proxy)
        if found is not None or front or not shown.chain:
            return found
        return Forwarded(chain=shown.chain)

    def _by_certificate(self, certificate: Forwarded, place: str) -> Caller:
        now = self._clock.now()
        shown = b"".join(certificate.chain) or certificate.dn
        self._failures.check(place, shown, now)
        user = self._read(certificate, now)
        delegation_id = short_id(user.dn, *user.fqans)
        vos = vos_of_certificate(self._auth, user.dn, user.fqans, delegation_id)
        facts = Facts(method=CERTIFICATE, user_dn=user.dn, groups=user.fqans, vos=vos)
        self._failures.accepted(shown)
        return Caller(
            user_dn=user.dn,
            vos=vos,
            delegation_id=delegation_id,
            method=CERTIFICATE,
            grants=self._roles.grants(facts),
            shared_vos=self._roles.shared(vos),
            voms_cred=user.fqans,
            certificate=user.pem or None,
            expires_at=user.expires_at if math.isfinite(user.expires_at) else None,
        )

    def _read(self, certificate: Forwarded, now: float) -> CertificateUser:
        if not certificate.chain:
            return CertificateUser(dn=certificate.dn, fqans=(), expires_at=math.inf, pem="")
        if self._certificates is None:
            raise BadCredential("client certificates are not believed here")
        return self._certificates.user(certificate.chain, now)

    # Where from

    def _is_here(self, shown: Shown) -> bool:
        """Does it come from this machine, and from nobody behind a proxy on it?"""
        if FORWARDED & shown.headers.keys() or is_front(shown.peer, self._reverse_proxy):
            return False
        return shown.peer is None or is_loopback(shown.peer)

    def _place(self, shown: Shown) -> str:
        """Whose refusals these are: behind a reverse proxy, those of the address that it saw."""
        if is_front(shown.peer, self._reverse_proxy):
            last = shown.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
            if last:
                return place_of(last)
        return place_of(shown.peer)

    def _refuse(self, place: str, refused: BadCredential, token: Unverified | None) -> None:
        self._failures.refused(place, self._clock.now())
        claims = {} if token is None else token.claims
        log.warning(
            "credential refused",
            extra={
                "why": refused.why,
                "peer": printable(place, SHOWN_MAX),
                "claimed_issuer": _told(claims.get("iss")),
                "claimed_subject": _told(claims.get("sub")),
            },
        )


def _told(value: object) -> str:
    return printable(value, SHOWN_MAX) if isinstance(value, str) else ""


def _usually_spelled(auth: AuthSettings) -> AuthSettings:
    """The settings with subjects of certificates as `/whoami` shows them, however somebody has written them."""
    roles = tuple(
        [role if role.dn is None else role.model_copy(update={"dn": usual_spelling(role.dn)}) for role in auth.roles]
    )
    gridmap = {usual_spelling(dn): vo for dn, vo in auth.gridmap.items()}
    return auth.model_copy(update={"roles": roles, "gridmap": gridmap})
