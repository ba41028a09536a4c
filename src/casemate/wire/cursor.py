"""A bounded reader over bytes: every parser of binary evidence reads through it.

Rules: nothing is read past the end, every length is checked before use, and the only error is `Malformed`.
"""

from __future__ import annotations

from casemate.errors import Malformed


class Cursor:
    """Reads fixed-width integers and byte strings from `data`; `name` appears in errors."""

    def __init__(self, data: bytes | memoryview, name: str = "data") -> None:
        self._data = data if type(data) is bytes else bytes(data)
        self._size = len(self._data)
        self._name = name
        self.offset = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._size - self.offset

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self.offset
        end = start + count
        if count < 0 or end > self._size:
            raise Malformed(f"{self._name}: {count} bytes wanted at offset {start}, {self._size - start} left")
        self.offset = end
        return self._data[start:end]

    def uint(self, width: int, *, big: bool = False) -> int:
        """An unsigned integer of `width` bytes, little-endian unless `big`."""
        return int.from_bytes(self.take(width), "big" if big else "little")

    def u8(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Two bytes, little-endian."""
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        """Four bytes, little-endian."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Eight bytes, little-endian."""
        return int.from_bytes(self.take(8), "little")

    def be16(self) -> int:
        """Two bytes, big-endian."""
        return int.from_bytes(self.take(2), "big")

    def be32(self) -> int:
        """Four bytes, big-endian."""
        return int.from_bytes(self.take(4), "big")

    def be64(self) -> int:
        """Eight bytes, big-endian."""
        return int.from_bytes(self.take(8), "big")

    def sized16(self, limit: int = 65535) -> bytes:
        """A byte string behind a two-byte big-endian length (TPM2B)."""
        size = self.be16()
        if size > limit:
            raise Malformed(f"{self._name}: a field of {size} bytes, at most {limit} allowed")
        return self.take(size)

    def end(self) -> None:
        """Demand that everything was read."""
        if self.remaining:
            raise Malformed(f"{self._name}: {self.remaining} bytes left over at offset {self.offset}")
