"""Hygon CSV: the published report, a fake vendor's faults, CoCo's forms, the driver's stand-in, fuzzing."""

import ctypes
import errno
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.crypto import sm3
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import DEVELOPMENT, PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.launch import Launch
from casemate.schema.request import Request
from casemate.tee import csv, gatherer, room
from casemate.tee.csv import report as wire
from casemate.tee.csv import wire as json_wire
from casemate.tee.csv.collect import present
from casemate.tee.files import File, sort
from casemate.testing.csv import BROKEN, FakeHygon, Signer, authority, certificate, restored
from casemate.testing.pki import NOW
from casemate.wire.encoding import b64

TEE = "hygon-csv"
ASKED = Request(report_data=b"q" * 48)
SHARED_CAUTIONS = {"csv.policy.key_sharing", "csv.policy.registers", "csv.policy.migration"}
RULES = {
    "other-root": {"csv.root", "csv.chain.hsk"},
    "root-not-self-signed": {"csv.root"},
    "other-hsk": {"csv.chain.cek"},
    "hsk-usage": {"csv.chain.hsk"},
    "hsk-names-another": {"csv.chain.hsk"},
    "hsk-as-root": {"csv.chain.hsk"},
    "cek-by-root": {"csv.chain.cek"},
    "cek-usage": {"csv.chain.cek"},
    "cek-names-another": {"csv.chain.cek"},
    "pek-usage": {"csv.chain.pek"},
    "pek-of-owner": {"csv.chain.pek"},
    "pek-other-chip": {"csv.chain.pek"},
    "other-key": {"csv.signature"},
    "signature": {"csv.signature"},
    "signer": {"csv.report.signer"},
    "mac": {"csv.mac"},
    "report-data": {"csv.report_data"},
    "rtmr": {"csv.rtmr"},
    "debug": {"csv.policy.debug"},
    "key-sharing": {"csv.policy.key_sharing"},
    "registers": {"csv.policy.registers"},
    "migration": {"csv.policy.migration"},
}


def given_report(data: bytes, **chain) -> Evidence:
    return Evidence(tee="csv", primary={"attestation_report": b64(data), "cert_chain": chain})


def failed(evidence, endorsements, request=ASKED):
    with pytest.raises(Refused) as caught:
        csv.verify(evidence, endorsements, request, NOW)
    return {f.rule for f in caught.value.findings if not f.ok}


def test_the_published_report_reaches_its_facts(genuine):
    papers = {"hsk_cek": genuine.read("hsk_cek.bin"), "hrk": genuine.read("hrk.bin")}
    evidence, facts = given_report(genuine.read("report.bin")), genuine.facts
    asked = Request(report_data=facts["user_data"].encode())
    claims = csv.verify(evidence, Endorsements(collateral=papers), asked, genuine.as_of)
    assert claims.measurement == {"measure": facts["measure"]}
    assert {n: claims.values[n] for n in ("vm_id", "anonce", "mnonce")} == {
        n: facts[n] for n in ("vm_id", "anonce", "mnonce")
    }
    assert claims.values["serial_number"] == facts["serial"]
    policy, usage = int(facts["policy"], 16), int(facts["sig_usage"], 16)
    assert claims.values["sig_usage"] == usage.to_bytes(4, "little").hex()
    assert claims.values["policy"]["nodbg"] == policy & 1
    assert claims.values["policy"]["api_minor"] == policy >> 24
    assert (claims.platform_class, claims.vouched_by, claims.debug) == (PRODUCTION, "Hygon HRK", False)
    assert claims.values["mac"] == "checked"
    assert {"csv.root", "csv.chain.hsk", "csv.chain.cek", "csv.chain.pek", "csv.signature", "csv.mac"} <= {
        f.rule for f in claims.checks
    }
    assert {f.rule for f in platform.judge(claims) if not f.ok} == SHARED_CAUTIONS
    lenient = platform.PlatformPolicy(cautions=frozenset(SHARED_CAUTIONS))
    assert all(f.ok for f in platform.judge(claims, lenient))


def test_the_published_report_without_its_root_or_papers(genuine):
    evidence, pair = given_report(genuine.read("report.bin")), genuine.read("hsk_cek.bin")
    assert csv.verify(evidence, Endorsements(collateral={"hsk_cek": pair}), Request(), NOW).vouched_by == "Hygon HRK"
    with pytest.raises(Unusable, match="hsk_cek"):
        csv.verify(evidence, Endorsements(), Request(), NOW)
    rules = failed(evidence, Endorsements(), Request(report_data=b"another"))
    assert rules - SHARED_CAUTIONS == {"csv.report_data", "csv.certificates.hsk_cek"}
    inside = given_report(genuine.read("report.bin"), hsk_cek=b64(pair))
    assert csv.verify(inside, Endorsements(), Request(), NOW)


