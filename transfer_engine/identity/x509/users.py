"""From a chain of certificates to the user: certificates, proxies, CAs and VOMS attributes together."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from transfer_engine.config_service import ServiceTls
from transfer_engine.identity.api import BadCredential, CertificateUser
from transfer_engine.identity.x509.chains import Chain, read_chain
from transfer_engine.identity.x509.trust import TrustStore
from transfer_engine.identity.x509.voms import Attributes, Voms

REMEMBERED: Final = 1024
"""Chains whose user is remembered: clients keep connections, and come back."""
BELIEVED_S: Final = 300.0
"""How long, at most: a certificate may have been revoked since."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    user: CertificateUser
    until: float
    generation: tuple[int, int]


class GridCertificates:
    """`Certificates` of the grid.

    Args:
        client_ca: bundle or hashed directory of the CAs that are believed; None: the one who hands in a chain (a web
            server in front) has checked it up to a CA, and VOMS attributes cannot be checked.
        crl: their revocation lists, further to those in a hashed directory.
        vomsdir: None: VOMS attributes are not believed.
        hosts: names of this service, for attributes that are meant for certain services only.
    """

    def __init__(
        self,
        *,
        client_ca: Path | None,
        crl: Path | None = None,
        vomsdir: Path | None = None,
        hosts: frozenset[str] = frozenset(),
    ) -> None:
        self._trust = None if client_ca is None else TrustStore(cas=client_ca, crl=crl)
        self._voms = None
        if self._trust is not None and vomsdir is not None:
            self._voms = Voms(directory=vomsdir, trust=self._trust, hosts=hosts)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    @classmethod
    def of(cls, tls: ServiceTls, *, hosts: frozenset[str] = frozenset()) -> GridCertificates:
        """As the settings have it."""
        return cls(client_ca=tls.client_ca, crl=tls.crl, vomsdir=tls.vomsdir, hosts=hosts)

    def user(self, chain: tuple[bytes, ...], now: float) -> CertificateUser:
        """Who a chain (DER, leaf first) stands for. Raises: BadCredential."""
        digest = hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in chain)).digest()
        generation = self._refresh(now)
        known = self._known.get(digest)
        if known is not None and known.generation == generation and now < known.until:
            self._known.move_to_end(digest)
            return known.user
        user = self._read(read_chain(chain, now), now)
        self._known[digest] = _Known(user, min(user.expires_at, now + BELIEVED_S), generation)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return user

    def check_chain(self, chain: Chain, now: float) -> None:
        """Is the user's CA believed, and the certificate not revoked? Raises: BadCredential."""
        if self._trust is not None:
            self._trust.check(chain.end_entity, chain.others, now)
        elif chain.end_entity.issuer == chain.end_entity.subject:
            raise BadCredential("a certificate that has issued itself")

    def _refresh(self, now: float) -> tuple[int, int]:
        if self._trust is None:
            return (0, 0)
        self._trust.refresh(now)
        if self._voms is None:
            return (self._trust.generation, 0)
        self._voms.refresh(now)
        return (self._trust.generation, self._voms.generation)

    def _read(self, chain: Chain, now: float) -> CertificateUser:
        self.check_chain(chain, now)
        attributes = self._attributes(chain, now)
        for why in attributes.refused:
            log.warning(
                "left out VOMS attributes of a proxy",
                extra={"event": "voms-refused", "user_dn": chain.dn, "why": why},
            )
        return CertificateUser(
            dn=chain.dn,
            fqans=attributes.fqans,
            expires_at=min(chain.expires_at, attributes.expires_at),
            pem=chain.pem,
        )

    def _attributes(self, chain: Chain, now: float) -> Attributes:
        nothing = Attributes(fqans=(), expires_at=float("inf"))
        if self._voms is None:
            return nothing
        try:
            return self._voms.attributes(chain, now) or nothing
        except BadCredential as error:
            return replace(nothing, refused=(error.why,))
