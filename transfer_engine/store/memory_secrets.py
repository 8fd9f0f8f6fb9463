"""Delegations, delegated credentials, tokens and the record of orders; in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transfer_engine.sealed import AuditEntry, Delegated, StoredToken
from transfer_engine.states import DRIVEN, TERMINAL
from transfer_engine.store.api import SECRETS_KEPT_S
from transfer_engine.store.audit import chained
from transfer_engine.store.memory_rows import Gone, Row
from transfer_engine.store.memory_tables import Tables


def put_credential(tables: Tables, credential: Delegated) -> None:
    """See `Store.put_credential`."""
    tables.delegations.pop(credential.delegation_id, None)
    tables.credentials[credential.delegation_id] = credential


def put_tokens(tables: Tables, given: Sequence[StoredToken], *, renew: bool) -> None:
    """See `Store.put_tokens`."""
    for token in given:
        key = token.token_id, token.cred_id
        known = tables.tokens.get(key)
        if known is None:
            tables.tokens[key] = token
        elif renew:
            # What was submitted says where it came from; what was obtained for it since says what is there now.
            tables.tokens[key] = replace(
                known,
                expires_at=token.expires_at,
                managed=token.managed,
                renewable=token.renewable,
                sealed=token.sealed,
            )


def unrenewed(tables: Tables, after: float, before: float, limit: int) -> list[StoredToken]:
    """See `Store.unrenewed_tokens`."""
    found = [
        token
        for token in tables.tokens.values()
        if token.managed and not token.renewable and after < token.expires_at < before
    ]
    if not found:
        return []
    _, needed = _needed(tables)
    needing = [token for token in found if (token.token_id, token.cred_id) in needed]
    return sorted(needing, key=lambda token: (token.expires_at, token.token_id))[:limit]


def prune(tables: Tables, now: float, limit: int) -> int:
    """See `Store.prune_secrets`."""
    before = now - SECRETS_KEPT_S
    begun = [name for name, delegation in tables.delegations.items() if delegation.since < before]
    ended = [name for name, credential in tables.credentials.items() if credential.expires_at < before]
    useless = [key for key, token in tables.tokens.items() if token.expires_at < before]
    if ended or useless:
        owners, needed = _needed(tables)
        ended = [name for name in ended if name not in owners]
        useless = [key for key in useless if key not in needed]
    begun = begun[:limit]
    ended = ended[: limit - len(begun)]
    useless = useless[: limit - len(begun) - len(ended)]
    for name in begun:
        del tables.delegations[name]
    for name in ended:
        del tables.credentials[name]
    for key in useless:
        del tables.tokens[key]
    return len(begun) + len(ended) + len(useless)


def _needed(tables: Tables) -> tuple[set[str], set[tuple[str, str]]]:
    """Owners of open jobs, and (id, owner) of the tokens of open transfers."""
    jobs = [job for job in tables.by_ref.values() if job.finished_at is None or job.n_driven]
    needed = {
        (token_id, job.cred_id)
        for job in jobs
        for file in job.files
        if not isinstance(file, Gone) and file.state not in TERMINAL
        if job.finished_at is None or file.state in DRIVEN
        for token_id in (file.src_token_id, (file.file if isinstance(file, Row) else file).dst_token_id)
        if token_id is not None
    }
    return {job.cred_id for job in jobs}, needed


def record(tables: Tables, entry: AuditEntry) -> None:
    """See `Store.record`."""
    tables.audit.append(chained(entry, tables.audit[-1] if tables.audit else None))


def audit(tables: Tables, limit: int, vo: str | None) -> list[AuditEntry]:
    """See `Reader.audit`."""
    found: list[AuditEntry] = []
    for entry in reversed(tables.audit):
        if len(found) >= limit:
            break
        if vo is None or entry.vo == vo:
            found.append(entry)
    return found
