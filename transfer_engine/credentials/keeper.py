"""The tokens of transfers: sealed with their job, opened for an attempt, renewed before they end.

Nothing is asked of an issuer while the token that was submitted lasts. One that would end while its
transfers still wait is given for a refresh token shortly before: afterwards it could not be.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from weakref import WeakValueDictionary

from protocols.credentials import Secret
from protocols.errors import Phase, Scope, TransferError
from transfer_engine.credentials import claims as reading
from transfer_engine.credentials.api import Issuers, Refusal, Waiting
from transfer_engine.credentials.errors import ClientRefused, IssuerAway, SecretLost, TokenEnded, TokenRefused
from transfer_engine.credentials.renewal import ENDED, Access, Key, Renewal
from transfer_engine.errors import EngineError, StoreUnavailable
from transfer_engine.model import Assignment, JobRequest, PlannedJob
from transfer_engine.sealed import StoredToken
from transfer_engine.store.api import Store
from transfer_engine.submission import token_id
from transfer_engine.vault import Vault, VaultError, about

log = logging.getLogger(__name__)

LOADED_MAX: Final = 10_000
"""Tokens in memory; more of them are read again when they are needed."""
OPAQUE_S: Final = 30 * 86400.0
"""How long a token that does not say when it ends is kept after its submission."""
RENEW_EVERY_S: Final = 30.0
RENEW_MAX: Final = 500
"""Tokens looked at with one question to the store."""
PAGES_MAX: Final = 20
OWNERS_TURNS: Final = 4
"""Requests for one owner at a time."""
LEAD: Final = 2.0
"""How many margins before its end a token that is still needed is exchanged."""
LAST_S: Final = 20.0
"""With less than this left a token is not worth starting with."""
BYTES_S: Final = 10e6
"""Speed at which a copy is expected to run, for how long its tokens must hold."""
_OF_CLIENT: Final = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_request"})


@dataclass(slots=True)
class _Loaded:
    """A token that is in memory."""

    stored: StoredToken
    access: Access = field(repr=False)
    opaque: bool
    renewal: Renewal | None
    """None: it is used as it is."""


class TokenKeeper:
    """Keeps the tokens of one engine's transfers. It is a duty of the dispatcher."""

    def __init__(
        self, *, store: Store, vault: Callable[[], Vault], issuers: Issuers, now: Callable[[], float], margin_s: float
    ) -> None:
        """Args:
        vault: made when the first token comes.
        margin_s: how long a token must hold beyond the expected length of a copy.
        """
        self._store = store
        self._make_vault = vault
        self._vault: Vault | None = None
        self._issuers = issuers
        self._now = now
        self._margin_s = margin_s
        self._loaded: OrderedDict[tuple[str, str], _Loaded] = OrderedDict()
        self._renewals: WeakValueDictionary[Key, Renewal] = WeakValueDictionary()
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._next_at: float | None = None
        self._loading = asyncio.Lock()

    # With a submission

    def seal(self, request: JobRequest, job: PlannedJob) -> PlannedJob:
        """The job with the tokens that its files name. Raises: Invalid: the vault's key is not as it should be."""
        given = {
            token: None
            for transfer in request.transfers
            if transfer.source_tokens or transfer.destination_token
            for token in (*transfer.source_tokens, transfer.destination_token)
            if token is not None
        }
        if not given:
            return job
        stored = tuple(
            self._stored(token, job.cred_id, job.submitted_at, unmanaged=request.unmanaged_tokens) for token in given
        )
        if any(token.managed for token in stored) and self._next_at is None:
            self._next_at = job.submitted_at
        return replace(job, tokens=stored)

    def _stored(self, token: Secret, cred_id: str, now: float, *, unmanaged: bool) -> StoredToken:
        name, claims = token_id(token), reading.read(token)
        sealed = self._open_vault().seal(_dumped(token, None), _about(name, cred_id))
        if claims is None:
            return StoredToken(
                token_id=name,
                cred_id=cred_id,
                issuer="",
                audience="",
                scope="",
                expires_at=now + OPAQUE_S,
                managed=False,
                since=now,
                sealed=sealed,
            )
        return StoredToken(
            token_id=name,
            cred_id=cred_id,
            issuer=claims.issuer,
            audience=_told(claims.audience),
            scope=" ".join(claims.scope),
            expires_at=claims.expires_at,
            managed=not unmanaged and reading.OFFLINE in claims.scope and self._issuers.serves(claims.issuer),
            since=now,
            sealed=sealed,
        )

    # For an attempt

    async def token(self, order: Assignment, name: str, side: Scope, waiting: Waiting) -> Secret:
        """The transfer's token for one side, good for its expected length.

        Args:   name: its id.
        Raises: TokenEnded, TokenRefused, IssuerAway, SecretLost, StoreUnavailable's kin as IssuerAway.
        """
        loaded = await self._load(name, order.cred_id)
        now = self._now()
        if loaded.renewal is None:
            if not loaded.opaque and loaded.access.expires_at <= now:
                raise TokenEnded(_ended(loaded.access, now))
            return loaded.access.token
        needed_s = self._margin_s + (order.size_bytes or 0) / BYTES_S
        scope = reading.for_side(loaded.renewal.key.scope, side)
        best = _best(loaded, scope)
        if best.lasts(needed_s, now):
            return best.token
        return (await self._renewed(loaded, scope, best, waiting)).token

    async def _renewed(self, loaded: _Loaded, scope: tuple[str, ...], best: Access, waiting: Waiting) -> Access:
        renewal, left_s = loaded.renewal, best.left_s(self._now())
        assert renewal is not None
        problem: Exception | None = renewal.refused(scope)
        if problem is None:
            flight = renewal.renew(scope)
            waiting(renewal.key.issuer)
            try:
                # What still holds for a while is used rather than waited away.
                await asyncio.wait({flight}, timeout=left_s / 2 if left_s > LAST_S else None)
            finally:
                waiting("")
            problem = flight.result() if flight.done() else None
        best = _best(loaded, scope)
        if best.left_s(self._now()) > (0.0 if problem is None else LAST_S):
            return best
        raise _error(renewal.key.issuer, problem, best, self._now())

    async def _load(self, name: str, cred_id: str) -> _Loaded:
        key = name, cred_id
        if key not in self._loaded:
            async with self._loading:
                if key not in self._loaded:
                    await self._read(name, cred_id)
        self._loaded.move_to_end(key)
        return self._loaded[key]

    async def _read(self, name: str, cred_id: str) -> None:
        try:
            stored = await self._store.token(name, cred_id)
        except StoreUnavailable as error:
            raise IssuerAway(f"the database cannot be asked for the token: {error}") from None
        if stored is None:
            raise SecretLost("the transfer's token is not in the database any more", hint="submit again")
        try:
            self._take_in(stored)
        except EngineError as error:
            raise SecretLost(str(error)) from None

    def _take_in(self, stored: StoredToken) -> _Loaded:
        """Raises: VaultError. Invalid: the vault cannot be made."""
        key = stored.token_id, stored.cred_id
        access, refresh = self._opened(stored)
        claims = reading.read(access)
        lifetime_s = stored.expires_at - ((claims.begins_at if claims else 0.0) or stored.since)
        loaded = _Loaded(
            stored=stored,
            access=Access(access, claims.expires_at if claims else stored.expires_at, max(lifetime_s, 1.0)),
            opaque=not stored.issuer,
            renewal=self._renewal(stored, claims) if stored.managed else None,
        )
        if loaded.renewal is not None:
            loaded.renewal.join(stored.token_id, loaded.access, refresh)
        self._loaded[key] = loaded
        while len(self._loaded) > LOADED_MAX:
            _, gone = self._loaded.popitem(last=False)
            if gone.renewal is not None:
                gone.renewal.leave(gone.stored.token_id)
        return loaded

    def _renewal(self, stored: StoredToken, claims: reading.Claims | None) -> Renewal | None:
        if not self._issuers.serves(stored.issuer):
            return None
        key = Key(
            cred_id=stored.cred_id,
            issuer=stored.issuer.removesuffix("/"),
            subject=(claims.subject if claims else "") or f"token {stored.token_id}",
            audience=_audience(stored.audience),
            scope=tuple(sorted(set(reading.for_storages(tuple(stored.scope.split()))))),
        )
        found = self._renewals.get(key)
        if found is None:
            turns = self._turns.get(key.cred_id)
            if turns is None:
                turns = self._turns[key.cred_id] = asyncio.Semaphore(OWNERS_TURNS)
            found = self._renewals[key] = Renewal(key, self._issuers, now=self._now, keep=self._save, turns=turns)
        return found

    # At rest

    def _open_vault(self) -> Vault:
        if self._vault is None:
            self._vault = self._make_vault()
        return self._vault

    def _opened(self, stored: StoredToken) -> tuple[Secret, Secret | None]:
        plain = self._open_vault().open(stored.sealed, _about(stored.token_id, stored.cred_id))
        try:
            found = json.loads(plain)
            access, refresh = found["access"], found.get("refresh")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise VaultError("a stored token is damaged") from None
        return Secret(access), Secret(refresh) if refresh else None

    async def _save(self, renewal: Renewal) -> None:
        """Write down the refresh token for all members that do not have it; tried again later if it cannot be."""
        best, refresh = renewal.best(), renewal.refresh
        if best is None or refresh is None:
            return
        changed = []
        for name in sorted(renewal.unsaved):
            loaded = self._loaded.get((name, renewal.key.cred_id))
            if loaded is not None:
                sealed = self._open_vault().seal(_dumped(best.token, refresh), _about(name, renewal.key.cred_id))
                stored = replace(loaded.stored, expires_at=best.expires_at, renewable=True, sealed=sealed)
                changed.append((loaded, stored))
        try:
            await self._store.put_tokens([stored for _, stored in changed], renew=True)
        except EngineError as error:
            log.warning("renewed token not kept yet", extra={"issuer": renewal.key.issuer, "why": str(error)})
            self._next_at = min(self._next_at or self._now(), self._now() + RENEW_EVERY_S)
            return
        for loaded, stored in changed:
            loaded.stored = stored
            renewal.unsaved.discard(stored.token_id)

    # Before they end (dispatcher.Duty)

    def begin(self) -> None:
        """The engine starts: what an earlier one left may be about to end."""
        self._next_at = self._now()

    def next_change_at(self) -> float | None:
        """See `Duty.next_change_at`."""
        return self._next_at

    async def on_time(self, now: float) -> None:
        """Exchange what is needed longer than it lasts. Raises: StoreUnavailable: to be called again."""
        self._next_at = now + RENEW_EVERY_S
        for renewal in list(self._renewals.values()):
            if renewal.unsaved:
                await self._save(renewal)
        after = now
        for _ in range(PAGES_MAX):
            # What is refused stays among them: it must not hide what comes behind it.
            ending = await self._store.unrenewed_tokens(after, now + LEAD * self._margin_s, RENEW_MAX)
            for stored in ending:
                self._exchange(stored)
            if len(ending) < RENEW_MAX:
                break
            after = ending[-1].expires_at

    def _exchange(self, stored: StoredToken) -> None:
        """Begin to get a refresh token for one that is about to end."""
        try:
            loaded = self._loaded.get((stored.token_id, stored.cred_id)) or self._take_in(stored)
        except EngineError as error:
            log.warning("token not renewed", extra={"token_id": stored.token_id, "why": str(error)})
            return
        due = loaded.renewal
        if due is not None and due.refresh is None and due.refused(due.key.scope) is None:
            due.renew(due.key.scope)

    async def aclose(self) -> None:
        """Stop asking issuers."""
        tasks = [task for renewal in list(self._renewals.values()) for task in renewal.tasks()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _best(loaded: _Loaded, scope: tuple[str, ...]) -> Access:
    got = loaded.renewal.got(scope) if loaded.renewal is not None else None
    return loaded.access if got is None or got.expires_at < loaded.access.expires_at else got


def _about(name: str, cred_id: str) -> str:
    return about("token", name, cred_id)


def _dumped(access: Secret, refresh: Secret | None) -> bytes:
    kept = {"access": access.reveal()} | ({"refresh": refresh.reveal()} if refresh is not None else {})
    return json.dumps(kept).encode()


def _told(audience: tuple[str, ...]) -> str:
    """As `StoredToken.audience`; one that looks like a list is told as a list of one."""
    if len(audience) == 1 and not audience[0].startswith("["):
        return audience[0]
    return json.dumps(audience) if audience else ""


def _audience(text: str) -> tuple[str, ...]:
    if text.startswith("["):
        return tuple(sorted(json.loads(text)))
    return (text,) if text else ()


def _ended(access: Access, now: float) -> str:
    at = datetime.fromtimestamp(access.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"the transfer's token ended at {at}, {now - access.expires_at:.0f} s ago"


def _error(issuer: str, problem: Exception | None, best: Access, now: float) -> TransferError:
    if isinstance(problem, Refusal):
        if problem.code == ENDED:
            return TokenEnded(f"{_ended(best, now)}, before {issuer} could be asked for another one")
        kind = ClientRefused if problem.code in _OF_CLIENT else TokenRefused
        return kind(f"{issuer} does not renew the transfer's token: {problem}", phase=Phase.PREPARATION)
    return IssuerAway(f"{issuer} cannot be asked for a token now: {problem or 'it does not answer'}")
