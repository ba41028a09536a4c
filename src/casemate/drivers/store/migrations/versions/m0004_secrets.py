"""Versions that end, leases, derived keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema. Versions that were replaced before end at once."""
    op.add_column("resources", sa.Column("doomed", sa.BigInteger(), nullable=True))
    op.add_column("resource_versions", sa.Column("ends", sa.BigInteger(), nullable=True))
    op.add_column("volumes", sa.Column("key_path", sa.String(length=512), nullable=True))
    op.add_column("volumes", sa.Column("key_version", sa.Integer(), nullable=True))
    op.create_table(
        "leases",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=71), nullable=False),
        sa.Column("manifest_digest", sa.String(length=71), nullable=False),
        sa.Column("tee", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("begun", sa.BigInteger(), nullable=False),
        sa.Column("renewed", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.Column("why", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_app_id"), "leases", ["app_id", "expires"])
    op.create_index(op.f("ix_leases_expires"), "leases", ["expires"])
    op.create_table(
        "app_limits",
        sa.Column("app_id", sa.String(length=71), nullable=False),
        sa.Column("max_holders", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("app_id", name=op.f("pk_app_limits")),
    )
