"""An Azure made for tests: a paravisor with its virtual TPM on a fake chip or trust domain; any report, any fault.

    machine = FakeCvm()                                  # SEV-SNP; or FakeCvm(trust_domain()) for TDX
    evidence = machine.collect(request)                  # CoCo's version 2; version=0 and 1 too
    claims = verify(evidence, machine.endorsements, request, machine.now)

`broken` names one fault of `BROKEN`. Faults of the hardware are those of `casemate.testing.snp` and `.dcap`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.dcap import quote as dcap
from casemate.tee.hcl import report as wire
from casemate.tee.tpm import report as tpm
from casemate.testing.dcap import FakePlatform
from casemate.testing.snp import FakeChip
from casemate.testing.tdx import FakeTd
from casemate.wire.encoding import b64, b64u, unb64

NV_SIZE = 2600
_ALL = tuple(range(tpm.PCR_COUNT))
_ZERO = bytes(48)


@lru_cache(maxsize=4)
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key, the same at each call with one name: making them is slow."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def trust_domain(platform: FakePlatform | None = None) -> FakeTd:
    """A trust domain as Azure runs it: no event log, RTMRs that nobody extends."""
    fields = {f"rtmr{i}": _ZERO for i in range(4)}
    return FakeTd(platform or FakePlatform("tdx"), fields=fields, log=None)


@dataclass
class FakeCvm:
    """A confidential VM. `initdata` is the document that it started with; without one, whichever a request asks for.

    `modulus` is that of another TPM's key, whose quotes are then made elsewhere.
    """

    hardware: FakeChip | FakeTd = field(default_factory=FakeChip)
    version: int = 2
    hcl_version: int = 2
    hash: str = "sha256"
    initdata: bytes | None = None
    pcrs: dict[int, bytes] = field(default_factory=lambda: {0: b"\x10" * 32, 7: b"\x17" * 32})
    modulus: int = 0
    broken: str = ""

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")

    @property
    def tee(self) -> str:
        """The wire name."""
        return "az-snp-vtpm" if isinstance(self.hardware, FakeChip) else "az-tdx-vtpm"

    @property
    def now(self) -> datetime:
        """A time at which everything is valid."""
        return self.hardware.now

    @property
    def endorsements(self) -> Endorsements:
        """The hardware vendor's: anchor, authorities, collateral."""
        found = self.hardware.endorsements
        if not isinstance(self.hardware, FakeChip):
            return found
        authorities = tuple(der for kind, der in self.hardware.chain if kind in ("ASK", "ARK"))
        return Endorsements(anchors=found.anchors, certificates=authorities, collateral=found.collateral)

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`, in the form of `version`."""
        asked = request.report_data or b""
        parts = self._parts(asked if self.version >= 2 else b"", asked, request.initdata_digest)
        if self.broken:
            BROKEN[self.broken](parts)
        report = parts.hcl()
        message = parts.attest()
        signature = parts.signer.sign(message + parts.noise, padding.PKCS1v15(), hashes.SHA256())
        quote = {"message": message[: len(message) - parts.cut], "signature": signature, "pcrs": parts.pcrs_shown}
        primary = _primary(self, report, quote, parts.hardware)
        return Evidence(tee=self.tee, primary=primary, initdata=self.initdata)

    def hcl_report(self, user_data: bytes) -> bytes:
        """The paravisor's report, as it lies in the NV index."""
        return self._parts(user_data, b"").hcl()

    def quote_of(self, td_report: bytes) -> bytes:
        """What the metadata service does: the quote for a TD report."""
        data = td_report[128:192]
        return unb64(self.hardware.collect(Request(report_data=data)).primary["quote"])

    def _parts(self, user_data: bytes, extra: bytes, digest: bytes | None = None) -> Parts:
        values = [self.pcrs.get(i, bytes(32)) for i in _ALL]
        measured = digest if self.initdata is None else hashlib.sha256(self.initdata).digest()
        if measured is not None:
            values[8] = hashlib.sha256(bytes(32) + measured).digest()
        return Parts(self, user_data=user_data, extra=extra, pcrs=values)


@dataclass
class Parts:
    """Everything a fault may change."""

    machine: FakeCvm
    user_data: bytes
    extra: bytes
    pcrs: list[bytes]
    pcrs_shown: list[bytes] = field(default_factory=list)
    selection: bytes = field(default_factory=tpm.quote_selection)
    signer: rsa.RSAPrivateKey = field(default_factory=lambda: rsa_key("ak"))
    key: rsa.RSAPrivateKey | None = None
    keys: list[dict[str, Any]] | None = None
    magic: int = tpm.MAGIC
    kind: int = tpm.TYPE_QUOTE
    noise: bytes = b""
    cut: int = 0
    bound: bytes | None = None
    said_later: bytes = b""
    other_td_report: bool = False
    hardware: bytes = b""

    def __post_init__(self) -> None:
        self.pcrs_shown = list(self.pcrs)

    def runtime_data(self) -> bytes:
        """The JSON, in the order of Azure's."""
        modulus = self.machine.modulus or (self.key or self.signer).public_key().public_numbers().n
        data = {
            "keys": [jwk(modulus)] if self.keys is None else self.keys,
            "vm-configuration": {"console-enabled": True, "secure-boot": True, "tpm-enabled": True},
            "user-data": self.user_data.ljust(wire.USER_DATA_SIZE, b"\0").hex().upper(),
        }
        return json.dumps(data, separators=(",", ":")).encode()

    def hcl(self) -> bytes:
        """The report with the hardware's; sets `hardware` to what comes beside it (VCEK or quote)."""
        machine, data = self.machine, self.runtime_data()
        digest = hashlib.new(machine.hash, data).digest() if self.bound is None else self.bound
        asked = Request(report_data=digest)
        if isinstance(machine.hardware, FakeChip):
            kind, inside = wire.SNP, machine.hardware.report(asked)
            self.hardware = dict(machine.hardware.chain).get("VCEK", b"")
        else:
            kind = wire.TDX
            self.hardware = unb64(machine.hardware.collect(asked).primary["quote"])
            inside = td_report(self.hardware, other=self.other_td_report)
        number = next(n for n, name in wire.HASHES.items() if name == machine.hash)
        data = self.said_later or data
        body = b"".join(_u32(n) for n in (20 + len(data), 1, kind, number, len(data))) + data
        size = wire.HEADER + wire.HARDWARE_SIZE + len(body)
        header = wire.MAGIC + _u32(machine.hcl_version) + _u32(size) + _u32(2) + bytes(16)
        return header + inside.ljust(wire.HARDWARE_SIZE, b"\0") + body

    def attest(self) -> bytes:
        """TPMS_ATTEST of the quote."""
        clock = (123456).to_bytes(8, "big") + (2).to_bytes(4, "big") + bytes(4) + b"\1"
        return (
            self.magic.to_bytes(4, "big") + self.kind.to_bytes(2, "big") + tpm.sized(b"\x00\x0b" + bytes(32))
            + tpm.sized(self.extra) + clock + bytes(8) + self.selection
            + tpm.sized(hashlib.sha256(b"".join(self.pcrs)).digest())
        )  # fmt: skip


def jwk(modulus: int, name: str = "HCLAkPub", **changes: Any) -> dict[str, Any]:
    """A key of the runtime data."""
    n = b64u(modulus.to_bytes((modulus.bit_length() + 7) // 8, "big"))
    return {"kid": name, "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": n} | changes


def td_report(quote: bytes, *, other: bool = False) -> bytes:
    """TDREPORT_STRUCT (1024 bytes) with the fields of a quote's body, without a CPU's MAC."""
    body = dcap.parse(quote).body
    assert isinstance(body, dcap.TdReport)  # noqa: S101  # the quote was made here
    head = b"\x81".ljust(128, b"\0") + body.report_data + bytes(64)
    info = [body.td_attributes, body.xfam, b"\x45" * 48 if other else body.mr_td]
    info += [body.mr_config_id, body.mr_owner, body.mr_owner_config, *body.rtmrs]
    return (head.ljust(512, b"\0") + b"".join(info)).ljust(wire.TD_REPORT_SIZE, b"\0")


def pem(certificate: bytes) -> str:
    """A certificate as PEM, without a library that objects to the serial number 0 of every VCEK."""
    body = "\n".join(textwrap.wrap(b64(certificate), 64))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def _primary(machine: FakeCvm, report: bytes, quote: dict[str, Any], hardware: bytes) -> dict[str, Any]:
    snp = isinstance(machine.hardware, FakeChip)
    if machine.version == 0:
        listed = {name: list(quote[name]) for name in ("message", "signature")}
        listed["pcrs"] = [list(p) for p in quote["pcrs"]]
        if snp:
            return {"quote": listed, "report": list(report), "vcek": pem(hardware)}
        return {"tpm_quote": listed, "hcl_report": list(report), "td_quote": list(hardware)}
    text = {name: quote[name].hex() for name in ("message", "signature")}
    return {
        "version": machine.version,
        "tpm_quote": text | {"pcrs": [p.hex() for p in quote["pcrs"]]},
        "hcl_report": base64.urlsafe_b64encode(report.ljust(NV_SIZE, b"\0")).decode(),
        "vcek" if snp else "td_quote": base64.urlsafe_b64encode(hardware).decode(),
    }


Fault = Callable[[Parts], None]


def _set(**values: Any) -> Fault:
    def apply(parts: Parts) -> None:
        for name, value in values.items():
            setattr(parts, name, value)

    return apply


def _runtime_data(parts: Parts) -> None:
    parts.said_later = parts.runtime_data().replace(b'"secure-boot":true', b'"secure-boot":null')


def _foreign_key(parts: Parts) -> None:
    """Runtime data with a key of the attacker's, beside a genuine report of other runtime data."""
    parts.bound = hashlib.sha256(parts.runtime_data()).digest()
    parts.signer = rsa_key("another")


def _bound_behind(parts: Parts) -> None:
    parts.bound = hashlib.sha256(parts.runtime_data()).digest() + b"\1"


def _short_bound(parts: Parts) -> None:
    parts.bound = hashlib.sha256(parts.runtime_data()).digest()[:31]


def _other_ak(parts: Parts) -> None:
    parts.key, parts.signer = rsa_key("ak"), rsa_key("another")


def _small_ak(parts: Parts) -> None:
    parts.signer = rsa_key("small", 1024)


def _no_ak(parts: Parts) -> None:
    parts.keys = [jwk(rsa_key("ak").public_key().public_numbers().n, "HCLEkPub")]


def _two_aks(parts: Parts) -> None:
    parts.keys = [jwk(rsa_key(name).public_key().public_numbers().n) for name in ("ak", "another")]


def _pcr_value(parts: Parts) -> None:
    parts.pcrs_shown[4] = hashlib.sha256(b"forged").digest()


def _pcr_swap(parts: Parts) -> None:
    parts.pcrs_shown[0], parts.pcrs_shown[7] = parts.pcrs_shown[7], parts.pcrs_shown[0]


def _selection(parts: Parts) -> None:
    """Only eight registers are quoted, shown as if they were the first ones."""
    parts.selection, parts.pcrs = tpm.selection(range(8, 16)), parts.pcrs[:8]
    parts.pcrs_shown = list(parts.pcrs)


def _initdata(parts: Parts) -> None:
    parts.pcrs[8] = hashlib.sha256(bytes(32) + b"\7" * 32).digest()
    parts.pcrs_shown[8] = parts.pcrs[8]


def _initdata_twice(parts: Parts) -> None:
    parts.pcrs[8] = hashlib.sha256(parts.pcrs[8] + b"\7" * 32).digest()
    parts.pcrs_shown[8] = parts.pcrs[8]


def _vmpl(parts: Parts) -> None:
    if isinstance(parts.machine.hardware, FakeChip):
        parts.machine.hardware.fields["vmpl"] = 2


BROKEN: dict[str, Fault] = {
    "runtime-data": _runtime_data,
    "foreign-key": _foreign_key,
    "bound-behind": _bound_behind,
    "bound-short": _short_bound,
    "user-data": _set(user_data=b"another request"),
    "nonce": _set(extra=b"another request"),
    "no-nonce": _set(extra=b""),
    "signature": _set(noise=b"x"),
    "other-ak": _other_ak,
    "small-ak": _small_ak,
    "no-ak": _no_ak,
    "two-aks": _two_aks,
    "magic": _set(magic=0xFF544348),
    "type": _set(kind=0x8017),
    "truncated": _set(cut=5),
    "pcr-value": _pcr_value,
    "pcr-swap": _pcr_swap,
    "selection": _selection,
    "initdata": _initdata,
    "initdata-twice": _initdata_twice,
    "vmpl": _vmpl,  # SEV-SNP
    "td-report": _set(other_td_report=True),  # TDX
}


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
