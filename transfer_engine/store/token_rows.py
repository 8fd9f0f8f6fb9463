"""Tokens as rows: kept with the job that brought them, renewed, and found before they end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, exists, insert, or_, select, text, tuple_, update

from transfer_engine.sealed import StoredToken
from transfer_engine.states import DRIVEN, TERMINAL
from transfer_engine.store.tables import UNRENEWED_SQL, jobs, tokens, transfers

KEYS_PER_QUERY: Final = 200
"""Each has two parts: well below the number of variables that any SQLite allows in one statement."""

_RENEW: Final = (
    update(tokens)
    .where(tokens.c.token_id == bindparam("id_"), tokens.c.cred_id == bindparam("owner_"))
    .values(
        expires_at=bindparam("expires_at_"),
        managed=bindparam("managed_"),
        renewable=bindparam("renewable_"),
        sealed=bindparam("sealed_"),
    )
)


def keep(connection: Connection, given: Iterable[StoredToken], *, renew: bool = False) -> None:
    """See `Store.put_tokens`."""
    wanted = {(token.token_id, token.cred_id): token for token in given}
    keys = list(wanted)
    known: set[tuple[str, str]] = set()
    for start in range(0, len(keys), KEYS_PER_QUERY):
        part = keys[start : start + KEYS_PER_QUERY]
        key = tuple_(tokens.c.token_id, tokens.c.cred_id)
        found = connection.execute(select(tokens.c.token_id, tokens.c.cred_id).where(key.in_(part)))
        known.update((row.token_id, row.cred_id) for row in found)
    new = [_row(token) for key, token in wanted.items() if key not in known]
    if new:
        connection.execute(insert(tokens), new)
    old = [_renewal(token) for key, token in wanted.items() if key in known] if renew else []
    if old:
        connection.execute(_RENEW, old)


def _row(token: StoredToken) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "cred_id": token.cred_id,
        "issuer": token.issuer,
        "audience": token.audience,
        "scope": token.scope,
        "expires_at": token.expires_at,
        "managed": int(token.managed),
        "renewable": int(token.renewable),
        "since": token.since,
        "sealed": token.sealed,
    }


def _renewal(token: StoredToken) -> dict[str, Any]:
    return {
        "id_": token.token_id,
        "owner_": token.cred_id,
        "expires_at_": token.expires_at,
        "managed_": int(token.managed),
        "renewable_": int(token.renewable),
        "sealed_": token.sealed,
    }


def stored_token(row: Any) -> StoredToken:
    """A row of `tokens`."""
    return StoredToken(
        token_id=row.token_id,
        cred_id=row.cred_id,
        issuer=row.issuer,
        audience=row.audience,
        scope=row.scope,
        expires_at=row.expires_at,
        managed=bool(row.managed),
        renewable=bool(row.renewable),
        since=row.since,
        sealed=row.sealed,
    )


def token(connection: Connection, token_id: str, cred_id: str) -> StoredToken | None:
    """See `Store.token`."""
    query = select(tokens).where(tokens.c.token_id == token_id, tokens.c.cred_id == cred_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else stored_token(row)


def needed() -> ColumnElement[bool]:
    """Which tokens belong to a transfer that is not over."""
    return or_(
        *(
            exists().where(
                column == tokens.c.token_id,
                transfers.c.state.not_in(sorted(TERMINAL)),
                jobs.c.ref == transfers.c.job_ref,
                # Replicas and hops that were not used stay as they are when their job is over.
                or_(jobs.c.finished_at.is_(None), transfers.c.state.in_(sorted(DRIVEN))),
                jobs.c.cred_id == tokens.c.cred_id,
            )
            for column in (transfers.c.src_token_id, transfers.c.dst_token_id)
        )
    )


def unrenewed(connection: Connection, after: float, before: float, limit: int) -> list[StoredToken]:
    """See `Store.unrenewed_tokens`."""
    query = (
        select(tokens)
        .where(text(UNRENEWED_SQL), tokens.c.expires_at > after, tokens.c.expires_at < before, needed())
        .order_by(tokens.c.expires_at, tokens.c.token_id)
        .limit(limit)
    )
    return [stored_token(row) for row in connection.execute(query)]
