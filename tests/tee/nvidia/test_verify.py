import base64
import datetime as dt
import json
import sys

import pytest

import casemate
from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import DEVELOPMENT, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import files, nvidia, room
from casemate.tee.nvidia import files as gathering
from casemate.testing.nvidia import BROKEN, CHIPS, FakeGpu
from casemate.testing.published import folder

TEE = "nvidia"
ASKED = Request(report_data=b"q" * 48)

# The rule that refuses each fault; a caution where the evidence stays genuine.
RULES = {
    "signature": "nvidia.signature",
    "other-key": "nvidia.signature",
    "other-root": "nvidia.device.chain",
    "no-leaf": "nvidia.identity",
    "no-intermediate": "nvidia.device.chain",
    "expired": "nvidia.device.validity",
    "not-yet-valid": "nvidia.device.validity",
    "no-fwid": "nvidia.identity",
    "fwid": "nvidia.fwid",
    "arch": "nvidia.identity",
    "nonce": "nvidia.nonce",
    "twice": "nvidia.unique",
    "measurement": "nvidia.measurements",
    "no-measurement": "nvidia.measurements",
    "rim-golden": "nvidia.rim.signature",
    "rim-signature-value": "nvidia.rim.signature",
    "rim-root": "nvidia.rim.chain",
    "rim-by-device-root": "nvidia.rim.chain",
    "rim-expired": "nvidia.rim.validity",
    "rim-doctype": "nvidia.rim.format",
    "rim-overlap": "nvidia.measurements",
    "revoked": "nvidia.ocsp.revoked",
    "revoked-long-ago": "nvidia.ocsp.revoked",
    "ocsp-unknown": "nvidia.ocsp.status",
    "ocsp-signature": "nvidia.ocsp.signature",
    "ocsp-responder": "nvidia.ocsp.signature",
    "ocsp-usage": "nvidia.ocsp.signature",
    "ocsp-garbage": "nvidia.ocsp.format",
}
CAUTIONS = {"rim-version": "nvidia.rim", "protected-pcie": "nvidia.protected_pcie"}


def failed(evidence, endorsements, request, now):
    with pytest.raises(Refused) as caught:
        nvidia.verify(evidence, endorsements, request, now)
    return {f.rule for f in caught.value.findings if not f.ok}


def unacceptable(claims):
    return [f.rule for f in platform.judge(claims) if not f.ok]


def sorted_case(path, *, without=()):
    found = [files.File(str(p.relative_to(path)), p.read_bytes()) for p in sorted(path.rglob("*")) if p.is_file()]
    return files.sort([f for f in found if f.name not in without])


def negatives(*names):
    path = folder("nvidia", "negative-reports-and-rims")
    if path is None:
        pytest.skip("no genuine evidence: set CASEMATE_EVIDENCE")
    return files.sort([files.File(name, (path / name).read_bytes()) for name in names])


AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_genuine_samples_reach_their_verdict(genuine):
    found = gathering.gather(sorted_case(genuine.folder))
    if genuine.verdict == "refused":
        assert failed(found.evidence, found.endorsements, Request(), AT) == {"nvidia.signature"}
        return
    facts = genuine.facts
    request = Request(report_data=bytes.fromhex(facts["nonce"]))
    claims = nvidia.verify(found.evidence, found.endorsements, request, genuine.as_of)
    assert found.missing == ()
    assert (claims.values["config"]["driver_version"] or None, claims.values["config"]["vbios_version"]) == (
        facts["driver"],
        facts["vbios"],
    )
    assert len(claims.measurement) == facts["measurement_blocks"]
    assert claims.report_data == facts["nonce"]
    assert claims.fresh
    assert claims.vouched_by == "NVIDIA Device Identity CA"
    missing = [c.rule for c in claims.cautions if c.rule == "nvidia.rim"]
    if genuine.verdict == "accepted":
        assert unacceptable(claims) == []
    else:  # no manifest was published with it: genuine, and refused unless that is accepted by name
        assert missing == ["nvidia.rim"]
        assert "nvidia.rim" in unacceptable(claims)
        accepted = frozenset(c.rule for c in claims.cautions)
        assert all(f.ok for f in platform.judge(claims, platform.PlatformPolicy(cautions=accepted)))


