"""Every published sample through the whole way: folder, recognition, room, policy; its facts, and its window.

The samples are genuine evidence of others and not part of the repository (`casemate.testing.published`).
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.verifier import facts

from casemate.policy import document, references
from casemate.schema.endorsements import PRODUCTION, Anchor
from casemate.tee.dcap import collateral
from casemate.tee.files import File, sort
from casemate.testing import published
from casemate.verifier import anchors
from casemate.verifier.files import Question, verify, verify_paths
from casemate.verifier.reading import read
from casemate.verifier.references import judge
from casemate.verifier.result import as_json

INDEX = published.folder("index.json")
pytestmark = [
    pytest.mark.skipif(INDEX is None, reason="the published evidence set is not on this machine"),
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),  # issuers with long names
]
SAMPLES: dict[str, dict[str, Any]] = {s["id"]: s for s in json.loads(INDEX.read_text())["samples"]} if INDEX else {}
ALL = sorted(SAMPLES) or ["none"]
JUDGED = sorted(i for i, s in SAMPLES.items() if s["verdict"] != "not-evidence") or ["none"]
WINDOWS = sorted(i for i in JUDGED if SAMPLES.get(i, {}).get("valid_window")) or ["none"]

# The failed rules of each sample that the default policy does not accept, exactly; `either` samples as they lie there.
FAILED = {
    "snp/negative-wrong-vcek": {"snp.vek.chain", "snp.signature", "snp.vek.tcb", "snp.vek.chip"},
    "tdx/v4-gcp-cos113-ccel": {"platform.tcb"},
    "tdx/v5-90c06f-relaunch-advised": {"platform.tcb"},
    "tdx/negative-preproduction-root": {"tdx.pck.chain", "tdx.log.rtmr2"}
    | {f"tdx.collateral.{name}" for name in collateral.NAMES if name != "pck_crl_issuer_chain"},
    "tdx/v4-50806f-debug-td": {"tdx.attributes.debug", "platform.tcb"},
    "tdx/v5-90c06f-no-tcb-level": {"tdx.tcb.level"},
    "sgx/v3-00906e-outofdate": {"platform.tcb"},
    "sgx/v3-00a067-swhardening": {"platform.tcb"},
    "sgx/negative-intel-test-root": {"sgx.pck.chain", "sgx.tcb_info.chain", "sgx.qe_identity.chain",
                                     "sgx.qe.identity", "sgx.init"},
    "sgx/v3-00606a-debug-evalnums": {"sgx.debug", "platform.tcb"},
    "azure-vtpm/tdx-v1": {"tdx.attributes.septve", "platform.tcb"},
    "nitro/debug-2021-tampered": {"nitro.debug", "nitro.chain.chain", "nitro.signature"},
    "nitro/debug-2022": {"nitro.debug"},
    "tpm/gcp-cos85-no-nonce": {"tpm.ak.chain"},
    "tpm/gcp-cos85-nonce9009": {"tpm.ak.chain"},
    "tpm/vtpm-bare-ak": {"tpm.ak.chain", "tpm.ak.key", "tpm.log.present"},
    "cca/negative-rak-binding": {"cca.binding"},
    "hygon-csv/csv-full-chain": {"csv.policy.key_sharing", "csv.policy.registers", "csv.policy.migration"},
    "nvidia/blackwell-575.32": {"nvidia.rim"},
    "nvidia/hopper-590.12-json": {"nvidia.rim", "nvidia.protected_pcie"},
    "nvidia/negative-unsigned-eat": {"nvidia.signature"},
}  # fmt: skip


KEYED = "cpak_pub.pem"
KEYLESS = sorted(i for i in JUDGED if i.startswith("cca/")) or ["none"]


def as_of(sample: str) -> datetime:
    return datetime.fromisoformat(SAMPLES[sample]["as_of"] or "2026-11-21T00:00:00+00:00")


def own(sample: str, *names: str) -> anchors.Own:
    """Files of a sample, given by the relying party as of a production platform's maker."""
    return anchors.read(read([published.folder(sample) / name for name in names]), PRODUCTION)


def bare(sample: str, **asked: Any):
    asked = {"now": as_of(sample), **asked}
    return verify_paths([published.folder(sample)], Question(**asked))


def result(sample: str, **asked: Any):
    """The sample judged; where its TEE has no vendor's root, with the key that the set names as the platform's."""
    given = {"own": own(sample, KEYED)} if (published.folder(sample) / KEYED).exists() else {}
    return bare(sample, **{**given, **asked})


def failed(found) -> set[str]:
    return {finding.rule for finding in found.failed}


@pytest.mark.parametrize("sample", JUDGED)
def test_every_sample_reaches_its_verdict(sample):
    found = result(sample)
    wanted = SAMPLES[sample]["verdict"]
    if wanted == "either":
        wanted = "refused" if sample in FAILED else "accepted"
    assert (found.verdict, failed(found)) == (wanted, FAILED.get(sample, set())), found.reason
    assert any("freshness was not checked" in note for note in found.notes)


