"""Bounded JSON: size, depth, duplicates and constants are refused; canonical form is RFC 8785's."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.wire import jcs

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_canonical_form_reads_back(value):
    assert jcs.parse(jcs.canonical(value)) == value


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', "[NaN]", "[Infinity]", "[-Infinity]", "{", "", "\xff", '{"a":1}x'],
)
def test_refused(text):
    with pytest.raises(Malformed):
        jcs.parse(text)


@pytest.mark.parametrize(
    "text",
    [r'"\ud800"', r'"\uDFFF"', r'["\udc00\ud800"]', r'{"\uD800":1}', r'{"a":[{"b":"x\ud800y"}]}', '"\ud800"',
     b'"\xed\xa0\x80"'],
)  # fmt: skip
def test_lone_surrogates_are_refused(text):
    with pytest.raises(Malformed):
        jcs.parse(text)


def test_surrogate_pairs_and_escaped_backslashes_are_text():
    assert jcs.parse(r'"\uD83D\uDe00"') == "\U0001f600"
    assert jcs.parse(r'"\\ud800"') == "\\ud800"


def test_bounds():
    assert jcs.parse("[" * 32 + "]" * 32)
    with pytest.raises(Malformed, match="nested"):
        jcs.parse("[" * 33 + "]" * 33)
    with pytest.raises(Malformed):
        jcs.parse("[" * 500_000)
    with pytest.raises(Malformed, match="at most"):
        jcs.parse(json.dumps("x" * 100), limit=50)


@given(st.binary(max_size=200))
def test_only_malformed(data):
    try:
        jcs.parse_object(data)
    except Malformed:
        pass


def test_known_vector():
    assert jcs.canonical({"b": [1e30, 4.5, 2e-3], "a": '\u20ac$\u000f\nA\'B"\\\\"/'}) == (
        b'{"a":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/","b":[1e+30,4.5,0.002]}'
    )
