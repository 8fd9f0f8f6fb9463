"""Tokens of one principal, issuer, audience and scope, renewed by one request at a time for all who need them.

A token with `offline_access` is given for one with a refresh token once, while it holds (RFC 8693); from
then on the refresh token brings access tokens. Principal is who submitted the token together with whom it is
of: what was got for one is never shown for another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from protocols.credentials import Secret
from transfer_engine.credentials.api import Away, Granted, Issuers, Refusal, Wanted
from transfer_engine.credentials.claims import OFFLINE

log = logging.getLogger(__name__)

FLIGHT_S: Final = 60.0
"""How long an issuer that is away is asked again before those who wait are told so."""
PAUSE_S: Final = 1.0
"""Before it is asked again; doubles each time."""
PAUSE_MAX_S: Final = 15.0
REFUSED_S: Final = 60.0
"""How long a refusal is believed before the issuer is asked again."""
ENDED: Final = "ended"
"""Code of a refusal that no issuer gave: there is nothing left that could be exchanged."""
_REVOKED: Final = frozenset({"invalid_grant", "invalid_token", "invalid_scope"})
"""Answers to a refresh token after which a token that still holds is worth another exchange."""


@dataclass(frozen=True, slots=True)
class Key:
    """Whose tokens are interchangeable."""

    cred_id: str
    issuer: str
    subject: str
    """Of the token; for one that names none, the token's own id."""
    audience: tuple[str, ...]
    scope: tuple[str, ...]
    """What storages understand, in order."""


@dataclass(frozen=True, slots=True)
class Access:
    """An access token and its life."""

    token: Secret
    expires_at: float
    lifetime_s: float

    def left_s(self, now: float) -> float:
        """How long it holds."""
        return self.expires_at - now

    def lasts(self, needed_s: float, now: float) -> bool:
        """Does it hold that long? More than half of its whole life is not asked of it: a new one brings no more."""
        return self.left_s(now) > max(min(needed_s, self.lifetime_s / 2), 0.0)


Ended = Away | Refusal | None
"""How a renewal ended: None: well."""


class Renewal:
    """What has been got for one key, and the requests for more."""

    def __init__(
        self,
        key: Key,
        issuers: Issuers,
        *,
        now: Callable[[], float],
        keep: Callable[[Renewal], Awaitable[None]],
        turns: asyncio.Semaphore | None = None,
    ) -> None:
        """Args:
        keep: writes down what has changed; never raises.
        turns: bounds the requests for one owner at a time, so that nobody keeps the others from an issuer.
        """
        self._turns = turns or asyncio.Semaphore(1)
        self.key = key
        self._issuers = issuers
        self._now = now
        self._keep = keep
        self.refresh: Secret | None = None
        self.members: dict[str, Access] = {}
        """Tokens as they were submitted, or stored since, by id."""
        self.unsaved: set[str] = set()
        """Members whose stored form does not have the refresh token that is there now."""
        self._got: dict[tuple[str, ...], Access] = {}
        self._one_at_a_time = asyncio.Lock()
        self._flights: dict[tuple[str, ...], asyncio.Task[Ended]] = {}
        self._refused: dict[tuple[str, ...], tuple[float, Refusal]] = {}

    def join(self, token_id: str, access: Access, refresh: Secret | None) -> None:
        """A token with this key is used, or about to be."""
        self.members[token_id] = access
        self._refused.clear()
        if self.refresh is None:
            self.refresh = refresh
        elif refresh != self.refresh:
            self.unsaved.add(token_id)

    def leave(self, token_id: str) -> None:
        """A token is not used any more."""
        self.members.pop(token_id, None)
        self.unsaved.discard(token_id)

    def got(self, scope: tuple[str, ...]) -> Access | None:
        """The access token that was obtained for these scopes last."""
        return self._got.get(scope)

    def best(self) -> Access | None:
        """The longest living token with the whole scope: what is worth storing, and what can be exchanged."""
        known = [*self.members.values(), *filter(None, [self._got.get(self.key.scope)])]
        return max(known, key=lambda access: access.expires_at, default=None)

    def refused(self, scope: tuple[str, ...]) -> Refusal | None:
        """A refusal that is too young to ask again."""
        at, refusal = self._refused.get(scope, (0.0, None))
        return refusal if refusal is not None and self._now() - at < REFUSED_S else None

    def renew(self, scope: tuple[str, ...]) -> asyncio.Task[Ended]:
        """Get a new access token with these scopes; whoever asks meanwhile gets the same. It never raises.

        Cancel: of whoever waits for it; the task goes on for the others.
        """
        task = self._flights.get(scope)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._flight(scope), name=f"token from {self.key.issuer}")
            self._flights[scope] = task
            task.add_done_callback(lambda _: self._flights.pop(scope, None))
        return task

    def tasks(self) -> list[asyncio.Task[Ended]]:
        """The requests that are under way."""
        return list(self._flights.values())

    async def _flight(self, scope: tuple[str, ...]) -> Ended:
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + FLIGHT_S, PAUSE_S
        try:
            async with self._one_at_a_time:
                while True:
                    try:
                        async with self._turns:
                            await self._ask(scope)
                    except Away as away:
                        wait = max(pause, away.retry_after_s or 0.0)
                        if loop.time() + wait > give_up:
                            return away
                        await asyncio.sleep(wait)
                        pause = min(pause * 2, PAUSE_MAX_S)
                    else:
                        return None
        except Refusal as refusal:
            self._refused[scope] = self._now(), refusal
            return refusal
        except Exception as error:
            # Task boundary: those who wait must hear of it, or they would wait for ever.
            log.exception("token not renewed", extra={"issuer": self.key.issuer})
            return Away(f"the request failed ({type(error).__name__})")

    async def _ask(self, scope: tuple[str, ...]) -> None:
        if self.refresh is None or not await self._refreshed(scope):
            await self._exchange()
            if scope != self.key.scope and self.refresh is not None:
                await self._refreshed(scope)
            elif scope != self.key.scope:
                self._got[scope] = self._got[self.key.scope]

    async def _refreshed(self, scope: tuple[str, ...]) -> bool:
        """Use the refresh token; False: it is worth nothing any more, and something can be exchanged again."""
        assert self.refresh is not None
        used = self.refresh
        try:
            granted = await self._issuers.refresh(self._wanted(scope), used)
        except Refusal as refusal:
            best = self.best()
            if refusal.code in _REVOKED and best is not None and best.left_s(self._now()) > 0:
                self.refresh = None
                return False
            raise
        await self._take(scope, granted)
        return True

    async def _exchange(self) -> None:
        subject = self.best()
        if subject is None or subject.left_s(self._now()) <= 0:
            raise Refusal(ENDED, "the token ended before it could be exchanged")
        wanted = self._wanted((*self.key.scope, OFFLINE))
        await self._take(self.key.scope, await self._issuers.exchange(wanted, subject.token))

    async def _take(self, scope: tuple[str, ...], granted: Granted) -> None:
        self._got[scope] = Access(granted.access, granted.expires_at, granted.lifetime_s)
        if granted.refresh is not None and granted.refresh != self.refresh:
            self.refresh = granted.refresh
            self.unsaved.update(self.members)
            # Before anybody uses what came with it: the earlier refresh token may be void from now on.
            await self._keep(self)

    def _wanted(self, scope: tuple[str, ...]) -> Wanted:
        return Wanted(issuer=self.key.issuer, audience=self.key.audience, scope=" ".join(scope))
