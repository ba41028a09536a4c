"""An AMD made for tests: ARK and ASK (RSA-PSS), VCEK or VLEK with serial number 0, any report field.

    chip = FakeChip("Genoa", version=5, fields={"policy": 0xB0000})     # or vlek=True, broken="tcb"
    claims = verify(chip.collect(request), chip.endorsements, request, chip.now)

`fields` changes fields of the report; `broken` names one fault of `BROKEN`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.snp import report, wire
from casemate.tee.snp.report import Tcb
from casemate.testing import pki
from casemate.testing.pki import der, der_int

_CPUID = {"Milan": (0x19, 1, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 2, 1)}
_BASE = "1.3.6.1.4.1.3704.1"


@lru_cache(maxsize=8)
def authorities(product: str) -> tuple[pki.Authority, pki.Authority, pki.Authority]:
    """ARK, ASK and ASVK of a product, the same at each call: making RSA keys is slow."""
    ark = pki.Authority(f"ARK-{product}", pki.rsa2048())
    ask = ark.subordinate(f"SEV-{product}", pki.rsa2048())
    return ark, ask, ark.subordinate(f"SEV-VLEK-{product}", pki.rsa2048())


@dataclass
class FakeChip:
    """A chip of this vendor with one guest."""

    product: str = "Milan"
    version: int = 3
    vlek: bool = False
    now: datetime = pki.NOW
    platform_class: str = PRODUCTION
    fields: dict[str, Any] = field(default_factory=dict)
    broken: str = ""
    key: ec.EllipticCurvePrivateKey = field(default_factory=pki.p384)

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")
        self.ark, self.ask, self.asvk = authorities(self.product)
        self.tcb = Tcb(bootloader=4, tee=0, snp=24, microcode=217, fmc=1 if self.product == "Turin" else None)
        identity = b"\x77" * 8 + (bytes(56) if self.product == "Turin" else b"\x77" * 56)
        self.chip_id = bytes(64) if self.vlek else identity
        self.parts = _Parts(self)
        if self.broken:
            BROKEN[self.broken](self, self.parts)

    @property
    def endorsements(self) -> Endorsements:
        """Endorsements with this vendor's root as an anchor, and its lists."""
        anchor = Anchor(
            certificate=self.ark.certificate, platform_class=self.platform_class, name="Fake AMD", tees=("snp",)
        )
        return Endorsements(anchors=() if self.parts.no_anchor else (anchor,), collateral=dict(self.parts.collateral))

    @property
    def chain(self) -> list[tuple[str, bytes]]:
        """(kind, DER) of VEK, intermediate and root."""
        kind, issuer = ("VLEK", self.asvk) if self.vlek else ("VCEK", self.ask)
        entries = [(kind, self.parts.vek(kind, issuer)), ("ASK", issuer.certificate), ("ARK", self.ark.certificate)]
        return [(k, d) for k, d in entries if k not in self.parts.dropped]

    def collect(self, request: Request, *, raw: bool = False) -> Evidence:
        """Evidence for `request`; CoCo's form, or our own where `raw`."""
        data = self.report(request)
        primary = wire.to_json(data, self.chain)
        if raw:
            from casemate.wire.encoding import b64

            primary["attestation_report"] = b64(data)
        return Evidence(tee="snp", primary=primary)

    def report(self, request: Request) -> bytes:
        """The 1184 bytes."""
        body = self._body(request)
        r, s = decode_dss_signature(self.parts.signer.sign(body + self.parts.noise, ec.ECDSA(hashes.SHA384())))
        signature = b"".join(n.to_bytes(48, "little").ljust(72, b"\0") for n in (r, s))
        return body + signature.ljust(512, b"\0")

    def _body(self, request: Request) -> bytes:
        tcb, mitigations, build = self.tcb.pack(), 0x0B if self.version >= 5 else 0, b"\x01\x37\x01"
        f: dict[str, Any] = {
            "version": self.version, "guest_svn": 0, "policy": 0x30000, "family_id": bytes(16), "image_id": bytes(16),
            "vmpl": 0, "algorithm": 1, "current_tcb": tcb, "platform_info": 0x25, "key_info": 4 if self.vlek else 0,
            "report_data": request.report_data or b"", "measurement": b"\x44" * 48,
            "host_data": request.initdata_digest or b"", "id_key_digest": bytes(48), "author_key_digest": bytes(48),
            "report_id": b"\x66" * 32, "report_id_ma": b"\xff" * 32, "reported_tcb": tcb,
            "cpuid": bytes(_CPUID[self.product]) if self.version >= 3 else b"", "chip_id": self.chip_id,
            "committed_tcb": tcb, "current_build": build, "committed_build": build, "launch_tcb": tcb,
            "launch_mitigations": mitigations, "current_mitigations": mitigations,
        } | self.fields  # fmt: skip
        sizes = (
            ("version", 4), ("guest_svn", 4), ("policy", 8), ("family_id", 16), ("image_id", 16), ("vmpl", 4),
            ("algorithm", 4), ("current_tcb", 8), ("platform_info", 8), ("key_info", 8), ("report_data", 64),
            ("measurement", 48), ("host_data", 32), ("id_key_digest", 48), ("author_key_digest", 48), ("report_id", 32),
            ("report_id_ma", 32), ("reported_tcb", 8), ("cpuid", 24), ("chip_id", 64), ("committed_tcb", 8),
            ("current_build", 4), ("committed_build", 4), ("launch_tcb", 8), ("launch_mitigations", 8),
            ("current_mitigations", 8),
        )  # fmt: skip
        out = b""
        for name, size in sizes:
            value = f[name]
            out += value.to_bytes(size, "little") if isinstance(value, int) else value.ljust(size, b"\0")
        return out.ljust(report.SIGNED, b"\0")


