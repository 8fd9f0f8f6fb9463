"""The listening side of the job service: where it binds, how long it waits, how it stops."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from transfer_engine.clock import Clock
from transfer_engine.config_service import ServiceSettings
from transfer_engine.errors import Invalid
from transfer_engine.service.app import build_app
from transfer_engine.service.auth import is_loopback

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
            record.msg, record.args = "refused what is not HTTP: %.200s", (error.message,)
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.exc_info = None
        return True


_BRIEF: Final = _Brief()


def check_host(host: str) -> str:
    """The address to bind. Raises: Invalid: it is reachable from elsewhere, and nobody is authenticated."""
    if not is_loopback(host):
        msg = (
            "the job service does not authenticate its callers and therefore listens on loopback only "
            f"(127.0.0.0/8, ::1 or localhost), got {host!r}"
        )
        raise Invalid(msg, field="service.host")
    name = host.strip("[]")
    # One address, so that port 0 is one port.
    return "127.0.0.1" if name.lower().rstrip(".") == "localhost" else name


async def serve(
    engine: Engine,
    settings: ServiceSettings,
    *,
    on_ready: Callable[[str], None],
    clock: Clock | None = None,
    idle_s: float = IDLE_S,
) -> None:
    """Serve until cancelled; requests under way then have `settings.grace_s` to end.

    Args:
        on_ready: is called with the service's URL once it accepts connections.
        idle_s: how long a connection may stay open without a complete request.

    Raises: Invalid: not a loopback address, or the port is taken.
    """
    host = check_host(settings.host)
    http_log = logging.getLogger(f"{__name__}.http")
    http_log.addFilter(_BRIEF)
    runner = web.AppRunner(
        build_app(engine, settings, clock=clock),
        handle_signals=False,
        logger=http_log,
        shutdown_timeout=settings.grace_s,
        keepalive_timeout=idle_s,
        **PARSING,
    )
    await runner.setup()
    try:
        await _bind(runner, host, settings.port)
        port = runner.addresses[0][1]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info(
            "listening on loopback only, because callers are not authenticated",
            extra={"event": "listening", "url": url},
        )
        on_ready(url)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            msg = f"port {port} on {host} is in use"
            raise Invalid(msg, field="service.port") from error
        msg = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise Invalid(msg, field="service.host") from error