def test_genuine_samples_outside_their_window_are_refused_by_the_right_rule(genuine):
    if genuine.window is None:
        return  # its certificates end in the year 9999
    found = gathering.gather(sorted_case(genuine.folder))
    for moment in (genuine.window[0] - dt.timedelta(days=1), genuine.window[1] + dt.timedelta(days=1, hours=1)):
        assert failed(found.evidence, found.endorsements, Request(), moment) == {"nvidia.rim.validity", "nvidia.rim"}


def test_published_ocsp_responses_count_while_they_are_current(genuine_by_id):
    genuine = genuine_by_id("nvidia/hopper-550.90.07-full")
    found = gathering.gather(sorted_case(genuine.folder))

    def revocation(now):
        return nvidia.verify(found.evidence, found.endorsements, Request(), now).values["revocation"]

    assert revocation(genuine.as_of).startswith("OCSP: 4 of 7 certificates good, responses not current for 3")
    devices = dt.datetime(2025, 8, 21, 12, tzinfo=dt.UTC)
    assert revocation(devices).startswith("OCSP: 3 of 7 certificates good, responses not current for 4")
    without = Endorsements(collateral={k: v for k, v in found.endorsements.collateral.items() if k.startswith("rim/")})
    claims = nvidia.verify(found.evidence, without, Request(), genuine.as_of)
    assert claims.values["revocation"] == "no OCSP responses were given; no lists were given"
    assert "nvidia.revocation" in {f.rule for f in claims.checks}


def test_published_negative_reports():
    good = gathering.gather(negatives("hopper_535.86.09.hex", "hopper_chain.pem"))
    claims = nvidia.verify(good.evidence, good.endorsements, Request(), AT)
    assert claims.values["config"]["driver_version"] == "535.86.09"
    for names, rules in (
        (("hopper_invalid_signature.hex", "hopper_chain.pem"), {"nvidia.signature", "nvidia.fwid"}),
        (("switch_invalid_signature.hex", "switch_chain.pem"), {"nvidia.signature"}),
    ):
        found = gathering.gather(negatives(*names))
        properties = {"nvidia.rim", "nvidia.protected_pcie"}
        assert failed(found.evidence, found.endorsements, Request(), AT) - properties == rules


@pytest.mark.parametrize(
    ("chain", "rule"),
    [
        ("chain_case2.pem", "nvidia.identity"),
        ("chain_case3.pem", "nvidia.device.chain"),
        ("chain_case4.pem", "nvidia.identity"),
    ],
)
def test_published_negative_chains(chain, rule):
    case = negatives("hopper_535.86.09.hex", "hopper_chain.pem", chain)
    entry = {
        "arch": "HOPPER",
        "evidence": case.raw("hopper_535.86.09.hex").decode().strip(),  # older guests sent hex
        "certificate": base64.b64encode(case.raw(chain)).decode(),
    }
    evidence = Evidence(tee="nvidia", primary={"device_evidence_list": [entry]})
    assert rule in failed(evidence, Endorsements(), Request(), AT)


def test_published_negative_manifests():
    """Each manifest beside a device of its version: only the unchanged one of NVIDIA's is taken."""
    from casemate.crypto import chain
    from casemate.tee.nvidia import manifests, rim
    from casemate.tee.rules import Rules

    outcomes = {}
    for name in (
        "535.86.09_mismatch",
        "550.144.03_good",
        "570.124.03_expired",
        "incorrect_chain",
        "incorrect_signature",
    ):
        found = rim.parse(negatives(f"rim_{name}.xml").raw(f"rim_{name}.xml"))
        rules = Rules("nvidia")
        held = manifests._held(found, Endorsements(), AT, manifests.Vouched(), rules)
        outcomes[name] = ("held" if held else "refused", sorted({f.rule for f in rules.checks if not f.ok}))
        assert chain.load(found.certificates[0])
    assert outcomes == {
        "535.86.09_mismatch": ("refused", ["nvidia.rim.signature"]),
        "550.144.03_good": ("held", []),
        "570.124.03_expired": ("refused", ["nvidia.rim.signature", "nvidia.rim.validity"]),
        "incorrect_chain": ("refused", ["nvidia.rim.chain"]),
        "incorrect_signature": ("refused", ["nvidia.rim.signature"]),
    }


