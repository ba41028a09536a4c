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


MANY = jcs.MAX_VALUES + 1


@pytest.mark.parametrize(
    "text",
    [
        '{"a":[' + "{}," * MANY + "{}]}",
        "[" + "1," * MANY + "1]",
        "[" + "[],\n" * MANY + "1]",
        "{" + ",".join(f'"{n}":0' for n in range(MANY)) + "}",
        '[{"a":1,"a":1},' + '"",' * MANY + '""]',
    ],
)
def test_more_values_than_memory_is_meant_for_are_not_read(text, monkeypatch):
    monkeypatch.setattr(jcs, "_short", lambda raw: pytest.fail("it was read"))
    monkeypatch.setattr(jcs, "_parse", lambda *told: pytest.fail("it was read"))
    with pytest.raises(Malformed, match="more than 200000 values"):
        jcs.parse(text)


@pytest.mark.parametrize("text", [",:[{" * MANY, '\\"' * MANY, '\\\\",' * MANY, ('{"a":1},\\' * MANY)])
def test_what_stands_in_strings_is_one_value(text):
    assert jcs.parse(json.dumps({"policy": text})) == {"policy": text}


def test_the_bound_on_values_is_the_callers():
    assert jcs.parse(b"[" + b"7," * MANY + b"7]", values=2 * MANY)[-1] == 7
    with pytest.raises(Malformed, match="more than 3 values"):
        jcs.parse('[{"a":1}]', values=3)


@given(VALUES)
def test_the_bound_counts_values_and_names(value):
    def count(item):
        if isinstance(item, dict):
            return 1 + sum(1 + count(child) for child in item.values())
        return 1 + (sum(map(count, item)) if isinstance(item, list) else 0)

    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert jcs.parse(text, values=2 * count(value) + 1) == value
        if (few := count(value) // 2 - 1) > 0:
            with pytest.raises(Malformed):
                jcs.parse(text, values=few)


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
