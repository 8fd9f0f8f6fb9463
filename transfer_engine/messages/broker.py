"""What the publisher asks of a broker: to be reached, and to confirm what it was sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from transfer_engine.config_service import Broker
from transfer_engine.messages.letters import Letter


class BrokerAway(Exception):
    """The broker cannot be reached, refuses, or did not confirm in time; the text holds no secret."""


class Courier(Protocol):
    """A connection to one broker at a time. A cancelled call leaves it closed, or to be closed."""

    async def connect(self, broker: Broker) -> None:
        """Log in to a broker. Raises: BrokerAway."""

    async def send(self, letters: Sequence[Letter], expires_ms: int) -> None:
        """Send in order; returns when the broker has confirmed every one.

        Args: expires_ms: when the broker may forget them, milliseconds since the epoch.

        Raises: BrokerAway: some may have arrived, nobody knows which.
        """

    def check(self) -> None:
        """Raises: BrokerAway: the connection has ended meanwhile."""

    async def close(self) -> None:
        """End the connection, if there is one; never fails and never takes long."""