@pytest.mark.parametrize("sample", KEYLESS)
def test_keys_beside_the_evidence_are_candidates_and_no_more(sample):
    """These samples are 'either': without a key of the relying party's own nobody can say more."""
    found = bare(sample)
    wanted = {"cca.given.platform-key"} | FAILED[sample] if sample in FAILED else set()
    assert (found.verdict, failed(found)) == ("refused" if sample in FAILED else "unusable", wanted)
    if sample not in FAILED:
        assert all(word in found.reason for word in ("CPAK", "--anchor", KEYED))
        assert found.claims is None
        development = bare(sample, own=anchors.read(read([published.folder(sample) / KEYED])))
        assert failed(development) == {"platform.class"}
        assert KEYED in development.unused


@pytest.mark.parametrize("sample", JUDGED)
def test_every_fact_is_told_by_the_claims(sample):
    found = as_json(result(sample))
    if not found["claims"]:
        assert found["verdict"] == "refused"
        return  # not genuine: nothing of it is told as a fact
    for fact, wanted in SAMPLES[sample]["facts"].items():
        if fact not in facts.NO_CLAIMS:
            told, so = facts.said(fact, found["claims"], wanted)
            assert facts.agree(fact, told, so), f"{fact}: {told} is told, {so} is so"


TIMES = (".validity", ".time", ".revoked", ".revocation", ".certificate", ".rim")


@pytest.mark.parametrize("sample", WINDOWS)
@pytest.mark.parametrize("side", [0, 1])
def test_outside_its_window_every_sample_is_refused_for_its_time(sample, side):
    edge = datetime.fromisoformat(SAMPLES[sample]["valid_window"][side])
    step = timedelta(days=1) if edge.timetuple()[3:6] == (0, 0, 0) else timedelta()  # the index has whole days
    moment = edge + (step + timedelta(seconds=1) if side else -step - timedelta(seconds=1))
    judges = (uvm(sample, moment),) if "uvm" in sample else ()
    found = result(sample, now=moment, judges=judges)
    assert found.verdict == "refused"
    late = failed(found) - FAILED.get(sample, set())
    assert late, "a rule about time must say no"
    assert any(rule.endswith(TIMES) or rule.startswith("reference.") for rule in late), late


def uvm(sample: str, now: datetime):
    folder: Path = published.folder(sample)
    facts = SAMPLES[sample]["facts"]
    trust = references.load([f"{facts['uvm_iss']} {facts['uvm_feed']}\n".encode()])
    return judge([File("uvm", (folder / "uvm_reference_info.cose").read_bytes())], trust, now)


def test_a_uvm_endorsement_vouches_for_its_measurement_and_the_policy_is_the_host_data():
    sample = "snp/milan-v2-aci-uvm-policy"
    initdata = base64.b64decode((published.folder(sample) / "security_policy.base64").read_bytes())
    found = result(sample, initdata=initdata, judges=(uvm(sample, as_of(sample)),))
    assert (found.verdict, failed(found)) == ("accepted", set())
    assert failed(result(sample, initdata=b"another")) == {"snp.initdata"}
    other = "snp/milan-v2-coco"
    assert failed(result(other, judges=(uvm(sample, as_of(sample)),))) == {"reference.measurement"}


@pytest.mark.parametrize("sample", ["tpm/gcp-cos85-no-nonce", "tpm/gcp-cos85-nonce9009"])
def test_a_vtpm_of_a_named_vendor_with_and_without_its_nonce(sample):
    root = Anchor(certificate=(published.folder(sample) / "ca_root.cer").read_bytes(), name="Google")
    policy = document.accepting(document.DEFAULT, ["platform.class"])
    asked = {"anchors": (root,), "policy": policy}
    assert result(sample, **asked).verdict == "accepted"
    assert failed(result(sample, anchors=(root,))) == {"platform.class"}
    nonce = SAMPLES[sample]["facts"]["nonce"]
    wanted = set() if nonce else {"tpm.quote.nonce"}
    assert failed(result(sample, report_data=bytes.fromhex("9009"), **asked)) == wanted
    assert failed(result(sample, report_data=b"another", **asked)) == {"tpm.quote.nonce"}


def test_keys_that_the_relying_party_gives_stand_for_a_chain():
    folder = published.folder("cca/draft-ffm-00-profile")
    token, key = folder / "token.cbor", sort(read([folder / "cpak_pub.pem"])).keys
    found = verify_paths([token], Question(now=datetime.now(UTC)))
    assert (found.verdict, "CPAK" in found.reason) == ("unusable", True)
    assert failed(verify_paths([token], Question(now=datetime.now(UTC), keys=key))) == {"platform.class"}
    other = sort(read([published.folder("cca/es256-platform-token/cpak_pub.pem")])).keys
    assert verify_paths([token], Question(now=datetime.now(UTC), keys=other)).verdict == "refused"


