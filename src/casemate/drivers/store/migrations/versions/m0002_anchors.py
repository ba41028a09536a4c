"""The TEEs that an anchor may vouch for."""

from __future__ import annotations

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema."""
