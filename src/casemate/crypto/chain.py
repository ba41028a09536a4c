"""Certificate paths from a leaf to a trusted root, with every failed rule (RFC 5280 section 6, the parts we need).

Judged: signatures and names, validity at a given time, basicConstraints with path length, keyUsage, the leaf's extended
key usage, unknown critical extensions (refused), and revocation where a CRL of the issuer is given. Not judged: name
constraints (critical ones are refused as unknown), policies, AIA and distribution points (nothing is fetched).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.errors import Finding, Malformed

MAX_LENGTH = 5
_MAX_BYTES = 16 << 10
_HASHES = {"sha256", "sha384", "sha512"}
_KNOWN = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
_X509_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_Ext = TypeVar("_Ext", bound=x509.ExtensionType)


@dataclass
class Path:
    """What came of a walk. `root` is the index into the given roots, None when no path was found."""

    root: int | None = None
    not_after: datetime | None = None
    leaf_key: bytes = b""
    revocation: str = "not checked"
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Certificate:
    """A certificate with the fields that the rules use, read once so that errors surface here."""

    cert: x509.Certificate
    subject: str
    ca: x509.BasicConstraints | None
    usage: x509.KeyUsage | None
    extended: frozenset[str]
    unknown_critical: tuple[str, ...]
    key: bytes


def load(der: bytes, name: str = "certificate") -> Certificate:
    """Parse one DER certificate; every defect is `Malformed`."""
    if len(der) > _MAX_BYTES:
        raise Malformed(f"{name}: {len(der)} bytes, at most {_MAX_BYTES} allowed")
    try:
        cert = x509.load_der_x509_certificate(der)
        extensions = cert.extensions
        extended = _extension(extensions, x509.ExtendedKeyUsage)
        unknown = tuple(e.oid.dotted_string for e in extensions if e.critical and not isinstance(e.value, _KNOWN))
        # Read all that the rules read later: `cryptography` parses lazily and would raise there.
        _ = (cert.issuer, cert.not_valid_before_utc, cert.not_valid_after_utc, cert.signature_hash_algorithm)
        return Certificate(
            cert=cert,
            subject=cert.subject.rfc4514_string()[:128] or "(no name)",
            ca=_extension(extensions, x509.BasicConstraints),
            usage=_extension(extensions, x509.KeyUsage),
            extended=frozenset(o.dotted_string for o in extended) if extended else frozenset(),
            unknown_critical=unknown,
            key=cert.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        )
    except _X509_ERRORS as error:
        raise Malformed(f"{name}: not a usable X.509 certificate ({type(error).__name__})") from error


def walk(
    chain: Sequence[bytes],
    roots: Sequence[bytes],
    now: datetime,
    *,
    rule: str,
    leaf_usages: frozenset[str],
    crls: Sequence[bytes] = (),
) -> Path:
    """Follow `chain` (leaf first) to one of `roots`, all DER.

    Findings are named `<rule>.chain`, `.validity`, `.usage`, `.revoked`. `leaf_usages` are extended key usages of which
    the leaf must have one. A `crls` entry counts for the issuer that signed it; one that is stale is a finding.
    """
    path = Path()
    if not 1 <= len(chain) <= MAX_LENGTH:
        path.findings.append(
            Finding(
                f"{rule}.chain",
                f"1 to {MAX_LENGTH} certificates",
                f"{len(chain)}",
                "the attester must send the certificates of its key",
            )
        )
        return path
    certificates = [load(der, f"{rule} certificate {i}") for i, der in enumerate(chain)]
    trusted = [load(der, f"trusted root {i}") for i, der in enumerate(roots)]
    path.leaf_key = certificates[0].key
    links = _links(certificates, trusted, path, rule)
    for position, item in enumerate(links):
        path.findings += _judge(item, position, now, rule, leaf_usages)
    path.not_after = min(item.cert.not_valid_after_utc for item in links)
    if crls:
        _revocation(links, crls, now, path, rule)
    return path


def _links(chain: list[Certificate], roots: list[Certificate], path: Path, rule: str) -> list[Certificate]:
    """The certificates from leaf to root, both included; a finding when no root is reached."""
    links, rest = [chain[0]], chain[1:]
    while len(links) <= MAX_LENGTH:
        current = links[-1]
        for index, root in enumerate(roots):
            if current.cert == root.cert or _issued(current, root):
                path.root = index
                return links if current.cert == root.cert else [*links, root]
        issuer = next((c for c in rest if _issued(current, c)), None)
        if issuer is None:
            break
        rest = [c for c in rest if c is not issuer]
        links.append(issuer)
    path.findings.append(
        Finding(
            f"{rule}.chain",
            "a path to a trusted root: " + (", ".join(r.subject for r in roots) or "none is configured"),
            f"no trusted issuer of {links[-1].subject}",
            "anchor this platform's root if you trust it, or ask for evidence from a trusted platform",
        )
    )
    return links


def _issued(child: Certificate, issuer: Certificate) -> bool:
    algorithm = child.cert.signature_hash_algorithm
    if child.cert.issuer != issuer.cert.subject or algorithm is None or algorithm.name not in _HASHES:
        return False
    try:
        child.cert.verify_directly_issued_by(issuer.cert)
    except (*_X509_ERRORS, InvalidSignature):
        return False
    return True


def _judge(item: Certificate, position: int, now: datetime, rule: str, leaf_usages: frozenset[str]) -> list[Finding]:
    findings = []
    start, end = item.cert.not_valid_before_utc, item.cert.not_valid_after_utc
    if not start <= now <= end:
        findings.append(
            Finding(
                f"{rule}.validity",
                f"{item.subject} valid at {now:%Y-%m-%dT%H:%M:%SZ}",
                f"valid {start:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}",
                "the certificate must be renewed, or a clock is wrong",
            )
        )
    fault = _leaf_fault(item, leaf_usages) if position == 0 else _issuer_fault(item, position)
    fault = fault or ("an unknown critical extension " + item.unknown_critical[0] if item.unknown_critical else "")
    fault = fault or _key_fault(item)
    if fault:
        role = "an end certificate for this use" if position == 0 else "a certificate authority"
        findings.append(
            Finding(f"{rule}.usage", f"{item.subject} is {role}", fault, "the issuer made it for another use")
        )
    return findings


def _leaf_fault(item: Certificate, usages: frozenset[str]) -> str:
    if item.ca is not None and item.ca.ca:
        return "it is a certificate authority"
    if item.usage is None or not item.usage.digital_signature or item.usage.key_cert_sign:
        return "its keyUsage is not digitalSignature"
    if not item.extended & usages:
        return "its extended key usage is " + (", ".join(sorted(item.extended)) or "absent")
    return ""


def _issuer_fault(item: Certificate, position: int) -> str:
    if item.ca is None or not item.ca.ca:
        return "its basicConstraints do not make it an authority"
    if item.ca.path_length is not None and item.ca.path_length < position - 1:
        return f"its path length {item.ca.path_length} is exceeded"
    if item.usage is None or not item.usage.key_cert_sign:
        return "its keyUsage does not let it sign certificates"
    return ""


def _key_fault(item: Certificate) -> str:
    key = item.cert.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "" if key.key_size >= 2048 else f"an RSA key of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if key.curve.name in ("secp256r1", "secp384r1", "secp521r1") else f"a key on {key.curve.name}"
    return "a key that is neither RSA nor EC"


def _revocation(links: list[Certificate], crls: Sequence[bytes], now: datetime, path: Path, rule: str) -> None:
    lists = [_load_crl(der) for der in crls]
    checked = 0
    for child, issuer in pairwise(links):
        for crl in (c for c in lists if _signed_by(c, issuer)):
            end = crl.next_update_utc
            if not crl.last_update_utc <= now or end is None or now > end:
                path.findings.append(
                    Finding(
                        f"{rule}.revoked", "a current revocation list", f"one that ends {end}", "fetch a newer list"
                    )
                )
            elif crl.get_revoked_certificate_by_serial_number(child.cert.serial_number) is not None:
                found = f"{child.subject}, serial {child.cert.serial_number:x}, is on the list"
                path.findings.append(Finding(f"{rule}.revoked", "no revoked certificate", found, "prepare a new key"))
            else:
                checked += 1
                path.not_after = min(path.not_after or end, end)
    if checked == len(links) - 1:
        path.revocation = "checked"
    elif checked:
        path.revocation = "partly checked"


def _load_crl(der: bytes) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_der_x509_crl(der)
        _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc, len(crl))
    except _X509_ERRORS as error:
        raise Malformed(f"revocation list: cannot be read ({type(error).__name__})") from error
    return crl


def _signed_by(crl: x509.CertificateRevocationList, issuer: Certificate) -> bool:
    if crl.issuer != issuer.cert.subject or (issuer.usage is not None and not issuer.usage.crl_sign):
        return False
    try:
        return crl.is_signature_valid(issuer.cert.public_key())  # type: ignore[arg-type]  # other key types raise TypeError
    except _X509_ERRORS:
        return False


def _extension(extensions: x509.Extensions, kind: type[_Ext]) -> _Ext | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
