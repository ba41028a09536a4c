import hashlib
import json
from datetime import timedelta

import dcap_qvl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import tdx
from casemate.tee.dcap import collateral
from casemate.tee.tdx import report
from casemate.testing.dcap import BROKEN, FakePlatform
from casemate.testing.tdx import FakeTd, ccel
from casemate.wire.encoding import b64

TEE = "tdx"
ASKED = Request(report_data=b"r" * 48, initdata_digest=b"i" * 32)


def evidence(quote: bytes, log: bytes | None = None) -> Evidence:
    return Evidence(tee="tdx", primary={"quote": b64(quote), "cc_eventlog": b64(log) if log is not None else None})


def failed(given_evidence, endorsements, request, now):
    with pytest.raises(Refused) as caught:
        tdx.verify(given_evidence, endorsements, request, now)
    return {f.rule.removeprefix("tdx.") for f in caught.value.findings if not f.ok}


def documents(genuine) -> Endorsements:
    path = genuine.folder / "collateral.json"
    return Endorsements(collateral=collateral.from_json(path.read_bytes())) if path.is_file() else Endorsements()


def test_genuine_samples_reach_their_verdict(genuine):
    quote, facts = evidence(genuine.read("quote.bin")), genuine.facts
    if facts.get("tcb_level") is None:
        rules = failed(quote, documents(genuine), Request(), genuine.as_of)
        assert rules == {"tcb.level"} or "pck.chain" in rules
        assert "pck.chain" in rules or "collateral.tcb_info" not in rules
        return
    claims = tdx.verify(quote, documents(genuine), Request(), genuine.as_of)
    accepted = all(f.ok for f in platform.judge(claims))
    if genuine.verdict == "either":
        assert claims.tcb_status == "TDRelaunchAdvised"
        assert not accepted
        lenient = platform.PlatformPolicy(tcb=platform.ACCEPTED_TCB | {"TDRelaunchAdvised"})
        assert all(f.ok for f in platform.judge(claims, lenient))
    else:
        assert ("accepted" if accepted else "refused") == genuine.verdict
    body = claims.values["quote"]["body"]
    for name, fact in (
        ("tcb_svn", "tee_tcb_svn"), ("mr_seam", "mrseam"), ("td_attributes", "td_attributes"), ("xfam", "xfam"),
        ("mr_td", "mrtd"), ("mr_config_id", "mrconfigid"), ("mr_owner", "mrowner"), ("rtmr_0", "rtmr0"),
        ("mr_owner_config", "mrownerconfig"), ("rtmr_1", "rtmr1"), ("rtmr_2", "rtmr2"), ("rtmr_3", "rtmr3"),
        ("report_data", "report_data"),
    ):  # fmt: skip
        assert body[name] == facts[fact], name
    assert body.get("mr_servicetd") == facts.get("mrservicetd")
    assert claims.debug == facts["debug"]
    assert claims.values["fmspc"] == facts["fmspc"]
    assert claims.values["trailing_bytes"] == facts["trailing"]
    assert claims.values["tcb_eval_num"] == facts["tcb_evaluation_data_number"]
    status, date, advisories = facts["tcb_level"]
    level = claims.values["tcb_levels"]["platform"]
    assert (level["status"], level["date"], level["advisory_ids"]) == (status, date.replace("Z", "+00:00"), advisories)
    if facts["tdx_module"]:
        module = claims.values["tcb_levels"]["tdx_module"]
        assert [module["isvsvn"], module["status"]] == facts["tdx_module"][1:]
    assert claims.valid_until == genuine.window[1]
    assert claims.platform_class == "production"


def test_another_implementation_agrees(genuine):
    """dcap-qvl 0.7: the same status and advisories; where it raises, we refuse or our policy does."""
    path = genuine.folder / "collateral.json"
    if not path.is_file():
        return  # nothing to compare without collateral
    quote = genuine.read("quote.bin")
    oracle = dcap_qvl.QuoteCollateralV3.from_json(path.read_text())
    try:
        theirs = dcap_qvl.verify(quote, oracle, int(genuine.as_of.timestamp()))
    except ValueError:
        try:
            claims = tdx.verify(evidence(quote), documents(genuine), Request(), genuine.as_of)
        except Refused:
            return
        assert not all(f.ok for f in platform.judge(claims))
        return
    claims = tdx.verify(evidence(quote), documents(genuine), Request(), genuine.as_of)
    assert (claims.tcb_status, claims.values["advisory_ids"]) == (theirs.status, list(theirs.advisory_ids))


