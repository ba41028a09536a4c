"""Name what lies on a disk that was refused. The answer goes into a message and decides nothing."""

from __future__ import annotations

from casemate.errors import Finding

PEEK = 128 << 10
_LUKS = b"LUKS\xba\xbe"
_LUKS_SECOND = b"SKUL\xba\xbe"


def finding(head: bytes) -> Finding:
    """The rule that the disk with these first bytes (at most `PEEK`) breaks, as far as they tell."""
    expected = "the volume that the broker's record describes"
    if not head.strip(b"\0"):
        return Finding(
            "volume.blank",
            expected,
            "a blank disk",
            "the volume was formatted once and is never formatted again; bring its disk back, or found a new volume",
        )
    if head.startswith(_LUKS) or _LUKS_SECOND in head[: 64 << 10]:
        return Finding(
            "volume.luks_header",
            expected,
            "a disk with a LUKS header",
            "headers on the disk are never believed, so this one was not read; somebody put it there",
        )
    return Finding(
        "volume.foreign_or_damaged",
        expected,
        "a disk whose content does not authenticate",
        "another volume's disk, a damaged one, or one that was written to outside the guest",
    )
