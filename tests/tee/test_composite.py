"""A CPU's evidence with devices beside it: all parts are judged, none is left unseen."""

import hashlib
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import casemate
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import DEVELOPMENT, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import composite
from casemate.testing.nvidia import FakeGpu
from casemate.testing.snp import FakeChip

NONCE, KEY = (
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    {
        "alg": "ECDH-ES+A256KW",
        "crv": "P-256",
        "kty": "EC",
        "x": "FvCPUXLoAJdGS7r0YU1mnMiD2nzn7OjQP3erVPWcoGA",
        "y": "0b31ECFNLbSgcm1Jgks9gp40jbJbrutK33Uu7pjdvvs",
    },
)
DEVICE = composite.device_request(NONCE, KEY)


class Machine:
    """A confidential VM with GPUs: the evidence as a KBS client sends it."""

    def __init__(self, *, chip=None, gpus=None):
        self.chip, self.gpus = chip or FakeChip(), gpus if gpus is not None else [FakeGpu()]
        entries = [entry for gpu in self.gpus for entry in gpu.entries(DEVICE)]
        self.additional = json.dumps({"nvidia": {"device_evidence_list": entries}}) if entries else ""
        bound = {"additional-evidence": self.additional, "nonce": NONCE, "tee-pubkey": KEY}
        self.request = Request(report_data=hashlib.sha384(rfc8785.dumps(bound)).digest())
        primary = self.chip.collect(self.request).primary
        self.evidence = Evidence(tee="snp", primary=primary, additional=self.additional)
        given = [self.chip.endorsements, *(gpu.endorsements for gpu in self.gpus)]
        self.endorsements = Endorsements(
            anchors=tuple(a for e in given for a in e.anchors),
            certificates=tuple(c for e in given for c in e.certificates),
            collateral={f"{k}.{i}": v for i, e in enumerate(given) for k, v in e.collateral.items()},
        )

    def judge(self, evidence=None, device=DEVICE, endorsements=None):
        return casemate.verify_all(
            evidence or self.evidence, endorsements or self.endorsements, self.request, self.chip.now, device=device
        )


MACHINE = Machine()


def failed(call):
    with pytest.raises(Refused) as caught:
        call()
    return {f.rule for f in caught.value.findings if not f.ok}


def test_what_a_device_binds_is_coco_s_vector():
    digest = "4491cbe7a0251106a8cb918e598638b3351b1319e402260c06a8a9ae2b8b5dc6d66a28f381d35a08d0e6ac6fb8c147e3"
    assert DEVICE.report_data.hex() == digest


def test_cpu_and_gpus_are_both_claimed():
    cpu, gpus = MACHINE.judge()
    assert (cpu.tee, gpus.tee) == ("snp", "nvidia")
    assert cpu.fresh
    assert gpus.fresh
    assert gpus.report_data == DEVICE.report_data[:32].hex()
    assert all(f.ok for part in (cpu, gpus) for f in platform.judge(part))


def test_verify_never_leaves_devices_unseen():
    with pytest.raises(Unusable, match="additional evidence") as caught:
        casemate.verify(MACHINE.evidence, MACHINE.endorsements, MACHINE.request, MACHINE.chip.now)
    assert "verify_all" in caught.value.hint
    bare = Machine(gpus=[])
    claims = casemate.verify(bare.evidence, bare.endorsements, bare.request, bare.chip.now)
    assert bare.judge() == (claims,)
    assert composite.joined((claims,)) is claims


@pytest.mark.parametrize("additional", ["x", " ", "[]", "null", "0", "{", "{}", '{"nvidia": []}', '{"a": {}, "a": {}}',
                                        '{"snp": {}}', json.dumps({str(i): {} for i in range(9)})])  # fmt: skip
