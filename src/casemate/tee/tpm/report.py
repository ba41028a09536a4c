"""Wire layouts of TPM 2.0 evidence: TPMS_ATTEST, TPMT_SIGNATURE, TPMT_PUBLIC, names, and the JSON that carries them.

Standard: TPM 2.0 Library, Part 2 (rev 1.59) sections 10.12 (attestation), 11.3 (signatures), 12.2 (public areas);
Part 1 section 16 (names). JSON: CoCo's `tpm` evidence plus `ak_chain` and `event_log`. All integers are big-endian.

    TPMS_ATTEST  magic u32 | type u16 | qualifiedSigner 2B | extraData 2B | clockInfo | firmware u64 | TPMS_QUOTE_INFO
    clockInfo    clock u64 (ms) | resetCount u32 | restartCount u32 | safe u8
    QUOTE_INFO   count u32 | count x (hash u16 | size u8 | bitmap) | pcrDigest 2B
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import msgspec

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor
from casemate.wire.encoding import unb64, unhex

MAGIC = 0xFF544347
TYPE_QUOTE = 0x8018
ALG_RSA, ALG_AES, ALG_NULL, ALG_ECC = 0x0001, 0x0006, 0x0010, 0x0023
ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA = 0x0014, 0x0016, 0x0018
HASHES = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
ALG_SHA256 = 0x000B
CURVE_P256 = 0x0003
RH_OWNER, RH_ENDORSEMENT = 0x40000001, 0x4000000B

# fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | noDA | restricted | sign: a key that was born in this
# TPM, cannot leave it, and signs nothing but what the TPM itself made (Part 2 section 8.3).
AK_ATTRIBUTES = 0x00050472
AK_HANDLE = 0x81010002
AK_CHAIN_INDEX = 0x01C10002

PCR_COUNT = 24
PCR_SIZES = (20, 32, 48, 64)
MAX_CHAIN = 5
MAX_CERTIFICATE = 8 << 10
MAX_EVENT_LOG = 1 << 20
_MAX_STRUCTURE = 2048
_HEAD, _CLOCK = struct.Struct(">IH"), struct.Struct(">QIIBQ")


class Attest(msgspec.Struct, frozen=True):
    """A TPMS_ATTEST of type quote. `selections` are (hash name or hex id, PCR indexes); `clock` is in milliseconds."""

    magic: int
    type: int
    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selections: tuple[tuple[str, tuple[int, ...]], ...]
    pcr_digest: bytes


class Signature(msgspec.Struct, frozen=True):
    """A TPMT_SIGNATURE: `scheme` is a TPM_ALG_ID, `hash` a hashlib name, `value` RSA bytes or (r, s)."""

    scheme: int
    hash: str
    value: bytes | tuple[int, int]


class Public(msgspec.Struct, frozen=True):
    """A TPMT_PUBLIC. For RSA `unique` is the modulus alone; for ECC it is (x, y). `detail` is key bits or curve."""

    type: int
    name_alg: int
    attributes: int
    policy: bytes
    scheme: int
    scheme_hash: int
    detail: int
    exponent: int
    unique: tuple[bytes, ...]


class Quote(msgspec.Struct, frozen=True):
    """`tpm_quote` of the JSON: base64 TPMT_SIGNATURE, base64 TPMS_ATTEST, hex PCRs."""

    signature: str
    message: str
    pcrs: list[str]


class _Wire(msgspec.Struct, frozen=True):
    tpm_quote: Quote
    ak_public: str
    ak_chain: list[str] = []
    event_log: str = ""


class Report(msgspec.Struct, frozen=True):
    """The decoded JSON: `ak_public` and `ak_chain` are DER, `event_log` is None when absent."""

    message: bytes
    signature: bytes
    pcrs: tuple[bytes, ...]
    ak_public: bytes
    ak_chain: tuple[bytes, ...]
    event_log: bytes | None


def parse_evidence(primary: dict[str, Any]) -> Report:
    """Decode the primary evidence object, every part bounded; members that are not known are ignored."""
    try:
        wire = msgspec.convert(primary, _Wire)
    except msgspec.ValidationError as error:
        raise Malformed(f"tpm evidence: {error}") from error
    if len(wire.ak_chain) > MAX_CHAIN:
        raise Malformed(f"tpm evidence: {len(wire.ak_chain)} certificates, at most {MAX_CHAIN} allowed")
    if len(wire.tpm_quote.pcrs) > PCR_COUNT:
        raise Malformed(f"tpm evidence: {len(wire.tpm_quote.pcrs)} PCRs, a TPM has {PCR_COUNT}")
    return Report(
        message=_bytes(wire.tpm_quote.message, "tpm_quote.message"),
        signature=_bytes(wire.tpm_quote.signature, "tpm_quote.signature"),
        pcrs=_pcrs(wire.tpm_quote.pcrs),
        ak_public=_bytes(wire.ak_public, "ak_public"),
        ak_chain=tuple(_bytes(c, f"ak_chain[{i}]", MAX_CERTIFICATE) for i, c in enumerate(wire.ak_chain)),
        event_log=_bytes(wire.event_log, "event_log", MAX_EVENT_LOG) if wire.event_log else None,
    )


def _pcrs(texts: list[str]) -> tuple[bytes, ...]:
    """The registers, all of one bank's size; decoded in one piece, one by one only to name the one that is wrong."""
    size = len(texts[0]) // 2 if texts else 32
    if size not in PCR_SIZES:
        raise Malformed(f"tpm evidence: tpm_quote.pcrs[0] has {size} bytes, which is no bank's size")
    if {*map(len, texts)} <= {2 * size}:
        data = unhex("".join(texts), "tpm_quote.pcrs") if texts else b""
        return struct.unpack(f"{size}s" * len(texts), data)
    return tuple(unhex(text, f"tpm_quote.pcrs[{i}]", size=size) for i, text in enumerate(texts))


