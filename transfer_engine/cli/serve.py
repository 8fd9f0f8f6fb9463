"""`serve`: the job service in the foreground, for a terminal or a service manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from pathlib import Path
from typing import Any

from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import log_to_stderr, put, say
from transfer_engine.config import load
from transfer_engine.service.server import check_host
from transfer_engine.service.server import serve as serve_http
from transfer_engine.wiring import TransferEngine, door_of


def raise_file_limit() -> None:
    """As many open files as allowed: every running copy holds a connection."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(config: Path | None, flags: dict[str, Any], *, verbose: bool) -> Exit:
    """Serve until SIGTERM or SIGINT; then running transfers get the grace time."""
    log_to_stderr(logging.INFO if verbose else logging.WARNING)
    settings = load(config, flags)
    check_host(settings.service, settings.auth)
    raise_file_limit()
    if settings.database == "sqlite://":
        say("the database is in memory: jobs are lost when the service stops; give --database sqlite:///PATH")
    task = asyncio.current_task()
    assert task is not None, "serve() runs in a task"
    loop = asyncio.get_running_loop()
    # Also while the engine is still being opened.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)

    def ready(url: str) -> None:
        put(f"listening on {url}")
        if settings.auth.loopback != "refuse":
            say(f"whoever is on this machine is believed to be {settings.auth.loopback}, without authentication")

    try:
        async with TransferEngine(settings=settings) as engine:

            def end() -> None:
                if (n := len(engine.running())) and not task.cancelling():
                    grace_s = settings.service.grace_s
                    say(f"stopping: {n} running transfers have {grace_s:g} s; another signal stops them at once")
                task.cancel()

            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, end)
            await serve_http(engine, settings.service, door_of(settings, engine), on_ready=ready)
    except asyncio.CancelledError:
        put("stopped")
    return Exit.OK
