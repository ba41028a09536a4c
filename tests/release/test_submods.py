"""Submodules of a result, and what a bound initdata document says in it."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.broker import hearing
from casemate.errors import Malformed
from casemate.release import ear, initclaims, submods
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import composite
from casemate.testing.nvidia import FakeGpu
from casemate.testing.tpm import FakeTpm

POLICY = 'package agent_policy\ndefault AllowRequestsFailingPolicy := false\n\npolicy_data := {\n "containers": []\n}\n'


def judged(*gpus):
    tpm = FakeTpm()
    document = {"nonce": "n", "tee-pubkey": {"kty": "EC"}}
    asked = composite.device_request(document["nonce"], document["tee-pubkey"])
    entries = [entry for gpu in gpus for entry in gpu.entries(asked)]
    additional = json.dumps({"nvidia": {"device_evidence_list": entries}}) if entries else ""
    evidence = tpm.collect(Request(report_data=b"r" * 48))
    anchors = (tpm.anchor, *(gpu.endorsements.anchors[0] for gpu in gpus))
    endorsements = Endorsements(anchors=anchors)
    whole = Evidence(tee=evidence.tee, primary=evidence.primary, additional=additional)
    return composite.verify_all(whole, endorsements, Request(report_data=b"r" * 48), datetime.now(UTC), device=asked)


@pytest.fixture(scope="module")
def machine():
    gpu = FakeGpu(rims=False)
    return judged(gpu, FakeGpu(arch="LS10", rims=False), FakeGpu(rims=False, root=gpu.root))


def test_a_machine_alone_is_cpu0():
    (part,) = submods.parts(judged())
    assert (part.name, part.kind) == ("cpu0", "cpu")


def test_devices_are_counted_by_class(machine):
    assert [part.name for part in submods.parts(machine)] == ["cpu0", "gpu0", "switch0", "gpu1"]
    assert {part.kind for part in submods.parts(machine)} == {"cpu", "gpu", "switch"}


def test_values_too_long_for_a_header_are_left_out_and_said_to_be(machine, monkeypatch):
    monkeypatch.setattr(ear, "MAX_DEVICES", 100)
    found = ear.submods(machine, [], ear.runtime("n", {}, "x" * 2000), {"a": "x" * (9 << 10)})
    evidence = {name: submod["ear.veraison.annotated-evidence"] for name, submod in found.items()}
    assert evidence["gpu0"]["nvidia"] == {"omitted": "too long for a token"}
    assert evidence["cpu0"]["init_data_claims"] == {"omitted": "too long for a token"}
    assert "additional-evidence" not in evidence["cpu0"]["runtime_data_claims"]


def test_a_failed_rule_of_a_device_shows_in_its_submodule_and_the_machines(machine):
    caution = next(c for c in machine[1].cautions if not c.ok)
    found = ear.submods(machine, [caution], {})
    configuration = {n: s["ear.trustworthiness-vector"]["configuration"] for n, s in found.items()}
    assert configuration["cpu0"] == configuration["gpu0"] == 36
    assert ear.submods(machine, [], {})["gpu0"]["ear.trustworthiness-vector"]["configuration"] == 2


def test_initdata_claims_are_cocos():
    text = 'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n"aa.toml" = "x = 1979-05-27"\nother = "y"\n'
    text += f"\"policy.rego\" = '''\n{POLICY}'''\n"
    assert initclaims.claims(text.encode()) == {
        "aa.toml": {"x": "1979-05-27"},
        "other": "y",
        "agent_policy_claims": {"containers": []},
    }
    assert initclaims.claims(None) is None
    assert initclaims.claims(b'version = "0.1.0"\n') is None


@pytest.mark.parametrize("bad", [b"\xff", b"=", b"a = " + b"[" * 5000])
def test_initdata_that_is_none(bad):
    with pytest.raises(Malformed):
        initclaims.claims(bad)


@pytest.mark.parametrize(("name", "text"), [("aa.toml", "="), ("policy.rego", "policy_data := {}x")])
def test_an_entry_that_cannot_be_read_stays_text(name, text):
    assert initclaims.claims(f'[data]\n"{name}" = "{text}"\n'.encode()) == {name: text}


_PIECES = st.sampled_from(
    [
        "[data]\n",
        '"aa.toml" = ',
        "'''",
        '"',
        "\n",
        "x = 1\n",
        "policy_data := {",
        "}",
        '"policy.rego" = ',
        "[",
        "\ud800",
    ]
)


@given(
    st.binary(max_size=300)
    | st.lists(_PIECES | st.text(max_size=8)).map(lambda p: "".join(p).encode("utf-8", "surrogatepass"))
)
def test_any_document_has_claims_or_is_malformed(document):
    for read in (initclaims.claims, hearing.initdata_digest):
        try:
            read(document)
        except Malformed:
            continue
