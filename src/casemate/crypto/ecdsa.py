"""ECDSA over raw points and raw signatures, as hardware gives them: X | Y and r | s, big-endian."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature


def p256_key(point: bytes) -> ec.EllipticCurvePublicKey | None:
    """The P-256 key of X | Y (64 bytes), None when that is no point of the curve."""
    return _key(ec.SECP256R1(), point)


def p384_key(point: bytes) -> ec.EllipticCurvePublicKey | None:
    """The P-384 key of X | Y (96 bytes), None when that is no point of the curve."""
    return _key(ec.SECP384R1(), point)


def verify_p256(key: object, signature: bytes, message: bytes) -> bool:
    """Whether `key` is a P-256 key that signed `message` (SHA-256) with r | s; false for all else."""
    return _verify(key, "secp256r1", signature, message, hashes.SHA256())


def verify_p384(key: object, signature: bytes, message: bytes) -> bool:
    """Whether `key` is a P-384 key that signed `message` (SHA-384) with r | s; false for all else."""
    return _verify(key, "secp384r1", signature, message, hashes.SHA384())


def _key(curve: ec.EllipticCurve, point: bytes) -> ec.EllipticCurvePublicKey | None:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + point)
    except ValueError:
        return None


def _verify(key: object, curve: str, signature: bytes, message: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != curve:
        return False
    half = (key.key_size + 7) // 8
    if len(signature) != 2 * half:
        return False
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True
