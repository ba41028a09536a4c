"""Plans that are none, and functions with arguments of every kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.policy.rego import statements, values
from casemate.policy.rego.builtins import TABLE
from casemate.policy.rego.plan import Program

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    | st.lists(inner, max_size=3).map(values.Set),
    max_leaves=6,
)  # fmt: skip
UNDEFINED = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, values.Undefined, values.Exhausted)


@given(JSON)
def test_any_document_is_a_plan_or_malformed(document):
    try:
        Program({"static": document, "funcs": {"funcs": document}})
    except Malformed:
        pass


@given(st.sampled_from(sorted(set(TABLE) - {"internal.print", "print"})), st.lists(JSON, min_size=1, max_size=3))
def test_a_function_has_a_value_or_is_undefined(name, arguments):
    assert statements
    try:
        found = TABLE[name](*arguments)
    except UNDEFINED:
        return
    values.ident(found)
    values.order(found)


@given(JSON, JSON)
def test_equal_values_have_one_identity(left, right):
    assert values.equal(left, right) == (values.ident(left) == values.ident(right))
    assert values.equal(left, left)


@pytest.mark.parametrize(
    ("left", "right"), [(1, True), (0, False), (None, False), ("1", 1), ([], {}), ([], values.Set())]
)
def test_values_of_other_types_are_not_equal(left, right):
    assert not values.equal(left, right)
    with pytest.raises(values.Undefined):
        TABLE["gte"](left, right)
