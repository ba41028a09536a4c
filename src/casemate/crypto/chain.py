"""Certificate paths from a leaf to a trusted root, with every failed rule (RFC 5280 section 6, the parts we need).

Judged: signatures and names, validity at a given time, basicConstraints with path length, keyUsage, the leaf's extended
key usage, unknown critical extensions (refused), and revocation where a CRL of the issuer is given: a full one for all
of the issuer's certificates (section 5.2; others are refused by `<rule>.revoked`). Not judged: name constraints
(critical ones are refused as unknown), policies, AIA and distribution points (nothing is fetched).

What does not depend on time is remembered by the bytes that it is a function of: parsed certificates and lists, and
whether one signed another. Validity and revocation are judged anew on every walk.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.crypto import zeroserial
from casemate.errors import Finding, Malformed

MAX_LENGTH = 5
_REMEMBERED = 512
_LISTS_REMEMBERED = 32
_MAX_BYTES = 16 << 10
_MAX_LIST_BYTES = 4 << 20
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


@dataclass(frozen=True)
class Certificate:
    """A certificate with the fields that the rules use, read once so that errors surface here.

    `cert` is for reading only: where the serial number is 0 it shows 1 (`zeroserial`). `der` is what was given. `names`
    are the DER of subject and issuer, `key_digest` the SHA-256 of `key` (DER SubjectPublicKeyInfo), `public` that key
    and `key_fault` why it is too weak, or empty.
    """

    cert: x509.Certificate
    der: bytes
    subject: str
    ca: x509.BasicConstraints | None
    usage: x509.KeyUsage | None
    extended: frozenset[str]
    unknown_critical: tuple[str, ...]
    key: bytes
    key_digest: bytes
    names: tuple[bytes, bytes]
    validity: tuple[datetime, datetime]
    public: PublicKeyTypes
    key_fault: str

    @property
    def serial(self) -> int:
        """The serial number."""
        return 0 if zeroserial.has(self.der) else self.cert.serial_number


@dataclass
class Path:
    """What came of a walk. `root` is the index into the given roots, None when no path was found.

    `links` are the certificates from the leaf up, as far as they reach.
    """

    root: int | None = None
    links: tuple[Certificate, ...] = ()
    not_after: datetime | None = None
    leaf_key: bytes = b""
    revocation: str = "not checked"
    findings: list[Finding] = field(default_factory=list)


def load(der: bytes, name: str = "certificate") -> Certificate:
    """Parse one DER certificate; every defect is `Malformed`."""
    if len(der) > _MAX_BYTES:
        raise Malformed(f"{name}: {len(der)} bytes, at most {_MAX_BYTES} allowed")
    try:
        return _load(der)
    except _X509_ERRORS as error:
        raise Malformed(f"{name}: not a usable X.509 certificate ({type(error).__name__})") from error


@lru_cache(maxsize=_REMEMBERED)
def _load(der: bytes) -> Certificate:
    cert = x509.load_der_x509_certificate(zeroserial.readable(der))
    if not der.endswith(b"\0" + cert.signature):  # a signature is whole bytes: no unused bits, nothing behind it
        raise ValueError("signature is not a whole number of bytes")
    extensions = cert.extensions
    extended = _extension(extensions, x509.ExtendedKeyUsage)
    unknown = tuple(e.oid.dotted_string for e in extensions if e.critical and not isinstance(e.value, _KNOWN))
    # Read all that the rules read later: `cryptography` parses lazily and would raise there.
    _ = (cert.issuer, cert.signature_hash_algorithm)
    public = cert.public_key()
    key = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Certificate(
        cert=cert,
        der=der,
        subject=cert.subject.rfc4514_string()[:128] or "(no name)",
        ca=_extension(extensions, x509.BasicConstraints),
        usage=_extension(extensions, x509.KeyUsage),
        extended=frozenset(o.dotted_string for o in extended) if extended else frozenset(),
        unknown_critical=unknown,
        key=key,
        key_digest=hashlib.sha256(key).digest(),
        names=(cert.subject.public_bytes(), cert.issuer.public_bytes()),
        validity=(cert.not_valid_before_utc, cert.not_valid_after_utc),
        public=public,
        key_fault=_key_fault(public),
    )


def walk(
    chain: Sequence[bytes],
    roots: Sequence[bytes],
    now: datetime,
    *,
    rule: str,
    leaf_usages: frozenset[str] | None,
    leaf_bit: str = "digital_signature",
    crls: Sequence[bytes] = (),
) -> Path:
    """Follow `chain` (leaf first) to one of `roots`, all DER.

    Findings are named `<rule>.chain`, `.validity`, `.usage`, `.revoked`. `leaf_usages` are extended key usages of which
    the leaf must have one; None is for vendors whose leaves name no use: then only what is stated counts. `leaf_bit`
    is the keyUsage bit that the leaf must have. A `crls` entry counts for the issuer that signed it; one that is stale
    is a finding.
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
    path.links = tuple(links)
    for position, item in enumerate(links):
        path.findings += _validity(item, now, rule)
        fault = _issuer_fault(item, position) if position else _leaf_fault(item, leaf_usages, leaf_bit)
        path.findings += _usage(item, position, fault, rule)
    path.not_after = min([item.validity[1] for item in links])
    if crls:
        _revocation(links, crls, now, path, rule)
    return path


