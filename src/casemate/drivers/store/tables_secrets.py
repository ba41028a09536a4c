"""Tables of the broker's store, continued: versions that end, leases, derived keys."""

from __future__ import annotations
