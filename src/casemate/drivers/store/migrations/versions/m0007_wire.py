"""Reference values as the key broker protocol registers them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema."""
    op.create_table(
        "rvps_values",
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("id", sa.String(512), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("signer", sa.String(512), nullable=False),
        sa.Column("source", sa.String(71), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_rvps_values"),
    )
