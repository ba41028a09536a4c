"""The GUID table at the end of an OVMF image, by which a launcher finds what the firmware wants.

Layout (edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm): the last 32 bytes are the reset vector; before them, read
backwards, stand entries of data | size, u16 | GUID, each size counting its whole entry. The first is the footer and
its size is that of the whole table.
"""

from __future__ import annotations

from uuid import UUID

from casemate.errors import Malformed

__all__ = ["FOUR_GIB", "PAGE", "address", "table"]

PAGE = 4096
FOUR_GIB = 1 << 32
MAX_FIRMWARE = 64 << 20
_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
_RESET_VECTOR = 32
_HEAD = 18  # u16 size and the GUID
_MAX_ENTRIES = 64


def table(firmware: bytes) -> dict[str, bytes]:
    """GUID → data of each entry; an image without a table has none. The only error is `Malformed`."""
    if len(firmware) > MAX_FIRMWARE or len(firmware) % PAGE or not firmware:
        raise Malformed(f"firmware: {len(firmware)} bytes is no whole number of pages up to {MAX_FIRMWARE >> 20} MiB")
    end = len(firmware) - _RESET_VECTOR
    size, guid = _head(firmware, end)
    if guid != _FOOTER:
        return {}
    if not _HEAD <= size <= end:
        raise Malformed(f"firmware: a GUID table of {size} bytes")
    start, end = end - size, end - _HEAD
    found: dict[str, bytes] = {}
    while end > start:
        if end - start < _HEAD:
            raise Malformed("firmware: a cut entry in the GUID table")
        size, guid = _head(firmware, end)
        if not _HEAD <= size <= end - start:
            raise Malformed(f"firmware: entry {guid} of {size} bytes runs out of the GUID table")
        if str(guid) in found or len(found) >= _MAX_ENTRIES:
            raise Malformed(f"firmware: entry {guid} is one too many")
        found[str(guid)] = firmware[end - size : end - _HEAD]
        end -= size
    return found


def address(firmware: bytes) -> int:
    """Where the image lies in guest memory: it ends at 4 GiB."""
    return FOUR_GIB - len(firmware)


def _head(firmware: bytes, end: int) -> tuple[int, UUID]:
    raw = firmware[end - _HEAD : end]
    return int.from_bytes(raw[:2], "little"), UUID(bytes_le=raw[2:])
