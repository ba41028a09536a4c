import json
from datetime import timedelta

import dcap_qvl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.crypto import pem
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import sgx
from casemate.tee.dcap import collateral
from casemate.testing import dcap as fake
from casemate.testing.dcap import BROKEN, FakePlatform
from casemate.wire.encoding import b64

TEE = "sgx"
ASKED = Request(report_data=b"r" * 48, initdata_digest=b"i" * 32)
NAMES = ("collateral.json", "collateral-eval17.json", "collateral-eval18.json", "collateral-eval19.json")


def evidence(quote: bytes) -> Evidence:
    return Evidence(tee="sgx", primary={"quote": b64(quote)})


def failed(quote, endorsements, request, now):
    with pytest.raises(Refused) as caught:
        sgx.verify(evidence(quote), endorsements, request, now)
    return {f.rule.removeprefix("sgx.") for f in caught.value.findings if not f.ok}


def sets(genuine):
    """(collateral document, what it is called) of a sample."""
    return [(name, genuine.read(name)) for name in NAMES if (genuine.folder / name).is_file()]


def test_genuine_samples_reach_their_verdict(genuine):
    for name, document in sets(genuine):
        endorsements = Endorsements(collateral=collateral.from_json(document))
        claims = sgx.verify(evidence(genuine.read("quote.bin")), endorsements, Request(), genuine.as_of)
        accepted = all(f.ok for f in platform.judge(claims))
        assert ("accepted" if accepted else "refused") == genuine.verdict
        facts = genuine.facts
        status, date, advisories = facts.get("tcb_by_eval", {}).get(
            str(claims.values["tcb_eval_num"]), facts["tcb_level"]
        )
        assert claims.tcb_status == status, name
        assert claims.values["tcb_date"] == date.replace("Z", "+00:00")
        assert claims.values["advisory_ids"] == advisories
        assert claims.values["fmspc"] == facts["fmspc"]
        assert claims.measurement == {"mr_enclave": facts["mrenclave"], "mr_signer": facts["mrsigner"]}
        assert claims.report_data == facts["report_data"]
        assert claims.debug == facts["debug"]
        assert claims.values["body"]["cpu_svn"] == facts["cpusvn"]
        assert claims.values["tcb_levels"]["qe"]["isvsvn"] == facts["qe_isvsvn"]
        assert genuine.window[0] <= genuine.as_of < claims.valid_until


def test_genuine_samples_outside_their_window(genuine):
    for _, document in sets(genuine):
        endorsements = Endorsements(collateral=collateral.from_json(document))
        late = failed(genuine.read("quote.bin"), endorsements, Request(), genuine.as_of + timedelta(days=60))
        assert {"tcb_info.time", "qe_identity.time", "pck.revoked"} & late
        early = failed(genuine.read("quote.bin"), endorsements, Request(), genuine.as_of - timedelta(days=60))
        assert {"tcb_info.time", "qe_identity.time"} <= early


def test_another_implementation_agrees(genuine):
    """dcap-qvl 0.7 on the same quote, collateral and time; it refuses debug enclaves, which our policy does."""
    for name, document in sets(genuine):
        oracle = dcap_qvl.QuoteCollateralV3.from_json(document.decode())
        quote = genuine.read("quote.bin")
        claims = sgx.verify(
            evidence(quote), Endorsements(collateral=collateral.from_json(document)), Request(), genuine.as_of
        )
        if claims.debug:
            with pytest.raises(ValueError, match="Debug"):
                dcap_qvl.verify(quote, oracle, int(genuine.as_of.timestamp()))
            continue
        theirs = dcap_qvl.verify(quote, oracle, int(genuine.as_of.timestamp()))
        assert (claims.tcb_status, claims.values["advisory_ids"]) == (theirs.status, list(theirs.advisory_ids)), name


def test_an_encrypted_ppid_quote_of_a_test_vendor(genuine):
    """Certification data of type 1: the certificates stand beside the quote, and their root is not the pinned one."""
    if not (genuine.folder / "quote.dat").is_file():
        return
    info, info_signature = collateral.unwrap(genuine.read("tcbInfo.json"), "tcbInfo")
    identity, identity_signature = collateral.unwrap(genuine.read("qeIdentity.json"), "enclaveIdentity")
    chain = pem.certificates(genuine.read("pckCert.pem") + genuine.read("pckSignChain.pem"))
    documents = {
        "tcb_info": info,
        "tcb_info_signature": info_signature,
        "tcb_info_issuer_chain": genuine.read("tcbSignChain.pem"),
        "qe_identity": identity,
        "qe_identity_signature": identity_signature,
        "qe_identity_issuer_chain": genuine.read("tcbSignChain.pem"),
        "pck_crl": genuine.read("intermediateCaCrl.der"),
        "root_ca_crl": genuine.read("rootCaCrl.der"),
    }
    for order in (chain, (chain[0], *reversed(chain[1:]))):
        endorsements = Endorsements(certificates=order, collateral=documents)
        rules = failed(genuine.read("quote.dat"), endorsements, Request(), genuine.as_of)
        assert {"pck.chain", "tcb_info.chain", "qe_identity.chain", "init"} <= rules
        assert not {"qe.signature", "qe.binding", "quote.signature"} & rules
    alone = failed(genuine.read("quote.dat"), Endorsements(), Request(), genuine.as_of)
    assert {"pck.chain", "collateral.tcb_info"} <= alone


