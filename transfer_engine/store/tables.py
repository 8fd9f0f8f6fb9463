"""The schema, once for every database.

`transfers` is the queue. Partial indexes carry the hot path: what can be claimed, in claim order, with its
sizes; what waits for a retry, by time and by queue; which destinations are driven now (unique: two attempts
never share one); which waiting transfers may have left something behind, have another replica to choose, or
are followed by rows that wait for them. Rows of finished transfers are in none of them, so their number
costs nothing.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from transfer_engine.states import DRIVEN, FileState, JobState

metadata: Final = MetaData()

_INT = BigInteger().with_variant(Integer, "sqlite")
"""SQLite's row id is spelled INTEGER."""


def _one_of(column: str, values: type[FileState | JobState]) -> str:
    return f"{column} IN ({', '.join(repr(str(v)) for v in values)})"


DRIVEN_SQL: Final = "state IN ({})".format(", ".join(repr(str(s)) for s in sorted(DRIVEN)))
READY_SQL: Final = "state = 'SUBMITTED' AND retry_at IS NULL"
DELAYED_SQL: Final = "state = 'SUBMITTED' AND retry_at IS NOT NULL"
CHOICE_SQL: Final = f"{READY_SQL} AND follows = 1 AND selection_strategy <> 'orderly'"
LEADING_SQL: Final = "state = 'SUBMITTED' AND follows > 0"
REMAINS_SQL: Final = "state = 'SUBMITTED' AND dest_owned = 1"
OPEN_JOB_SQL: Final = "finished_at IS NULL"
UNRENEWED_SQL: Final = "managed = 1 AND renewable = 0"

HELD_AT: Final = 9e15
"""`retry_at` of what waits in a job on hold: an instant that never comes, so that nothing makes it ready."""

FOLLOWED_BY_REPLICA, FOLLOWED_BY_HOP = 1, 2
"""`follows` of a row: what comes next in its job if this one fails, or when it has finished; 0: nothing."""

EVERY_VO: Final = ""
"""`vo` of a ban that concerns everybody."""

counters: Final = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("next", _INT, nullable=False),
)
"""Next numbers of jobs, transfers and queues: a number is never given twice, even after rows are gone."""

engines: Final = Table(
    "engines",
    metadata,
    Column("incarnation", String(36), primary_key=True),
    Column("host", Text, nullable=False),
    Column("started_at", Float, nullable=False),
)

queues: Final = Table(
    "queues",
    metadata,
    Column("id", _INT, primary_key=True, autoincrement=False),
    Column("source_se", Text, nullable=False),
    Column("dest_se", Text, nullable=False),
    Column("vo", Text, nullable=False),
    Column("activity", Text, nullable=False),
    Column("size_class", SmallInteger, nullable=False, server_default="0"),
    UniqueConstraint("source_se", "dest_se", "vo", "activity", "size_class"),
)

