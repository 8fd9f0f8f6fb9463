"""Credentials that do not depend on whose transfer it is: the engine's own, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocols.api import ANONYMOUS, Credential
from transfer_engine.credentials.api import Waiting, unnoticed
from transfer_engine.model import Assignment


class OneForAll:
    """Shows a storage the engine's own credential, whoever submitted the transfer."""

    def __init__(self, credential: Callable[[str], Credential]) -> None:
        """Args: credential: the one for the storage of a URL."""
        self._credential = credential

    async def source(self, order: Assignment, waiting: Waiting = unnoticed) -> Credential:
        """See `Credentials.source`."""
        del waiting
        return self._credential(order.source_url)

    async def destination(self, order: Assignment, waiting: Waiting = unnoticed) -> Credential:
        """See `Credentials.destination`."""
        del waiting
        return self._credential(order.dest_url)


anonymous: Final = OneForAll(lambda _url: ANONYMOUS)
"""No credential for anybody."""
