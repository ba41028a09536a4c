import json
import warnings
from datetime import timedelta

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.crypto import chain, pem
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import DEVELOPMENT, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import snp
from casemate.tee.snp import report, vek, wire
from casemate.testing.snp import BROKEN, FakeChip
from casemate.wire.encoding import b64

TEE = "snp"
ASKED = Request(report_data=b"r" * 48, initdata_digest=b"i" * 32)
CAUTIONS = {"debug", "migration", "migration-agent", "policy-unknown", "tcb-order"}


def evidence(raw: bytes) -> Evidence:
    return Evidence(tee="snp", primary={"attestation_report": b64(raw)})


def coco(raw: bytes) -> Evidence:
    return Evidence(tee="snp", primary=json.loads(json.dumps(wire.to_json(raw, []))))


def failed(given_evidence, endorsements, request, now):
    with pytest.raises(Refused) as caught:
        snp.verify(given_evidence, endorsements, request, now)
    return {f.rule.removeprefix("snp.") for f in caught.value.findings if not f.ok}


def bundles(genuine):
    """Endorsements for each VEK that a sample has, with AMD's chain."""
    for path in sorted(genuine.folder.glob("vek*")):
        certificates: list[bytes] = []
        for file in (path, *sorted(genuine.folder.glob("a*k*.pem"))):
            data = file.read_bytes()
            certificates += [data] if file.suffix == ".der" else pem.certificates(data)
        yield Endorsements(certificates=tuple(dict.fromkeys(certificates)))


def test_genuine_samples_reach_their_verdict(genuine):
    raw = genuine.read("report.bin")
    for endorsements in bundles(genuine):
        if genuine.verdict == "refused":
            rules = failed(evidence(raw), endorsements, Request(), genuine.as_of)
            assert {"vek.chain", "signature", "vek.tcb", "vek.chip"} <= rules
            continue
        for form in (evidence(raw), coco(raw)):
            claims = snp.verify(form, endorsements, Request(), genuine.as_of)
            assert ("accepted" if all(f.ok for f in platform.judge(claims)) else "refused") == genuine.verdict
        facts, values = genuine.facts, claims.values
        assert values["version"] == facts["report_version"]
        assert values["product"].lower() == facts["chip"]
        assert values["signing_key"] == facts["signing_key"]
        assert claims.privilege_level == values["vmpl"] == facts["vmpl"]
        assert values["guest_svn"] == facts["guest_svn"]
        assert values["policy"] == facts["policy"]["hex"]
        assert f"{values['policy_abi_major']}.{values['policy_abi_minor']}" == facts["policy"]["abi"]
        assert claims.measurement == {"measurement": facts["measurement"]}
        assert claims.report_data == facts["report_data"]
        assert claims.init_data == facts["host_data"]
        assert values["id_key_digest"] == facts["id_key_digest"]
        assert values["chip_id"] == facts["chip_id"]
        assert values["platform_info"] == facts["platform_info"]
        assert values["provider"] == facts.get("vlek_csp_id")
        spelt = {"bootloader": "bl", "tee": "tee", "snp": "snp", "microcode": "ucode", "fmc": "fmc"}
        for which, levels in values["tcb"].items():
            assert {spelt[name]: value for name, value in levels.items()} == facts[f"{which}_tcb"]


def test_genuine_samples_outside_their_window(genuine):
    if genuine.verdict != "accepted":
        return
    for endorsements in bundles(genuine):
        claims = snp.verify(evidence(genuine.read("report.bin")), endorsements, Request(), genuine.as_of)
        late = claims.valid_until + timedelta(seconds=1)
        assert failed(evidence(genuine.read("report.bin")), endorsements, Request(), late) == {"vek.validity"}
        early = failed(evidence(genuine.read("report.bin")), endorsements, Request(), genuine.as_of.replace(year=2019))
        assert early == {"vek.validity"}


def test_genuine_bindings(genuine):
    if genuine.verdict != "accepted":
        return
    endorsements = next(bundles(genuine))
    raw, facts = genuine.read("report.bin"), genuine.facts
    asked = Request(report_data=bytes.fromhex(facts["report_data"]), initdata_digest=bytes.fromhex(facts["host_data"]))
    assert snp.verify(evidence(raw), endorsements, asked, genuine.as_of).fresh
    other = Request(report_data=b"other", initdata_digest=b"o" * 32)
    assert failed(evidence(raw), endorsements, other, genuine.as_of) == {"report_data", "initdata"}