def test_no_instant_satisfies_lapsed_collateral(genuine):
    folder = genuine.folder / "stale-2023"
    if not folder.is_dir():
        return
    info, info_signature = collateral.unwrap(next(folder.glob("fmspc*.json")).read_bytes(), "tcbInfo")
    identity, identity_signature = collateral.unwrap((folder / "qe_identity.json").read_bytes(), "enclaveIdentity")
    issuers = (folder / "tcb_signer.pem").read_bytes() + (folder / "root_ca.pem").read_bytes()
    documents = {
        "tcb_info": info, "tcb_info_signature": info_signature, "tcb_info_issuer_chain": issuers,
        "qe_identity": identity, "qe_identity_signature": identity_signature, "qe_identity_issuer_chain": issuers,
        "pck_crl": (folder / "processor_crl.der").read_bytes(), "root_ca_crl": (folder / "root_crl.der").read_bytes(),
    }  # fmt: skip
    start = genuine.as_of.replace(year=2023, month=5, day=1)
    for day in range(0, 150, 5):
        rules = failed(
            genuine.read("quote.bin"), Endorsements(collateral=documents), Request(), start + timedelta(days=day)
        )
        assert {"pck.revoked", "tcb_info.time", "pck.validity"} & rules


def test_flipped_bytes_of_a_genuine_quote_are_refused(genuine):
    if genuine.id != "sgx/v3-00a067-swhardening":
        return
    quote = genuine.read("quote.bin")
    endorsements = Endorsements(collateral=collateral.from_json(genuine.read("collateral.json")))
    accepted = []
    for offset in range(0, len(quote), 41):
        changed = quote[:offset] + bytes([quote[offset] ^ 0x04]) + quote[offset + 1 :]
        try:
            sgx.verify(evidence(changed), endorsements, Request(), genuine.as_of)
            accepted.append(offset)
        except (Malformed, Refused):
            pass
    assert accepted == []


@pytest.mark.parametrize(("fault", "name"), [("no-tcb-info", "tcb_info"), ("no-qe-identity", "qe_identity")])
def test_missing_collateral_is_named(fault, name):
    machine = FakePlatform("sgx", broken=fault)
    with pytest.raises(Unusable, match=f"without {name}"):
        sgx.verify(evidence(machine.quote(machine.enclave())), machine.endorsements, Request(), machine.now)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_fake_vendor_is_accepted_where_it_is_anchored(version):
    machine = FakePlatform("sgx", version=version)
    quote = machine.quote(machine.enclave(report_data=ASKED.report_data, config_id=ASKED.initdata_digest))
    claims = sgx.verify(evidence(quote), machine.endorsements, ASKED, machine.now)
    assert claims.fresh
    assert claims.tcb_status == "UpToDate"
    assert claims.valid_until == machine.now + timedelta(days=20)
    assert all(f.ok for f in platform.judge(claims))
    assert claims.values["sgx_type"] == "Scalable"
    assert claims.values["is_smt_enabled"] is True
    assert claims.init_data == (ASKED.initdata_digest + bytes(32)).hex()


RULES = {
    "quote-signature": {"quote.signature"},
    "qe-signature": {"qe.signature"},
    "qe-binding": {"qe.binding"},
    "vendor": {"quote.vendor"},
    "other-root": {"pck.chain"},
    "pck-expired": {"pck.validity"},
    "pck-not-yet-valid": {"pck.validity"},
    "pck-revoked": {"pck.revoked"},
    "pck-authority-revoked": {"pck.revoked"},
    "pck-name": {"pck.identity"},
    "pck-no-extension": {"pck.identity"},
    "crl-expired": {"pck.revoked"},
    "no-pck-crl": {"collateral.pck_crl", "pck.revocation"},
    "no-root-crl": {"collateral.root_ca_crl", "pck.revocation"},
    "no-qe-identity": {"collateral.qe_identity"},
    "tcb-info-signature": {"tcb_info.signature"},
    "tcb-info-expired": {"tcb_info.time"},
    "tcb-info-early": {"tcb_info.time"},
    "tcb-info-fmspc": {"tcb.match"},
    "tcb-info-pce": {"tcb.match"},
    "tcb-info-tee": {"tcb.match"},
    "qe-identity-expired": {"qe_identity.time"},
    "qe-identity-tee": {"qe.identity"},
    "signer-name": {"tcb_info.signer", "qe_identity.signer"},
    "signer-issuer": {"tcb_info.signer", "qe_identity.signer"},
    "no-level": {"tcb.level"},
    "qe-signer": {"qe.identity"},
    "qe-product": {"qe.identity"},
    "qe-debug": {"qe.identity"},
    "qe-misc": {"qe.identity"},
    "qe-level": {"qe.level"},
}


