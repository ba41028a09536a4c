"""The attestation service's REST, as CoCo's key broker or a tool of its own would call it."""

import base64
import hashlib
import json

import pytest
import rfc8785
from joserfc import jwt
from joserfc.jwk import KeySet
from tests.interop import attesters, rcar_client
from tests.interop.conftest import client, start

from casemate.testing.tpm import FakeTpm


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = start(tmp_path_factory.mktemp("as"), attestation_service="/as")
    made.trust()
    yield made
    made.stop()


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ask(service, *requests):
    return client(service).call("POST", "/as/attestation", {"verification_requests": list(requests), "policy_ids": []})


def sample(digest=b"", **more):
    evidence = {"svn": "1", "report_data": base64.b64encode(digest).decode()}
    return {"tee": "sample", "evidence": b64u(json.dumps(evidence).encode()), **more}


def claims(service, answer):
    assert answer.status == 200, answer.body
    keys = client(service).call("GET", "/as/.well-known/jwks.json").json()
    return jwt.decode(answer.body.decode(), KeySet.import_key_set(keys), algorithms=["ES256"]).claims


def test_it_is_not_served_unless_the_operator_says_so(service):
    for path in ("/as/attestation", "/attestation", "/as/challenge"):
        assert client(service).call("POST", path, {}).status == 404


def test_health(served):
    assert client(served).call("GET", "/as/healthz").status == 200


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_structured_data_is_hashed(served, name):
    structured = {"b": [1, 2], "a": "x"}
    digest = hashlib.new(name, rfc8785.dumps(structured)).digest()
    asked = sample(digest, runtime_data={"structured": structured}, runtime_data_hash_algorithm=name)
    found = claims(served, ask(served, asked))
    assert found["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["runtime_data_claims"] == structured
    other = {"sha256": "sha384", "sha384": "sha512", "sha512": "sha256"}[name]
    refused = ask(served, {**asked, "runtime_data_hash_algorithm": other})
    assert (refused.status, refused.json()["reasons"][0]["rule"]) == (401, "sample.nonce")


def test_raw_data_is_the_report_data(served):
    found = claims(served, ask(served, sample(b"raw bytes", runtime_data={"raw": b64u(b"raw bytes")})))
    evidence = found["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["report_data"] == b"raw bytes".hex()
    assert "runtime_data_claims" not in evidence
    assert ask(served, sample(b"raw bytes", runtime_data={"raw": b64u(b"other")})).status == 401


def test_only_tee_and_evidence_are_wanted(served):
    assert claims(served, ask(served, sample()))["iss"] == "casemate-attestation-service"


def test_a_tpm_with_initdata_as_text_and_as_digest(served):
    text, digest = rcar_client.make_initdata({"aa.toml": "x = 1\n"}, "sha256")
    tpm = attesters.Tpm(served.vendor)
    tpm.document = text.encode()
    primary = tpm(hashlib.sha384(b"n").digest(), "", digest)
    asked = {"tee": "tpm", "evidence": b64u(json.dumps(primary).encode())}
    runtime = {"runtime_data": {"raw": b64u(hashlib.sha384(b"n").digest())}}
    found = claims(served, ask(served, {**asked, **runtime, "init_data": {"init_data_toml": text}}))
    evidence = found["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["init_data_claims"] == {"aa.toml": {"x": 1}}
    found = claims(served, ask(served, {**asked, **runtime, "init_data": {"init_data_digest": b64u(digest)}}))
    assert "init_data_claims" not in found["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    bad = {**asked, **runtime, "init_data": {"init_data_toml": text + "#"}}
    assert ask(served, bad).status == 401


def test_several_machines_are_several_submodules(served):
    tpm = FakeTpm(vendor=served.vendor)
    from casemate.schema.request import Request

    other = {"tee": "tpm", "evidence": b64u(json.dumps(tpm.collect(Request()).primary).encode())}
    assert list(claims(served, ask(served, sample(), other))["submods"]) == ["cpu0", "cpu1"]


def test_its_result_opens_nothing_here(served):
    guest = client(served)
    structured = {"nonce": "n", "tee-pubkey": guest.key.jwk, "additional-evidence": ""}
    digest = hashlib.sha384(rfc8785.dumps(structured)).digest()
    guest.token = ask(served, sample(digest, runtime_data={"structured": structured})).body.decode()
    answer = guest.get("default/key/1")
    assert (answer.status, answer.variant) == (401, "TokenVerifierError")


def test_a_challenge(served):
    answer = client(served).call("POST", "/as/challenge", {"tee": "tdx", "tee_params": {}})
    assert len(base64.b64decode(answer.body)) == 32
    assert client(served).call("POST", "/as/challenge", {"tee": "se"}).status == 400


@pytest.mark.parametrize(
    "asked",
    [
        [],
        [sample()] * 17,
        [{"tee": "sample"}],
        [{"tee": "sample", "evidence": "%"}],
        [{"tee": "sample", "evidence": b64u(b"[]")}],
        [{"tee": "nothing", "evidence": b64u(b"{}")}],
        [sample(runtime_data={"raw": "AA", "structured": {}})],
        [sample(runtime_data={"raw": ""})],
        [sample(runtime_data={"structured": {}}, runtime_data_hash_algorithm="md5")],
        [sample(init_data={})],
        [sample(init_data={"init_data_toml": 'algorithm = "md5"'})],
    ],
)
def test_requests_that_are_none(served, asked):
    assert ask(served, *asked).status == 400


def admin(service, method, body=None):
    headers = {"Authorization": f"Bearer {service.admin.token()}"}
    return client(service).call(method, "/as/policy", body, headers)


def test_policies_are_an_admins_and_shape_the_result(served):
    text = 'package policy\nimport rego.v1\ntrust_claims := {"hardware": 97, "executables": 3}\n'
    asked = {"policy_id": "mine_cpu", "policy": b64u(text.encode())}
    assert client(served).call("POST", "/as/policy", asked).status == 401
    answer = admin(served, "POST", asked)
    assert answer.status == 200, answer.body
    assert {"policy-id": "mine_cpu"} in admin(served, "GET").json()
    both = {"verification_requests": [sample()], "policy_ids": ["mine"]}
    found = claims(served, client(served).call("POST", "/as/attestation", both))["submods"]["cpu0"]
    assert found["ear.status"] == "contraindicated"
    assert found["ear.trustworthiness-vector"]["hardware"] == 97
    assert found["ear.appraisal-policy-id"] == "mine"
