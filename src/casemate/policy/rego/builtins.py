"""Rego's functions: `TABLE` maps the name in a plan to a Python function.

One that cannot take its arguments raises TypeError, ValueError, LookupError, ArithmeticError, AttributeError or
`Undefined`; all mean undefined. Nothing here reads the environment, a file or the network: `http.send` and
`opa.runtime` are left out. Results are bounded, so that the limits of a process are the second line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

from casemate.policy.rego.values import (
    Exhausted,
    Key,
    Set,
    Undefined,
    dot,
    equal,
    ident,
    key_of,
    order,
    rank,
    value_of,
)

MAX_ITEMS = 100_000
MAX_DIGITS = 400

TABLE: dict[str, Callable[..., Any]] = {}
Act = Callable[..., Any]


def named(*names: str) -> Callable[[Act], Act]:
    """Put a function into the table."""

    def put(act: Act) -> Act:
        TABLE.update(dict.fromkeys(names, act))
        return act

    return put


def number(text: str) -> int | float:
    """A number of a policy's text."""
    try:
        if len(text) > MAX_DIGITS:
            raise Undefined
        return int(text)
    except ValueError:
        return _finite(float(text))


def numeric(value: Any) -> int | float:
    """A number, and no boolean."""
    if type(value) is int or type(value) is float:
        return value
    raise TypeError


def whole(value: Any) -> int:
    """An integer, also one that is written as a float."""
    found = numeric(value)
    if found != int(found):
        raise ValueError
    return int(found)


def items(value: Any) -> list[Any]:
    """The members of an array or a set."""
    if isinstance(value, list):
        return value
    if isinstance(value, Set):
        return value.ordered()
    raise TypeError


def a_set(value: Any) -> Set:
    """A set and nothing else."""
    if not isinstance(value, Set):
        raise TypeError
    return value


def an_object(value: Any) -> dict[Any, Any]:
    """An object and nothing else."""
    if not isinstance(value, dict):
        raise TypeError
    return value


def _finite(value: float) -> int | float:
    if not math.isfinite(value):
        raise ValueError
    return int(value) if value == int(value) and abs(value) < 1 << 53 else value


def _sized(value: int | float) -> int | float:
    if isinstance(value, int):
        if value.bit_length() > 4 * MAX_DIGITS:
            raise Exhausted
        return value
    return _finite(value)


def _compared(test: Callable[[Any, Any], bool]) -> Act:
    def act(left: Any, right: Any) -> bool:
        if rank(left) != rank(right) or left is None:
            raise Undefined  # OPA orders values of different types; a comparison with what is missing must not pass
        return test(order(left), order(right))

    return act


named("gt")(_compared(lambda a, b: a > b))
named("gte")(_compared(lambda a, b: a >= b))
named("lt")(_compared(lambda a, b: a < b))
named("lte")(_compared(lambda a, b: a <= b))
named("equal", "eq")(equal)
named("neq")(lambda a, b: not equal(a, b))
named("plus")(lambda a, b: _sized(numeric(a) + numeric(b)))
named("mul")(lambda a, b: _sized(numeric(a) * numeric(b)))
named("div")(lambda a, b: _finite(numeric(a) / numeric(b)))
named("rem")(lambda a, b: int(math.fmod(whole(a), whole(b))))
named("abs")(lambda a: abs(numeric(a)))
named("round")(lambda a: math.floor(numeric(a) + 0.5) if a >= 0 else math.ceil(a - 0.5))
named("ceil")(lambda a: math.ceil(numeric(a)))
named("floor")(lambda a: math.floor(numeric(a)))
named("bits.and")(lambda a, b: whole(a) & whole(b))
named("bits.or")(lambda a, b: whole(a) | whole(b))
named("bits.xor")(lambda a, b: whole(a) ^ whole(b))
named("bits.negate")(lambda a: ~whole(a))
named("bits.rsh")(lambda a, b: whole(a) >> whole(b))
named("is_null")(lambda a: a is None)
named("is_boolean")(lambda a: type(a) is bool)
named("is_number")(lambda a: type(a) in (int, float))
named("is_string")(lambda a: type(a) is str)
named("is_array")(lambda a: type(a) is list)
named("is_object")(lambda a: type(a) is dict)
named("is_set")(lambda a: type(a) is Set)
named("type_name")(lambda a: ("null", "boolean", "number", "string", "array", "object", "set")[rank(a)])
named("internal.print", "print")(lambda *_: True)


@named("minus")
def _minus(left: Any, right: Any) -> Any:
    if isinstance(left, Set) and isinstance(right, Set):
        return Set(item for item in left if item not in right)
    return _sized(numeric(left) - numeric(right))


@named("bits.lsh")
def _shift(value: Any, by: Any) -> int:
    if not 0 <= whole(by) <= 1024:
        raise ValueError
    return whole(value) << whole(by)


@named("numbers.range")
def _range(first: Any, last: Any) -> list[int]:
    begin, end = whole(first), whole(last)
    if abs(end - begin) >= MAX_ITEMS:
        raise Exhausted
    return list(range(begin, end + 1)) if begin <= end else list(range(begin, end - 1, -1))


