"""The kinds of servers and how each is configured.

Every kind runs as one process without workers, so that ending that process ends all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.storages import apache, nginx, rclone, xrootd
from tests.storages.bench import Bench
from tests.storages.storage import Storage


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of server program."""

    names: tuple[str, ...]
    """Storages that it brings."""
    packages: str
    """Debian's, separated by blanks."""
    check: Callable[[], None]
    """Raises CannotRun when it is not installed."""
    start: Callable[[Bench, str], Storage]
    """Starts the named storage; raises ServerFailed."""


KINDS: dict[str, Kind] = {
    "xrootd": Kind(("xrootd-a", "xrootd-b"), xrootd.PACKAGES, xrootd.check, xrootd.start),
    "xrootd-token": Kind(
        ("xrootd-token-a", "xrootd-token-b"), xrootd.TOKEN_PACKAGES, xrootd.check_token, xrootd.start_token
    ),
    "xrootd-x509": Kind(
        ("xrootd-x509-a", "xrootd-x509-b"), xrootd.PACKAGES, xrootd.check_certificate, xrootd.start_certificate
    ),
    "nginx": Kind(("nginx",), nginx.PACKAGES, nginx.check, nginx.start),
    "apache": Kind(("apache",), apache.PACKAGES, apache.check, apache.start),
    "rclone": Kind(("rclone",), rclone.PACKAGES, rclone.check, rclone.start),
}


def kind_of(name: str) -> str:
    """The kind that brings a storage; KeyError names those that exist."""
    for kind, entry in KINDS.items():
        if name in entry.names:
            return kind
    known = ", ".join(n for entry in KINDS.values() for n in entry.names)
    raise KeyError(f"no storage {name!r}, expected one of {known}")
