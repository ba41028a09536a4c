"""Azure's confidential VMs: genuine samples, a fake Azure, each of its faults, and hostile bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.crypto import pem
from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import document, platform, references
from casemate.policy.appraise import measurement
from casemate.schema.endorsements import DEVELOPMENT, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.reference import OneOf, Reference, ReferenceValues
from casemate.schema.request import Request
from casemate.tee import room
from casemate.tee.dcap import collateral
from casemate.tee.hcl import report as wire
from casemate.testing import azure, pki
from casemate.testing.azure import BROKEN, FakeCvm, trust_domain
from casemate.testing.dcap import FakePlatform
from casemate.testing.snp import FakeChip

TEE = "azure-vtpm"
DOCUMENT = b'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n'
ASKED = Request(report_data=b"r" * 48, initdata_digest=hashlib.sha256(DOCUMENT).digest())


def cvm(kind: str, **options) -> FakeCvm:
    hardware = FakeChip() if kind == "snp" else trust_domain()
    return FakeCvm(hardware, initdata=DOCUMENT, **options)


def verify(machine, evidence=None, request=ASKED, endorsements=None, now=None):
    given_evidence = machine.collect(request) if evidence is None else evidence
    chosen = machine.endorsements if endorsements is None else endorsements
    return room(machine.tee).verify(given_evidence, chosen, request, now or machine.now)


def failed(*args, **options):
    with pytest.raises(Refused) as caught:
        verify(*args, **options)
    return {f.rule for f in caught.value.findings if not f.ok}


def genuine_case(genuine):
    document = json.loads(genuine.read("evidence.json"))
    primary = document.get("evidence", document)
    if "td_quote" in primary:
        pool = Endorsements(collateral=collateral.from_json(genuine.read("collateral.json")))
        return Evidence(tee="az-tdx-vtpm", primary=primary), pool
    pool = Endorsements(certificates=tuple(pem.certificates(genuine.read("ask_ark_asvk.pem"))))
    return Evidence(tee="az-snp-vtpm", primary=primary), pool


def judge(evidence, pool, request, now):
    return room(evidence.tee).verify(evidence, pool, request, now)


def test_genuine_samples_reach_their_verdict(genuine):
    evidence, pool = genuine_case(genuine)
    claims = judge(evidence, pool, Request(), genuine.as_of)
    refused = {f.rule for f in platform.judge(claims) if not f.ok}
    assert ("refused" if refused else "accepted") == genuine.verdict
    facts, values = genuine.facts, claims.values
    assert values["hcl"]["version"] == facts["hcl_version"]
    assert values["hcl"]["runtime_data"] == facts["runtime_data_sha256"]
    assert values["hcl"]["vm_configuration"] == facts["vm_configuration"]
    assert values["hcl"]["user_data"] == facts["user_data"]
    assert values["hcl"]["tpm_firmware"] == facts["tpm_firmware"]
    assert claims.report_data == values["report_data"] == facts["tpm_nonce_hex"]
    assert [claims.measurement[f"pcr{i}"] for i in (0, 7, 11)] == [facts[f"pcr{i}"] for i in (0, 7, 11)]
    assert values["tpm"]["pcr07"] == facts["pcr7"]
    assert claims.init_data == claims.measurement["pcr8"] == values["init_data"]
    assert claims.memory_encrypted
    assert claims.platform_class == "production"
    assert not claims.fresh


def test_genuine_snp_claims_have_cocos_names_and_forms(genuine):
    if "chip" not in genuine.facts:
        return
    evidence, pool = genuine_case(genuine)
    claims, facts = judge(evidence, pool, Request(), genuine.as_of), genuine.facts
    assert claims.measurement["measurement"] == facts["measurement"]
    assert base64.b64decode(claims.values["measurement"]).hex() == facts["measurement"]
    assert claims.values["reported_tcb_snp"] == str(facts["reported_tcb"]["snp"])
    assert claims.values["policy_debug_allowed"] == "false"
    assert claims.values["id_key_digest"] == facts["id_key_digest"]
    assert claims.privilege_level == facts["vmpl"] == claims.values["vmpl"] == 0
    low = facts["reported_tcb"] != facts["current_tcb"]
    assert (claims.values["tcb"]["reported"] != claims.values["tcb"]["current"]) == low


def test_genuine_tdx_carries_its_platform_up(genuine):
    if "mrtd" not in genuine.facts:
        return
    evidence, pool = genuine_case(genuine)
    claims, facts = judge(evidence, pool, Request(), genuine.as_of), genuine.facts
    assert claims.measurement["mrtd"] == facts["mrtd"] == claims.values["quote"]["body"]["mr_td"]
    assert {f"rtmr{i}" for i in range(4)} <= set(claims.measurement)
    assert claims.tcb_status == claims.values["tcb_status"] == facts["tcb_level"][0]
    assert set(facts["tcb_level"][2]) <= set(claims.values["advisory_ids"])
    assert [f.rule for f in claims.cautions] == ["tdx.attributes.septve"]
    assert {f.rule for f in platform.judge(claims) if not f.ok} == {"tdx.attributes.septve", "platform.tcb"}
    assert claims.valid_until == genuine.window[1]


def test_genuine_samples_outside_their_window(genuine):
    evidence, pool = genuine_case(genuine)
    first, last = genuine.window
    for moment in (first - timedelta(seconds=1), last + timedelta(seconds=1)):
        with pytest.raises(Refused) as caught:
            judge(evidence, pool, Request(), moment)
        rules = {f.rule for f in caught.value.findings if not f.ok}
        assert rules - {f.rule for f in judge(evidence, pool, Request(), genuine.as_of).cautions}
        assert all(r.startswith(("snp.vek.validity", "tdx.")) for r in rules)


def test_genuine_nonces_are_compared_whole(genuine):
    evidence, pool = genuine_case(genuine)
    nonce = bytes.fromhex(genuine.facts["tpm_nonce_hex"])
    assert judge(evidence, pool, Request(report_data=nonce), genuine.as_of).fresh
    for other in (nonce[:-1], nonce + b"\0", b"", b"other"):
        with pytest.raises(Refused) as caught:
            judge(evidence, pool, Request(report_data=other), genuine.as_of)
        assert f"{evidence.tee}.quote.nonce" in {f.rule for f in caught.value.findings if not f.ok}


def test_genuine_evidence_without_the_vendors_papers_is_unusable(genuine):
    evidence, _ = genuine_case(genuine)
    with pytest.raises(Unusable, match="without"):
        judge(evidence, Endorsements(), Request(), genuine.as_of)
    with pytest.raises(Refused):  # other things are wrong too: a refusal, and not the lack of papers
        judge(evidence, Endorsements(), Request(report_data=b"other"), genuine.as_of)


@pytest.mark.parametrize("kind", ["snp", "tdx"])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_fake_azure_is_accepted_where_it_is_anchored(kind, version):
    machine = cvm(kind, version=version)
    claims = verify(machine)
    assert all(f.ok for f in (*claims.checks, *platform.judge(claims)))
    assert claims.fresh
    assert claims.memory_encrypted
    assert claims.report_data == ASKED.report_data.hex()
    assert claims.values["hcl"]["evidence_version"] == version
    rules = {f.rule for f in claims.checks}
    assert {f"{machine.tee}.{rule}" for rule in ("runtime_data.binding", "quote.nonce", "initdata")} <= rules
    assert (f"{machine.tee}.runtime_data.user_data" in rules) == (version == 2)
    assert ("snp.signature" if kind == "snp" else "tdx.quote.signature") in rules


RULES = {
    "runtime-data": "runtime_data.binding",
    "foreign-key": "runtime_data.binding",
    "bound-behind": "runtime_data.binding",
    "bound-short": "runtime_data.binding",
    "user-data": "runtime_data.user_data",
    "nonce": "quote.nonce",
    "no-nonce": "quote.nonce",
    "signature": "quote.signature",
    "other-ak": "quote.signature",
    "small-ak": "quote.signature",
    "no-ak": "runtime_data.format",
    "two-aks": "runtime_data.format",
    "magic": "quote.format",
    "type": "quote.format",
    "truncated": "quote.format",
    "pcr-value": "quote.pcrs",
    "pcr-swap": "quote.pcrs",
    "selection": "quote.selection",
    "initdata": "initdata",
    "initdata-twice": "initdata",
    "vmpl": "hcl.vmpl",
    "td-report": "hcl.td_report",
}
ONLY = {"vmpl": "snp", "td-report": "tdx"}


@pytest.mark.parametrize("fault", sorted(BROKEN))
@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_each_fault_is_refused_by_its_rule(kind, fault):
    if ONLY.get(fault, kind) != kind:
        return
    machine = cvm(kind, broken=fault)
    assert f"{machine.tee}.{RULES[fault]}" in failed(machine)


@pytest.mark.parametrize("fault", ["signature", "tcb", "other-root", "vek-expired", "policy-bit", "ask-revoked"])
def test_faults_of_the_chip_are_its_own_rooms(fault):
    machine = FakeCvm(FakeChip(broken=fault))
    rules = failed(machine, request=Request(report_data=b"r" * 48))
    assert rules
    assert all(rule.startswith("snp.") for rule in rules)


@pytest.mark.parametrize("fault", ["quote-signature", "pck-revoked", "tcb-info-signature"])
def test_faults_of_the_trust_domain_are_its_own_rooms(fault):
    from casemate.testing import dcap

    if fault not in dcap.BROKEN:
        pytest.skip(f"known: {sorted(dcap.BROKEN)}")
    machine = FakeCvm(trust_domain(FakePlatform("tdx", broken=fault)))
    rules = failed(machine, request=Request(report_data=b"r" * 48))
    assert rules
    assert all(rule.startswith("tdx.") for rule in rules)


def test_cautions_of_the_hardware_are_carried_up():
    machine = FakeCvm(FakeChip(broken="debug"))
    claims = verify(machine, request=Request())
    assert claims.debug
    assert [f.rule for f in platform.judge(claims) if not f.ok] == ["snp.policy.debug"]
    assert claims.values["policy_debug_allowed"] == "true"


def test_every_failed_rule_of_both_layers_is_told():
    machine = cvm("snp", broken="nonce")
    machine.hardware.fields |= {"vmpl": 3, "policy": 0x10000}
    rules = failed(machine)
    assert {"az-snp-vtpm.quote.nonce", "az-snp-vtpm.hcl.vmpl", "snp.policy.format"} <= rules


def test_a_development_anchor_makes_development_claims():
    claims = verify(FakeCvm(FakeChip(platform_class=DEVELOPMENT)), request=Request())
    assert (claims.platform_class, claims.memory_encrypted) == (DEVELOPMENT, False)


@pytest.mark.parametrize("name", ["sha384", "sha512"])
def test_other_hashes_of_the_runtime_data(name):
    assert verify(cvm("snp", hash=name)).values["hcl"]["runtime_data_hash"] == name


@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_report_data_are_never_padded_or_cut(kind):
    machine = cvm(kind)
    evidence = machine.collect(Request(report_data=b"r" * 31 + b"x"))
    for data in (b"r" * 31, b"r" * 31 + b"x\0", b"", b"r" * 65):
        asked = Request(report_data=data)
        assert f"{machine.tee}.quote.nonce" in failed(machine, evidence, asked)


@pytest.mark.parametrize("digest", [b"", b"i" * 31, b"i" * 33, b"i" * 48])
@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_an_initdata_digest_of_another_hash_is_refused(kind, digest):
    """The peer's verifier breaks down on anything but 32 bytes."""
    machine = FakeCvm(FakeChip() if kind == "snp" else trust_domain())
    assert failed(machine, request=Request(initdata_digest=digest)) == {f"{machine.tee}.initdata"}


