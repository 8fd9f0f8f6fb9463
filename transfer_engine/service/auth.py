"""Who is asking: the one place that turns a request into a `Caller`.

The service listens on loopback only, and whoever reaches it there is the local user. What must not
reach it is a web page: a browser on this machine sends any page's requests to loopback. Such a
request says where it comes from, and is refused unless it comes from the service itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import uuid
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from yarl import URL

from transfer_engine.errors import Forbidden

BASE_ID: Final = uuid.UUID("01874efb-4735-4595-bc9c-591aef8240c9")
"""Namespace of FTS's ids for VOs and deterministic jobs; clients compute with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated user.

    Attributes:
        delegation_id: names the caller's credential; 16 hex digits.
        method: how the caller proved it.
        levels: operation → how far it reaches (`private`, `vo`, `all`).
    """

    user_dn: str
    vos: tuple[str, ...]
    delegation_id: str
    method: str
    voms_cred: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    levels: tuple[tuple[str, str], ...] = ()
    is_root: bool = False

    @property
    def vo(self) -> str:
        """The VO that the caller's jobs belong to."""
        return self.vos[0]


LOCAL: Final = Caller(
    user_dn="local",
    vos=("local",),
    delegation_id=hashlib.sha1(b"local", usedforsecurity=False).hexdigest()[:16],
    method="local",
    levels=(("transfer", "all"), ("deleg", "all"), ("config", "all")),
)


def vo_id(vo: str) -> uuid.UUID:
    """FTS's id of a VO, the namespace of its deterministic job ids."""
    return uuid.uuid5(BASE_ID, vo)


def is_loopback(host: str) -> bool:
    """Does this host name or address mean this machine only: 127.0.0.0/8, ::1 or `localhost`?"""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def identify(request: web.Request) -> Caller:
    """The caller. Raises: Forbidden: the request comes from a foreign web page."""
    # `request.host` would ask the resolver for a name when the header is missing.
    host = request.headers.get("Host", "")
    origin = request.headers.get("Origin")
    if origin is not None and _authority(origin) != host:
        raise Forbidden("Host and Origin do not match")
    from_browser = origin is not None or "Sec-Fetch-Site" in request.headers
    # A page whose own name resolves to loopback (DNS rebinding) shares host and origin.
    if from_browser and not is_loopback(_hostname(host)):
        raise Forbidden("web pages may use this service by a loopback name only")
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise Forbidden("requests of other sites' pages are refused")
    return LOCAL


def _authority(origin: str) -> str:
    try:
        url = URL(origin)
    except ValueError:
        return ""
    return url.raw_authority if url.host else ""


def _hostname(host: str) -> str:
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
