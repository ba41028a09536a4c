"""The TEEs that an anchor may vouch for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema. Until now, anchors were of TPMs alone."""
    op.add_column("anchors", sa.Column("tees", sa.Text(), nullable=False, server_default="tpm"))
