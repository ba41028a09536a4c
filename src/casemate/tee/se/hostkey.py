"""Host-key documents: IBM's word that a public key is a Z machine's. Judged as s390-tools' pvattest does, and told.

A document is signed by the "host key signing" certificate, which is no authority itself and is known by its subject;
that one stands under an intermediate and a root. Each issuer, also the signing certificate, needs a revocation list.
IBM's own names differ in order and place (Armonk, Poughkeepsie) from paper to paper: they are compared without either.

Rules, named `<rule>...`
  .key          an EC key on P-521
  .validity     the document is valid at the given time
  .signer       a certificate with the subject of IBM's signing service is given
  .signature    one of these signed the document, and the document names it (issuer, authority key id)
  .chain.*      the signing certificate reaches a trusted root by at least one intermediate, and none is revoked
  .revoked      a current list of the signing certificate is given, and the document is not on it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from casemate.crypto import chain
from casemate.errors import Finding, Malformed
from casemate.tee.roots import Root
from casemate.tee.se.arcb import key_digest

_IBM = "International Business Machines Corporation"
_SUBJECT = {
    NameOID.COUNTRY_NAME: ("US",),
    NameOID.STATE_OR_PROVINCE_NAME: ("New York",),
    NameOID.LOCALITY_NAME: ("Poughkeepsie", "Armonk"),
    NameOID.ORGANIZATION_NAME: (_IBM,),
    NameOID.COMMON_NAME: (_IBM,),
}
_UNIT_END = "Key Signing Service"
_HASHES = {"sha256", "sha384", "sha512"}
_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension)


@dataclass(frozen=True)
class Papers:
    """What documents are judged by: certificates (DER, any order), trusted roots, revocation lists (DER), the time."""

    certificates: Sequence[bytes]
    roots: Sequence[Root]
    lists: Sequence[bytes]
    now: datetime


@dataclass
class Judged:
    """What came of a document. `root` is None when no trusted root is reached; it holds when no finding has failed.

    `lists` is false when a revocation list is absent, `revoked` is true when a list names the document.
    """

    rule: str
    root: Root | None = None
    not_after: datetime | None = None
    findings: list[Finding] = field(default_factory=list)
    lists: bool = True
    revoked: bool = False

    @property
    def failed(self) -> int:
        """How many rules are broken."""
        return sum(not f.ok for f in self.findings)

    def note(self, rule: str, ok: bool, expected: object, found: object, hint: str = "") -> bool:
        """Add a finding; returns `ok`."""
        self.findings.append(Finding(f"{self.rule}.{rule}", str(expected), str(found), "" if ok else hint, ok))
        return ok

    def until(self, end: datetime) -> None:
        """Something of it ends then."""
        self.not_after = min(self.not_after or end, end)


def host_key(der: bytes) -> ec.EllipticCurvePublicKey | None:
    """The key of a certificate that may be a host-key document: P-521, and no authority; None for others."""
    try:
        item = chain.load(der)
    except Malformed:
        return None
    key = item.cert.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp521r1":
        return None
    return None if item.ca is not None and item.ca.ca else key


def documents(certificates: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """The host-key documents among `certificates`, by the digest of their key (a machine may have several)."""
    found: dict[bytes, list[bytes]] = {}
    for der in certificates:
        key = host_key(der)
        if key is not None:
            found.setdefault(key_digest(key), []).append(der)
    return found


def judge_key(documents: Sequence[bytes], papers: Papers, *, rule: str) -> Judged:
    """The word on a key with one document or several (renewed ones): a revoked one decides, else the best."""
    found = [judge(document, papers, rule=rule) for document in documents]
    return min(found, key=lambda judged: (not judged.revoked, judged.failed))


def judge(document: bytes, papers: Papers, *, rule: str) -> Judged:
    """Every rule on one document (DER)."""
    item, now = chain.load(document, "host-key document"), papers.now
    start, end = item.cert.not_valid_before_utc, item.cert.not_valid_after_utc
    judged = Judged(rule, not_after=end)
    judged.note("key", host_key(document) is not None, "an EC key on P-521", item.subject, "this is another paper")
    judged.note("validity", start <= now < end, f"valid at {now:%Y-%m-%dT%H:%M:%SZ}",
                f"valid {start:%Y-%m-%d} to {end:%Y-%m-%d}", "get the machine's new document")  # fmt: skip
    pool = [loaded for loaded in map(_loaded, papers.certificates) if loaded is not None]
    signers = [c for c in pool if is_signing(c)]
    if not judged.note("signer", bool(signers), "a certificate of IBM's key signing service", f"{len(signers)}",
                       "give the host key signing certificate"):  # fmt: skip
        return judged
    signer = next((s for s in signers if _signed(item, s)), None)
    hint = "the document was changed, or its signing certificate is another"
    found = "signed" if signer else f"not by any of {len(signers)}"
    judged.note("signature", signer is not None, "signed by IBM's key signing service", found, hint)
    if signer is None:
        return judged
    named = _names(item.cert.issuer) == _names(signer.cert.subject) and _authority_key(item.cert, signer.cert)
    judged.note("issuer", named, signer.subject, item.cert.issuer.rfc4514_string()[:128], hint)
    _path(judged, signer, pool, papers)
    _revoked(judged, item, signer, papers)
    return judged


def is_signing(item: chain.Certificate) -> bool:
    """Whether the subject is that of IBM's key signing service: these six entries, the unit by its ending."""
    subject = item.cert.subject
    if len(list(subject)) != len(_SUBJECT) + 1:
        return False
    for oid, accepted in _SUBJECT.items():
        found = subject.get_attributes_for_oid(oid)
        if len(found) != 1 or found[0].value not in accepted:
            return False
    unit = subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return len(unit) == 1 and str(unit[0].value).endswith(_UNIT_END)


