"""Delegations, delegated credentials and tokens in the database; all of them sealed before they come here."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, delete, insert, select, tuple_

from transfer_engine.sealed import AuditEntry, Delegated, Delegation, StoredToken
from transfer_engine.store import audit, token_rows
from transfer_engine.store.api import SECRETS_KEPT_S
from transfer_engine.store.tables import credentials, delegations, jobs, tokens
from transfer_engine.store.writer import Writer

T = TypeVar("T")

_JOB_OPEN: Final = jobs.c.finished_at.is_(None)


class SecretOperations(ABC):
    """What a store on a database does with secrets and the record of orders. See `transfer_engine.store.api`."""

    _writer: Writer

    @abstractmethod
    async def _read(self, query: Callable[..., T], *args: Any) -> T:
        """Run a query beside the writer."""

    async def put_delegation(self, delegation: Delegation) -> None:
        """See `Store.put_delegation`."""
        await self._writer.submit(put_delegations, delegation)

    async def delegation(self, delegation_id: str) -> Delegation | None:
        """See `Store.delegation`."""
        return await self._read(begun_delegation, delegation_id)

    async def put_credential(self, credential: Delegated) -> None:
        """See `Store.put_credential`."""
        await self._writer.submit(put_credentials, credential)

    async def credential(self, delegation_id: str) -> Delegated | None:
        """See `Store.credential`."""
        return await self._read(delegated_credential, delegation_id)

    async def drop_credential(self, delegation_id: str) -> bool:
        """See `Store.drop_credential`."""
        return cast("bool", await self._writer.submit(drop_credentials, delegation_id))

    async def put_tokens(self, tokens: Sequence[StoredToken], *, renew: bool = False) -> None:
        """See `Store.put_tokens`."""
        await self._writer.submit(put_tokens, (tokens, renew))

    async def token(self, token_id: str, cred_id: str) -> StoredToken | None:
        """See `Store.token`."""
        return await self._read(token_rows.token, token_id, cred_id)

    async def unrenewed_tokens(self, after: float, before: float, limit: int) -> list[StoredToken]:
        """See `Store.unrenewed_tokens`."""
        return await self._read(token_rows.unrenewed, after, before, limit)

    async def prune_secrets(self, now: float, limit: int) -> int:
        """See `Store.prune_secrets`."""
        return cast("int", await self._writer.submit(prune, (now, limit)))

    async def record(self, entry: AuditEntry) -> None:
        """See `Store.record`."""
        await self._writer.submit(audit.record, entry)

    async def audit(self, limit: int, vo: str | None = None) -> list[AuditEntry]:
        """See `Reader.audit`."""
        return await self._read(audit.entries, limit, vo)


def put_delegations(connection: Connection, batch: Sequence[Delegation]) -> list[None]:
    """The operation `put_delegation`."""
    latest = {delegation.delegation_id: delegation for delegation in batch}
    connection.execute(delete(delegations).where(delegations.c.delegation_id.in_(list(latest))))
    connection.execute(
        insert(delegations),
        [
            {"delegation_id": name, "request": begun.request, "since": begun.since, "sealed": begun.sealed}
            for name, begun in latest.items()
        ],
    )
    return [None] * len(batch)


def begun_delegation(connection: Connection, delegation_id: str) -> Delegation | None:
    """See `Store.delegation`."""
    row = connection.execute(select(delegations).where(delegations.c.delegation_id == delegation_id)).one_or_none()
    if row is None:
        return None
    return Delegation(delegation_id=row.delegation_id, request=row.request, since=row.since, sealed=row.sealed)


def put_credentials(connection: Connection, batch: Sequence[Delegated]) -> list[None]:
    """The operation `put_credential`."""
    latest = {credential.delegation_id: credential for credential in batch}
    for table in (credentials, delegations):
        connection.execute(delete(table).where(table.c.delegation_id.in_(list(latest))))
    connection.execute(
        insert(credentials),
        [
            {
                "delegation_id": name,
                "user_dn": credential.user_dn,
                "vo": credential.vo,
                "attributes": json.dumps(credential.attributes),
                "expires_at": credential.expires_at,
                "since": credential.since,
                "sealed": credential.sealed,
            }
            for name, credential in latest.items()
        ],
    )
    return [None] * len(batch)


def delegated_credential(connection: Connection, delegation_id: str) -> Delegated | None:
    """See `Store.credential`."""
    row = connection.execute(select(credentials).where(credentials.c.delegation_id == delegation_id)).one_or_none()
    if row is None:
        return None
    return Delegated(
        delegation_id=row.delegation_id,
        user_dn=row.user_dn,
        vo=row.vo,
        attributes=tuple(json.loads(row.attributes)),
        expires_at=row.expires_at,
        since=row.since,
        sealed=row.sealed,
    )


def drop_credentials(connection: Connection, batch: Sequence[str]) -> list[bool]:
    """The operation `drop_credential`: for each id whether there was one."""
    return [
        connection.execute(delete(credentials).where(credentials.c.delegation_id == delegation_id)).rowcount > 0
        for delegation_id in batch
    ]


def put_tokens(connection: Connection, batch: Sequence[tuple[Sequence[StoredToken], bool]]) -> list[None]:
    """The operation `put_tokens`."""
    for given, renew in batch:
        token_rows.keep(connection, given, renew=renew)
    return [None] * len(batch)


def prune(connection: Connection, batch: Sequence[tuple[float, int]]) -> list[int]:
    """The operation `prune_secrets`."""
    return [_prune(connection, now - SECRETS_KEPT_S, limit) for now, limit in batch]


def _prune(connection: Connection, before: float, limit: int) -> int:
    begun = select(delegations.c.delegation_id).where(delegations.c.since < before).limit(limit)
    n_begun = connection.execute(delete(delegations).where(delegations.c.delegation_id.in_(begun))).rowcount
    # The open jobs are gone through once, not once for each credential.
    owners = select(jobs.c.cred_id).where(_JOB_OPEN)
    ended = (
        select(credentials.c.delegation_id)
        .where(credentials.c.expires_at < before, credentials.c.delegation_id.not_in(owners))
        .limit(limit - n_begun)
    )
    n_ended = connection.execute(delete(credentials).where(credentials.c.delegation_id.in_(ended))).rowcount
    useless = (
        select(tokens.c.token_id, tokens.c.cred_id)
        .where(tokens.c.expires_at < before, ~token_rows.needed())
        .limit(limit - n_begun - n_ended)
    )
    gone = [(row.token_id, row.cred_id) for row in connection.execute(useless)]
    for start in range(0, len(gone), token_rows.KEYS_PER_QUERY):
        part = gone[start : start + token_rows.KEYS_PER_QUERY]
        connection.execute(delete(tokens).where(tuple_(tokens.c.token_id, tokens.c.cred_id).in_(part)))
    return n_begun + n_ended + len(gone)
