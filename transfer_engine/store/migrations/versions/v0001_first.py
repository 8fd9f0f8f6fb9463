"""First schema: jobs, transfers, queues, attempts, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "attempts",
        sa.Column("file_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("file_id", "epoch"),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("next", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "engines",
        sa.Column("incarnation", sa.String(length=36), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("incarnation"),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("file_id", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "jobs",
        sa.Column("ref", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("job_type", sa.String(length=1), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("user_dn", sa.Text(), nullable=False),
        sa.Column("cred_id", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("source_se", sa.Text(), nullable=True),
        sa.Column("dest_se", sa.Text(), nullable=True),
        sa.Column("submitted_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("deadline_at", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.String(length=32), nullable=False),
        sa.Column("cancel_requested", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("n_files", sa.Integer(), nullable=False),
        sa.Column("n_finished", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_canceled", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "state IN ('SUBMITTED', 'ACTIVE', 'FINISHED', 'FAILED', 'FINISHEDDIRTY', 'CANCELED')", name="job_state"
        ),
        sa.PrimaryKeyConstraint("ref"),
        sa.UniqueConstraint("job_id"),
    )
    op.create_index(
        "jobs_deadline",
        "jobs",
        ["deadline_at"],
        unique=False,
        sqlite_where=sa.text("deadline_at IS NOT NULL AND finished_at IS NULL"),
        postgresql_where=sa.text("deadline_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.create_index(
        "jobs_open",
        "jobs",
        ["submitted_at"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index("jobs_submitted", "jobs", ["submitted_at"], unique=False)
    op.create_table(
        "queues",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("source_se", sa.Text(), nullable=False),
        sa.Column("dest_se", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("activity", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source_se", "dest_se", "vo", "activity"),
    )
    op.create_table(
        "transfers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("job_ref", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("file_index", sa.Integer(), nullable=False),
        sa.Column("follows", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("queue_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("source_url", sa.Text(), nullable=False),
        sa.Column("dest_url", sa.Text(), nullable=False),
        sa.Column("dest_key", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("checksum", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("scitag", sa.Integer(), nullable=True),
        sa.Column("selection_strategy", sa.Text(), nullable=False),
        sa.Column("n_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.Float(), nullable=True),
        sa.Column("copying", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("dest_owned", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("owner", sa.String(length=36), nullable=True),
        sa.Column("claimed_at", sa.Float(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("mode", sa.String(length=8), nullable=True),
        sa.Column("seen_bytes", sa.BigInteger(), nullable=True),
        sa.Column("seen_checksum", sa.Text(), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.Column("transfer_s", sa.Float(), nullable=True),
        sa.CheckConstraint(
            "state IN ('SUBMITTED', 'ACTIVE', 'VERIFYING', 'CANCELING', 'NOT_USED', 'FINISHED', 'FAILED', 'CANCELED')",
            name="file_state",
        ),
        sa.ForeignKeyConstraint(
            ["job_ref"],
            ["jobs.ref"],
        ),
        sa.ForeignKeyConstraint(
            ["queue_id"],
            ["queues.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "transfers_delayed",
        "transfers",
        ["retry_at"],
        unique=False,
        sqlite_where=sa.text("state = 'SUBMITTED' AND retry_at IS NOT NULL"),
        postgresql_where=sa.text("state = 'SUBMITTED' AND retry_at IS NOT NULL"),
    )
    op.create_index(
        "transfers_driven",
        "transfers",
        ["dest_key"],
        unique=True,
        sqlite_where=sa.text("state IN ('ACTIVE', 'CANCELING', 'VERIFYING')"),
        postgresql_where=sa.text("state IN ('ACTIVE', 'CANCELING', 'VERIFYING')"),
    )
    op.create_index("transfers_job", "transfers", ["job_ref"], unique=False)
    op.create_index(
        "transfers_remains",
        "transfers",
        ["dest_key"],
        unique=False,
        sqlite_where=sa.text("state = 'SUBMITTED' AND dest_owned = 1"),
        postgresql_where=sa.text("state = 'SUBMITTED' AND dest_owned = 1"),
    )
    op.create_index(
        "transfers_ready",
        "transfers",
        ["queue_id", "priority", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'SUBMITTED' AND retry_at IS NULL"),
        postgresql_where=sa.text("state = 'SUBMITTED' AND retry_at IS NULL"),
    )


def downgrade() -> None:
    """Drop every table."""
    op.drop_index(
        "transfers_ready",
        table_name="transfers",
        sqlite_where=sa.text("state = 'SUBMITTED' AND retry_at IS NULL"),
        postgresql_where=sa.text("state = 'SUBMITTED' AND retry_at IS NULL"),
    )
    op.drop_index("transfers_job", table_name="transfers")
    op.drop_index(
        "transfers_remains",
        table_name="transfers",
        sqlite_where=sa.text("state = 'SUBMITTED' AND dest_owned = 1"),
        postgresql_where=sa.text("state = 'SUBMITTED' AND dest_owned = 1"),
    )
    op.drop_index(
        "transfers_driven",
        table_name="transfers",
        sqlite_where=sa.text("state IN ('ACTIVE', 'CANCELING', 'VERIFYING')"),
        postgresql_where=sa.text("state IN ('ACTIVE', 'CANCELING', 'VERIFYING')"),
    )
    op.drop_index(
        "transfers_delayed",
        table_name="transfers",
        sqlite_where=sa.text("state = 'SUBMITTED' AND retry_at IS NOT NULL"),
        postgresql_where=sa.text("state = 'SUBMITTED' AND retry_at IS NOT NULL"),
    )
    op.drop_table("transfers")
    op.drop_table("queues")
    op.drop_index("jobs_submitted", table_name="jobs")
    op.drop_index(
        "jobs_open",
        table_name="jobs",
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.drop_index(
        "jobs_deadline",
        table_name="jobs",
        sqlite_where=sa.text("deadline_at IS NOT NULL AND finished_at IS NULL"),
        postgresql_where=sa.text("deadline_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.drop_table("jobs")
    op.drop_table("events")
    op.drop_table("engines")
    op.drop_table("counters")
    op.drop_table("attempts")
