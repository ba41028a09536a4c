"""Tar as a stream of entries: ustar, GNU long names, PAX headers. Own code, because it must be bounded and strict.

Spec: POSIX.1-2001 pax, GNU tar manual ("Basic Tar Format"). Every field is checked before use; the only error is
`Malformed`. Sparse files and multi-volume parts are not read. Names stay bytes: nothing is decoded or normalised here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from casemate.errors import Malformed

BLOCK = 512
MAX_PAX = 256 << 10  # bytes of extended headers before one entry, together
MAX_EXTENDED = 8  # and their number
MAX_NAME = 4096
MAX_SIZE = 1 << 40
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_EMPTY = bytes(BLOCK)
_REGULAR = (b"0", b"\0", b"7")
_EXTENDED = (b"x", b"g", b"L", b"K")
_XATTRS = b"SCHILY.xattr."


class Entry(msgspec.Struct):
    """One member: `kind` is a type flag of ustar; `size` counts only for regular files; `mtime` in whole seconds."""

    name: bytes
    kind: bytes
    size: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: bytes = b""
    xattrs: dict[bytes, bytes] = msgspec.field(default_factory=dict)


class Reader:
    """Iterates over the entries of `chunks`. The data of the current entry is read by `data`, or skipped by itself.

    When the iteration ends, every chunk was read: whatever wraps them (digests) has seen the whole stream.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._view = memoryview(b"")
        self._left = 0  # data bytes of the current entry that nobody read yet
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
            for _ in self.data():
                pass
        for _ in self._chunks:
            pass

    def data(self) -> Iterator[memoryview]:
        """The current entry's data, in pieces that are valid until the next one is asked for."""
        while self._left:
            piece = self._piece(self._left)
            self._left -= len(piece)
            yield piece

    def _next(self) -> Entry | None:
        """The next entry, long names and PAX headers folded in; None at the end of the archive."""
        extra: dict[bytes, bytes] = {}
        count = total = 0
        while True:
            block = self._header()
            if block is None:
                if extra:
                    raise Malformed("tar: it ends behind an extended header")
                return None
            kind, size = block[156:157], _number(block[124:136], "size", MAX_SIZE)
            if kind in _EXTENDED:
                count, total = count + 1, total + size
                if count > MAX_EXTENDED or total > MAX_PAX:
                    raise Malformed(f"tar: over {MAX_EXTENDED} extended headers, or {MAX_PAX} bytes, before one entry")
            if kind == b"x":
                extra.update(_pax(self._extra(size)))
            elif kind == b"g":
                self._extra(size)  # global defaults: none of them matters to a layer
            elif kind in (b"L", b"K"):
                extra[b"path" if kind == b"L" else b"linkpath"] = self._extra(size).rstrip(b"\0")
            else:
                return self._entry(block, kind, size, extra)

    def _entry(self, block: bytes, kind: bytes, size: int, extra: dict[bytes, bytes]) -> Entry:
        if kind == b"S" or (extra and any(key.startswith(b"GNU.sparse.") for key in extra)):
            raise Malformed("tar: a sparse file", hint="store the layer without sparse files")
        entry = Entry(
            name=extra.get(b"path") or _ustar_name(block),
            kind=REGULAR if kind in _REGULAR else kind,
            size=_decimal(extra[b"size"], "size", MAX_SIZE) if b"size" in extra else size,
            mode=_number(block[100:108], "mode", 0o7777777) & 0o7777,
            uid=_decimal(extra[b"uid"], "uid") if b"uid" in extra else _number(block[108:116], "uid", _MAX_ID),
            gid=_decimal(extra[b"gid"], "gid") if b"gid" in extra else _number(block[116:124], "gid", _MAX_ID),
            mtime=_seconds(extra[b"mtime"]) if b"mtime" in extra else _number(block[136:148], "mtime", _MAX_TIME),
            link=extra.get(b"linkpath") or block[157:257].partition(b"\0")[0],
        )
        if entry.kind == REGULAR and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY  # how tar wrote directories before ustar
        for name in (entry.name, entry.link):
            if len(name) > MAX_NAME or b"\0" in name:
                raise Malformed(f"tar: a name of {len(name)} bytes, or with a NUL in it")
        if extra:
            entry.xattrs = {key[len(_XATTRS) :]: value for key, value in extra.items() if key.startswith(_XATTRS)}
        # Links, directories and devices have no data, whatever their size field says; anything else is skipped by it.
        self._left = 0 if kind in b"123456" else entry.size
        self._padding = -self._left % BLOCK
        return entry

    def _header(self) -> bytes | None:
        """The next header block with a right checksum; None at the end (two zero blocks, or no more bytes)."""
        self._skip(self._padding)
        self._padding = 0
        block = self._block()
        if block is None:
            return None
        if block == _EMPTY:
            if self._block() not in (None, _EMPTY):
                raise Malformed("tar: a lone block of zeros")
            return None
        wanted = _number(block[148:156], "checksum", 0xFFFFFF)
        if wanted != sum(block) - sum(block[148:156]) + 8 * 0x20:
            raise Malformed("tar: a header with a wrong checksum")
        return block

    def _extra(self, size: int) -> bytes:
        data = self._take(size)
        self._skip(-size % BLOCK)
        return data

    def _block(self) -> bytes | None:
        if len(self._view) >= BLOCK:  # the common case, without a copy of more than the block
            block = bytes(self._view[:BLOCK])
            self._view = self._view[BLOCK:]
            return block
        if not self._fill():
            return None
        return self._take(BLOCK)

    def _take(self, count: int) -> bytes:
        parts = []
        while count:
            piece = self._piece(count)
            parts.append(bytes(piece))
            count -= len(piece)
        return b"".join(parts)

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._piece(count))

    def _piece(self, most: int) -> memoryview:
        if not self._fill():
            raise Malformed("tar: cut short")
        piece = self._view[:most]
        self._view = self._view[most:]
        return piece

    def _fill(self) -> bool:
        """Whether there are bytes to read."""
        while not self._view:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._view = memoryview(chunk)
        return True


_MAX_ID = (1 << 32) - 2
_MAX_TIME = 1 << 40


def _ustar_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(raw: bytes, name: str, most: int) -> int:
    """An octal field, or GNU's base-256 form; empty is 0, negative is 0 for times and an error elsewhere."""
    if raw[0] < 0x80:
        text = raw.strip(b" \0")
        if text.translate(None, b"01234567"):
            raise Malformed(f"tar: {name} is not an octal number")
        value = int(text, 8) if text else 0
    elif raw[0] == 0x80:
        value = int.from_bytes(raw[1:], "big")
    else:
        value = 0 if raw[0] == 0xFF and name == "mtime" else -1
    if not 0 <= value <= most:
        raise Malformed(f"tar: {name} is out of bounds")
    return value


def _decimal(text: bytes, name: str, most: int = _MAX_ID) -> int:
    if not text.isdigit() or len(text) > 20 or int(text) > most:
        raise Malformed(f"tar: {name} in an extended header is out of bounds")
    return int(text)


def _seconds(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    if whole.startswith(b"-") and whole[1:].isdigit():
        return 0
    if fraction and not fraction.isdigit():
        raise Malformed("tar: mtime in an extended header is not a number")
    return _decimal(whole, "mtime", _MAX_TIME)


def _pax(data: bytes) -> dict[bytes, bytes]:
    r"""Records ``<length> <key>=<value>\n``; a later record wins (POSIX), a broken one is `Malformed`."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n":
            raise Malformed("tar: an extended header with a broken record")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise Malformed("tar: an extended header with a broken record")
        found[key] = value
        position = end
    return found
