"""Signed UVM endorsements of Azure's confidential containers: COSE_Sign1 with x5chain, issued by a did:x509.

The protected header says who (`iss`), for which line of images (`feed`) and when (`signingtime`); the payload is JSON
with the launch measurement and the security version of the utility VM. Unprotected headers, a time stamp of an
authority among them, are not believed.

Time: the signer's certificates are judged at `now`. They live a year, endorsements are used longer; a relying party
may say `believe_signing_time`, and then they are judged at the time that the signer states (ADR 0013).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from casemate.crypto import cose, signatures
from casemate.errors import Malformed
from casemate.policy.references import didx509, rules
from casemate.policy.references.trust import Did
from casemate.schema.reference import OneOf, Reference
from casemate.wire import cbor, jcs

TEE = "snp"
X5CHAIN, CONTENT_TYPE, CWT = 33, 3, 15
_MEASUREMENT, _SVN = "x-ms-sevsnpvm-launchmeasurement", "x-ms-sevsnpvm-guestsvn"
_HEX = re.compile(r"[0-9a-f]{96}")
_MAX_PAYLOAD = 16 << 10


def is_endorsement(message: cose.Sign1) -> bool:
    """Whether the headers are those of an endorsement: an issuer and a feed."""
    return all(_named(message))


def read(message: cose.Sign1, reading: rules.Reading) -> None:
    """The reference of an endorsement, and its rules."""
    issuer, feed = _named(message)
    if message.headers.get(CONTENT_TYPE) != "application/json":
        raise Malformed("UVM endorsement: application/json is wanted")
    signed_at = _signing_time(message)
    measurement, svn = _payload(message.payload)
    named = [d for d in reading.trust.dids if d.did == issuer]
    hint = "name this issuer with its feed if you believe it (--reference-key)"
    wanted = " or ".join(d.did for d in reading.trust.dids) or "none is named"
    reading.add("reference.signer.did", wanted, issuer, hint, ok=bool(named))
    _limits(reading, [d for d in named if d.feed == feed], named, feed, svn)
    key = _chain(message, issuer, signed_at, reading)
    algorithm = signatures.COSE.get(message.algorithm or 0, "")
    ok = signatures.verify_jose(
        signatures.load(key), algorithm, message.signature, cose.signed_bytes(message.protected, message.payload)
    )
    reading.signer(issuer if ok else "")
    reading.times(issued=signed_at, expires=None)
    reading.scope({"tee": TEE})
    reading.references.append(
        Reference(name=f"{feed} {svn}"[:128], format="uvm", tee=TEE, registers={"measurement": OneOf((measurement,))},
                  signer=issuer, issued=signed_at, scope={"tee": TEE},
                  environment={"feed": feed[:256], "svn": str(svn)})
    )  # fmt: skip


def _limits(reading: rules.Reading, fed: list[Did], named: list[Did], feed: str, svn: int) -> None:
    wanted = " or ".join(d.feed for d in named) or "none is named"
    reading.add("reference.feed", wanted, feed, "this issuer is not believed about this feed", ok=bool(fed))
    least = min((d.minimum_svn for d in fed), default=0)
    hint = "the image is older than you accept: ask for a newer one"
    reading.add("reference.svn", f"at least {least}", str(svn), hint, ok=svn >= least)


def _chain(message: cose.Sign1, issuer: str, signed_at: datetime | None, reading: rules.Reading) -> bytes:
    """The signer's key, with the rules of its chain judged at the right time."""
    moment = reading.now
    if reading.trust.believe_signing_time:
        hint = "without a signing time the certificates are judged at the present time"
        ok = signed_at is not None
        reading.add("reference.signing-time", "a signing time", "stated" if ok else "none", hint, ok=ok)
        moment = signed_at or moment
    key, findings = didx509.resolve(issuer, certificates(message), moment)
    reading.extend(findings)
    return key


def certificates(message: cose.Sign1) -> tuple[bytes, ...]:
    """The protected x5chain, leaf first (RFC 9360 section 2)."""
    found = message.headers.get(X5CHAIN)
    found = [found] if isinstance(found, bytes) else found
    if not isinstance(found, list) or not 1 <= len(found) <= 5 or not all(isinstance(c, bytes) for c in found):
        raise Malformed("COSE_Sign1: no protected x5chain of 1 to 5 certificates")
    return tuple(found)


def _named(message: cose.Sign1) -> tuple[str, str]:
    """(issuer, feed) from the named headers, or from CWT claims (RFC 9597: 1 issuer, 2 subject)."""
    claims = message.headers.get(CWT)
    claims = claims if isinstance(claims, dict) else {}
    issuer, feed = message.headers.get("iss", claims.get(1)), message.headers.get("feed", claims.get(2))
    if not isinstance(issuer, str) or not isinstance(feed, str) or not issuer.startswith("did:"):
        return "", ""
    return issuer, feed


def _signing_time(message: cose.Sign1) -> datetime | None:
    found = message.headers.get("signingtime")
    if found is None:
        return None
    if not isinstance(found, cbor.Tagged) or found.tag != 1:
        raise Malformed("UVM endorsement: a signing time that is no time")
    return rules.epoch(found.value, "UVM endorsement: signing time")


def _payload(data: bytes) -> tuple[str, int]:
    found: dict[str, Any] = jcs.parse_object(data, "UVM endorsement", limit=_MAX_PAYLOAD)
    measurement, svn = found.get(_MEASUREMENT), found.get(_SVN)
    if not isinstance(measurement, str) or not _HEX.fullmatch(measurement):
        raise Malformed("UVM endorsement: the launch measurement is not 96 lower-case hex digits")
    if not isinstance(svn, str) or not svn.isascii() or not svn.isdigit() or len(svn) > 9:
        raise Malformed("UVM endorsement: the security version is not a number")
    return measurement, int(svn)
