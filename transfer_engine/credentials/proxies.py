"""Delegated proxies: opened for an attempt, and looked up again so that a newer one is soon used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from protocols.credentials import Credential, Secret
from transfer_engine.credentials.errors import IssuerAway, ProxyEnded, SecretLost
from transfer_engine.errors import EngineError, StoreUnavailable
from transfer_engine.sealed import Delegated
from transfer_engine.store.api import Store
from transfer_engine.vault import Vault, about

FRESH_S: Final = 30.0
"""How long a proxy is used without asking whether there is a newer one."""
LOADED_MAX: Final = 2_000
LAST_S: Final = 20.0
"""With less than this left a proxy is not worth starting with."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    stored: Delegated
    credential: Credential
    at: float


class Proxies:
    """The delegated proxies of the users."""

    def __init__(self, *, store: Store, vault: Callable[[], Vault], now: Callable[[], float]) -> None:
        """Args: vault: the one that they were sealed with."""
        self._store = store
        self._make_vault = vault
        self._now = now
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()

    async def proxy(self, delegation_id: str) -> Credential:
        """The proxy that was delegated under this id. Raises: ProxyEnded, SecretLost, IssuerAway."""
        now = self._now()
        found = self._loaded.get(delegation_id)
        if found is None or not 0 <= now - found.at < FRESH_S:
            found = await self._read(delegation_id, found, now)
        self._loaded.move_to_end(delegation_id)
        left_s = found.stored.expires_at - now
        if left_s <= LAST_S:
            at = datetime.fromtimestamp(found.stored.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            said = f"ended at {at}" if left_s <= 0 else f"ends in {left_s:.0f} s"
            raise ProxyEnded(f"the delegated proxy of {found.stored.user_dn} {said}")
        return found.credential

    async def _read(self, delegation_id: str, known: _Loaded | None, now: float) -> _Loaded:
        try:
            stored = await self._store.credential(delegation_id)
        except StoreUnavailable as error:
            if known is not None:
                return known
            raise IssuerAway(f"the database cannot be asked for the proxy: {error}") from None
        if stored is None:
            self._loaded.pop(delegation_id, None)
            raise ProxyEnded("the user of this transfer has no delegated proxy here any more")
        if known is not None and stored == known.stored:
            # The same object as before: connections that were made with it are used again.
            found = _Loaded(stored, known.credential, now)
        else:
            found = _Loaded(stored, Credential(pem=self._opened(stored)), now)
        self._loaded[delegation_id] = found
        while len(self._loaded) > LOADED_MAX:
            self._loaded.popitem(last=False)
        return found

    def _opened(self, stored: Delegated) -> Secret:
        try:
            return Secret(self._make_vault().open(stored.sealed, about_proxy(stored.delegation_id)).decode("ascii"))
        except (EngineError, UnicodeDecodeError) as error:
            raise SecretLost(str(error), hint="delegate again") from None


def about_proxy(delegation_id: str) -> str:
    """What a sealed proxy is about."""
    return about("credential", delegation_id)