@pytest.mark.parametrize("fault", sorted(set(BROKEN) - {"no-tcb-info", "no-qe-identity"}))
def test_each_fault_is_refused_by_its_rule(fault):
    machine = FakePlatform("sgx", broken=fault)
    rules = failed(machine.quote(machine.enclave()), machine.endorsements, Request(), machine.now)
    assert rules >= RULES[fault]


def test_every_failed_rule_is_told():
    machine = FakePlatform("sgx", broken="tcb-info-expired")
    rules = failed(
        machine.quote(machine.enclave()),
        machine.endorsements,
        ASKED,
        machine.now,
    )
    assert rules == {"tcb_info.time", "report_data", "initdata"}


def test_report_data_is_never_cut_or_padded_at_will():
    machine = FakePlatform("sgx")
    quote = machine.quote(machine.enclave(report_data=b"r" * 48 + b"x"))
    assert failed(quote, machine.endorsements, Request(report_data=b"r" * 48), machine.now) == {"report_data"}
    assert failed(quote, machine.endorsements, Request(report_data=b"r" * 65), machine.now) == {"report_data"}


def test_an_anchor_for_another_tee_does_not_count():
    machine = FakePlatform("sgx")
    anchors = (Anchor(certificate=machine.root.certificate, tees=("nitro",)),)
    endorsements = Endorsements(anchors=anchors, collateral=machine.collateral)
    assert failed(machine.quote(machine.enclave()), endorsements, Request(), machine.now) >= {
        "pck.chain",
        "tcb_info.chain",
    }


@pytest.mark.parametrize(
    ("status", "accepted"),
    [("UpToDate", True), ("SWHardeningNeeded", True), ("ConfigurationNeeded", False), ("OutOfDate", False)],
)
def test_tcb_status_is_a_claim_and_the_policy_decides(status, accepted):
    machine = FakePlatform("sgx", levels=((5, status, ("INTEL-SA-1",)),))
    claims = sgx.verify(evidence(machine.quote(machine.enclave())), machine.endorsements, Request(), machine.now)
    assert claims.tcb_status == status
    assert all(f.ok for f in platform.judge(claims)) == accepted
    lenient = platform.PlatformPolicy(tcb=frozenset({status}))
    assert all(f.ok for f in platform.judge(claims, lenient))


def test_a_revoked_tcb_is_refused():
    machine = FakePlatform("sgx", levels=((5, "Revoked", ()),))
    assert failed(machine.quote(machine.enclave()), machine.endorsements, Request(), machine.now) == {"tcb.revoked"}


def test_an_out_of_date_qe_counts():
    machine = FakePlatform("sgx", qe_levels=((9, "UpToDate", ()), (4, "OutOfDate", ("INTEL-SA-2",))))
    claims = sgx.verify(evidence(machine.quote(machine.enclave())), machine.endorsements, Request(), machine.now)
    assert (claims.tcb_status, claims.values["advisory_ids"]) == ("OutOfDate", ["INTEL-SA-2"])


def test_the_quote_of_a_td_is_not_an_enclave():
    machine = FakePlatform("tdx")
    with pytest.raises(Malformed):
        sgx.verify(evidence(machine.quote(machine.td())), machine.endorsements, Request(), machine.now)


def test_endorse_asks_the_service_and_its_answer_verifies():
    machine = FakePlatform("sgx")
    documents = machine.collateral
    asked = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        from urllib.parse import quote as percent

        if "#" in url:
            name = {
                "TCB-Info-Issuer-Chain": "tcb_info_issuer_chain",
                "SGX-Enclave-Identity-Issuer-Chain": "qe_identity_issuer_chain",
            }
            return percent(documents[name.get(url.split("#")[1], "pck_crl_issuer_chain")]).encode()
        if "/tcb?" in url:
            assert "fmspc=90c06f000000" in url
            return b'{"tcbInfo":%s,"signature":"%s"}' % (
                documents["tcb_info"],
                documents["tcb_info_signature"].hex().encode(),
            )
        if "/qe/identity" in url:
            signature = documents["qe_identity_signature"].hex().encode()
            return b'{"enclaveIdentity":%s,"signature":"%s"}' % (documents["qe_identity"], signature)
        return documents["pck_crl" if "pckcrl?ca=platform" in url else "root_ca_crl"]

    quote = evidence(machine.quote(machine.enclave()))
    found = sgx.endorse(quote, fetch)
    assert found.collateral == documents
    assert all(url.startswith("https://") for url in asked)


