"""The platform CA of a development platform: it certifies the AK of each virtual TPM of this host.

Standard: TCG EK Credential Profile 2.5; TPM 2.0 Library Part 1 section 24 (credential protection). For each TPM:

  1. its EK certificate must chain to the local EK authority (whose key made it when the TPM was manufactured);
  2. the AK's public area must be exactly ours: P-256, ECDSA-SHA256, attributes 0x00050472;
  3. a secret is encrypted to the EK and to the AK's name (MakeCredential); the TPM must open it (ActivateCredential);
  4. only then is the AK certified, and verifiers may conclude 2 from the certificate.

Class `development`: whoever owns the host owns these keys, so nothing here protects from the host.

    <folder>/key.pem  certificate.pem  revoked.json      the platform CA
    <folder>/ek/signkey.pem  issuercert.pem  ...         the EK authority, used by swtpm_localca
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier

from casemate.crypto import chain
from casemate.crypto.pins import certificate_pin
from casemate.errors import Malformed, Refused, Unusable
from casemate.schema.endorsements import DEVELOPMENT, Anchor
from casemate.tee.tpm import report
from casemate.tee.tpm.wire import EK_CERTIFICATE_INDEX, Tpm, make_credential

__all__ = ["Certified", "PlatformCa", "locked"]

AK_DAYS = 365
_CA_DAYS = 3650
_CRL_DAYS = 7
_SKEW = timedelta(minutes=5)
_EK_USAGE = frozenset({"2.23.133.8.1"})  # tcg-kp-EKCertificate
_AK_USAGE = ObjectIdentifier("2.23.133.8.3")  # tcg-kp-AIKCertificate


@dataclass(frozen=True)
class Certified:
    """A certified AK: its certificate (DER), its TPM name (hex) and the end of its validity."""

    certificate: bytes
    name: str
    not_after: datetime


@dataclass(frozen=True)
class PlatformCa:
    """The CA in `folder`. Open it with `PlatformCa.open`, which makes it on first use."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def open(cls, folder: Path) -> PlatformCa:
        """The CA in `folder`, made when there is none; `Unusable` when its files do not fit each other."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            key, certificate = _authority(folder, "Casemate development platform CA", "key.pem", "certificate.pem")
            (folder / "ek").mkdir(mode=0o700, exist_ok=True)
            _authority(folder / "ek", "Casemate development EK CA", "signkey.pem", "issuercert.pem")
        return cls(folder, key, certificate)

    @property
    def der(self) -> bytes:
        """The CA's certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def certificate_path(self) -> Path:
        """The CA's certificate as a PEM file."""
        return self.folder / "certificate.pem"

    @property
    def ek_authority(self) -> Path:
        """The folder of the EK authority, for `drivers.swtpm.manufacture`."""
        return self.folder / "ek"

    @property
    def anchor(self) -> Anchor:
        """This CA as an anchor of class `development`."""
        pin = certificate_pin(self.der).removeprefix("sha256:")[:16]
        return Anchor(certificate=self.der, platform_class=DEVELOPMENT, name=f"development platform {pin}")

    def certify(self, tpm: Tpm) -> Certified:
        """Make an AK in a started TPM, prove it, certify it, and leave key and certificate in the TPM."""
        ek = self._endorsement_key(tpm)
        handle, public = tpm.create_primary(report.RH_ENDORSEMENT, report.ak_public(b"", b""))
        try:
            name, key = _attestation_key(public)
            self._prove(tpm, handle, ek, name)
            certified = self._issue(key, name)
            tpm.evict(handle, report.AK_HANDLE)
        finally:
            tpm.flush(handle)
        tpm.nv_define(report.AK_CHAIN_INDEX, len(certified.certificate))
        tpm.nv_write(report.AK_CHAIN_INDEX, certified.certificate)
        return certified

    def revoke(self, certificate: bytes) -> None:
        """Put an AK certificate of this CA on the revocation list."""
        serial = chain.load(certificate, "AK certificate").cert.serial_number
        with locked(self.folder / ".lock"):
            revoked = self._revoked()
            revoked.setdefault(f"{serial:x}", datetime.now(UTC).isoformat())
            _write(self.folder / "revoked.json", json.dumps(revoked, indent=1).encode(), 0o600)

    def crl(self, now: datetime | None = None) -> bytes:
        """A fresh revocation list, DER, good for a week."""
        start = now or datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(start - _SKEW)
            .next_update(start + timedelta(days=_CRL_DAYS))
        )
        for serial, when in self._revoked().items():
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
            builder = builder.add_revoked_certificate(entry.revocation_date(datetime.fromisoformat(when)).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _revoked(self) -> dict[str, str]:
        try:
            return dict(json.loads((self.folder / "revoked.json").read_bytes()))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError) as error:
            raise Unusable(f"{self.folder / 'revoked.json'}: not a list of serial numbers") from error

    def _endorsement_key(self, tpm: Tpm) -> rsa.RSAPublicKey:
        """The key of the TPM's EK certificate, after its chain was judged."""
        der = tpm.nv_read(EK_CERTIFICATE_INDEX)
        issuer = x509.load_pem_x509_certificate((self.ek_authority / "issuercert.pem").read_bytes())
        path = chain.walk(
            [der],
            [issuer.public_bytes(Encoding.DER)],
            datetime.now(UTC),
            rule="tpm.ek",
            leaf_usages=_EK_USAGE,
            leaf_bit="key_encipherment",
        )
        if path.findings:
            raise Refused(path.findings)
        key = chain.load(der).cert.public_key()
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 2048:
            raise Refused.because("tpm.ek.key", expected="an RSA-2048 EK", found=type(key).__name__)
        return key

    def _prove(self, tpm: Tpm, handle: int, ek: rsa.RSAPublicKey, name: bytes) -> None:
        """MakeCredential here, ActivateCredential there."""
        numbers, secret = ek.public_numbers(), secrets.token_bytes(32)
        modulus = numbers.n.to_bytes(256, "big")
        blob, seed = make_credential(modulus, numbers.e, name, secret)
        if not hmac.compare_digest(tpm.activate_credential(handle, blob=blob, encrypted=seed), secret):
            raise Refused.because("tpm.ak.activation", expected="the secret of the credential", found="another value")

    def _issue(self, key: ec.EllipticCurvePublicKey, name: bytes) -> Certified:
        now = datetime.now(UTC)
        end = min(now + timedelta(days=AK_DAYS), self.certificate.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(f"AK {name.hex()[4:20]}"))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_AK_USAGE]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Certified(certificate.public_bytes(Encoding.DER), name.hex(), certificate.not_valid_after_utc)


