"""What an attempt asks for, and what a token issuer is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from protocols.api import Credential
from protocols.credentials import Secret
from transfer_engine.model import Assignment

Waiting = Callable[[str], None]
"""Told the issuer that is waited for, when one is."""


def unnoticed(_issuer: str) -> None:
    """Nobody wants to know that an issuer is waited for."""


class Credentials(Protocol):
    """The credentials to show to the two storages of a transfer.

    Both are asked for again whenever they are needed: what was given before may have ended meanwhile.
    """

    async def source(self, order: Assignment, waiting: Waiting = unnoticed) -> Credential:
        """For the source. Raises: TransferError, of scope SOURCE and phase PREPARATION."""

    async def destination(self, order: Assignment, waiting: Waiting = unnoticed) -> Credential:
        """For the destination. Raises: TransferError, of scope DESTINATION and phase PREPARATION."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A token as it is asked for."""

    issuer: str
    audience: tuple[str, ...]
    scope: str
    """Words with blanks between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What an issuer has given."""

    access: Secret
    refresh: Secret | None
    """None: the one that was used stays good."""
    expires_at: float
    """Of the access token."""
    lifetime_s: float = field(default=0.0)
    """How long it lives from its beginning."""


class Away(Exception):
    """The issuer cannot be asked now. The message has no secret."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Refusal(Exception):
    """The issuer has answered that it does not give what was asked for; `code` is RFC 6749's. No secret is in it."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class Issuers(Protocol):
    """The token issuers at which this service is a client."""

    def serves(self, issuer: str) -> bool:
        """Is this service a client of that issuer? A `/` at its end makes no difference."""

    async def exchange(self, wanted: Wanted, subject: Secret) -> Granted:
        """Give a token, which still holds, for another one with a refresh token (RFC 8693). Raises: Away, Refusal."""

    async def refresh(self, wanted: Wanted, refresh: Secret) -> Granted:
        """A new access token (RFC 6749 §6). Raises: Away, Refusal."""
