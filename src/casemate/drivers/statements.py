"""What a vendor's answer is, what it is about, and until when it is good: told from the bytes alone.

Nothing here is verified: an expiry says when to ask again, and the rooms judge signatures and times themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from casemate.errors import Malformed

MAX_BODY = 4 << 20
CERTIFICATE, LIST, DOCUMENT, STATUS = "certificate", "revocation list", "document", "certificate status"
_ENDS = ("nextUpdate",)
_NAMES = ("id", "fmspc", "version", "tcbEvaluationDataNumber")
_DEPTH = 2


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is kept: `body` in binary where a service sent hex; `about` is for people."""

    kind: str
    about: str
    expires: datetime | None
    body: bytes


def read(body: bytes, chains: Mapping[str, str] | None = None) -> Statement:
    """Recognise an answer; `chains` are the headers with issuer chains (percent-encoded PEM) that came with it.

    `Malformed` when it is neither certificates, nor a revocation list, nor a JSON object, nor an OCSP response
    (RFC 6960): error pages and login forms are not kept.
    """
    from casemate.tee import files

    if not body or len(body) > MAX_BODY:
        raise Malformed(f"an answer of {len(body)} bytes, 1 to {MAX_BODY} are allowed")
    case = files.sort([files.File("answer", body)])
    issuers = list(_issuers(chains or {}))
    if case.crls:
        kind, about, ends = LIST, _issuer(case.crls[0]), [_next_update(crl) for crl in case.crls]
        body = case.crls[0] if len(case.crls) == 1 else body  # a PCCS sends some lists in hex
    elif case.certificates:
        kind, about, ends = CERTIFICATE, _subject(case.certificates[0]), [_not_after(c) for c in case.certificates]
    elif case.documents and isinstance(case.documents[0][1], dict):
        value = case.documents[0][1]
        kind, about, ends = DOCUMENT, _title(value), list(_update_times(value, _DEPTH))
    else:
        kind, about, ends = STATUS, *_ocsp(body)
    known = [end for end in [*ends, *map(_not_after, issuers)] if end is not None]
    return Statement(kind=kind, about=about[:200], expires=min(known, default=None), body=body)


def _issuers(chains: Mapping[str, str]) -> Iterator[bytes]:
    from urllib.parse import unquote_to_bytes

    from casemate.crypto import pem

    for name, text in chains.items():
        yield from pem.certificates(unquote_to_bytes(text), name)


def _not_after(der: bytes) -> datetime:
    from casemate.crypto import chain

    return chain.load(der).cert.not_valid_after_utc


def _subject(der: bytes) -> str:
    from casemate.crypto import chain

    return chain.load(der).subject


def _next_update(der: bytes) -> datetime | None:
    from casemate.crypto import chain

    return chain.load_crl(der).next_update_utc


def _issuer(der: bytes) -> str:
    from casemate.crypto import chain

    return chain.load_crl(der).issuer.rfc4514_string()


def _title(document: dict[str, Any]) -> str:
    """The members that say what a document is about, as Intel's do within their envelope."""
    inner = next((v for v in document.values() if isinstance(v, dict)), document)
    return " ".join(f"{name}={inner[name]}" for name in _NAMES if isinstance(inner.get(name), str | int))


def _update_times(value: Any, depth: int) -> Iterator[datetime]:
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        if name in _ENDS and isinstance(member, str):
            try:
                end = datetime.fromisoformat(member)
            except ValueError as error:
                raise Malformed(f"{name}: not a time") from error
            yield end if end.tzinfo else end.replace(tzinfo=UTC)
        elif depth > 1:
            yield from _update_times(member, depth - 1)


def _ocsp(body: bytes) -> tuple[str, list[datetime | None]]:
    from cryptography.x509 import ocsp

    try:
        answer = ocsp.load_der_ocsp_response(body)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Malformed(f"an OCSP response without an answer ({answer.response_status.name})")
        ends = [single.next_update_utc for single in answer.responses]
        about = ", ".join(f"serial {single.serial_number:x}" for single in answer.responses)
    except ValueError as error:
        raise Malformed("neither certificates, nor a revocation list, JSON or an OCSP response") from error
    return about, list(ends)
