from __future__ import annotations

import datetime as dt
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import DEVELOPMENT, Anchor, Endorsements, Secrets
from casemate.schema.evidence import Evidence
from casemate.schema.launch import Launch
from casemate.schema.request import Request
from casemate.tee import room, se
from casemate.tee.se.ask import KEY, REQUEST, ask
from casemate.testing import pki
from casemate.testing.se import BROKEN, FakeMachine, image_tags
from casemate.wire.encoding import b64

ASKED = Request(report_data=hashlib.sha512(b"runtime data").digest())


def failed(machine, request=ASKED, endorsements=None, now=None):
    with pytest.raises(Refused) as caught:
        se.verify(machine.collect(ASKED), endorsements or machine.endorsements, request, now or machine.now)
    return {f.rule for f in caught.value.findings if not f.ok}


@pytest.fixture(scope="module")
def machine():
    return FakeMachine()


def test_a_machine_is_accepted_where_its_root_is_anchored(machine):
    claims = se.verify(machine.collect(ASKED), machine.endorsements, ASKED, machine.now)
    assert all(f.ok for f in platform.judge(claims))
    assert claims.fresh
    assert claims.report_data == ASKED.report_data.hex()
    assert claims.measurement["tag"] == image_tags().tag.hex()
    assert claims.vouched_by == "Fake Z root"
    assert claims.valid_until == machine.now + dt.timedelta(days=30)
    values = claims.values
    assert values["cuid"] == machine.cuid.hex()
    assert (values["version"], len(values["image_phkh"]), len(values["attestation_phkh"])) == (256, 64, 64)
    assert {f.rule for f in claims.checks} >= {
        "se.request", "se.measurement", "se.answering-host", "se.host-key.signature", "se.host-key.chain.lists",
        "se.host-key.revoked",
    }  # fmt: skip


def test_without_report_data_it_is_not_fresh(machine):
    assert not se.verify(machine.collect(ASKED), machine.endorsements, Request(), machine.now).fresh


def test_a_development_root_makes_development_claims():
    machine = FakeMachine(platform_class=DEVELOPMENT)
    claims = se.verify(machine.collect(ASKED), machine.endorsements, ASKED, machine.now)
    assert not claims.memory_encrypted
    assert [f.rule for f in platform.judge(claims) if not f.ok] == ["platform.class"]


RULES = {
    "measurement": {"se.measurement"},
    "measurement-key": {"se.measurement"},
    "cuid": {"se.measurement"},
    "user-data": {"se.measurement", "se.report_data"},
    "echo": {"se.echo"},
    "additional-size": {"se.additional"},
    "other-host": {"se.answering-host"},
    "other-request": {"se.measurement"},
    "other-image": {"se.image"},
    "other-key": {"se.request"},
    "request": {"se.request"},
    "document-expired": {"se.host-key.validity"},
    "document-early": {"se.host-key.validity"},
    "document-forged": {"se.host-key.signature"},
    "document-issuer": {"se.host-key.issuer"},
    "signer-subject": {"se.host-key.signer"},
    "other-root": {"se.host-key.chain.chain"},
    "no-intermediate": {"se.host-key.chain.length"},
    "revoked": {"se.host-key.revoked"},
    "signer-revoked": {"se.host-key.chain.revoked", "se.host-key.chain.lists"},
    "intermediate-revoked": {"se.host-key.chain.revoked", "se.host-key.chain.lists"},
    "list-expired": {"se.host-key.revoked"},
    "list-early": {"se.host-key.revoked"},
    "list-issuer": {"se.host-key.revoked"},
    "root-list-expired": {"se.host-key.chain.revoked", "se.host-key.chain.lists"},
}


@pytest.mark.parametrize("fault", sorted(BROKEN))
def test_each_fault_is_refused_by_its_rule(fault):
    assert failed(FakeMachine(broken=fault)) == RULES[fault]


def test_a_request_by_rsa_is_judged_by_the_request_that_was_made():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    machine = FakeMachine(rsa_key=key)
    claims = se.verify(machine.collect(ASKED), machine.endorsements, ASKED, machine.now)
    assert "se.echo" in {f.rule for f in claims.checks}


