"""One door for reference values of every format: recognised by content, judged by every rule, or refused."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from casemate.crypto import pins
from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.policy.references.rules import MAX_REFERENCES, Reading
from casemate.policy.references.trust import ReferenceTrust
from casemate.schema.reference import Reference
from casemate.wire import jcs

LIMIT = 1 << 20
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]+=?=?\s*")
_COSE, _CORIM = b"\xd2", b"\xd9\x01\xf5"
_JWS = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\s*")
_UNKNOWN = "reference values: neither CoRIM, DSSE, sigstore bundle, UVM endorsement nor casemate/reference-values/v1"

_Reader = Callable[[Reading], None]


def read(data: bytes, trust: ReferenceTrust, now: datetime) -> tuple[Reference, ...]:
    """The reference values in `data` (at most `LIMIT` bytes), believed by `trust` at `now`.

    `Malformed` for what breaks its format; `Refused` with every rule, failed ones among them, for what is not believed.
    """
    references, findings = inspect(data, trust, now)
    if any(not finding.ok for finding in findings):
        raise Refused(findings)
    return references


def inspect(data: bytes, trust: ReferenceTrust, now: datetime) -> tuple[tuple[Reference, ...], tuple[Finding, ...]]:
    """What a document says and the outcome of each rule, for people: only `read` says what may be believed."""
    if now.tzinfo is None:
        raise Unusable("reference values: `now` must have a time zone")
    if len(data) > LIMIT:
        raise Malformed(f"reference values: {len(data)} bytes, at most {LIMIT} allowed")
    reading = Reading(trust, now)
    _recognise(data)(reading)
    if not 1 <= len(reading.references) <= MAX_REFERENCES:
        raise Malformed(f"reference values: {len(reading.references)} in one document, 1 to {MAX_REFERENCES} wanted")
    source = pins.digest(data)
    references = tuple(msgspec.structs.replace(reference, source=source) for reference in reading.references)
    return references, tuple(reading.findings)


def _recognise(data: bytes) -> _Reader:
    from casemate.policy.references import corim, signed

    if data.startswith(_CORIM):
        return lambda reading: corim.unsigned(data, reading)
    if data.startswith(_COSE):
        return _cose(data)
    if data.lstrip()[:1] == b"{":
        return _json(data)
    if _JWS.fullmatch(data):
        return lambda reading: signed.jws(data, reading)
    if _BASE64.fullmatch(data):  # as Azure hands out its endorsements
        try:
            inner = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error as error:
            raise Malformed(_UNKNOWN) from error
        if inner.startswith(_COSE):
            return _cose(inner)
    raise Malformed(_UNKNOWN)


def _cose(data: bytes) -> _Reader:
    from casemate.crypto import cose
    from casemate.policy.references import corim, uvm

    message = cose.parse(data, "reference values", limit=LIMIT)
    if message.headers.get(3) in corim.CONTENT_TYPES:
        return lambda reading: corim.signed(message, reading)
    if uvm.is_endorsement(message):
        return lambda reading: uvm.read(message, reading)
    raise Malformed("reference values: a COSE_Sign1 that is neither a CoRIM nor a UVM endorsement")


def _json(data: bytes) -> _Reader:
    from casemate.policy.references import dsse, intoto, signed, sigstore

    document: dict[str, Any] = jcs.parse_object(data, "reference values", limit=LIMIT)
    if str(document.get("mediaType", "")).startswith(sigstore.MEDIA_TYPE):
        return lambda reading: sigstore.read(data, reading)
    if "payloadType" in document:
        envelope = dsse.parse(document)
        if envelope.payload_type == intoto.PAYLOAD_TYPE:
            return lambda reading: intoto.read(envelope, reading)
        if envelope.payload_type == signed.PAYLOAD_TYPE:
            return lambda reading: signed.envelope(envelope, reading)
        raise Malformed("reference values: a DSSE envelope of another payload type")
    if document.get("type") == signed.TYPE:
        return lambda reading: signed.unsigned(document, reading)
    if document.get("_type") in intoto.STATEMENTS:
        return lambda reading: intoto.unsigned(document, reading)
    raise Malformed(_UNKNOWN)
