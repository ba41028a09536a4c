"""The RCAR session (CoCo KBS protocol 0.4.0): how a nonce is made and what the evidence must bind.

Rules
1. The nonce is SHA-256 over a tag, the broker's key pin and a random salt. The guest recomputes it with the pin from
   its manifest, so evidence made for one broker is useless at another (relay, CVE-2026-33697).
2. Evidence binds SHA-384 over the RFC 8785 JSON of `additional-evidence`, `nonce` and `tee-pubkey` (kbs, backend.rs).
3. Other uses of evidence hash their data under a purpose tag (`purpose_data`), so that they can never pass as rule 2.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from casemate.errors import Refused
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

PROTOCOL = "0.4.0"
COOKIE = "kbs-session-id"
SALT_HEADER = "Casemate-Nonce-Salt"
LEASE_HEADER = "Casemate-Lease"  # seconds that a guest may keep what it was given, from this answer on
LEASE_ID_HEADER = "Casemate-Lease-Id"  # named by a guest that attests anew, so that it renews what it has
NO_LEASE = "none"  # what a guest names there that wants a token and no lease
_NONCE_TAG = b"casemate nonce v1\0"
_PURPOSE_TAG = b"casemate purpose v1\0"


def make_nonce(broker_pin: str, salt: bytes) -> str:
    """Base64 of the 32-byte nonce for `broker_pin` (`sha256:<hex>`) and a 32-byte salt."""
    return b64(hashlib.sha256(_NONCE_TAG + broker_pin.encode() + b"\0" + salt).digest())


def demand_nonce(nonce: str, broker_pin: str, salt_header: str) -> None:
    """Raise `Refused` unless `nonce` belongs to the pinned broker."""
    salt = unb64(salt_header, SALT_HEADER, size=32)
    if not hmac.compare_digest(make_nonce(broker_pin, salt).encode(), nonce.encode()):
        raise Refused.because(
            "session.nonce",
            expected=f"a nonce made by the broker {broker_pin}",
            found="another nonce",
            hint="the manifest names another broker, or somebody relays this one",
        )


def report_data(nonce: str, tee_pubkey: dict[str, Any], additional: str = "") -> bytes:
    """SHA-384 (48 bytes) that primary evidence must carry."""
    document = {"additional-evidence": additional, "nonce": nonce, "tee-pubkey": tee_pubkey}
    return hashlib.sha384(jcs.canonical(document)).digest()


def purpose_data(purpose: str, data: bytes) -> bytes:
    """SHA-384 over a purpose tag and data, for every use of evidence that is not key release."""
    return hashlib.sha384(_PURPOSE_TAG + purpose.encode() + b"\0" + data).digest()
