"""The public keys of CCA platforms (CPAK), as the relying party gives them.

Arm runs no root for platforms. The key of one platform (CPAK) comes from its maker, and the relying party gives it, in
one of these forms, all of which are trusted as they stand:

    anchor for the TEE `cca`             `certificate` is a DER SubjectPublicKeyInfo, a certificate whose key is the
                                         platform's own, or a trust-anchor document; the anchor's class counts
    collateral `cca.key...`              a public key, DER or PEM; it vouches for development platforms
    collateral `cca.trust-anchors...`    a trust-anchor document, likewise

A trust-anchor document is JSON [{"instance-id": hex, "implementation-id": hex, "pkey": JWK}]: each key counts for the
platform that it names alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from casemate.crypto import pins
from casemate.errors import Malformed
from casemate.schema.endorsements import DEVELOPMENT, Anchor, Endorsements
from casemate.wire.encoding import unb64u, unhex

KEY, ANCHORS = "cca.key", "cca.trust-anchors"
MAX_KEYS = 1024
_MAX_DOCUMENT = 1 << 20
_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {"P-256": (ec.SECP256R1(), 32), "P-384": (ec.SECP384R1(), 48)}


@dataclass(frozen=True)
class PlatformKey:
    """A platform's key. An empty id matches every platform; `platform_class` is what the key may vouch for.

    `key` is None where the given point is not on its curve: such an anchor is for its platform and verifies nothing.
    """

    key: ec.EllipticCurvePublicKey | None
    name: str
    platform_class: str = DEVELOPMENT
    instance: bytes = b""
    implementation: bytes = b""

    def of(self, instance: bytes, implementation: bytes) -> bool:
        """Whether it is for this platform."""
        return self.instance in (b"", instance) and self.implementation in (b"", implementation)


def given(endorsements: Endorsements) -> tuple[PlatformKey, ...]:
    """Every platform key that the relying party gave; what cannot be read is `Malformed`."""
    found = [key for anchor in endorsements.anchors_for("cca") for key in _anchored(anchor)]
    for name, data in sorted(endorsements.collateral.items()):
        if name.startswith(KEY):
            fingerprint = hashlib.sha256(data).hexdigest()[:16]
            found.append(PlatformKey(public_key(data), f"a platform key that was given (sha256 {fingerprint}...)"))
        elif name.startswith(ANCHORS):
            found += trust_anchors(data)
    if len(found) > MAX_KEYS:
        raise Malformed(f"{len(found)} platform keys, at most {MAX_KEYS} are read")
    return tuple(found)


def _anchored(anchor: Anchor) -> list[PlatformKey]:
    """The keys of an anchor: bare, in a certificate, or in a document; none for other vendors', of other kinds."""
    name, data = anchor.name or "an anchor without a name", anchor.certificate
    if data.lstrip()[:1] == b"[":
        return trust_anchors(data, anchor.platform_class)
    try:
        return [PlatformKey(public_key(data), name, anchor.platform_class)]
    except Malformed:
        pass
    try:
        return [PlatformKey(public_key(pins.subject_public_key_info(data)), name, anchor.platform_class)]
    except Malformed:
        return []


def public_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """A P-256 or P-384 key in DER (SubjectPublicKeyInfo) or PEM."""
    try:
        load = load_pem_public_key if data.lstrip().startswith(b"-----BEGIN") else load_der_public_key
        key = load(data[:_MAX_DOCUMENT])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("CCA platform key: neither DER nor PEM of a public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in ("secp256r1", "secp384r1"):
        raise Malformed("CCA platform key: a key on P-256 or P-384 is wanted")
    return key


def is_trust_anchors(document: Any) -> bool:
    """Whether a JSON value looks like a list of trust anchors."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(entry, dict) and {"instance-id", "pkey"} <= entry.keys() for entry in document)
    )


def trust_anchors(data: bytes, platform_class: str = DEVELOPMENT) -> list[PlatformKey]:
    """The keys of a trust-anchor document, which vouch for platforms of that class."""
    try:
        document = msgspec.json.decode(data[: _MAX_DOCUMENT + 1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("CCA trust anchors: not JSON") from error
    if len(data) > _MAX_DOCUMENT or not is_trust_anchors(document):
        raise Malformed("CCA trust anchors: a list of objects with `instance-id` and `pkey` is wanted")
    return list(_entries(document, platform_class))


def _entries(document: list[dict[str, Any]], platform_class: str) -> Iterator[PlatformKey]:
    for number, entry in enumerate(document):
        name = f"CCA trust anchor {number}"
        instance = unhex(str(entry["instance-id"]), f"{name}: instance-id", size=33)
        implementation = b""
        if "implementation-id" in entry:
            implementation = unhex(str(entry["implementation-id"]), f"{name}: implementation-id", size=32)
        shown = f"the trust anchor of platform {instance[1:9].hex()}..."
        yield PlatformKey(_jwk(entry["pkey"], name), shown, platform_class, instance, implementation)


def _jwk(jwk: Any, name: str) -> ec.EllipticCurvePublicKey | None:
    """An EC key in JSON (RFC 7518 section 6.2); a private part is not looked at."""
    if not isinstance(jwk, dict) or jwk.get("kty") != "EC" or jwk.get("crv") not in _CURVES:
        raise Malformed(f"{name}: an EC key on P-256 or P-384 is wanted")
    curve, width = _CURVES[jwk["crv"]]
    x, y = (unb64u(str(jwk.get(part, "")), f"{name}: {part}", size=width) for part in ("x", "y"))
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError:
        return None
