"""Wire layout of Hygon CSV attestation reports, versions 1 and 2, and of Hygon's certificates. Little-endian.

Standard: Hygon's CSV attestation report and certificate formats, as its reference library csv-rs lays them out.

    report 1   info 0x150 (masked)              | signer 0x8A4 (masked)
    report 2   info 0x490                       | signer 0x8A4
    signer     PEK certificate 2084, serial number 64, reserved 32, HMAC-SM3 32 over the three before it
    HRK, HSK   832 bytes: body 576, signature 144, reserved 112
    CEK, PEK   2084 bytes: body 1044, two slots of usage, algorithm, signature 144, reserved 368

Version 1 is masked: each four bytes of `info` before the anonce, and of PEK and serial number, are XORed with the
anonce. Signature and HMAC cover the masked bytes; the HMAC's key is the unmasked mnonce. A report that went through
Hygon's guest library (CoCo) has PEK and serial number unmasked and `reserved` cleared, so that its HMAC cannot be
computed any more.

The signature of version 1 ends before sig_usage, sig_algo and the anonce: README.md says what follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from casemate.crypto.sm2 import PublicKey
from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

CA_SIZE, CA_BODY = 832, 576
CERTIFICATE_SIZE, CERTIFICATE_BODY = 2084, 1044
INFO_1, SIGNED_1, INFO_2, SIGNED_2 = 0x150, 0xB4, 0x490, 0x400
SIGNER = CERTIFICATE_SIZE + 64 + 32 + 32
PAGE = 4096
RTMRS, RTMR_SIZE = 5, 32
HRK, HSK, OCA, PEK, CEK, INVALID = 0x0000, 0x0013, 0x1001, 0x1002, 0x1004, 0x1000
SM2_SIGN, CURVE_SM2 = 4, 3
NAMES = {HRK: "HRK", HSK: "HSK", OCA: "OCA", PEK: "PEK", CEK: "CEK"}
_NUMBER = 72  # bytes of each coordinate and of each half of a signature


@dataclass(frozen=True)
class Signature:
    """One signature; `usage` is the signer's, None where the format does not name it."""

    usage: int | None
    r: int
    s: int


@dataclass(frozen=True)
class Certificate:
    """A parsed certificate. `identity` is the user id that goes into what its key signs.

    `key_id` and `signer_id` are empty where the format has none; `version` counts the format's.
    """

    raw: bytes
    version: int
    usage: int
    key: PublicKey
    identity: bytes
    key_id: bytes
    signer_id: bytes
    signed: bytes
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class Report:
    """A parsed report, unmasked. `signed` and `covered` are the bytes under signature and HMAC.

    `pek` is the certificate in the report (None where the evidence carries the `info` alone), `covered` and `mac` are
    empty where the HMAC cannot be computed. Version 1 has build 0 and no registers.
    """

    version: int
    user_pubkey_digest: bytes
    vm_id: bytes
    vm_version: bytes
    report_data: bytes
    mnonce: bytes
    measure: bytes
    policy: int
    sig_usage: int
    sig_algo: int
    anonce: bytes
    signed: bytes
    signature: Signature
    build: int = 0
    rtmr_version: int = 0
    rtmrs: tuple[bytes, ...] = ()
    reserved: tuple[bytes, bytes] = (b"", b"")
    pek: Certificate | None = None
    serial_number: bytes = b""
    covered: bytes = b""
    mac: bytes = b""


def unmask(data: bytes, anonce: bytes) -> bytes:
    """`data` XORed with the four bytes of `anonce`, over and over; masking is the same."""
    return bytes(byte ^ anonce[i % 4] for i, byte in enumerate(data))


def authority(data: bytes) -> Certificate:
    """Parse an HRK or HSK (832 bytes)."""
    read = _sized(data, CA_SIZE, "Hygon CA certificate")
    version, key_id, signer_id, usage = read.u32(), read.take(16), read.take(16), read.u32()
    read.take(24)
    key = _key(read)
    identity = _identity(read)
    read.take(108)
    signature = _signature(read, None)
    _zeros(read, 112)
    return Certificate(data, version, usage, key, identity, key_id, signer_id, data[:CA_BODY], (signature,))


def certificate(data: bytes) -> Certificate:
    """Parse a CEK or PEK (2084 bytes)."""
    read = _sized(data, CERTIFICATE_SIZE, "Hygon certificate")
    version = read.u32()
    read.take(4)  # firmware version, reserved
    usage, algorithm = read.u32(), read.u32()
    if algorithm != SM2_SIGN:
        raise Malformed(f"Hygon certificate: key algorithm {algorithm}, {SM2_SIGN} wanted")
    key = _key(read)
    identity = _identity(read)
    signer_id = read.take(16)
    read.take(608)
    slots = tuple(slot for _ in range(2) if (slot := _slot(read)) is not None)
    return Certificate(data, version, usage, key, identity, b"", signer_id, data[:CERTIFICATE_BODY], slots)