@pytest.mark.parametrize("through_library", [False, True])
def test_the_published_report_in_cocos_form(genuine, through_library):
    pair, data = genuine.read("hsk_cek.bin"), genuine.read("report.bin")
    report = wire.parse(data)
    primary = {
        "attestation_report": {
            "magic": [0] * 16,
            "flags": 0,
            "data": list(restored(data) if through_library else data.ljust(wire.PAGE, b"\0")),
        },
        "cert_chain": {
            "hsk_cek": {
                "hsk": json_wire.authority_json(pair[: wire.CA_SIZE]),
                "cek": json_wire.certificate_json(pair[wire.CA_SIZE :]),
            },
            "pek": json_wire.certificate_json(report.pek.raw),
        },
        "serial_number": list(report.serial_number),
    }
    claims = csv.verify(Evidence(tee="csv", primary=primary), Endorsements(), Request(), NOW)
    assert claims.measurement == {"measure": genuine.facts["measure"]}
    assert claims.values["serial_number"] == genuine.facts["serial"]
    assert (claims.values["mac"] == "checked") != through_library


@pytest.mark.parametrize("version", [1, 2])
def test_a_fake_chip_is_accepted(version):
    chip = FakeHygon(version=version)
    claims = csv.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)
    assert all(f.ok for f in platform.judge(claims))
    assert claims.fresh
    assert claims.memory_encrypted
    assert claims.report_data == (b"q" * 48).ljust(64, b"\0").hex()
    assert claims.values["version"] == str(version)
    if version == 2:
        assert claims.measurement["rtmr0"] == claims.measurement["measure"]
        assert claims.measurement["rtmr3"] == b"3".hex() * 32
        assert claims.values["build"] == 2400


def test_every_fault_has_its_rule():
    assert set(RULES) == set(BROKEN)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_fault_is_refused_by_its_rule(broken, version):
    if broken == "rtmr" and version == 1:
        return  # version 1 has no registers
    chip = FakeHygon(version=version, broken=broken)
    evidence = chip.collect(ASKED)
    if broken in ("debug", "key-sharing", "registers", "migration"):
        claims = csv.verify(evidence, chip.endorsements, ASKED, chip.now)
        assert {f.rule for f in platform.judge(claims) if not f.ok} == RULES[broken]
        assert claims.debug == (broken == "debug")
    else:
        assert failed(evidence, chip.endorsements) == RULES[broken]


def test_trap_2_short_or_long_report_data_never_matches():
    chip = FakeHygon()
    evidence = chip.collect(Request(report_data=b"q" * 31 + b"x"))
    for data in (b"q" * 31, b"", b"q" * 65):
        assert failed(evidence, chip.endorsements, Request(report_data=data)) == {"csv.report_data"}


def test_trap_13_only_pinned_roots_and_anchors_for_csv_count():
    chip = FakeHygon()
    papers = chip.endorsements.collateral
    assert failed(chip.collect(ASKED), Endorsements(collateral=papers)) == {"csv.root", "csv.chain.hsk"}
    other = Anchor(certificate=chip.anchor, tees=("tpm", "snp"))
    foreign = Endorsements(collateral=papers, anchors=(other,))
    assert "csv.chain.hsk" in failed(chip.collect(ASKED), foreign)
    development = FakeHygon(platform_class=DEVELOPMENT)
    claims = csv.verify(development.collect(ASKED), development.endorsements, ASKED, NOW)
    assert not claims.memory_encrypted
    assert {f.rule for f in platform.judge(claims) if not f.ok} == {"platform.class"}


def test_trap_14_every_weak_policy_bit_is_told():
    chip = FakeHygon(policy=0)
    claims = csv.verify(chip.collect(ASKED), chip.endorsements, ASKED, NOW)
    assert {f.rule for f in platform.judge(claims) if not f.ok} == SHARED_CAUTIONS | {"csv.policy.debug"}


