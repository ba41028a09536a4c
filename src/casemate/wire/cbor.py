"""CBOR (RFC 8949), the part that evidence uses: bounded, strict, definite and indefinite lengths.

Read are integers, byte and text strings, arrays, maps, tags (as `Tagged`), false, true, null. Floats, undefined and
other simple values are refused, and so are duplicate map keys, strings cut into chunks of another type, nesting deeper
than `MAX_DEPTH` and bytes behind the item. No tag has a meaning here, so reading has no side effects. What is written
is deterministic (section 4.2.1), but what is read need not be: a signature covers bytes, not values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

MAX_DEPTH = 16
MAX_ITEMS = 65536
_BREAK = object()
_SIMPLE = {20: False, 21: True, 22: None}


@dataclass(frozen=True)
class Tagged:
    """A tag number and the item behind it."""

    tag: int
    value: Any


def loads(data: bytes, name: str = "CBOR", *, limit: int = 1 << 20) -> Any:
    """The one item in `data` (at most `limit` bytes)."""
    if len(data) > limit:
        raise Malformed(f"{name}: {len(data)} bytes, at most {limit} allowed")
    reader = _Reader(data, name)
    value = reader.item(0)
    reader.read.end()
    return value


class _Reader:
    def __init__(self, data: bytes, name: str) -> None:
        self.read = Cursor(data, name)
        self.name = name
        self.items = 0

    def item(self, depth: int, *, may_break: bool = False) -> Any:
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise Malformed(f"{self.name}: nested too deeply, or too many items")
        first = self.read.u8()
        major, info = first >> 5, first & 31
        if first == 0xFF and may_break:
            return _BREAK
        if major == 7:
            return self._simple(info)
        if info == 31:
            return self._indefinite(major, depth)
        return self._definite(major, self._argument(info), depth)

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise Malformed(f"{self.name}: a reserved length at offset {self.read.offset - 1}")
        return self.read.uint(1 << (info - 24), big=True)

    def _definite(self, major: int, argument: int, depth: int) -> Any:
        if major in (0, 1):
            return argument if major == 0 else -1 - argument
        if major in (2, 3):
            data = self.read.take(argument)
            return data if major == 2 else self._text(data)
        if major == 6:
            return Tagged(argument, self.item(depth + 1))
        # Every member takes a byte at least, so a longer announcement is a lie; nothing is reserved for it.
        if argument > self.read.remaining:
            raise Malformed(f"{self.name}: {argument} members announced, {self.read.remaining} bytes left")
        if major == 4:
            return [self.item(depth + 1) for _ in range(argument)]
        found: dict[Any, Any] = {}
        for _ in range(argument):
            self._member(found, self.item(depth + 1), depth)
        return found

    def _indefinite(self, major: int, depth: int) -> Any:
        if major in (2, 3):
            chunks = []
            while (head := self.read.u8()) != 0xFF:
                if head >> 5 != major or head & 31 == 31:
                    raise Malformed(f"{self.name}: a chunk of another type in a string")
                chunks.append(self.read.take(self._argument(head & 31)))
            return b"".join(chunks) if major == 2 else "".join(self._text(c) for c in chunks)
        if major == 4:
            members: list[Any] = []
            while (value := self.item(depth + 1, may_break=True)) is not _BREAK:
                members.append(value)
            return members
        if major == 5:
            found: dict[Any, Any] = {}
            while (key := self.item(depth + 1, may_break=True)) is not _BREAK:
                self._member(found, key, depth)
            return found
        raise Malformed(f"{self.name}: an indefinite length where none can be")

    def _member(self, found: dict[Any, Any], key: Any, depth: int) -> None:
        if isinstance(key, bool) or not isinstance(key, (int, str, bytes)):
            raise Malformed(f"{self.name}: a map key that is neither integer nor string")
        if key in found:
            raise Malformed(f"{self.name}: a map key given twice")
        found[key] = self.item(depth + 1)

    def _simple(self, info: int) -> Any:
        if info not in _SIMPLE:
            raise Malformed(f"{self.name}: simple value or float {info} is not allowed here")
        return _SIMPLE[info]

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"{self.name}: text that is not UTF-8") from error


def dumps(value: Any) -> bytes:
    """`value` in deterministic CBOR. `TypeError` for what `loads` could not return."""
    if value is None or isinstance(value, bool):
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, (bytes, str)):
        data = value if isinstance(value, bytes) else value.encode("utf-8")
        return _head(2 if isinstance(value, bytes) else 3, len(data)) + data
    return _compound(value)


def _compound(value: Any) -> bytes:
    if isinstance(value, (list, tuple)):
        return _head(4, len(value)) + b"".join(dumps(v) for v in value)
    if isinstance(value, dict):
        members = sorted((dumps(k), dumps(v)) for k, v in value.items())
        return _head(5, len(members)) + b"".join(k + v for k, v in members)
    if isinstance(value, Tagged):
        return _head(6, value.tag) + dumps(value.value)
    raise TypeError(f"{type(value).__name__} has no CBOR form here")


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * width):
            return bytes([major << 5 | info]) + argument.to_bytes(width, "big")
    raise TypeError("an integer of more than 64 bits has no CBOR form here")
