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


def gpus(guest):
    bound = rfc8785.dumps({"nonce": guest.nonce, "tee-pubkey": guest.jwk})
    entries = FakeGpu(rims=False).entries(Request(report_data=hashlib.sha384(bound).digest()))
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


def test_an_unknown_or_refused_device_is_not_passed_over(service):
    for additional, status in (('{"hygondcu": {}}', 400), ('{"sample": {}}', 403), ("[]", 400)):
        guest = guest_of(service)
        assert guest.attest(body(guest, additional)).status == status, additional


def test_without_devices_all_is_as_before(service):
    guest = guest_of(service)
    assert guest.attest(body(guest, "")).status == 200
