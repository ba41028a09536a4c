"""A Hygon made for tests: its own root, any report field, both versions, valid or broken in a named way.

chip = FakeHygon(broken="signature")
claims = verify(chip.collect(request), chip.endorsements, request, chip.now)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from casemate.crypto import sm2, sm3
from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.csv import report as wire
from casemate.testing import pki
from casemate.wire.encoding import b64

STRICT = 0b1111 | 1 << 16 | 4 << 24  # NODBG, NOKS, ES, NOSEND; firmware 1.4


class Key:
    """An SM2 key pair that signs. Not constant-time: for tests alone."""

    def __init__(self) -> None:
        self.secret = int.from_bytes(os.urandom(40), "big") % (sm2.N - 2) + 1
        point = sm2.combine(self.secret, sm2.G, 0, sm2.G)
        if point is None:
            raise ValueError("the secret is a multiple of the order")
        self.public = sm2.PublicKey(*point)

    def sign(self, identity: bytes, message: bytes) -> tuple[int, int]:
        """(r, s): GB/T 32918.2 section 6.1."""
        e = sm2.hashed(self.public, identity, message)
        while True:
            k = int.from_bytes(os.urandom(40), "big") % (sm2.N - 1) + 1
            point = sm2.combine(k, sm2.G, 0, sm2.G)
            r = (e + point[0]) % sm2.N if point else 0
            s = pow(1 + self.secret, -1, sm2.N) * (k - r * self.secret) % sm2.N
            if r and s and (r + k) % sm2.N:
                return r, s


@dataclass
class Signer:
    """A key, its user id, and the number that a certificate below it names."""

    usage: int
    key: Key = field(default_factory=Key)
    key_id: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def identity(self) -> bytes:
        """The user id in its signatures."""
        return f"HYGON-SSD-{wire.NAMES[self.usage]}".encode()

    def signature(self, message: bytes) -> bytes:
        """The 144 bytes of a signature."""
        return b"".join(number.to_bytes(72, "little") for number in self.key.sign(self.identity, message))


def authority(subject: Signer, issuer: Signer, *, usage: int | None = None, signer_id: bytes | None = None) -> bytes:
    """An HRK or HSK certificate."""
    body = (1).to_bytes(4, "little") + subject.key_id + (issuer.key_id if signer_id is None else signer_id)
    body += (subject.usage if usage is None else usage).to_bytes(4, "little") + bytes(24) + _point(subject)
    body += _identity(subject) + bytes(108)
    return body + issuer.signature(body) + bytes(112)


def certificate(
    subject: Signer, issuer: Signer, *, usage: int | None = None, signer_id: bytes = b"", slot: int = 0
) -> bytes:
    """A CEK or PEK certificate, with the issuer's signature in one slot and nothing in the other."""
    body = (1).to_bytes(4, "little") + bytes([1, 4, 0, 0])
    body += (subject.usage if usage is None else usage).to_bytes(4, "little") + (4).to_bytes(4, "little")
    body += _point(subject) + _identity(subject) + signer_id.ljust(16, b"\0") + bytes(608)
    filled = issuer.usage.to_bytes(4, "little") + (4).to_bytes(4, "little") + issuer.signature(body) + bytes(368)
    empty = wire.INVALID.to_bytes(4, "little") + bytes(516)
    return body + (filled + empty if slot == 0 else empty + filled)


def _point(subject: Signer) -> bytes:
    x, y = (number.to_bytes(72, "little") for number in (subject.key.public.x, subject.key.public.y))
    return wire.CURVE_SM2.to_bytes(4, "little") + x + y


def _identity(subject: Signer) -> bytes:
    return len(subject.identity).to_bytes(2, "little") + subject.identity.ljust(254, b"\0")


