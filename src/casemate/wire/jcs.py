"""JSON, bounded on the way in and canonical on the way out (RFC 8259, RFC 8785).

Duplicate keys, lone surrogates, depth and size are refused before a document is believed: two readers that disagree
about a duplicate key are a classic way around a signature. How many values a text holds is bounded before it is read:
in memory an empty object takes thirty times its text.

Both ways have a short cut for what is met nearly always, which `msgspec` goes: text, whole numbers, true, false, null,
lists and objects of a few levels. It either gives exactly what the long way gives, or nothing. Making it ready takes
as long as some documents do, and who reads few (a guest) does without.
"""

from __future__ import annotations

import json as _json
from collections.abc import Callable
from functools import cache
from itertools import count
from types import GenericAlias
from typing import Annotated, Any, NamedTuple

from casemate.errors import Malformed

MAX_DEPTH = 32
MAX_BYTES = 8 << 20
MAX_VALUES = 200_000  # of values and names together; evidence that spells out bytes as numbers has some 10 000
_LARGEST = 2**53 - 1  # RFC 8785 section 3.2.2.3: integers beyond are no JSON numbers
_LEVELS = 7  # of the short cut, the last of them for text and numbers alone
_FEW = 24  # documents
_SPACE = b" \t\r\n"
_begun = count()


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value."""
    if (plain := copied(value)) is not None:
        try:
            # Names are sorted by their UTF-8 there and by UTF-16 in RFC 8785: in ASCII that is the same.
            if (raw := _kit().sorted(plain)).isascii():
                return raw
        except ValueError:  # half surrogates
            pass
    return _canonical(value)


def copied(value: Any) -> Any:
    """A copy of a plain value, all of it; None for any other, for one that is nested deep, and for the first few."""
    if next(_begun) < _FEW:
        return None
    kit = _kit()
    try:
        plain = kit.plain(value)
    except (kit.error, ValueError, TypeError, RecursionError):
        return None
    return plain if plain == value else None  # a set or a tuple, which became a list, is not equal


def _canonical(value: Any) -> bytes:
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, TypeError) as error:
        raise Malformed(f"value has no canonical JSON form: {error}") from error


def compact(value: Any) -> bytes:
    """JSON without white space, where any form will do; what JSON does not know is written as text."""
    import msgspec

    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError):  # half surrogates among them, which Python's encoder escapes
        return _json.dumps(value, separators=(",", ":"), default=str).encode()


def parse(
    data: bytes | str,
    name: str = "JSON",
    *,
    limit: int = MAX_BYTES,
    depth: int = MAX_DEPTH,
    values: int = MAX_VALUES,
) -> Any:
    """Parse JSON of at most `limit` bytes, `depth` levels, and `values` values and names together.

    Duplicate keys, lone surrogates and NaN are errors.
    """
    try:
        raw = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        raise Malformed(f"{name}: half a surrogate pair in the text") from error
    if len(raw) > limit:
        raise Malformed(f"{name}: {len(raw)} bytes, at most {limit} allowed")
    if len(raw) > values and _more(raw, values):
        raise Malformed(f"{name}: more than {values} values and names")
    if depth >= _LEVELS and next(_begun) >= _FEW and (found := _short(raw)) is not None:
        return found
    return _parse(raw, name, depth)


def _parse(raw: bytes, name: str, depth: int) -> Any:
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


def parse_object(
    data: bytes | str, name: str = "JSON", *, limit: int = MAX_BYTES, values: int = MAX_VALUES
) -> dict[str, Any]:
    """Like `parse`, and the top level must be an object."""
    value = parse(data, name, limit=limit, values=values)
    if not isinstance(value, dict):
        raise Malformed(f"{name}: an object is wanted, not {type(value).__name__}")
    return value


class _Kit(NamedTuple):
    """What the short cuts are made of. `plain` copies what is plain and raises `error` for all else."""

    plain: Callable[[Any], Any]
    sorted: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    error: type[Exception]


@cache
def _kit() -> _Kit:
    """Made at the first use, and used before anybody else sees it: msgspec shows other threads types half made."""
    import msgspec

    scalar: Any = None | bool | str | Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
    kind: Any = scalar
    for _ in range(_LEVELS - 1):
        kind = scalar | GenericAlias(list, (kind,)) | GenericAlias(dict, (str, kind))
    held = msgspec.defstruct("_Held", [("value", kind)], array_like=True)

    def plain(value: Any) -> Any:
        return msgspec.convert((value,), held).value  # type: ignore[attr-defined]  # its one field

    plain(None)
    encode = msgspec.json.Encoder(order="sorted").encode
    return _Kit(plain, encode, msgspec.json.decode, msgspec.json.encode, msgspec.MsgspecError)


def _short(raw: bytes) -> Any:
    """The value of plain JSON that says nothing twice, or None.

    Who writes a value out names no key twice. So where writing out what was read gives the same text again, but for
    white space, that text has no duplicates either, and nothing else that a reader could take in two ways.
    """
    kit = _kit()
    try:
        value = kit.decode(raw)
        kit.plain(value)
        again = kit.encode(value)
    except (kit.error, ValueError, RecursionError):
        return None
    return value if again == raw or again.translate(None, _SPACE) == raw.translate(None, _SPACE) else None


def _more(raw: bytes, values: int) -> bool:
    """Whether a text holds more than `values` values and names. What stands in strings counts only when in doubt.

    Each value but the first follows on one of these marks. Up to a text's first error no fewer are found than are read.
    """
    if _marks(raw) < values:
        return False
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 2 * values:
        return True
    return _marks(b"".join(plain.split(b'"')[::2])) >= values


def _marks(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b":") + raw.count(b"[") + raw.count(b"{")


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