def test_a_floor_of_committed_tcb_can_be_asked_of_the_claims(genuine):
    if genuine.id != "snp/milan-v3-dstack-measured":
        return
    claims = snp.verify(evidence(genuine.read("report.bin")), next(bundles(genuine)), Request(), genuine.as_of)
    assert claims.values["tcb"]["reported"]["snp"] < claims.values["tcb"]["committed"]["snp"]


def test_every_flipped_byte_of_a_genuine_report_is_refused(genuine):
    if genuine.id != "snp/turin-v5":
        return
    raw, endorsements = genuine.read("report.bin"), next(bundles(genuine))
    accepted = []
    for offset in [*range(0, report.SIGNED, 29), *range(report.SIGNED, report.SIZE, 17)]:
        changed = raw[:offset] + bytes([raw[offset] ^ 1]) + raw[offset + 1 :]
        try:
            snp.verify(evidence(changed), endorsements, Request(), genuine.as_of)
            accepted.append(offset)
        except (Malformed, Refused):
            pass
    assert accepted == []


def test_flipped_bytes_of_a_genuine_certificate_are_refused(genuine):
    if genuine.id != "snp/milan-v2-coco":
        return
    raw, endorsements = genuine.read("report.bin"), next(bundles(genuine))
    certificates = endorsements.certificates
    for which in range(3):
        der = certificates[which]
        for offset in range(0, len(der), 53):
            changed = der[:offset] + bytes([der[offset] ^ 1]) + der[offset + 1 :]
            pool = Endorsements(certificates=(*certificates[:which], changed, *certificates[which + 1 :]))
            with pytest.raises((Malformed, Refused, Unusable)):
                snp.verify(evidence(raw), pool, Request(), genuine.as_of)


def test_serial_number_zero_when_the_library_refuses_it(genuine, monkeypatch):
    """What `cryptography` announces: loading a certificate with serial number 0 raises."""
    if genuine.id != "snp/genoa-v3-aci":
        return
    real = x509.load_der_x509_certificate

    def strict(data, *args):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = real(data, *args)
            if found.serial_number == 0:
                raise ValueError("serial number 0")
        return found

    monkeypatch.setattr(x509, "load_der_x509_certificate", strict)
    for cache in (chain._load, chain._issued_bytes, vek.read):
        cache.cache_clear()
    with pytest.raises(ValueError, match="serial"):
        x509.load_der_x509_certificate(next(bundles(genuine)).certificates[0])
    claims = snp.verify(evidence(genuine.read("report.bin")), next(bundles(genuine)), Request(), genuine.as_of)
    assert claims.vouched_by == "AMD ARK-Genoa"


@pytest.mark.parametrize(
    ("product", "version", "vlek"),
    [("Milan", 2, False), ("Milan", 3, False), ("Milan", 5, True), ("Genoa", 3, False), ("Genoa", 4, True),
     ("Turin", 3, False), ("Turin", 5, False), ("Turin", 5, True)],
)  # fmt: skip
@pytest.mark.parametrize("raw", [False, True])
def test_a_fake_vendor_is_accepted_where_it_is_anchored(product, version, vlek, raw):
    chip = FakeChip(product, version=version, vlek=vlek)
    claims = snp.verify(chip.collect(ASKED, raw=raw), chip.endorsements, ASKED, chip.now)
    assert claims.fresh
    assert claims.cautions == ()
    assert claims.memory_encrypted
    assert claims.values["product"] == product
    assert claims.init_data == ASKED.initdata_digest.hex()
    assert all(f.ok for f in (*claims.checks, *platform.judge(claims)))
    assert {f.rule for f in claims.checks} >= {"snp.signature", "snp.vek.tcb", "snp.vek.chain", "snp.report_data"}