def _links(chain: list[Certificate], roots: list[Certificate], path: Path, rule: str) -> list[Certificate]:
    """The certificates from leaf to root, both included; a finding when no root is reached."""
    links, rest = [chain[0]], chain[1:]
    while len(links) <= MAX_LENGTH:
        current = links[-1]
        for index, root in enumerate(roots):
            if current.der == root.der or _issued(current, root):
                path.root = index
                return links if current.der == root.der else [*links, root]
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
    return _issued_bytes(child.der, issuer.der)


@lru_cache(maxsize=_REMEMBERED)
def _issued_bytes(child_der: bytes, issuer_der: bytes) -> bool:
    child, issuer = _load(child_der), _load(issuer_der)
    algorithm = child.cert.signature_hash_algorithm
    if child.cert.issuer != issuer.cert.subject or algorithm is None or algorithm.name not in _HASHES:
        return False
    try:
        if zeroserial.has(child_der):
            return zeroserial.signed_by(child_der, child.cert, issuer.cert.public_key())
        child.cert.verify_directly_issued_by(issuer.cert)
    except (*_X509_ERRORS, InvalidSignature):
        return False
    return True


def is_root(der: bytes, key_digest: bytes) -> bool:
    """Whether `der` is a certificate of the key with this SHA-256 (of its DER), signed by that key itself.

    So a root can be pinned by its key alone, and no byte of its certificate can be changed. False for all else.
    """
    try:
        item = load(der)
    except Malformed:
        return False
    return hmac.compare_digest(item.key_digest, key_digest) and _issued(item, item)


def _validity(item: Certificate, now: datetime, rule: str) -> list[Finding]:
    start, end = item.validity
    if start <= now <= end:
        return []
    return [
        Finding(
            f"{rule}.validity",
            f"{item.subject} valid at {now:%Y-%m-%dT%H:%M:%SZ}",
            f"valid {start:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}",
            "the certificate must be renewed, or a clock is wrong",
        )
    ]


def _usage(item: Certificate, position: int, fault: str, rule: str) -> list[Finding]:
    fault = fault or ("an unknown critical extension " + item.unknown_critical[0] if item.unknown_critical else "")
    fault = fault or item.key_fault
    if not fault:
        return []
    role = "a certificate authority" if position else "an end certificate for this use"
    return [Finding(f"{rule}.usage", f"{item.subject} is {role}", fault, "the issuer made it for another use")]


def _leaf_fault(item: Certificate, usages: frozenset[str] | None, bit: str) -> str:
    if item.ca is not None and item.ca.ca:
        return "it is a certificate authority"
    stated = item.usage is not None or usages is not None
    if stated and (item.usage is None or not getattr(item.usage, bit) or item.usage.key_cert_sign):
        return f"its keyUsage is not {bit}"
    if usages is not None and not item.extended & usages:
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


