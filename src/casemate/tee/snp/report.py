"""Wire layout of SEV-SNP attestation reports, versions 2 to 5, and the JSON that carries them. Integers: little-endian.

Standard: SEV Secure Nested Paging Firmware ABI (56860) tables 3 (TCB_VERSION), 10 (policy), 23 (report); GHCB (56421)
for the certificate table. The signature covers the first 0x2A0 bytes.

    primary evidence   {"attestation_report": object (CoCo) or base64 of the 1184 bytes (ours),
                        "cert_chain": [{"cert_type": "VCEK|VLEK|ASK|ARK|CRL|...", "data": [ints] or base64}] or null}

CoCo's object leaves reserved bytes out. It is put back into the bytes that were signed, with zeros there; a report of
newer firmware that uses them would then not verify, which refuses it and never accepts another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import msgspec

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor
from casemate.wire.encoding import unb64

SIZE, SIGNED = 1184, 0x2A0
VERSIONS = (2, 3, 4, 5)
ECDSA_P384_SHA384 = 1
VCEK, VLEK = 0, 1
MAX_CERTIFICATES = 8
MAX_CERTIFICATE = 8 << 10
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


_Bytes = list[Annotated[int, msgspec.Meta(ge=0, le=255)]]
_U8 = Annotated[int, msgspec.Meta(ge=0, le=255)]
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
_U64 = Annotated[int, msgspec.Meta(ge=0)]


class _Build(msgspec.Struct):
    major: _U8
    minor: _U8
    build: _U8


class _Signature(msgspec.Struct):
    r: _Bytes
    s: _Bytes


class _Json(msgspec.Struct):
    """CoCo's object (the `sev` crate's serialisation)."""

    version: _U32
    guest_svn: _U32
    policy: _U64
    family_id: _Bytes
    image_id: _Bytes
    vmpl: _U32
    sig_algo: _U32
    current_tcb: Tcb
    plat_info: _U64
    key_info: _U32
    report_data: _Bytes
    measurement: _Bytes
    host_data: _Bytes
    id_key_digest: _Bytes
    author_key_digest: _Bytes
    report_id: _Bytes
    report_id_ma: _Bytes
    reported_tcb: Tcb
    chip_id: _Bytes
    committed_tcb: Tcb
    current: _Build
    committed: _Build
    launch_tcb: Tcb
    signature: _Signature
    cpuid_fam_id: _U8 | None = None
    cpuid_mod_id: _U8 | None = None
    cpuid_step: _U8 | None = None
    launch_mit_vector: _U64 | None = None
    current_mit_vector: _U64 | None = None


class _Certificate(msgspec.Struct):
    cert_type: str | dict[str, str]
    data: _Bytes | str


class _Wire(msgspec.Struct):
    attestation_report: str | dict[str, Any]
    cert_chain: list[_Certificate] | None = None


def parse_evidence(primary: dict[str, Any]) -> tuple[bytes, list[tuple[str, bytes]]]:
    """(the 1184 bytes, [(kind, DER)]) of the primary evidence object. Members that are not known are ignored."""
    try:
        wire = msgspec.convert(primary, _Wire)
        given = wire.attestation_report
        raw = (
            _raw(msgspec.convert(given, _Json))
            if isinstance(given, dict)
            else unb64(given[:2048], "attestation_report")
        )
    except (msgspec.ValidationError, OverflowError) as error:
        raise Malformed(f"snp evidence: {error}") from error
    chain = wire.cert_chain or []
    if len(chain) > MAX_CERTIFICATES:
        raise Malformed(f"snp evidence: {len(chain)} certificates, at most {MAX_CERTIFICATES} allowed")
    return raw, [_certificate(entry) for entry in chain]


def _certificate(entry: _Certificate) -> tuple[str, bytes]:
    kind = entry.cert_type if isinstance(entry.cert_type, str) else "OTHER"
    limit = MAX_CRL if kind == "CRL" else MAX_CERTIFICATE
    if len(entry.data) > 2 * limit:
        raise Malformed(f"snp evidence: a certificate of more than {limit} bytes")
    return kind, unb64(entry.data, "cert_chain") if isinstance(entry.data, str) else bytes(entry.data)


def _raw(j: _Json) -> bytes:
    """The report's bytes from CoCo's object."""

    def sized(value: list[int], size: int) -> bytes:
        if len(value) != size:
            raise Malformed(f"snp evidence: a field of {len(value)} bytes, {size} wanted")
        return bytes(value)

    def number(value: int | None, size: int) -> bytes:
        return (value or 0).to_bytes(size, "little")

    def build(b: _Build) -> bytes:
        return bytes([b.build, b.minor, b.major, 0])

    out = number(j.version, 4) + number(j.guest_svn, 4) + number(j.policy, 8)
    out += sized(j.family_id, 16) + sized(j.image_id, 16) + number(j.vmpl, 4) + number(j.sig_algo, 4)
    out += j.current_tcb.pack() + number(j.plat_info, 8) + number(j.key_info, 4) + bytes(4)
    out += sized(j.report_data, 64) + sized(j.measurement, 48) + sized(j.host_data, 32)
    out += sized(j.id_key_digest, 48) + sized(j.author_key_digest, 48)
    out += sized(j.report_id, 32) + sized(j.report_id_ma, 32) + j.reported_tcb.pack()
    out += number(j.cpuid_fam_id, 1) + number(j.cpuid_mod_id, 1) + number(j.cpuid_step, 1) + bytes(21)
    out += sized(j.chip_id, 64) + j.committed_tcb.pack() + build(j.current) + build(j.committed) + j.launch_tcb.pack()
    out += number(j.launch_mit_vector, 8) + number(j.current_mit_vector, 8)
    return out.ljust(SIGNED, b"\0") + sized(j.signature.r, 72) + sized(j.signature.s, 72) + bytes(368)


def to_json(data: bytes, chain: list[tuple[str, bytes]]) -> dict[str, Any]:
    """The primary evidence object in CoCo's form."""
    r = parse(data)
    old = r.version < 3

    def tcb(t: Tcb) -> dict[str, int | None]:
        levels: dict[str, int | None] = {"fmc": t.fmc, "bootloader": t.bootloader, "tee": t.tee}
        return levels | {"snp": t.snp, "microcode": t.microcode}

    def build(b: tuple[int, int, int]) -> dict[str, int]:
        return dict(zip(("major", "minor", "build"), b, strict=True))

    names = (
        "report_data",
        "measurement",
        "host_data",
        "id_key_digest",
        "author_key_digest",
        "report_id",
        "report_id_ma",
    )
    report = {
        "version": r.version, "guest_svn": r.guest_svn, "policy": r.policy, "family_id": list(r.family_id),
        "image_id": list(r.image_id), "vmpl": r.vmpl, "sig_algo": r.signature_algorithm, "plat_info": r.platform_info,
        "key_info": r.key_info, "chip_id": list(r.chip_id), "current": build(r.current_build),
        "committed": build(r.committed_build), "current_tcb": tcb(r.current_tcb), "reported_tcb": tcb(r.reported_tcb),
        "committed_tcb": tcb(r.committed_tcb), "launch_tcb": tcb(r.launch_tcb),
        "cpuid_fam_id": None if old else r.cpuid[0], "cpuid_mod_id": None if old else r.cpuid[1],
        "cpuid_step": None if old else r.cpuid[2],
        "launch_mit_vector": r.launch_mitigations if r.version >= 5 else None,
        "current_mit_vector": r.current_mitigations if r.version >= 5 else None,
        "signature": {"r": list(data[SIGNED : SIGNED + 72]), "s": list(data[SIGNED + 72 : SIGNED + 144])},
    } | {name: list(getattr(r, name)) for name in names}  # fmt: skip
    certificates = [{"cert_type": kind, "data": list(der)} for kind, der in chain]
    return {"attestation_report": report, "cert_chain": certificates or None}


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