def _bytes(text: str, name: str, limit: int = _MAX_STRUCTURE) -> bytes:
    if 3 * len(text) > 4 * limit + 20:
        raise Malformed(f"tpm evidence: {name} is longer than {limit} bytes")
    return unb64(text, name)


def parse_attest(data: bytes) -> Attest:
    """Parse a TPMS_ATTEST; another type than quote is `Malformed`, because its body has another layout."""
    read = Cursor(data, "TPMS_ATTEST")
    magic, kind = _HEAD.unpack(read.take(6))
    if magic != MAGIC or kind != TYPE_QUOTE:
        raise Malformed(f"TPMS_ATTEST: magic {magic:#010x} type {kind:#06x}, {MAGIC:#x} and {TYPE_QUOTE:#x} wanted")
    signer, extra = read.sized16(130), read.sized16(130)
    clock, resets, restarts, safe, firmware = _CLOCK.unpack(read.take(25))
    if safe > 1:
        raise Malformed("TPMS_ATTEST: clockInfo.safe is neither yes nor no")
    selections = read_selections(read)
    digest = read.sized16(64)
    read.end()
    return Attest(magic, kind, signer, extra, clock, resets, restarts, safe == 1, firmware, selections, digest)


def read_selections(read: Cursor) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """A TPML_PCR_SELECTION: at most eight banks of at most 32 PCRs."""
    count = read.be32()
    if count > 8:
        raise Malformed(f"TPML_PCR_SELECTION: {count} banks, at most 8 allowed")
    found = []
    for _ in range(count):
        algorithm, size = read.be16(), read.u8()
        if size > 4:
            raise Malformed(f"TPML_PCR_SELECTION: a bitmap of {size} bytes")
        bits = int.from_bytes(read.take(size), "little")
        indexes = tuple(range(8 * size)) if bits == (1 << 8 * size) - 1 else _bits(bits)
        found.append((HASHES.get(algorithm, f"{algorithm:#06x}"), indexes))
    return tuple(found)


def _bits(value: int) -> tuple[int, ...]:
    return tuple(i for i in range(value.bit_length()) if value >> i & 1)


