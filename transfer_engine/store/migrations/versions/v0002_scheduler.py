"""For the scheduler: jobs on hold, bans, remembered texts, and the indexes to find what they concern.

Only adds: a program that knows 0001 alone still reads and writes every row rightly. The index of ready
transfers gets their sizes, so that bytes that wait are added up without reading rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

READY = "state = 'SUBMITTED' AND retry_at IS NULL"
DELAYED = "state = 'SUBMITTED' AND retry_at IS NOT NULL"
CHOICE = READY + " AND follows = 1 AND selection_strategy <> 'orderly'"
LEADING = "state = 'SUBMITTED' AND follows > 0"


def upgrade() -> None:
    """Add what is new; what is there stays."""
    op.add_column("jobs", sa.Column("held", sa.SmallInteger(), server_default="0", nullable=False))
    op.create_table(
        "bans",
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("vo", sa.String(length=255), nullable=False),
        sa.Column("cancel", sa.SmallInteger(), nullable=False),
        sa.Column("allow_submit", sa.SmallInteger(), nullable=False),
        sa.Column("until", sa.Float(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "vo"),
    )
    op.create_table(
        "kept",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    # A hop that is followed says so from now on: choosing among replicas must not look at routes.
    op.execute(
        "UPDATE transfers SET follows = 2 WHERE follows = 1 AND job_ref IN (SELECT ref FROM jobs WHERE job_type = 'H')"
    )
    op.drop_index("transfers_ready", table_name="transfers")
    _index("transfers_ready", ["queue_id", "priority", "id", "size_bytes"], READY)
    _index("transfers_parked", ["queue_id"], DELAYED)
    _index("transfers_choices", ["queue_id", "priority", "id"], CHOICE)
    _index("transfers_leading", ["job_ref"], LEADING)


def downgrade() -> None:
    """Back to 0001; a job on hold goes on."""
    for name in ("transfers_leading", "transfers_choices", "transfers_parked", "transfers_ready"):
        op.drop_index(name, table_name="transfers")
    _index("transfers_ready", ["queue_id", "priority", "id"], READY)
    op.execute("UPDATE transfers SET retry_at = NULL WHERE state = 'SUBMITTED' AND retry_at >= 9e15")
    op.execute("UPDATE transfers SET follows = 1 WHERE follows = 2")
    op.drop_table("kept")
    op.drop_table("bans")
    op.drop_column("jobs", "held")


def _index(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        name, "transfers", columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
