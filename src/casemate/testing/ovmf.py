"""A small firmware of our own making: it can't boot, but it says to a launcher all that OVMF says.

Pages of a pattern, a metadata block 1024 bytes before the end, the GUID table, a reset vector. Any part can be broken.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from uuid import UUID

FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
HASHES = "7255371f-3a3b-4b04-927b-1da6efa8d454"
RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
TDX_METADATA = "e47a6535-984a-4798-865e-4685a7bf8ec2"
METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
BACK = 1024
# address, size, type: the kinds and the order that OVMF's AmdSev build has
SECTIONS = (
    (0x800000, 0x9000, 1),
    (0x80A000, 0x3000, 1),
    (0x80D000, 0x1000, 2),
    (0x80E000, 0x1000, 3),
    (0x80F000, 0x1000, 4),
    (0x810000, 0x1000, 0x10),
    (0x811000, 0xF000, 1),
)
# data offset, raw size, address, memory size, type, attributes: as in OVMF's TDX builds since 2024
TDX_SECTIONS = (
    (0x4000, 0xC000, 0xFFFF4000, 0xC000, 0, 1),
    (0, 0x4000, 0xFFFF0000, 0x4000, 1, 0),
    (0, 0, 0x811000, 0xF000, 3, 0),
    (0, 0, 0x80B000, 0x2000, 3, 0),
    (0, 0, 0x809000, 0x2000, 2, 0),
    (0, 0, 0x800000, 0x6000, 3, 0),
)


def entry(guid: str, data: bytes, size: int | None = None) -> bytes:
    """One entry of the GUID table; `size` lies about its length."""
    return data + struct.pack("<H", len(data) + 18 if size is None else size) + UUID(guid).bytes_le


def metadata(
    sections: Sequence[tuple[int, int, int]],
    *,
    signature: bytes = b"ASEV",
    version: int = 1,
    size: int | None = None,
    count: int | None = None,
) -> bytes:
    """The `ASEV` block."""
    length = 16 + 12 * len(sections) if size is None else size
    head = signature + struct.pack("<III", length, version, len(sections) if count is None else count)
    return head + b"".join(struct.pack("<III", *section) for section in sections)


def firmware(
    *,
    pages: int = 16,
    hashes: int | None = 0x810C00,
    eip: int | None = 0x80B004,
    block: bytes | None = None,
    offset: int = BACK,
    table_size: int | None = None,
    more: Sequence[bytes] = (),
) -> bytes:
    """The whole image; `more` are raw entries before the usual ones, None leaves an entry out."""
    data = bytearray(i * 7 % 251 for i in range(pages * 4096))
    block = metadata(SECTIONS) if block is None else block
    start = len(data) - BACK
    data[start : start + len(block)] = block
    entries = [*more, entry(METADATA, struct.pack("<I", offset))]
    entries += [] if hashes is None else [entry(HASHES, struct.pack("<II", hashes, 0x400))]
    entries += [] if eip is None else [entry(RESET, struct.pack("<I", eip))]
    body = b"".join(entries)
    table = body + entry(FOOTER, b"", size=len(body) + 18 if table_size is None else table_size)
    data[len(data) - 32 - len(table) : len(data) - 32] = table
    return bytes(data)


def tdx_metadata(
    sections: Sequence[tuple[int, int, int, int, int, int]] = TDX_SECTIONS,
    *,
    signature: bytes = b"TDVF",
    version: int = 1,
    size: int | None = None,
    count: int | None = None,
) -> bytes:
    """The `TDVF` block."""
    length = 16 + 32 * len(sections) if size is None else size
    head = signature + struct.pack("<III", length, version, len(sections) if count is None else count)
    return head + b"".join(struct.pack("<IIQQII", *section) for section in sections)


def tdx_firmware(block: bytes | None = None, *, offset: int = BACK) -> bytes:
    """An image of 64 KiB that a TDX monitor can read; `block` replaces its metadata."""
    where = entry(TDX_METADATA, struct.pack("<I", offset))
    return firmware(block=tdx_metadata() if block is None else block, hashes=None, eip=None, more=[where])