def test_initdata_that_came_along_must_be_measured():
    machine = cvm("snp")
    evidence = machine.collect(ASKED)
    other = Evidence(tee=evidence.tee, primary=evidence.primary, initdata=b"another document")
    assert failed(machine, other) == {"az-snp-vtpm.initdata.document"}
    assert failed(machine, other, Request(report_data=ASKED.report_data)) == {"az-snp-vtpm.initdata"}
    assert verify(machine, evidence, Request()).init_data == machine.collect(ASKED).primary["tpm_quote"]["pcrs"][8]


@pytest.mark.parametrize(("kind", "base"), [("snp", "measurement"), ("snp", "id_key_digest"), ("tdx", "mrtd")])
def test_pcrs_alone_are_no_reference(kind, base):
    """Whoever starts a VM of his own on such a CPU chooses the TPM: PCRs count below a known paravisor alone."""
    claims = verify(cvm(kind))
    pcrs = {name: value for name, value in claims.measurement.items() if name.startswith("pcr")}
    values = {"pcr7": pcrs["pcr7"]}
    for wanted, ok in ((pcrs, False), (values, False), (values | {base: claims.measurement[base]}, True)):
        stored = ReferenceValues(name="mine", tee=claims.tee, values=wanted)
        findings = measurement(claims, [stored], pki.NOW)
        assert all(f.ok for f in findings) == ok
        signed = Reference(
            name="mine", format="x", tee=claims.tee, registers={k: OneOf((v,)) for k, v in wanted.items()}
        )
        assert all(f.ok for f in references.compare(claims, [signed])) == ok
        policy = document.Policy(measurement={name: (value,) for name, value in wanted.items()})
        assert all(f.ok for f in document.judge(claims, policy)) == ok
        if not ok:
            assert [f.rule for f in findings] == [f"measurement.{claims.rests_on[0]}"]


