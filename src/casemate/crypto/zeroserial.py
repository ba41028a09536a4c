"""Certificates with serial number 0: every VCEK and VLEK that AMD issues has it.

RFC 5280 section 4.1.2.2 asks for a positive serial, so `cryptography` warns and says that it will refuse. Such a
certificate is therefore read from a copy with serial number 1 (the same length in DER), and signatures are checked over
the bytes as they were signed.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from casemate.errors import Malformed

_ZERO = b"\x02\x01\x00"
_VERSION = b"\xa0\x03\x02\x01\x02"  # v3; the only version with extensions, so the only one that is met


def has(der: bytes) -> bool:
    """Whether `der` is a v3 certificate with serial number 0."""
    return _serial_at(der) >= 0


def readable(der: bytes) -> bytes:
    """`der`, or a copy of it with serial number 1. For reading only: its signature no longer fits."""
    at = _serial_at(der)
    return der if at < 0 else der[: at + 2] + b"\x01" + der[at + 3 :]


def signed_by(der: bytes, copy: x509.Certificate, key: CertificatePublicKeyTypes) -> bool:
    """Whether `key` signed the certificate `der`, of which `copy` is the readable copy."""
    at = _serial_at(der)
    if at < 0:
        raise Malformed("certificate: its serial number is not 0")
    tbs, parameters = copy.tbs_certificate_bytes, copy.signature_algorithm_parameters
    start = _content(der, 0)
    message = der[start : start + len(tbs)]
    # The algorithm stands twice, inside what is signed and behind it; they must agree (RFC 5280 section 4.1.1.2).
    inside, behind = der[at + len(_ZERO) :], der[start + len(tbs) :]
    size = 2 + inside[1]
    if inside[1] & 0x80 or inside[:size] != behind[:size]:
        return False
    algorithm = copy.signature_hash_algorithm
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            if not isinstance(parameters, (padding.PSS, padding.PKCS1v15)):
                return False
            key.verify(copy.signature, message, parameters, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            key.verify(copy.signature, message, parameters)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _serial_at(der: bytes) -> int:
    """The offset of the serial number's DER when it is 0, else -1."""
    outer = _content(der, 0)
    inner = _content(der, outer)
    if inner < 0 or der[inner : inner + 5] != _VERSION or der[inner + 5 : inner + 8] != _ZERO:
        return -1
    return inner + 5


def _content(der: bytes, start: int) -> int:
    """Where the content of the DER SEQUENCE at `start` begins, or -1."""
    if start < 0 or der[start : start + 1] != b"\x30" or start + 1 >= len(der):
        return -1
    first = der[start + 1]
    return start + 2 + (first & 0x7F if first & 0x80 else 0)
