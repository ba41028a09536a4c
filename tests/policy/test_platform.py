import pytest

from casemate.errors import Finding
from casemate.policy import appraise, platform
from casemate.schema.claims import Claims

CAUTION = Finding("snp.policy.debug", "no debugging", "0xb0000", "launch without debug")


def claims(**changes) -> Claims:
    plain = {
        "tee": "snp", "platform_class": "production", "memory_encrypted": True, "debug": False, "measurement": {},
        "report_data": "", "init_data": "", "fresh": True, "vouched_by": "test", "values": {},
    }  # fmt: skip
    return Claims(**plain | changes)


def refused(found, policy=platform.DEFAULT):
    return [f.rule for f in platform.judge(found, policy) if not f.ok]


def test_plain_claims_are_accepted():
    assert refused(claims()) == []
    assert refused(claims(tcb_status="UpToDate")) == []
    assert refused(claims(tcb_status="SWHardeningNeeded", privilege_level=3)) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"tcb_status": "OutOfDate"}, "platform.tcb"),
        ({"tcb_status": "anything"}, "platform.tcb"),
        ({"platform_class": "development"}, "platform.class"),
        ({"cautions": (CAUTION,)}, "snp.policy.debug"),
    ],
)
def test_the_default_refuses(changes, rule):
    assert refused(claims(**changes)) == [rule]


def test_everything_can_be_accepted_by_name():
    found = claims(tcb_status="OutOfDate", platform_class="development", cautions=(CAUTION,))
    policy = platform.PlatformPolicy(tcb=frozenset({"OutOfDate"}), cautions=frozenset({CAUTION.rule}), development=True)
    assert refused(found, policy) == []
    assert any("accepted by name" in f.found for f in platform.judge(found, policy))
    assert refused(found, platform.PlatformPolicy(cautions=frozenset({"other"}))) == [
        CAUTION.rule, "platform.tcb", "platform.class",
    ]  # fmt: skip


def test_privilege_where_it_is_asked():
    assert refused(claims(privilege_level=1), platform.PlatformPolicy(max_privilege_level=0)) == ["platform.privilege"]
    assert refused(claims(privilege_level=1), platform.PlatformPolicy(max_privilege_level=1)) == []


def test_the_brokers_appraisal_counts_them():
    from datetime import UTC, datetime

    found = claims(cautions=(CAUTION,), tcb_status="OutOfDate", privilege_level=1)
    decision = appraise.appraise(
        found, None, None, references=(), broker_pin="sha256:" + "0" * 64, now=datetime.now(UTC)
    )
    assert not decision.allowed
    assert {CAUTION.rule, "platform.tcb", "platform.privilege"} <= {f.rule for f in decision.findings if not f.ok}
