"""The CCA attestation token: a CBOR collection of two COSE_Sign1, the platform's and the realm's.

Standards: Arm's RMM specification (DEN0137) section A7.2; draft-ffm-rats-cca-token-00 to -03; RFC 9711 (EAT). Claims
that are not known are passed over, as EAT demands; one that is known and wrong in form is `Malformed`.

    primary evidence  {"token": [integers]} or {"token": base64}
    collection        399({44234: bytes, 44241: bytes}), or 907({44234: [263, bytes], 44241: [263, bytes]})
    platform token    10 challenge, 256 instance id, 265 profile, 2395 lifecycle, 2396 implementation id,
                      2399 software components, 2400 verification service, 2401 configuration, 2402 hash algorithm,
                      2408 workload binding (profile of 2026, in the challenge's stead)
    realm token       10 challenge, 265 profile, 44235 personalization value, 44236 hash algorithm, 44237 key (RAK),
                      44238 initial measurement, 44239 extensible measurements, 44240 the key's hash algorithm,
                      44243 memory encryption contexts
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from casemate.crypto import cose
from casemate.errors import Malformed
from casemate.wire import cbor
from casemate.wire.encoding import unb64

MAX_TOKEN = 64 << 10
TAG, TAG_CMW = 399, 907
PLATFORM, REALM = 44234, 44241
EAT_CWT = 263  # CoAP content format of application/eat+cwt
LEGACY = "http://arm.com/CCA-SSD/1.0.0"
CHALLENGE, WORKLOAD_BINDING = 10, 2408
SECURED, DEBUG = 0x30, (0x40, 0x50)
LIFECYCLES = {
    0x00: "unknown", 0x10: "assembly and test", 0x20: "provisioning", 0x30: "secured",
    0x40: "debug, not of the platform's root of trust", 0x50: "recoverable debug", 0x60: "decommissioned",
}  # fmt: skip
_MAX_COMPONENTS = 64
_HASHES = (32, 48, 64)
_MISSING = object()


@dataclass(frozen=True)
class Component:
    """One piece of platform firmware; "" for what the token leaves out."""

    kind: str
    measurement: bytes
    version: str
    signer: bytes
    algorithm: str


@dataclass(frozen=True)
class Platform:
    """The platform token. `challenge` and `workload` are empty where the profile has none."""

    message: cose.Sign1
    profile: str
    challenge: bytes
    workload: bytes
    instance: bytes
    implementation: bytes
    lifecycle: int
    configuration: bytes
    algorithm: str
    service: str
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Realm:
    """The realm token. `key_bytes` is the claim as it came: that is what the platform's challenge is the hash of."""

    message: cose.Sign1
    profile: str
    challenge: bytes
    personalization: bytes
    algorithm: str
    key: ec.EllipticCurvePublicKey
    key_bytes: bytes
    key_algorithm: str
    initial: bytes
    extensible: tuple[bytes, ...]
    encryption: str


@dataclass(frozen=True)
class Token:
    """Both tokens; `tag` tells the two forms of the collection apart."""

    tag: int
    platform: Platform
    realm: Realm


def parse_evidence(primary: dict[str, Any]) -> Token:
    """Decode the primary evidence object."""
    return parse(token_bytes(primary))


def token_bytes(primary: dict[str, Any]) -> bytes:
    """The token in the primary evidence object, not looked into."""
    given = primary.get("token")
    if isinstance(given, str) and len(given) <= 2 * MAX_TOKEN:
        return unb64(given, "CCA evidence: token")
    if not isinstance(given, list) or len(given) > MAX_TOKEN:
        raise Malformed("CCA evidence: `token` is no list of bytes, or too long")
    if not all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255 for value in given):
        raise Malformed("CCA evidence: `token` is no list of bytes")
    return bytes(given)


def parse(data: bytes) -> Token:
    """Parse the bytes that the Realm Management Monitor gave."""
    outer = cbor.loads(data, "CCA token", limit=MAX_TOKEN)
    if not isinstance(outer, cbor.Tagged) or outer.tag not in (TAG, TAG_CMW):
        raise Malformed(f"CCA token: a collection under tag {TAG} or {TAG_CMW} is wanted")
    if not isinstance(outer.value, dict) or set(outer.value) != {PLATFORM, REALM}:
        raise Malformed("CCA token: a collection of a platform token and a realm token, and nothing else, is wanted")
    platform, realm = (_member(outer, label) for label in (PLATFORM, REALM))
    return Token(outer.tag, _platform(platform), _realm(realm))


def looks_like(data: bytes) -> bool:
    """Whether `data` begins as a token does: one of its tags and a map of two."""
    return data[:3] in (b"\xd9\x01\x8f", b"\xd9\x03\x8b") and data[3:4] in (b"\xa2", b"\xbf")


def _member(outer: cbor.Tagged, label: int) -> bytes:
    found = outer.value[label]
    if outer.tag == TAG_CMW:
        if not isinstance(found, list) or len(found) != 2 or found[0] != EAT_CWT or isinstance(found[0], bool):
            raise Malformed(f"CCA token: entry {label} is no record of content format {EAT_CWT}")
        found = found[1]
    if not isinstance(found, bytes):
        raise Malformed(f"CCA token: entry {label} is no byte string")
    return found