@pytest.mark.parametrize("arch", sorted(CHIPS))
def test_a_made_device_is_accepted(arch):
    gpu = FakeGpu(arch)
    claims = nvidia.verify(gpu.collect(ASKED), gpu.endorsements, ASKED, gpu.now)
    assert unacceptable(claims) == []
    assert claims.values["revocation"].startswith("OCSP: 3 of ")
    assert claims.report_data == (b"q" * 32).hex()
    assert claims.values["arch"] == arch
    kind = "switch0" if arch == "LS10" else "gpu0"
    assert claims.measurement[f"{kind}.1"] == gpu.measurements[1].hex()


def test_every_fault_has_a_rule():
    assert set(RULES) | set(CAUTIONS) == set(BROKEN)


@pytest.mark.parametrize("broken", sorted(RULES))
def test_each_fault_is_refused_by_its_rule(broken):
    gpu = FakeGpu(broken=broken)
    assert RULES[broken] in failed(gpu.collect(ASKED), gpu.endorsements, ASKED, gpu.now)


@pytest.mark.parametrize("broken", sorted(CAUTIONS))
def test_a_property_is_a_caution(broken):
    gpu = FakeGpu(broken=broken)
    claims = nvidia.verify(gpu.collect(ASKED), gpu.endorsements, ASKED, gpu.now)
    assert unacceptable(claims) == [CAUTIONS[broken]]


def test_debugging_shows():
    gpu = FakeGpu("BLACKWELL")
    gpu.parts.debug = True
    from casemate.testing import nvidia as vendor

    gpu.chain = vendor._chain(gpu, gpu.parts)
    claims = nvidia.verify(gpu.collect(ASKED), gpu.endorsements, ASKED, gpu.now)
    assert claims.debug
    assert unacceptable(claims) == ["nvidia.debug"]


def test_without_manifests_it_is_not_accepted_by_default():
    gpu = FakeGpu(rims=False)
    claims = nvidia.verify(gpu.collect(ASKED), gpu.endorsements, ASKED, gpu.now)
    assert unacceptable(claims) == ["nvidia.rim"]
    (caution,) = claims.cautions
    assert caution.found == "none for driver 550.90.07; none for firmware 96.00.9F.00.01"


def test_manifests_without_the_extra_are_unusable(monkeypatch):
    gpu = FakeGpu()
    evidence, endorsements = gpu.collect(ASKED), gpu.endorsements
    bare = Endorsements(anchors=endorsements.anchors)
    monkeypatch.setitem(sys.modules, "signxml", None)
    with pytest.raises(Unusable, match="lxml and signxml") as caught:
        nvidia.verify(evidence, endorsements, ASKED, gpu.now)
    assert "casemate[nvidia]" in caught.value.hint
    assert unacceptable(nvidia.verify(evidence, bare, ASKED, gpu.now)) == ["nvidia.rim"]


def with_lists(gpu, *lists):
    given = gpu.endorsements
    found = {f"crl/{i}": data for i, data in enumerate(lists)}
    return Endorsements(anchors=given.anchors, collateral=given.collateral | found)


def test_revocation_lists_count_where_they_are_given():
    gpu = FakeGpu()
    _, rom, provisioner, identity, root = gpu.chain
    clean = (root.crl(), identity.crl(), gpu.rim_root.crl())
    claims = nvidia.verify(gpu.collect(ASKED), with_lists(gpu, *clean), ASKED, gpu.now)
    assert claims.values["revocation"].endswith("lists: partly checked, partly checked, partly checked")
    for issuer, child in ((identity, provisioner), (provisioner, rom)):
        revoking = with_lists(gpu, issuer.crl([child.certificate]))
        assert failed(gpu.collect(ASKED), revoking, ASKED, gpu.now) == {"nvidia.device.revoked"}
    old = identity.crl(start=gpu.now - dt.timedelta(days=9), end=gpu.now - dt.timedelta(days=2))
    assert failed(gpu.collect(ASKED), with_lists(gpu, old), ASKED, gpu.now) == {"nvidia.device.revoked"}
    assert failed(gpu.collect(ASKED), with_lists(gpu, b"x"), ASKED, gpu.now) >= {"nvidia.device.chain"}