def test_trap_26_another_mask_shows_another_measurement():
    """Version 1 leaves its anonce unsigned: what an attacker gains in the policy he loses in the measurement."""
    chip = FakeHygon(policy=0)
    raw = bytearray(chip.report(b"q" * 48))
    twist = (0b1111).to_bytes(4, "little")
    anonce = wire.unmask(bytes(raw[0xBC:0xC0]), twist)
    plain_pek = chip.papers["pek"]
    raw[0xB4:0xBC] = wire.unmask(bytes(raw[0xB4:0xBC]), twist)  # sig_usage and sig_algo are not signed either
    raw[0xBC:0xC0] = anonce
    signer = wire.INFO_1
    raw[signer : signer + wire.CERTIFICATE_SIZE] = wire.unmask(plain_pek, anonce)
    mnonce = wire.unmask(bytes(raw[0x80:0x90]), anonce)
    raw[-32:] = sm3.mac(mnonce, bytes(raw[signer:-32]))
    claims = csv.verify(given_report(bytes(raw)), chip.endorsements, Request(), NOW)
    assert claims.values["policy"]["nodbg"] == 1  # forged
    assert claims.measurement["measure"] != chip.measure.hex()  # and shown to be
    assert failed(given_report(bytes(raw)), chip.endorsements, Request(report_data=b"q" * 48)) == {"csv.report_data"}


def test_initdata_cannot_be_bound():
    chip = FakeHygon()
    asked = Request(report_data=ASKED.report_data, initdata_digest=b"i" * 32)
    assert failed(chip.collect(asked), chip.endorsements, asked) == {"csv.initdata"}


def coco(chip: FakeHygon, data: bytes, *, pair: bool = True) -> dict:
    version = chip.version
    return {
        "attestation_report": {
            "magic": list(bytes(16) if version == 1 else json_wire.EXTENDED),
            "flags": version - 1,
            "data": list(data.ljust(wire.PAGE, b"\0")),
        },
        "cert_chain": {
            "pek": json_wire.certificate_json(chip.papers["pek"]),
            "hsk_cek": {
                "hsk": json_wire.authority_json(chip.papers["hsk"]),
                "cek": json_wire.certificate_json(chip.papers["cek"]),
            }
            if pair
            else None,
        },
        "serial_number": list(chip.serial_number.ljust(64, b"\0")),
        "cc_eventlog": None,
    }


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("through_library", [False, True])
def test_cocos_form(version, through_library):
    chip = FakeHygon(version=version)
    data = chip.report(b"q" * 48)
    primary = coco(chip, restored(data) if through_library else data)
    anchors = Endorsements(anchors=chip.endorsements.anchors)
    evidence = Evidence(tee="csv", primary=json.loads(json.dumps(primary)))
    claims = csv.verify(evidence, anchors, ASKED, NOW)
    assert claims.values["serial_number"] == "FAKE0000001"
    assert ("csv.mac" in {f.rule for f in claims.checks}) == (not through_library)
    assert claims.values["mac"] == ("not in this form of the evidence" if through_library else "checked")
    primary["cert_chain"]["pek"] = json_wire.certificate_json(certificate(Signer(wire.PEK), chip.cek))
    assert failed(Evidence(tee="csv", primary=primary), anchors) == {"csv.pek"}


def test_cocos_older_form():
    chip = FakeHygon()
    report = json_wire.unpack(json_wire._INFO, wire.Cursor(chip.report(b"q" * 48)[: wire.INFO_1], "info"))
    primary = coco(chip, b"") | {"attestation_report": report}
    anchors = Endorsements(anchors=chip.endorsements.anchors)
    assert csv.verify(Evidence(tee="csv", primary=primary), anchors, ASKED, NOW).values["anonce"]
    del primary["cert_chain"]["pek"]
    with pytest.raises(Malformed, match="no PEK"):
        csv.verify(Evidence(tee="csv", primary=primary), anchors, ASKED, NOW)


def test_magic_and_flags_must_fit_the_report():
    chip = FakeHygon(version=2)
    primary = coco(chip, chip.report())
    for magic, flags in ((bytes(16), 0), (json_wire.EXTENDED, 0), (json_wire.EXTENDED, 2), (b"x" * 16, 1)):
        changed = primary["attestation_report"] | {"magic": list(magic), "flags": flags}
        with pytest.raises(Malformed):
            json_wire.parse_evidence(primary | {"attestation_report": changed})


@pytest.mark.parametrize("primary", [
    {}, {"attestation_report": 1}, {"attestation_report": "!"}, {"attestation_report": "A" * 20000},
    {"attestation_report": {}}, {"attestation_report": {"data": [1]}}, {"attestation_report": {"data": [300] * 4096}},
    {"attestation_report": b64(bytes(2548))}, {"attestation_report": b64(b"\1" * 3000)},
])  # fmt: skip
def test_malformed_evidence(primary):
    with pytest.raises(Malformed):
        json_wire.parse_evidence(primary)