def _platform(data: bytes) -> Platform:
    name = "CCA platform token"
    message, claims = _claims(data, name)
    lifecycle = claims.get(2395)
    if not isinstance(lifecycle, int) or isinstance(lifecycle, bool) or lifecycle >> 8 not in LIFECYCLES:
        raise Malformed(f"{name}: the lifecycle (2395) is none that is defined")
    instance = _bytes(claims, 256, name, 33, 33)
    if instance[0] != 1:
        raise Malformed(f"{name}: the instance id (256) is of another type than RAND")
    given = claims.get(2399)
    if not isinstance(given, list) or not 1 <= len(given) <= _MAX_COMPONENTS:
        raise Malformed(f"{name}: software components (2399) are no list of 1 to {_MAX_COMPONENTS}")
    return Platform(
        message=message,
        profile=_text(claims, 265, name),
        challenge=_hash(claims, CHALLENGE, name) if CHALLENGE in claims else b"",
        workload=_hash(claims, WORKLOAD_BINDING, name) if WORKLOAD_BINDING in claims else b"",
        instance=instance,
        implementation=_bytes(claims, 2396, name, 32, 32),
        lifecycle=lifecycle,
        configuration=_bytes(claims, 2401, name, 0, 4096),
        algorithm=_text(claims, 2402, name),
        service=_text(claims, 2400, name, ""),
        components=tuple(_component(item, f"{name}: component {i}") for i, item in enumerate(given)),
    )


def _component(item: Any, name: str) -> Component:
    if not isinstance(item, dict):
        raise Malformed(f"{name} is no map")
    return Component(
        kind=_text(item, 1, name, ""),
        measurement=_hash(item, 2, name),
        version=_text(item, 4, name, ""),
        signer=_hash(item, 5, name),
        algorithm=_text(item, 6, name, ""),
    )


def _realm(data: bytes) -> Realm:
    name = "CCA realm token"
    message, claims = _claims(data, name)
    profile = _text(claims, 265, name, "")
    given = claims.get(44239)
    if not isinstance(given, list) or len(given) != 4:
        raise Malformed(f"{name}: extensible measurements (44239) are no list of 4")
    key_bytes = _bytes(claims, 44237, name, 64, 1024)
    return Realm(
        message=message,
        profile=profile,
        challenge=_bytes(claims, CHALLENGE, name, 64, 64),
        personalization=_bytes(claims, 44235, name, 64, 64),
        algorithm=_text(claims, 44236, name),
        key=_cose_key(key_bytes) if profile else _point(key_bytes, ec.SECP384R1()),
        key_bytes=key_bytes,
        key_algorithm=_text(claims, 44240, name),
        initial=_hash(claims, 44238, name),
        extensible=tuple(_hash({i: value}, i, f"{name}: measurement") for i, value in enumerate(given)),
        encryption=_text(claims, 44243, name, ""),
    )


def _claims(data: bytes, name: str) -> tuple[cose.Sign1, dict[Any, Any]]:
    message = cose.parse(data, name, limit=MAX_TOKEN)
    claims = cbor.loads(message.payload, name)
    if not isinstance(claims, dict):
        raise Malformed(f"{name}: its claims are no map")
    return message, claims


def _cose_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """A COSE_Key of type EC2 (RFC 9053 section 7.1.1) on P-256 or P-384."""
    item = cbor.loads(data, "CCA realm key")
    if not isinstance(item, dict) or item.get(1) != 2 or item.get(-1) not in (1, 2):
        raise Malformed("CCA realm key: a COSE key on P-256 or P-384 is wanted")
    curve: ec.EllipticCurve = ec.SECP256R1() if item[-1] == 1 else ec.SECP384R1()
    width = curve.key_size // 8
    x, y = (_bytes(item, label, "CCA realm key", width, width) for label in (-2, -3))
    return _point(b"\x04" + x + y, curve)


def _point(data: bytes, curve: ec.EllipticCurve) -> ec.EllipticCurvePublicKey:
    if len(data) != 1 + curve.key_size // 4 or data[0] != 4:
        raise Malformed("CCA realm key: an uncompressed point is wanted")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, data)
    except ValueError as error:
        raise Malformed("CCA realm key: the point is not on its curve") from error


def _bytes(claims: dict[Any, Any], label: int, name: str, least: int, most: int) -> bytes:
    value = claims.get(label)
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        raise Malformed(f"{name}: claim {label} is not {least} to {most} bytes")
    return value


def _hash(claims: dict[Any, Any], label: int, name: str) -> bytes:
    value = _bytes(claims, label, name, 32, 64)
    if len(value) not in _HASHES:
        raise Malformed(f"{name}: claim {label} is no digest of 32, 48 or 64 bytes")
    return value


def _text(claims: dict[Any, Any], label: int, name: str, default: object = _MISSING) -> str:
    value = claims.get(label, default)
    if not isinstance(value, str) or len(value) > 256:
        raise Malformed(f"{name}: claim {label} is no text of at most 256")
    return value
