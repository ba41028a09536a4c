"""An Arm CCA platform made for tests: its own platform key and realm, any claim, valid or broken in a named way.

realm = FakeRealm(broken="binding")
claims = verify(realm.collect(request), realm.endorsements, request, realm.now)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.crypto import cose
from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.cca import report as wire
from casemate.testing import pki
from casemate.wire import cbor

YEARS = {
    "legacy": (wire.LEGACY, ""),
    "2023": ("tag:arm.com,2023:cca_platform#1.0.0", "tag:arm.com,2023:realm#1.0.0"),
    "2024": ("tag:arm.com,2024:cca_platform#2.0.0", "tag:arm.com,2024:realm#2.0.0"),
    "2026": ("tag:arm.com,2026:cca_platform#2.0.0", "tag:arm.com,2026:realm#2.0.0"),
}
_DIGESTS = {"sha-256": hashlib.sha256, "sha-384": hashlib.sha384, "sha-512": hashlib.sha512}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass
class FakeRealm:
    """A realm on a platform of this vendor. `profile` is one of `YEARS`; `broken` names one fault of `BROKEN`.

    `platform` and `realm` replace claims by their label (None leaves one out). `tag` is that of the collection.
    """

    profile: str = "2023"
    tag: int = wire.TAG
    platform: dict[int, Any] = field(default_factory=dict)
    realm: dict[int, Any] = field(default_factory=dict)
    key_algorithm: str = "sha-256"
    instance: bytes = b"\x01" + bytes(range(32))
    now: datetime = pki.NOW
    platform_class: str = PRODUCTION
    key: ec.EllipticCurvePrivateKey = field(default_factory=pki.p384)
    realm_key: ec.EllipticCurvePrivateKey = field(default_factory=pki.p384)
    broken: str = ""

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")

    @property
    def endorsements(self) -> Endorsements:
        """Endorsements with this platform's key as an anchor for CCA."""
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        anchor = Anchor(certificate=spki, platform_class=self.platform_class, name="Fake CCA platform", tees=("cca",))
        return Endorsements(anchors=(anchor,))

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`, with the fault that `broken` names."""
        token = self.token(request.report_data or b"", request.initdata_digest or b"")
        return Evidence(tee="cca", primary={"token": list(token)})

    def token(self, challenge: bytes = b"", personalization: bytes = b"") -> bytes:
        """The collection of both tokens."""
        profiles = YEARS[self.profile]
        public = _realm_key(self.realm_key.public_key(), raw=not profiles[1])
        parts = _Parts(
            platform=_platform_claims(profiles[0], self.instance),
            realm=_realm_claims(profiles[1], challenge, personalization, public, self.key_algorithm),
            key=self.key,
            realm_key=self.realm_key,
        )
        label = wire.WORKLOAD_BINDING if self.profile == "2026" else wire.CHALLENGE
        parts.platform[label] = _DIGESTS[self.key_algorithm](public).digest()
        parts.platform |= self.platform
        parts.realm |= self.realm
        if self.broken:
            BROKEN[self.broken](parts)
        return parts.pack(self.tag)


def _realm_key(key: ec.EllipticCurvePublicKey, *, raw: bool) -> bytes:
    if raw:
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    numbers, width = key.public_numbers(), key.key_size // 8
    curve = 1 if width == 32 else 2
    return cbor.dumps({1: 2, -1: curve, -2: numbers.x.to_bytes(width, "big"), -3: numbers.y.to_bytes(width, "big")})


def _platform_claims(profile: str, instance: bytes) -> dict[int, Any]:
    return {
        256: instance,
        265: profile,
        2395: 0x3003,
        2396: _digest("implementation"),
        2399: [
            {1: name, 2: _digest(name), 4: "1.0", 5: _digest("signer"), 6: "sha-256"} for name in ("RSE_BL2", "RMM")
        ],
        2400: "https://verifier.example",
        2401: b"\xcf\xcf\xcf\xcf",
        2402: "sha-256",
    }


def _realm_claims(
    profile: str, challenge: bytes, personalization: bytes, public: bytes, key_algorithm: str
) -> dict[int, Any]:
    return {
        10: challenge.ljust(64, b"\0"),
        265: profile or None,
        44235: personalization.ljust(64, b"\0"),
        44236: "sha-256",
        44237: public,
        44238: _digest("initial"),
        44239: [bytes(32)] * 4,
        44240: key_algorithm,
    }


@dataclass
class _Parts:
    platform: dict[int, Any]
    realm: dict[int, Any]
    key: ec.EllipticCurvePrivateKey
    realm_key: ec.EllipticCurvePrivateKey
    flip: str = ""
    header: dict[int, Any] | None = None

    def pack(self, tag: int) -> bytes:
        platform = _sign(self.platform, self.key, flip=self.flip == "platform", header=self.header)
        realm = _sign(self.realm, self.realm_key, flip=self.flip == "realm")
        parts = {wire.PLATFORM: platform, wire.REALM: realm}
        wrapped = {k: [wire.EAT_CWT, v] for k, v in parts.items()} if tag == wire.TAG_CMW else parts
        return cbor.dumps(cbor.Tagged(tag, wrapped))


def _sign(
    claims: dict[int, Any], key: ec.EllipticCurvePrivateKey, *, flip: bool, header: dict[int, Any] | None = None
) -> bytes:
    payload = cbor.dumps({label: value for label, value in claims.items() if value is not None})
    small = key.key_size == 256
    protected = cbor.dumps(header or {1: cose.ES256 if small else cose.ES384})
    algorithm = ec.ECDSA(hashes.SHA256() if small else hashes.SHA384())
    r, s = decode_dss_signature(key.sign(cose.signed_bytes(protected, payload), algorithm))
    width = key.key_size // 8
    signature = r.to_bytes(width, "big") + (s ^ int(flip)).to_bytes(width, "big")
    return cbor.dumps(cbor.Tagged(cose.TAG_SIGN1, [protected, {}, payload, signature]))


def _set(where: str, **values: Any) -> Callable[[_Parts], None]:
    def apply(parts: _Parts) -> None:
        getattr(parts, where).update({int(label[1:]): value for label, value in values.items()})

    return apply


def _other(name: str) -> Callable[[_Parts], None]:
    return lambda parts: setattr(parts, name, pki.p384())


def _flip(name: str) -> Callable[[_Parts], None]:
    return lambda parts: setattr(parts, "flip", name)


BROKEN: dict[str, Callable[[_Parts], None]] = {
    "platform-signature": _flip("platform"),
    "platform-key": _other("key"),
    "platform-algorithm": lambda parts: setattr(parts, "header", {1: cose.ES256}),
    "realm-signature": _flip("realm"),
    "realm-key": _other("realm_key"),
    "binding": _set("platform", _10=bytes(32)),
    "binding-algorithm": _set("realm", _44240="md5"),
    "platform-profile": _set("platform", _265="tag:example.com,2030:cca_platform"),
    "realm-profile": _set("realm", _265="tag:arm.com,2024:realm#2.0.0"),
    "challenge": _set("realm", _10=b"another".ljust(64, b"\0")),
    "personalization": _set("realm", _44235=bytes(64)),
    "debug": _set("platform", _2395=0x4000),
    "recoverable-debug": _set("platform", _2395=0x5000),
    "decommissioned": _set("platform", _2395=0x6000),
    "provisioning": _set("platform", _2395=0x2000),
    "unknown-lifecycle": _set("platform", _2395=0),
}