def test_genuine_samples_outside_their_window(genuine):
    if "collateral.json" not in {p.name for p in genuine.folder.iterdir()}:
        return  # its chain is refused at any time
    quote = evidence(genuine.read("quote.bin"))
    late = failed(quote, documents(genuine), Request(), genuine.window[1] + timedelta(seconds=1))
    assert {"tcb_info.time", "qe_identity.time", "pck.revoked", "pck.validity"} & late
    early = failed(quote, documents(genuine), Request(), genuine.window[0] - timedelta(seconds=1))
    assert {"tcb_info.time", "qe_identity.time", "pck.revoked", "pck.validity"} & early


LOGS = {
    "tdx/v4-b0c06f-ccel-tdreport": {"ccel2.bin": set(), "ccel1.bin": {"log.rtmr2"}},
    "tdx/v4-gcp-cos113-ccel": {"ccel_data.bin": set()},
    "tdx/negative-preproduction-root": {"ccel_data.bin": {"log.rtmr2"}},
}


def test_genuine_logs_replay_or_are_refused(genuine):
    for name, expected in LOGS.get(genuine.id, {}).items():
        given_evidence = evidence(genuine.read("quote.bin"), genuine.read(name))
        try:
            claims = tdx.verify(given_evidence, documents(genuine), Request(), genuine.as_of)
            assert claims.values["uefi_event_logs"]
            found = set()
        except Refused as refusal:
            found = {f.rule.removeprefix("tdx.") for f in refusal.findings if not f.ok and ".log." in f.rule}
        assert found == expected, name


def test_a_json_event_log_replays(genuine):
    """dstack's own log format: only its digests are compared here, the room reads CCEL."""
    if not (genuine.folder / "quote-report.json").is_file():
        return
    registers = [bytes(48)] * 4
    for event in json.loads(json.loads(genuine.read("quote-report.json"))["event_log"]):
        register = event["imr"]
        registers[register] = hashlib.sha384(registers[register] + bytes.fromhex(event["digest"])).digest()
    assert [r.hex() for r in registers] == [genuine.facts[f"rtmr{i}"] for i in range(4)]


def test_report_data_of_genuine_samples(genuine):
    if genuine.verdict != "accepted":
        return
    asked = Request(report_data=bytes.fromhex(genuine.facts["report_data"]))
    quote = evidence(genuine.read("quote.bin"))
    assert tdx.verify(quote, documents(genuine), asked, genuine.as_of).fresh
    other = Request(report_data=b"other", initdata_digest=b"i" * 32)
    assert failed(quote, documents(genuine), other, genuine.as_of) == {"report_data", "initdata"}


def test_flipped_bytes_of_a_genuine_quote_are_refused(genuine):
    if genuine.id not in ("tdx/v4-b0c06f-uptodate", "tdx/v5-90c06f-uptodate"):
        return
    quote, endorsements = genuine.read("quote.bin"), documents(genuine)
    used = len(quote) - genuine.facts["trailing"]
    accepted = []
    for offset in range(0, used, 41):
        changed = quote[:offset] + bytes([quote[offset] ^ 0x04]) + quote[offset + 1 :]
        try:
            tdx.verify(evidence(changed), endorsements, Request(), genuine.as_of)
            accepted.append(offset)
        except (Malformed, Refused):
            pass
    assert accepted == []
    assert tdx.verify(evidence(quote[:used] + b"padding"), endorsements, Request(), genuine.as_of)


@pytest.mark.parametrize("version", [4, 5])
def test_a_fake_vendor_is_accepted_where_it_is_anchored(version):
    td = FakeTd(FakePlatform("tdx", version=version))
    claims = tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now)
    assert claims.fresh
    assert claims.tcb_status == "UpToDate"
    assert claims.cautions == ()
    assert all(f.ok for f in platform.judge(claims))
    assert claims.init_data == (ASKED.initdata_digest + bytes(16)).hex()
    assert set(claims.measurement) == {"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"}
    assert [e["details"]["string"] for e in claims.values["uefi_event_logs"]] == ["kernel", "initrd"]
    assert claims.values["quote"]["header"]["version"] == f"0{version}00"


def test_the_log_may_be_absent():
    td = FakeTd(log=None)
    claims = tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now)
    assert "uefi_event_logs" not in claims.values


