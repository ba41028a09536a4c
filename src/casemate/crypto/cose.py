"""COSE_Sign1 (RFC 9052 section 4.2) with ECDSA (RFC 9053 section 2.1): one signer, attached payload.

The protected header is signed as the bytes that came, so it may be encoded in any valid way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from casemate.errors import Malformed
from casemate.wire import cbor

TAG_SIGN1 = 18
ES256, ES384 = -7, -35
_ALGORITHMS: dict[int, tuple[str, int, hashes.HashAlgorithm]] = {
    ES256: ("secp256r1", 32, hashes.SHA256()),
    ES384: ("secp384r1", 48, hashes.SHA384()),
}


@dataclass(frozen=True)
class Sign1:
    """A parsed message. `headers` are the protected ones by label; unprotected ones are never believed."""

    protected: bytes
    headers: dict[int | str, Any]
    unprotected: dict[int | str, Any]
    payload: bytes
    signature: bytes

    @property
    def algorithm(self) -> int | None:
        """The protected algorithm (label 1), None when it is absent or no integer."""
        found = self.headers.get(1)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def verify(self, key: ec.EllipticCurvePublicKey, *, external: bytes = b"") -> bool:
        """Whether `key` signed it with the algorithm that the protected header names; one not known here is False."""
        curve, width, digest = _ALGORITHMS.get(self.algorithm or 0, ("", 0, hashes.SHA256()))
        if key.curve.name != curve or len(self.signature) != 2 * width:
            return False
        r, s = (int.from_bytes(part, "big") for part in (self.signature[:width], self.signature[width:]))
        try:
            key.verify(
                encode_dss_signature(r, s), signed_bytes(self.protected, self.payload, external), ec.ECDSA(digest)
            )
        except InvalidSignature:
            return False
        return True


def signed_bytes(protected: bytes, payload: bytes, external: bytes = b"") -> bytes:
    """The Sig_structure that is signed."""
    return cbor.dumps(["Signature1", protected, external, payload])


def parse(data: bytes, name: str = "COSE_Sign1", *, limit: int = 1 << 20) -> Sign1:
    """Parse a tagged or untagged COSE_Sign1; a detached payload and critical headers (label 2) are `Malformed`."""
    item = cbor.loads(data, name, limit=limit)
    if isinstance(item, cbor.Tagged) and item.tag == TAG_SIGN1:
        item = item.value
    if not isinstance(item, list) or len(item) != 4:
        raise Malformed(f"{name}: an array of four is wanted")
    protected, unprotected, payload, signature = item
    if not all(isinstance(part, bytes) for part in (protected, payload, signature)) or not isinstance(
        unprotected, dict
    ):
        raise Malformed(f"{name}: byte string, map, byte string, byte string are wanted")
    headers = cbor.loads(protected, f"{name} protected header") if protected else {}
    if not isinstance(headers, dict) or 2 in headers:
        raise Malformed(f"{name}: the protected header is no map, or names critical headers")
    return Sign1(protected, headers, unprotected, payload, signature)
