"""A small certificate authority for fake vendors: any extension, any window, RSA-PSS or ECDSA, serial number 0.

root = Authority("Fake root")
sub = root.subordinate("Fake intermediate")
leaf = sub.issue("Fake leaf", key.public_key(), extensions=[(oid, der, critical)])
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

START = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2049, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
_SERIALS = itertools.count(1000)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Extension = tuple[str, bytes, bool]


def p384() -> ec.EllipticCurvePrivateKey:
    """A new P-384 key."""
    return ec.generate_private_key(ec.SECP384R1())


def p256() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def rsa2048() -> rsa.RSAPrivateKey:
    """A new RSA key, as small as the rules allow."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Authority:
    """A certificate authority; without `issuer` a root. RSA keys sign with PSS and SHA-384, as AMD's do."""

    name: str
    key: Key = field(default_factory=p384)
    issuer: Authority | None = None
    window: tuple[datetime, datetime] = (START, END)
    path_length: int | None = None
    ca: bool = True
    certificate: bytes = b""

    def __post_init__(self) -> None:
        signer = self.issuer or self
        self.certificate = self.certificate or signer.issue(
            self.name, self.key, window=self.window, ca=self.ca, path_length=self.path_length
        )

    def subordinate(
        self, name: str, key: Key | None = None, window: tuple[datetime, datetime] = (START, END)
    ) -> Authority:
        """An authority below this one."""
        return Authority(name, key or p384(), issuer=self, path_length=0, window=window)

    def issue(
        self,
        name: str,
        key: Key,
        *,
        window: tuple[datetime, datetime] = (START, END),
        ca: bool = False,
        path_length: int | None = None,
        extensions: Iterable[Extension] = (),
        serial: int | None = None,
        bare: bool = False,
    ) -> bytes:
        """A certificate (DER) for the public half of `key`. `bare` leaves basicConstraints and keyUsage out."""
        builder = (
            x509.CertificateBuilder(_name(self.name), _name(name), key.public_key())
            .serial_number(serial or next(_SERIALS))
            .not_valid_before(window[0])
            .not_valid_after(window[1])
        )
        if not bare:
            constraints = x509.BasicConstraints(ca=ca, path_length=path_length)
            builder = builder.add_extension(constraints, critical=True).add_extension(_usage(ca=ca), critical=True)
        for oid, value, critical in extensions:
            unknown = x509.UnrecognizedExtension(ObjectIdentifier(oid), value)
            builder = builder.add_extension(unknown, critical=critical)
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48) if isinstance(self.key, rsa.RSAPrivateKey) else None
        cert = builder.sign(self.key, self._hash, rsa_padding=pss)
        return self._with_serial_zero(cert) if serial == 0 else cert.public_bytes(Encoding.DER)

    def crl(
        self, revoked: Iterable[bytes] = (), *, start: datetime = NOW - timedelta(days=1),
        end: datetime = NOW + timedelta(days=30), key: Key | None = None,
    ) -> bytes:  # fmt: skip
        """A revocation list (DER) of this authority with the certificates `revoked` (DER)."""
        builder = x509.CertificateRevocationListBuilder(_name(self.name), start, end)
        for der in revoked:
            number = x509.load_der_x509_certificate(der).serial_number
            entry = x509.RevokedCertificateBuilder(number, start).build()
            builder = builder.add_revoked_certificate(entry)
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48) if isinstance(self.key, rsa.RSAPrivateKey) else None
        return builder.sign(key or self.key, self._hash, rsa_padding=pss).public_bytes(Encoding.DER)

    @property
    def _hash(self) -> hashes.SHA256 | hashes.SHA384:
        return hashes.SHA256() if getattr(self.key, "curve", None) and self.key.key_size == 256 else hashes.SHA384()

    def _with_serial_zero(self, cert: x509.Certificate) -> bytes:
        """The same certificate with its four-byte-free serial number replaced by 0, signed anew."""
        old = der(0x02, cert.serial_number.to_bytes((cert.serial_number.bit_length() + 8) // 8, "big"))
        body = _content(cert.tbs_certificate_bytes).replace(old, b"\x02\x01\x00", 1)
        tbs, whole = der(0x30, body), cert.public_bytes(Encoding.DER)
        rest = _content(whole)[len(cert.tbs_certificate_bytes) :]
        algorithm = rest[: 2 + rest[1]]
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(tbs, padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())
        else:
            signature = self.key.sign(tbs, ec.ECDSA(self._hash))
        return der(0x30, tbs + algorithm + der(0x03, b"\x00" + signature))


def der(tag: int, content: bytes) -> bytes:
    """One DER element."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    width = (size.bit_length() + 7) // 8
    return bytes([tag, 0x80 | width]) + size.to_bytes(width, "big") + content


def der_int(value: int) -> bytes:
    """A DER INTEGER, not negative."""
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def der_oid(dotted: str) -> bytes:
    """A DER OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    out = bytes([40 * first + second])
    for arc in rest:
        chunk = [arc & 0x7F]
        while arc := arc >> 7:
            chunk.append(0x80 | arc & 0x7F)
        out += bytes(reversed(chunk))
    return der(0x06, out)


def pem(*certificates: bytes) -> bytes:
    """Certificates (DER) as PEM."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


def _content(element: bytes) -> bytes:
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