@pytest.mark.parametrize(
    ("log", "rules"),
    [
        (ccel([(2, b"kernel")]), {"log.rtmr1", "log.rtmr2"}),
        (ccel([(2, b"kernel"), (3, b"initrd"), (3, b"more")]), {"log.rtmr2"}),
        (ccel([(2, b"kernel"), (3, b"initrd"), (9, b"more")]), {"log.registers"}),
        (ccel(padding=0)[:-1], {"log.format"}),
        (b"", {"log.format"}),
        (bytes(100), {"log.rtmr1", "log.rtmr2", "log.format"}),
    ],
)
def test_logs_that_do_not_replay(log, rules):
    td = FakeTd(log=log or b"\xff")
    assert failed(td.collect(ASKED), td.endorsements, ASKED, td.now) & rules


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"td_attributes": bytes.fromhex("0100001000000000")}, "tdx.attributes.debug"),
        ({"td_attributes": bytes.fromhex("2000001000000000")}, "tdx.attributes.debug"),
        ({"td_attributes": bytes.fromhex("0000000000000000")}, "tdx.attributes.septve"),
        ({"td_attributes": bytes.fromhex("0000003000000000")}, "tdx.attributes.migratable"),
        ({"td_attributes": bytes.fromhex("0001001000000000")}, "tdx.attributes.unknown"),
        ({"mr_servicetd": b"\1" * 48}, "tdx.service_td"),
    ],
)
def test_unsafe_properties_are_cautions(changes, rule):
    td = FakeTd(FakePlatform("tdx", version=5), fields=changes)
    claims = tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now)
    assert [c.rule for c in claims.cautions] == [rule]
    assert [f.rule for f in platform.judge(claims) if not f.ok] == [rule]
    assert claims.debug == (rule == "tdx.attributes.debug")


@pytest.mark.parametrize(
    ("module", "fields", "rules"),
    [
        ((6, 9, 5), {}, {"module.identity"}),
        ((3, 1, 5), {}, {"module.level"}),
        ((6, 1, 5), {"mrsigner_seam": b"\1" * 48}, {"module.identity"}),
        ((6, 1, 5), {"seam_attributes": b"\1" * 8}, {"module.identity"}),
        ((6, 1, 2), {}, {"tcb.level"}),
    ],
)
def test_the_tdx_module_must_be_intels(module, fields, rules):
    td = FakeTd(FakePlatform("tdx", module=module), fields=fields)
    assert failed(td.collect(ASKED), td.endorsements, ASKED, td.now) == rules


def test_an_out_of_date_module_counts():
    td = FakeTd(FakePlatform("tdx", module=(4, 1, 5)))
    claims = tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now)
    assert (claims.tcb_status, claims.values["advisory_ids"]) == ("OutOfDate", ["INTEL-SA-00002"])


def test_a_td_of_before_a_module_update():
    td = FakeTd(FakePlatform("tdx", version=5, module=(4, 1, 5), module2=(6, 1, 5)))
    assert tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now).tcb_status == "TDRelaunchAdvised"
    td = FakeTd(FakePlatform("tdx", version=5, module=(4, 1, 5), module2=(5, 1, 5)))
    assert tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now).tcb_status == "OutOfDate"


def test_an_unversioned_module_is_judged_by_the_tcb_info():
    td = FakeTd(FakePlatform("tdx", module=(5, 0, 5)))
    claims = tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now)
    assert "tdx_module" not in claims.values["tcb_levels"]


@pytest.mark.parametrize("fault", sorted(set(BROKEN) - {"no-tcb-info", "no-qe-identity"}))
def test_each_fault_of_the_wall_is_refused(fault):
    td = FakeTd(FakePlatform("tdx", broken=fault))
    assert failed(td.collect(ASKED), td.endorsements, ASKED, td.now)


@pytest.mark.parametrize("fault", ["no-tcb-info", "no-qe-identity"])
def test_missing_collateral_is_unusable(fault):
    td = FakeTd(FakePlatform("tdx", broken=fault))
    with pytest.raises(Unusable, match="without"):
        tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now)


def test_collateral_of_sgx_does_not_serve_a_td():
    td, machine = FakeTd(), FakePlatform("sgx")
    mixed = Endorsements(
        anchors=(*td.endorsements.anchors, *machine.endorsements.anchors), collateral=machine.collateral
    )
    assert {"tcb.match", "qe.identity"} <= failed(td.collect(ASKED), mixed, ASKED, td.now)


def test_the_quote_of_an_enclave_is_not_a_td():
    machine = FakePlatform("sgx")
    with pytest.raises(Malformed):
        tdx.verify(evidence(machine.quote(machine.enclave())), machine.endorsements, Request(), machine.now)


@pytest.mark.parametrize(
    "primary",
    [{}, {"quote": 1}, {"quote": "!"}, {"quote": "AAAA"}, {"quote": "A" * 200000}, {"quote": "AAAA", "cc_eventlog": 1}],
)
def test_malformed_evidence(primary):
    with pytest.raises(Malformed):
        tdx.verify(Evidence(tee="tdx", primary=primary), Endorsements(), Request(), FakeTd().now)


