"""The Authenticode digest of a PE image: what UEFI firmware measures of a kernel into PCR 4 (TDX: RTMR 1).

Spec: Microsoft, "Windows Authenticode Portable Executable Signature Format" (2008), and "PE Format". The checksum, the
certificate table's directory entry and the certificate table itself are left out.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from casemate.errors import Malformed

__all__ = ["digest", "sha256"]

_PE32, _PE32_PLUS = 0x10B, 0x20B
_MAX_SECTIONS = 96  # the loader's own limit


@dataclass(frozen=True)
class _Headers:
    checksum: int  # offset of the 4-byte checksum
    certificates: int  # offset of the certificate table's directory entry, or -1
    headers_size: int
    table: tuple[int, int]  # certificate table: file offset, size
    sections: tuple[tuple[int, int], ...]  # file offset, size; in file order


def sha256(pe: bytes) -> bytes:
    """The digest (32 bytes) of the PE image `pe`; a file that is none is `Malformed`."""
    return digest(pe, "sha256")


def digest(pe: bytes, algorithm: str) -> bytes:
    """The same with another hash (`sha384`)."""
    try:
        headers = _headers(pe)
    except struct.error as error:
        raise Malformed("PE image: cut short") from error
    hasher = hashlib.new(algorithm, pe[: headers.checksum])
    if headers.certificates < 0:
        hasher.update(pe[headers.checksum + 4 : headers.headers_size])
    else:
        hasher.update(pe[headers.checksum + 4 : headers.certificates])
        hasher.update(pe[headers.certificates + 8 : headers.headers_size])
    done = headers.headers_size
    for start, size in headers.sections:
        if start + size > len(pe):
            raise Malformed("PE image: a section ends behind the file")
        hasher.update(pe[start : start + size])
        done += size
    # Firmware counts bytes instead of following offsets for what lies behind the sections.
    tail = len(pe) - headers.table[1] - done
    if tail < 0:
        raise Malformed("PE image: sections or certificates overlap")
    hasher.update(pe[done : done + tail])
    return hasher.digest()


def _headers(pe: bytes) -> _Headers:
    if pe[:2] != b"MZ":
        raise Malformed("PE image: no MZ header")
    (start,) = struct.unpack_from("<I", pe, 0x3C)
    if pe[start : start + 4] != b"PE\0\0":
        raise Malformed("PE image: no PE signature")
    (section_count,) = struct.unpack_from("<H", pe, start + 6)
    (optional_size,) = struct.unpack_from("<H", pe, start + 20)
    optional = start + 24
    (magic,) = struct.unpack_from("<H", pe, optional)
    if magic not in {_PE32, _PE32_PLUS}:
        raise Malformed(f"PE image: unknown optional header {magic:#x}")
    if section_count > _MAX_SECTIONS:
        raise Malformed(f"PE image: {section_count} sections, at most {_MAX_SECTIONS} are possible")
    (headers_size,) = struct.unpack_from("<I", pe, optional + 60)
    directories = optional + (96 if magic == _PE32 else 112)
    (directory_count,) = struct.unpack_from("<I", pe, directories - 4)
    if not directories <= headers_size <= len(pe):
        raise Malformed("PE image: the header's size is impossible")
    certificates, table = -1, (0, 0)
    if directory_count > 4:
        certificates = directories + 4 * 8
        table = struct.unpack_from("<II", pe, certificates)
        if certificates + 8 > headers_size:
            raise Malformed("PE image: the header's size is impossible")
    return _Headers(
        optional + 64, certificates, headers_size, table, _sections(pe, optional + optional_size, section_count)
    )


def _sections(pe: bytes, offset: int, count: int) -> tuple[tuple[int, int], ...]:
    found = []
    for index in range(count):
        size, start = struct.unpack_from("<II", pe, offset + 40 * index + 16)
        if size:
            found.append((start, size))
    return tuple(sorted(found))
