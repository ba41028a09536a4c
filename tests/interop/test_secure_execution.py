"""IBM Secure Execution: the challenge is a request that only named machines can answer; runtime data is SHA-512."""

import json
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.interop.conftest import client, start

from casemate.schema.endorsements import Anchor, Secrets
from casemate.schema.request import Request
from casemate.tee.se.ask import Asked
from casemate.testing.se import FakeMachine


@pytest.fixture(scope="module")
def machine():
    return FakeMachine()


@pytest.fixture(scope="module")
def served(tmp_path_factory, machine):
    folder = tmp_path_factory.mktemp("se")
    papers = folder / "se"
    papers.mkdir()
    given = machine.endorsements
    for number, der in enumerate(given.certificates):
        (papers / f"{number}.crt").write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    for name, der in machine.lists.items():
        (papers / name).write_bytes(der)
    (papers / "image.tags").write_bytes(machine.tags.pack())
    made = start(folder, papers={"se": "se"})
    anchor = given.anchors[0]
    made.admin.add_anchor(Anchor(certificate=anchor.certificate, platform_class="production", tees=("se",)))
    made.clock.shift = machine.now - datetime.now(UTC)  # when the fake vendor's lists are current
    yield made
    made.stop()


def answering(machine):
    """What the guest does: the request goes to its Ultravisor with the digest of the runtime data."""

    def attester(digest, nonce):
        assert len(digest) == 64
        machine.before = Asked(nonce.encode(), Secrets({}))
        return machine.collect(Request(report_data=digest)).primary

    return attester


def test_the_run(served, machine):
    guest = client(served, "se", answering(machine))
    challenge = guest.auth(extra={"supported-hash-algorithms": ["sha384", "sha512"]}).json()
    assert challenge["extra-params"] == {"selected-hash-algorithm": "sha512"}
    asked = json.loads(challenge["nonce"])
    assert {"request_blob", "measurement_size", "additional_size", "image_hdr_tags"} <= set(asked)
    got = guest.attest()
    assert got.status == 200, got.body
    evidence = guest.claims()["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["se"]["tag"] == machine.tags.tag.hex()
    assert evidence["runtime_data_claims"]["nonce"] == challenge["nonce"]


def test_an_answer_serves_one_session(served, machine):
    guest = client(served, "se", answering(machine))
    guest.auth()
    cookie, message = guest.cookie, guest.message()
    assert guest.attest(message).status == 200
    assert guest.attest(message, cookie).json()["reasons"][0]["rule"] == "session.replay"
    guest.auth()
    message["runtime-data"]["nonce"] = guest.nonce
    assert guest.attest(message).status == 401


def test_a_client_that_does_not_know_the_hash(served, machine):
    answer = client(served, "se").auth(extra={"supported-hash-algorithms": ["sha256", "sha384"]})
    assert (answer.status, answer.json()["reasons"][0]["rule"]) == (403, "session.hash")


def test_each_session_has_its_own_request(served, machine):
    one, two = client(served, "se"), client(served, "se")
    one.auth()
    two.auth()
    assert json.loads(one.nonce)["request_blob"] != json.loads(two.nonce)["request_blob"]


def test_without_papers_there_is_no_challenge(service):
    answer = client(service, "se").auth()
    assert answer.status == 400
    assert "papers" in answer.json()["hint"] or "document" in answer.json()["hint"]
