"""Tokens of submissions against their issuers' keys: a forged one is refused before anything is done with it.

An issuer that cannot be asked loses nobody a job: the token is taken, and the storages will look at it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

from transfer_engine.callers import TOKEN
from transfer_engine.config_service import Issuer
from transfer_engine.errors import IssuerUnavailable
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.jwt import Unverified, take_apart
from transfer_engine.model import JobRequest
from transfer_engine.service.wire.tokens import LENT, TokenRules
from transfer_engine.service.wire.words import value_error

log = logging.getLogger(__name__)

_LENT: Final[Mapping[str, frozenset[str]]] = {"nobody": frozenset(), "local": LENT, "all": LENT | {TOKEN}}
BREATH: Final = 50
"""Signatures between two turns of the others: some milliseconds."""


class Signatures(Protocol):
    """Who knows the keys of the issuers; `identity.oidc.Tokens` does."""

    async def check_signature(self, token: Unverified) -> None:
        """Raises: BadCredential: its issuer has not signed it. IssuerUnavailable: nobody can say now."""


class StorageTokens:
    """Says which tokens of submissions are taken."""

    def __init__(
        self,
        issuers: Sequence[Issuer] = (),
        signatures: Signatures | None = None,
        *,
        lent: Literal["nobody", "local", "all"] = "local",
    ) -> None:
        """Args:
        issuers: whose tokens are taken.
        signatures: None: nobody knows their keys; storages will look.
        lent: see `AuthSettings.service_credential`.
        """
        self._issuers = tuple(issuers)
        self._signatures = signatures
        self._lent = _LENT[lent]

    def rules(self, now: float) -> TokenRules:
        """What is looked at in a document."""
        return TokenRules(self._issuers, now, self._lent)

    async def verify(self, request: JobRequest) -> None:
        """Look at the signatures of all tokens. Raises: Refused."""
        if self._signatures is None:
            return
        places = {
            token: f"files[{index}]"
            for index, transfer in enumerate(request.transfers)
            for token in (*transfer.source_tokens, transfer.destination_token)
            if token is not None
        }
        away: set[str] = set()
        for n, (secret, place) in enumerate(places.items(), 1):
            token = take_apart(secret.reveal())
            if token.issuer in away:
                continue
            try:
                await self._signatures.check_signature(token)
            except BadCredential as refused:
                raise value_error(f"{place}: a token is not good: {refused.why}", field=place) from None
            except IssuerUnavailable as unavailable:
                away.add(token.issuer or "")
                log.warning("tokens taken unverified", extra={"why": str(unavailable)})
            if not n % BREATH:
                await asyncio.sleep(0)
