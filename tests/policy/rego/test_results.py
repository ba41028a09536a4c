"""What is accepted of a policy's answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.policy.rego import results


def test_a_vector_has_all_claims():
    assert results.vector({"hardware": 2}) == {**dict.fromkeys(results.CLAIMS, 0), "hardware": 2}
    assert results.vector(None) == dict.fromkeys(results.CLAIMS, 0)
    assert results.status(results.vector(None)) == "none"


@pytest.mark.parametrize(
    "answer",
    [{}, [], 2, "x", {"hardwear": 2}, {"hardware": 128}, {"hardware": -129}, {"hardware": True}, {"hardware": 2.0},
     {"hardware": "2"}, {"hardware": None}],
)  # fmt: skip
def test_other_vectors_are_malformed(answer):
    with pytest.raises(Malformed):
        results.vector(answer)


@pytest.mark.parametrize(
    ("value", "word"),
    [(-1, "none"), (0, "none"), (1, "none"), (2, "affirming"), (31, "affirming"), (-2, "affirming"), (-32, "affirming"),
     (32, "warning"), (95, "warning"), (-33, "warning"), (-96, "warning"), (96, "contraindicated"),
     (127, "contraindicated"), (-97, "contraindicated"), (-128, "contraindicated")],
)  # fmt: skip
def test_tiers(value, word):
    assert results.tier(value) == word
    assert results.status({"hardware": value, "executables": 0}) == word


def test_the_worst_claim_wins():
    assert results.status({"a": 2, "b": 33, "c": 0}) == "warning"
    assert results.status({"a": 2, "b": 97, "c": 33}) == "contraindicated"


def test_extensions():
    one = {"name": "ear.trustee.identifiers", "key": -18, "value": {"x": 1}}
    assert results.extensions([one]) == {"ear.trustee.identifiers": {"x": 1}}
    assert results.extensions(None) == {}
    for wrong in ([one, one], [{**one, "name": "ear.status"}], [{**one, "key": 2**31}], [{**one, "more": 1}], {}, [1]):
        with pytest.raises(Malformed):
            results.extensions(wrong)


def test_allow():
    assert results.allowed(True) is True
    assert results.allowed(None) is False
    for wrong in (1, "true", {}, [True]):
        with pytest.raises(Malformed):
            results.allowed(wrong)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_any_answer_is_read_or_malformed(answer):
    for read in (results.vector, results.extensions, results.allowed):
        try:
            read(answer)
        except Malformed:
            continue