def test_a_manifest_s_signer_can_be_revoked():
    from casemate.crypto import chain
    from casemate.tee.nvidia import rim

    gpu = FakeGpu()
    given = gpu.endorsements
    issuer = rim.parse(given.collateral["rim/driver.xml"]).certificates[1]
    lists = {"crl/0": gpu.rim_root.crl([issuer])}
    revoked = Endorsements(anchors=given.anchors, collateral=given.collateral | lists)
    assert failed(gpu.collect(ASKED), revoked, ASKED, gpu.now) >= {"nvidia.rim.revoked"}
    assert chain.load(issuer).subject == "CN=Fake RIM L3"


def test_one_device_with_two_keys_is_still_one():
    """Other firmware has another key and certificate; the ROM that certifies both is the device."""
    first, second = FakeGpu(), FakeGpu()
    from casemate.testing import nvidia as vendor

    second.root, second.chain[1:] = first.root, first.chain[1:]
    rom = first.chain[1]
    leaf = rom.issue("GH100 A01 GSP FMC LF", second.parts.key, extensions=vendor._dice("HOPPER", second.parts))
    second.chain[0].certificate = leaf
    evidence = listed([*first.entries(ASKED), *second.entries(ASKED)])
    assert failed(evidence, together(first, second), ASKED, first.now) == {"nvidia.unique"}


def test_all_devices_of_a_list_are_judged():
    first, second, switch = FakeGpu(), FakeGpu("BLACKWELL"), FakeGpu("LS10")
    endorsements = together(first, second, switch)
    entries = [e for gpu in (first, second, switch) for e in gpu.entries(ASKED)]
    claims = nvidia.verify(listed(entries), endorsements, ASKED, first.now)
    assert unacceptable(claims) == []
    assert [d["chip"] for d in claims.values["devices"]] == ["GH100", "GB100", "LS10"]
    assert "arch" not in claims.values
    assert {"gpu0.1", "gpu1.1", "switch0.1"} <= set(claims.measurement)
    for broken in ("signature", "nonce", "measurement"):
        bad = FakeGpu("BLACKWELL", broken=broken, root=second.root, rim_root=second.rim_root)
        entries[1] = bad.entries(ASKED)[0]
        with pytest.raises(Refused) as caught:
            nvidia.verify(listed(entries), endorsements, ASKED, first.now)
        wrong = [f for f in caught.value.findings if not f.ok]
        assert [f.rule for f in wrong] == [RULES[broken]]
        assert wrong[0].found.startswith("device 1: ")


def listed(entries):
    return Evidence(tee="nvidia", primary={"device_evidence_list": entries})


def together(*gpus):
    return Endorsements(
        anchors=tuple(a for gpu in gpus for a in gpu.endorsements.anchors),
        collateral={f"{k}.{i}": v for i, gpu in enumerate(gpus) for k, v in gpu.endorsements.collateral.items()},
    )


def test_devices_must_share_a_nonce():
    first, second = FakeGpu(), FakeGpu()
    other = Request(report_data=b"p" * 32)
    evidence = listed([*first.entries(ASKED), *second.entries(other)])
    assert failed(evidence, together(first, second), Request(), first.now) == {"nvidia.nonce"}


@pytest.mark.parametrize("size", [0, 31, 33, 47, 64])
def test_trap_2_no_short_or_long_report_data_is_fitted(size):
    gpu = FakeGpu()
    request = Request(report_data=(b"q" * 64)[:size])
    assert failed(gpu.collect(ASKED), gpu.endorsements, request, gpu.now) == {"nvidia.nonce"}


