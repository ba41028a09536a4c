"""Pins: `sha256:<64 hex>` over the DER SubjectPublicKeyInfo of a key (RFC 7469 section 2.4, OCI spelling).

The SubjectPublicKeyInfo is cut out of a certificate by walking its DER (RFC 5280 section 4.1), because importing an
X.509 parser costs the guest a third of a second and the pin needs only these bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from casemate.errors import Malformed

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest(data: bytes) -> str:
    """`sha256:<hex>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` is a well-formed `sha256:<hex>`."""
    return _DIGEST.fullmatch(text) is not None


def matches(expected: str, data: bytes) -> bool:
    """Compare `sha256:<hex>` with the digest of `data` in constant time; a malformed `expected` never matches."""
    return is_digest(expected) and hmac.compare_digest(expected, digest(data))


def certificate_pin(der: bytes) -> str:
    """The pin of the key in an X.509 certificate given as DER."""
    return digest(subject_public_key_info(der))


def subject_public_key_info(der: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo of a certificate: the field after subject in TBSCertificate."""
    _, certificate, _ = _element(der, 0, 0x30)
    _, tbs, _ = _element(certificate, 0, 0x30)
    position = 0
    if tbs[:1] == b"\xa0":  # version, explicit [0]
        _, _, position = _element(tbs, 0, 0xA0)
    for tag in (0x02, 0x30, 0x30, 0x30, 0x30):  # serial, signature, issuer, validity, subject
        _, _, position = _element(tbs, position, tag)
    whole, _, _ = _element(tbs, position, 0x30)
    return whole


def _element(data: bytes, start: int, tag: int) -> tuple[bytes, bytes, int]:
    """(whole element, its content, offset behind it) of the DER element at `start`, which must carry `tag`."""
    if start + 2 > len(data) or data[start] != tag:
        raise Malformed(f"certificate: DER tag {tag:#x} wanted at offset {start}")
    first, body = data[start + 1], start + 2
    if first & 0x80:
        count = first & 0x7F
        if not 1 <= count <= 4 or body + count > len(data):
            raise Malformed("certificate: bad DER length")
        first = int.from_bytes(data[body : body + count], "big")
        body += count
    end = body + first
    if end > len(data):
        raise Malformed("certificate: DER element runs past the end")
    return data[start:end], data[body:end], end
