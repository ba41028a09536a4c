"""CoCo's `sample` TEE: the run of a client without hardware, against a broker whose operator allowed it by name."""

import pytest

from casemate.schema.reference import ReferenceValues
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules


@pytest.fixture(scope="module")
def allowing(tmp_path_factory):
    """A broker for protocol tests."""
    folder = tmp_path_factory.mktemp("sample")
    made = brokers.start(folder, refused_tees=[], accepted_cautions=["sample.proof"])
    made.admin.add_reference(ReferenceValues(name="sample", tee="sample", values={"launch_digest": "abcde"}))
    yield made
    made.stop()


def test_the_run_without_hardware(allowing):
    app = allowing.found()
    allowing.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"hello")
    guest = Guest(allowing, app.manifest, tee="sample")
    got = guest.handshake()
    assert got.status == 200, got.body
    assert guest.open(guest.get(app.path)) == b"hello"


def test_sample_is_a_development_platform_even_then(allowing):
    app = allowing.found(platforms=("production",))
    assert rules(Guest(allowing, app.manifest, tee="sample").handshake()) == ["platform.class"]


def test_without_initdata_it_attests_and_gets_nothing(allowing):
    guest = Guest(allowing, tee="sample")
    assert guest.handshake().status == 200
    assert guest.get("default/key/1").status == 403


def test_evidence_for_another_nonce(allowing):
    guest = Guest(allowing, tee="sample")
    guest.auth()
    body = guest.body()
    guest.auth()
    body["runtime-data"]["nonce"] = guest.nonce
    got = guest.attest(body)
    assert (got.status, rules(got)) == (401, ["sample.nonce"])


def test_its_caution_must_be_accepted_too(tmp_path):
    half = brokers.start(tmp_path, refused_tees=[])
    try:
        half.admin.add_reference(ReferenceValues(name="sample", tee="sample", values={"launch_digest": "abcde"}))
        app = half.found()
        assert rules(Guest(half, app.manifest, tee="sample").handshake()) == ["sample.proof"]
    finally:
        half.stop()


def test_a_guest_is_told_rules_and_hints_and_an_admin_everything(tmp_path):
    made = brokers.start(tmp_path, guest_reasons="short")
    try:
        got = Guest(made, tee="sample").auth()
        (reason,) = got.json()["reasons"]
        assert (reason["rule"], reason["expected"], reason["found"]) == ("tee.sample", "", "")
        assert reason["hint"]
        assert len(got.json()["request"]) == 12
        assert "evidence that proves" not in got.body.decode()
    finally:
        made.stop()
