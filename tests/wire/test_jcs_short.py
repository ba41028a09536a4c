"""The short cuts of `wire.jcs` give what the long ways give, or leave it to them."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.wire import jcs

_EDGE = 2**53 - 1
for _ in range(jcs._FEW):  # the first few documents go the long way
    jcs.canonical(None)
_TEXT = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["", "\x00\x1f\x7f", '"\\/', "\u2028", "\ud800", "\ud83d\ude00", "\U0001f600", "\ue000", "é", "ﬀ", "<&>"]
)
_NUMBER = (
    st.integers()
    | st.sampled_from([0, -0, _EDGE, -_EDGE, _EDGE + 1, -_EDGE - 1, 10**30])
    | st.floats()
    | st.sampled_from([-0.0, 1.0, 1e21, 5e-324])
)
_SCALAR = st.none() | st.booleans() | _NUMBER | _TEXT
_ODD = st.binary() | st.sampled_from([(1, 2), {1}, frozenset({1}), 1j, object(), bytearray(b"x")])


def _values(scalar: st.SearchStrategy[Any], keys: st.SearchStrategy[Any] = _TEXT) -> st.SearchStrategy[Any]:
    return st.recursive(scalar, lambda child: st.lists(child) | st.dictionaries(keys, child), max_leaves=40)


def _came(act: Any, *args: Any) -> Any:
    try:
        return act(*args)
    except Malformed:
        return Malformed


@given(_values(_SCALAR) | st.lists(st.integers(0, 255)))
def test_canonical_is_that_of_the_long_way(value: Any) -> None:
    assert _came(jcs.canonical, value) == _came(jcs._canonical, value)


@given(_values(_SCALAR | _ODD, _TEXT | st.integers() | st.booleans() | st.none()))
def test_what_is_no_json_has_no_other_canonical_form(value: Any) -> None:
    assert _came(jcs.canonical, value) == _came(jcs._canonical, value)


def test_names_are_sorted_by_utf_16() -> None:
    assert jcs.canonical({"\U0001f600": 1, "\ufb33": 2}) == '{"\U0001f600":1,"\ufb33":2}'.encode()


def test_kinds_of_text_and_numbers_are_written_as_such() -> None:
    class Name(enum.StrEnum):
        A = "x"

    class Level(enum.IntEnum):
        LOW = 1

    value: Any = OrderedDict(b=Name.A, a=Level.LOW)
    assert jcs.canonical(value) == jcs._canonical(value) == b'{"a":1,"b":"x"}'


def _same(found: Any, wanted: Any) -> bool:
    if type(found) is not type(wanted):
        return False
    if isinstance(found, dict):
        return list(found) == list(wanted) and all(_same(found[name], wanted[name]) for name in found)
    if isinstance(found, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    return bool(found == wanted)


@given(_values(_SCALAR), st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans(), st.sampled_from([None, 1]))
def test_what_was_written_is_read_as_by_the_long_way(
    value: Any, separators: tuple[str, str], plain: bool, indent: int | None
) -> None:
    raw = json.dumps(value, separators=separators, ensure_ascii=plain, indent=indent).encode("utf-8", "surrogatepass")
    found, wanted = _came(jcs.parse, raw), _came(jcs._parse, raw, "JSON", jcs.MAX_DEPTH)
    assert _same(found, wanted)


_PIECES = st.sampled_from([
    "{", "}", "[", "]", ",", ":", '"a"', '"a "', '"a"', '"b"', '"\\u0061"', "1", "1.0", "-0", "1e2", "01", "null", " ",
    '"\\ud800"', "\n", "NaN", "true", '"', "\\", "\t", '{"a":1,"a":2}', '{"a":1,"a ":2}', '{"b":{},"b":{}}',
])  # fmt: skip


@given(st.lists(_PIECES, max_size=12).map("".join) | st.text())
def test_any_text_is_read_as_by_the_long_way(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    assert _same(_came(jcs.parse, raw), _came(jcs._parse, raw, "JSON", jcs.MAX_DEPTH))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":100000,"b":1e5}',
        b'{"a":[{"b":1,"b":2}]}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":1,"a":1,"xx":" "}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
    ],
)
def test_nothing_is_said_twice(raw: bytes) -> None:
    with pytest.raises(Malformed):
        jcs.parse(raw)


def test_depth_counts_as_it_did() -> None:
    deep = b"[" * 5 + b"]" * 5
    assert jcs.parse(deep, depth=5) == [[[[[]]]]]
    with pytest.raises(Malformed, match="deeper than 4"):
        jcs.parse(deep, depth=4)
    assert jcs.parse(b"[" * 32 + b"]" * 32)
    with pytest.raises(Malformed, match="deeper than 32"):
        jcs.parse(b"[" * 33 + b"]" * 33)


def test_the_short_way_is_gone_by_evidence() -> None:
    document = {"tee": "snp", "primary": {"report": {"signature": {"r": [0, 255]}}, "n": None, "b": True}}
    assert jcs._short(json.dumps(document).encode()) == document
    assert jcs._kit().plain(document) == document