def test_another_rooms_evidence_is_unusable():
    with pytest.raises(Unusable):
        csv.verify(Evidence(tee="snp", primary={}), Endorsements(), Request(), NOW)
    with pytest.raises(Unusable):
        csv.measure(Launch())
    with pytest.raises(Unusable):
        csv.machine(Launch())
    assert csv.request(b"n", b"").report_data == b"n"
    assert room("csv") is csv


def test_endorsements_are_asked_for_by_serial_number():
    chip, asked = FakeHygon(), []

    def fetch(url):
        asked.append(url)
        return chip.endorsements.collateral["hsk_cek"]

    assert csv.endorse(chip.collect(ASKED), fetch).collateral["hsk_cek"] == chip.papers["hsk"] + chip.papers["cek"]
    assert asked == ["https://cert.hygon.cn/hsk_cek?snumber=FAKE0000001"]
    assert not csv.endorse(Evidence(tee="csv", primary=coco(chip, chip.report())), fetch).collateral
    with pytest.raises(Unusable):
        csv.endorse(FakeHygon(serial_number=b"../x?y").collect(ASKED), fetch)


def logged(*events: tuple[int, bytes], algorithm: int = 0x12) -> bytes:
    """A log of SM3 digests: its header, one event that counts for nothing, and one event for each given pair."""

    def u32(value: int) -> bytes:
        return value.to_bytes(4, "little")

    header = b"Spec ID Event03\0" + bytes(4) + b"\0\2\x69\2" + u32(1) + algorithm.to_bytes(2, "little") + b"\x20\0\0"
    out = u32(0) + u32(3) + bytes(20) + u32(len(header)) + header
    for register, digest in events:
        out += u32(register) + u32(13) + u32(1) + algorithm.to_bytes(2, "little") + digest + u32(0)
    return out


def test_an_event_log_replays_to_the_registers():
    first, second = sm3.digest(b"first"), sm3.digest(b"second")
    value = sm3.digest(sm3.digest(bytes(32) + first) + second)
    once = sm3.digest(bytes(32) + first)
    chip = FakeHygon(version=2, rtmrs=(value, bytes(32), once, bytes(32)))

    def judged(log: bytes):
        primary = coco(chip, chip.report(b"q" * 48)) | {"cc_eventlog": b64(log)}
        return Evidence(tee="csv", primary=primary)

    good = logged((1, first), (3, first), (1, second))
    claims = csv.verify(judged(good + b"\xff" * 64), chip.endorsements, ASKED, NOW)
    assert len(claims.values["uefi_event_logs"]) == 3
    assert {"csv.log.format", "csv.log.rtmr1", "csv.log.rtmr4", "csv.log.registers"} <= {f.rule for f in claims.checks}
    for log, rules in (
        (logged((1, first), (3, first)), {"csv.log.rtmr1"}),
        (logged((1, second), (1, first)), {"csv.log.rtmr1", "csv.log.rtmr3"}),
        (logged((1, first), (3, first), (1, second), (5, first)), {"csv.log.registers"}),
        (logged((1, first), algorithm=0xB), {"csv.log.format"}),
        (good[:-3], {"csv.log.format"}),
    ):
        assert failed(judged(log), chip.endorsements) == rules
    old = FakeHygon(version=1)
    primary = coco(old, old.report(b"q" * 48)) | {"cc_eventlog": b64(good)}
    claims = csv.verify(Evidence(tee="csv", primary=primary), old.endorsements, ASKED, NOW)
    assert claims.values["event_log"].startswith("not judged")
    for bad in (1, "!", {}):
        with pytest.raises(Malformed):
            json_wire.parse_evidence(primary | {"cc_eventlog": bad})


def gathered(*files: tuple[str, bytes]):
    return gatherer("csv")(sort([File(name, data) for name, data in files]))


def test_files_are_told_by_content():
    chip = FakeHygon()
    report, papers = chip.report(b"q" * 48), chip.papers
    pair = papers["hsk"] + papers["cek"]
    for files in (
        [("a", report), ("b", pair), ("c", papers["hrk"])],
        [("a", report.ljust(4096, b"\0")), ("b", papers["hrk"] + pair)],
        [("x", papers["cek"]), ("y", papers["hsk"]), ("z", report.hex().encode()), ("n", b"a note")],
    ):
        found = gathered(*files)
        assert found.endorsements.collateral["hsk_cek"] == pair
        assert found.report_data.startswith(b"q" * 48)
        assert not found.missing
        assert "n" not in found.used
        anchored = Endorsements(anchors=chip.endorsements.anchors, collateral=found.endorsements.collateral)
        assert csv.verify(found.evidence, anchored, ASKED, NOW)
    assert gathered(("a", report)).missing
    assert gathered(("a", pair)) is None
    assert not gathered(("a.json", json.dumps(coco(chip, report)).encode())).missing
    assert len(gathered(("a", report), ("b", chip.report())).also) == 1


