"""Requests that a web page makes a browser send: refused unless they come from the service itself.

A browser adds what it has to such a request by itself, a client certificate or the place it sends from;
tokens it does not add. FTS3 compares Host and Origin; a page whose own name resolves to this machine
(DNS rebinding) has both alike, and with a GET over plain HTTP it sends neither Origin nor Sec-Fetch-Site.
Only Host is then not as it should be, which matters where whoever is on this machine is believed.
"""

from __future__ import annotations

from aiohttp import web
from yarl import URL

from transfer_engine.errors import Forbidden
from transfer_engine.identity.loopback import is_loopback


def check_origin(request: web.Request, *, by_name: bool) -> None:
    """Does it come from a program, or from the service's own page?

    Args: by_name: the caller is believed for where the request comes from.
    Raises: Forbidden: it comes from a foreign web page.
    """
    # `request.host` would ask the resolver for a name when the header is missing.
    host = request.headers.get("Host", "")
    origin = request.headers.get("Origin")
    if origin is not None and _authority(origin) != host:
        raise Forbidden("Host and Origin do not match")
    if by_name and not _is_local(_hostname(host)):
        raise Forbidden("a service that believes whoever is on this machine is used by a loopback name, as localhost")
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise Forbidden("requests of other sites' pages are refused")


def _authority(origin: str) -> str:
    try:
        url = URL(origin)
    except ValueError:
        return ""
    return url.raw_authority if url.host else ""


def _is_local(name: str) -> bool:
    """Is it a name of this machine, or one that nobody else can give to it? Without dots it is out of no public DNS."""
    return is_loopback(name) or not {".", ":"} & set(name)


def _hostname(host: str) -> str:
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
