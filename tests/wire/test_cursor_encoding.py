"""Bounded reading and strict text encodings: never padded, never cut, only Malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.wire import encoding
from casemate.wire.cursor import Cursor


@given(st.binary(max_size=64), st.integers(-4, 80))
def test_take_never_reads_past_the_end(data, count):
    cursor = Cursor(data)
    if 0 <= count <= len(data):
        assert cursor.take(count) == data[:count]
        assert cursor.remaining == len(data) - count
    else:
        with pytest.raises(Malformed):
            cursor.take(count)


def test_integers_and_sized_fields():
    cursor = Cursor(bytes.fromhex("01 0203 04050607 0003 616263 ff"))
    assert (cursor.u8(), cursor.be16(), cursor.be32(), cursor.sized16()) == (1, 0x0203, 0x04050607, b"abc")
    with pytest.raises(Malformed):
        cursor.end()
    with pytest.raises(Malformed):
        Cursor(b"\x00\x05abc").sized16()
    with pytest.raises(Malformed):
        Cursor(b"\x00\x05abcde").sized16(limit=4)


@given(st.binary(max_size=40))
def test_round_trips(data):
    assert encoding.unb64(encoding.b64(data)) == data
    assert encoding.unb64u(encoding.b64u(data)) == data
    assert encoding.unhex(data.hex()) == data


@pytest.mark.parametrize("decode", [encoding.unb64, encoding.unb64u, encoding.unhex])
@given(text=st.text(max_size=20))
def test_only_malformed(decode, text):
    try:
        decode(text)
    except Malformed:
        pass


def test_sizes_are_exact():
    for size in (31, 33):
        with pytest.raises(Malformed):
            encoding.unb64(encoding.b64(bytes(size)), size=32)
        with pytest.raises(Malformed):
            encoding.unhex(bytes(size).hex(), size=32)
    with pytest.raises(Malformed):
        encoding.unb64u("aa=")
    with pytest.raises(Malformed):
        encoding.unhex("00 11")
