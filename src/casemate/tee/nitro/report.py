"""The attestation document of AWS Nitro Enclaves: CBOR in a COSE_Sign1.

Standard: "Verifying the root of trust" in AWS's Nitro Enclaves documentation (syntax, section 3.2.1 there).

    primary evidence   {"document": base64 of the COSE_Sign1, tagged or not}
    payload            {module_id text, digest "SHA384", timestamp ms, pcrs {0..31: 32|48|64 bytes},
                        certificate DER, cabundle [DER, root first], public_key|user_data|nonce bytes or null}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from casemate.crypto import cose
from casemate.errors import Malformed
from casemate.wire import cbor
from casemate.wire.encoding import unb64

MAX_DOCUMENT = 16 << 10
MAX_BUNDLE = 8
MAX_TIME = 253_370_764_800_000  # ms; the year 9999, where the calendar of `datetime` ends soon
_OPTIONAL = {"public_key": 1024, "user_data": 512, "nonce": 512}
_WANTED = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")


@dataclass(frozen=True)
class Document:
    """A parsed document. `timestamp` is in milliseconds since 1970; `cabundle` is root first, as sent."""

    message: cose.Sign1
    module_id: str
    digest: str
    timestamp: int
    pcrs: dict[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None


def parse_evidence(primary: dict[str, Any]) -> Document:
    """Decode the primary evidence object."""
    text = primary.get("document")
    if not isinstance(text, str) or len(text) > 2 * MAX_DOCUMENT:
        raise Malformed("nitro evidence: `document` is not a string, or too long")
    return parse(unb64(text, "nitro evidence: document"))


def parse(data: bytes) -> Document:
    """Parse the bytes that the Nitro Security Module gave."""
    message = cose.parse(data, "attestation document", limit=MAX_DOCUMENT)
    body = cbor.loads(message.payload, "attestation document")
    if not isinstance(body, dict) or any(name not in body for name in _WANTED):
        raise Malformed("attestation document: one of " + ", ".join(_WANTED) + " is missing")
    return Document(
        message=message,
        module_id=_typed(body, "module_id", str, 1, 256),
        digest=_typed(body, "digest", str, 1, 16),
        timestamp=_timestamp(body["timestamp"]),
        pcrs=_pcrs(body["pcrs"]),
        certificate=_bytes(body["certificate"], "certificate", 1, 1024),
        cabundle=_bundle(body["cabundle"]),
        **{name: _optional(body.get(name), name, limit) for name, limit in _OPTIONAL.items()},
    )


def _typed(body: dict[Any, Any], name: str, kind: type[str], least: int, most: int) -> str:
    value = body[name]
    if not isinstance(value, kind) or not least <= len(value) <= most:
        raise Malformed(f"attestation document: {name} is no {kind.__name__} of {least} to {most}")
    return value


def _timestamp(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < MAX_TIME:
        raise Malformed("attestation document: timestamp is not a number of milliseconds")
    return value


def _pcrs(value: Any) -> dict[int, bytes]:
    if not isinstance(value, dict) or not 1 <= len(value) <= 32:
        raise Malformed("attestation document: pcrs is not a map of 1 to 32")
    for index, digest in value.items():
        if not isinstance(index, int) or not 0 <= index < 32:
            raise Malformed("attestation document: a PCR index that is not 0 to 31")
        if not isinstance(digest, bytes) or len(digest) not in (32, 48, 64):
            raise Malformed(f"attestation document: PCR {index} is not a digest")
    return dict(value)


def _bundle(value: Any) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_BUNDLE:
        raise Malformed(f"attestation document: cabundle is not a list of 1 to {MAX_BUNDLE}")
    return tuple(_bytes(der, "a certificate of cabundle", 1, 1024) for der in value)


def _bytes(value: Any, name: str, least: int, most: int) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        raise Malformed(f"attestation document: {name} is not {least} to {most} bytes")
    return value


def _optional(value: Any, name: str, limit: int) -> bytes | None:
    return None if value is None else _bytes(value, name, 0, limit)
