"""The digest of evidence is that of RFC 8785, whichever way it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.broker import proof
from casemate.errors import Malformed
from casemate.wire import jcs

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_the_short_way_writes_what_the_long_one_does(value):
    try:
        wanted = jcs.canonical(value)
    except Malformed:
        with pytest.raises(Malformed):
            proof._canonical(value)
    else:
        assert proof._canonical(value) == wanted


def test_names_sort_by_utf_16_where_that_matters():
    value = {"\U00010000": 1, "￿": 2, "a": [1, 2, 255], "\x7f": '\x00\x1f\u2028\\"/'}
    assert proof._canonical(value) == jcs.canonical(value)
