"""Tenants, admins and approvals."""

from __future__ import annotations

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema."""
