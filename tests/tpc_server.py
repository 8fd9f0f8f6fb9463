"""A WebDAV server with third-party copy inside the test's own process: small, honest, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web

from protocols.checksum import compute

METHODS = "OPTIONS, HEAD, GET, PUT, DELETE, PROPFIND, MKCOL, COPY"


class TpcServer:
    """Files and directories by path; refuses to make parents by itself, as StoRM and plain WebDAV do."""

    def __init__(self, *, speaks_tpc: bool = True, encodes_hrefs: bool = True) -> None:
        self.files: dict[str, bytes] = {}
        self.directories = {"/"}
        self.requests: list[tuple[str, str]] = []
        self.url = ""
        self._speaks_tpc = speaks_tpc
        self._encodes_hrefs = encodes_hrefs
        self._client: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TpcServer]:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._client = aiohttp.ClientSession()
        try:
            yield self
        finally:
            await self._client.close()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        self.requests.append((request.method, path))
        handler = getattr(self, f"_{request.method.lower()}", None)
        if handler is None:
            return web.Response(status=405)
        response = await handler(request, path)
        response.headers["Server"] = "TestTpc/1"
        return response

    def _missing_parent(self, path: str) -> bool:
        return (path.rpartition("/")[0] or "/") not in self.directories

    async def _options(self, _request: web.Request, _path: str) -> web.StreamResponse:
        return web.Response(headers={"Allow": METHODS})

    async def _head(self, request: web.Request, path: str) -> web.StreamResponse:
        return await self._get(request, path)

    async def _get(self, request: web.Request, path: str) -> web.StreamResponse:
        if path in self.directories:
            return web.Response(headers={"Content-Length": "4096"}) if request.method == "HEAD" else web.Response()
        if path not in self.files:
            return web.Response(status=404)
        data = self.files[path]
        headers = {"Last-Modified": "Wed, 25 Nov 2026 05:46:01 GMT"}
        if request.headers.get("Want-Digest") == "adler32":
            headers["Digest"] = f"adler32={compute('adler32', data).value}"
        return web.Response(body=data, headers=headers)

    async def _put(self, request: web.Request, path: str) -> web.StreamResponse:
        if path in self.directories or self._missing_parent(path):
            return web.Response(status=409)
        self.files[path] = await request.read()
        return web.Response(status=201)

    async def _delete(self, _request: web.Request, path: str) -> web.StreamResponse:
        if path in self.directories:
            return web.Response(status=409)
        return web.Response(status=204 if self.files.pop(path, None) is not None else 404)

    async def _mkcol(self, _request: web.Request, path: str) -> web.StreamResponse:
        if path in self.files or path in self.directories:
            return web.Response(status=405)
        if self._missing_parent(path):
            return web.Response(status=409)
        self.directories.add(path)
        return web.Response(status=201)

    async def _propfind(self, request: web.Request, path: str) -> web.StreamResponse:
        if path not in self.files and path not in self.directories:
            return web.Response(status=404)
        names = [path]
        if request.headers.get("Depth") == "1":
            prefix = path.rstrip("/") + "/"
            every = [*self.files, *self.directories]
            names += [n for n in every if n.startswith(prefix) and n != "/" and "/" not in n[len(prefix) :]]
        rows = "".join(self._row(name) for name in names)
        text = f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{rows}</D:multistatus>'
        return web.Response(status=207, body=text.encode(), content_type="application/xml")

    def _row(self, name: str) -> str:
        kind = "<D:collection/>" if name in self.directories else ""
        size = "" if kind else f"<D:getcontentlength>{len(self.files[name])}</D:getcontentlength>"
        href = escape(quote(name) if self._encodes_hrefs else name)
        properties = f"<D:prop><D:resourcetype>{kind}</D:resourcetype>{size}</D:prop>"
        return f"<D:response><D:href>{href}</D:href><D:propstat>{properties}</D:propstat></D:response>"

    async def _copy(self, request: web.Request, path: str) -> web.StreamResponse:
        if not self._speaks_tpc:
            return web.Response(status=405)
        source, destination = request.headers.get("Source"), request.headers.get("Destination")
        if (source is None) == (destination is None):
            return web.Response(status=400, text="either Source or Destination")
        if source is not None:
            if path in self.files and request.headers.get("Overwrite") == "F":
                return web.Response(status=412, text="file exists")
            if self._missing_parent(path):
                return web.Response(status=409, text="parent directory is missing")
        elif path not in self.files:
            return web.Response(status=404, text="no such file")
        response = web.StreamResponse(status=202)
        response.headers["Server"] = "TestTpc/1"
        await response.prepare(request)
        await response.write(b"Perf Marker\n Stripe Index: 0\n Stripe Bytes Transferred: 0\nEnd\n")
        await response.write((await self._move(path, source, destination)).encode())
        return response

    async def _move(self, path: str, source: str | None, destination: str | None) -> str:
        assert self._client is not None
        method, url = ("GET", source) if source is not None else ("PUT", destination)
        data = None if source is not None else self.files[path]
        async with self._client.request(method, url or "", data=data) as answer:
            if answer.status >= 300:
                return f"failure: rejected {method}: {answer.status} {answer.reason}"
            if source is not None:
                self.files[path] = await answer.read()
        return "success: Created"
