"""Reference values: which measurements a relying party accepts, and for how long (RFC 9334 section 8.3)."""

from __future__ import annotations

from datetime import datetime

import msgspec


class ReferenceValues(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One accepted guest image on one TEE. Every register in `values` must be equal; one that is absent is refused."""

    name: str
    tee: str
    values: dict[str, str]
    expires: datetime | None = None