def test_evidence_of_another_room_is_unusable():
    machine = cvm("snp")
    evidence = machine.collect(ASKED)
    with pytest.raises(Unusable):
        room("az-tdx-vtpm").verify(evidence, machine.endorsements, ASKED, machine.now)
    primary = evidence.primary | {"td_quote": cvm("tdx").collect(ASKED).primary["td_quote"]}
    renamed = Evidence(tee="az-tdx-vtpm", primary=primary)
    with pytest.raises(Malformed, match="SEV-SNP"):
        room("az-tdx-vtpm").verify(renamed, Endorsements(), ASKED, machine.now)


def test_a_hardware_report_of_another_machine_does_not_fit():
    mine, other = cvm("snp"), cvm("snp", modulus=azure.rsa_key("another").public_key().public_numbers().n)
    one, two = (m.collect(ASKED).primary for m in (mine, other))
    assert "az-snp-vtpm.quote.signature" in failed(
        mine, Evidence(tee=mine.tee, primary=one | {"hcl_report": two["hcl_report"]})
    )


def test_endorse_gathers_the_authorities_of_the_chip():
    machine = cvm("snp")
    chip, asked = machine.hardware, []

    def fetch(url):
        asked.append(url)
        return pki.pem(chip.ask.certificate, chip.ark.certificate) if "chain" in url else chip.ark.crl()

    evidence = machine.collect(ASKED)
    found = room(machine.tee).endorse(evidence, fetch)
    assert [url.rpartition("/")[2] for url in asked] == ["cert_chain", "crl"]  # the VCEK is in the evidence
    merged = Endorsements(
        anchors=machine.endorsements.anchors, certificates=found.certificates, collateral=found.collateral
    )
    assert verify(machine, evidence, endorsements=merged).values["revocation"] == "partly checked"


