from datetime import UTC, datetime

import msgspec
import pytest

from casemate.errors import Malformed
from casemate.tee.dcap import collateral, pck, tcb
from casemate.testing import dcap as fake
from casemate.testing import pki

V2_LEVEL = {f"sgxtcbcomp{i:02}svn": i for i in range(1, 17)} | {"pcesvn": 7}


def info(**changes):
    import json

    platform = fake.FakePlatform("tdx")
    return json.dumps(fake.tcb_info(platform) | changes).encode()


@pytest.mark.parametrize(
    ("status", "part", "result"),
    [
        ("UpToDate", "UpToDate", "UpToDate"),
        ("UpToDate", "OutOfDate", "OutOfDate"),
        ("SWHardeningNeeded", "OutOfDate", "OutOfDate"),
        ("ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
        ("OutOfDateConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
        ("TDRelaunchAdvised", "UpToDate", "TDRelaunchAdvised"),
        ("UpToDate", "SWHardeningNeeded", "SWHardeningNeeded"),
        ("UpToDate", "ConfigurationNeeded", "ConfigurationNeeded"),
        ("SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"),
        ("OutOfDate", "ConfigurationNeeded", "OutOfDateConfigurationNeeded"),
        ("OutOfDate", "SWHardeningNeeded", "OutOfDate"),
        ("ConfigurationNeeded", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded"),
        ("UpToDate", "Revoked", "Revoked"),
        ("Revoked", "UpToDate", "Revoked"),
    ],
)
def test_converge(status, part, result):
    assert tcb.converge(status, part) == result


@pytest.mark.parametrize("qe", sorted(tcb.KNOWN))
@pytest.mark.parametrize("status", sorted(tcb.KNOWN))
def test_a_qe_that_is_neither_current_nor_revoked_is_out_of_date(status, qe):
    counted = qe if qe in ("UpToDate", "Revoked") else "OutOfDate"
    assert tcb.converge_qe(status, qe) == tcb.converge(status, counted)
    assert (tcb.converge_qe(status, qe) in ("UpToDate", "SWHardeningNeeded")) <= (qe == "UpToDate")


def test_levels_are_ordered_whatever_the_text():
    levels = collateral.tcb_info(info())[1]
    turned = info(tcbLevels=list(reversed(fake.tcb_info(fake.FakePlatform("tdx"))["tcbLevels"])))
    assert collateral.tcb_info(turned)[1] == levels
    assert levels[0].sgx > levels[1].sgx


def test_module_bytes_are_left_out_where_the_module_has_a_version():
    levels = collateral.tcb_info(info())[1]
    key = pck.parse(fake.pck_extension(5))
    low_module = bytes([0, 1, 5]).ljust(16, b"\0")
    assert tcb.platform(levels, key, low_module)[1].status == "UpToDate"
    unversioned = bytes([4, 0, 5]).ljust(16, b"\0")
    sgx, full = tcb.platform(levels, key, unversioned)
    assert (sgx.status, full.status) == ("UpToDate", "OutOfDate")


def test_a_version_2_tcb_info():
    platform = fake.FakePlatform("sgx")
    import json

    old = fake.tcb_info(platform)
    del old["id"]
    level = {"tcb": V2_LEVEL, "tcbDate": "2020-01-01T00:00:00Z", "tcbStatus": "UpToDate"}
    text = json.dumps(old | {"version": 2, "tcbLevels": [level]}).encode()
    parsed, levels = collateral.tcb_info(text)
    assert parsed.id == "SGX"
    assert levels[0].sgx == tuple(range(1, 17))
    assert levels[0].level.advisory_ids == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 4}, {"issueDate": "2025-01-01T00:00:00"}, {"issueDate": "yesterday"}, {"tcbLevels": [{}]},
        {"tcbLevels": [{"tcb": {"pcesvn": 1}, "tcbDate": "2020-01-01T00:00:00Z", "tcbStatus": "UpToDate"}]},
        {"fmspc": 1},
        {"version": 2},
    ],
)  # fmt: skip
def test_malformed_tcb_info(changes):
    with pytest.raises(Malformed):
        collateral.tcb_info(info(**changes))


def test_an_unknown_status_is_malformed():
    text = info(tcbLevels=fake.tcb_info(fake.FakePlatform("tdx", levels=((1, "Splendid", ()),)))["tcbLevels"])
    with pytest.raises(Malformed):
        tcb.platform(collateral.tcb_info(text)[1], pck.parse(fake.pck_extension(5)), None)


