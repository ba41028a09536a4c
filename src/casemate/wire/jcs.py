"""JSON, bounded on the way in and canonical on the way out (RFC 8259, RFC 8785).

Duplicate keys, lone surrogates, depth and size are refused before a document is believed: two readers that disagree
about a duplicate key are a classic way around a signature.
"""

from __future__ import annotations

import json as _json
from typing import Any

from casemate.errors import Malformed

MAX_DEPTH = 32
MAX_BYTES = 8 << 20


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value."""
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, TypeError) as error:
        raise Malformed(f"value has no canonical JSON form: {error}") from error


def parse(data: bytes | str, name: str = "JSON", *, limit: int = MAX_BYTES, depth: int = MAX_DEPTH) -> Any:
    """Parse JSON of at most `limit` bytes and `depth` levels; duplicate keys, lone surrogates and NaN are errors."""
    try:
        raw = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        raise Malformed(f"{name}: half a surrogate pair in the text") from error
    if len(raw) > limit:
        raise Malformed(f"{name}: {len(raw)} bytes, at most {limit} allowed")
    try:
        # The C scanner stops at the interpreter's recursion limit, so a hostile depth costs an error and no crash.
        value = _json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{name}: not JSON ({error})") from error
    if _depth(value) > depth:
        raise Malformed(f"{name}: nested deeper than {depth} levels")
    if b"\\ud" in raw or b"\\uD" in raw:
        _no_lone_surrogate(value, name)
    return value


def parse_object(data: bytes | str, name: str = "JSON", *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Like `parse`, and the top level must be an object."""
    value = parse(data, name, limit=limit)
    if not isinstance(value, dict):
        raise Malformed(f"{name}: an object is wanted, not {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Malformed(f"JSON: duplicate key {key[:64]!r}")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise Malformed(f"JSON: {name} is not a JSON number")


def _no_lone_surrogate(value: Any, name: str) -> None:
    """Half a surrogate pair is no Unicode text (RFC 8259 section 8.2); whatever writes it out again would fail."""
    try:
        _json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"{name}: half a surrogate pair in a string") from error


def _depth(value: Any) -> int:
    """Deepest nesting of a parsed value, counted level by level without recursion."""
    level, row = 0, [value]
    while row:
        row = [child for item in row if type(item) in _NESTING for child in _children(item)]
        level += 1
    return level


_NESTING = frozenset((dict, list))  # what JSON's arrays and objects become


def _children(item: dict[str, Any] | list[Any]) -> Any:
    """The members, of which one stands for all where none can hold another: evidence has long lists of bytes."""
    found = item.values() if isinstance(item, dict) else item
    return found if not _NESTING.isdisjoint(map(type, found)) else tuple(found)[:1]