def test_a_vcek_may_come_from_amd():
    """Evidence without it is judged with one from elsewhere, and `endorse` asks for it by chip and TCB."""
    machine = cvm("snp")
    chip, asked = machine.hardware, []
    evidence = machine.collect(ASKED)
    bare = Evidence(tee=evidence.tee, primary={k: v for k, v in evidence.primary.items() if k != "vcek"})
    with pytest.raises(Unusable, match="vek"):
        verify(machine, bare)

    def fetch(url):
        asked.append(url)
        if "chain" in url:
            return (azure.pem(chip.ask.certificate) + azure.pem(chip.ark.certificate)).encode()
        return chip.ark.crl() if url.endswith("crl") else dict(chip.chain)["VCEK"]

    found = room(machine.tee).endorse(bare, fetch)
    assert "/vcek/v1/Milan/7777" in asked[0]
    merged = Endorsements(anchors=machine.endorsements.anchors, certificates=found.certificates)
    assert verify(machine, bare, endorsements=merged).values["signing_key"] == "VCEK"


def test_endorse_asks_intel_for_the_quotes_collateral():
    machine, asked = cvm("tdx"), []

    def fetch(url):
        asked.append(url)
        raise Unusable("offline")

    with pytest.raises(Unusable, match="offline"):
        room(machine.tee).endorse(machine.collect(ASKED), fetch)
    assert "/tdx/certification/v4/tcb?fmspc=" in asked[0]


@pytest.mark.parametrize("tee", ["az-snp-vtpm", "az-tdx-vtpm"])
def test_what_azure_does_itself_is_unusable(tee):
    with pytest.raises(Unusable):
        room(tee).machine(None)
    with pytest.raises(Unusable):
        room(tee).measure(None)
    assert room(tee).request(b"nonce", b"") == Request(report_data=b"nonce")