RULES = {
    "signature": {"signature"},
    "other-key": {"signature"},
    "algorithm": {"signature"},
    "other-root": {"vek.chain"},
    "not-anchored": {"vek.chain"},
    "vek-expired": {"vek.validity"},
    "vek-not-yet-valid": {"vek.validity"},
    "vek-no-extensions": {"vek.format"},
    "vek-as-authority": {"vek.chain"},
    "wrong-authority": {"vek.kind"},
    "ask-revoked": {"vek.revoked"},
    "stale-list": {"vek.revoked"},
    "foreign-list": {"vek.revocation"},
    "no-ask": {"vek.chain"},
    "tcb": {"vek.tcb"},
    "microcode": {"vek.tcb"},
    "chip": {"vek.chip"},
    "product": {"vek.product"},
    "cpuid": {"vek.product"},
    "key-kind": {"vek.kind"},
    "key-none": {"vek.kind"},
    "host-asked": {"report.vmpl"},
    "policy-bit": {"policy.format"},
    "smt": {"policy.platform"},
    "ciphertext-hiding": {"policy.platform"},
}


@pytest.mark.parametrize("fault", sorted(set(BROKEN) - CAUTIONS))
def test_each_fault_is_refused_by_its_rule(fault):
    chip = FakeChip(broken=fault)
    assert failed(chip.collect(ASKED), chip.endorsements, ASKED, chip.now) >= RULES[fault]


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("debug", "snp.policy.debug"),
        ("migration", "snp.policy.migration"),
        ("migration-agent", "snp.policy.migration"),
        ("policy-unknown", "snp.policy.unknown"),
        ("tcb-order", "snp.tcb.order"),
    ],
)
def test_unsafe_properties_are_cautions(fault, rule):
    chip = FakeChip(broken=fault)
    claims = snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)
    assert [f.rule for f in platform.judge(claims) if not f.ok] == [rule]
    assert claims.debug == (fault == "debug")
    accepting = platform.PlatformPolicy(cautions=frozenset({rule}))
    assert all(f.ok for f in platform.judge(claims, accepting))


def test_privilege_is_shown_and_can_be_demanded():
    chip = FakeChip(fields={"vmpl": 2})
    claims = snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)
    assert claims.privilege_level == 2
    assert all(f.ok for f in platform.judge(claims))
    strict = platform.PlatformPolicy(max_privilege_level=0)
    assert [f.rule for f in platform.judge(claims, strict) if not f.ok] == ["platform.privilege"]


def test_a_current_list_is_counted():
    chip = FakeChip()
    lists = Endorsements(anchors=chip.endorsements.anchors, collateral={"ark.crl": chip.ark.crl()})
    claims = snp.verify(chip.collect(ASKED), lists, ASKED, chip.now)
    assert claims.values["revocation"] == "partly checked"
    assert claims.valid_until == chip.now + timedelta(days=30)


def test_a_pool_with_the_authorities_of_every_product():
    from casemate.testing.snp import authorities

    pool = tuple(a.certificate for product in ("Genoa", "Turin", "Milan") for a in authorities(product))
    for product in ("Milan", "Genoa", "Turin"):
        chip = FakeChip(product)
        chip.parts.dropped = ("ASK", "ARK")
        everything = Endorsements(anchors=chip.endorsements.anchors, certificates=pool)
        assert snp.verify(chip.collect(ASKED), everything, ASKED, chip.now).values["product"] == product


def test_a_list_from_the_attester_is_left_aside():
    chip = FakeChip()
    given_evidence = chip.collect(ASKED)
    given_evidence.primary["cert_chain"].append({"cert_type": "CRL", "data": b64(b"no list")})
    assert snp.verify(given_evidence, chip.endorsements, ASKED, chip.now).values["revocation"] == "not checked"


def test_an_empty_question_is_no_question():
    chip = FakeChip()
    nothing = Request(report_data=b"", initdata_digest=b"")
    assert failed(chip.collect(Request()), chip.endorsements, nothing, chip.now) == {"report_data", "initdata"}


def test_a_masked_chip_id_is_told():
    chip = FakeChip(fields={"chip_id": bytes(64)})
    claims = snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)
    assert any(f.rule == "snp.vek.chip" and "masked" in f.found for f in claims.checks)


def test_a_hardware_id_inside_an_octet_string():
    chip = FakeChip()
    chip.parts.hardware_wrapped = True
    assert snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)


