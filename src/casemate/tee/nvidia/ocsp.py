"""OCSP responses that were fetched beforehand: which certificates they speak for, and what they say (RFC 6960).

Rules
1. a response counts for the certificate whose issuer's name and key it hashes, and whose serial number it names
2. it is signed by that issuer, or by a responder that this very issuer certified for OCSP (section 4.2.2.2); the
   responder's certificate is valid at `now`, or for a response that is not current, when it was made
3. `revoked` refuses, however old; `unknown` refuses while the response is current
4. `good` counts from thisUpdate to nextUpdate; before and after, the response says nothing, which is told
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from casemate.crypto import chain
from casemate.crypto.chain import Certificate
from casemate.errors import Malformed
from casemate.tee.rules import Rules

MAX_SIZE = 16 << 10
MAX_RESPONSES = 256
_SIGNING = frozenset({"1.3.6.1.5.5.7.3.9"})
_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


@dataclass
class Outcome:
    """Certificates (DER) with a current `good`, those whose response is not current, and the first expiry."""

    good: set[bytes] = field(default_factory=set)
    stale: set[bytes] = field(default_factory=set)
    ends: datetime | None = None


class _Response(NamedTuple):
    """A response's fields, read at once: `cryptography` parses lazily and would raise later."""

    serial: int
    algorithm: hashes.HashAlgorithm
    name_hash: bytes
    key_hash: bytes
    status: str
    start: datetime
    end: datetime | None
    produced: datetime
    signed: bytes
    signature: bytes
    signature_hash: hashes.HashAlgorithm | None
    certificates: tuple[bytes, ...]


def judge(responses: Iterable[bytes], paths: Iterable[tuple[Certificate, ...]], now: datetime, rules: Rules) -> Outcome:
    """Judge `responses` (DER) for the certificates of `paths` (leaf first, root last); findings go to `rules`."""
    outcome = Outcome()
    pairs = {child.der: (child, issuer) for links in paths for child, issuer in pairwise(links)}
    for data in list(responses)[:MAX_RESPONSES]:
        try:
            response = _read(data)
        except Malformed as error:
            rules.check("ocsp.format", False, "an OCSP response", error, "fetch it again")
            continue
        about = next((pair for pair in pairs.values() if _speaks_of(response, *pair)), None)
        if about is not None:
            _one(response, *about, outcome, now=now, rules=rules)
    return outcome


def _one(response: _Response, child: Certificate, issuer: Certificate, outcome: Outcome, *,
         now: datetime, rules: Rules) -> None:  # fmt: skip
    current = response.end is not None and response.start <= now <= response.end
    fault = _signature_fault(response, issuer, now if current else response.produced)
    if not rules.check("ocsp.signature", not fault, f"a response about {child.subject} by its issuer",
                       fault or "signed", "the response was changed, or another authority made it"):  # fmt: skip
        return
    if response.status == "REVOKED":
        found = f"{child.subject}, serial {child.serial:x}"
        rules.check("ocsp.revoked", False, "no revoked certificate", found, "this device or manifest is not to be used")
        return
    if not current or response.end is None:
        outcome.stale.add(child.der)
        return
    if rules.check("ocsp.status", response.status == "GOOD", "good", response.status.lower(),
                   "the authority does not know this certificate"):  # fmt: skip
        outcome.good.add(child.der)
        outcome.ends = min(outcome.ends or response.end, response.end)


def _read(data: bytes) -> _Response:
    if len(data) > MAX_SIZE:
        raise Malformed(f"OCSP response: {len(data)} bytes, at most {MAX_SIZE} allowed")
    try:
        found = ocsp.load_der_ocsp_response(data)
        if found.response_status != ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Malformed(f"OCSP response: the responder says {found.response_status.name.lower()}")
        return _Response(
            serial=found.serial_number,
            algorithm=found.hash_algorithm,
            name_hash=found.issuer_name_hash,
            key_hash=found.issuer_key_hash,
            status=found.certificate_status.name,
            start=found.this_update_utc,
            end=found.next_update_utc,
            produced=found.produced_at_utc,
            signed=found.tbs_response_bytes,
            signature=found.signature,
            signature_hash=found.signature_hash_algorithm,
            certificates=tuple(c.public_bytes(Encoding.DER) for c in found.certificates[:4]),
        )
    except _ERRORS as error:
        raise Malformed(f"OCSP response: cannot be read ({type(error).__name__})") from error


def _speaks_of(response: _Response, child: Certificate, issuer: Certificate) -> bool:
    if response.serial != child.serial:
        return False
    point = issuer.cert.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key := issuer.cert.public_key(), ec.EllipticCurvePublicKey):
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    name, key_hash = _hash(response.algorithm, child.names[1]), _hash(response.algorithm, point)
    return hmac.compare_digest(name, response.name_hash) and hmac.compare_digest(key_hash, response.key_hash)


def _hash(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def _signature_fault(response: _Response, issuer: Certificate, moment: datetime) -> str:
    """Why the response is not signed by one who may at `moment`; empty when it is."""
    if response.signature_hash is None or response.signature_hash.name not in ("sha256", "sha384", "sha512"):
        return "another signature algorithm"
    for der in (issuer.der, *response.certificates):
        try:
            responder = chain.load(der)
            key = responder.cert.public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey):
                continue
            key.verify(response.signature, response.signed, ec.ECDSA(response.signature_hash))
            if der == issuer.der:
                return ""
            path = chain.walk([der], [issuer.der], moment, rule="nvidia.ocsp.responder", leaf_usages=_SIGNING)
        except (Malformed, InvalidSignature, UnsupportedAlgorithm):
            continue
        return "" if not path.findings else f"{responder.subject}: {path.findings[0].found}"
    return "no such signature"
