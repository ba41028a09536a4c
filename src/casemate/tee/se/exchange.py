"""pvattest's exchange file, which carries requests and responses between machines.

Standard: s390-tools, pvattest (exchange format version 1). Big-endian.

    "pvattest" | version u32 0x100 | size u32 | 0 u64 | (size u32, offset u32) of request, measurement, additional data,
    user data, configuration id | the bytes. An offset of 0 with a size says how much is expected.
"""

from __future__ import annotations

from dataclasses import dataclass

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

MAGIC = b"pvattest"
_VERSION, _HEADER = 0x100, 64
_LIMITS = (0x10000, 0x8000, 0x8000, 256, 16)


@dataclass(frozen=True)
class Exchange:
    """What a file holds; empty bytes for what is absent. `expected` are the sizes of measurement and additional."""

    request: bytes
    measurement: bytes
    additional: bytes
    user: bytes
    cuid: bytes
    expected: tuple[int, int]

    @property
    def is_response(self) -> bool:
        """Whether the Ultravisor's answer is in it."""
        return bool(self.measurement and self.cuid)


def parse(data: bytes) -> Exchange:
    """Parse an exchange file."""
    name = "pvattest file"
    read = Cursor(data, name)
    if read.take(8) != MAGIC or read.be32() != _VERSION or read.be32() != len(data) or read.be64():
        raise Malformed(f"{name}: no exchange file of version {_VERSION:#x} and this size")
    entries = [(read.be32(), read.be32()) for _ in _LIMITS]
    parts = [_part(data, entry, limit) for entry, limit in zip(entries, _LIMITS, strict=True)]
    if not parts[0]:
        raise Malformed(f"{name}: without a request")
    if parts[4] and len(parts[4]) != 16:
        raise Malformed(f"{name}: a configuration id of {len(parts[4])} bytes")
    request, measurement, additional, user, cuid = parts
    return Exchange(request, measurement, additional, user, cuid, (entries[1][0], entries[2][0]))


def _part(data: bytes, entry: tuple[int, int], limit: int) -> bytes:
    size, offset = entry
    if size > limit:
        raise Malformed(f"pvattest file: an entry of {size} bytes, at most {limit} allowed")
    if not size or not offset:
        return b""
    if offset < _HEADER or offset + size > len(data):
        raise Malformed("pvattest file: an entry that lies outside")
    return data[offset : offset + size]
