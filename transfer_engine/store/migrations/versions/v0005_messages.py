"""For messages: what an event has to say that its transfer's row will not say for ever.

Only adds: a program that knows 0004 alone still reads and writes every row rightly.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what is new; what is there stays."""
    op.add_column("events", sa.Column("detail", sa.Text(), nullable=True))


def downgrade() -> None:
    """Back to 0004."""
    op.drop_column("events", "detail")
