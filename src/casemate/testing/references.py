"""A publisher of reference values made for tests: every format, any field, valid or broken in a named way.

publisher = Publisher()
found = references.read(publisher.corim(), publisher.trust, publisher.now)
with pytest.raises(Refused): references.read(publisher.corim("expired"), publisher.trust, publisher.now)

`BROKEN` names for each format the faults and the rule that refuses each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from casemate.crypto import cose, signatures
from casemate.policy.references import Did, ReferenceTrust, corim, dsse, intoto, rules, signed, trust
from casemate.testing import pki
from casemate.wire import cbor, jcs
from casemate.wire.encoding import b64, b64u

FEED, EKU, BUILDER = "fake-uvm", "1.3.6.1.4.1.311.76.59.1.2", "https://builder.example/v1"
_EXTENDED_USAGE = "2.5.29.37"
_YEAR = timedelta(days=365)
_COSE = {name: number for number, name in signatures.COSE.items()}
Fault = Callable[[Any, "Publisher"], None]


@dataclass
class Publisher:
    """Somebody with a key, whom `trust` names; `values` are of one `tee`, registers to hex."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=pki.p256)
    root: pki.Authority = field(default_factory=lambda: pki.Authority("Fake image root"))
    now: datetime = pki.NOW
    tee: str = "snp"
    values: dict[str, str] = field(default_factory=lambda: {"measurement": "5a" * 48})

    @property
    def did(self) -> str:
        """The did:x509 under which the utility VM's images are endorsed."""
        return f"did:x509:0:sha256:{b64u(hashlib.sha256(self.root.certificate).digest())}::eku:{EKU}"

    @property
    def pin(self) -> str:
        """How the key is named in documents."""
        return rules.key_id(self.spki)

    @property
    def spki(self) -> bytes:
        """The public key, DER."""
        return signatures.spki(self.key.public_key())

    @property
    def trust(self) -> ReferenceTrust:
        """A relying party that believes this publisher, about this TEE."""
        return ReferenceTrust(
            keys=(self.spki,), dids=(Did(self.did, FEED, 7),), scope={"tee": self.tee}, builders=frozenset({BUILDER})
        )

    def corim(self, broken: str = "") -> bytes:
        """A signed CoRIM with one triple; `broken` of `BROKEN["corim"]`."""
        parts = _Corim(self)
        _break("corim", broken, parts, self)
        payload = cbor.dumps(cbor.Tagged(corim.TAG_CORIM, parts.manifest | {1: [_tag(parts.comid)]}))
        return payload if parts.bare else parts.message.sign(payload)

    def provenance(self, broken: str = "", *, version: int = 1) -> bytes:
        """SLSA provenance v1 or v0.2 of the values, in DSSE; `broken` of `BROKEN["in-toto"]`."""
        parts = _Envelope(self, _statement(self, version))
        _break("in-toto", broken, parts, self)
        return parts.sign(intoto.PAYLOAD_TYPE)

    def uvm(self, broken: str = "") -> bytes:
        """An endorsement of a utility VM (measurement only); `broken` of `BROKEN["uvm"]`."""
        parts = _Uvm(self)
        _break("uvm", broken, parts, self)
        return parts.message.sign(jcs.canonical(parts.body))

    def plain(self, broken: str = "", *, as_jws: bool = False) -> bytes:
        """Our own document, in DSSE or as a JWS; `broken` of `BROKEN["plain"]`."""
        parts = _Envelope(self, {
            "type": signed.TYPE, "name": "fake image", "signer": self.pin, "scope": {"tee": self.tee},
            "issued": _rfc3339(self.now - timedelta(days=1)), "expires": _rfc3339(self.now + _YEAR),
            "values": dict(self.values),
        })  # fmt: skip
        _break("plain", broken, parts, self)
        if parts.bare:
            return jcs.canonical(parts.body)
        return parts.jws() if as_jws else parts.sign(signed.PAYLOAD_TYPE)


