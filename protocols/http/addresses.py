"""Which IP addresses may be connected to.

Whoever may submit a copy names two hosts, and has this machine connect to them. What answers only to this machine or to
its network (its own services, the metadata service of a cloud, with keys in it) must not be reached on the way. Names
are no use for that: a name resolves to anything, and anything redirects. So each address is looked at when its socket
is made.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable, Collection
from typing import Final

from yarl import URL

from protocols.errors import Phase, Refused, Scope, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
AddressPolicy = Callable[[Address], bool]
"""Says whether we may connect there; asked for each socket, so that no name or redirect gets around it."""

_SPECIAL: Final = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("168.63.129.16/32"))
"""Services of clouds at addresses that Python takes for anybody's; those of the others are private or link-local."""
WHERE: Final = "storages are looked for at public addresses and in the networks of transfer.storage_networks only"
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class AddressForbidden(PermissionError):
    """The address policy forbids a connection. The message names no address: all of a host read alike."""

    def __init__(self) -> None:
        super().__init__(1, "the address policy forbids connections to this address")


def parsed(text: str) -> Address:
    """The address in a socket's own form, which may name an interface."""
    return embedded(ipaddress.ip_address(text.partition("%")[0]))


async def check_party(url: URL, allowed: AddressPolicy, scope: Scope) -> None:
    """May another storage be told to connect there? It would reach in its network what we would not in ours.

    Raises: Refused. Unavailable: the name does not resolve here, and what it means elsewhere is not known.
    """
    host = url.raw_host or ""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failure:
        message = f"{host}: {getattr(failure, 'strerror', None) or 'not a host name'}"
        raise Unavailable(message, scope=scope, phase=Phase.PREPARATION, errno=errno.EHOSTUNREACH) from None
    if not all(allowed(parsed(str(address[0]))) for *_, address in found):
        raise Refused(
            f"{host}: the address policy forbids connections to this address",
            scope=scope,
            phase=Phase.PREPARATION,
            errno=errno.EPERM,
            hint=WHERE,
        )


def embedded(address: Address) -> Address:
    """The IPv4 address that packets to an IPv6 address end at (mapped, 6to4, NAT64, Teredo), else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


class PublicOnly:
    """An `AddressPolicy`: addresses of the whole internet, and networks that are named."""

    def __init__(self, networks: Collection[Network] = ()) -> None:
        """Args: networks: allowed whatever they are: where a site's own storages are."""
        self._networks = tuple(networks)

    def __call__(self, address: Address) -> bool:
        """May we connect there?"""
        real = embedded(address)
        if any(real in network for network in self._networks):
            return True
        strange = real.is_multicast or real.is_reserved or getattr(real, "is_site_local", False)
        return real.is_global and not strange and not any(real in network for network in _SPECIAL)
