"""The attestation report of NVIDIA GPUs and NVSwitches: an SPDM GET_MEASUREMENTS request and the signed response.

Standard: DMTF DSP0274 1.1, section 10.11 (messages) and table 45 (DMTF measurement block). NVIDIA adds the opaque data:
records of type and length, two bytes each, little-endian, and the value.

    request    version 11, code E0, attributes 01, operation FF, nonce[32], slot           37 bytes
    response   version 11, code 60, param1, param2, blocks, length[3], record[length],
               nonce[32], opaque length[2], opaque, signature[96] (ECDSA P-384, r | s)
    block      index, 01, size[2] | type, value size[2], value[48]

    primary evidence   {"device_evidence_list": [{"arch", "uuid", "evidence": base64 or hex, "certificate": base64 of
                        the PEM chain, leaf first}]}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor
from casemate.wire.encoding import unb64, unhex

ARCHITECTURES = {"HOPPER": "GH", "BLACKWELL": "GB", "LS10": "LS"}
SWITCH = "LS10"
MAX_DEVICES = 32
MAX_REPORT = 16 << 10
MAX_CHAIN = 16 << 10
REQUEST_SIZE, SIGNATURE_SIZE, NONCE_SIZE, DIGEST_SIZE = 37, 96, 32, 48
ENABLED, DISABLED = 0xAA, 0x55

DRIVER, VBIOS, NVDEC0, COUNTS, CPR_INFO, BOARD_ID = 3, 6, 11, 12, 13, 14
CHIP_SKU, CHIP_SKU_MOD, PROJECT, PROJECT_SKU, PROJECT_SKU_MOD = 15, 16, 17, 18, 19
FWID, PROTECTED_PCIE, PDI, CHIP_INFO, FEATURE = 20, 21, 22, 35, 36
GPU_INFO = 4
_HEX = re.compile(r"[0-9a-fA-F]+")
_WORD = re.compile(rb"[A-Za-z0-9._ -]{0,32}")
_PPCIE_MODE = 2


@dataclass(frozen=True)
class Device:
    """One entry of the list, not believed yet: `certificates` are DER, in the order that was sent."""

    arch: str
    uuid: str
    report: bytes
    certificates: tuple[bytes, ...]


@dataclass(frozen=True)
class Report:
    """A parsed report. `signed` is what the signature covers; `measurements` are by SPDM index, from 1."""

    signed: bytes
    signature: bytes
    nonce: bytes
    measurements: dict[int, bytes]
    opaque: dict[int, bytes]

    @cached_property
    def driver(self) -> str:
        """The driver's version, empty where the device runs none (NVSwitch)."""
        return self.word(DRIVER)

    @cached_property
    def vbios(self) -> str:
        """The firmware's version as NVIDIA writes it, ``96.00.9F.00.01``: text in a switch, packed in a GPU."""
        raw = self.opaque.get(VBIOS, b"")
        if len(raw) != 8:
            return self.word(VBIOS).upper()
        packed = raw[3::-1] + raw[4:5]  # four bytes little-endian, then one
        return ".".join(f"{byte:02X}" for byte in packed)

    def word(self, field: int) -> str:
        """A field of printable ASCII; NUL ends it. Empty where it is absent; `Malformed` where it is anything else."""
        raw = self.opaque.get(field, b"").rstrip(b"\0")
        if not _WORD.fullmatch(raw):
            raise Malformed(f"report: opaque field {field} is not a word")
        return raw.decode("ascii")

    def flag(self, field: int) -> bool | None:
        """A field that is enabled (AA) or disabled (55); None for everything else."""
        return {bytes([ENABLED]): True, bytes([DISABLED]): False}.get(self.opaque.get(field, b""))

    @property
    def protected_pcie(self) -> bool:
        """Whether the device is in Protected PCIe mode: links between GPUs are not encrypted, switches are trusted."""
        feature = self.opaque.get(FEATURE, b"")[:1]
        return bool(self.flag(PROTECTED_PCIE)) or feature == bytes([_PPCIE_MODE])


def is_statement(primary: dict[str, Any]) -> bool:
    """Whether this is what a verifier said (NVIDIA's detached EAT) and not what a device signed."""
    return "detached_eat" in primary and "device_evidence_list" not in primary