def test_unwrap_cuts_the_signed_text_out():
    text, signature = collateral.unwrap(b'{"tcbInfo": {"a" : [1, 2]} , "signature":"' + b"ab" * 64 + b'"}', "tcbInfo")
    assert text == b'{"a" : [1, 2]}'
    assert signature == b"\xab" * 64


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"tcbInfo":{}}', b'{"tcbInfo":{},"signature":"zz"}', b'{"x":{},"signature":""}']
)
def test_unwrap_refuses(data):
    with pytest.raises(Malformed):
        collateral.unwrap(data, "tcbInfo")


def test_from_json_takes_what_it_knows():
    assert collateral.from_json(b'{"tcb_info":"{}","pck_crl":"00","other":"x"}') == {
        "tcb_info": b"{}",
        "pck_crl": b"\0",
    }
    for bad in (b"", b"[]", b'{"pck_crl":"zz"}'):
        with pytest.raises(Malformed):
            collateral.from_json(bad)


def test_pck_extension_round_trip():
    found = pck.parse(fake.pck_extension(7))
    assert found.components == (7,) * 16
    assert (found.pce_svn, found.fmspc, found.pce_id, found.sgx_type) == (7, fake.FMSPC, fake.PCE_ID, 1)
    assert found.smt_enabled is True


@pytest.mark.parametrize("cut", range(0, 300, 13))
def test_pck_extension_cut_short(cut):
    with pytest.raises(Malformed):
        pck.parse(fake.pck_extension()[:cut])


def test_relaunch_is_advised_only_where_the_new_module_is_current():
    when = datetime(2025, 1, 1, tzinfo=UTC)
    parsed, levels = collateral.tcb_info(info())
    ok = tcb.Found("UpToDate", when, ())
    old = tcb.Found("OutOfDate", when, ())

    def status(svn2, *, sgx=ok, module=old, qe=ok, status="OutOfDate"):
        return tcb.relaunch(
            status, sgx=sgx, module=module, qe=qe, info=parsed, levels=levels, tee_tcb_svn2=bytes(svn2).ljust(16, b"\0")
        )

    assert status([6, 1, 5]) == "TDRelaunchAdvised"
    assert status([5, 1, 5]) == "OutOfDate"
    assert status([6, 1, 4]) == "OutOfDate"
    assert status([6, 7, 5]) == "OutOfDate"
    assert status([5, 0, 5]) == "TDRelaunchAdvised"
    assert status([6, 1, 5], qe=old) == "OutOfDate"
    assert status([6, 1, 5], sgx=old) == "OutOfDate"
    assert status([6, 1, 5], module=ok) == "OutOfDate"
    configuration = tcb.Found("ConfigurationNeeded", when, ())
    assert status([6, 1, 5], sgx=configuration) == "TDRelaunchAdvisedConfigurationNeeded"
    assert status([6, 1, 5], status="UpToDate") == "UpToDate"


def test_the_fake_clock():
    assert pki.NOW.tzinfo is UTC


def test_signers_of_collateral_end_in_the_root_of_the_platforms_key():
    """An anchor for development platforms must not speak for others' platforms, and the other way round."""
    from casemate.errors import Refused
    from casemate.schema.evidence import Evidence
    from casemate.schema.request import Request
    from casemate.tee import room
    from casemate.wire.encoding import b64

    mine, other = fake.FakePlatform("sgx"), fake.FakePlatform("sgx")
    taken = {n: d for n, d in other.endorsements.collateral.items() if n.startswith(("tcb_info", "qe_identity"))}
    papers = msgspec.structs.replace(
        mine.endorsements,
        anchors=(*mine.endorsements.anchors, *other.endorsements.anchors),
        collateral=mine.endorsements.collateral | taken,
    )
    evidence = Evidence(tee="sgx", primary={"quote": b64(mine.quote(mine.enclave()))})
    with pytest.raises(Refused) as caught:
        room("sgx").verify(evidence, papers, Request(), mine.now)
    failed = {f.rule for f in caught.value.findings if not f.ok}
    assert failed >= {"sgx.tcb_info.root", "sgx.qe_identity.root"}
    assert not failed & {"sgx.tcb_info.chain", "sgx.tcb_info.signature"}