@pytest.mark.parametrize("dropped", [("VCEK",), ("ARK", "ASK")])
def test_missing_certificates_are_named(dropped):
    chip = FakeChip()
    chip.parts.dropped = dropped
    chip.parts.no_anchor = True
    with pytest.raises(Unusable, match="without"):
        snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)


def test_an_anchor_for_another_tee_does_not_count():
    chip = FakeChip()
    anchor = Anchor(certificate=chip.ark.certificate, tees=("tdx",))
    assert "vek.chain" in failed(chip.collect(ASKED), Endorsements(anchors=(anchor,)), ASKED, chip.now)


def test_a_development_anchor_makes_development_claims():
    chip = FakeChip(platform_class=DEVELOPMENT)
    claims = snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)
    assert (claims.platform_class, claims.memory_encrypted) == (DEVELOPMENT, False)


def test_every_failed_rule_is_told():
    chip = FakeChip(broken="tcb", fields={"policy": 0xB0000, "vmpl": 9})
    rules = failed(chip.collect(Request()), chip.endorsements, ASKED, chip.now)
    assert rules == {"vek.tcb", "report.vmpl", "policy.debug", "report_data", "initdata"}


def test_both_forms_carry_the_same_report():
    raw = FakeChip("Turin", version=5).report(ASKED)
    assert wire.parse_evidence(coco(raw).primary)[0] == raw
    assert wire.parse_evidence(evidence(raw).primary)[0] == raw


def table(*entries: tuple[bytes, bytes]) -> bytes:
    start = 24 * (len(entries) + 1)
    head, body = b"", b""
    for guid, data in entries:
        head += guid + (start + len(body)).to_bytes(4, "little") + len(data).to_bytes(4, "little")
        body += data
    return head + bytes(24) + body


VCEK_GUID = bytes.fromhex("63da758de6644564adc5f4b93be8accd")


def test_the_certificate_table_of_the_host():
    mixed = bytes.fromhex("8d75da6364e66445adc5f4b93be8accd")
    for guid in (VCEK_GUID, mixed):
        assert report.certificate_table(table((guid, b"der"), (b"\1" * 16, b"else"))) == [("VCEK", b"der")]
    assert report.certificate_table(b"") == []
    with pytest.raises(Malformed):
        report.certificate_table(table((VCEK_GUID, b"der"))[:-1])


def test_collect_from_a_stand_in_of_the_kernel(tmp_path, monkeypatch):
    from casemate.tee.snp.collect import collect

    chip = FakeChip()
    aux = table((VCEK_GUID, dict(chip.chain)["VCEK"]))
    make, write = type(tmp_path).mkdir, type(tmp_path).write_bytes

    def mkdir(self, *args, **kwargs):
        make(self, *args, **kwargs)
        for name, content in (("provider", b"sev_guest\n"), ("generation", b"0\n"), ("auxblob", aux), ("outblob", b"")):
            write(self / name, content)

    def write_bytes(self, data):
        if self.name == "inblob":
            write(self.parent / "generation", b"1\n")
            write(self.parent / "outblob", chip.report(Request(report_data=data, initdata_digest=b"i" * 32)))
        return write(self, data)

    monkeypatch.setattr(type(tmp_path), "mkdir", mkdir)
    monkeypatch.setattr(type(tmp_path), "write_bytes", write_bytes)
    found = collect(ASKED, reports=tmp_path)
    pool = Endorsements(anchors=chip.endorsements.anchors, certificates=(chip.ask.certificate, chip.ark.certificate))
    assert snp.verify(found, pool, ASKED, chip.now).fresh


def test_endorse_asks_the_service_by_chip_and_tcb():
    chip = FakeChip("Turin", version=5)
    asked = []

    def fetch(url):
        asked.append(url)
        if url.endswith("/cert_chain"):
            from casemate.testing import pki

            return pki.pem(chip.ask.certificate, chip.ark.certificate)
        return chip.ark.crl() if url.endswith("/crl") else dict(chip.chain)["VCEK"]

    given_evidence = evidence(chip.report(ASKED))
    found = snp.endorse(given_evidence, fetch)
    assert asked[0].endswith("/vcek/v1/Turin/7777777777777777?fmcSPL=01&blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=217")
    merged = Endorsements(
        anchors=chip.endorsements.anchors, certificates=found.certificates, collateral=found.collateral
    )
    assert snp.verify(given_evidence, merged, ASKED, chip.now)