@named("numbers.range_step")
def _range_step(first: Any, last: Any, step: Any) -> list[int]:
    begin, end, by = whole(first), whole(last), whole(step)
    if by <= 0 or abs(end - begin) // by >= MAX_ITEMS:
        raise Exhausted
    return list(range(begin, end + 1, by)) if begin <= end else list(range(begin, end - 1, -by))


@named("count")
def _count(value: Any) -> int:
    if isinstance(value, str | list | dict | Set):
        return len(value)
    raise TypeError


named("sum")(lambda a: _sized(sum(numeric(item) for item in items(a))))
named("max")(lambda a: max(items(a), key=order))
named("min")(lambda a: min(items(a), key=order))
named("sort")(lambda a: sorted(items(a), key=order))
named("all")(lambda a: all(item is True for item in items(a)))
named("any")(lambda a: any(item is True for item in items(a)))
named("array.concat")(lambda a, b: _array(a) + _array(b))
named("array.reverse")(lambda a: _array(a)[::-1])
named("array.slice")(lambda a, i, j: _array(a)[max(0, whole(i)) : max(0, whole(j))])
named("and")(lambda a, b: Set(item for item in a_set(a) if item in a_set(b)))
named("or")(lambda a, b: Set([*a_set(a), *a_set(b)]))
named("set_diff")(lambda a, b: Set(item for item in a_set(a) if item not in a_set(b)))
named("union")(lambda a: Set(item for part in a_set(a) for item in a_set(part)))
named("cast_array")(items)
named("cast_set")(lambda a: Set(items(a)))


@named("product")
def _product(value: Any) -> int | float:
    found: int | float = 1
    for item in items(value):
        found = _sized(found * numeric(item))
    return found


def _array(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


@named("intersection")
def _intersection(sets: Any) -> Set:
    first, *others = [a_set(part) for part in a_set(sets)] or [Set()]
    return Set(item for item in first if all(item in other for other in others))


@named("internal.member_2")
def _member(item: Any, collection: Any) -> bool:
    if isinstance(collection, Set):
        return item in collection
    if isinstance(collection, list):
        return any(equal(item, other) for other in collection)
    if isinstance(collection, dict):
        return any(equal(item, other) for other in collection.values())
    return False


@named("internal.member_3")
def _member_at(key: Any, item: Any, collection: Any) -> bool:
    try:
        return equal(dot(collection, key), item)
    except Undefined:
        return False


def merged(left: dict[Any, Any], right: dict[Any, Any]) -> dict[Any, Any]:
    """Both objects, deeply; where they differ, the right one's word counts."""
    found = dict(an_object(left))
    for key, value in an_object(right).items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


named("object.union")(merged)
named("object.union_n")(lambda a: functools.reduce(merged, _array(a), {}))
named("object.keys")(lambda a: Set(value_of(key) for key in an_object(a)))
named("object.values")(lambda a: list(an_object(a).values()))


@named("object.get")
def _get(held: Any, path: Any, default: Any) -> Any:
    try:
        for key in path if isinstance(path, list) else [path]:
            held = dot(held, key)
    except Undefined:
        return default
    return held


def _keys(value: Any) -> set[str | Key]:
    return {key_of(item) for item in ([value_of(k) for k in value] if isinstance(value, dict) else items(value))}


@named("object.remove")
def _remove(held: Any, keys: Any) -> dict[Any, Any]:
    gone = _keys(keys)
    return {key: value for key, value in an_object(held).items() if key not in gone}


@named("object.filter")
def _filter(held: Any, keys: Any) -> dict[Any, Any]:
    kept = _keys(keys)
    return {key: value for key, value in an_object(held).items() if key in kept}


@named("object.subset")
def _subset(whole_: Any, part: Any) -> bool:
    if isinstance(whole_, dict):
        return all(
            key in whole_ and (_subset(whole_[key], value) if isinstance(value, dict) else equal(whole_[key], value))
            for key, value in an_object(part).items()
        )
    if isinstance(part, Set):
        known = whole_.items if isinstance(whole_, Set) else {ident(item) for item in _array(whole_)}
        return all(key in known for key in part.items)
    long, short = _array(whole_), _array(part)
    return any(equal(long[i : i + len(short)], short) for i in range(len(long) - len(short) + 1))


@named("walk")
def _walk(value: Any) -> list[Any]:
    found: list[Any] = []
    stack: list[tuple[list[Any], Any]] = [([], value)]
    while stack:
        path, item = stack.pop()
        found.append([path, item])
        if len(found) > MAX_ITEMS:
            raise Exhausted
        stack += [([*path, key], inner) for key, inner in _inside(item)]
    return found


def _inside(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, list):
        return enumerate(value)
    if isinstance(value, dict):
        return ((value_of(key), item) for key, item in value.items())
    return ((item, item) for item in value) if isinstance(value, Set) else ()
