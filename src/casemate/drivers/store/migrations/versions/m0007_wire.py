"""Reference values as the key broker protocol registers them."""

from __future__ import annotations

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Forward only: a broker never goes back to an older schema."""
