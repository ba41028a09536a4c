"""The sample room: exact report data, and a caution that no default policy accepts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.policy.platform import PlatformPolicy, judge
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.launch import Launch
from casemate.schema.request import Request
from casemate.tee import room
from casemate.tee.room import Room

SAMPLE: Room = room("sample")
REQUEST = Request(report_data=b"d" * 48)


def verify(evidence: Evidence, request: Request = REQUEST) -> Claims:
    return SAMPLE.verify(evidence, Endorsements(), request, datetime.now(UTC))


def test_it_proves_nothing_and_says_so() -> None:
    claims = verify(SAMPLE.collect(REQUEST))
    assert (claims.platform_class, claims.memory_encrypted, claims.vouched_by) == ("development", False, "nobody")
    assert claims.init_data == ""
    assert [c.rule for c in claims.cautions] == ["sample.proof"]
    for policy in (PlatformPolicy(), PlatformPolicy(development=True)):
        assert "sample.proof" in {f.rule for f in judge(claims, policy) if not f.ok}
    named = PlatformPolicy(development=True, cautions=frozenset({"sample.proof"}))
    assert all(f.ok for f in judge(claims, named))


@pytest.mark.parametrize("data", [b"d" * 47, b"d" * 48 + bytes(16), b"e" * 48, b""])
def test_report_data_is_compared_exactly(data: bytes) -> None:
    with pytest.raises(Refused, match=r"sample\.nonce"):
        verify(SAMPLE.collect(Request(report_data=data)))


def test_without_a_request_it_is_not_fresh() -> None:
    assert verify(SAMPLE.collect(REQUEST), Request()).fresh is False


def test_there_is_no_machine_and_no_measurement() -> None:
    for verb in (SAMPLE.machine, SAMPLE.measure):
        with pytest.raises(Unusable, match="not a platform"):
            verb(Launch())
    with pytest.raises(Unusable):
        verify(Evidence(tee="tpm", primary={}))
    assert SAMPLE.endorse(SAMPLE.collect(REQUEST), lambda url: b"") == Endorsements()
    assert SAMPLE.request(b"n", b"") == Request(report_data=b"n")


values = st.text(max_size=200) | st.integers() | st.none() | st.lists(st.integers(), max_size=2)


@given(st.dictionaries(st.sampled_from(["svn", "report_data"]), values))
def test_any_json(primary: dict[str, object]) -> None:
    with pytest.raises((Malformed, Refused)):
        verify(Evidence(tee="sample", primary=primary))