def test_endorse_of_version_2_tries_the_products_and_a_vlek_must_be_given():
    chip = FakeChip(version=2)

    def fetch(url):
        if "/Milan/" in url:
            raise Unavailable("not there")
        raise Unavailable("nor there")

    with pytest.raises(Unavailable, match="nor"):
        snp.endorse(evidence(chip.report(ASKED)), fetch)
    with pytest.raises(Unusable, match="VLEK"):
        snp.endorse(evidence(FakeChip(vlek=True).report(ASKED)), fetch)


@pytest.mark.parametrize(
    "primary",
    [
        {}, {"attestation_report": 1}, {"attestation_report": "!"}, {"attestation_report": "AAAA"},
        {"attestation_report": {}}, {"attestation_report": b64(bytes(1184))},
        {"attestation_report": b64(b"\6" + bytes(1183))},
        {"attestation_report": b64(b"\2" + bytes(1183)), "cert_chain": [{}]},
        {"attestation_report": b64(b"\2" + bytes(1183)), "cert_chain": [{"cert_type": "VCEK", "data": [1]}] * 9},
        {"attestation_report": b64(b"\2" + bytes(1183)), "cert_chain": [{"cert_type": "VCEK", "data": [256]}]},
    ],
)  # fmt: skip
def test_malformed_evidence(primary):
    with pytest.raises(Malformed):
        snp.verify(Evidence(tee="snp", primary=primary), Endorsements(), Request(), FakeChip().now)


@pytest.mark.parametrize(
    "change",
    [
        {"report_data": [0] * 63}, {"policy": -1}, {"policy": 2**64}, {"vmpl": 2**32},
        {"signature": {"r": [0], "s": [0]}}, {"current_tcb": {}},
        {"chip_id": "x"}, {"cpuid_fam_id": 256}, {"launch_mit_vector": 2**70},
    ],
)  # fmt: skip
def test_malformed_json_reports(change):
    primary = FakeChip().collect(ASKED).primary
    primary["attestation_report"] |= change
    with pytest.raises(Malformed):
        snp.verify(Evidence(tee="snp", primary=primary), Endorsements(), Request(), FakeChip().now)


CHIP = FakeChip()
RAW = CHIP.report(ASKED)
CHAIN = CHIP.chain


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_fuzz_reports_only_malformed_or_refused(data):
    at = data.draw(st.integers(0, len(RAW) - 1))
    changed = RAW[:at] + bytes([RAW[at] ^ data.draw(st.integers(1, 255))]) + RAW[at + 1 :]
    primary = {"attestation_report": b64(changed), "cert_chain": [{"cert_type": k, "data": b64(d)} for k, d in CHAIN]}
    with pytest.raises((Malformed, Refused)):
        snp.verify(Evidence(tee="snp", primary=primary), CHIP.endorsements, ASKED, CHIP.now)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2), st.data())
def test_fuzz_certificates_only_malformed_refused_or_unusable(which, data):
    kind, der = CHAIN[which]
    at = data.draw(st.integers(0, len(der) - 1))
    changed = der[:at] + data.draw(st.binary(max_size=3)) + der[at + data.draw(st.integers(0, 3)) :]
    entries = [*CHAIN[:which], (kind, changed), *CHAIN[which + 1 :]]
    primary = {"attestation_report": b64(RAW), "cert_chain": [{"cert_type": k, "data": b64(d)} for k, d in entries]}
    try:
        snp.verify(Evidence(tee="snp", primary=primary), CHIP.endorsements, ASKED, CHIP.now)
    except (Malformed, Refused, Unusable):
        return
    # The anchor itself is the root here, so the copy that was sent does not matter.
    assert changed == der or which == 2


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.text(max_size=5), x)
    )
)
def test_fuzz_json_only_malformed(value):
    for primary in ({"attestation_report": value}, {"attestation_report": b64(RAW), "cert_chain": value}):
        try:
            wire.parse_evidence(primary)
        except Malformed:
            continue
