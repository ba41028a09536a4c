"""Wire layout of the HCL report, its runtime data, and the JSON that carries them (CoCo's versions 0, 1 and 2).

    HCL report   "HCLA" | version | size | request type | status | 12 reserved | hardware report, 1184 | IGVM data
    IGVM data    size | version | report type | hash type | size of the runtime data | runtime data (JSON) | padding

Integers are u32, little-endian. Only the hardware report (by its CPU) and the runtime data (by their hash in it) are
protected; everything around them is hearsay. Sources: OpenHCL `igvm_attest`, the crate az-cvm-vtpm, Microsoft's pages
on guest attestation of confidential VMs.

    version 0   integers: az-snp {quote, report, vcek (PEM)}, az-tdx {tpm_quote, hcl_report, td_quote}; no `version`
    version 1   {version, tpm_quote: {signature, message, pcrs} in hex, hcl_report and vcek or td_quote in base64url}
    version 2   the same, and the runtime data hold the report data (`user-data`)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from casemate.errors import Malformed
from casemate.tee.tpm.report import PCR_COUNT
from casemate.wire import jcs
from casemate.wire.cursor import Cursor
from casemate.wire.encoding import unb64u, unhex

MAGIC = b"HCLA"
HEADER, HARDWARE_SIZE = 32, 1184
VERSIONS = (1, 2)
SNP, TDX = 2, 4
TD_REPORT_SIZE = 1024
HASHES: Mapping[int, str] = MappingProxyType({1: "sha256", 2: "sha384", 3: "sha512"})
USER_DATA_SIZE = 64
MAX_REPORT = 16 << 10
MAX_RUNTIME_DATA = 8 << 10
MAX_CERTIFICATE = 8 << 10
MAX_QUOTE = 64 << 10
_REPORT_DATA = {SNP: 0x50, TDX: 128}
_AK = "HCLAkPub"
_EXPONENT = 65537
_KIND_NAMES = {SNP: "SEV-SNP", TDX: "TDX"}


@dataclass(frozen=True)
class HclReport:
    """A parsed report. `kind` is `SNP` or `TDX`, `hash` a hashlib name; `hardware` is the report's own 1184 bytes."""

    version: int
    kind: int
    hash: str
    hardware: bytes
    runtime_data: bytes

    @property
    def bound(self) -> bool:
        """Whether the hardware report names these runtime data: for a collector, who trusts it anyway."""
        digest = hashlib.new(self.hash, self.runtime_data).digest()
        start = _REPORT_DATA[self.kind]
        return self.hardware[start : start + len(digest)] == digest


@dataclass(frozen=True)
class RuntimeData:
    """What the paravisor says: its TPM's attestation key (RSA modulus), the guest's words, the VM's settings."""

    ak_modulus: int
    user_data: bytes
    configuration: dict[str, Any]

    @property
    def ak_exponent(self) -> int:
        """The only exponent that is accepted."""
        return _EXPONENT


@dataclass(frozen=True)
class Sent:
    """The decoded JSON. `signature` is bare (RSASSA, no TPMT header).

    `hardware` is the VCEK (DER; empty where none came along) or the TD quote.
    """

    version: int
    message: bytes
    signature: bytes
    pcrs: tuple[bytes, ...]
    report: bytes
    hardware: bytes


def parse(data: bytes, kind: int) -> HclReport:
    """Parse a report of `kind`; what stands behind the runtime data is padding of the NV index."""
    if len(data) > MAX_REPORT:
        raise Malformed(f"HCL report: {len(data)} bytes, at most {MAX_REPORT} allowed")
    read = Cursor(data, "HCL report")
    if read.take(4) != MAGIC:
        raise Malformed("HCL report: it does not begin with HCLA")
    version = read.u32()
    if version not in VERSIONS:
        raise Malformed(f"HCL report: version {version}, 1 and 2 are known", hint="a newer release may know it")
    read.take(HEADER - 8)
    hardware = read.take(HARDWARE_SIZE)
    read.take(8)  # size and version of the IGVM data
    found, hash_type, size = read.u32(), read.u32(), read.u32()
    if found != kind:
        raise Malformed(f"HCL report: of {_KIND_NAMES.get(found, f'type {found}')}, {_KIND_NAMES[kind]} wanted")
    if hash_type not in HASHES:
        raise Malformed(f"HCL report: hash type {hash_type} is not known")
    if size > MAX_RUNTIME_DATA:
        raise Malformed(f"HCL report: runtime data of {size} bytes, at most {MAX_RUNTIME_DATA} allowed")
    return HclReport(version, found, HASHES[hash_type], hardware, read.take(size))


def report_data(data: bytes, kind: int) -> bytes:
    """The register of the hardware report inside that binds the runtime data; empty where the report is too short."""
    start = HEADER + _REPORT_DATA[kind]
    return data[start : start + 64] if len(data) >= HEADER + HARDWARE_SIZE else b""


def kind_of(data: bytes) -> int:
    """`SNP` or `TDX` by the report's header, 0 for anything else."""
    start = HEADER + HARDWARE_SIZE + 8
    found = int.from_bytes(data[start : start + 4], "little")
    return found if data[:4] == MAGIC and found in _KIND_NAMES else 0


