"""dm-verity trees, byte for byte as `veritysetup format` writes them (hash type 1, SHA-256, blocks of 4096 bytes).

The disk of the guest is ``data | superblock | levels, the root's level first``. Format: the kernel's
Documentation/admin-guide/device-mapper/verity.rst and cryptsetup's on-disk superblock, version 1.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from uuid import UUID

from casemate.errors import Malformed

__all__ = ["BLOCK", "Tree", "superblock", "tree"]

BLOCK = 4096
_DIGEST = 32


@dataclass(frozen=True)
class Tree:
    """The root hash (32 bytes) and the levels as they follow the superblock."""

    root: bytes
    levels: bytes


def tree(data: bytes | memoryview, salt: bytes) -> Tree:
    """The hash tree of `data`, whose length is a positive multiple of 4096; anything else is `Malformed`."""
    if not data or len(data) % BLOCK:
        raise Malformed(f"verity data is {len(data)} bytes, not whole blocks of {BLOCK}")
    if len(salt) > 256:
        raise Malformed(f"verity salt is {len(salt)} bytes, at most 256 are possible")
    levels: list[bytes] = []
    below: bytes | memoryview = data
    while len(below) > BLOCK:
        below = _level(below, salt)
        levels.append(below)
    return Tree(root=hashlib.sha256(salt + below).digest(), levels=b"".join(reversed(levels)))


def _level(data: bytes | memoryview, salt: bytes) -> bytes:
    seeded = hashlib.sha256(salt)
    view = memoryview(data)
    out = bytearray()
    for offset in range(0, len(view), BLOCK):
        block = seeded.copy()
        block.update(view[offset : offset + BLOCK])
        out += block.digest()
    # 32 divides 4096, so digests lie densely and only the last block needs zeros.
    return bytes(out) + bytes(-len(out) % BLOCK)


def superblock(uuid: UUID, salt: bytes, data_blocks: int) -> bytes:
    """The 4096-byte block before the levels. Casemate's initrd takes its table from the command line instead."""
    if len(salt) > 256:
        raise Malformed(f"verity salt is {len(salt)} bytes, at most 256 are possible")
    head = struct.pack(
        "<8sII16s32sIIQH6x256s",
        b"verity\0\0",
        1,  # superblock version
        1,  # hash type: salt first
        uuid.bytes,
        b"sha256",
        BLOCK,
        BLOCK,
        data_blocks,
        len(salt),
        salt,
    )
    return head.ljust(BLOCK, b"\0")