def parse(data: bytes) -> Report:
    """Parse a report as the firmware or its library gives it, with or without the zeros up to a page behind it."""
    if len(data) > PAGE:
        raise Malformed(f"CSV report: {len(data)} bytes, at most {PAGE} wanted")
    for size, known in ((INFO_1 + SIGNER, _first), (INFO_2 + SIGNER, _second)):
        if len(data) >= size and not any(data[size:]):
            return known(data)
    raise Malformed(f"CSV report: {len(data)} bytes, {INFO_1 + SIGNER} or {INFO_2 + SIGNER} wanted, zeros behind them")


def parse_info(info: bytes) -> Report:
    """Parse the `info` of version 1 alone, as older evidence carries it."""
    return _info(_sized(info, INFO_1, "CSV report"), info[0xBC:0xC0], info, {})


def _first(data: bytes) -> Report:
    info, signer, anonce = data[:INFO_1], data[INFO_1 : INFO_1 + SIGNER], data[0xBC:0xC0]
    if signer[:CERTIFICATE_BODY].startswith((b"\1\0\0\0", b"\2\0\0\0")) and not any(signer[-64:-32]):
        return _info(Cursor(info, "CSV report"), anonce, info, _signer(signer, bytes(4), checkable=False))
    return _info(Cursor(info, "CSV report"), anonce, info, _signer(signer, anonce, checkable=True))


def _second(data: bytes) -> Report:
    info, signer = data[:INFO_2], data[INFO_2 : INFO_2 + SIGNER]
    # The library clears `reserved`; a firmware that left it zero itself still has an HMAC that holds.
    return _info(Cursor(info, "CSV report"), bytes(4), info, _signer(signer, bytes(4), checkable=any(signer[-64:-32])))


def _signer(signer: bytes, anonce: bytes, *, checkable: bool) -> dict[str, Any]:
    covered, mac = signer[:-32], signer[-32:]
    found: dict[str, Any] = {
        "pek": certificate(unmask(signer[:CERTIFICATE_SIZE], anonce)),
        "serial_number": unmask(signer[CERTIFICATE_SIZE : CERTIFICATE_SIZE + 64], anonce),
    }
    return found | ({"covered": covered, "mac": mac} if checkable else {})


def _info(read: Cursor, anonce: bytes, info: bytes, signer: dict[str, Any]) -> Report:
    first = len(info) == INFO_1
    plain = Cursor(unmask(info[:0xBC], anonce if first else bytes(4)), "CSV report")
    names = (("user_pubkey_digest", 32), ("vm_id", 16), ("vm_version", 16), ("report_data", 64), ("mnonce", 16),
             ("measure", 32))  # fmt: skip
    fields: dict[str, Any] = {name: plain.take(size) for name, size in names}
    fields |= {"policy": plain.u32(), "sig_usage": plain.u32(), "sig_algo": plain.u32()}
    read.take(0xBC)
    if first:
        fields |= {"version": 1, "anonce": read.take(4), "signed": info[:SIGNED_1]}
    else:
        fields |= {"version": 2, "anonce": b"", "signed": info[:SIGNED_2], "build": read.u32()}
        fields["rtmr_version"] = read.u16()
        reserved = read.take(14)
        fields["rtmrs"] = tuple(read.take(RTMR_SIZE) for _ in range(RTMRS))
        fields["reserved"] = (reserved, read.take(656))
    fields["signature"] = _signature(read, PEK)
    return Report(**(fields | signer))


def _sized(data: bytes, size: int, name: str) -> Cursor:
    if len(data) != size:
        raise Malformed(f"{name}: {len(data)} bytes, {size} wanted")
    return Cursor(data, name)


def _key(read: Cursor) -> PublicKey:
    curve = read.u32()
    if curve != CURVE_SM2:
        raise Malformed(f"Hygon certificate: curve {curve}, {CURVE_SM2} (SM2) wanted")
    return PublicKey(_number(read), _number(read))


def _identity(read: Cursor) -> bytes:
    size, room = read.u16(), read.take(254)
    if not 1 <= size <= len(room):
        raise Malformed(f"Hygon certificate: a user id of {size} bytes")
    return room[:size]


def _slot(read: Cursor) -> Signature | None:
    """A signature slot, None when it is empty."""
    usage, algorithm = read.u32(), read.u32()
    signature = _signature(read, usage)
    _zeros(read, 368)
    if usage == INVALID and algorithm == 0 and not (signature.r or signature.s):
        return None
    if usage not in NAMES or algorithm != SM2_SIGN:
        raise Malformed(f"Hygon certificate: a signature of usage {usage:#x} and algorithm {algorithm}")
    return signature


def _signature(read: Cursor, usage: int | None) -> Signature:
    return Signature(usage, _number(read), _number(read))


def _number(read: Cursor) -> int:
    value = read.uint(_NUMBER)
    if value >> 256:
        raise Malformed("Hygon format: a number of more than 256 bits")
    return value


def _zeros(read: Cursor, size: int) -> None:
    if any(read.take(size)):
        raise Malformed("Hygon certificate: reserved bytes that are not zero")
