"""ID block and key digests: how a guest's owner signs what may be launched, and what a report then shows of the keys.

Standard: SEV-SNP Firmware ABI (56860), SNP_LAUNCH_FINISH (ID block, ID authentication) and its formats of public keys.
The report's ID_KEY_DIGEST and AUTHOR_KEY_DIGEST are SHA-384 over the public key in the firmware's own form.
"""

from __future__ import annotations

import hashlib

from casemate.errors import Unusable

SIZE = 96
_CURVE_P384, _COORDINATE, _KEY = 2, 72, 0x404
_VERSION = 1


def block(
    launch_digest: bytes,
    *,
    policy: int = 0x30000,
    guest_svn: int = 0,
    family_id: bytes = bytes(16),
    image_id: bytes = bytes(16),
) -> bytes:
    """The 96 bytes that an ID key signs (ECDSA P-384, SHA-384): what may be launched, under which policy."""
    for name, value, size in (
        ("launch digest", launch_digest, 48),
        ("family id", family_id, 16),
        ("image id", image_id, 16),
    ):
        if len(value) != size:
            raise Unusable(f"ID block: a {name} of {len(value)} bytes, {size} wanted")
    numbers = _VERSION.to_bytes(4, "little") + guest_svn.to_bytes(4, "little") + policy.to_bytes(8, "little")
    return launch_digest + family_id + image_id + numbers


def key_digest(point: bytes) -> bytes:
    """The digest that reports show of a P-384 key, given as X | Y (96 bytes, big-endian)."""
    if len(point) != 96:
        raise Unusable(f"ID key: a point of {len(point)} bytes, 96 wanted (P-384)")
    x, y = (part[::-1].ljust(_COORDINATE, b"\0") for part in (point[:48], point[48:]))
    return hashlib.sha384((_CURVE_P384.to_bytes(4, "little") + x + y).ljust(_KEY, b"\0")).digest()