@pytest.mark.parametrize(("name", "verdict"), [("ta-ok.json", "accepted"), ("ta-bad.json", "refused")])
def test_a_trust_anchor_document_of_the_right_and_of_another_key(name, verdict):
    sample = "cca/es256-platform-token"
    assert bare(sample, own=own(sample, name)).verdict == verdict


def test_a_relaunch_is_advised_and_may_be_accepted_by_name():
    policy = document.accepting(document.DEFAULT, tcb=["TDRelaunchAdvised"])
    assert result("tdx/v5-90c06f-relaunch-advised", policy=policy).verdict == "accepted"


def test_collateral_is_read_in_its_other_forms():
    folder = published.folder("tdx/v5-90c06f-relaunch-advised")
    paths = [folder / "quote.bin", folder / "oe_endorsement.bin"]
    found = verify_paths(paths, Question(now=as_of("tdx/v5-90c06f-relaunch-advised")))
    assert (found.verdict, failed(found)) == ("refused", {"platform.tcb"})
    folder = published.folder("sgx/v3-00906e-outofdate")
    paths = [folder / "quote.bin", folder / "stale-2023"]
    stale = verify_paths(paths, Question(now=datetime(2023, 7, 20, tzinfo=UTC)))
    assert failed(stale) == {"sgx.pck.revoked", "sgx.pck.revocation"}  # its lists ended two months before


def test_dstack_s_event_log_replays_and_a_changed_one_is_refused():
    sample = "tdx/v4-90c06f-dstack-eventlog"
    found = result(sample)
    assert {f"tdx.log.rtmr{i}" for i in range(4)} <= {f.rule for f in found.checks}
    files = read([published.folder(sample)])
    text = next(f for f in files if f.name == "quote-report.json")
    assert b"system-preparing" in text.data
    outer = json.loads(text.data)
    events = json.loads(outer["event_log"])
    events[-1]["digest"] = "00" * 48
    changed = File(text.name, json.dumps({**outer, "event_log": json.dumps(events)}).encode())
    again = verify([f if f is not text else changed for f in files], Question(now=as_of(sample)))
    assert failed(again) == {"tdx.log.rtmr3"}


def test_only_the_log_of_another_boot_is_a_refusal():
    folder = published.folder("tdx/v4-b0c06f-ccel-tdreport")
    paths = [folder / name for name in ("quote.bin", "ccel1.bin", "collateral.json")]
    found = verify_paths(paths, Question(now=as_of("tdx/v4-b0c06f-ccel-tdreport")))
    assert failed(found) == {"tdx.log.rtmr2"}


@pytest.mark.parametrize("sample", JUDGED)
def test_names_of_files_do_not_count(sample):
    files = read([published.folder(sample)])
    order = sorted(files, key=lambda f: (len(f.data), f.data))
    renamed = [File(f"{index:03}", f.data) for index, f in enumerate(reversed(order))]
    asked = Question(now=as_of(sample))
    assert failed(verify(renamed, asked)) == failed(verify(files, asked))
    assert len(verify(renamed, asked).unused) == len(verify(files, asked).unused)
    assert verify(renamed, asked).verdict == verify(files, asked).verdict


@pytest.mark.parametrize("sample", ALL)
def test_every_sample_has_a_test(sample):
    """Those that are evidence are judged above; the others are named where their parts are tested."""
    if SAMPLES[sample]["verdict"] != "not-evidence":
        assert sample in JUDGED
        return
    group, name = sample.split("/")
    here = Path(__file__)
    sources = [p.read_text() for p in here.parents[1].rglob("test_*.py") if p != here]
    assert any(sample in text or (f'"{name}"' in text and group in text) for text in sources), "nobody tests it"


@pytest.mark.parametrize("sample", sorted(set(ALL) - set(JUDGED)) or ["none"])
def test_what_is_no_evidence_is_told_apart(sample):
    found = result(sample)
    assert found.verdict in ("unusable", "refused"), "a set of vectors must never be accepted"
    assert found.reason or found.failed


def test_a_single_report_names_what_is_missing():
    folder = published.folder("tdx/v5-90c06f-uptodate")
    found = verify_paths([folder / "quote.bin"], Question(now=as_of("tdx/v5-90c06f-uptodate")))
    assert (found.verdict, found.exit_code) == ("unusable", 2)
    assert "collateral" in found.reason
    found = verify_paths([published.folder("snp/turin-v5/report.bin")], Question(now=as_of("snp/turin-v5")))
    assert (found.verdict, "vek" in found.reason) == ("unusable", True)
    assert sort([]).files == ()
