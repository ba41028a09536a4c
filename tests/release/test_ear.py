"""EAR: the shape that CoCo's policies read, a status that never flatters, and a signature that others verify."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey

import casemate
from casemate.errors import Finding, Unusable
from casemate.policy import platform
from casemate.release import ear
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION
from casemate.schema.request import Request
from casemate.testing.snp import FakeChip

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CHIP = FakeChip()
CLAIMS = casemate.verify(CHIP.collect(Request()), CHIP.endorsements, Request(), NOW)
MATCH = Finding("reference.match", "values of a reference", "image", ok=True)
KEY = ec.generate_private_key(ec.SECP256R1())


def of(**changes: Any) -> Claims:
    return msgspec.structs.replace(CLAIMS, **changes)


def vector(claims: Claims, *findings: Finding) -> tuple[str, dict[str, int]]:
    found = ear.status(claims, [*platform.judge(claims), *findings])
    return found["ear.status"], found["ear.trustworthiness-vector"]


def test_the_vector_has_the_eight_claims_of_ar4si():
    status, found = vector(CLAIMS, MATCH)
    assert (status, CLAIMS.platform_class) == ("affirming", PRODUCTION)
    assert found == {
        "instance-identity": 0, "configuration": 2, "executables": 3, "file-system": 0, "hardware": 2,
        "runtime-opaque": 2, "storage-opaque": 0, "sourced-data": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "findings", "changed"),
    [
        (of(), [], {"executables": 0}),
        (of(), [Finding("measurement.pcr4", "a", "b")], {"executables": 33, "configuration": 36}),
        (of(platform_class="development"), [MATCH], {"hardware": 32, "configuration": 36}),
        (of(memory_encrypted=False), [MATCH], {"runtime-opaque": 32}),
        (of(tcb_status="OutOfDate"), [MATCH], {"hardware": 32, "configuration": 36}),
        (of(cautions=(Finding("snp.policy.debug", "no", "yes"),)), [MATCH], {"configuration": 36}),
    ],
)
def test_what_is_not_sound_does_not_affirm(claims, findings, changed):
    base = vector(CLAIMS, MATCH)[1]
    status, found = vector(claims, *findings)
    assert found == {**base, **changed}
    assert status == ("affirming" if changed == {"executables": 0} else "warning")


def test_annotated_evidence_stands_where_coco_s_policies_look():
    found = ear.document(CLAIMS, [], NOW, issuer="me", version="1")
    evidence = found["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert set(evidence) == {"snp", "report_data", "init_data"}
    assert evidence["snp"]["policy_debug_allowed"] is False
    assert (found["eat_profile"], found["exp"] - found["iat"]) == (ear.PROFILE, 300)
    assert ear.annotated(of(values={"x": "y" * 40_000}))["snp"] == {"omitted": "too long for a token"}


@pytest.mark.parametrize(
    ("claims", "finding", "changed"),
    [
        (of(), Finding("measurement.pcr4", "a", "b"), {"executables": 96, "configuration": 36}),
        (of(), Finding("reference.match", "a", "b"), {"executables": 96, "configuration": 36}),
        (of(platform_class="development"), None, {"hardware": 97, "configuration": 36}),
        (of(tcb_status="OutOfDate"), None, {"hardware": 96, "configuration": 36}),
        (of(cautions=(Finding("snp.policy.debug", "no", "yes"),), debug=True), None,
         {"configuration": 96, "runtime-opaque": 96}),
    ],
)  # fmt: skip
def test_what_was_refused_is_contraindicated(claims, finding, changed):
    findings = [*platform.judge(claims), MATCH, *([finding] if finding else [])]
    found = ear.document(claims, findings, NOW, issuer="me", version="1")["submods"]["cpu0"]
    assert found["ear.status"] == "contraindicated"
    assert found["ear.trustworthiness-vector"] == {**vector(CLAIMS, MATCH)[1], **changed}


def test_a_result_of_the_past_says_so_and_ends_with_its_papers():
    ended = NOW - timedelta(days=30)
    found = ear.document(of(valid_until=ended), [MATCH], NOW, issuer="me", version="1", at=ended - timedelta(days=1))
    assert (found["exp"], found["iat"]) == (int(ended.timestamp()), int(NOW.timestamp()))
    assert found["casemate.judged-at"] == int((ended - timedelta(days=1)).timestamp())
    assert found["casemate.freshness"] == "not checked"
    soon = ear.document(of(fresh=True), [], NOW, issuer="me", version="1", until=NOW + timedelta(minutes=1))
    assert (soon["exp"] - soon["iat"], soon["casemate.freshness"]) == (60, "checked")


def test_another_implementation_verifies_the_token():
    token = ear.sign(ear.document(CLAIMS, [MATCH], NOW, issuer="me", version="1"), KEY)
    key = ECKey.import_key(ear.public_jwk(KEY.public_key()))
    found = jwt.decode(token, key, algorithms=["ES256"])
    assert found.claims["submods"]["cpu0"]["ear.status"] == "affirming"
    assert found.header["kid"] == key.thumbprint()
    with pytest.raises(BadSignatureError):
        jwt.decode(token[:-4] + "AAAA", key, algorithms=["ES256"])


def test_only_p256_signs():
    with pytest.raises(Unusable, match="P-256"):
        ear.sign({}, ec.generate_private_key(ec.SECP384R1()))
