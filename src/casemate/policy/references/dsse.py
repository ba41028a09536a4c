"""DSSE v1 envelopes (secure-systems-lab/dsse): payload, its type, signatures over the pre-authentication encoding.

Key ids are hints that nobody signed: they choose nothing here, each signature is tried with each named key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from casemate.crypto import signatures
from casemate.errors import Malformed
from casemate.policy.references import rules
from casemate.wire.encoding import b64, unb64

MAX_SIGNATURES = 16
MAX_PAYLOAD = 512 << 10
_MEMBERS = {"payloadType", "payload", "signatures"}
_SIGNATURE = {"sig", "keyid", "cert"}


@dataclass(frozen=True)
class Envelope:
    """A parsed envelope; `signatures` are (key id or "", signature)."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @property
    def message(self) -> bytes:
        """What is signed."""
        return pae(self.payload_type, self.payload)


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: `DSSEv1 SP LEN(type) SP type SP LEN(body) SP body`, lengths in bytes."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def parse(document: dict[str, Any]) -> Envelope:
    """The envelope in a parsed JSON document; `Malformed` for anything else."""
    kind, payload, found = (document.get(name) for name in ("payloadType", "payload", "signatures"))
    if set(document) != _MEMBERS or not (
        isinstance(kind, str) and isinstance(payload, str) and isinstance(found, list)
    ):
        raise Malformed("DSSE: payloadType, payload and signatures are wanted, and nothing else")
    if not 1 <= len(found) <= MAX_SIGNATURES:
        raise Malformed(f"DSSE: {len(found)} signatures, 1 to {MAX_SIGNATURES} wanted")
    body = decode(payload, "DSSE payload")
    if len(body) > MAX_PAYLOAD or not 1 <= len(kind) <= 256:
        raise Malformed(f"DSSE: a payload of {len(body)} bytes, at most {MAX_PAYLOAD} allowed")
    return Envelope(kind, body, tuple(_signature(item) for item in found))


def _signature(item: Any) -> tuple[str, bytes]:
    if not isinstance(item, dict) or not isinstance(item.get("sig"), str) or set(item) - _SIGNATURE:
        raise Malformed("DSSE: a signature is an object with sig and keyid")
    key_id = item.get("keyid") or ""
    if not isinstance(key_id, str) or len(key_id) > 256:
        raise Malformed("DSSE: a keyid that is not a short text")
    return key_id, decode(item["sig"], "DSSE signature")


def decode(text: str, name: str) -> bytes:
    """Base64 in its one form, in the standard or the URL-safe alphabet (both are allowed)."""
    standard = text.replace("-", "+").replace("_", "/")
    data = unb64(standard, name)
    if b64(data) != standard:  # stray bits at the end: two texts for one value
        raise Malformed(f"{name}: base64 that is not in its one form")
    return data


def verify(envelope: Envelope, reading: rules.Reading) -> tuple[bytes, ...]:
    """Note the rule of the signature; the SPKI of each named key that signed, each key once."""
    signers: list[bytes] = []
    for spki, key in reading.candidates():
        if spki not in signers and any(
            signatures.verify_dsse(key, sig, envelope.message) for _, sig in envelope.signatures
        ):
            signers.append(spki)
    name = ", ".join(rules.key_id(spki) for spki in signers)
    reading.signer(name, threshold=max(1, reading.trust.threshold), count=len(signers))
    return tuple(signers)
