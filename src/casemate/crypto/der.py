"""A bounded reader of DER (X.690), for vendors' certificate extensions. The only error is `Malformed`."""

from __future__ import annotations

from dataclasses import dataclass

from casemate.errors import Malformed

BOOLEAN, INTEGER, OCTETS, OID, ENUMERATED, IA5, SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0A, 0x16, 0x30
_MAX_CHILDREN = 256


@dataclass(frozen=True)
class Element:
    """One element: tag and content."""

    tag: int
    content: bytes

    def children(self) -> list[Element]:
        """The elements of a SEQUENCE."""
        if self.tag != SEQUENCE:
            raise Malformed(f"DER: a sequence is wanted, tag {self.tag:#x} found")
        found: list[Element] = []
        rest = self.content
        while rest:
            if len(found) >= _MAX_CHILDREN:
                raise Malformed("DER: too many elements")
            element, rest = _first(rest)
            found.append(element)
        return found

    def integer(self) -> int:
        """A non-negative INTEGER (or ENUMERATED) of at most 32 bytes."""
        if self.tag not in (INTEGER, ENUMERATED) or not 1 <= len(self.content) <= 33 or self.content[0] & 0x80:
            raise Malformed("DER: a non-negative integer is wanted")
        return int.from_bytes(self.content, "big")

    def octets(self, size: int) -> bytes:
        """An OCTET STRING of exactly `size` bytes."""
        if self.tag != OCTETS or len(self.content) != size:
            raise Malformed(f"DER: a string of {size} bytes is wanted")
        return self.content

    def oid(self) -> str:
        """An OBJECT IDENTIFIER in dotted form."""
        if self.tag != OID or not 1 <= len(self.content) <= 64 or self.content[-1] & 0x80:
            raise Malformed("DER: an object identifier is wanted")
        arcs, value = [], 0
        for byte in self.content:
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                arcs.append(value)
                value = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def loads(data: bytes) -> Element:
    """The one element in `data`."""
    element, rest = _first(data)
    if rest:
        raise Malformed(f"DER: {len(rest)} bytes behind the element")
    return element


def _first(data: bytes) -> tuple[Element, bytes]:
    if len(data) < 2:
        raise Malformed("DER: the data ends within an element")
    size, start = data[1], 2
    if size & 0x80:
        width = size & 0x7F
        if not 1 <= width <= 3 or len(data) < 2 + width:
            raise Malformed("DER: a length that is not definite, or too long")
        size, start = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
    if start + size > len(data):
        raise Malformed("DER: an element runs past the end")
    return Element(data[0], data[start : start + size]), data[start + size :]
