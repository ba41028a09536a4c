"""A TPM made for tests: its own vendor root, AK, event log and PCRs, with real signatures and no device.

    tpm = FakeTpm(initdata=document)                 # or FakeTpm(vendor=..., kernel=b"other", broken="nonce")
    evidence = tpm.collect(request)                  # what a guest would send
    endorsements = Endorsements(anchors=(tpm.anchor,))
    claims = verify(evidence, endorsements, request, now)

`broken` names one fault (`BROKEN`), for testing that it is refused. `measurement` gives the registers to expect.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from casemate.boot import eventlog
from casemate.schema.endorsements import DEVELOPMENT, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.tpm import report
from casemate.testing import eventlog as writer
from casemate.wire.encoding import b64

AK_USAGE = ObjectIdentifier("2.23.133.8.3")  # tcg-kp-AIKCertificate
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class FakeVendor:
    """A vendor's root. `certificate` is its DER; `anchor` makes it trusted."""

    name: str = "Test vendor"
    platform_class: str = DEVELOPMENT
    start: datetime = field(default_factory=lambda: datetime.now(UTC) - _DAY)
    days: int = 3650
    is_ca: bool = True
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @cached_property
    def certificate(self) -> bytes:
        """The self-signed root, DER."""
        return self._issue(self.key.public_key(), self.name, self.start, self.start + self.days * _DAY, ca=self.is_ca)

    @property
    def anchor(self) -> Anchor:
        """The root as an anchor."""
        return Anchor(certificate=self.certificate, platform_class=self.platform_class, name=self.name)

    def certify(self, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime, *, ca: bool = False) -> bytes:
        """A certificate for an AK, DER."""
        return self._issue(key, "Test AK", start, end, ca=ca)

    def _issue(self, key: ec.EllipticCurvePublicKey, name: str, start: datetime, end: datetime, *, ca: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key)
            .serial_number(int.from_bytes(hashlib.sha256(_spki(key)).digest()[:8], "big") + 1)
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
            .add_extension(_usage(ca=ca), critical=True)
        )
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([AK_USAGE]), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class FakeTpm:
    """A TPM after a measured boot of the given parts; each differing part shows in its PCR.

    `initdata` is the document that the initrd measured into PCR 8. `extra` adds events to the log and to the PCRs;
    `unlogged` extends PCRs behind the log's back: (register, digest).
    """

    initdata: bytes | None = None
    firmware: bytes = b"firmware"
    kernel: bytes = b"kernel"
    command_line: str = "console=ttyS0"
    initrd: bytes = b"initrd"
    vendor: FakeVendor = field(default_factory=FakeVendor)
    extra: Sequence[writer.LoggedEvent] = ()
    unlogged: Sequence[tuple[int, bytes]] = ()
    broken: str = ""
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")

    @property
    def anchor(self) -> Anchor:
        """The vendor's root as an anchor."""
        return self.vendor.anchor

    @property
    def endorsements(self) -> Endorsements:
        """Endorsements with this vendor as the only anchor."""
        return Endorsements(anchors=(self.anchor,))

    @property
    def events(self) -> list[writer.LoggedEvent]:
        """The logged events."""
        return [*writer.direct_boot(self.firmware, self.kernel, self.command_line, self.initrd), *self.extra]

    @property
    def pcrs(self) -> dict[int, bytes]:
        """The SHA-256 bank."""
        log = eventlog.parse(writer.write(self.events))
        values = eventlog.replay(log, "sha256", eventlog.tpm_initial("sha256"))
        digests = [(8, hashlib.sha256(self.initdata).digest())] if self.initdata is not None else []
        for register, digest in [*digests, *self.unlogged]:
            values[register] = hashlib.sha256(values[register] + digest).digest()
        return values

    @property
    def measurement(self) -> Measurement:
        """The boot registers that do not depend on the machine or on initdata, as a builder would predict them."""
        return Measurement(tee="tpm", values={f"pcr{i}": self.pcrs[i].hex() for i in (0, 2, 3, 4, 6, 7, 9)})

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`, with the fault that `broken` names."""
        start, end = datetime.now(UTC) - _DAY, datetime.now(UTC) + 90 * _DAY
        parts = _Parts(
            pcrs=[self.pcrs[i] for i in range(report.PCR_COUNT)],
            extra=(request.report_data or b"")[:32],
            log=writer.write(self.events),
            chain=[self.vendor.certify(self.key.public_key(), start, end), self.vendor.certificate],
            ak=_spki(self.key.public_key()),
        )
        if self.broken:
            BROKEN[self.broken](parts, self)
        return Evidence(tee="tpm", primary=parts.sign(self.key), initdata=self.initdata)


@dataclass
class _Parts:
    pcrs: list[bytes]
    extra: bytes
    log: bytes
    chain: list[bytes]
    ak: bytes
    magic: int = report.MAGIC
    type: int = report.TYPE_QUOTE
    safe: int = 1
    selection: bytes = field(default_factory=report.quote_selection)
    shown: Sequence[bytes] | None = None  # the PCRs in the JSON when they are not the quoted ones
    flip: bool = False
    cut: int = 0

    def attest(self) -> bytes:
        point = _point(self.ak)
        signer = report.qualified_name(report.RH_ENDORSEMENT, report.name(report.ak_public(*point)))
        clock = (123456).to_bytes(8, "big") + (1).to_bytes(4, "big") + bytes(4) + bytes([self.safe])
        return (
            self.magic.to_bytes(4, "big") + self.type.to_bytes(2, "big") + report.sized(signer)
            + report.sized(self.extra) + clock + (0x2024010100000000).to_bytes(8, "big") + self.selection
            + report.sized(hashlib.sha256(b"".join(self.pcrs)).digest())
        )  # fmt: skip

    def sign(self, key: ec.EllipticCurvePrivateKey) -> dict[str, object]:
        message = self.attest()
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        if self.flip:
            s ^= 1
        signature = b"\x00\x18\x00\x0b" + report.sized(r.to_bytes(32, "big")) + report.sized(s.to_bytes(32, "big"))
        shown = self.pcrs if self.shown is None else self.shown
        quote = {"signature": b64(signature), "message": b64(message[: len(message) - self.cut])}
        return {
            "tpm_quote": {**quote, "pcrs": [p.hex() for p in shown]},
            "ak_public": b64(self.ak),
            "ak_chain": [b64(c) for c in self.chain],
            "event_log": b64(self.log),
        }


def _nonce(parts: _Parts, _tpm: FakeTpm) -> None:
    parts.extra = os.urandom(32)


def _pcr_value(parts: _Parts, _tpm: FakeTpm) -> None:
    parts.shown = [hashlib.sha256(b"forged").digest() if i == 4 else p for i, p in enumerate(parts.pcrs)]


def _selection(parts: _Parts, _tpm: FakeTpm) -> None:
    parts.selection, parts.pcrs = report.selection(range(8)), parts.pcrs[:8]


def _pcr_count(parts: _Parts, _tpm: FakeTpm) -> None:
    parts.shown = parts.pcrs[:8]


def _other_ak(parts: _Parts, _tpm: FakeTpm) -> None:
    parts.ak = _spki(ec.generate_private_key(ec.SECP256R1()).public_key())


def _other_root(parts: _Parts, tpm: FakeTpm) -> None:
    impostor = replace(tpm.vendor, key=ec.generate_private_key(ec.SECP256R1()))
    now = datetime.now(UTC)
    parts.chain = [impostor.certify(tpm.key.public_key(), now - _DAY, now + _DAY), impostor.certificate]


def _window(first: int, last: int) -> Callable[[_Parts, FakeTpm], None]:
    def apply(parts: _Parts, tpm: FakeTpm) -> None:
        now = datetime.now(UTC)
        parts.chain[0] = tpm.vendor.certify(tpm.key.public_key(), now + first * _DAY, now + last * _DAY)

    return apply


def _leaf_is_ca(parts: _Parts, tpm: FakeTpm) -> None:
    now = datetime.now(UTC)
    parts.chain[0] = tpm.vendor.certify(tpm.key.public_key(), now - _DAY, now + _DAY, ca=True)


def _set(**values: object) -> Callable[[_Parts, FakeTpm], None]:
    def apply(parts: _Parts, _tpm: FakeTpm) -> None:
        for name, value in values.items():
            setattr(parts, name, value)

    return apply


def _log_without_kernel(parts: _Parts, tpm: FakeTpm) -> None:
    kind = eventlog.EV_EFI_BOOT_SERVICES_APPLICATION
    parts.log = writer.write([e for e in tpm.events if e.type != kind])


def _log_cut(parts: _Parts, _tpm: FakeTpm) -> None:
    parts.log = parts.log[:-1]


BROKEN: dict[str, Callable[[_Parts, FakeTpm], None]] = {
    "signature": _set(flip=True),
    "nonce": _nonce,
    "magic": _set(magic=0xFF544348),
    "type": _set(type=0x8017),
    "unsafe-clock": _set(safe=0),
    "truncated": _set(cut=5),
    "pcr-value": _pcr_value,
    "pcr-count": _pcr_count,
    "selection": _selection,
    "other-ak": _other_ak,
    "other-root": _other_root,
    "no-chain": _set(chain=[]),
    "expired": _window(-30, -1),
    "not-yet-valid": _window(1, 30),
    "leaf-is-ca": _leaf_is_ca,
    "no-log": _set(log=b""),
    "log-without-kernel": _log_without_kernel,
    "log-cut": _log_cut,
}


def _spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _point(spki: bytes) -> tuple[bytes, bytes]:
    return spki[-64:-32], spki[-32:]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
