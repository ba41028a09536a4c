"""Evidence: what a guest says of itself. Hearsay until a room's `verify` has judged it (RFC 9334 section 8.1)."""

from __future__ import annotations

from typing import Any

import msgspec


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One attester's evidence.

    `tee` is the wire name (coco-kbs 0.4.0). `primary` is the TEE-specific JSON object, read only by that TEE's room.
    `additional` is the protocol's additional_evidence string ("" when there is none). `initdata` is the initdata
    document as the guest received it, or None; it is believed only after its digest was found in the evidence.
    """

    tee: str
    primary: dict[str, Any]
    additional: str = ""
    initdata: bytes | None = None
