"""Whoever reaches the service from this machine without a credential, where the settings believe that."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final

from transfer_engine.callers import LOOPBACK, UNAUTHENTICATED, Caller, Grant, Role
from transfer_engine.config_service import AuthSettings
from transfer_engine.identity.api import BadCredential, Shown

LOCAL_DN: Final = "local"
LOCAL_ID: Final = hashlib.sha1(b"local", usedforsecurity=False).hexdigest()[:16]

FORWARDED: Final = frozenset({"forwarded", "x-forwarded-for", "x-real-ip", "x-forwarded-host"})
"""Headers that only a proxy adds: whoever is behind it is not on this machine."""

ANYBODY: Final = Caller(user_dn="anon", vos=(), delegation_id="", method=UNAUTHENTICATED)
"""Nobody known; the name is FTS3's."""


def is_loopback(host: str) -> bool:
    """Does this host name or address mean this machine only: 127.0.0.0/8, ::1 or `localhost`?"""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def local_caller(auth: AuthSettings) -> Caller | None:
    """Who somebody from this machine is; None: the settings do not believe it."""
    if auth.loopback == "refuse":
        return None
    role = Role(auth.loopback)
    vo = auth.loopback_vo if role in {Role.VO_MONITOR, Role.VO_OPERATOR} else None
    shared = frozenset({auth.loopback_vo} if {"*", auth.loopback_vo} & set(auth.shared_vos) else ())
    return Caller(
        user_dn=LOCAL_DN,
        vos=(auth.loopback_vo,),
        delegation_id=LOCAL_ID,
        method=LOOPBACK,
        grants=() if role is Role.USER else (Grant(role, vo),),
        shared_vos=shared,
    )


class LoopbackOnly:
    """An `Authenticator` for a service that only this machine reaches and that believes it."""

    def __init__(self, auth: AuthSettings) -> None:
        self._caller = local_caller(auth)

    async def identify(self, shown: Shown) -> Caller:
        """The local caller, or nobody. Raises: BadCredential: a credential is shown, and none is understood."""
        if shown.authorization is not None:
            raise BadCredential("this service takes no tokens")
        from_here = (shown.peer is None or is_loopback(shown.peer)) and not FORWARDED & shown.headers.keys()
        return self._caller if self._caller is not None and from_here else ANYBODY

    async def run(self) -> None:
        """Has nothing to do."""

    async def aclose(self) -> None:
        """Holds nothing."""