def _key_fault(key: PublicKeyTypes) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return "" if key.key_size >= 2048 else f"an RSA key of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if key.curve.name in ("secp256r1", "secp384r1", "secp521r1") else f"a key on {key.curve.name}"
    return "a key that is neither RSA nor EC"


def _revocation(links: list[Certificate], crls: Sequence[bytes], now: datetime, path: Path, rule: str) -> None:
    covered: set[int] = set()
    for position, (child, issuer) in enumerate(pairwise(links)):
        for der in crls:
            crl = load_crl(der)
            if not _list_of(der, issuer.der):
                continue
            fault = scope_fault(crl)
            if fault:
                path.findings.append(
                    Finding(f"{rule}.revoked", "a full list for all of the issuer's certificates", fault,
                            "give the issuer's full list")
                )  # fmt: skip
                continue
            end = crl.next_update_utc
            if not crl.last_update_utc <= now or end is None or now > end:
                found = (
                    f"one of {crl.last_update_utc:%Y-%m-%d} that ends {end:%Y-%m-%d}" if end else "one without an end"
                )
                path.findings.append(
                    Finding(f"{rule}.revoked", "a current revocation list", found, "fetch a newer list")
                )
            elif crl.get_revoked_certificate_by_serial_number(child.serial) is not None:
                found = f"{child.subject}, serial {child.serial:x}, is on the list"
                path.findings.append(Finding(f"{rule}.revoked", "no revoked certificate", found, "prepare a new key"))
            else:
                covered.add(position)
                path.not_after = min(path.not_after or end, end)
    if len(covered) == len(links) - 1:
        path.revocation = "checked"
    elif covered:
        path.revocation = "partly checked"


def scope_fault(crl: x509.CertificateRevocationList) -> str:
    """What makes a list one that doesn't speak for all certificates of its issuer; empty for a full list.

    A delta list names changes alone; a distribution point may name some uses, reasons or other issuers; what an unknown
    critical extension says, nobody here knows (RFC 5280 sections 5.2, 5.2.4, 5.2.5). `Malformed` when unreadable.
    """
    try:
        extensions = list(crl.extensions)
    except _X509_ERRORS as error:
        raise Malformed(f"revocation list: cannot be read ({type(error).__name__})") from error
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            return "a delta list"
        if isinstance(value, x509.IssuingDistributionPoint):
            if value.only_contains_user_certs or value.only_contains_ca_certs or value.only_contains_attribute_certs:
                return "a list for some kinds of certificates alone"
            if value.indirect_crl or value.only_some_reasons:
                return "a list for other issuers, or for some reasons alone"
        elif extension.critical and not isinstance(value, (x509.CRLNumber, x509.AuthorityKeyIdentifier)):
            return f"an unknown critical extension {extension.oid.dotted_string}"
    return ""


@lru_cache(maxsize=_LISTS_REMEMBERED)
def load_crl(der: bytes) -> x509.CertificateRevocationList:
    """Parse one DER revocation list; every defect is `Malformed`."""
    if len(der) > _MAX_LIST_BYTES:
        raise Malformed(f"revocation list: {len(der)} bytes, at most {_MAX_LIST_BYTES} allowed")
    try:
        crl = x509.load_der_x509_crl(der)
        if not der.endswith(b"\0" + crl.signature):
            raise ValueError("signature is not a whole number of bytes")
        _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc, len(crl))
    except _X509_ERRORS as error:
        raise Malformed(f"revocation list: cannot be read ({type(error).__name__})") from error
    return crl


@lru_cache(maxsize=_LISTS_REMEMBERED)
def _list_of(crl_der: bytes, issuer_der: bytes) -> bool:
    """Whether the issuer signed the list and may."""
    crl, issuer = load_crl(crl_der), _load(issuer_der)
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