def test_a_key_that_comes_with_the_evidence_is_not_believed():
    """Anybody who knows the asker's public RSA key can seal a key of his own to it and write the measurement."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    machine, forger = FakeMachine(rsa_key=key), FakeMachine(rsa_key=key)
    evidence = forger.collect(ASKED)
    with pytest.raises(Refused) as caught:
        se.verify(evidence, machine.endorsements, ASKED, machine.now)
    assert {"se.echo", "se.measurement"} <= {f.rule for f in caught.value.findings if not f.ok}


def test_every_machine_that_can_open_the_request_counts(machine):
    """A request with a slot for a machine without a document is worth nothing: that machine can write any answer."""
    papers = machine.endorsements
    other = FakeMachine()
    strangers = Endorsements(anchors=papers.anchors, certificates=other.endorsements.certificates,
                             collateral=papers.collateral, secrets=papers.secrets)  # fmt: skip
    with pytest.raises(Unusable, match="host-key-document"):
        se.verify(machine.collect(ASKED), strangers, ASKED, machine.now)


@pytest.mark.parametrize(
    ("leave", "name"),
    [
        ("request", "request"),
        ("secrets", "request-key"),
        ("lists", "revocation-lists"),
        ("root-list", "revocation-lists"),
    ],
)
def test_what_is_absent_is_named(machine, leave, name):
    full = machine.endorsements
    collateral = {
        "request": {k: v for k, v in full.collateral.items() if k != REQUEST},
        "lists": {REQUEST: full.collateral[REQUEST]},
        "root-list": {k: v for k, v in full.collateral.items() if k != "crl.root"},
    }.get(leave, full.collateral)
    less = Endorsements(anchors=full.anchors, certificates=full.certificates, collateral=collateral,
                        secrets=Secrets() if leave == "secrets" else full.secrets)  # fmt: skip
    with pytest.raises(Unusable, match=name):
        se.verify(machine.collect(ASKED), less, ASKED, machine.now)


def test_no_root_is_trusted_of_itself(machine):
    full = machine.endorsements
    for anchors in ((), (Anchor(certificate=machine.root.certificate, tees=("snp",)),)):
        less = Endorsements(anchors=anchors, certificates=(*full.certificates, machine.root.certificate),
                            collateral=full.collateral, secrets=full.secrets)  # fmt: skip
        with pytest.raises(Unusable, match="root"):
            se.verify(machine.collect(ASKED), less, ASKED, machine.now)


def test_initdata_is_refused_because_nothing_binds_it(machine):
    assert failed(machine, Request(initdata_digest=bytes(32))) == {"se.initdata"}


def test_an_old_answer_ends_with_its_papers(machine):
    late = failed(machine, now=machine.now + dt.timedelta(days=31))
    assert {"se.host-key.revoked", "se.host-key.chain.revoked"} <= late


def test_a_renewed_document_stands_in_for_an_expired_one():
    machine = FakeMachine(broken="document-expired")
    expired = machine.host.certificate
    machine.renew()
    full = machine.endorsements
    both = Endorsements(anchors=full.anchors, certificates=(expired, *full.certificates), collateral=full.collateral,
                        secrets=full.secrets)  # fmt: skip
    assert se.verify(machine.collect(ASKED), both, ASKED, machine.now)
    machine.lists["crl.signing"] = machine.signing.crl((expired,))
    revoked = Endorsements(anchors=full.anchors, certificates=both.certificates, secrets=full.secrets,
                           collateral=machine.endorsements.collateral)  # fmt: skip
    assert "se.host-key.revoked" in failed(machine, endorsements=revoked)


def test_nothing_is_asked_of_a_machine_whose_document_breaks_a_rule():
    machine = FakeMachine(broken="revoked")
    with pytest.raises(Refused, match="revoked"):
        ask(machine.endorsements, machine.tags, machine.now)
    with pytest.raises(Unusable, match="host-key document"):
        ask(Endorsements(), machine.tags, machine.now)


def test_secrets_are_not_shown_and_not_encoded(machine):
    import msgspec

    secret = machine.asked.secrets.get(KEY)
    assert secret not in machine.asked.challenge
    assert secret.hex() not in repr(machine.endorsements)
    assert repr(secret)[2:-1] not in repr(machine.endorsements)
    with pytest.raises((TypeError, NotImplementedError)):
        msgspec.json.encode(machine.endorsements)


def test_a_refusal_does_not_tell_the_right_measurement():
    machine = FakeMachine(broken="measurement")
    with pytest.raises(Refused) as caught:
        se.verify(machine.collect(ASKED), machine.endorsements, ASKED, machine.now)
    finding = next(f for f in caught.value.findings if f.rule == "se.measurement")
    assert len(finding.expected + finding.found) < 64


@pytest.mark.parametrize(
    "change",
    [
        {"measurement": 1}, {"measurement": b64(bytes(63))}, {"measurement": "!"}, {"user_data": b64(bytes(257))},
        {"cuid": b64(bytes(15))}, {"image_hdr_tags": b64(bytes(207))}, {"additional_data": None},
        {"encr_measurement_key": b64(bytes(1025))},
    ],
)  # fmt: skip
def test_malformed_evidence(machine, change):
    evidence = machine.collect(ASKED)
    with pytest.raises(Malformed):
        se.verify(Evidence(tee="se", primary=evidence.primary | change), machine.endorsements, ASKED, machine.now)


def test_a_key_that_is_none_is_malformed():
    machine = FakeMachine(rsa_key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
    full = machine.endorsements
    for data in (b"no key", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"):
        bad = Endorsements(anchors=full.anchors, certificates=full.certificates, collateral=full.collateral,
                           secrets=Secrets({"se.rsa-key": data}))  # fmt: skip
        with pytest.raises(Malformed, match="private RSA key"):
            se.verify(machine.collect(ASKED), bad, ASKED, machine.now)


def test_the_rest_of_the_contract():
    assert room("se").request(b"n", b"").report_data == b"n"
    for verb, argument in ((se.machine, Launch()), (se.collect, Request())):
        with pytest.raises(Unusable):
            verb(argument)
    assert se.endorse(Evidence(tee="se", primary={}), bytes) == Endorsements()
    with pytest.raises(Unusable):
        se.verify(Evidence(tee="snp", primary={}), Endorsements(), Request(), pki.NOW)


def test_the_challenge_is_coco_s(machine):
    sent = json.loads(machine.asked.challenge)
    assert set(sent) == {"request_blob", "measurement_size", "additional_size", "encr_measurement_key",
                         "encr_request_nonce", "image_hdr_tags"}  # fmt: skip
    assert (sent["measurement_size"], sent["additional_size"]) == (64, 64)
