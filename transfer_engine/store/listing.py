"""Lists of transfers and of names, as functions of a connection; nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, select, union

from transfer_engine.store import rows
from transfer_engine.store.api import FileFilter, NameKind
from transfer_engine.store.queries import FILES, seen
from transfer_engine.store.tables import jobs, queues, transfers
from transfer_engine.views import FileView

_BEHIND: Final = "\U0010ffff"
"""Behind every character."""
_NAMED: Final[Mapping[NameKind, Sequence[ColumnElement[Any]]]] = {
    "dn": (jobs.c.user_dn,),
    "vo": (queues.c.vo,),
    "source": (queues.c.source_se,),
    "destination": (queues.c.dest_se,),
    "storage": (queues.c.source_se, queues.c.dest_se),
}


def file_list(connection: Connection, where: FileFilter) -> list[FileView]:
    """Transfers, newest first."""
    query = FILES.order_by(transfers.c.id.desc()).limit(where.limit)
    if where.ended_after is None:
        query = query.where(jobs.c.finished_at.is_(None))
    else:
        query = query.where(jobs.c.finished_at >= where.ended_after)
    if where.states is not None:
        query = query.where(transfers.c.state.in_(sorted(state.value for state in where.states)))
    for column, value in (
        (queues.c.vo, where.vo),
        (queues.c.source_se, where.source_se),
        (queues.c.dest_se, where.dest_se),
        (transfers.c.dest_url, where.dest_url),
    ):
        if value is not None:
            query = query.where(column == value)
    if not where.sight.everything:
        query = query.where(seen(where.sight))
    return [rows.file_view(row) for row in connection.execute(query)]


def names(connection: Connection, of: NameKind, prefix: str, limit: int) -> list[str]:
    """Names from `prefix` on, in order."""
    parts = [select(column.label("name")).where(column >= prefix, column < prefix + _BEHIND) for column in _NAMED[of]]
    found = union(*parts).subquery()
    return list(connection.execute(select(found.c.name).distinct().order_by(found.c.name).limit(limit)).scalars())
