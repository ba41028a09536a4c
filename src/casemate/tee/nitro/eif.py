"""Wire layout of enclave image files (EIF), versions 2 to 4. Big-endian.

Standard: aws-nitro-enclaves-image-format (its definitions and its reader).

    header   magic ".eif", version u16, flags u16, memory u64, CPUs u64, reserved u16, sections u16,
             32 offsets u64, 32 sizes u64, unused u32, CRC-32 (ISO-HDLC) u32 of everything but these four bytes
    section  type u16, flags u16, size u64, content; one behind the other
    signature section   CBOR [{"signing_certificate": PEM, "signature": COSE_Sign1}], byte strings as arrays of numbers
    signed payload      CBOR {"register_index": 0, "register_value": PCR 0}

The sections are read in their order, and the header's table must say the same: an image that two readers could take
for two different ones is refused.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from casemate.errors import Malformed
from casemate.wire import cbor
from casemate.wire.cursor import Cursor

MAGIC = b".eif"
VERSIONS = (2, 3, 4)
HEADER, SECTION, MAX_SECTIONS = 548, 12, 32
KERNEL, CMDLINE, RAMDISK, SIGNATURE, METADATA = 1, 2, 3, 4, 5
MAX_SIGNATURE = 64 << 10
MAX_METADATA = 4 << 20
_ARM64 = 1
_NAMES = {KERNEL: "kernel", CMDLINE: "command line", SIGNATURE: "signature", METADATA: "metadata"}


@dataclass(frozen=True)
class Image:
    """A parsed image. Contents are views into the given bytes. `signature` is empty when the image is not signed."""

    version: int
    architecture: str
    kernel: memoryview
    cmdline: memoryview
    ramdisks: tuple[memoryview, ...]
    metadata: memoryview
    signature: memoryview


@dataclass(frozen=True)
class Signer:
    """What the signature section holds: the signer's certificate as PEM, and a COSE_Sign1 about PCR 0."""

    certificate: bytes
    message: bytes


def parse(data: bytes | memoryview) -> Image:
    """Parse an image file."""
    view = memoryview(data)
    if len(view) < HEADER or view[:4] != MAGIC:
        raise Malformed("enclave image: it does not begin with an EIF header")
    read = Cursor(bytes(view[:HEADER]), "enclave image header")
    read.take(4)
    version, flags = read.be16(), read.be16()
    if version not in VERSIONS:
        raise Malformed(f"enclave image: version {version}, {VERSIONS[0]} to {VERSIONS[-1]} are known")
    read.take(16 + 2)
    count = read.be16()
    if not 1 <= count <= MAX_SECTIONS:
        raise Malformed(f"enclave image: {count} sections, 1 to {MAX_SECTIONS} wanted")
    offsets = [read.be64() for _ in range(MAX_SECTIONS)]
    sizes = [read.be64() for _ in range(MAX_SECTIONS)]
    read.take(4)
    if zlib.crc32(view[HEADER:], zlib.crc32(view[: HEADER - 4])) != read.be32():
        raise Malformed("enclave image: its checksum is another", hint="the file was cut off or changed; copy it again")
    sections = _sections(view)
    table = [(at, len(part)) for at, _, part in sections]
    table += [(0, 0)] * (MAX_SECTIONS - len(table))
    if len(sections) != count or table != list(zip(offsets, sizes, strict=True)):
        raise Malformed("enclave image: its header and its sections do not agree")
    return _image(version, "arm64" if flags & _ARM64 else "x86_64", [(kind, part) for _, kind, part in sections])


def _sections(view: memoryview) -> list[tuple[int, int, memoryview]]:
    """(offset, type, content) of each section, to the last byte of the file."""
    found: list[tuple[int, int, memoryview]] = []
    at = HEADER
    while at < len(view):
        read = Cursor(bytes(view[at : at + SECTION]), "enclave image section")
        kind, _, size = read.be16(), read.be16(), read.be64()
        if not KERNEL <= kind <= METADATA or len(found) >= MAX_SECTIONS:
            raise Malformed(f"enclave image: a section of unknown type {kind}, or too many")
        start = at + SECTION
        if size > len(view) - start:
            raise Malformed("enclave image: a section runs past the end")
        found.append((at, kind, view[start : start + size]))
        at = start + size
    return found


def _image(version: int, architecture: str, sections: list[tuple[int, memoryview]]) -> Image:
    kinds = [kind for kind, _ in sections]
    for kind, name in _NAMES.items():
        if kinds.count(kind) > 1 or (kind in (KERNEL, CMDLINE) and kind not in kinds):
            raise Malformed(f"enclave image: {kinds.count(kind)} sections of its {name}")
    measured = [kind for kind in kinds if kind in (KERNEL, CMDLINE, RAMDISK)]
    if measured[:2] != [KERNEL, CMDLINE] or len(measured) < 3:
        raise Malformed("enclave image: a kernel, a command line and then ramdisks are wanted, in this order")
    content = dict(sections)
    ramdisks = tuple(part for kind, part in sections if kind == RAMDISK)
    metadata, signature = content.get(METADATA, memoryview(b"")), content.get(SIGNATURE, memoryview(b""))
    if len(metadata) > MAX_METADATA or len(signature) > MAX_SIGNATURE or (SIGNATURE in kinds and not signature):
        raise Malformed("enclave image: its metadata or its signature is too long, or the signature is empty")
    return Image(version, architecture, content[KERNEL], content[CMDLINE], ramdisks, metadata, signature)


def signer(section: bytes | memoryview) -> Signer:
    """Parse the signature section; exactly one signature is known, that of PCR 0."""
    name = "enclave image signature"
    item = cbor.loads(bytes(section), name, limit=MAX_SIGNATURE)
    if not isinstance(item, list) or len(item) != 1 or not isinstance(item[0], dict):
        raise Malformed(f"{name}: an array of one map is wanted")
    fields = item[0]
    return Signer(_octets(fields.get("signing_certificate"), name), _octets(fields.get("signature"), name))


def signed_register(payload: bytes) -> tuple[int, bytes]:
    """(index, value) of the register that a signature's payload names."""
    name = "enclave image signature payload"
    item = cbor.loads(payload, name, limit=1024)
    index = item.get("register_index") if isinstance(item, dict) else None
    if not isinstance(index, int) or isinstance(index, bool) or len(item) != 2:
        raise Malformed(f"{name}: a map of register_index and register_value is wanted")
    return index, _octets(item.get("register_value"), name)


def _octets(value: Any, name: str) -> bytes:
    """A byte string, which the format's library writes as an array of numbers."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n <= 255 for n in value):
        raise Malformed(f"{name}: a field that holds no bytes")
    return bytes(value)
