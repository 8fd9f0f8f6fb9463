"""A queue holds files of one class of sizes; those of before hold any."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NAMES = ("source_se", "dest_se", "vo", "activity")


def upgrade() -> None:
    """Make the table anew: what is unique in it cannot be changed in place everywhere."""
    _create(sa.Column("size_class", sa.SmallInteger(), server_default="0", nullable=False))
    op.execute(
        "INSERT INTO queues_new (id, source_se, dest_se, vo, activity, size_class) "
        "SELECT id, source_se, dest_se, vo, activity, 0 FROM queues"
    )
    _replace()


def downgrade() -> None:
    """Queues that differ by size only become one."""
    op.execute(
        "UPDATE transfers SET queue_id = (SELECT min(one.id) FROM queues one, queues own "
        "WHERE own.id = transfers.queue_id AND one.source_se = own.source_se AND one.dest_se = own.dest_se "
        "AND one.vo = own.vo AND one.activity = own.activity)"
    )
    _create()
    op.execute(
        "INSERT INTO queues_new (id, source_se, dest_se, vo, activity) "
        "SELECT min(id), source_se, dest_se, vo, activity FROM queues GROUP BY source_se, dest_se, vo, activity"
    )
    _replace()


def _create(*more: sa.Column[int]) -> None:
    op.create_table(
        "queues_new",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in NAMES),
        *more,
        sa.UniqueConstraint(*NAMES, *(column.name for column in more)),
    )


def _replace() -> None:
    op.drop_table("queues")
    op.rename_table("queues_new", "queues")
