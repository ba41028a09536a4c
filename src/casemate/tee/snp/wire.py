"""The JSON that carries SEV-SNP evidence: CoCo's form and ours.

    {"attestation_report": object (CoCo) or base64 of the 1184 bytes (ours),
     "cert_chain": [{"cert_type": "VCEK|VLEK|ASK|ARK|CRL|...", "data": [ints] or base64}] or null}

CoCo's object (the `sev` crate's serialisation) leaves reserved bytes out. It is put back into the bytes that were
signed, with zeros there; a report of newer firmware that uses them would then not verify, which refuses it and never
accepts another.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from casemate.errors import Malformed
from casemate.tee.snp.report import MAX_CERTIFICATES, MAX_CRL, SIGNED, Tcb, parse
from casemate.wire.encoding import unb64

MAX_CERTIFICATE = 8 << 10
_Bytes = list[int]  # each 0 to 255: `bytes` sees to it
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
    attestation_report: str | _Json
    cert_chain: list[_Certificate] | None = None


class _Named(msgspec.Struct):
    cert_type: str | dict[str, str]
    data: Any


class _Glanced(msgspec.Struct):
    attestation_report: str | _Json
    cert_chain: list[_Named] | None = None


def glance(primary: dict[str, Any]) -> tuple[bytes, list[str]]:
    """The 1184 bytes and the kinds of the certificates beside them, which are not looked into (`parse_evidence`)."""
    try:
        wire = msgspec.convert(primary, _Glanced)
        return _report(wire.attestation_report), [_kind(entry.cert_type) for entry in wire.cert_chain or []]
    except (msgspec.ValidationError, OverflowError, ValueError) as error:
        raise Malformed(f"snp evidence: {error}") from error


def parse_evidence(primary: dict[str, Any]) -> tuple[bytes, list[tuple[str, bytes]]]:
    """(the 1184 bytes, [(kind, DER)]) of the primary evidence object. Members that are not known are ignored."""
    try:
        wire = msgspec.convert(primary, _Wire)
        raw, chain = _report(wire.attestation_report), wire.cert_chain or []
        if len(chain) > MAX_CERTIFICATES:
            raise Malformed(f"snp evidence: {len(chain)} certificates, at most {MAX_CERTIFICATES} allowed")
        return raw, [_certificate(entry) for entry in chain]
    except (msgspec.ValidationError, OverflowError, ValueError) as error:  # what `bytes` says among them
        raise Malformed(f"snp evidence: {error}") from error


def _report(given: str | _Json) -> bytes:
    return _raw(given) if isinstance(given, _Json) else unb64(given[:2048], "attestation_report")


def _kind(given: str | dict[str, str]) -> str:
    return given if isinstance(given, str) else "OTHER"


def _certificate(entry: _Certificate) -> tuple[str, bytes]:
    kind = _kind(entry.cert_type)
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