@dataclass
class FakeHygon:
    """A chip of this vendor and a guest on it. `broken` names one fault of `BROKEN`; `version` is the report's."""

    version: int = 1
    measure: bytes = b"m" * 32
    policy: int = STRICT
    vm_id: bytes = bytes(16)
    serial_number: bytes = b"FAKE0000001"
    rtmrs: tuple[bytes, ...] = (b"1" * 32, b"2" * 32, b"3" * 32, bytes(32))
    now: datetime = pki.NOW
    platform_class: str = PRODUCTION
    broken: str = ""
    hrk: Signer = field(default_factory=lambda: Signer(wire.HRK))
    hsk: Signer = field(default_factory=lambda: Signer(wire.HSK))
    cek: Signer = field(default_factory=lambda: Signer(wire.CEK))
    pek: Signer = field(default_factory=lambda: Signer(wire.PEK))

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")
        self.papers = {
            "hrk": authority(self.hrk, self.hrk),
            "hsk": authority(self.hsk, self.hrk),
            "cek": certificate(self.cek, self.hsk, signer_id=self.hsk.key_id),
            "pek": certificate(self.pek, self.cek),
        }
        self.anchor = self.papers["hrk"]
        if self.broken:
            BROKEN[self.broken](self)

    @property
    def endorsements(self) -> Endorsements:
        """This vendor's root as an anchor for CSV, with the chip's HSK and CEK."""
        anchor = Anchor(certificate=self.anchor, platform_class=self.platform_class, name="Fake HRK", tees=("csv",))
        papers = {"hsk_cek": self.papers["hsk"] + self.papers["cek"], "hrk": self.papers["hrk"]}
        return Endorsements(anchors=(anchor,), collateral=papers)

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`, with the fault that `broken` names."""
        return Evidence(tee="csv", primary={"attestation_report": b64(self.report(request.report_data or b""))})

    def report(self, data: bytes = b"", *, mnonce: bytes = b"n" * 16) -> bytes:
        """The report as the firmware gives it."""
        data = b"another question" if self.broken == "report-data" else data
        plain = bytes(32) + self.vm_id + bytes(16) + data.ljust(64, b"\0") + mnonce + self.measure
        plain += self.policy.to_bytes(4, "little")
        plain += (wire.PEK if self.broken != "signer" else wire.OCA).to_bytes(4, "little") + (4).to_bytes(4, "little")
        anonce = os.urandom(4) if self.version == 1 else bytes(4)
        info = wire.unmask(plain, anonce)
        if self.version == 1:
            info, signed = info + anonce, info[: wire.SIGNED_1]
        else:
            first = bytes(32) if self.broken == "rtmr" else self.measure
            registers = b"".join((first, *self.rtmrs))
            info += (2400).to_bytes(4, "little") + (1).to_bytes(2, "little") + bytes(14) + registers + bytes(656)
            signed = info
        info += _flipped(self.pek.signature(signed), self.broken == "signature")
        covered = wire.unmask(self.papers["pek"], anonce) + wire.unmask(self.serial_number.ljust(64, b"\0"), anonce)
        covered += os.urandom(32)
        return info + covered + _flipped(sm3.mac(mnonce, covered), self.broken == "mac")


def restored(data: bytes) -> bytes:
    """A report as Hygon's guest library passes it on: signer unmasked, `reserved` cleared, padded to a page."""
    size = wire.INFO_1 if not any(data[wire.INFO_1 + wire.SIGNER :]) else wire.INFO_2
    anonce = data[0xBC:0xC0] if size == wire.INFO_1 else bytes(4)
    end = size + wire.CERTIFICATE_SIZE + 64
    plain = wire.unmask(data[size:end], anonce)
    return (data[:size] + plain + bytes(32) + data[end + 32 :]).ljust(wire.PAGE, b"\0")


def _flipped(data: bytes, flip: bool) -> bytes:
    return bytes([data[0] ^ int(flip)]) + data[1:]


def _hsk(**changes: int | bytes) -> Callable[[FakeHygon], None]:
    def apply(chip: FakeHygon) -> None:
        chip.papers["hsk"] = authority(chip.hsk, chip.hrk, **changes)  # type: ignore[arg-type]  # named by the callers

    return apply


def _other_root(chip: FakeHygon) -> None:
    impostor = Signer(wire.HRK, key_id=chip.hrk.key_id)
    chip.papers["hrk"], chip.papers["hsk"] = authority(impostor, impostor), authority(chip.hsk, impostor)


def _root_not_its_own(chip: FakeHygon) -> None:
    chip.papers["hrk"] = authority(chip.hrk, Signer(wire.HRK), signer_id=chip.hrk.key_id)


def _other_hsk(chip: FakeHygon) -> None:
    chip.papers["hsk"] = authority(Signer(wire.HSK, key_id=chip.hsk.key_id), chip.hrk)


def _hsk_as_root(chip: FakeHygon) -> None:
    """An HSK that signs a further HSK."""
    mallory = Signer(wire.HSK)
    chip.papers["hsk"] = authority(mallory, chip.hsk)
    chip.papers["cek"] = certificate(chip.cek, mallory, signer_id=mallory.key_id)


def _cek_by_root(chip: FakeHygon) -> None:
    chip.papers["cek"] = certificate(chip.cek, chip.hrk, signer_id=chip.hsk.key_id)


def _cek_usage(chip: FakeHygon) -> None:
    chip.papers["cek"] = certificate(chip.cek, chip.hsk, usage=wire.PEK, signer_id=chip.hsk.key_id)


def _cek_names_another(chip: FakeHygon) -> None:
    chip.papers["cek"] = certificate(chip.cek, chip.hsk, signer_id=os.urandom(16))


def _pek_usage(chip: FakeHygon) -> None:
    chip.papers["pek"] = certificate(chip.pek, chip.cek, usage=wire.CEK)


def _pek_of_owner(chip: FakeHygon) -> None:
    chip.papers["pek"] = certificate(chip.pek, Signer(wire.OCA))


def _pek_other_chip(chip: FakeHygon) -> None:
    chip.papers["pek"] = certificate(chip.pek, Signer(wire.CEK))


def _other_key(chip: FakeHygon) -> None:
    chip.pek = Signer(wire.PEK)


def _nothing(_chip: FakeHygon) -> None:
    """A fault of the report itself: `report` reads its name."""


def _policy(bit: int) -> Callable[[FakeHygon], None]:
    def apply(chip: FakeHygon) -> None:
        chip.policy &= ~(1 << bit)

    return apply


BROKEN: dict[str, Callable[[FakeHygon], None]] = {
    "other-root": _other_root,
    "root-not-self-signed": _root_not_its_own,
    "other-hsk": _other_hsk,
    "hsk-usage": _hsk(usage=wire.CEK),
    "hsk-names-another": _hsk(signer_id=b"x" * 16),
    "hsk-as-root": _hsk_as_root,
    "cek-by-root": _cek_by_root,
    "cek-usage": _cek_usage,
    "cek-names-another": _cek_names_another,
    "pek-usage": _pek_usage,
    "pek-of-owner": _pek_of_owner,
    "pek-other-chip": _pek_other_chip,
    "other-key": _other_key,
    "signature": _nothing,
    "signer": _nothing,
    "mac": _nothing,
    "report-data": _nothing,
    "rtmr": _nothing,
    "debug": _policy(0),
    "key-sharing": _policy(1),
    "registers": _policy(2),
    "migration": _policy(3),
}
