"""The record of orders: who ordered what, each row tied to the one before by a digest.

A row that is changed, taken out or put in later shows, unless everything after it is written anew as
well. Whether the newest rows were cut off can be told only from a digest that was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from transfer_engine.sealed import AuditEntry
from transfer_engine.store.tables import audit

BEGINNING: Final = "0" * 64
"""The digest before the first row."""
ACTION_MAX, TEXT_MAX, DETAIL_MAX = 64, 2048, 65_536
"""Characters that are kept: a hostile order must not fill the record."""
# No database keeps half a surrogate pair, and PostgreSQL no NUL.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def chained(entry: AuditEntry, before: AuditEntry | None) -> AuditEntry:
    """The entry as it is stored behind another one: numbered, with its digest."""
    sound = replace(
        entry,
        user_dn=_sound(entry.user_dn, TEXT_MAX),
        vo=_sound(entry.vo, TEXT_MAX),
        action=_sound(entry.action, ACTION_MAX),
        object=_sound(entry.object, TEXT_MAX),
        detail=_sound(entry.detail, DETAIL_MAX),
        seq=1 if before is None else before.seq + 1,
    )
    return replace(sound, digest=_digest(sound, BEGINNING if before is None else before.digest))


def verify_audit(entries: Iterable[AuditEntry], before: AuditEntry | None = None) -> int | None:
    """Is the record whole?

    Args:    entries: oldest first, without gaps: as `Reader.audit` gives them for all VOs, turned round.
             before: the entry in front of the first one; None: the record begins there.
    Returns: None if it is, else the number of the first entry that is not as it was recorded.
    """
    for entry in entries:
        expected = 1 if before is None else before.seq + 1
        if entry.seq != expected or entry.digest != _digest(entry, BEGINNING if before is None else before.digest):
            return entry.seq
        before = entry
    return None


def _sound(text: str, longest: int) -> str:
    return _UNSTORABLE.sub("\ufffd", text[:longest])


def _digest(entry: AuditEntry, before: str) -> str:
    told = [before, entry.seq, entry.at, entry.user_dn, entry.vo, entry.action, entry.object, entry.detail]
    return hashlib.sha256(json.dumps(told, ensure_ascii=True).encode()).hexdigest()


def record(connection: Connection, batch: Sequence[AuditEntry]) -> list[None]:
    """The operation `record`."""
    newest = connection.execute(select(audit).order_by(audit.c.seq.desc()).limit(1)).one_or_none()
    before = None if newest is None else _entry(newest)
    rows: list[dict[str, Any]] = []
    for entry in batch:
        before = chained(entry, before)
        rows.append(
            {
                "seq": before.seq,
                "at": before.at,
                "user_dn": before.user_dn,
                "vo": before.vo,
                "action": before.action,
                "object": before.object,
                "detail": before.detail,
                "digest": before.digest,
            }
        )
    connection.execute(insert(audit), rows)
    return [None] * len(batch)


def entries(connection: Connection, limit: int, vo: str | None) -> list[AuditEntry]:
    """See `Reader.audit`."""
    query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
    if vo is not None:
        query = query.where(audit.c.vo == vo)
    return [_entry(row) for row in connection.execute(query)]


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(
        at=row.at,
        user_dn=row.user_dn,
        vo=row.vo,
        action=row.action,
        object=row.object,
        detail=row.detail,
        seq=row.seq,
        digest=row.digest,
    )
