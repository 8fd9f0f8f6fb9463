"""A storage, an issuer and a broker that repeat what they were told: the worst that the other ends can do in words."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from protocols.checksum import compute
from tests.canaries.cage import Cage
from tests.grid import Identity
from tests.issuer import OidcIssuer
from transfer_engine.messages.frames import Frames

DATA = b"content of every file" * 50
_SECRET_HEADERS = ("Authorization", "TransferHeaderAuthorization")


class ParrotStorage:
    """Any file is there below `/there`; what a directory is called says how it fails.

    `/401`, `/500`: every answer is that; `/copy`, `/copy403`: the COPY fails. All of them quote the whole request.
    """

    def __init__(self, cage: Cage) -> None:
        self._cage = cage
        self.written: set[str] = set()
        self.n_macaroons = 0
        self.n_echoes = 0
        self.url = ""

    @asynccontextmanager
    async def running(self, host: Identity, grid_ca: str) -> AsyncIterator[ParrotStorage]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(host.certificate, host.key_file)
        context.load_verify_locations(grid_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.url = f"https://localhost:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def _quote(self, request: web.Request) -> str:
        self.n_echoes += 1
        bare = [request.headers[name].partition(" ")[2] for name in _SECRET_HEADERS if name in request.headers]
        head = "; ".join(f"{name}: {value}" for name, value in request.headers.items())
        # Parts of them first: what is long is cut off.
        short = [text[:90] for text in bare] + [text[-90:] for text in bare]
        return f"{request.method} {request.path_qs} was refused. You sent: {short} {bare} {head}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        for name in _SECRET_HEADERS:
            if (value := request.headers.get(name, "")).startswith("Bearer "):
                self._cage.keep(f"shown to a storage as {name}", value.removeprefix("Bearer "))
        kind = request.path.split("/")[1]
        if kind.isdecimal() and request.method == "HEAD":
            # Whatever is asked next can be answered with words.
            return web.Response(status=405)
        if kind.isdecimal():
            return web.Response(status=int(kind), reason=self._quote(request)[:800], text=self._quote(request))
        if request.content_type == "application/macaroon-request":
            self.n_macaroons += 1
            return web.json_response({"macaroon": self._cage.lay("macaroon of a storage")})
        if request.method == "COPY":
            if kind == "copy":
                return web.Response(status=202, text=f"failure: {self._quote(request)}\n")
            if kind.startswith("copy"):
                return web.Response(status=int(kind.removeprefix("copy")), text=self._quote(request))
            self.written.add(request.path)
            return web.Response(status=201, text="success: Created\n")
        return self._look(request, kind)

    def _look(self, request: web.Request, kind: str) -> web.StreamResponse:
        there = kind == "there" or request.path in self.written
        if request.method in {"HEAD", "GET"} and there:
            digest = f"adler32={compute('adler32', DATA).value}"
            return web.Response(body=DATA, headers={"Digest": digest, "Server": "Parrot"})
        if request.method == "PROPFIND":
            return web.Response(status=405, text=self._quote(request))
        if request.method == "MKCOL":
            return web.Response(status=201)
        if request.method == "DELETE":
            self.written.discard(request.path)
            return web.Response(status=204)
        return web.Response(status=404, text=self._quote(request))


class ParrotIssuer(OidcIssuer):
    """An honest issuer, until `repeats` is there: then it waits for that, refuses, and quotes the whole request."""

    repeats: asyncio.Event | None = None
    cage: Cage

    async def _token(self, request: web.Request) -> web.Response:
        if self.repeats is not None:
            await self.repeats.wait()
            form = {name: str(value) for name, value in (await request.post()).items()}
            text = f"refused: {form} with {request.headers.get('Authorization')} of {self.clients}"
            return web.json_response({"error": "invalid_grant", "error_description": text}, status=400)
        answer = await super()._token(request)
        for known in self.refreshes:
            # Nothing but its random middle tells it from others.
            self.cage.keep("refresh token", known.split(".")[1])
        return answer


class ParrotBroker:
    """A STOMP broker that first refuses the login, quoting it, and then keeps all messages."""

    def __init__(self) -> None:
        self.n_refused = 0
        self.messages: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ParrotBroker]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = Frames()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for frame in frames.feed(data):
                    writer.write(self._reply(frame))
                await writer.drain()
        writer.close()

    def _reply(self, frame: Any) -> bytes:
        if frame.command == "CONNECT":
            if not self.n_refused:
                self.n_refused += 1
                return f"ERROR\nmessage:bad login {frame.headers}\n\n\0".encode()
            return b"CONNECTED\nversion:1.2\n\n\0"
        if frame.command == "SEND":
            self.messages.append(frame.body)
        receipt = frame.headers.get("receipt")
        return b"" if receipt is None else f"RECEIPT\nreceipt-id:{receipt}\n\n\0".encode()
