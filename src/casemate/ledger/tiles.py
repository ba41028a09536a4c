"""Tiles of a log (C2SP tlog-tiles v1): 256 hashes of one level each, so that a log is served and stored as files.

Tile (L, N) holds the nodes (8 * L, 256 * N) and the up to 255 that follow. A full tile never changes; the rightmost of
each level is partial and of width W. Bundles of entries are cut the same way, each entry behind its length (u16 BE).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from casemate.errors import Malformed
from casemate.ledger import merkle

HEIGHT = 8
WIDTH = 1 << HEIGHT
MAX_ENTRY = (1 << 16) - 1
MAX_LEVEL = 7  # 2**64 entries

Read = Callable[[int, int], bytes]
"""The hashes of tile (L, N) as they stand: full, or partial on the right edge."""

_PATH = re.compile(r"(?P<level>[0-7]|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?")


def path(level: int | None, index: int, width: int = WIDTH) -> str:
    """`tile/<L>/<N>[.p/<W>]`; level None is a bundle of entries."""
    digits = f"{index:03d}"
    groups = [digits[max(0, end - 3) : end].rjust(3, "0") for end in range(len(digits), 0, -3)][::-1]
    name = "/".join([*("x" + group for group in groups[:-1]), groups[-1]])
    return f"tile/{'entries' if level is None else level}/{name}" + (f".p/{width}" if width != WIDTH else "")


def parse_path(text: str) -> tuple[int | None, int, int]:
    """Level (None: entries), index and width of what stands behind `tile/`; `Malformed` for anything else."""
    found = _PATH.fullmatch(text)
    if not found:
        raise Malformed("tile: <L>/<N> or <L>/<N>.p/<W> is wanted")
    width = int(found["width"]) if found["width"] else WIDTH
    level = None if found["level"] == "entries" else int(found["level"])
    index = int(found["index"].replace("x", "").replace("/", ""))
    if not 0 < width <= WIDTH or path(level, index, width) != "tile/" + text:
        raise Malformed("tile: the width is 1 to 255, the number in groups of three digits without a group too many")
    return level, index, width


def width_at(level: int, index: int, size: int) -> int:
    """How many hashes tile (level, index) has in a tree of `size` entries: 0 to 256."""
    return max(0, min(WIDTH, (size >> HEIGHT * level) - index * WIDTH))


def nodes(read: Read) -> merkle.Node:
    """Complete nodes, from tiles. What lies between two tile levels is hashed again."""

    def node(level: int, index: int) -> bytes:
        tile_level, above = divmod(level, HEIGHT)
        first = index << above
        tile = read(tile_level, first >> HEIGHT)
        start = (first % WIDTH) * merkle.SIZE
        data = tile[start : start + (merkle.SIZE << above)]
        if len(data) != merkle.SIZE << above:
            raise Malformed(f"tile: node {index} of level {level} is not there")
        return merkle.complete([data[i : i + merkle.SIZE] for i in range(0, len(data), merkle.SIZE)])

    return node


def appended(size: int, leaves: Sequence[bytes], read: Read) -> Iterator[tuple[int, int, bytes]]:
    """The tiles (level, index, content) that change when leaf hashes are added to a tree of `size` entries.

    `read` is asked for the partial tile on each level's right edge, at most once a level.
    """
    added = list(leaves)
    level, have = 0, size
    while added and level <= MAX_LEVEL:
        index, held = divmod(have, WIDTH)
        content = (read(level, index)[: held * merkle.SIZE] if held else b"") + b"".join(added)
        if len(content) != (held + len(added)) * merkle.SIZE:
            raise Malformed(f"tile: the right edge of level {level} is not there")
        added = []
        for start in range(0, len(content), WIDTH * merkle.SIZE):
            piece = content[start : start + WIDTH * merkle.SIZE]
            yield level, index, piece
            if len(piece) == WIDTH * merkle.SIZE:
                added.append(merkle.complete([piece[i : i + merkle.SIZE] for i in range(0, len(piece), merkle.SIZE)]))
            index += 1
        have >>= HEIGHT
        level += 1


def bundle(entries: Iterable[bytes]) -> bytes:
    """Entries, each behind its length."""
    made = bytearray()
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise Malformed(f"log entry: at most {MAX_ENTRY} bytes are possible")
        made += len(entry).to_bytes(2, "big") + entry
    return bytes(made)


def unbundle(data: bytes) -> list[bytes]:
    """The entries of a bundle, at most 256; `Malformed` when a length runs past the end."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or at + 2 > len(data) or len(found) == WIDTH:
            raise Malformed("entry bundle: a length runs past the end, or there are too many")
        found.append(data[at + 2 : end])
        at = end
    return found