@dataclass
class _Parts:
    """Everything a fault may change."""

    chip: FakeChip
    noise: bytes = b""
    signing_key: ec.EllipticCurvePrivateKey | None = None
    window: tuple[datetime, datetime] = (pki.START, pki.END)
    levels: dict[str, int] = field(default_factory=dict)
    hardware_id: bytes | None = None
    hardware_wrapped: bool = False
    product: str = ""
    subject: str = ""
    dropped: tuple[str, ...] = ()
    no_anchor: bool = False
    collateral: dict[str, bytes] = field(default_factory=dict)
    issuer: pki.Authority | None = None
    bare: bool = False
    _vek: bytes = b""

    @property
    def signer(self) -> ec.EllipticCurvePrivateKey:
        return self.signing_key or self.chip.key

    def vek(self, kind: str, issuer: pki.Authority) -> bytes:
        if not self._vek:
            self._vek = (self.issuer or issuer).issue(
                self.subject or f"SEV-{kind}",
                self.chip.key,
                window=self.window,
                serial=0,
                bare=True,
                extensions=() if self.bare else self._extensions(kind),
            )
        return self._vek

    def _extensions(self, kind: str) -> list[pki.Extension]:
        tcb = self.chip.tcb
        levels = {"1": tcb.bootloader, "2": tcb.tee, "3": tcb.snp, "8": tcb.microcode, "4": 0, "5": 0, "6": 0, "7": 0}
        if tcb.fmc is not None:
            levels["9"] = tcb.fmc
        found = [(f"{_BASE}.3.{arc}", der_int(value), False) for arc, value in (levels | self.levels).items()]
        name = self.product or self.chip.product + ("-B0" if self.chip.product == "Milan" and kind == "VCEK" else "")
        found.append((f"{_BASE}.2", der(0x16, name.encode()), False))
        if kind == "VLEK":
            return [*found, (f"{_BASE}.5", der(0x16, b"CN=cc-test.example"), False)]
        identity = self.hardware_id or self.chip.chip_id[: 8 if self.chip.product == "Turin" else 64]
        return [*found, (f"{_BASE}.4", der(0x04, identity) if self.hardware_wrapped else identity, False)]


Fault = Callable[[FakeChip, _Parts], None]


def _set(**values: Any) -> Fault:
    def apply(_chip: FakeChip, parts: _Parts) -> None:
        for name, value in values.items():
            setattr(parts, name, value)

    return apply


def _field(**values: Any) -> Fault:
    def apply(chip: FakeChip, _parts: _Parts) -> None:
        chip.fields |= values

    return apply


def _other_key(_chip: FakeChip, parts: _Parts) -> None:
    parts.signing_key = pki.p384()


def _other_root(chip: FakeChip, parts: _Parts) -> None:
    parts.issuer = pki.Authority(f"SEV-{chip.product}", pki.rsa2048())


def _revoked(chip: FakeChip, parts: _Parts) -> None:
    parts.collateral["ark.crl"] = chip.ark.crl([chip.ask.certificate])


def _stale_list(chip: FakeChip, parts: _Parts) -> None:
    parts.collateral["ark.crl"] = chip.ark.crl(end=chip.now - timedelta(hours=1))


def _foreign_list(_chip: FakeChip, parts: _Parts) -> None:
    parts.collateral["ark.crl"] = authorities("Elsewhere")[0].crl()


def _vek_as_authority(chip: FakeChip, parts: _Parts) -> None:
    parts.issuer = pki.Authority("SEV-VCEK", issuer=chip.ask, ca=False)


def _wrong_authority(chip: FakeChip, parts: _Parts) -> None:
    parts.issuer = chip.asvk
    chip.ask = chip.asvk


def _low_committed(chip: FakeChip, _parts: _Parts) -> None:
    chip.fields["current_tcb"] = Tcb(bootloader=4, tee=0, snp=23, microcode=217, fmc=chip.tcb.fmc).pack()


BROKEN: dict[str, Fault] = {
    "signature": _set(noise=b"x"),
    "other-key": _other_key,
    "algorithm": _field(algorithm=2),
    "other-root": _other_root,
    "not-anchored": _set(no_anchor=True),
    "vek-expired": _set(window=(pki.START, pki.NOW - timedelta(days=1))),
    "vek-not-yet-valid": _set(window=(pki.NOW + timedelta(days=1), pki.END)),
    "vek-no-extensions": _set(bare=True),
    "vek-as-authority": _vek_as_authority,
    "wrong-authority": _wrong_authority,
    "ask-revoked": _revoked,
    "stale-list": _stale_list,
    "foreign-list": _foreign_list,
    "no-ask": _set(dropped=("ASK",)),
    "tcb": _set(levels={"3": 23}),
    "microcode": _set(levels={"8": 216}),
    "chip": _set(hardware_id=b"\x78" * 64),
    "product": _set(product="Genoa"),
    "cpuid": _field(cpuid=b"\x19\x11\x01"),
    "key-kind": _field(key_info=4),
    "key-none": _field(key_info=28),
    "host-asked": _field(vmpl=0xFFFFFFFF),
    "policy-bit": _field(policy=0x10000),
    "smt": _field(policy=0x20000),
    "ciphertext-hiding": _field(policy=0x1030000),
    "debug": _field(policy=0xB0000),
    "migration": _field(policy=0x70000),
    "migration-agent": _field(report_id_ma=b"\x55" * 32),
    "policy-unknown": _field(policy=0x8000030000),
    "tcb-order": _low_committed,
}
