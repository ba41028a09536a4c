"""did:x509 (microsoft/did-x509 specification, method version 0): an issuer named by an authority and a policy.

`did:x509:0:<hash>:<base64url fingerprint of an authority in the chain>::<policy>:<value>...`. Read are the policies
`eku`, `subject` and `san`; another one is refused, for a policy that is skipped would widen the identity.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import unquote

from cryptography import x509
from cryptography.x509.oid import NameOID

from casemate.crypto import chain
from casemate.errors import Finding, Malformed
from casemate.wire.encoding import unb64u

_HASHES = {"sha256": 32, "sha384": 48, "sha512": 64}
_NAMES = {
    "CN": NameOID.COMMON_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "C": NameOID.COUNTRY_NAME,
    "STREET": NameOID.STREET_ADDRESS,
}
_SAN: dict[str, type[x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier]] = {
    "dns": x509.DNSName,
    "email": x509.RFC822Name,
    "uri": x509.UniformResourceIdentifier,
}
_RULE = "reference.signer"


def resolve(did: str, certificates: Sequence[bytes], now: datetime) -> tuple[bytes, list[Finding]]:
    """(SPKI of the leaf, every rule with its outcome) for a chain, leaf first, that should be `did` at `now`.

    The chain must lead to the authority that the DID names by fingerprint, each certificate valid at `now`.
    """
    algorithm, fingerprint, policies = _parse(did)
    if not 2 <= len(certificates) <= chain.MAX_LENGTH:
        raise Malformed(f"did:x509: a chain of {len(certificates)} certificates, 2 to {chain.MAX_LENGTH} wanted")
    leaf = chain.load(certificates[0], "signer's certificate")
    roots = [der for der in certificates[1:] if hmac.compare_digest(hashlib.new(algorithm, der).digest(), fingerprint)]
    usages = frozenset(value for name, value in policies if name == "eku") or None
    path = chain.walk(certificates, roots, now, rule=_RULE, leaf_usages=usages)
    findings = list(path.findings)
    if not findings:
        findings.append(Finding(f"{_RULE}.chain", "a chain to the DID's authority", path.links[-1].subject, ok=True))
    for name, value in policies:
        found, ok = _POLICIES[name](leaf, value)
        findings.append(Finding(f"{_RULE}.{name}", value[:256], found[:256], "another signer of the authority", ok))
    return leaf.key, findings


def _parse(did: str) -> tuple[str, bytes, list[tuple[str, str]]]:
    head, *rest = did.split("::")
    words = head.split(":")
    if len(did) > 2048 or len(words) != 5 or words[:3] != ["did", "x509", "0"] or words[3] not in _HASHES:
        raise Malformed("did:x509: did:x509:0:<hash>:<fingerprint>::<policy>:<value> is wanted")
    policies = []
    for item in rest:
        name, _, value = item.partition(":")
        if name not in _POLICIES or not value:
            raise Malformed(f"did:x509: policy {name[:32]!r} is not known, so it could not be held to")
        policies.append((name, value))
    if not policies:
        raise Malformed("did:x509: no policy")
    return words[3], unb64u(words[4], "did:x509 fingerprint", size=_HASHES[words[3]]), policies


def _eku(leaf: chain.Certificate, value: str) -> tuple[str, bool]:
    return ", ".join(sorted(leaf.extended)) or "none", value in leaf.extended


def _subject(leaf: chain.Certificate, value: str) -> tuple[str, bool]:
    words = [unquote(word) for word in value.split(":")]
    if len(words) % 2 or len(set(words[::2])) != len(words) // 2:
        raise Malformed("did:x509: a subject is pairs of distinct names and values")
    ok = True
    for name, wanted in zip(words[::2], words[1::2], strict=True):
        if name not in _NAMES:
            raise Malformed(f"did:x509: subject name {name[:32]!r} is not known")
        found = [attribute.value for attribute in leaf.cert.subject.get_attributes_for_oid(_NAMES[name])]
        ok = ok and found == [wanted]
    return leaf.subject, ok


def _san(leaf: chain.Certificate, value: str) -> tuple[str, bool]:
    kind, _, wanted = value.partition(":")
    if kind not in _SAN:
        raise Malformed(f"did:x509: alternative name {kind[:32]!r} is not known")
    try:
        names = leaf.cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "none", False
    found = [str(name) for name in names.get_values_for_type(_SAN[kind])]
    return ", ".join(found) or "none", unquote(wanted) in found


_POLICIES = {"eku": _eku, "subject": _subject, "san": _san}
