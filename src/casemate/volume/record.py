"""The broker's record of a volume: what the guest needs to build the mapping again, and all that it believes.

    {"version": 1, "uuid": 32 hex, "size": bytes of the disk, "provided": sectors, "superblock": base64 of 512 bytes}

The record travels sealed to the attested guest and is stored once, with the one-time grant that allowed formatting.
The superblock is dm-integrity's (drivers/md/dm-integrity.c, struct superblock); its fields must equal our constants.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from casemate.errors import Malformed, Refused
from casemate.volume import tables
from casemate.wire.cursor import Cursor
from casemate.wire.encoding import b64, unb64

VERSION = 1
SUPERBLOCK = 512
_MAGIC = b"integrt\0"
_VERSIONS = range(1, 7)
_FLAGS = 0x1 | 0x10  # a journal MAC is in use; fix_hmac
_FIELDS = {"version", "uuid", "size", "provided", "superblock"}
_UUID = re.compile(r"[0-9a-f]{32}")
_MAX_SIZE = 1 << 50


class Record(NamedTuple):
    """`uuid`: 32 hex digits, new at each formatting. `size`: bytes of the disk. `provided`: sectors of data."""

    uuid: str
    size: int
    provided: int
    superblock: bytes

    def as_json(self) -> dict[str, Any]:
        """The record as the broker keeps it."""
        return {
            "version": VERSION,
            "uuid": self.uuid,
            "size": self.size,
            "provided": self.provided,
            "superblock": b64(self.superblock),
        }

    def demand_size(self, size: int) -> None:
        """Refuse a disk that is not exactly as large as the one that was formatted."""
        if size != self.size:
            raise Refused.because(
                "volume.size",
                expected=f"{self.size} bytes",
                found=f"{size} bytes",
                hint="give the workload the disk that it formatted; volumes are not resized",
            )


def parse(document: Any) -> Record:
    """The record in a JSON value; the only error is `Malformed`."""
    if not isinstance(document, dict) or set(document) != _FIELDS:
        raise Malformed("volume record: other fields than " + ", ".join(sorted(_FIELDS)))
    numbers = [document[name] for name in ("version", "size", "provided")]
    if any(isinstance(n, bool) or not isinstance(n, int) for n in numbers) or numbers[0] != VERSION:
        raise Malformed(f"volume record: version {VERSION} and whole numbers are wanted")
    _, size, provided = numbers
    uuid, packed = document["uuid"], document["superblock"]
    if not isinstance(uuid, str) or not _UUID.fullmatch(uuid) or not isinstance(packed, str):
        raise Malformed("volume record: uuid or superblock of another form")
    if not tables.LEAST * tables.SECTOR <= size <= _MAX_SIZE or size % tables.BLOCK:
        raise Malformed("volume record: a size that no disk of ours has")
    superblock = unb64(packed, "volume record: superblock", size=SUPERBLOCK)
    if provided_sectors(superblock) != provided or provided * tables.SECTOR >= size:
        raise Malformed("volume record: superblock and size disagree")
    return Record(uuid, size, provided, superblock)


def provided_sectors(superblock: bytes) -> int:
    """Sectors of data that a dm-integrity superblock promises, after comparing its form with our constants."""
    read = Cursor(superblock, "dm-integrity superblock")
    magic, version = read.take(8), read.u8()
    read.u8()  # log2 of the interleave, the kernel's choice
    tag_size = read.u16()
    sections, provided, flags = read.u32(), read.u64(), read.u32()
    sectors_per_block = read.u8()
    if magic != _MAGIC or version not in _VERSIONS:
        raise Malformed("dm-integrity superblock: not one")
    if tag_size != tables.TAG or 1 << sectors_per_block != tables.HEADER or flags & ~_FLAGS or not flags & 1:
        raise Malformed("dm-integrity superblock: made with other parameters than ours")
    if not sections or provided < tables.HEADER or provided % tables.HEADER:
        raise Malformed("dm-integrity superblock: impossible sizes")
    return provided
