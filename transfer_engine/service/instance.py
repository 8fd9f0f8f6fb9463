"""Questions about the service itself: what it is, who is asking, whether it works."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from aiohttp import web
from pydantic_core import to_json

from transfer_engine.clock import Clock
from transfer_engine.guarded import Gate
from transfer_engine.service.boundary import answer, caller_of, error_answer
from transfer_engine.service.wire.instance import caller_object, service_object


def version() -> str:
    """The version of this software; `0` when it runs without having been installed."""
    try:
        return metadata.version("transfer-engine")
    except metadata.PackageNotFoundError:
        return "0"


class Instance:
    """The handlers of everything that is not about jobs."""

    def __init__(self, *, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock
        self._service = service_object(version())
        self._document = b"{}"

    def publish(self, document: dict[str, Any]) -> None:
        """Set what `/openapi.json` answers: it is made from the routes, which include its own."""
        self._document = to_json(document, indent=1)

    async def service(self, _: web.Request) -> web.Response:
        """What the service is and which interface it speaks."""
        return answer(self._service)

    async def whoami(self, request: web.Request) -> web.Response:
        """Who is asking."""
        return answer(caller_object(caller_of(request)))

    async def healthz(self, _: web.Request) -> web.Response:
        """Is the process alive? Answers as long as it can answer at all."""
        return answer({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """Can it accept and move? 503 with the reason while it cannot."""
        why = self._gate.why_not_ready() or await self._gate.why_not_written()
        if why is not None:
            return error_answer(503, why)
        # Transfers do not need it, and whoever balances load must not take the node out for it.
        notes = {"messages": "wait for a broker"} if self._gate.troubles() else {}
        return answer({"status": "ready", **notes})

    async def openapi(self, _: web.Request) -> web.Response:
        """The OpenAPI document of this service."""
        return web.Response(body=self._document, content_type="application/json")