jobs: Final = Table(
    "jobs",
    metadata,
    Column("ref", _INT, primary_key=True, autoincrement=False),
    Column("job_id", String(36), nullable=False, unique=True),
    Column("job_type", String(1), nullable=False),
    Column("state", String(16), CheckConstraint(_one_of("state", JobState), name="job_state"), nullable=False),
    Column("vo", Text, nullable=False),
    Column("user_dn", Text, nullable=False),
    Column("cred_id", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("source_se", Text),
    Column("dest_se", Text),
    Column("submitted_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("deadline_at", Float),
    Column("reason", Text),
    Column("options", Text, nullable=False),
    Column("params", Text),
    Column("metadata", Text),
    Column("fingerprint", String(32), nullable=False),
    Column("cancel_requested", SmallInteger, nullable=False, server_default="0"),
    Column("n_files", Integer, nullable=False),
    Column("n_finished", Integer, nullable=False, server_default="0"),
    Column("n_failed", Integer, nullable=False, server_default="0"),
    Column("n_canceled", Integer, nullable=False, server_default="0"),
    Column("held", SmallInteger, nullable=False, server_default="0"),
)
_open = text(OPEN_JOB_SQL)
Index("jobs_open", jobs.c.submitted_at, sqlite_where=_open, postgresql_where=_open)
_due = text("deadline_at IS NOT NULL AND finished_at IS NULL")
Index("jobs_deadline", jobs.c.deadline_at, sqlite_where=_due, postgresql_where=_due)
Index("jobs_submitted", jobs.c.submitted_at)

transfers: Final = Table(
    "transfers",
    metadata,
    Column("id", _INT, primary_key=True, autoincrement=False),
    Column("job_ref", _INT, ForeignKey("jobs.ref"), nullable=False),
    Column("file_index", Integer, nullable=False),
    Column("follows", SmallInteger, nullable=False),
    Column("state", String(16), CheckConstraint(_one_of("state", FileState), name="file_state"), nullable=False),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("queue_id", _INT, ForeignKey("queues.id"), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("source_url", Text, nullable=False),
    Column("dest_url", Text, nullable=False),
    Column("dest_key", BigInteger, nullable=False),
    Column("size_bytes", BigInteger),
    Column("checksum", Text),
    Column("metadata", Text),
    Column("scitag", Integer),
    Column("selection_strategy", Text, nullable=False),
    Column("n_failed", Integer, nullable=False, server_default="0"),
    Column("retry_at", Float),
    Column("copying", SmallInteger, nullable=False, server_default="0"),
    Column("dest_owned", SmallInteger, nullable=False, server_default="0"),
    Column("owner", String(36)),
    Column("claimed_at", Float),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("failure", Text),
    Column("mode", String(8)),
    Column("seen_bytes", BigInteger),
    Column("seen_checksum", Text),
    Column("evidence", Text),
    Column("transfer_s", Float),
    Column("src_token_id", String(16)),
    Column("dst_token_id", String(16)),
)
_ready, _delayed, _driven = text(READY_SQL), text(DELAYED_SQL), text(DRIVEN_SQL)
Index(
    "transfers_ready",
    transfers.c.queue_id,
    transfers.c.priority,
    transfers.c.id,
    transfers.c.size_bytes,
    sqlite_where=_ready,
    postgresql_where=_ready,
)
Index("transfers_delayed", transfers.c.retry_at, sqlite_where=_delayed, postgresql_where=_delayed)
Index("transfers_parked", transfers.c.queue_id, sqlite_where=_delayed, postgresql_where=_delayed)
_choice, _leading = text(CHOICE_SQL), text(LEADING_SQL)
Index(
    "transfers_choices",
    transfers.c.queue_id,
    transfers.c.priority,
    transfers.c.id,
    sqlite_where=_choice,
    postgresql_where=_choice,
)
Index("transfers_leading", transfers.c.job_ref, sqlite_where=_leading, postgresql_where=_leading)
Index("transfers_driven", transfers.c.dest_key, unique=True, sqlite_where=_driven, postgresql_where=_driven)
_remains = text(REMAINS_SQL)
Index("transfers_remains", transfers.c.dest_key, sqlite_where=_remains, postgresql_where=_remains)
Index("transfers_job", transfers.c.job_ref)
_with_source_token, _with_destination_token = text("src_token_id IS NOT NULL"), text("dst_token_id IS NOT NULL")
Index(
    "transfers_src_token",
    transfers.c.src_token_id,
    sqlite_where=_with_source_token,
    postgresql_where=_with_source_token,
)
Index(
    "transfers_dst_token",
    transfers.c.dst_token_id,
    sqlite_where=_with_destination_token,
    postgresql_where=_with_destination_token,
)

attempts: Final = Table(
    "attempts",
    metadata,
    Column("file_id", _INT, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("owner", String(36)),
)
"""Attempts that did not finish their transfer; the successful one is in the transfer's own row."""

events: Final = Table(
    "events",
    metadata,
    Column("seq", _INT, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("job_id", String(36), nullable=False),
    Column("file_id", BigInteger),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("detail", Text),
    sqlite_autoincrement=True,
)
"""The outbox: written in the transaction of the change that it reports."""

bans: Final = Table(
    "bans",
    metadata,
    Column("endpoint", String(255), primary_key=True),
    Column("vo", String(255), primary_key=True),
    Column("cancel", SmallInteger, nullable=False),
    Column("allow_submit", SmallInteger, nullable=False),
    Column("until", Float),
    Column("message", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("since", Float, nullable=False),
)

kept: Final = Table(
    "kept",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("text", Text, nullable=False),
)
"""What the engine remembers from one start to the next, each by its name."""

credentials: Final = Table(
    "credentials",
    metadata,
    Column("delegation_id", String(16), primary_key=True),
    Column("user_dn", Text, nullable=False),
    Column("vo", Text, nullable=False),
    Column("attributes", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("since", Float, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
"""Delegated proxies: chain and key, encrypted; `attributes` are the FQANs, as a JSON list."""

delegations: Final = Table(
    "delegations",
    metadata,
    Column("delegation_id", String(16), primary_key=True),
    Column("request", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
"""Delegations that have been begun: the certificate request that was given out, and its key, encrypted."""

tokens: Final = Table(
    "tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("cred_id", String(16), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("audience", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("managed", SmallInteger, nullable=False),
    Column("renewable", SmallInteger, nullable=False, server_default="0"),
    Column("since", Float, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
"""Tokens of users for storages, encrypted, with what was obtained for them since; `managed`: they are refreshed.

The id is that of the token as it was submitted; it stays when the token is refreshed.
"""
_unrenewed = text(UNRENEWED_SQL)
Index("tokens_unrenewed", tokens.c.expires_at, sqlite_where=_unrenewed, postgresql_where=_unrenewed)

audit: Final = Table(
    "audit",
    metadata,
    Column("seq", _INT, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("user_dn", Text, nullable=False),
    Column("vo", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    sqlite_autoincrement=True,
)
"""Who ordered what; each row's digest covers the one before, so that no row can be changed or taken out unseen."""