def test_attributes_by_their_bits():
    found = report.Attributes(1 << 63 | 1 << 31 | 1 << 30 | 1 << 28)
    assert found.has(report.PERFMON)
    assert found.has(report.KEY_LOCKER)
    assert found.has(report.PROTECTION_KEYS)
    assert not found.unknown
    assert not found.debug


def tsm_folder(tmp_path, monkeypatch, **files):
    """A stand-in of configfs-tsm: a new folder has its files, and writing counts."""
    real = type(tmp_path).mkdir

    def mkdir(self, *args, **kwargs):
        real(self, *args, **kwargs)
        if self.parent == tmp_path:
            for name, content in ({"provider": b"tdx_guest\n", "generation": b"0\n", "inblob": b""} | files).items():
                (self / name).write_bytes(content)

    monkeypatch.setattr(type(tmp_path), "mkdir", mkdir)


def test_collect_from_a_stand_in_of_the_kernel(tmp_path, monkeypatch):
    from casemate.tee.tdx.collect import collect

    written = {}
    real = type(tmp_path).write_bytes

    def write(self, data):
        if self.name == "inblob" and data:
            written["nonce"] = data
            real(self.parent / "generation", b"1\n")
        return real(self, data)

    tsm_folder(tmp_path, monkeypatch, outblob=b"quote")
    monkeypatch.setattr(type(tmp_path), "write_bytes", write)
    log = tmp_path.parent / "CCEL"
    log.write_bytes(b"log")
    found = collect(ASKED, reports=tmp_path, ccel=log)
    assert found.primary == {"quote": b64(b"quote"), "cc_eventlog": b64(b"log")}
    assert written["nonce"] == ASKED.report_data + bytes(16)
    with pytest.raises(Unusable):
        collect(ASKED, reports=tmp_path / "absent")
    with pytest.raises(Unusable):
        collect(Request(report_data=bytes(65)), reports=tmp_path)


def test_collect_notices_another_writer_and_another_tee(tmp_path, monkeypatch):
    from casemate.tee.tdx.collect import collect

    tsm_folder(tmp_path, monkeypatch, outblob=b"quote", generation=b"7\n")
    with pytest.raises(Unavailable):
        collect(ASKED, reports=tmp_path)
    tsm_folder(tmp_path, monkeypatch, provider=b"sev_guest\n")
    with pytest.raises(Unusable):
        collect(ASKED, reports=tmp_path)


def test_an_empty_question_is_no_question():
    td = FakeTd()
    nothing = Request(report_data=b"", initdata_digest=b"")
    assert failed(td.collect(Request()), td.endorsements, nothing, td.now) == {"report_data", "initdata"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 300)
    | st.sampled_from(["TDX", "SGX", "2020-01-01T00:00:00Z", "Revoked", "ff"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["tcb", "isvsvn", "svn"]), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["info", "identity"]), st.data())
def test_fuzz_signed_collateral_only_known_errors(kind, data):
    """Documents that Intel's key would have signed, with a member of another shape: no crash either."""
    td = FakeTd()
    parts = td.platform.parts
    from casemate.testing import dcap as fake

    whole = fake.tcb_info(td.platform) if kind == "info" else fake.qe_identity(td.platform)
    name = data.draw(st.sampled_from(sorted(whole)))
    value = data.draw(JSON)
    setattr(parts, kind, {name: value} | ({"version": 2} if data.draw(st.booleans()) else {}))
    documents = Endorsements(anchors=td.endorsements.anchors, collateral=parts.documents())
    try:
        tdx.verify(td.collect(ASKED), documents, ASKED, td.now)
    except (Malformed, Refused, Unusable):
        pass


TD = FakeTd()
EVIDENCE = TD.collect(ASKED)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_fuzz_only_malformed_or_refused(data):
    from casemate.wire.encoding import unb64

    part = data.draw(st.sampled_from(["quote", "cc_eventlog"]))
    whole = unb64(EVIDENCE.primary[part])
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + data.draw(st.integers(0, 4)) :]
    given_evidence = Evidence(tee="tdx", primary=EVIDENCE.primary | {part: b64(changed)})
    try:
        claims = tdx.verify(given_evidence, TD.endorsements, ASKED, TD.now)
    except (Malformed, Refused):
        return
    # What is not signed: text around certificates, and a log's data beside its digests.
    assert claims.measurement == tdx.verify(EVIDENCE, TD.endorsements, ASKED, TD.now).measurement
