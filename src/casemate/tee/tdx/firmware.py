"""What a TDX virtual firmware (TDVF) says to the monitor: which parts of it go where in memory, and what is measured.

Standard: Intel TDX Virtual Firmware Design Guide, section 11 (TDVF metadata); edk2 OvmfPkg/ResetVector puts the block's
place into the GUID table. Everything is bounded before use; the only error is `Malformed`.

    descriptor  "TDVF" | length u32 | version u32 | sections u32
    section     data offset u32 | raw size u32 | address u64 | memory size u64 | type u32 | attributes u32
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from casemate.boot import ovmf
from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

METADATA = "e47a6535-984a-4798-865e-4685a7bf8ec2"
EXTEND, AUGMENT = 1, 2  # attributes: the content is measured; the page is added later, by the guest
_MAX_SECTIONS = 32
_MAX_MEMORY = 128 << 20  # of all sections: more pages than any firmware has


class Kind(IntEnum):
    """Section types."""

    CODE = 0  # boot firmware volume (BFV)
    VARIABLES = 1  # configuration firmware volume (CFV)
    HAND_OFF = 2  # TD HOB
    TEMPORARY = 3
    PERMANENT = 4
    PAYLOAD = 5
    PAYLOAD_PARAMETERS = 6
    INFORMATION = 7


class Section(NamedTuple):
    """`data` are the bytes of the image that go to `address`, zeros behind them up to `size` (whole pages)."""

    kind: Kind
    address: int
    size: int
    attributes: int
    data: bytes


def sections(firmware: bytes) -> tuple[Section, ...]:
    """The sections in the image's order; an image that is no TDVF has none."""
    entry = ovmf.table(firmware).get(METADATA)
    if entry is None:
        return ()
    back = Cursor(entry, "TDVF metadata entry").u32()
    if not 16 <= back <= len(firmware):
        raise Malformed(f"firmware: TDVF metadata {back} bytes before the end")
    start = len(firmware) - back
    read = Cursor(firmware[start : start + 16 + 32 * _MAX_SECTIONS], "TDVF metadata")
    signature, length, version, count = read.take(4), read.u32(), read.u32(), read.u32()
    if signature != b"TDVF" or version != 1:
        raise Malformed(f"firmware: TDVF metadata {signature!r} of version {version} is not known")
    if count > _MAX_SECTIONS or length != 16 + 32 * count:
        raise Malformed(f"firmware: TDVF metadata of {length} bytes with {count} sections")
    found = tuple(_section(read, firmware) for _ in range(count))
    if sum(section.size for section in found) > _MAX_MEMORY:
        raise Malformed(f"firmware: TDVF sections of more than {_MAX_MEMORY >> 20} MiB")
    return found


def _section(read: Cursor, firmware: bytes) -> Section:
    offset, raw, address, size, kind, attributes = (
        read.u32(), read.u32(), read.u64(), read.u64(), read.u32(), read.u32(),
    )  # fmt: skip
    if kind not in Kind.__members__.values():
        raise Malformed(f"firmware: TDVF section type {kind:#x} is not known")
    if attributes & ~(EXTEND | AUGMENT) or attributes == EXTEND | AUGMENT:
        raise Malformed(f"firmware: TDVF section with attributes {attributes:#x}")
    if address % ovmf.PAGE or size % ovmf.PAGE or not raw <= size <= _MAX_MEMORY or address + size > 1 << 52:
        raise Malformed(f"firmware: TDVF section at {address:#x} with {raw:#x} of {size:#x} bytes")
    if offset + raw > len(firmware):
        raise Malformed(f"firmware: TDVF section data at {offset:#x} is not in this file: a part of an image?")
    return Section(Kind(kind), address, size, attributes, firmware[offset : offset + raw])