def _path(judged: Judged, signer: chain.Certificate, pool: list[chain.Certificate], papers: Papers) -> None:
    trusted = [r.certificate for r in papers.roots]
    above = [c for c in pool if c.ca is not None and c.ca.ca and c.der not in trusted]
    links = [signer]
    while len(links) < chain.MAX_LENGTH - 1:
        issuer = next((c for c in above if c.names[0] == links[-1].names[1] and c not in links), None)
        if issuer is None:
            break
        links.append(issuer)
    ders = [c.der for c in links]
    path = chain.walk(ders, trusted, papers.now, rule=f"{judged.rule}.chain", leaf_usages=None, crls=papers.lists)
    judged.findings += path.findings
    if path.root is None:
        return
    judged.root = papers.roots[path.root]
    judged.note("chain.length", len(path.links) > 2, "an intermediate between signing certificate and root",
                f"{len(path.links)} certificates", "give the intermediate certificate")  # fmt: skip
    complete = path.revocation == "checked"
    judged.lists = judged.lists and (complete or bool(path.findings))
    judged.note("chain.lists", complete, "a current revocation list of each issuer", path.revocation,
                "give the lists of root and intermediate")  # fmt: skip
    judged.until(path.not_after or papers.now)


def _revoked(judged: Judged, item: chain.Certificate, signer: chain.Certificate, papers: Papers) -> None:
    """The signing certificate's own lists. It is no authority, so `chain.walk` would not take them."""
    mine = [crl for crl in map(chain.load_crl, papers.lists) if _by_key(crl, signer)]
    good = sum(_passes(crl, judged, item, signer, papers.now) for crl in mine)
    if not mine:
        judged.lists = False
        judged.note("revoked", False, f"a list of {signer.subject}", "none", "give the signing service's list")
    elif good == len(mine):
        judged.note("revoked", True, "not revoked", f"on none of {good}")


def _passes(
    crl: x509.CertificateRevocationList,
    judged: Judged,
    item: chain.Certificate,
    signer: chain.Certificate,
    now: datetime,
) -> bool:
    start, end = crl.last_update_utc, crl.next_update_utc
    if _names(crl.issuer) != _names(signer.cert.subject) or not _authority_key(crl, signer.cert):
        found = crl.issuer.rfc4514_string()[:128]
        return judged.note("revoked", False, f"a list of {signer.subject}", found, "give this issuer's own list")
    fault = chain.scope_fault(crl)
    if fault:
        return judged.note("revoked", False, "a full list of all certificates", fault, "give the issuer's full list")
    if end is None or not start <= now < end:
        found = f"one of {start:%Y-%m-%d} that ends " + (f"{end:%Y-%m-%d}" if end else "never")
        return judged.note("revoked", False, f"a list current at {now:%Y-%m-%d}", found, "fetch a newer list")
    if crl.get_revoked_certificate_by_serial_number(item.serial) is not None:
        judged.revoked = True
        found = f"serial {item.serial:x} is on the list"
        return judged.note("revoked", False, "no revoked document", found, "do not use this machine")
    judged.until(end)
    return True


def _loaded(der: bytes) -> chain.Certificate | None:
    try:
        return chain.load(der)
    except Malformed:
        return None


def _signed(item: chain.Certificate, signer: chain.Certificate) -> bool:
    """Whether the signer's key signed the document; names do not count here."""
    key, algorithm = signer.cert.public_key(), item.cert.signature_hash_algorithm
    if algorithm is None or algorithm.name not in _HASHES:
        return False
    try:
        parameters = item.cert.signature_algorithm_parameters
        if isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, (padding.PSS, padding.PKCS1v15)):
            if key.key_size < 2048:
                return False
            key.verify(item.cert.signature, item.cert.tbs_certificate_bytes, parameters, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            key.verify(item.cert.signature, item.cert.tbs_certificate_bytes, parameters)
        else:
            return False
    except (InvalidSignature, *_ERRORS):
        return False
    return True


def _by_key(crl: x509.CertificateRevocationList, signer: chain.Certificate) -> bool:
    key = signer.cert.public_key()
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        return False
    try:
        _ = crl.extensions  # parsed when first read: what cannot be is no list
        return crl.is_signature_valid(key)
    except _ERRORS:
        return False


def _names(name: x509.Name) -> frozenset[tuple[str, str]]:
    """A name without order, and with one of IBM's two places for both."""
    return frozenset(
        (
            a.oid.dotted_string,
            "Poughkeepsie" if a.oid == NameOID.LOCALITY_NAME and a.value == "Armonk" else str(a.value),
        )
        for a in name
    )


def _authority_key(paper: x509.Certificate | x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    """Whether the authority key id, where there is one, is the signer's (RFC 5280 section 4.2.1.1)."""
    try:
        named = paper.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return True
    try:
        own = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        own = None
    if named.key_identifier is not None and own is not None and named.key_identifier != own:
        return False
    if named.authority_cert_serial_number not in (None, signer.serial_number):
        return False
    issuers = [n.value for n in named.authority_cert_issuer or () if isinstance(n, x509.DirectoryName)]
    return not issuers or any(_names(name) == _names(signer.issuer) for name in issuers)
