import contextlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.wire import cbor

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 99) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_agrees_with_another_implementation(value):
    assert cbor.loads(cbor2.dumps(value)) == value
    assert cbor2.loads(cbor.dumps(value)) == value
    assert cbor.loads(cbor.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5f42010243030405ff", b"\1\2\3\4\5"),
        ("7f657374726561646d696e67ff", "streaming"),
        ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
        ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
        ("1bffffffffffffffff", 2**64 - 1),
        ("d2820102", cbor.Tagged(18, [1, 2])),
    ],
)
def test_rfc_8949_appendix_a(text, value):
    assert cbor.loads(bytes.fromhex(text)) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "18", "1c", "1f", "ff", "9f", "bf01ff", "5f01ff", "5f5f4101ffff", "7f4161ff", "a201020103", "f7", "f90000",
        "fb3ff0000000000000", "0000", "81" * 40 + "00", "9b7fffffffffffffff", "5b7fffffffffffffff", "62c328", "a1f500",
        "a1800000", "c0", "df00", "f8ff",
    ],
)  # fmt: skip
def test_refused(text):
    with pytest.raises(Malformed):
        cbor.loads(bytes.fromhex(text))


def test_too_many_items():
    with pytest.raises(Malformed):
        cbor.loads(b"\x9a" + (70000).to_bytes(4, "big") + bytes(70000))


@given(st.binary(max_size=200))
def test_only_malformed(data):
    with contextlib.suppress(Malformed):
        cbor.loads(data)
