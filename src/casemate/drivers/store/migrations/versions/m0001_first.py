"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema."""
    _apps()
    _secrets()
    _trust()
    _record()


def _apps() -> None:
    op.create_table(
        "apps",
        sa.Column("app_id", sa.String(length=71), nullable=False),
        sa.Column("founding", sa.Text(), nullable=False),
        sa.Column("tenant", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("platforms", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("app_id", name=op.f("pk_apps")),
    )
    op.create_table(
        "releases",
        sa.Column("app_id", sa.String(length=71), nullable=False),
        sa.Column("manifest_digest", sa.String(length=71), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("registered", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.app_id"], name=op.f("fk_releases_app_id")),
        sa.PrimaryKeyConstraint("app_id", "manifest_digest", name=op.f("pk_releases")),
    )


def _secrets() -> None:
    op.create_table(
        "resources",
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("app_id", sa.String(length=71), nullable=False),
        sa.Column("newest", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.app_id"], name=op.f("fk_resources_app_id")),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_resources")),
    )
    op.create_table(
        "volumes",
        sa.Column("app_id", sa.String(length=71), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("grant_digest", sa.String(length=64), nullable=True),
        sa.Column("initialised", sa.Boolean(), nullable=False),
        sa.Column("record", sa.Text(), nullable=True),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.app_id"], name=op.f("fk_volumes_app_id")),
        sa.PrimaryKeyConstraint("app_id", "name", name=op.f("pk_volumes")),
    )
    op.create_table(
        "resource_versions",
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["path"], ["resources.path"], name=op.f("fk_resource_versions_path")),
        sa.PrimaryKeyConstraint("path", "version", name=op.f("pk_resource_versions")),
    )


def _trust() -> None:
    op.create_table(
        "anchors",
        sa.Column("fingerprint", sa.String(length=71), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("platform_class", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_anchors")),
    )
    op.create_table(
        "reference_values",
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("tee", sa.String(length=32), nullable=False),
        sa.Column("registers", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "tee", name=op.f("pk_reference_values")),
    )


def _record() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.Column("genuine", sa.Boolean(), nullable=False),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("app_id", sa.String(length=71), nullable=True),
        sa.Column("manifest_digest", sa.String(length=71), nullable=True),
        sa.Column("tee", sa.String(length=32), nullable=True),
        sa.Column("resource", sa.String(length=512), nullable=True),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    op.create_index(op.f("ix_decisions_genuine"), "decisions", ["genuine", "id"])
    op.create_table(
        "keys",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_keys")),
    )
    op.create_table(
        "spent_nonces",
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_spent_nonces")),
    )
    op.create_index(op.f("ix_spent_nonces_spent"), "spent_nonces", ["spent"])
