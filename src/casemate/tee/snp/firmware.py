"""What an OVMF image says to an SEV-SNP launcher: where APs start, where the hashes table lies, which pages it wants.

Sources: edk2 OvmfPkg/ResetVector (GUID table entries) and its X64/OvmfSevMetadata.asm (the `ASEV` block, version 1).
Everything is bounded before use; the only error is `Malformed`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from casemate.boot import ovmf
from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

HASHES_TABLE = "7255371f-3a3b-4b04-927b-1da6efa8d454"
RESET_BLOCK = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
_MAX_SECTIONS = 64
_MAX_SECTION_BYTES = 64 << 20


class Kind(IntEnum):
    """Section types of the `ASEV` block."""

    MEMORY = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CALLING_AREA = 4
    KERNEL_HASHES = 0x10


class Section(NamedTuple):
    """Guest-physical pages that the launcher prepares."""

    kind: Kind
    address: int
    size: int


class Firmware(NamedTuple):
    """`reset_eip` is where APs start; `hashes_table` is 0 when the firmware does not check a kernel's hashes."""

    reset_eip: int
    hashes_table: int
    sections: tuple[Section, ...]


def parse(firmware: bytes) -> Firmware:
    """Read the image."""
    table = ovmf.table(firmware)
    return Firmware(_word(table, RESET_BLOCK), _word(table, HASHES_TABLE), _sections(firmware, table))


def _word(table: dict[str, bytes], guid: str) -> int:
    """The first u32 of an entry; 0 when the entry is absent."""
    data = table.get(guid)
    return 0 if data is None else Cursor(data, f"firmware entry {guid}").u32()


def _sections(firmware: bytes, table: dict[str, bytes]) -> tuple[Section, ...]:
    back = _word(table, METADATA)
    if METADATA not in table:
        return ()
    if not 16 <= back <= len(firmware):
        raise Malformed(f"firmware: SEV metadata {back} bytes before the end")
    start = len(firmware) - back
    cursor = Cursor(firmware[start : start + 16 + 12 * _MAX_SECTIONS], "SEV metadata")
    signature, size, version, count = cursor.take(4), cursor.u32(), cursor.u32(), cursor.u32()
    if signature != b"ASEV" or version != 1:
        raise Malformed(f"firmware: SEV metadata {signature!r} of version {version} is not known")
    if count > _MAX_SECTIONS or size != 16 + 12 * count:
        raise Malformed(f"firmware: SEV metadata of {size} bytes with {count} sections")
    return tuple(_section(cursor) for _ in range(count))


def _section(cursor: Cursor) -> Section:
    address, size, kind = cursor.u32(), cursor.u32(), cursor.u32()
    if kind not in Kind.__members__.values():
        raise Malformed(f"firmware: SEV section type {kind:#x} is not known")
    if address % ovmf.PAGE or size % ovmf.PAGE or size > _MAX_SECTION_BYTES:
        raise Malformed(f"firmware: SEV section at {address:#x} with {size:#x} bytes")
    if kind not in {Kind.MEMORY, Kind.SVSM_CALLING_AREA} and size != ovmf.PAGE:
        raise Malformed(f"firmware: SEV section type {kind:#x} has {size:#x} bytes instead of one page")
    return Section(Kind(kind), address, size)