@dataclass
class _Message:
    """A COSE_Sign1 in the making."""

    key: ec.EllipticCurvePrivateKey
    header: dict[Any, Any]
    flip: int = 0

    def sign(self, payload: bytes) -> bytes:
        protected = cbor.dumps(self.header)
        made = bytearray(signatures.sign_jose(self.key, cose.signed_bytes(protected, payload)))
        made[-1] ^= self.flip
        return cbor.dumps(cbor.Tagged(cose.TAG_SIGN1, [protected, {}, payload, bytes(made)]))


class _Corim:
    def __init__(self, publisher: Publisher) -> None:
        begins, ends = int((publisher.now - _YEAR).timestamp()), int((publisher.now + _YEAR).timestamp())
        validity = {0: cbor.Tagged(1, begins), 1: cbor.Tagged(1, ends)}
        self.metadata: dict[int, Any] = {0: {0: "Fake publisher"}, 1: validity}
        self.manifest: dict[int, Any] = {0: "fake manifest", 4: dict(validity), 5: [{0: "Fake publisher", 2: [1]}]}
        self.environment: dict[int, Any] = {0: {1: "Fake vendor", 2: "Fake model"}}
        self.measurements: list[dict[int, Any]] = [
            {0: name, 1: {2: [[{32: 1, 48: 7, 64: 8}[len(value) // 2], bytes.fromhex(value)]]}}
            for name, value in publisher.values.items()
        ]
        self.bare = False
        algorithm = _COSE[signatures.algorithm(publisher.key)]
        self.message = _Message(publisher.key, {1: algorithm, 3: corim.CONTENT_TYPES[0], 8: b""})
        self.seal()

    def seal(self) -> None:
        self.message.header[8] = cbor.dumps(self.metadata)

    @property
    def comid(self) -> bytes:
        return cbor.dumps({1: {0: "fake tag"}, 4: {0: [[self.environment, self.measurements]]}})


class _Envelope:
    def __init__(self, publisher: Publisher, body: dict[str, Any]) -> None:
        self.key, self.body, self.flip, self.bare = publisher.key, body, 0, False

    def sign(self, payload_type: str) -> bytes:
        payload = jcs.canonical(self.body)
        if self.bare:
            return payload
        made = bytearray(signatures.sign_dsse(self.key, dsse.pae(payload_type, payload)))
        made[-1] ^= self.flip
        signature = {"keyid": "a hint", "sig": b64(bytes(made))}
        return jcs.canonical({"payloadType": payload_type, "payload": b64(payload), "signatures": [signature]})

    def jws(self) -> bytes:
        head, _, text = signed.sign(jcs.canonical(self.body), self.key, as_jws=True).rpartition(b".")
        made = bytearray(signatures.sign_jose(self.key, head))
        made[-1] ^= self.flip
        return head + b"." + (b64u(bytes(made)).encode() if self.flip else text)


class _Uvm:
    def __init__(self, publisher: Publisher) -> None:
        self.key = pki.p384()
        self.issuer = publisher.root.subordinate("Fake image authority")
        signed_at = int((publisher.now - timedelta(days=30)).timestamp())
        self.message = _Message(
            self.key,
            {1: _COSE["ES384"], 3: "application/json", "iss": publisher.did, "feed": FEED,
             "signingtime": cbor.Tagged(1, signed_at)},
        )  # fmt: skip
        self.body: dict[str, Any] = {
            "x-ms-sevsnpvm-guestsvn": "9",
            "x-ms-sevsnpvm-launchmeasurement": publisher.values.get("measurement", "5a" * 48),
        }
        self.chain(publisher)

    def chain(self, publisher: Publisher, *, eku: str = EKU, root: pki.Authority | None = None, **options: Any) -> None:
        """Certificates of the signer, by an authority of `root`."""
        issuer = (root or publisher.root).subordinate("Fake image authority")
        usage = (_EXTENDED_USAGE, pki.der(0x30, pki.der_oid(eku)), False)
        leaf = issuer.issue("Fake image signer", self.key, extensions=[usage], **options)
        self.message.header[33] = [leaf, issuer.certificate, (root or publisher.root).certificate]


def _statement(publisher: Publisher, version: int) -> dict[str, Any]:
    subjects = [
        {"name": f"{intoto.MEASUREMENT}{publisher.tee}:{name}", "digest": {f"sha{len(value) * 4}": value}}
        for name, value in publisher.values.items()
    ]
    subjects.append({"name": "registry.example/image", "digest": {"sha256": "11" * 32, "sha1": "22" * 20}})
    finished = _rfc3339(publisher.now - timedelta(hours=1))
    if version == 1:
        predicate: dict[str, Any] = {
            "buildDefinition": {"buildType": "https://builder.example/type", "externalParameters": {}},
            "runDetails": {"builder": {"id": BUILDER}, "metadata": {"finishedOn": finished}},
        }
        kind = trust.SLSA_V1
    else:
        predicate = {
            "builder": {"id": BUILDER}, "buildType": "https://builder.example/type",
            "metadata": {"buildFinishedOn": finished},
        }  # fmt: skip
        kind = trust.SLSA_V02
    statement = intoto.STATEMENTS[0 if version == 1 else 1]
    return {"_type": statement, "subject": subjects, "predicateType": kind, "predicate": predicate}


def _tag(comid: bytes) -> cbor.Tagged:
    return cbor.Tagged(corim.TAG_COMID, comid)


def _rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _break(kind: str, broken: str, parts: Any, publisher: Publisher) -> None:
    if broken:
        if broken not in BROKEN[kind]:
            raise ValueError(f"no fault {broken!r} of {kind}; known: {', '.join(BROKEN[kind])}")
        BROKEN[kind][broken][1](parts, publisher)


def _set(place: str, **changes: Any) -> Fault:
    def apply(parts: Any, _publisher: Publisher) -> None:
        for name in place.split("."):
            parts = parts[name] if isinstance(parts, dict) else getattr(parts, name)
        parts |= changes  # in place: all of these are dicts

    return apply


def _flag(place: str, value: Any) -> Fault:
    def apply(parts: Any, _publisher: Publisher) -> None:
        *path, last = place.split(".")
        for name in path:
            parts = getattr(parts, name)
        setattr(parts, last, value() if callable(value) else value)

    return apply


def _window(first: timedelta, last: timedelta, *, inner: bool = False) -> Fault:
    def apply(parts: _Corim, publisher: Publisher) -> None:
        times = [cbor.Tagged(1, int((publisher.now + shift).timestamp())) for shift in (first, last)]
        (parts.manifest if inner else parts.metadata)[4 if inner else 1] = dict(enumerate(times))
        parts.seal()

    return apply


def _member(place: str, label: Any, value: Any) -> Fault:
    def apply(parts: Any, publisher: Publisher) -> None:
        for name in place.split("."):
            parts = parts[0] if name == "0" else getattr(parts, name)
        parts[label] = value(publisher) if callable(value) else value

    return apply


def _values(label: int, value: Any) -> Fault:
    def apply(parts: _Corim, _publisher: Publisher) -> None:
        parts.measurements[0][1][label] = value

    return apply


def _chained(make: Callable[[Publisher], dict[str, Any]]) -> Fault:
    def apply(parts: _Uvm, publisher: Publisher) -> None:
        parts.chain(publisher, **make(publisher))

    return apply


def _predicate(*path: str, value: Callable[[Publisher], Any]) -> Fault:
    def apply(parts: _Envelope, publisher: Publisher) -> None:
        place = parts.body["predicate"]
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value(publisher)

    return apply


def _later(publisher: Publisher) -> str:
    return _rfc3339(publisher.now + timedelta(hours=1))


def _impostor(publisher: Publisher) -> pki.Authority:
    return pki.Authority(publisher.root.name)


def _other_did(publisher: Publisher) -> str:
    return Publisher(root=_impostor(publisher)).did


def _time(shift: timedelta) -> Callable[[Publisher], cbor.Tagged]:
    return lambda publisher: cbor.Tagged(1, int((publisher.now + shift).timestamp()))


_DAY = timedelta(days=1)
_SIGNATURE: dict[str, tuple[str, Fault]] = {
    "signature": ("reference.signature", _flag("flip", 1)),
    "other-key": ("reference.signature", _flag("key", pki.p256)),
    "unsigned": ("reference.signature", _flag("bare", True)),
}
_MESSAGE: dict[str, tuple[str, Fault]] = {
    "signature": ("reference.signature", _flag("message.flip", 1)),
    "other-key": ("reference.signature", _flag("message.key", pki.p384)),
    "algorithm": ("reference.signature", _member("message.header", 1, _COSE["ES512"])),
}
# Format to fault to (the rule that refuses it, what it does).
BROKEN: dict[str, dict[str, tuple[str, Fault]]] = {
    "corim": _MESSAGE
    | {
        "unsigned": ("reference.signature", _flag("bare", True)),
        "expired": ("reference.expiry", _window(-2 * _DAY, -_DAY)),
        "expired-inside": ("reference.expiry", _window(-2 * _DAY, -_DAY, inner=True)),
        "future": ("reference.issued", _window(_DAY, 2 * _DAY)),
        "future-inside": ("reference.issued", _window(_DAY, 2 * _DAY, inner=True)),
        "profile": ("reference.profile", _member("manifest", 3, cbor.Tagged(32, "https://profile.example"))),
        "dependent": ("reference.dependent", _member("manifest", 2, [{0: "https://rim.example"}])),
        "instance": ("reference.scope.instance", _member("environment", 1, cbor.Tagged(560, b"machine 1"))),
        "digest-size": ("reference.corim.digest", _values(2, [[1, bytes(31)]])),
        "digest-weak": ("reference.corim.digest", _values(2, [["sha-1", bytes(20)]])),
        "mask": ("reference.corim.values", _values(5, bytes(48))),
        "authority": ("reference.corim.values", _member("measurements.0", 2, [cbor.Tagged(560, bytes(32))])),
    },
    "in-toto": _SIGNATURE
    | {
        "predicate": ("reference.predicate", _set("body", predicateType="https://predicate.example")),
        "future": ("reference.issued", _predicate("runDetails", "metadata", "finishedOn", value=_later)),
        "builder": ("reference.builder", _predicate("runDetails", "builder", "id", value=lambda _: "https://other.example")),
    },
    "uvm": _MESSAGE
    | {
        "issuer": ("reference.signer.did", _member("message.header", "iss", _other_did)),
        "feed": ("reference.feed", _set("message.header", feed="another")),
        "old": ("reference.svn", _member("body", "x-ms-sevsnpvm-guestsvn", "6")),
        "future": ("reference.issued", _member("message.header", "signingtime", _time(_DAY))),
        "expired": ("reference.signer.validity", _chained(lambda p: {"window": (p.now - 2 * _DAY, p.now - _DAY)})),
        "early": ("reference.signer.validity", _chained(lambda p: {"window": (p.now + _DAY, p.now + 2 * _DAY)})),
        "other-root": ("reference.signer.chain", _chained(lambda p: {"root": _impostor(p)})),
        "usage": ("reference.signer.eku", _chained(lambda _: {"eku": "1.3.6.1.5.5.7.3.3"})),
        "leaf-is-ca": ("reference.signer.usage", _chained(lambda _: {"ca": True})),
    },
    "plain": _SIGNATURE
    | {
        "signer": ("reference.signer", _set("body", signer="sha256:" + "00" * 32)),
        "expired": ("reference.expiry", _member("body", "expires", lambda p: _rfc3339(p.now - timedelta(hours=1)))),
        "future": ("reference.issued", _member("body", "issued", _later)),
        "other-tee": ("reference.scope.tee", _member("body", "scope", {"tee": "tdx"})),
        "other-app": ("reference.scope.app", _member("body", "scope", {"tee": "snp", "app": "sha256:" + "0" * 64})),
    },
}  # fmt: skip