PRIMARY = FakeCvm().collect(Request()).primary


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3}, {"version": 0}, {"version": True}, {"version": "1"}, {"version": 1.0}, {"version": None},
        {"tpm_quote": None}, {"tpm_quote": {}}, {"hcl_report": None}, {"hcl_report": "!"}, {"hcl_report": "AA="},
        {"hcl_report": "A" * 40000}, {"hcl_report": ""}, {"hcl_report": [256]}, {"hcl_report": [True]}, {"vcek": 1},
        {"vcek": "-----BEGIN CERTIFICATE-----"}, {"vcek": "A" * 20000},
        {"tpm_quote": PRIMARY["tpm_quote"] | {"pcrs": ["00" * 32] * 25}},
        {"tpm_quote": PRIMARY["tpm_quote"] | {"pcrs": ["00" * 31]}},
        {"tpm_quote": PRIMARY["tpm_quote"] | {"pcrs": "00"}},
        {"tpm_quote": PRIMARY["tpm_quote"] | {"message": "0g"}},
        {"tpm_quote": PRIMARY["tpm_quote"] | {"signature": "00" * 600}},
    ],
)  # fmt: skip
def test_malformed_evidence(change):
    with pytest.raises(Malformed):
        room("az-snp-vtpm").verify(
            Evidence(tee="az-snp-vtpm", primary=PRIMARY | change), Endorsements(), Request(), pki.NOW
        )


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}', b'{"keys":[{"kid":"HCLAkPub"}]}',
        b'{"keys":[{"kid":"HCLAkPub","kty":"EC","n":"AQAB","e":"AQAB"}]}',
        b'{"keys":[{"kid":"HCLAkPub","kty":"RSA","n":"AQAB","e":"Aw"}]}',
        b'{"keys":[{"kid":"HCLAkPub","kty":"RSA","n":"AQAB","e":"AQAB","key_ops":["encrypt"]}]}',
        b'{"keys":[{"kid":"HCLAkPub","kty":"RSA","n":"AQAB","e":"AQAB","key_ops":1}]}',
        b'{"keys":[{"kid":"HCLAkPub","kty":"RSA","n":"AQAB","e":"AQAB"}],"user-data":"' + b"00" * 65 + b'"}',
        b'{"keys":[{"kid":"HCLAkPub","kty":"RSA","n":"AQAB","e":"AQAB"}],"user-data":"x"}',
    ],
)  # fmt: skip
def test_malformed_runtime_data(data):
    with pytest.raises(Malformed):
        wire.parse_runtime_data(data)


REPORT = FakeCvm().hcl_report(b"")


def test_padding_behind_the_runtime_data_is_no_part_of_them():
    assert wire.parse(REPORT + b"old bytes of the index", wire.SNP) == wire.parse(REPORT, wire.SNP)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"hcla"), (4, b"\3\0\0\0"), (1224, b"\1"), (1228, b"\0"), (1228, b"\4"), (1232, b"\xff\xff\xff\xff"),
     (1232, b"\xff\x1f\0\0")],
)  # fmt: skip
def test_malformed_reports(offset, value):
    with pytest.raises(Malformed):
        wire.parse(REPORT[:offset] + value + REPORT[offset + len(value) :], wire.SNP)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=64), st.integers(0, len(REPORT)), st.integers(0, 40))
def test_fuzz_reports_only_malformed(data, at, cut):
    for changed in (data, REPORT[:at] + data + REPORT[at + cut :], REPORT[:at]):
        for kind in (wire.SNP, wire.TDX):
            wire.kind_of(changed)
            try:
                wire.parse_runtime_data(wire.parse(changed, kind).runtime_data)
            except Malformed:
                continue


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=4)
            | st.dictionaries(st.sampled_from(["pcrs", "message", "signature", "keys", "kid"]), x)
        ),
    ),
    st.sampled_from(["version", "tpm_quote", "hcl_report", "vcek", "quote", "report"]),
)
def test_fuzz_evidence_only_malformed(value, name):
    for primary in (PRIMARY | {name: value}, {name: value}):
        try:
            wire.parse_evidence(primary, "vcek")
        except Malformed:
            continue


MACHINE = FakeCvm(version=2)
EVIDENCE = MACHINE.collect(ASKED)
HCL = base64.urlsafe_b64decode(EVIDENCE.primary["hcl_report"])


@settings(deadline=None, max_examples=100)
@given(st.integers(0, len(HCL) - 1), st.integers(1, 255))
def test_fuzz_a_changed_report_is_refused_or_the_same(at, bits):
    changed = HCL[:at] + bytes([HCL[at] ^ bits]) + HCL[at + 1 :]
    primary = EVIDENCE.primary | {"hcl_report": base64.urlsafe_b64encode(changed).decode()}
    asked = Request(report_data=ASKED.report_data)
    try:
        claims = verify(MACHINE, Evidence(tee=MACHINE.tee, primary=primary), asked)
    except (Malformed, Refused):
        return
    genuine = verify(MACHINE, EVIDENCE, asked)
    claims.values["hcl"]["version"] = genuine.values["hcl"]["version"]  # the header is nobody's word
    assert claims == genuine
