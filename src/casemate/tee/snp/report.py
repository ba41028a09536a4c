"""Wire layout of SEV-SNP attestation reports, versions 2 to 5, and of the host's certificate table. Little-endian.

Standard: SEV Secure Nested Paging Firmware ABI (56860): ATTESTATION_REPORT, TCB_VERSION, guest policy; GHCB (56421) for
the certificate table. The signature covers the first 0x2A0 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

import msgspec

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

SIZE, SIGNED = 1184, 0x2A0
VERSIONS = (2, 3, 4, 5)
ECDSA_P384_SHA384 = 1
VCEK, VLEK = 0, 1
MAX_CERTIFICATES = 8
MAX_CRL = 256 << 10
TURIN_FAMILY = 0x1A
_TABLE_NAMES = {
    "63da758de6644564adc5f4b93be8accd": "VCEK",
    "a8074bc2a25a483eaae639c045a0b8a1": "VLEK",
    "4ab7b379bbac4fe4a02f05aef327c782": "ASK",
    "c0b406a4a803495297433fb6014cd0ae": "ARK",
    "92f81bc358114d3d97ffd19f88dc67ea": "CRL",
}


class Tcb(msgspec.Struct, frozen=True):
    """TCB_VERSION: security patch levels. `fmc` exists from Turin on."""

    bootloader: Annotated[int, msgspec.Meta(ge=0, le=255)]
    tee: Annotated[int, msgspec.Meta(ge=0, le=255)]
    snp: Annotated[int, msgspec.Meta(ge=0, le=255)]
    microcode: Annotated[int, msgspec.Meta(ge=0, le=255)]
    fmc: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None

    def pack(self) -> bytes:
        """The eight bytes of the report."""
        if self.fmc is None:
            return bytes([self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode])
        return bytes([self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode])

    def covers(self, other: Tcb) -> bool:
        """Whether every level is at least the other's."""
        mine, theirs = ((t.fmc or 0, t.bootloader, t.tee, t.snp, t.microcode) for t in (self, other))
        return all(a >= b for a, b in zip(mine, theirs, strict=True))


@dataclass(frozen=True)
class Report:
    """A parsed report. Builds are (major, minor, build); `signature` is r | s, 48 bytes each, big-endian, or empty."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: Tcb
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: Tcb
    cpuid: tuple[int, int, int]
    chip_id: bytes
    committed_tcb: Tcb
    current_build: tuple[int, int, int]
    committed_build: tuple[int, int, int]
    launch_tcb: Tcb
    launch_mitigations: int
    current_mitigations: int
    signed: bytes
    signature: bytes

    @property
    def signing_key(self) -> int:
        """0 VCEK, 1 VLEK, 7 none."""
        return self.key_info >> 2 & 7

    @property
    def product(self) -> str:
        """`Milan`, `Genoa` or `Turin` by CPUID; "" when that is not known, or absent (version 2)."""
        family, model, _ = self.cpuid
        if family == 0x19:
            return "Milan" if model <= 0x0F else "Genoa" if model <= 0x1F or 0xA0 <= model <= 0xAF else ""
        return "Turin" if family == TURIN_FAMILY and model <= 0x11 else ""


@lru_cache(maxsize=64)
def parse(data: bytes) -> Report:
    """Parse the 1184 bytes. From Turin on, by CPUID, the TCB fields have another layout."""
    if len(data) != SIZE:
        raise Malformed(f"SNP report: {len(data)} bytes, {SIZE} wanted")
    read = Cursor(data, "SNP report")
    version = read.u32()
    if version not in VERSIONS:
        raise Malformed(f"SNP report: version {version}, {VERSIONS[0]} to {VERSIONS[-1]} are known")
    cpuid = (data[0x188], data[0x189], data[0x18A]) if version >= 3 else (0, 0, 0)
    new = cpuid[0] >= TURIN_FAMILY
    fields: dict[str, Any] = {
        "version": version,
        "cpuid": cpuid,
        "signed": data[:SIGNED],
        "signature": _signature(data),
    }
    fields |= {"guest_svn": read.u32(), "policy": read.u64(), "family_id": read.take(16), "image_id": read.take(16)}
    fields |= {"vmpl": read.u32(), "signature_algorithm": read.u32(), "current_tcb": _tcb(read, new=new)}
    fields |= {"platform_info": read.u64(), "key_info": read.u32()}
    read.take(4)
    for name, size in (
        ("report_data", 64), ("measurement", 48), ("host_data", 32), ("id_key_digest", 48), ("author_key_digest", 48),
        ("report_id", 32), ("report_id_ma", 32),
    ):  # fmt: skip
        fields[name] = read.take(size)
    fields["reported_tcb"] = _tcb(read, new=new)
    read.take(24)  # CPUID bytes, read above, and reserved ones
    fields |= {"chip_id": read.take(64), "committed_tcb": _tcb(read, new=new)}
    fields |= {"current_build": _build(read), "committed_build": _build(read), "launch_tcb": _tcb(read, new=new)}
    fields |= {"launch_mitigations": read.u64(), "current_mitigations": read.u64()}
    return Report(**fields)


def _tcb(read: Cursor, *, new: bool) -> Tcb:
    b = read.take(8)
    if new:
        return Tcb(fmc=b[0], bootloader=b[1], tee=b[2], snp=b[3], microcode=b[7])
    return Tcb(bootloader=b[0], tee=b[1], snp=b[6], microcode=b[7])


def _build(read: Cursor) -> tuple[int, int, int]:
    build, minor, major, _ = read.take(4)
    return major, minor, build


def _signature(data: bytes) -> bytes:
    """The two numbers, big-endian; empty when a byte is set that a P-384 signature leaves zero."""
    r, s, rest = data[SIGNED : SIGNED + 72], data[SIGNED + 72 : SIGNED + 144], data[SIGNED + 144 :]
    if any(r[48:]) or any(s[48:]) or any(rest):
        return b""
    return r[:48][::-1] + s[:48][::-1]


def certificate_table(data: bytes) -> list[tuple[str, bytes]]:
    """The host's certificate table (GHCB): entries of GUID, offset, length, ended by a zero GUID."""
    found: list[tuple[str, bytes]] = []
    read = Cursor(data[: 1 << 20], "SNP certificate table")
    while read.remaining >= 24 and len(found) < MAX_CERTIFICATES:
        guid, offset, length = read.take(16), read.u32(), read.u32()
        if not any(guid):
            break
        if offset + length > len(data) or length > MAX_CRL:
            raise Malformed("SNP certificate table: an entry runs past the end")
        # Hosts write the GUID in network order or in that of EFI_GUID; both are met.
        name = _TABLE_NAMES.get(guid.hex()) or _TABLE_NAMES.get(UUID(bytes_le=guid).hex)
        if name:
            found.append((name, data[offset : offset + length]))
    return found
