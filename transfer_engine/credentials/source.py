"""Which credential a storage is shown for a transfer.

1. The transfer's own token for that side.
2. The proxy that its user has delegated, for a job that was submitted with a certificate.
3. The engine's own, for jobs whose users have none to give and may use it: never in place of one that is missing.
4. None.
"""

from __future__ import annotations

from protocols.api import ANONYMOUS, Credential
from protocols.errors import Phase, Scope, TransferError
from transfer_engine.credentials.api import Credentials, Waiting, unnoticed
from transfer_engine.credentials.keeper import TokenKeeper
from transfer_engine.credentials.proxies import Proxies
from transfer_engine.model import Assignment


class UserCredentials:
    """`Credentials` of a service for many users."""

    def __init__(self, *, own: Credentials, tokens: TokenKeeper, proxies: Proxies) -> None:
        """Args: own: the engine's own credentials."""
        self._own = own
        self._tokens = tokens
        self._proxies = proxies

    async def source(self, order: Assignment, waiting: Waiting = unnoticed) -> Credential:
        """See `Credentials.source`."""
        if order.src_token_id is None and not order.options.own_credential:
            return ANONYMOUS if order.options.no_credential else await self._own.source(order, waiting)
        return await self._users(order, order.src_token_id, Scope.SOURCE, waiting)

    async def destination(self, order: Assignment, waiting: Waiting = unnoticed) -> Credential:
        """See `Credentials.destination`."""
        if order.dst_token_id is None and not order.options.own_credential:
            return ANONYMOUS if order.options.no_credential else await self._own.destination(order, waiting)
        return await self._users(order, order.dst_token_id, Scope.DESTINATION, waiting)

    async def _users(self, order: Assignment, token_id: str | None, side: Scope, waiting: Waiting) -> Credential:
        try:
            if token_id is None:
                return await self._proxies.proxy(order.cred_id)
            return Credential(token=await self._tokens.token(order, token_id, side, waiting))
        except TransferError as error:
            raise error.at(side, Phase.PREPARATION) from None