def test_trap_13_the_chain_goes_to_a_root_that_is_pinned():
    gpu = FakeGpu()
    assert {"nvidia.device.chain", "nvidia.rim.chain"} <= failed(
        gpu.collect(ASKED), Endorsements(collateral=gpu.endorsements.collateral), ASKED, gpu.now
    )


def test_trap_25_nothing_is_fetched_within_a_verification(monkeypatch):
    import socket

    def no_socket(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    gpu = FakeGpu()
    evidence, endorsements = gpu.collect(ASKED), gpu.endorsements
    monkeypatch.setattr(socket, "socket", no_socket)
    assert nvidia.verify(evidence, endorsements, ASKED, gpu.now)


def test_initdata_has_no_register():
    gpu = FakeGpu()
    request = Request(report_data=b"q" * 48, initdata_digest=b"i" * 32)
    assert failed(gpu.collect(ASKED), gpu.endorsements, request, gpu.now) == {"nvidia.initdata"}


def test_a_development_root_makes_development():
    gpu = FakeGpu(platform_class=DEVELOPMENT)
    claims = nvidia.verify(gpu.collect(ASKED), gpu.endorsements, ASKED, gpu.now)
    assert not claims.memory_encrypted
    assert unacceptable(claims) == ["platform.class"]


def test_what_a_verifier_said_is_no_evidence():
    statement = {"claims": [{"measres": "success"}], "detached_eat": [["JWT", "e30.e30."]], "result_code": 0}
    found = gathering.gather(files.sort([files.File("x", json.dumps(statement).encode())]))
    with pytest.raises(Refused, match="detached EAT"):
        casemate.verify(found.evidence, found.endorsements, Request(), AT)


def test_a_report_without_its_chain_is_missing_it():
    found = gathering.gather(files.sort([files.File("r", FakeGpu().report(b"n" * 32))]))
    assert found.missing == ("the certificate chain of the device whose report is r",)
    assert found.report_data is None


def test_files_of_somebody_else_are_left_alone():
    assert gathering.gather(files.sort([files.File("a", b'{"quote": "AAAA"}'), files.File("b", b"\x11\xe0")])) is None


@pytest.mark.parametrize(
    "primary",
    [
        {},
        {"device_evidence_list": []},
        {"device_evidence_list": ["x"]},
        {"device_evidence_list": [{"arch": "VOLTA", "evidence": "", "certificate": ""}]},
        {"device_evidence_list": [{"arch": "HOPPER", "evidence": 1, "certificate": ""}]},
        {"device_evidence_list": [{"arch": "HOPPER", "evidence": "", "certificate": "AAAA"}]},
        {"device_evidence_list": [{}] * 33},
    ],
)
def test_malformed_evidence(primary):
    with pytest.raises(Malformed):
        nvidia.verify(Evidence(tee="nvidia", primary=primary), Endorsements(), Request(), AT)


def test_the_register_has_the_room():
    assert room("nvidia") is nvidia
    with pytest.raises(Unusable):
        nvidia.verify(Evidence(tee="snp", primary={}), Endorsements(), Request(), AT)
    for verb in (nvidia.machine, nvidia.measure):
        with pytest.raises(Unusable):
            verb(None)
    assert nvidia.request(b"n" * 48, b"") == Request(report_data=b"n" * 48)


def test_envelopes_and_lists_are_both_recognised():
    gpu = FakeGpu(rims=False, responses=False)
    evidence = gpu.collect(ASKED)
    entries = evidence.primary["device_evidence_list"]
    for document in (
        evidence.primary,
        entries,
        {"tee": "nvidia", "primary": evidence.primary},
        {"evidence": {"tee": "nvidia", "primary": evidence.primary}},
        {"primary_evidence": evidence.primary},
    ):
        found = gathering.gather(files.sort([files.File("x", json.dumps(document).encode())]))
        assert found.evidence == evidence
        assert found.report_data == b"q" * 32
    other = {"tee": "snp", "primary": evidence.primary}
    assert gathering.gather(files.sort([files.File("x", json.dumps(other).encode())])) is None
