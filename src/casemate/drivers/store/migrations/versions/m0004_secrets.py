"""Versions that end, leases, derived keys."""

from __future__ import annotations

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema."""