def test_additional_evidence_that_is_no_map_of_tees(additional):
    evidence = Evidence(tee="snp", primary=MACHINE.evidence.primary, additional=additional)
    with pytest.raises(Malformed):
        MACHINE.judge(evidence)
    with pytest.raises(Unusable):
        casemate.verify(evidence, MACHINE.endorsements, MACHINE.request, MACHINE.chip.now)


def test_an_unknown_device_is_not_passed_over():
    evidence = Evidence(tee="snp", primary=MACHINE.evidence.primary, additional='{"hygondcu": {}}')
    with pytest.raises(Unusable, match="hygondcu"):
        MACHINE.judge(evidence)


def test_a_wrong_part_refuses_all_and_every_rule_is_told():
    for gpus, rule in (
        ([FakeGpu(broken="signature")], "nvidia.signature"),
        ([FakeGpu(), FakeGpu(broken="nonce")], "nvidia.nonce"),
    ):
        assert failed(Machine(gpus=gpus).judge) == {rule}
    both = Machine(chip=FakeChip(broken="signature"), gpus=[FakeGpu(broken="signature")])
    assert {"snp.signature", "nvidia.signature"} <= failed(both.judge)


def test_devices_of_another_session_are_refused():
    other = composite.device_request(NONCE[::-1], KEY)
    assert failed(lambda: MACHINE.judge(device=other)) == {"nvidia.nonce"}


def test_the_cpu_vouches_for_what_stands_beside_it():
    """Genuine GPUs of another machine, put beside this CPU's evidence: the CPU has not bound them."""
    evidence = Evidence(tee="snp", primary=MACHINE.evidence.primary, additional=Machine().additional)
    request = Request(report_data=hashlib.sha384(
        rfc8785.dumps({"additional-evidence": evidence.additional, "nonce": NONCE, "tee-pubkey": KEY})
    ).digest())  # fmt: skip
    with pytest.raises(Refused, match=r"snp\.report_data"):
        casemate.verify_all(evidence, MACHINE.endorsements, request, MACHINE.chip.now, device=DEVICE)


def test_freshness_of_one_part_alone_is_not_freshness():
    with pytest.raises(Unusable, match="its devices"):
        MACHINE.judge(device=None)
    claims = casemate.verify_all(MACHINE.evidence, MACHINE.endorsements, Request(), MACHINE.chip.now)
    assert [part.fresh for part in claims] == [False, False]


def test_joined_claims_are_as_weak_as_the_weakest_part():
    weak = Machine(gpus=[FakeGpu(platform_class=DEVELOPMENT, rims=False)])
    claims = weak.judge()
    joined = composite.joined(claims)
    assert (joined.tee, joined.platform_class, joined.memory_encrypted) == ("snp", DEVELOPMENT, False)
    assert [f.rule for f in platform.judge(joined) if not f.ok] == ["nvidia.rim", "platform.class"]
    assert {"snp.signature", "nvidia.signature"} <= {f.rule for f in joined.checks}
    strong = composite.joined(MACHINE.judge())
    assert all(f.ok for f in platform.judge(strong))
    assert strong.valid_until == MACHINE.judge()[1].valid_until


def test_endorsements_of_all_parts_are_gathered(monkeypatch):
    def nothing(url):
        raise Unavailable(url)

    class Cpu:
        def endorse(self, evidence, fetch):
            return Endorsements(certificates=(b"cpu",))

    real = composite.room
    monkeypatch.setattr(composite, "room", lambda tee: Cpu() if tee == "snp" else real(tee))
    assert composite.endorse(MACHINE.evidence, nothing) == Endorsements(certificates=(b"cpu",))

    def answering(url):
        if "/rim/" in url:
            raise Unavailable(url)
        return b"x"

    assert composite.endorse(MACHINE.evidence, answering).certificates == (b"cpu",)


@given(st.text(max_size=60))
def test_fuzz_additional(text):
    try:
        composite.devices(Evidence(tee="snp", primary={}, additional=text))
    except Malformed:
        pass
