"""Certificates in PEM (RFC 7468) to DER, bounded; text around the blocks is ignored."""

from __future__ import annotations

import base64
import binascii
import re

from casemate.errors import Malformed

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----")


def certificates(data: bytes, name: str = "PEM", *, limit: int = 64 << 10, most: int = 8) -> tuple[bytes, ...]:
    """The DER of each certificate block, in order; at least one."""
    if len(data) > limit:
        raise Malformed(f"{name}: {len(data)} bytes, at most {limit} allowed")
    blocks = _BLOCK.findall(data)
    if not 1 <= len(blocks) <= most:
        raise Malformed(f"{name}: {len(blocks)} certificates, 1 to {most} wanted")
    return tuple(_decode(b"".join(block.split()), name) for block in blocks)


def _decode(text: bytes, name: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Malformed(f"{name}: a certificate that is not base64") from error
    if base64.b64encode(found) != text:  # stray bits at the end: two texts for one certificate
        raise Malformed(f"{name}: a certificate that is not base64 in its one form")
    return found
