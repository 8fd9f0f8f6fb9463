"""One small JSON document of an issuer: over TLS, from the named host, within seconds, of bounded size."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp import ClientTimeout

from transfer_engine.errors import Invalid
from transfer_engine.identity.loopback import is_loopback

BODY_MAX: Final = 256 * 1024
"""Largest document, in bytes."""
FETCH_S: Final = 5.0
"""Longest time for one, redirects included."""
REDIRECTS_MAX: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OK: Final = 200


class NotHad(Exception):
    """The document was not obtained; the text says why and holds nothing that the other end chose."""


def is_safe(url: str, *, plain_loopback: bool) -> bool:
    """May keys be fetched from there? Over https; over http only where asked for and on this machine."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (plain_loopback and parts.scheme == "http" and is_loopback(host))


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """How an issuer's certificate is checked. Raises: Invalid: the CA cannot be read."""
    try:
        if ca is not None and ca.is_dir():
            context = ssl.create_default_context(capath=str(ca))
        else:
            context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as failure:
        raise Invalid(f"{ca}: {type(failure).__name__}: {failure}", field="auth.issuers.ca") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def why_away(failure: Exception) -> str:
    """Why an issuer gave no answer, in words for who has to mend it; nothing that the issuer wrote is in it."""
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        told = getattr(failure.certificate_error, "verify_message", None) or type(failure).__name__
        return f"its certificate is not trusted ({told}): name its CA with `ca` in its [[auth.issuers]]"
    if isinstance(failure, aiohttp.ClientConnectorError) and failure.os_error.strerror:
        return f"it cannot be reached ({failure.os_error.strerror})"
    return f"it cannot be reached ({type(failure).__name__})"


class Fetcher:
    """Gets the documents of one issuer."""

    def __init__(self, *, ca: Path | None = None, plain_loopback: bool = False) -> None:
        self._context = tls_context(ca)
        self._plain_loopback = plain_loopback
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str) -> bytes:
        """The document at `url`. Raises: NotHad."""
        for _ in range(REDIRECTS_MAX + 1):
            if not is_safe(url, plain_loopback=self._plain_loopback):
                raise NotHad("it is at a URL that is not fetched from")
            found = await self._once(url)
            if isinstance(found, bytes):
                return found
            if _place(found) != _place(url):
                raise NotHad("it is redirected to another host")
            url = found
        raise NotHad("it is redirected too often")

    async def _once(self, url: str) -> bytes | str:
        """The document, or where it is said to be instead."""
        try:
            async with self._opened().get(url, allow_redirects=False, timeout=ClientTimeout(total=FETCH_S)) as response:
                if response.status in _REDIRECTS:
                    return urljoin(url, response.headers.get("Location", ""))
                if response.status != _OK:
                    raise NotHad(f"it answers with {response.status}")
                return await _bounded(response)
        except TimeoutError:
            raise NotHad(f"it does not answer within {FETCH_S:.0f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            raise NotHad(why_away(failure)) from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context, limit=4, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def aclose(self) -> None:
        """Close its connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > BODY_MAX:
            raise NotHad(f"its answer is longer than {BODY_MAX} bytes")
    return bytes(body)


def _place(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return "", None, None
