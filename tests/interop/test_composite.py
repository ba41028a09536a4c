"""A machine with devices, from outside: each part binds what 1.4 says, and each becomes a submodule."""

import json

import pytest
from tests.interop import rcar_client
from tests.interop.conftest import client, start

from casemate.schema.request import Request
from casemate.testing.nvidia import FakeGpu


@pytest.fixture(scope="module")
def gpus():
    first, switch = FakeGpu(rims=False), FakeGpu(arch="LS10", rims=False)
    return first, switch


@pytest.fixture(scope="module")
def trusting(tmp_path_factory, gpus):
    made = start(tmp_path_factory.mktemp("composite"), accepted_cautions=["sample.proof", "nvidia.rim"])
    for gpu in gpus:
        made.admin.add_anchor(gpu.endorsements.anchors[0])
    yield made
    made.stop()


def additional(guest, *devices, digest=None):
    """CoCo's string: JSON map of TEE to evidence; a device binds SHA-384 of nonce and key alone."""
    request = Request(report_data=digest or rcar_client.device_digest(guest.nonce, guest.key.jwk))
    entries = [entry for device in devices for entry in device.entries(request)]
    return json.dumps({"nvidia": {"device_evidence_list": entries}})


def test_each_device_is_a_submodule_with_its_own_claims(trusting, gpus):
    guest = client(trusting)
    guest.auth()
    got = guest.attest(guest.message(additional(guest, *gpus)))
    assert got.status == 200, got.body
    submods = guest.claims()["submods"]
    assert list(submods) == ["cpu0", "gpu0", "switch0"]
    evidence = {name: submod["ear.veraison.annotated-evidence"] for name, submod in submods.items()}
    assert evidence["gpu0"]["nvidia"]["arch"] == "HOPPER"
    assert evidence["switch0"]["nvidia"]["arch"] == "LS10"
    assert "devices" not in evidence["gpu0"]["nvidia"]
    assert evidence["cpu0"]["runtime_data_claims"].keys() <= {"nonce", "tee-pubkey", "additional-evidence"}
    assert set(evidence["gpu0"]["runtime_data_claims"]) == {"nonce", "tee-pubkey"}
    assert evidence["gpu0"]["report_data"] == rcar_client.device_digest(guest.nonce, guest.key.jwk)[:32].hex()
    for submod in submods.values():
        assert submod["ear.status"] in ("affirming", "warning", "contraindicated")
        assert len(submod["ear.trustworthiness-vector"]) == 8


def test_a_device_that_binds_what_the_machine_binds_is_not_believed(trusting, gpus):
    guest = client(trusting)
    guest.auth()
    wrong = rcar_client.runtime_digest(guest.nonce, guest.key.jwk)
    assert guest.attest(guest.message(additional(guest, gpus[0], digest=wrong))).status == 401


def test_additional_evidence_that_was_exchanged_is_not_believed(trusting, gpus):
    guest = client(trusting)
    guest.auth()
    message = guest.message(additional(guest, gpus[0]))
    message["tee-evidence"]["additional_evidence"] = additional(guest, *gpus)
    assert guest.attest(message).status == 401
    guest.auth()
    message = guest.message(additional(guest, gpus[0]))
    message["tee-evidence"]["additional_evidence"] = ""
    assert guest.attest(message).status == 401


def test_a_machine_with_eight_devices_fits_a_header(trusting, gpus):
    guest = client(trusting)
    guest.auth()
    many = [FakeGpu(rims=False, root=gpus[0].root) for _ in range(8)]
    got = guest.attest(guest.message(additional(guest, *many)))
    assert got.status == 200, got.body
    assert [f"gpu{i}" for i in range(8)] == list(guest.claims()["submods"])[1:]
    assert len(guest.token) < 192 << 10
    assert guest.get("default/key/1").status == 403  # known, and not entitled
