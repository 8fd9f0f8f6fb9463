"""The listening side of the job service: where it binds, how long it waits, how it stops."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from protocols.errors import printable
from transfer_engine.clock import Clock
from transfer_engine.config_service import AuthSettings, ServiceSettings
from transfer_engine.errors import Invalid
from transfer_engine.identity.loopback import LoopbackOnly, is_loopback
from transfer_engine.service.app import Door, build_app, no_chain
from transfer_engine.service.tls import FreshContext, chain_of
from transfer_engine.vault import Vault

if TYPE_CHECKING:
    from transfer_engine.engine import Engine

LINE_MAX: Final = 64 * 1024
"""Longest request line: a poll for 1,000 jobs has 37 kB of ids."""
IDLE_S: Final = 75.0
"""As long as most clients keep an idle connection."""

PARSING: Final[Mapping[str, Any]] = {
    "access_log": None,
    "auto_decompress": False,
    "max_line_size": LINE_MAX,
    "max_field_size": LINE_MAX,
}
"""How connections are treated, as arguments of aiohttp's runner."""

log = logging.getLogger(__name__)


class _Brief(logging.Filter):
    """Broken HTTP is the client's fault: one line of it is enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the traceback from such a record; keep all records."""
        if record.exc_info and isinstance(error := record.exc_info[1], HttpProcessingError):
            record.msg, record.args = "refused what is not HTTP: %s", (printable(error.message, 200),)
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.exc_info = None
        return True


_BRIEF: Final = _Brief()


def check_host(service: ServiceSettings, auth: AuthSettings) -> str:
    """The address to bind.

    Raises: Invalid: nobody could use the service, or it would be open to, or hear secrets in clear from, others.
    """
    issuers = [issuer for issuer in auth.issuers if not issuer.storage_only]
    known = bool(issuers or auth.tokens or service.tls.client_ca or service.reverse_proxy.peers)
    if not known and auth.loopback == "refuse":
        msg = (
            "nobody is known to this service yet; name token issuers ([[auth.issuers]]), local tokens "
            "(`transfer-engine token create`), or the CA of client certificates (service.tls.client_ca). To let "
            "whoever is on this machine do everything, without authentication: --no-auth"
        )
        raise Invalid(msg, field="auth")
    name = service.host.strip("[]")
    if is_loopback(service.host):
        # One address, so that port 0 is one port.
        return "127.0.0.1" if name.lower().rstrip(".") == "localhost" else name
    if auth.loopback != "refuse":
        msg = (
            "a service that believes whoever is on this machine listens on loopback only "
            f"(127.0.0.0/8, ::1 or localhost), got {service.host!r}"
        )
        raise Invalid(msg, field="service.host")
    if service.tls.certificate is None and not service.reverse_proxy.peers:
        msg = (
            f"tokens would cross the network in clear: listening on {service.host!r} needs service.tls.certificate, "
            "or a web server in front that ends TLS (service.reverse_proxy.peers)"
        )
        raise Invalid(msg, field="service.tls.certificate")
    return name


def open_door(vault: Callable[[], Vault] | None = None) -> Door:
    """Whoever is on this machine may do everything."""
    auth = AuthSettings(loopback="admin")
    return Door(auth=auth, authenticator=LoopbackOnly(auth), vault=vault or cache(Vault.transient))


async def serve(
    engine: Engine,
    service: ServiceSettings,
    door: Door,
    *,
    on_ready: Callable[[str], None],
    clock: Clock | None = None,
    idle_s: float = IDLE_S,
) -> None:
    """Serve until cancelled; requests under way then have `service.grace_s` to end.

    Args:
        door: who may come in; it is closed at the end.
        on_ready: is called with the service's URL once it accepts connections.
        idle_s: how long a connection may stay open without a complete request.

    Raises: Invalid: a setting is wrong (see `check_host`), a certificate cannot be used, or the port is taken.
    """
    host = check_host(service, door.auth)
    fresh = FreshContext(service.tls) if service.tls.certificate is not None else None
    http_log = logging.getLogger(f"{__name__}.http")
    http_log.addFilter(_BRIEF)
    runner = web.AppRunner(
        build_app(engine, service, door, chain_of=no_chain if fresh is None else chain_of, clock=clock),
        handle_signals=False,
        logger=http_log,
        shutdown_timeout=service.grace_s,
        keepalive_timeout=idle_s,
        **PARSING,
    )
    await runner.setup()
    try:
        await _bind(runner, host, service.port, None if fresh is None else fresh.context)
        port = runner.addresses[0][1]
        scheme = "http" if fresh is None else "https"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        log.info("listening", extra={"event": "listening", "url": url})
        on_ready(url)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(door.authenticator.run())
            await (asyncio.Event().wait() if fresh is None else fresh.run())
    finally:
        await runner.cleanup()
        await door.authenticator.aclose()


async def _bind(runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext | None) -> None:
    try:
        await web.TCPSite(runner, host, port, ssl_context=context).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            msg = f"port {port} on {host} is in use"
            raise Invalid(msg, field="service.port") from error
        msg = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise Invalid(msg, field="service.host") from error