def parse_evidence(primary: dict[str, Any]) -> tuple[Device, ...]:
    """Decode the primary evidence object: every device of its list."""
    entries = primary.get("device_evidence_list")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_DEVICES:
        raise Malformed(f"nvidia evidence: device_evidence_list is not a list of 1 to {MAX_DEVICES}")
    return tuple(_device(entry, i) for i, entry in enumerate(entries))


def _device(entry: Any, number: int) -> Device:
    name = f"nvidia evidence: device {number}"
    if not isinstance(entry, dict):
        raise Malformed(f"{name} is not an object")
    arch = _text(entry, "arch", name, 16).upper()
    if arch not in ARCHITECTURES:
        raise Malformed(f"{name}: arch {arch!r} is not known", hint="known: " + ", ".join(ARCHITECTURES))
    text = _text(entry, "evidence", name, 3 * MAX_REPORT)
    report = unhex(text, name) if _HEX.fullmatch(text) else unb64(text, f"{name}: evidence")
    chain = unb64(_text(entry, "certificate", name, 2 * MAX_CHAIN), f"{name}: certificate")
    return Device(arch, _text(entry, "uuid", name, 96, absent=""), report, certificates(chain, f"{name}: certificate"))


def certificates(chain: bytes, name: str) -> tuple[bytes, ...]:
    """The DER of the certificates in a PEM chain."""
    from casemate.crypto import pem

    return pem.certificates(chain, name, limit=MAX_CHAIN)


def _text(entry: dict[str, Any], member: str, name: str, limit: int, absent: str | None = None) -> str:
    value = entry.get(member, absent)
    if not isinstance(value, str) or len(value) > limit:
        raise Malformed(f"{name}: `{member}` is not a string of at most {limit}")
    return value


def parse(data: bytes) -> Report:
    """Parse the request and the response behind it; every byte must belong to a field."""
    if len(data) > MAX_REPORT:
        raise Malformed(f"report: {len(data)} bytes, at most {MAX_REPORT} allowed")
    cursor = Cursor(data, "report")
    if cursor.take(4) != b"\x11\xe0\x01\xff":
        raise Malformed("report: no SPDM 1.1 request for all measurements and a signature")
    nonce = cursor.take(NONCE_SIZE)
    cursor.take(1)
    if cursor.take(2) != b"\x11\x60":
        raise Malformed("report: no SPDM 1.1 MEASUREMENTS behind the request")
    cursor.take(2)
    blocks = cursor.u8()
    record = cursor.take(cursor.uint(3))
    cursor.take(NONCE_SIZE)
    opaque = cursor.take(cursor.u16())
    signed = data[: cursor.offset]
    signature = cursor.take(SIGNATURE_SIZE)
    cursor.end()
    report = Report(signed, signature, nonce, _measurements(record, blocks), _fields(opaque))
    _ = (report.driver, report.vbios, *(report.word(f) for f in (CHIP_SKU, PROJECT, PROJECT_SKU, CHIP_INFO)))
    return report


def _measurements(record: bytes, blocks: int) -> dict[int, bytes]:
    cursor = Cursor(record, "report: measurements")
    found: dict[int, bytes] = {}
    for _ in range(blocks):
        index, specification, size = cursor.u8(), cursor.u8(), cursor.u16()
        cursor.u8()  # what kind of measurement; NVIDIA says ROM for all
        if specification != 1 or cursor.u16() != DIGEST_SIZE or size != DIGEST_SIZE + 3:
            raise Malformed(f"report: measurement {index} is no DMTF block of {DIGEST_SIZE} bytes")
        if index in found:
            raise Malformed(f"report: measurement {index} stands there twice")
        found[index] = cursor.take(DIGEST_SIZE)
    cursor.end()
    if not found:
        raise Malformed("report: no measurements")
    return found


def _fields(opaque: bytes) -> dict[int, bytes]:
    cursor = Cursor(opaque, "report: opaque data")
    found: dict[int, bytes] = {}
    while cursor.remaining:
        field, size = cursor.u16(), cursor.u16()
        if field in found:
            raise Malformed(f"report: opaque field {field} stands there twice")
        found[field] = cursor.take(size)
    return found
