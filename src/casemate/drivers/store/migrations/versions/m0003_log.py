"""The transparency log."""

from __future__ import annotations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema."""
