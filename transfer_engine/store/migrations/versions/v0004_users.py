"""For many users: delegated credentials, tokens for storages, and who ordered what.

Only adds: a program that knows 0003 alone still reads and writes every row rightly; transfers with
tokens of their own it would attempt with its own credential.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INT = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add what is new; what is there stays."""
    op.add_column("transfers", sa.Column("src_token_id", sa.String(length=16), nullable=True))
    op.add_column("transfers", sa.Column("dst_token_id", sa.String(length=16), nullable=True))
    for column in ("src_token_id", "dst_token_id"):
        given = sa.text(f"{column} IS NOT NULL")
        name = f"transfers_{column.removesuffix('_id')}"
        op.create_index(name, "transfers", [column], sqlite_where=given, postgresql_where=given)
    op.create_table(
        "credentials",
        sa.Column("delegation_id", sa.String(length=16), nullable=False),
        sa.Column("user_dn", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("delegation_id"),
    )
    op.create_table(
        "delegations",
        sa.Column("delegation_id", sa.String(length=16), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("delegation_id"),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("cred_id", sa.String(length=16), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("managed", sa.SmallInteger(), nullable=False),
        sa.Column("renewable", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", "cred_id"),
    )
    unrenewed = sa.text("managed = 1 AND renewable = 0")
    op.create_index("tokens_unrenewed", "tokens", ["expires_at"], sqlite_where=unrenewed, postgresql_where=unrenewed)
    op.create_table(
        "audit",
        sa.Column("seq", _INT, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("user_dn", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Back to 0003; credentials and the record of orders are lost."""
    for name in ("audit", "tokens", "delegations", "credentials"):
        op.drop_table(name)
    for name in ("transfers_dst_token", "transfers_src_token"):
        op.drop_index(name, "transfers")
    op.drop_column("transfers", "dst_token_id")
    op.drop_column("transfers", "src_token_id")