def parse_runtime_data(data: bytes) -> RuntimeData:
    """Parse the runtime data: a JSON object with `keys` (JWK set), `user-data` (hex) and `vm-configuration`."""
    value = jcs.parse_object(data, "runtime data", limit=MAX_RUNTIME_DATA)
    keys, user, configuration = value.get("keys"), value.get("user-data", ""), value.get("vm-configuration", {})
    if not isinstance(keys, list) or not isinstance(user, str) or not isinstance(configuration, dict):
        raise Malformed("runtime data: `keys`, `user-data` or `vm-configuration` is of another kind")
    named = [key for key in keys if isinstance(key, dict) and key.get("kid") == _AK]
    if len(named) != 1:
        raise Malformed(f"runtime data: {len(named)} keys are called {_AK}, one wanted")
    user_data = unhex(user, "user-data")
    if len(user_data) > USER_DATA_SIZE:
        raise Malformed(f"runtime data: user-data of {len(user_data)} bytes, at most {USER_DATA_SIZE} allowed")
    return RuntimeData(_modulus(named[0]), user_data, configuration)


def _modulus(key: dict[str, Any]) -> int:
    n, e, uses = key.get("n"), key.get("e"), key.get("key_ops", ["sign"])
    if key.get("kty") != "RSA" or not isinstance(n, str) or not isinstance(e, str):
        raise Malformed(f"runtime data: {_AK} is not an RSA key")
    if not isinstance(uses, list) or "sign" not in uses:
        raise Malformed(f"runtime data: {_AK} is not a key for signatures")
    if int.from_bytes(unb64u(e, "e"), "big") != _EXPONENT or len(n) > 1024:
        raise Malformed(f"runtime data: {_AK} has an exponent or a size that is not known")
    return int.from_bytes(unb64u(n, "n"), "big")


def parse_evidence(primary: Mapping[str, Any], hardware: str) -> Sent:
    """Decode the primary evidence object. `hardware` names the member beside the HCL report: `vcek` or `td_quote`."""
    version = primary.get("version", 0)
    if type(version) is not int or version not in (0, 1, 2) or ("version" in primary and version == 0):
        raise Malformed(f"azure evidence: version {str(version)[:16]}, none (0), 1 and 2 are known")
    quote = primary.get("tpm_quote", primary.get("quote") if version == 0 else None)
    report = primary.get("hcl_report", primary.get("report") if version == 0 else None)
    if not isinstance(quote, dict):
        raise Malformed("azure evidence: no TPM quote")
    pcrs = quote.get("pcrs")
    if not isinstance(pcrs, list) or len(pcrs) > PCR_COUNT:
        raise Malformed(f"azure evidence: `pcrs` is not a list of at most {PCR_COUNT}")
    values = tuple(_hex(p, f"pcrs[{i}]", 32) for i, p in enumerate(pcrs))
    if any(len(p) != 32 for p in values):
        raise Malformed("azure evidence: a PCR of the SHA-256 bank has 32 bytes")
    return Sent(
        version=version,
        message=_hex(quote.get("message"), "message", 1024),
        signature=_hex(quote.get("signature"), "signature", 512),
        pcrs=values,
        report=_text(report, "hcl_report", MAX_REPORT),
        hardware=_paper(primary.get(hardware), hardware),
    )


def _paper(value: Any, name: str) -> bytes:
    """A VCEK may be left out, since AMD publishes it; a TD quote is part of the evidence."""
    if name != "vcek":
        return _text(value, name, MAX_QUOTE)
    return b"" if value is None else _text(value, name, MAX_CERTIFICATE)


def _hex(value: Any, name: str, limit: int) -> bytes:
    if isinstance(value, str) and len(value) <= 2 * limit:
        return unhex(value, f"azure evidence: {name}")
    return _integers(value, name, limit)


def _text(value: Any, name: str, limit: int) -> bytes:
    """Base64url, padded (CoCo) or not; PEM where a certificate is wanted; integers in version 0."""
    if not isinstance(value, str):
        return _integers(value, name, limit)
    if len(value) > 2 * limit:
        raise Malformed(f"azure evidence: {name} is longer than {limit} bytes")
    if name == "vcek" and value.lstrip().startswith("-----BEGIN"):
        from casemate.crypto import pem

        return pem.certificates(value.encode(), "vcek")[0]
    bare = value.rstrip("=")
    if len(value) - len(bare) not in (0, -len(bare) % 4):
        raise Malformed(f"azure evidence: {name}: not base64url")
    return unb64u(bare, f"azure evidence: {name}")


def _integers(value: Any, name: str, limit: int) -> bytes:
    if not isinstance(value, list) or len(value) > limit:
        raise Malformed(f"azure evidence: `{name}` is missing, of another kind, or longer than {limit} bytes")
    if not all(type(x) is int and 0 <= x <= 255 for x in value):
        raise Malformed(f"azure evidence: `{name}` is not a list of bytes")
    return bytes(value)
