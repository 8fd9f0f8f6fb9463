"""The adapter for http, https, dav and davs: thin over the files beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from protocols.api import (
    ANONYMOUS,
    Capabilities,
    CopyEnd,
    CopyRequest,
    Credential,
    Entry,
    Mode,
    OnMarker,
    ReadStream,
    Stat,
    Timeouts,
)
from protocols.errors import AlreadyExists, Missing, Phase, Scope
from protocols.http.addresses import AddressPolicy, check_party
from protocols.http.bodies import Bodies
from protocols.http.copy import Copier
from protocols.http.directories import Directories
from protocols.http.macaroon import Macaroons
from protocols.http.quirks import ANY, Quirks
from protocols.http.session import Sessions
from protocols.http.urls import WIRE_SCHEMES, endpoint_of, told_endpoint, wire_url
from protocols.http.webdav import Metadata
from protocols.http.wire import Wire
from protocols.masking import masking

USER_AGENT: Final = "transfer-engine"
_DEFAULTS: Final = Timeouts()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _told(capabilities: Mapping[str, Capabilities]) -> dict[str, Capabilities]:
    return {name if name == ANY else told_endpoint(name): known for name, known in capabilities.items()}


class HttpAdapter:
    """HTTP and WebDAV storages with third-party copy, as XRootD, dCache, StoRM and EOS speak it."""

    def __init__(
        self,
        *,
        ca: Path | None = None,
        verify_tls: bool = True,
        user_agent: str = USER_AGENT,
        connections_max: int = 0,
        capabilities: Mapping[str, Capabilities] | None = None,
        credential_hosts: Collection[str] = (),
        etag_md5_endpoints: Collection[str] = (),
        address_allowed: AddressPolicy | None = None,
    ) -> None:
        """Connections are opened when they are needed.

        Args:
            ca: bundle file or hashed directory of trusted CAs; None: the system's.
            verify_tls: False accepts any certificate; for tests only.
            connections_max: per TLS identity; 0: no limit, as every running copy holds one.
            capabilities: by endpoint (`https://host` for every port of it, or `https://host:port`), what is known
                beforehand; it is believed over what is observed. An endpoint with push=True is sent push COPYs
                although it looks like plain WebDAV.
            credential_hosts: hosts besides a URL's own that may see its token after a redirect; `.example.org`
                stands for all hosts below it.
            etag_md5_endpoints: endpoints whose ETag is the md5 of the content (rclone with `--etag-hash`).
            address_allowed: asked for the IP address of every connection, also of those that a COPY makes a storage
                open; False forbids it.
        """
        self._address_allowed = address_allowed
        self._quirks = Quirks(now=_now, configured=_told(capabilities or {}))
        self._sessions = Sessions(
            user_agent=user_agent,
            ca=ca,
            verify_tls=verify_tls,
            limit=connections_max,
            address_allowed=address_allowed,
        )
        wire = Wire(sessions=self._sessions, quirks=self._quirks, credential_hosts=credential_hosts)
        etag_md5 = [endpoint_of(wire_url(endpoint)) for endpoint in etag_md5_endpoints]
        self._metadata = Metadata(wire=wire, quirks=self._quirks, etag_md5_endpoints=etag_md5)
        self._directories = Directories(metadata=self._metadata, now=_now)
        self._bodies = Bodies(wire=wire, quirks=self._quirks)
        self._copier = Copier(
            wire=wire,
            quirks=self._quirks,
            metadata=self._metadata,
            directories=self._directories,
            macaroons=Macaroons(wire=wire, now=_now),
        )

    @property
    def schemes(self) -> frozenset[str]:
        """The URL schemes it takes; dav and davs are http and https on the wire."""
        return frozenset(WIRE_SCHEMES)

    def capabilities(self, url: str) -> Capabilities:
        """As configured, or as learned in the last 24 hours."""
        return self._quirks.capabilities(endpoint_of(wire_url(url)))

    def believe(self, capabilities: Mapping[str, Capabilities]) -> None:
        """Take other capabilities for known from now on; see `__init__`. `*`: of endpoints that are not named."""
        self._quirks.configure(_told(capabilities))

    async def stat(
        self, url: str, *, credential: Credential = ANONYMOUS, digest: str | None = None, timeouts: Timeouts = _DEFAULTS
    ) -> Stat:
        """HEAD, and PROPFIND where HEAD cannot tell a file from a directory."""
        with masking([credential], [url]):
            return await self._metadata.stat(wire_url(url), credential=credential, digest=digest, timeouts=timeouts)

    async def list_directory(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> list[Entry]:
        """PROPFIND of depth 1."""
        with masking([credential], [url]):
            return await self._metadata.list_directory(wire_url(url), credential=credential, timeouts=timeouts)

    async def make_parents(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> None:
        """MKCOL of the directory above `url`, and of those above it that are missing."""
        with masking([credential], [url]):
            await self._directories.make_parents(wire_url(url), credential=credential, timeouts=timeouts)

    async def delete(self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS) -> bool:
        """DELETE; never of a directory."""
        with masking([credential], [url]):
            return await self._metadata.delete(wire_url(url), credential=credential, timeouts=timeouts)

    async def copy(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        """COPY with `Source` or `Destination`."""
        if self._address_allowed is not None:
            # The one that gets the COPY is looked at when we connect to it, the other one is its to connect to.
            pull = request.mode is Mode.PULL
            url, scope = (request.source_url, Scope.SOURCE) if pull else (request.destination_url, Scope.DESTINATION)
            await check_party(wire_url(url), self._address_allowed, scope)
        return await self._copier.run(request, on_marker)

    @asynccontextmanager
    async def read(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> AsyncIterator[ReadStream]:
        """GET."""
        with masking([credential], [url]):
            async with self._bodies.read(wire_url(url), credential=credential, timeouts=timeouts) as stream:
                yield stream

    async def write(
        self,
        url: str,
        blocks: AsyncIterator[bytes],
        *,
        size_bytes: int | None,
        overwrite: bool,
        credential: Credential = ANONYMOUS,
        timeouts: Timeouts = _DEFAULTS,
    ) -> None:
        """PUT; a redirect is followed as long as 8 MiB or less were sent before it came.

        Without `overwrite` the path is looked at first: XRootD and nginx ignore `If-None-Match`.
        """
        with masking([credential], [url]):
            if not overwrite:
                await self._must_be_free(url, credential, timeouts)
            await self._bodies.write(
                wire_url(url),
                blocks,
                size_bytes=size_bytes,
                overwrite=overwrite,
                credential=credential,
                timeouts=timeouts,
            )

    async def _must_be_free(self, url: str, credential: Credential, timeouts: Timeouts) -> None:
        try:
            await self.stat(url, credential=credential, timeouts=timeouts)
        except Missing:
            return
        target = wire_url(url).with_query(None)
        raise AlreadyExists(f"PUT {target}: file exists", scope=Scope.DESTINATION, phase=Phase.PREPARATION)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._sessions.aclose()
