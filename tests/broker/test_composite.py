"""Devices beside a guest's CPU evidence, at the broker: they are judged with it, and never passed over."""

import hashlib
import json

import pytest
import rfc8785

from casemate.schema.request import Request
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules
from casemate.testing.nvidia import FakeGpu


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("composite"))
    made.trust()
    yield made
    made.stop()


def body(guest, additional):
    """An attestation whose CPU evidence binds `additional`, as kbs-protocol's client makes it."""
    sent = guest.body()
    bound = rfc8785.dumps({"additional-evidence": additional, "nonce": guest.nonce, "tee-pubkey": guest.jwk})
    digest = hashlib.sha256(guest.text.encode()).digest()
    request = Request(report_data=hashlib.sha384(bound).digest(), initdata_digest=digest)
    sent["tee-evidence"] = {
        "primary_evidence": guest.tpm.collect(request).primary,
        "additional_evidence": additional,
    }
    return sent


def gpus(guest, gpu=None):
    bound = rfc8785.dumps({"nonce": guest.nonce, "tee-pubkey": guest.jwk})
    entries = (gpu or FakeGpu()).entries(Request(report_data=hashlib.sha384(bound).digest()))
    return json.dumps({"nvidia": {"device_evidence_list": entries}})


def guest_of(service):
    guest = Guest(service, service.found().manifest)
    guest.auth()
    return guest


def test_a_device_under_a_root_that_nobody_pinned_is_refused(service):
    guest = guest_of(service)
    got = guest.attest(body(guest, gpus(guest)))
    assert got.status == 401
    assert "nvidia.device.chain" in rules(got)
    assert not {r for r in rules(got) if r.startswith("tpm.")}


@pytest.mark.parametrize(("accepted", "status", "reasons"), [([], 403, ["nvidia.rim"]), (["nvidia.rim"], 200, [])])
def test_a_device_under_a_trusted_root_counts_with_its_cautions(tmp_path, accepted, status, reasons):
    made = brokers.start(tmp_path, accepted_cautions=accepted)
    try:
        made.trust()
        gpu = FakeGpu(rims=False)
        made.admin.add_anchor(gpu.endorsements.anchors[0])
        guest = guest_of(made)
        got = guest.attest(body(guest, gpus(guest, gpu)))
        assert got.status == status, got.body
        assert status == 200 or rules(got) == reasons
        guest.auth()
        stale = gpus(guest, gpu)
        guest.auth()  # genuine evidence of the same GPU, for another nonce
        assert "nvidia.nonce" in rules(guest.attest(body(guest, stale)))
    finally:
        made.stop()


def test_an_unknown_or_refused_device_is_not_passed_over(service):
    for additional, status in (('{"hygondcu": {}}', 400), ('{"sample": {}}', 403), ("[]", 400)):
        guest = guest_of(service)
        assert guest.attest(body(guest, additional)).status == status, additional


def test_without_devices_all_is_as_before(service):
    guest = guest_of(service)
    assert guest.attest(body(guest, "")).status == 200
