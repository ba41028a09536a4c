"""A Nitro hypervisor made for tests: its own root, any document field, valid or broken in a named way.

enclave = FakeEnclave(pcrs={0: ...}, broken="signature")
claims = verify(enclave.collect(request), enclave.endorsements, request, enclave.now)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from casemate.crypto import cose
from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.testing import pki
from casemate.wire import cbor
from casemate.wire.encoding import b64


def _pcrs() -> dict[int, bytes]:
    return {i: hashlib.sha384(bytes([i])).digest() for i in (0, 1, 2, 4)} | {3: bytes(48)}


@dataclass
class FakeEnclave:
    """An enclave on a parent of this vendor. `broken` names one fault of `BROKEN`."""

    pcrs: dict[int, bytes] = field(default_factory=_pcrs)
    user_data: bytes | None = None
    public_key: bytes | None = None
    now: datetime = pki.NOW
    platform_class: str = PRODUCTION
    root: pki.Authority = field(default_factory=lambda: pki.Authority("Fake Nitro root"))
    broken: str = ""

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")

    @property
    def endorsements(self) -> Endorsements:
        """Endorsements with this vendor's root as an anchor for Nitro."""
        return Endorsements(
            anchors=(
                Anchor(
                    certificate=self.root.certificate,
                    platform_class=self.platform_class,
                    name=self.root.name,
                    tees=("nitro",),
                ),
            )
        )

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`, with the fault that `broken` names."""
        return Evidence(tee="nitro", primary={"document": b64(self.document(request.report_data))})

    def document(self, nonce: bytes | None = None) -> bytes:
        """The COSE_Sign1."""
        zone = self.root.subordinate("Fake zone")
        parts = _Parts(zone=zone, key=pki.p384())
        window = (self.now - timedelta(minutes=1), self.now + timedelta(hours=3))
        parts.body = {
            "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
            "digest": "SHA384",
            "timestamp": int(self.now.timestamp() * 1000),
            "pcrs": dict(self.pcrs),
            "certificate": zone.issue("Fake enclave", parts.key, window=window),
            "cabundle": [self.root.certificate, zone.certificate],
            "public_key": self.public_key,
            "user_data": self.user_data,
            "nonce": nonce,
        }
        if self.broken:
            BROKEN[self.broken](parts, self)
        return parts.sign()


@dataclass
class _Parts:
    zone: pki.Authority
    key: ec.EllipticCurvePrivateKey
    body: dict[str, Any] = field(default_factory=dict)
    header: dict[int, Any] = field(default_factory=lambda: {1: cose.ES384})
    flip: bool = False

    def sign(self) -> bytes:
        payload = cbor.dumps(self.body)
        protected = cbor.dumps(self.header)
        r, s = decode_dss_signature(self.key.sign(cose.signed_bytes(protected, payload), ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(48, "big") + (s ^ int(self.flip)).to_bytes(48, "big")
        return cbor.dumps([protected, {}, payload, signature])


def _body(**changes: Any) -> Callable[[_Parts, FakeEnclave], None]:
    def apply(parts: _Parts, _enclave: FakeEnclave) -> None:
        parts.body |= changes

    return apply


def _window(first: timedelta, last: timedelta) -> Callable[[_Parts, FakeEnclave], None]:
    def apply(parts: _Parts, enclave: FakeEnclave) -> None:
        window = (enclave.now + first, enclave.now + last)
        parts.body["certificate"] = parts.zone.issue("Fake enclave", parts.key, window=window)

    return apply


def _signature(parts: _Parts, _enclave: FakeEnclave) -> None:
    parts.flip = True


def _algorithm(parts: _Parts, _enclave: FakeEnclave) -> None:
    parts.header = {1: cose.ES256}


def _other_key(parts: _Parts, _enclave: FakeEnclave) -> None:
    parts.key = pki.p384()


def _other_root(parts: _Parts, enclave: FakeEnclave) -> None:
    impostor = pki.Authority(enclave.root.name)
    zone = impostor.subordinate("Fake zone")
    parts.body["certificate"] = zone.issue("Fake enclave", parts.key)
    parts.body["cabundle"] = [impostor.certificate, zone.certificate]


def _no_zone(parts: _Parts, enclave: FakeEnclave) -> None:
    parts.body["cabundle"] = [enclave.root.certificate]


def _leaf_is_ca(parts: _Parts, _enclave: FakeEnclave) -> None:
    parts.body["certificate"] = parts.zone.issue("Fake enclave", parts.key, ca=True)


def _leaf_signs(parts: _Parts, enclave: FakeEnclave) -> None:
    """An enclave's own certificate used as an authority."""
    mallory, key = pki.Authority("Fake enclave", issuer=parts.zone, ca=False), parts.key
    parts.body["certificate"] = mallory.issue("Another enclave", key)
    parts.body["cabundle"] = [enclave.root.certificate, parts.zone.certificate, mallory.certificate]


def _stale(parts: _Parts, enclave: FakeEnclave) -> None:
    parts.body["timestamp"] = int((enclave.now - timedelta(minutes=6)).timestamp() * 1000)


def _future(parts: _Parts, enclave: FakeEnclave) -> None:
    parts.body["timestamp"] = int((enclave.now + timedelta(minutes=6)).timestamp() * 1000)


def _no_pcr0(parts: _Parts, _enclave: FakeEnclave) -> None:
    del parts.body["pcrs"][0]


def _debug(parts: _Parts, _enclave: FakeEnclave) -> None:
    parts.body["pcrs"] |= {0: bytes(48), 1: bytes(48), 2: bytes(48)}


BROKEN: dict[str, Callable[[_Parts, FakeEnclave], None]] = {
    "signature": _signature,
    "algorithm": _algorithm,
    "other-key": _other_key,
    "other-root": _other_root,
    "no-intermediate": _no_zone,
    "leaf-is-ca": _leaf_is_ca,
    "leaf-as-issuer": _leaf_signs,
    "expired": _window(timedelta(hours=-4), timedelta(hours=-1)),
    "not-yet-valid": _window(timedelta(hours=1), timedelta(hours=4)),
    "stale": _stale,
    "future": _future,
    "nonce": _body(nonce=b"another"),
    "no-nonce": _body(nonce=None),
    "digest": _body(digest="SHA256"),
    "no-pcr0": _no_pcr0,
    "debug": _debug,
}
