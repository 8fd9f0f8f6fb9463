"""HTTPS with client certificates: the server's TLS context, and the chain that a client has shown.

A client without a certificate is let in (it may have a token); one with a certificate must have a good one, or the
handshake fails. Certificates of CAs that were taken away, and revoked ones, are refused with each request (`identity`).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from transfer_engine.config_service import ServiceTls
from transfer_engine.errors import Invalid
from transfer_engine.identity.x509.trust import Stamp, stamp

LOOK_AGAIN_S: Final = 60.0
_DER: Final = 2
"""`_ssl.ENCODING_DER`."""

log = logging.getLogger(__name__)


def server_context(tls: ServiceTls) -> ssl.SSLContext:
    """The context of the listening side.

    TLS 1.2 and 1.3; no session tickets: a resumed session would come without the client's chain.
    Raises: Invalid: a file is missing, or is not what it should be; `field` says which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _load(context, tls)
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    return context


def _load(context: ssl.SSLContext, tls: ServiceTls) -> None:
    """Read the files into a context, which may be in use. Raises: Invalid; the context is then as it was."""
    if tls.certificate is None:
        msg = "it is needed for HTTPS"
        raise Invalid(msg, field="service.tls.certificate")
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        msg = f"the service's certificate or key cannot be read: {_why(error)}"
        raise Invalid(msg, field="service.tls.certificate") from error
    if tls.client_ca is None:
        return
    try:
        if tls.client_ca.is_dir():
            context.load_verify_locations(capath=tls.client_ca)
        else:
            context.load_verify_locations(cafile=tls.client_ca)
    except (OSError, ssl.SSLError) as error:
        msg = f"the CAs of the users cannot be read: {_why(error)}"
        raise Invalid(msg, field="service.tls.client_ca") from error


def _why(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)


def chain_of(transport: asyncio.BaseTransport) -> tuple[bytes, ...]:
    """The certificates that the client has shown, DER, leaf first; empty without any, and without TLS.

    They were sent by the client; TLS has verified a chain from the leaf to a CA, but not that it is made of these.
    """
    inner = getattr(transport.get_extra_info("ssl_object"), "_sslobj", None)
    if inner is None or inner.getpeercert(True) is None:
        return ()
    # Public from Python 3.13 on, as `SSLObject.get_unverified_chain`; there since 3.10.
    return tuple(certificate.public_bytes(_DER) for certificate in inner.get_unverified_chain() or ())


class FreshContext:
    """A context that follows its files: certificates of services are renewed while they run.

    New handshakes use what was read last; connections that exist are not touched.
    """

    def __init__(self, tls: ServiceTls) -> None:
        self._tls = tls
        self.context = server_context(tls)
        self._stamps = self._look()

    def _look(self) -> dict[Path, Stamp]:
        paths = (self._tls.certificate, self._tls.key, self._tls.client_ca)
        return {path: stamp(path) for path in paths if path is not None}

    def refresh(self) -> bool:
        """Read the files again if one of them has changed; says whether. What cannot be read is logged and left."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        try:
            # A file that is being replaced may not match its key yet: it is tried apart from the one in use.
            server_context(self._tls)
            _load(self.context, self._tls)
        except Invalid as error:
            log.warning("kept the certificate that was read before", extra={"event": "tls-kept", "error": str(error)})
            return False
        self._stamps = stamps
        log.info("read the service's certificate and CAs again", extra={"event": "tls-read"})
        return True

    async def run(self, *, every_s: float = LOOK_AGAIN_S) -> None:
        """Look for changes, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.refresh()
