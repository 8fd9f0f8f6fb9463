"""What the tests against real storages share: bytes, waits, requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from protocols.api import ANONYMOUS, CopyRequest, Credential, Mode, Timeouts
from protocols.credentials import Secret
from tests.storages import Storage

DATA = bytes(range(256)) * 1000
SMALL = DATA[:10_000]
"""Short enough to be sent at once: before more, the adapter waits for a redirect from a server new to it."""
BRIEF = Timeouts(
    connect_s=5.0, request_s=5.0, digest_s=10.0, first_response_s=10.0, silence_s=10.0, stall_s=10.0, total_s=20.0
)
READ, WRITE = "storage.read:/", "storage.read:/ storage.modify:/"


def credential(storage: Storage, scope: str = WRITE) -> Credential:
    """What the storage wants to see: a token, or nothing."""
    return Credential(token=Secret(storage.token(scope))) if storage.needs_token else ANONYMOUS


def ignore(_marker: object) -> None:
    """No marker matters here."""


async def blocks(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """`data` in pieces, as a caller of `write` hands it over."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def request(source: Storage, destination: Storage, name: str, mode: Mode, **more: Any) -> CopyRequest:
    """A copy of one file of the same name."""
    return CopyRequest(
        source_url=f"{source.url}/{name}",
        destination_url=f"{destination.url}/{name}",
        mode=mode,
        source_credential=credential(source, READ),
        destination_credential=credential(destination),
        timeouts=BRIEF,
        **more,
    )