def parse_signature(data: bytes) -> Signature:
    """Parse a TPMT_SIGNATURE of RSASSA, RSAPSS or ECDSA; other schemes and hashes are `Malformed`."""
    read = Cursor(data, "TPMT_SIGNATURE")
    scheme, hash_id = read.be16(), read.be16()
    if hash_id not in HASHES:
        raise Malformed(f"TPMT_SIGNATURE: hash {hash_id:#06x} is not known")
    value: bytes | tuple[int, int]
    if scheme == ALG_ECDSA:
        value = (int.from_bytes(read.sized16(66), "big"), int.from_bytes(read.sized16(66), "big"))
    elif scheme in (ALG_RSASSA, ALG_RSAPSS):
        value = read.sized16(512)
    else:
        raise Malformed(f"TPMT_SIGNATURE: scheme {scheme:#06x} is not known")
    read.end()
    return Signature(scheme, HASHES[hash_id], value)


def parse_public(data: bytes) -> Public:
    """Parse a TPMT_PUBLIC of an RSA or ECC key."""
    read = Cursor(data, "TPMT_PUBLIC")
    kind, name_alg, attributes, policy = read.be16(), read.be16(), read.be32(), read.sized16(64)
    if kind not in (ALG_RSA, ALG_ECC):
        raise Malformed(f"TPMT_PUBLIC: type {kind:#06x} is neither RSA nor ECC")
    if read.be16() != ALG_NULL:
        read.take(4)  # symmetric: key bits, mode
    scheme = read.be16()
    scheme_hash = read.be16() if scheme != ALG_NULL else ALG_NULL
    if kind == ALG_RSA:
        bits, exponent = read.be16(), read.be32() or 65537
        unique: tuple[bytes, ...] = (read.sized16(512),)
    else:
        bits, exponent = read.be16(), 0
        if read.be16() != ALG_NULL:
            read.be16()  # KDF hash
        unique = (read.sized16(66), read.sized16(66))
    read.end()
    return Public(kind, name_alg, attributes, policy, scheme, scheme_hash, bits, exponent, unique)


def name(public: bytes) -> bytes:
    """The name of an object: nameAlg | H(TPMT_PUBLIC). Only SHA-256 names are made here."""
    algorithm = parse_public(public).name_alg
    if algorithm != ALG_SHA256:
        raise Malformed(f"TPMT_PUBLIC: name algorithm {algorithm:#06x}, SHA-256 wanted")
    return algorithm.to_bytes(2, "big") + hashlib.sha256(public).digest()


def qualified_name(hierarchy: int, object_name: bytes) -> bytes:
    """The qualified name of a primary object: H(hierarchy handle | name)."""
    return object_name[:2] + hashlib.sha256(hierarchy.to_bytes(4, "big") + object_name).digest()


def ak_public(x: bytes, y: bytes) -> bytes:
    """TPMT_PUBLIC of our AK: P-256, ECDSA-SHA256, attributes `AK_ATTRIBUTES`. Empty x and y make the template."""
    return (
        _u16(ALG_ECC) + _u16(ALG_SHA256) + AK_ATTRIBUTES.to_bytes(4, "big") + sized(b"")
        + _u16(ALG_NULL) + _u16(ALG_ECDSA) + _u16(ALG_SHA256) + _u16(CURVE_P256) + _u16(ALG_NULL)
        + sized(x) + sized(y)
    )  # fmt: skip


def quote_selection() -> bytes:
    """TPML_PCR_SELECTION of all 24 PCRs of the SHA-256 bank."""
    return selection(range(PCR_COUNT))


def selection(indexes: range | tuple[int, ...]) -> bytes:
    """TPML_PCR_SELECTION of `indexes` in the SHA-256 bank."""
    bits = sum(1 << i for i in indexes)
    return (1).to_bytes(4, "big") + _u16(ALG_SHA256) + b"\x03" + bits.to_bytes(3, "little")


def sized(data: bytes) -> bytes:
    """TPM2B: a two-byte length and the bytes."""
    return _u16(len(data)) + data


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")
