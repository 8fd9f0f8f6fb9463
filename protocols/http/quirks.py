"""What is known of each server: its family, and what it turned out to do.

A family comes from the `Server` header; what an endpoint does is learned by doing and forgotten
after a day, because servers are upgraded.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from protocols.api import Capabilities

EXPIRY_S: Final = 24 * 3600.0
ENDPOINTS_MAX: Final = 4096
ANY: Final = "*"
"""Stands for every endpoint that is not named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How one kind of server differs."""

    name: str
    speaks_tpc: bool = False
    """It is known for HTTP-TPC: its refusals are about this copy, not about COPY as such."""
    copies_locally: bool = False
    """COPY with a `Destination` is RFC 4918's: on the same host name it copies inside the server (201, 204)."""
    deletes_trees: bool = True
    """DELETE of a directory removes everything below it (RFC 4918 §9.6.1)."""
    redirects_puts: bool = False
    """Where there is a head node, it sends PUT on to another server."""
    digest_may_hang: bool = False
    """HEAD with `Want-Digest` on a directory is never answered (XRootD 5.5.3, from the second time on)."""
    copies_once: bool = False
    """A connection that carried a COPY is not used again: what XRootD 5.5.3 leaves on it is not to be relied on."""
    digests_alone: bool = False
    """Over TLS a checksum is asked for on a connection of its own, which stays open for a moment after the answer.

    XRootD 5.5.3 sends that answer from another thread than the one that reads the connection. A next
    request, or the end of the connection, that comes at once meets the first thread still inside the
    TLS library: the server crashes or hangs after some hundred copies.
    """
    digests_max: int = 64
    """Checksums that it is asked for at a time."""
    put_500_is_parent: bool = False
    """PUT below a missing directory gives 500 instead of 409."""


UNKNOWN: Final = Family(name="unknown")

FAMILIES: Final[Mapping[str, Family]] = {
    # Prefix of the `Server` header in lower case → family. Observed: XRootD 5.5.3 and 6.2.1, nginx 1.22,
    # Apache 2.4, rclone 1.60 (which sends no header), wsgidav 4.4; the others by their sources.
    "xrootd": Family(
        name="xrootd",
        speaks_tpc=True,
        deletes_trees=False,
        redirects_puts=True,
        digest_may_hang=True,
        copies_once=True,
        digests_alone=True,
        # `xrootd.chksum max N` (2 by default) allows 3 N jobs; whoever comes beyond that is put off for 30 s.
        digests_max=6,
    ),
    "dcache": Family(name="dcache", speaks_tpc=True, deletes_trees=False, redirects_puts=True),
    "storm": Family(name="storm", speaks_tpc=True, deletes_trees=False),
    "eos": Family(name="eos", speaks_tpc=True, deletes_trees=False, redirects_puts=True),
    "nginx": Family(name="nginx", copies_locally=True, put_500_is_parent=True),
    "apache": Family(name="apache", copies_locally=True),
    "lighttpd": Family(name="lighttpd", copies_locally=True),
    "caddy": Family(name="caddy", copies_locally=True),
    "rclone": Family(name="rclone", copies_locally=True),
    "wsgidav": Family(name="wsgidav", copies_locally=True),
}


def family_of(server: str | None) -> Family:
    """The family that a `Server` header names."""
    name = (server or "").strip().lower()
    return next((family for prefix, family in FAMILIES.items() if name.startswith(prefix)), UNKNOWN)


@dataclass(slots=True, kw_only=True)
class Record:
    """What one endpoint turned out to do; None: not known."""

    learned_at_s: float
    """Loop time when the record was begun."""
    family: Family | None = None
    """None until the endpoint has answered anything."""
    digests: set[str] = field(default_factory=set)
    """Algorithms it has answered with."""
    propfind: bool | None = None
    pull: bool | None = None
    push: bool | None = None
    proved_tpc: bool = False
    """A COPY was answered with a marker or a result line."""
    put_redirects: bool | None = None
    """PUT is redirected to another server, which takes the body."""
    n_doubts: int = 0
    """COPYs that were refused as a server without TPC would, but also one with it might."""
    configured: bool = False
    gates: dict[int, asyncio.Semaphore] = field(default_factory=dict)
    """By size; see `digest_gate`."""

    @property
    def digest_gate(self) -> asyncio.Semaphore:
        """To be held while a checksum is asked for; as for XRootD until the endpoint's family is known."""
        n = (self.family or FAMILIES["xrootd"]).digests_max
        return self.gates.setdefault(n, asyncio.Semaphore(n))

    @property
    def speaks_tpc(self) -> bool:
        """Whether refusals of this endpoint are to be read as a TPC server's."""
        return self.proved_tpc or self.configured or (self.family is not None and self.family.speaks_tpc)


class Quirks:
    """Bounded memory of endpoints, least recently used out first."""

    def __init__(self, *, now: Callable[[], float], configured: Mapping[str, Capabilities]) -> None:
        """`configured` never expires; it is by `scheme://host:port`, or `scheme://host` for every port of it."""
        self._now = now
        self._configured = dict(configured)
        self._records: OrderedDict[str, Record] = OrderedDict()

    def of(self, endpoint: str) -> Record:
        """The record of an endpoint; a new one when there is none or it is too old."""
        now = self._now()
        record = self._records.get(endpoint)
        if record is None or now - record.learned_at_s > EXPIRY_S:
            record = Record(learned_at_s=now)
            if (told := self._told(endpoint)) is not None:
                record.pull, record.push = told.pull, told.push
                record.configured = bool(told.pull or told.push)
            self._records[endpoint] = record
            if len(self._records) > ENDPOINTS_MAX:
                self._records.popitem(last=False)
        self._records.move_to_end(endpoint)
        return record

    def _told(self, endpoint: str) -> Capabilities | None:
        told = self._configured
        return told.get(endpoint) or told.get(endpoint.rpartition(":")[0]) or told.get(ANY)

    def configure(self, configured: Mapping[str, Capabilities]) -> None:
        """Other capabilities are known from now on; where that changes nothing, what was learned stays."""
        before = {endpoint: self._told(endpoint) for endpoint in self._records}
        self._configured = dict(configured)
        for endpoint, record in self._records.items():
            told = self._told(endpoint)
            if told != before[endpoint]:
                record.pull, record.push = (None, None) if told is None else (told.pull, told.push)
                record.configured = told is not None and bool(told.pull or told.push)

    def capabilities(self, endpoint: str) -> Capabilities:
        """What is known of the endpoint as the active party."""
        record = self._records.get(endpoint)
        if record is None:
            return self._told(endpoint) or Capabilities()
        local = record.family is not None and record.family.copies_locally
        push = False if record.push is None and local and not record.proved_tpc else record.push
        return Capabilities(pull=record.pull, push=push, digests=frozenset(record.digests))
