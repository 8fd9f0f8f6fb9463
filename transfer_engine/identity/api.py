"""What a request shows of its sender, and who makes a caller of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from transfer_engine.callers import Caller
from transfer_engine.errors import EngineError, Forbidden


class BadCredential(Forbidden):
    """A credential was shown and is not believed; FTS3's answer is 403 `Invalid credentials (…)`.

    The message tells the user what is wrong with it, and never what is in it.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"Invalid credentials ({why})")


class TooMany(EngineError):
    """Too many refused credentials from one address; ask again later."""

    status: ClassVar[int] = 429

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a request shows of its sender.

    Attributes:
        authorization: the header, as it came.
        peer: address of the other end of the connection; None: a socket of this machine without one.
        chain: DER certificates of the TLS handshake, the leaf first; they have been verified up to a CA.
        headers: all headers of the request, by lower-case name: for those of a reverse proxy.
    """

    authorization: str | None = field(default=None, repr=False)
    peer: str | None = None
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Authenticator(Protocol):
    """Says who a request comes from."""

    async def identify(self, shown: Shown) -> Caller:
        """The caller; one who is `UNAUTHENTICATED` when nothing was shown and the loopback is not believed.

        Raises: BadCredential: something was shown and is refused. TooMany: this address has shown too much
        of that. StoreUnavailable, with status 503: an issuer's keys cannot be had now and none are known.
        """

    async def run(self) -> None:
        """What goes on while the service is there; ends when it is cancelled, or at once."""

    async def aclose(self) -> None:
        """Close what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateUser:
    """Who a certificate chain stands for.

    Attributes:
        dn: subject of the end-entity certificate, in OpenSSL's old form (`/DC=ch/O=…/CN=…`).
        fqans: VOMS attributes that were verified, the primary one first, without `Role=NULL` and `Capability=NULL`.
        expires_at: when the first of chain and attributes ends.
        pem: the chain, leaf first.
    """

    dn: str
    fqans: tuple[str, ...]
    expires_at: float
    pem: str = field(repr=False)


class Certificates(Protocol):
    """Reads certificate chains."""

    def user(self, chain: tuple[bytes, ...], now: float) -> CertificateUser:
        """Who a chain (DER, leaf first, verified by TLS or the reverse proxy) stands for. Raises: BadCredential."""
