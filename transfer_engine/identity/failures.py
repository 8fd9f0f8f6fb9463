"""Refused credentials, counted per address: who guesses or is broken waits, and the others do not notice."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from transfer_engine.identity.api import TooMany

WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 10_000
"""Addresses that are remembered; the one longest without a refusal is forgotten first."""
GOOD_MAX: Final = 4096
"""Credentials that are remembered as good."""
_IPV6_NET: Final = 64
"""One host can have all addresses of such a network."""


@dataclass(slots=True)
class _Count:
    since: float
    n: int = 0


def place_of(peer: str | None) -> str:
    """What is counted together: an IPv4 address, a network of IPv6 addresses, this machine's sockets."""
    if peer is None:
        return "local"
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_NET), strict=False))
    return str(address)


class Failures:
    """Counts refusals in windows of a minute. Memory is bounded, whoever asks."""

    def __init__(self, per_min: int) -> None:
        self._per_min = per_min
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def check(self, place: str, shown: str | bytes, now: float) -> None:
        """Raises: TooMany: this place has shown too many bad credentials, and this is not one known to be good.

        Whoever shares an address with a broken client must not be locked out with it.
        """
        count = self._counts.get(place)
        if count is None or count.n < self._per_min or self._is_over(count, now):
            return
        if _digest(shown) not in self._good:
            raise TooMany(
                "Too many refused credentials from this address", retry_after_s=max(1.0, count.since + WINDOW_S - now)
            )

    def refused(self, place: str, now: float) -> None:
        """A credential was refused."""
        count = self._counts.get(place)
        if count is None or self._is_over(count, now):
            count = self._counts[place] = _Count(now)
        count.n += 1
        self._counts.move_to_end(place)
        if len(self._counts) > ADDRESSES_MAX:
            self._counts.popitem(last=False)

    def accepted(self, shown: str | bytes) -> None:
        """A credential was believed; remembered by its digest."""
        name = _digest(shown)
        self._good[name] = None
        self._good.move_to_end(name)
        if len(self._good) > GOOD_MAX:
            self._good.popitem(last=False)

    @staticmethod
    def _is_over(count: _Count, now: float) -> bool:
        return not 0 <= now - count.since < WINDOW_S


def _digest(shown: str | bytes) -> bytes:
    return hashlib.sha256(shown if isinstance(shown, bytes) else shown.encode("utf-8", "surrogatepass")).digest()
