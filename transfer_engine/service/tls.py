"""HTTPS, ended by this service: the context, and the certificates that a client has shown."""

from __future__ import annotations

import asyncio
import ssl

from transfer_engine.config_service import ServiceTls
from transfer_engine.errors import Invalid


def server_context(tls: ServiceTls) -> ssl.SSLContext | None:
    """The context that connections are accepted with; None: plain HTTP. Raises: Invalid: names the setting."""
    if tls.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"cannot be used: {error}", field="service.tls.certificate") from error
    return context


def chain_of(transport: asyncio.BaseTransport) -> tuple[bytes, ...]:
    """The client's certificates, DER, the leaf first."""
    found = transport.get_extra_info("ssl_object")
    leaf = None if found is None else found.getpeercert(binary_form=True)
    return () if leaf is None else (leaf,)
