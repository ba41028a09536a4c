"""Request: what a verifier asks an attester to bind into its evidence (RFC 9334 section 10, freshness by nonce)."""

from __future__ import annotations

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Values that the evidence must carry.

    `report_data`: the bytes for the TEE's report-data register, before padding: SHA-384 in the KBS protocol. None means
    that freshness is not asked for, which a verifier reports and never hides.
    `initdata_digest`: SHA-256 of the initdata document (32 bytes), or None when no document is expected.
    """

    report_data: bytes | None = None
    initdata_digest: bytes | None = None
