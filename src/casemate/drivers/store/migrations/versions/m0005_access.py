"""Tenants, admins, approvals, token keys, audiences; reference values belong to a tenant or to the broker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema. Names of tenants that apps have become tenants."""
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tenants")),
    )
    op.execute(
        "INSERT INTO tenants (name, settings, created, changed) "
        "SELECT tenant, '{}', MIN(created), MIN(created) FROM apps GROUP BY tenant"
    )
    op.create_table(
        "admins",
        sa.Column("who", sa.String(length=512), nullable=False),
        sa.Column("known_by", sa.String(length=600), nullable=False),
        sa.Column("credential", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("tenant", sa.String(length=128), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("who", name=op.f("pk_admins")),
    )
    op.create_index(op.f("ix_admins_known_by"), "admins", ["known_by"], unique=True)
    _approvals()
    op.create_table(
        "signing_keys",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("begun", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "audiences",
        sa.Column("app_id", sa.String(length=71), nullable=False),
        sa.Column("audience", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.app_id"], name=op.f("fk_audiences_app_id")),
        sa.PrimaryKeyConstraint("app_id", "audience", name=op.f("pk_audiences")),
    )
    _reference_values()


def _approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=128), nullable=True),
        sa.Column("act", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("who", sa.String(length=512), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("decider", sa.String(length=512), nullable=True),
        sa.Column("decided", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
    )
    op.create_index(op.f("ix_approvals_state"), "approvals", ["state", "expires"])


def _reference_values() -> None:
    """A tenant becomes part of the primary key, which SQLite cannot alter: the table is made again."""
    tx = op.get_bind()
    columns = ("name", "tee", "registers", "expires", "created")
    old = [
        dict(zip(columns, row, strict=True))
        for row in tx.execute(sa.text("SELECT name, tee, registers, expires, created FROM reference_values"))
    ]
    op.drop_table("reference_values")
    made = op.create_table(
        "reference_values",
        sa.Column("tenant", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("tee", sa.String(length=32), nullable=False),
        sa.Column("registers", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", "tee", name=op.f("pk_reference_values")),
    )
    if old:
        op.bulk_insert(made, [{"tenant": "", **row} for row in old])
