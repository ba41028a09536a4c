"""A self-signed TLS certificate (RFC 5280) for a pinned key: the pin is of the key, so a renewed one keeps it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=60)


def certificate(key: ec.EllipticCurvePrivateKey, names: Iterable[str], now: datetime) -> x509.Certificate:
    """A certificate of `LIFETIME` for DNS names and IP addresses."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "casemate broker")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def is_due(found: x509.Certificate, key: ec.EllipticCurvePrivateKey, now: datetime) -> bool:
    """Whether a certificate must be made anew: near its end, or of another key."""
    ends = found.not_valid_after_utc
    return ends - now < RENEW_BEFORE or found.public_key() != key.public_key()


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8 PEM, not encrypted: the file's mode protects it."""
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
