"""Policies and recorded attestations."""

from __future__ import annotations

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema."""
