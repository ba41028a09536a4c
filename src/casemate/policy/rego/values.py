"""Rego's data model in Python: null, booleans, numbers, strings, arrays (list), objects (dict) and sets (`Set`).

Python thinks that `True == 1`, Rego does not; a key of an object may be any value. So a dict holds string keys as they
are and other keys as `Key`, and equality is `equal`. Values are never changed after a statement finished making them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

MAX_DEPTH = 64


class Undefined(Exception):
    """An expression has no value; the body that asked for it fails."""


class Conflict(Exception):
    """A rule has two values (OPA: eval_conflict_error)."""


class Exhausted(Exception):
    """A policy took more than it may: steps, items, text. Not the same as undefined, which `not` would turn around."""


class Key:
    """A key of an object that is not a string."""

    __slots__ = ("ident", "value")

    def __init__(self, value: Any) -> None:
        self.value, self.ident = value, ident(value)

    def __hash__(self) -> int:
        return hash(self.ident)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.ident == other.ident


class Set:
    """A set of values, each once."""

    __slots__ = ("items",)

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.items = {ident(value): value for value in values}

    def add(self, value: Any) -> None:
        """Put a value in."""
        self.items.setdefault(ident(value), value)

    def __contains__(self, value: Any) -> bool:
        return ident(value) in self.items

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items.values())

    def ordered(self) -> list[Any]:
        """The values in Rego's order."""
        return sorted(self.items.values(), key=order)


def ident(value: Any) -> Any:
    """A hashable that is equal for equal values alone."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return ("c", str(value))
    if isinstance(value, int | float):
        return ("n", value)
    if isinstance(value, list):
        return ("a", tuple(ident(item) for item in value))
    if isinstance(value, Set):
        return ("s", frozenset(value.items))
    return ("o", frozenset((key if isinstance(key, str) else key.ident, ident(item)) for key, item in value.items()))


def key_of(value: Any) -> str | Key:
    """A value as the key of an object."""
    return value if isinstance(value, str) else Key(value)


def value_of(key: str | Key) -> Any:
    """The reverse of `key_of`."""
    return key.value if isinstance(key, Key) else key


def equal(left: Any, right: Any) -> bool:
    """Rego's `==`."""
    kind = type(left)
    if kind is str or left is None or kind is bool:
        return kind is type(right) and bool(left == right)
    if kind is int or kind is float:
        return type(right) in (int, float) and bool(left == right)
    if kind is list:
        return type(right) is list and len(left) == len(right) and all(map(equal, left, right))
    if kind is dict:
        return type(right) is dict and left.keys() == right.keys() and all(equal(v, right[k]) for k, v in left.items())
    return type(right) is Set and left.items.keys() == right.items.keys()


def rank(value: Any) -> int:
    """The place of a value's type in Rego's order of types."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return 1
    for place, kind in enumerate((int | float, str, list, dict), 2):
        if isinstance(value, kind):
            return place
    return 6


def order(value: Any) -> tuple[Any, ...]:
    """A key that sorts values as Rego does."""
    place = rank(value)
    if place in (1, 2, 3):
        return (place, value)
    if place == 4:
        return (place, [order(item) for item in value])
    if place == 5:
        pairs = sorted(((order(value_of(k)), v) for k, v in value.items()), key=lambda pair: pair[0])
        return (place, [k for k, _ in pairs], [order(v) for _, v in pairs])
    if place == 6:
        return (place, [order(item) for item in value.ordered()])
    return (place,)


def dot(source: Any, key: Any) -> Any:
    """`source[key]`, or `Undefined`."""
    if type(source) is dict:
        found = source.get(key if type(key) is str else Key(key), _NOTHING)
        if found is not _NOTHING:
            return found
    elif type(source) is list:
        if type(key) is int and 0 <= key < len(source):
            return source[key]
    elif type(source) is Set and key in source:
        return key
    raise Undefined


def pairs(source: Any) -> Iterable[tuple[Any, Any]]:
    """Keys and values of a collection, as `some k, v in` sees them; objects and sets in Rego's order."""
    if type(source) is list:
        return enumerate(source)
    if type(source) is dict:
        if all(type(key) is str for key in source):
            return sorted(source.items(), key=_first)
        return sorted(((value_of(k), v) for k, v in source.items()), key=lambda pair: order(pair[0]))
    if type(source) is Set:
        return ((item, item) for item in source.ordered())
    raise Undefined


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON has it: sets are sorted arrays, keys that are no strings their JSON text."""
    if depth > MAX_DEPTH:
        raise Undefined
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Set):
        return [plain(item, depth + 1) for item in value.ordered()]
    if isinstance(value, dict):
        return {k if isinstance(k, str) else text(k.value): plain(v, depth + 1) for k, v in value.items()}
    return value


def text(value: Any) -> str:
    """A value as compact JSON."""
    import json

    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False, sort_keys=True)


_NOTHING = object()


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]