def test_collect_under_a_stand_in_of_gramine(tmp_path):
    (tmp_path / "attestation_type").write_text("dcap\n")
    (tmp_path / "quote").write_bytes(b"quote")
    (tmp_path / "user_report_data").write_bytes(b"")
    from casemate.tee.sgx.collect import collect

    assert collect(Request(report_data=b"r" * 48), device=tmp_path).primary == {"quote": b64(b"quote")}
    assert (tmp_path / "user_report_data").read_bytes() == b"r" * 48 + bytes(16)
    (tmp_path / "attestation_type").write_text("none")
    with pytest.raises(Unusable):
        collect(Request(), device=tmp_path)
    with pytest.raises(Unusable):
        collect(Request(), device=tmp_path / "absent")


def test_a_quote_through_the_stand_in_of_gramine_is_verified(tmp_path):
    """Gramine makes the quote when the file is read, over what was written before: here the folder plays its part."""
    from casemate.tee.sgx.collect import collect, present

    assert not present(device=tmp_path / "absent")
    machine, asked = FakePlatform("sgx"), Request(report_data=b"r" * 48)
    (tmp_path / "attestation_type").write_text("dcap")
    (tmp_path / "user_report_data").write_bytes(bytes(64))
    (tmp_path / "quote").write_bytes(machine.quote(machine.enclave(report_data=asked.report_data)))
    assert present(device=tmp_path)
    claims = sgx.verify(collect(asked, device=tmp_path), machine.endorsements, asked, machine.now)
    assert claims.fresh
    with pytest.raises(Unusable, match="holds 64"):
        collect(Request(report_data=b"r" * 65), device=tmp_path)
    (tmp_path / "quote").unlink()
    (tmp_path / "quote").mkdir()
    with pytest.raises(Unavailable):
        collect(asked, device=tmp_path)


@pytest.mark.parametrize("primary", [{}, {"quote": 1}, {"quote": "!"}, {"quote": "AAAA"}, {"quote": "A" * 200000}])
def test_malformed_evidence(primary):
    with pytest.raises(Malformed):
        sgx.verify(Evidence(tee="sgx", primary=primary), Endorsements(), Request(), FakePlatform("sgx").now)


MACHINE = FakePlatform("sgx")
QUOTE = MACHINE.quote(MACHINE.enclave())


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_fuzz_quotes_only_malformed_or_refused(data):
    at = data.draw(st.integers(0, len(QUOTE) - 1))
    changed = QUOTE[:at] + data.draw(st.binary(max_size=4)) + QUOTE[at + data.draw(st.integers(0, 4)) :]
    if changed == QUOTE:
        return
    try:
        claims = sgx.verify(evidence(changed), MACHINE.endorsements, Request(), MACHINE.now)
    except (Malformed, Refused):
        return
    # PEM is text: white space and what stands around the certificates can change without changing them.
    assert claims.measurement == {"mr_enclave": "11" * 32, "mr_signer": "22" * 32}
    assert at > len(QUOTE) - 3000


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(MACHINE.collateral)), st.data())
def test_fuzz_collateral_only_malformed_refused_or_unusable(name, data):
    document = MACHINE.collateral[name]
    at = data.draw(st.integers(0, len(document) - 1))
    changed = document[:at] + data.draw(st.binary(max_size=3)) + document[at + data.draw(st.integers(0, 3)) :]
    endorsements = Endorsements(anchors=MACHINE.endorsements.anchors, collateral=MACHINE.collateral | {name: changed})
    try:
        sgx.verify(evidence(QUOTE), endorsements, Request(), MACHINE.now)
    except (Malformed, Refused, Unusable):
        return
    assert changed == document or name.endswith("issuer_chain")


def test_json_of_the_collateral_is_what_libraries_exchange():
    names = {"tcb_info_signature", "qe_identity_signature", "pck_crl", "root_ca_crl"}
    text = json.dumps(
        {n: d.hex() if n in names else d.decode() for n, d in fake.FakePlatform("sgx").collateral.items()}
    )
    assert set(collateral.from_json(text.encode())) == set(collateral.NAMES)
