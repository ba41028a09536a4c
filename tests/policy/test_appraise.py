"""Appraisal: closed by default, every rule told, nothing guessed."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Finding
from casemate.policy.appraise import appraise, measurement, release
from casemate.schema import manifest as manifests
from casemate.schema.app import AppStatement, Founding, Release
from casemate.schema.claims import Claims
from casemate.schema.reference import ReferenceValues
from casemate.testing.broker import document

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PIN = "sha256:" + "b" * 64
FOUNDING = Founding(tenant="demo", name="web", founded="2026-11-21T12:00:00Z", salt="00" * 16)
MANIFEST = manifests.from_builtins(document(FOUNDING.app_id, PIN))
STATEMENT = AppStatement(
    app_id=FOUNDING.app_id,
    founding=FOUNDING,
    releases=(Release(manifest_digest=MANIFEST.digest, state="active", registered=""),),
    platforms=("development",),
)
CLAIMS = Claims(
    tee="tpm",
    platform_class="development",
    memory_encrypted=False,
    debug=False,
    measurement={"pcr4": "aa", "pcr9": "bb", "pcr1": "cc"},
    report_data="00",
    init_data="00",
    fresh=True,
    vouched_by="test",
    values={},
)
REFERENCE = ReferenceValues(name="guest", tee="tpm", values={"pcr4": "aa", "pcr9": "bb"})


def judge(claims=CLAIMS, manifest=MANIFEST, statement=STATEMENT, references=(REFERENCE,), pin=PIN, **options):
    return appraise(claims, manifest, statement, references=references, broker_pin=pin, now=NOW, **options)


def failed(decision):
    assert not decision.allowed
    return [f.rule for f in decision.findings if not f.ok]


def but(paper, **changes):
    return msgspec.structs.replace(paper, **changes)


def test_everything_as_it_should_be():
    decision = judge()
    assert decision.allowed
    assert {f.rule for f in decision.findings} >= {"evidence.fresh", "release.active", "measurement.reference"}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"fresh": False}, "evidence.fresh"),
        ({"debug": True}, "evidence.debug"),
        ({"valid_until": NOW}, "evidence.current"),
        ({"privilege_level": 1}, "platform.privilege"),
        ({"tcb_status": "Revoked"}, "platform.tcb"),
        ({"platform_class": "sandbox"}, "platform.class"),
        ({"cautions": (Finding("x.y", "good", "bad"),)}, "x.y"),
        ({"measurement": {"pcr4": "aa"}}, "measurement.pcr9"),
        ({"measurement": {}}, "measurement.pcr4"),
        ({"tee": "snp"}, "measurement.reference"),
    ],
)
def test_one_departure_of_the_claims(changes, rule):
    assert rule in failed(judge(but(CLAIMS, **changes)))


def test_cautions_can_be_accepted_by_name_alone():
    claims = but(CLAIMS, cautions=(Finding("x.y", "good", "bad"), Finding("x.z", "good", "bad")))
    assert failed(judge(claims, cautions=frozenset({"x.y"}))) == ["x.z"]
    assert judge(claims, cautions=frozenset({"x.y", "x.z"})).allowed


def test_production_means_encrypted_memory():
    production = but(STATEMENT, platforms=("production",))
    claims = but(CLAIMS, platform_class="production")
    assert failed(judge(claims, statement=production)) == ["platform.memory"]
    assert judge(but(claims, memory_encrypted=True), statement=production).allowed
    assert failed(judge(statement=production)) == ["platform.class"]


def test_no_manifest_no_app_no_release():
    assert {"manifest.present", "manifest.broker", "release.active"} <= set(failed(judge(manifest=None)))
    rules = failed(judge(statement=None))
    assert {"app.known", "release.active", "platform.class"} <= set(rules)
    assert failed(judge(statement=but(STATEMENT, releases=()))) == ["release.active"]
    revoked = but(STATEMENT, releases=(but(STATEMENT.releases[0], state="revoked"),))
    assert failed(judge(statement=revoked)) == ["release.active"]


def test_another_apps_statement_is_not_enough():
    other = but(STATEMENT, app_id="sha256:" + "9" * 64, founding=but(FOUNDING, name="mail"))
    assert failed(judge(statement=other)) == ["manifest.app", "manifest.name"]


def test_another_broker():
    assert failed(judge(pin="sha256:" + "c" * 64)) == ["manifest.broker"]


def test_the_nearest_reference_explains_each_register():
    far = ReferenceValues(name="far", tee="tpm", values={"pcr4": "00", "pcr9": "00", "pcr0": "00"})
    near = ReferenceValues(name="near", tee="tpm", values={"pcr4": "aa", "pcr9": "b0"})
    found = measurement(CLAIMS, [far, near], NOW)
    assert [(f.rule, f.expected, f.found) for f in found] == [("measurement.pcr9", "b0 (near)", "bb")]
    assert "command line or the initrd" in found[0].hint
    kernel = measurement(but(CLAIMS, measurement={"pcr4": "ee", "pcr9": "bb"}), [REFERENCE], NOW)
    assert "kernel" in kernel[0].hint


def test_no_reference_expired_ones_and_empty_ones_accept_nothing():
    assert failed(judge(references=())) == ["measurement.reference"]
    old = ReferenceValues(name="old", tee="tpm", values=REFERENCE.values, expires=NOW)
    found = [f for f in judge(references=(old,)).findings if not f.ok]
    assert [(f.rule, f.found) for f in found] == [("measurement.reference", "only expired ones")]
    assert judge(references=(but(old, expires=NOW + timedelta(seconds=1)),)).allowed
    assert failed(judge(references=(ReferenceValues(name="empty", tee="tpm", values={}),))) == ["measurement.reference"]


def test_values_of_two_references_do_not_add_up():
    halves = [
        ReferenceValues(name="one", tee="tpm", values={"pcr4": "aa", "pcr9": "00"}),
        ReferenceValues(name="two", tee="tpm", values={"pcr4": "00", "pcr9": "bb"}),
    ]
    assert not all(f.ok for f in measurement(CLAIMS, halves, NOW))


@given(st.text(max_size=80))
def test_only_an_active_digest_is_a_release(text):
    assert not release(text, STATEMENT).ok
    assert not release(text, None).ok


REGISTERS = st.dictionaries(st.sampled_from(["pcr0", "pcr4", "pcr9"]), st.sampled_from(["aa", "bb", "cc"]))


@given(REGISTERS, st.lists(REGISTERS, max_size=3))
def test_accepted_exactly_when_one_reference_is_met_in_full(shown, wanted):
    references = [ReferenceValues(name=str(i), tee="tpm", values=values) for i, values in enumerate(wanted)]
    met = any(values and all(shown.get(n) == v for n, v in values.items()) for values in wanted)
    found = measurement(but(CLAIMS, measurement=shown), references, NOW)
    assert all(f.ok for f in found) == met
    assert found


def test_every_refusal_says_what_to_do():
    claims = but(CLAIMS, fresh=False, debug=True, measurement={}, platform_class="production", valid_until=NOW)
    for finding in judge(claims, None, None, ()).findings:
        assert finding.ok or (finding.hint and finding.expected and finding.found), finding
