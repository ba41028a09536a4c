"""NVIDIA devices made for tests: own roots, any report field, signed manifests, OCSP, valid or broken in a named way.

gpu = FakeGpu("BLACKWELL", broken="fwid")
claims = verify(gpu.collect(request), gpu.endorsements, request, gpu.now)

Needs the extra ``casemate[nvidia]`` unless `rims` is false.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.testing import pki
from casemate.wire.encoding import b64

CHIPS = {"HOPPER": "GH100", "BLACKWELL": "GB100", "LS10": "LS_10"}
DRIVER, VBIOS = "550.90.07", "96.00.9F.00.01"
_RIOT, _TCB_INFO = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
_SHA384 = "2.16.840.1.101.3.4.2.2"
_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_OCSP_SIGNING = pki.der(0x30, pki.der_oid("1.3.6.1.5.5.7.3.9"))


@dataclass
class _Parts:
    """What a fault may change before it is put together."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=pki.p384)
    signer: ec.EllipticCurvePrivateKey | None = None
    chain_root: pki.Authority | None = None
    rim_root: pki.Authority | None = None
    window: tuple[datetime, datetime] = (pki.START, pki.END)
    rim_window: tuple[datetime, datetime] = (pki.START, pki.END)
    certified: bytes = b"f" * 48
    fwid_extension: bool = True
    debug: bool = False
    dropped: tuple[int, ...] = ()
    flip: bool = False
    nonce: bytes | None = None
    arch: str = ""
    copies: int = 1
    opaque: dict[int, bytes] = field(default_factory=dict)
    shown: dict[int, bytes] = field(default_factory=dict)
    golden: dict[str, dict[int, bytes]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    rim_change: Callable[[bytes], bytes] = bytes
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    ocsp_window: tuple[datetime, datetime] = (pki.NOW - timedelta(hours=1), pki.NOW + timedelta(hours=23))
    responder_usage: bytes = _OCSP_SIGNING
    responder_root: pki.Authority | None = None
    ocsp_change: Callable[[bytes], bytes] = bytes


@dataclass
class FakeGpu:
    """A device of this vendor. `fields` replace opaque fields; `broken` names one fault of `BROKEN`."""

    arch: str = "HOPPER"
    driver: str = DRIVER
    vbios: str = VBIOS
    fields: Mapping[int, bytes] = field(default_factory=dict)
    now: datetime = pki.NOW
    platform_class: str = PRODUCTION
    root: pki.Authority = field(default_factory=lambda: pki.Authority("Fake NVIDIA device root"))
    rim_root: pki.Authority = field(default_factory=lambda: pki.Authority("Fake NVIDIA RIM root"))
    rims: bool = True
    responses: bool = True
    broken: str = ""

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")
        size = 31 if self.arch == "LS10" else 64
        parts = self.parts = _Parts(arch=self.arch)
        self.measurements = {i: hashlib.sha384(bytes([i])).digest() for i in range(1, size + 1)}
        parts.shown = dict(self.measurements)
        parts.golden = {
            "driver": {7: self.measurements[8], 9: self.measurements[10], 35: b"n" * 48},
            "firmware": {i: self.measurements[i + 1] for i in range(5)},
        }
        if self.arch == "LS10":
            del parts.golden["driver"]
        parts.versions = {"driver": self.driver, "firmware": self.vbios}
        parts.opaque = {**_opaque(self, parts), **self.fields}
        if self.broken:
            BROKEN[self.broken](parts, self)
        self.chain = _chain(self, parts)

    @property
    def chip(self) -> str:
        """The chip as manifests name it."""
        return CHIPS[self.arch].replace("_", "")

    @property
    def endorsements(self) -> Endorsements:
        """Both roots as anchors, manifests of driver and firmware, and OCSP responses about the authorities."""
        collateral: dict[str, bytes] = {}
        if self.rims:
            for kind, golden in self.parts.golden.items():
                collateral[f"rim/{kind}.xml"] = self.manifest(kind, golden)
        if self.responses:
            for number, (child, issuer) in enumerate(pairwise(self.chain[1:])):
                collateral[f"ocsp/{number}.der"] = _response(self.parts, child, issuer)
        named = ((self.root, "nvidia"), (self.rim_root, "nvidia-rim"))
        anchors = tuple(
            Anchor(certificate=r.certificate, platform_class=self.platform_class, name=r.name, tees=(tee,))
            for r, tee in named
        )
        return Endorsements(anchors=anchors, collateral=collateral)

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`, with the fault that `broken` names."""
        return Evidence(tee="nvidia", primary={"device_evidence_list": self.entries(request)})

    def entries(self, request: Request) -> list[dict[str, Any]]:
        """This device's entries of the list: one, unless the fault is about that."""
        chain = [a.certificate for i, a in enumerate(self.chain) if i not in self.parts.dropped]
        entry = {
            "arch": self.parts.arch,
            "uuid": "GPU-00000000-0000-0000-0000-000000000000",
            "evidence": b64(self.report((request.report_data or bytes(32))[:32])),
            "certificate": b64(pki.pem(*chain)),
        }
        return [entry] * self.parts.copies

    def report(self, nonce: bytes) -> bytes:
        """Request and signed response."""
        parts = self.parts
        record = b"".join(bytes([index, 1, 51, 0, 1, 48, 0]) + value for index, value in sorted(parts.shown.items()))
        opaque = b"".join(_u16(name) + _u16(len(value)) + value for name, value in parts.opaque.items())
        signed = b"\x11\xe0\x01\xff" + (parts.nonce or nonce).ljust(32, b"\0") + b"\0"
        signed += b"\x11\x60\0\0" + bytes([len(parts.shown)]) + len(record).to_bytes(3, "little") + record
        signed += b"r" * 32 + _u16(len(opaque)) + opaque
        r, s = decode_dss_signature((parts.signer or parts.key).sign(signed, ec.ECDSA(hashes.SHA384())))
        return signed + r.to_bytes(48, "big") + (s ^ int(parts.flip)).to_bytes(48, "big")

    def manifest(self, kind: str, golden: Mapping[int, bytes]) -> bytes:
        """The signed manifest of the driver or the firmware."""
        text = swid(self.chip, self.parts.versions[kind], golden, "SWITCH" if self.arch == "LS10" else "GPU")
        issuer = pki.Authority("Fake RIM L3", issuer=self.parts.rim_root or self.rim_root)
        key = pki.p384()
        leaf = issuer.issue("Fake RIM signer", key, window=self.parts.rim_window)
        return self.parts.rim_change(sign(text, key, (leaf, issuer.certificate)))


def swid(product: str, version: str, golden: Mapping[int, bytes], edition: str = "GPU") -> bytes:
    """A SWID tag with these active measurements, and an inactive one behind them. Not signed."""
    rows = "".join(
        f'<n:Resource type="Measurement" index="{index}" active="{state}" alternatives="1" h:Hash0="{value.hex()}" '
        f'name="Measurement_{index}" size="48"/>'
        for index, value, state in [*((i, v, "True") for i, v in golden.items()), (99, bytes(48), "False")]
    )
    return (
        f'<SoftwareIdentity xmlns="{_SWID}" xmlns:n="{_SWID}" xmlns:h="http://www.w3.org/2001/04/xmlenc#sha384" '
        f'name="{product}" tagId="{"0" * 96}" version="1.0"><n:Meta colloquialVersion="{version}" '
        f'edition="{edition}" product="{product}"/><n:Payload>{rows}</n:Payload></SoftwareIdentity>'
    ).encode()


def sign(text: bytes, key: ec.EllipticCurvePrivateKey, chain: tuple[bytes, ...]) -> bytes:
    """`text` with an enveloped signature in the form that NVIDIA uses."""
    from lxml import etree
    from signxml import algorithms
    from signxml.signer import XMLSigner

    signer = XMLSigner(
        method=algorithms.SignatureConstructionMethod.enveloped,
        signature_algorithm=algorithms.SignatureMethod.ECDSA_SHA384,
        digest_algorithm=algorithms.DigestAlgorithm.SHA384,
        c14n_algorithm=algorithms.CanonicalizationMethod.CANONICAL_XML_1_1,
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    signed = signer.sign(etree.fromstring(text), key=pem, cert=pki.pem(*chain).decode())
    found: bytes = etree.tostring(signed)
    return found


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _opaque(gpu: FakeGpu, parts: _Parts) -> dict[int, bytes]:
    if gpu.arch == "LS10":
        return {6: gpu.vbios.encode(), 22: bytes(8), 12: bytes(104)}
    packed = bytes.fromhex(gpu.vbios.replace(".", ""))
    found = {6: packed[3::-1] + packed[4:] + bytes(3), 14: bytes(4), 15: b"882\0", 16: b"0\0", 17: b"1010\0"}
    found |= {18: b"0200\0", 19: b"\0\0", 3: gpu.driver.encode() + b"\0", 4: bytes(8), 12: bytes(256), 13: bytes(4)}
    return found | {11: b"\x55", 20: parts.certified, 21: b"\x55"}


def _chain(gpu: FakeGpu, parts: _Parts) -> list[pki.Authority]:
    """Device, ROM, provisioner, identity, root: as NVIDIA's, leaf first."""
    root = parts.chain_root or gpu.root
    name = CHIPS[gpu.arch]
    identity = pki.Authority(f"Fake {name} Identity", issuer=root)
    provisioner = pki.Authority(f"Fake {name} Provisioner", issuer=identity)
    rom = pki.Authority(f"{name} A01 GSP BROM", issuer=provisioner)
    leaf = rom.issue(f"{name} A01 GSP FMC LF", parts.key, window=parts.window, extensions=_dice(gpu.arch, parts))
    device = pki.Authority(f"{name} A01 GSP FMC LF", parts.key, issuer=rom, ca=False, certificate=leaf)
    return [device, rom, provisioner, identity, root]


def _dice(arch: str, parts: _Parts) -> list[pki.Extension]:
    if not parts.fwid_extension:
        return []
    fwid = pki.der(0x30, pki.der_oid(_SHA384) + pki.der(0x04, parts.certified))
    if arch == "BLACKWELL":
        flags = bytes([0, 0x90 if parts.debug else 0x80, 0, 0, 1])
        return [(_TCB_INFO, pki.der(0x30, pki.der(0xA6, fwid + fwid) + pki.der(0x87, flags)), False)]
    key = parts.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [(_RIOT, pki.der(0x30, pki.der_int(1) + key + fwid), False)]


def _response(parts: _Parts, child: pki.Authority, issuer: pki.Authority) -> bytes:
    """The OCSP response about an authority, by a responder that its issuer certified."""
    key = pki.p384()
    usage = [("2.5.29.37", parts.responder_usage, False)]
    der = (parts.responder_root or issuer).issue("Fake OCSP responder", key, extensions=usage)
    responder, start, end = x509.load_der_x509_certificate(der), *parts.ocsp_window
    revoked = parts.status == ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            x509.load_der_x509_certificate(child.certificate),
            x509.load_der_x509_certificate(issuer.certificate),
            hashes.SHA384(),
            parts.status,
            start,
            end,
            start if revoked else None,
            None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, responder)
        .certificates([responder])
    )
    return parts.ocsp_change(builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER))


def _set(**changes: Any) -> Callable[[_Parts, FakeGpu], None]:
    def apply(parts: _Parts, _gpu: FakeGpu) -> None:
        for name, value in changes.items():
            setattr(parts, name, value)

    return apply


def _field(number: int, value: bytes) -> Callable[[_Parts, FakeGpu], None]:
    def apply(parts: _Parts, _gpu: FakeGpu) -> None:
        parts.opaque[number] = value

    return apply


def _impostor(parts: _Parts, gpu: FakeGpu) -> None:
    parts.chain_root = pki.Authority(gpu.root.name)


def _other_key(parts: _Parts, _gpu: FakeGpu) -> None:
    parts.signer = pki.p384()


def _measurement(parts: _Parts, _gpu: FakeGpu) -> None:
    parts.shown[2] = b"x" * 48


def _no_measurement(parts: _Parts, _gpu: FakeGpu) -> None:
    del parts.shown[2]


def _rim_impostor(parts: _Parts, gpu: FakeGpu) -> None:
    parts.rim_root = pki.Authority(gpu.rim_root.name)


def _rim_by_device_root(parts: _Parts, gpu: FakeGpu) -> None:
    parts.rim_root = gpu.root


def _overlap(parts: _Parts, _gpu: FakeGpu) -> None:
    parts.golden["driver"] |= {0: parts.golden["firmware"][0]}


def _rim_of_another_version(parts: _Parts, _gpu: FakeGpu) -> None:
    parts.versions |= {"driver": "550.90.08"}


def _responder_impostor(parts: _Parts, _gpu: FakeGpu) -> None:
    parts.responder_root = pki.Authority("Fake somebody")


_DAY = timedelta(days=1)
BROKEN: dict[str, Callable[[_Parts, FakeGpu], None]] = {
    "signature": _set(flip=True),
    "other-key": _other_key,
    "other-root": _impostor,
    "no-leaf": _set(dropped=(0,)),
    "no-intermediate": _set(dropped=(2,)),
    "expired": _set(window=(pki.START, pki.NOW - _DAY)),
    "not-yet-valid": _set(window=(pki.NOW + _DAY, pki.END)),
    "no-fwid": _set(fwid_extension=False),
    "fwid": _field(20, b"g" * 48),
    "arch": _set(arch="LS10"),
    "nonce": _set(nonce=b"another"),
    "twice": _set(copies=2),
    "measurement": _measurement,
    "no-measurement": _no_measurement,
    "rim-golden": _set(rim_change=lambda xml: xml.replace(b'size="48"', b'size="48" x="1"', 1)),
    "rim-signature-value": _set(rim_change=lambda xml: _swap(xml, b"SignatureValue>", 8)),
    "rim-root": _rim_impostor,
    "rim-by-device-root": _rim_by_device_root,
    "rim-expired": _set(rim_window=(pki.START, pki.NOW - _DAY)),
    "rim-doctype": _set(rim_change=lambda xml: b"<!DOCTYPE SoftwareIdentity>" + xml),
    "rim-overlap": _overlap,
    "rim-version": _rim_of_another_version,
    "revoked": _set(status=ocsp.OCSPCertStatus.REVOKED),
    "revoked-long-ago": _set(status=ocsp.OCSPCertStatus.REVOKED, ocsp_window=(pki.NOW - 9 * _DAY, pki.NOW - 8 * _DAY)),
    "ocsp-unknown": _set(status=ocsp.OCSPCertStatus.UNKNOWN),
    "ocsp-signature": _set(ocsp_change=lambda der: der.replace(b"\x18\x0f20260601", b"\x18\x0f20260602", 1)),
    "ocsp-responder": _responder_impostor,
    "ocsp-usage": _set(responder_usage=pki.der(0x30, pki.der_oid("1.3.6.1.5.5.7.3.1"))),
    "ocsp-garbage": _set(ocsp_change=lambda der: der[:40]),
    "protected-pcie": _field(21, b"\xaa"),
}


def _swap(xml: bytes, behind: bytes, offset: int) -> bytes:
    """Two different letters changed for each other, `offset` bytes behind a mark."""
    at = xml.index(behind) + len(behind) + offset
    other = next(i for i in range(at + 1, at + 60) if xml[i] != xml[at] and xml[i : i + 1].isalnum())
    return xml[:at] + xml[other : other + 1] + xml[at + 1 : other] + xml[at : at + 1] + xml[other + 1 :]