def stand_in(chip: FakeHygon, answers: list[bytes] | None = None):
    """The driver: reads the buffer that the structure names and fills it, as the kernel's code does."""

    def ioctl(handle: int, number: int, message: bytearray) -> int:
        assert handle > 2
        assert number == 0xC0104401  # _IOWR('D', 1, 16 bytes)
        address, size, padding = int.from_bytes(message[:8], "little"), message[8:12], message[12:16]
        assert (bytes(size), bytes(padding)) == (b"\0\x10\0\0", bytes(4))
        question = ctypes.string_at(address, 112)
        if sm3.digest(question[:80]) != question[80:]:
            raise OSError(errno.EIO, "Input/output error")
        answer = answers.pop(0) if answers else chip.report(question[:64], mnonce=question[64:80])
        ctypes.memmove(address, answer, len(answer))
        return 0

    return ioctl


def test_collect_through_a_stand_in_of_the_driver(tmp_path):
    device = tmp_path / "csv-guest"
    assert not present(device=device)
    with pytest.raises(Unusable):
        csv.collect(ASKED, device=device)
    device.touch()
    assert present(device=device)
    chip = FakeHygon(version=1)
    evidence = csv.collect(ASKED, device=device, ioctl=stand_in(chip))
    claims = csv.verify(evidence, chip.endorsements, ASKED, NOW)
    assert claims.values["mac"] == "checked"
    with pytest.raises(Unavailable, match="another question"):
        csv.collect(ASKED, device=device, ioctl=stand_in(chip, [chip.report(mnonce=b"old" * 5 + b"!")]))
    with pytest.raises(Unavailable):
        csv.collect(ASKED, device=device)  # a file is no driver
    with pytest.raises(Unusable):
        csv.collect(Request(report_data=b"q" * 65), device=device)


def only_malformed(parse, data):
    try:
        parse(data)
    except Malformed:
        pass


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=4200))
def test_fuzz_parsers(data):
    for parse in (wire.parse, wire.parse_info, wire.authority, wire.certificate, json_wire.split):
        only_malformed(parse, data)


CHIPS = [FakeHygon(version=version) for version in (1, 2)]
REPORTS = [chip.report() for chip in CHIPS]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(REPORTS), st.data())
def test_fuzz_changed_reports(report, data):
    offset = data.draw(st.integers(0, len(report) - 1))
    size = data.draw(st.integers(0, 16))
    changed = report[:offset] + data.draw(st.binary(max_size=16)) + report[offset + size :]
    only_malformed(wire.parse, changed)
    only_malformed(json_wire.parse_evidence, {"attestation_report": b64(changed)})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | st.text(max_size=4) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "body", "hsk", "pek", "sigs"]),
                                                                inner, max_size=4),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["attestation_report", "cert_chain", "serial_number"]), JSON))
def test_fuzz_json(primary):
    only_malformed(json_wire.parse_evidence, primary)
    valid = {"attestation_report": b64(REPORTS[0])}
    only_malformed(json_wire.parse_evidence, primary | valid)


def test_certificates_survive_their_json():
    chip = CHIPS[0]
    for layout, shown, data in (
        (json_wire._AUTHORITY, json_wire.authority_json, chip.papers["hsk"]),
        (json_wire._CERTIFICATE, json_wire.certificate_json, chip.papers["cek"]),
    ):
        assert json_wire.pack(layout, shown(data), "paper") == data


def test_an_owners_signature_in_the_other_slot_is_ignored():
    chip = FakeHygon()
    owner = certificate(chip.pek, Signer(wire.OCA), slot=1)
    chip.papers["pek"] = chip.papers["pek"][:1564] + owner[1564:]
    assert csv.verify(chip.collect(ASKED), chip.endorsements, ASKED, NOW)


def test_an_anchor_that_is_no_root_is_malformed():
    anchor = Anchor(certificate=b"x" * 832, tees=("csv",))
    with pytest.raises(Malformed):
        csv.verify(FakeHygon().collect(ASKED), Endorsements(anchors=(anchor,)), ASKED, NOW)
    signer = Signer(wire.HSK)
    assert wire.authority(authority(signer, signer)).usage == wire.HSK
