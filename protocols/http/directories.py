"""Parents of files: made once, remembered for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from protocols.api import Credential, Timeouts
from protocols.errors import Denied, Missing, Phase, Refused, TransferError
from protocols.http.urls import parent
from protocols.http.webdav import Metadata

KNOWN_MAX: Final = 65_536
KNOWN_S: Final = 600.0
"""Somebody else may remove a directory: then a copy fails with ParentMissing, which forgets it, too."""
DEPTH_MAX: Final = 128
_PARENT_MISSING: Final = frozenset({404, 409})


@dataclass(slots=True)
class _Turn:
    """Who makes one directory at the moment, and who waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    n_users: int = 0


class Directories:
    """Makes directories top-down, only those that are missing, each by one caller at a time."""

    def __init__(self, *, metadata: Metadata, now: Callable[[], float]) -> None:
        self._metadata = metadata
        self._now = now
        self._known: OrderedDict[str, float] = OrderedDict()
        self._turns: dict[str, _Turn] = {}

    async def make_parents(self, url: URL, *, credential: Credential, timeouts: Timeouts) -> None:
        """See `Adapter.make_parents`; a thousand files in one directory cost one MKCOL."""
        above = parent(url)
        if above is not None:
            await self._make(above, credential, timeouts, DEPTH_MAX)

    def forget(self, url: URL) -> None:
        """A storage says that a directory above `url` is missing."""
        above = parent(url)
        while above is not None:
            self._known.pop(_key(above), None)
            above = parent(above)

    async def _make(self, url: URL, credential: Credential, timeouts: Timeouts, depth: int) -> None:
        key = _key(url)
        if self._is_known(key):
            return
        turn = self._turns.setdefault(key, _Turn())
        turn.n_users += 1
        try:
            async with turn.lock:
                if not self._is_known(key):
                    await self._make_now(url, credential, timeouts, depth)
                    self._remember(key)
        finally:
            turn.n_users -= 1
            if not turn.n_users:
                self._turns.pop(key, None)

    async def _make_now(self, url: URL, credential: Credential, timeouts: Timeouts, depth: int) -> None:
        try:
            status = await self._metadata.make_directory(url, credential=credential, timeouts=timeouts)
        except Denied as denied:
            await self._must_exist(url, credential, timeouts, denied)
            return
        if status == 405:  # noqa: PLR2004 - RFC 4918 §9.3.1: something is there already
            await self._must_exist(url, credential, timeouts, None)
        elif status in _PARENT_MISSING:
            above = parent(url)
            refused = Refused(f"MKCOL {url.with_query(None)}: HTTP {status}, though its parent exists")
            if above is None or not depth:
                raise refused.at(refused.scope, Phase.PREPARATION)
            await self._make(above, credential, timeouts, depth - 1)
            status = await self._metadata.make_directory(url, credential=credential, timeouts=timeouts)
            if status in _PARENT_MISSING:
                raise refused.at(refused.scope, Phase.PREPARATION)

    async def _must_exist(self, url: URL, credential: Credential, timeouts: Timeouts, denied: Denied | None) -> None:
        """After a refusal: fine when a directory is there; `denied` when nothing is, Refused for a file."""
        try:
            stat = await self._metadata.stat(url, credential=credential, digest=None, timeouts=timeouts)
        except Missing:
            if denied is not None:
                raise denied from None
            return
        except TransferError:
            if denied is not None:
                raise denied from None
            return
        if not stat.is_directory and denied is None and stat.size_bytes is not None:
            raise Refused(f"{url.with_query(None)}: is a file, not a directory", phase=Phase.PREPARATION)
        if denied is not None and not stat.is_directory:
            raise denied

    def _is_known(self, key: str) -> bool:
        at_s = self._known.get(key)
        return at_s is not None and self._now() - at_s < KNOWN_S

    def _remember(self, key: str) -> None:
        self._known[key] = self._now()
        self._known.move_to_end(key)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


def _key(url: URL) -> str:
    return f"{url.scheme}://{url.raw_authority}{url.raw_path}"
