"""Keys of a volume, derived from its key resource: HKDF-SHA256 (RFC 5869), one output per purpose.

The salt is the formatting's uuid, the info names purpose, owning app and volume. So sectors of another volume, of
another app, or of an earlier formatting of the same disk are foreign, even where the key resource is the same.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

from casemate.errors import Malformed
from casemate.volume import tables

SECRET_BYTES = 32
_TAG = b"casemate volume v1"


class Keys(NamedTuple):
    """`data` for dm-crypt, `journal` for dm-integrity's journal MAC."""

    data: bytes
    journal: bytes

    def __repr__(self) -> str:
        return "Keys(...)"


def derive(secret: bytes, *, app: str, name: str, uuid: str) -> Keys:
    """The keys of the volume `name` of `app` (its digest) for the formatting `uuid` (hex)."""
    if len(secret) != SECRET_BYTES:
        raise Malformed(f"volume key: {len(secret)} bytes, {SECRET_BYTES} wanted")
    pseudorandom = hmac.digest(bytes.fromhex(uuid), secret, "sha256")

    def expand(purpose: bytes, size: int) -> bytes:
        # One block of output is enough: no key is longer than SHA-256's 32 bytes.
        info = b"\0".join((_TAG, purpose, app.encode(), name.encode()))
        return hmac.digest(pseudorandom, info + b"\1", "sha256")[:size]

    return Keys(expand(b"data", tables.KEY_BYTES), expand(b"journal", tables.MAC_KEY_BYTES))