def _attestation_key(public: bytes) -> tuple[bytes, ec.EllipticCurvePublicKey]:
    """(name, key) of an AK's public area, which must be our template to the byte."""
    parsed = report.parse_public(public)
    if parsed.type != report.ALG_ECC or public != report.ak_public(*parsed.unique):
        raise Refused.because(
            "tpm.ak.attributes",
            expected=f"a P-256 ECDSA-SHA256 key with attributes {report.AK_ATTRIBUTES:#010x}",
            found=f"type {parsed.type:#06x} with attributes {parsed.attributes:#010x}",
        )
    x, y = (int.from_bytes(part, "big") for part in parsed.unique)
    try:
        return report.name(public), ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError as error:
        raise Malformed("TPMT_PUBLIC: the AK's point is not on its curve") from error


def _authority(
    folder: Path, name: str, key_name: str, cert_name: str
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Key and self-signed certificate in `folder`, made when the certificate is missing (it is written last)."""
    if not (folder / cert_name).is_file():
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(folder / key_name, pem, 0o600)
        _write(folder / cert_name, _self_signed(key, name).public_bytes(Encoding.PEM), 0o644)
    try:
        loaded = load_pem_private_key((folder / key_name).read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / cert_name).read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise Unusable(f"{folder}: the CA's files cannot be read", hint="remove the folder to make a new CA") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != certificate.public_key():
        raise Unusable(
            f"{folder}: key and certificate do not belong together", hint="remove the folder to make a new CA"
        )
    return loaded, certificate


def _self_signed(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, ca: bool) -> x509.KeyUsage:
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


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file in one step, never readable by others while a key is in it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), mode)
    draft.replace(path)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on the file `path`; yields False at once when `wait` is off and another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
