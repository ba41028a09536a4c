"""Device-mapper tables of a volume, made from constants and the broker's record, never from the disk.

    disk from byte 4096 on ──┐
                             ├─ base (dm-linear) ─ integrity (dm-integrity, mode J) ─ data (dm-crypt, AEAD) ─ ext4
    4 KiB of guest memory ───┘

dm-integrity believes one header, the superblock in the first 4 KiB of its device. Here these 4 KiB lie in the guest's
memory and come from the broker's record, so the first 4 KiB of the host's disk are never read. What follows them
(journal, tags, ciphertext) is judged by the AEAD: each 4 KiB sector has a random IV and a tag over its number and its
content. The journal's sector numbers carry a MAC of their own (`journal_mac` with `fix_hmac`).

Words of the kernel: Documentation/admin-guide/device-mapper/{dm-integrity,dm-crypt,linear}.rst. Units are 512-byte
sectors unless a name says otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from casemate.errors import Malformed

SECTOR = 512
BLOCK = 4096
HEADER = 4096 // SECTOR  # sectors that the superblock takes
CIPHER = "capi:aegis128-random"
KEY_BYTES = 16
TAG = 32  # 16 bytes of IV, 16 bytes of AEGIS-128 tag
MAC_KEY_BYTES = 32
LEAST = (16 << 20) // SECTOR


class Target(NamedTuple):
    """One line of a table: `start` and `length` in sectors, the target's name and its parameters."""

    start: int
    length: int
    kind: str
    parameters: str

    def __str__(self) -> str:
        return f"{self.start} {self.length} {self.kind} {self.parameters}"

    def __repr__(self) -> str:
        """Without the parameters, which may hold a key."""
        return f"Target({self.start}, {self.length}, {self.kind!r})"


def base(header: str, disk: str, size: int) -> tuple[Target, Target]:
    """`header` (a device of 4 KiB in memory) followed by `disk` of `size` sectors without its first 4 KiB."""
    if size < LEAST or size % HEADER:
        raise Malformed(f"volume: a disk of {size} sectors, at least {LEAST} in whole 4 KiB blocks wanted")
    return (
        Target(0, HEADER, "linear", f"{header} 0"),
        Target(HEADER, size - HEADER, "linear", f"{disk} {HEADER}"),
    )


def integrity(device: str, length: int, mac_key: bytes) -> Target:
    """Tags of `TAG` bytes beside each 4 KiB, written through a journal so that a crash leaves no sector half written.

    `length` is the number of sectors that the record says are provided; `HEADER` of them while formatting.
    """
    if len(mac_key) != MAC_KEY_BYTES:
        raise Malformed("volume: a journal key of another size")
    words = [f"block_size:{BLOCK}", f"journal_mac:hmac(sha256):{mac_key.hex()}", "fix_hmac"]
    return Target(0, length, "integrity", f"{device} 0 {TAG} J {len(words)} {' '.join(words)}")


def crypt(device: str, length: int, key: bytes) -> Target:
    """Authenticated encryption by 4 KiB sectors; discards are not passed on, since they would show what is free."""
    if len(key) != KEY_BYTES:
        raise Malformed("volume: a key of another size")
    return Target(0, length, "crypt", f"{CIPHER} {key.hex()} 0 {device} 0 2 integrity:{TAG}:aead sector_size:{BLOCK}")


def first_writes(length: int) -> list[tuple[int, int]]:
    """(byte offset, bytes) to be written with zeros before mkfs.ext4 runs on a data device of `length` sectors.

    A sector that was never written has no tag and can't be read. mkfs writes whole blocks, except around superblocks:
    there it reads what it fills up. Those are block 0 and the first block of each group of 32768 blocks (ext4 with
    4 KiB blocks); the device's last 64 KiB are looked at for old signatures.
    """
    blocks = length * SECTOR // BLOCK
    edge = min(16, blocks)
    spans = [(0, edge * BLOCK)]
    spans += [(group * BLOCK, BLOCK) for group in range(32768, blocks, 32768)]
    spans.append(((blocks - edge) * BLOCK, edge * BLOCK))
    return spans
