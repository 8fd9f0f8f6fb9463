"""What the engine remembers beside its queue: bans, and texts by name."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from transfer_engine.places import Ban
from transfer_engine.store.tables import EVERY_VO, bans, kept


def put_bans(connection: Connection, batch: Sequence[Ban]) -> list[None]:
    """The operation `put_ban`: the last one of an endpoint and VO stays."""
    latest = {(ban.endpoint, ban.vo or EVERY_VO): ban for ban in batch}
    for endpoint, vo in latest:
        connection.execute(delete(bans).where(bans.c.endpoint == endpoint, bans.c.vo == vo))
    connection.execute(
        insert(bans),
        [
            {
                "endpoint": endpoint,
                "vo": vo,
                "cancel": int(ban.cancel),
                "allow_submit": int(ban.allow_submit),
                "until": ban.until,
                "message": ban.message,
                "by": ban.by,
                "since": ban.since,
            }
            for (endpoint, vo), ban in latest.items()
        ],
    )
    return [None] * len(batch)


def lift_bans(connection: Connection, batch: Sequence[tuple[str, str | None]]) -> list[bool]:
    """The operation `lift_ban`: for each (endpoint, VO) whether there was one."""
    return [
        connection.execute(delete(bans).where(bans.c.endpoint == endpoint, bans.c.vo == (vo or EVERY_VO))).rowcount > 0
        for endpoint, vo in batch
    ]


def ban_list(connection: Connection) -> list[Ban]:
    """All bans, by endpoint and VO; that of every VO first."""
    return [
        Ban(
            endpoint=row.endpoint,
            vo=row.vo or None,
            cancel=bool(row.cancel),
            allow_submit=bool(row.allow_submit),
            until=row.until,
            message=row.message,
            by=row.by,
            since=row.since,
        )
        for row in connection.execute(select(bans).order_by(bans.c.endpoint, bans.c.vo))
    ]


def keep_texts(connection: Connection, batch: Sequence[tuple[str, str]]) -> list[None]:
    """The operation `keep`: for each (name, text), the last one of a name stays."""
    latest = dict(batch)
    connection.execute(delete(kept).where(kept.c.name.in_(list(latest))))
    connection.execute(insert(kept), [{"name": name, "text": text} for name, text in latest.items()])
    return [None] * len(batch)


def kept_text(connection: Connection, name: str) -> str | None:
    """What `keep` remembered; None: nothing."""
    return connection.execute(select(kept.c.text).where(kept.c.name == name)).scalar()
