"""`casemate collateral` as a person uses it: fetch for evidence, verify offline, carry over an air gap, see the end."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from casemate.cli import casemate
from casemate.schema.request import Request
from casemate.testing import pki
from casemate.testing.dcap import FakePlatform
from casemate.testing.snp import FakeChip
from casemate.testing.tdx import FakeTd
from casemate.testing.vendors import Answer, VendorServer, amd, intel

NONCE = b"r" * 48


def run(*words):
    return CliRunner().invoke(casemate, list(map(str, words)))


def document(*words):
    found = run(*words, "--json")
    return found.exit_code, json.loads(found.stdout)


@pytest.fixture
def vendors(tmp_path, monkeypatch):
    """A TD, a chip, a server that plays their vendors, and settings at their usual place."""
    monkeypatch.setenv("CASEMATE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir(mode=0o700)
    chip, platform = FakeChip(), FakePlatform("tdx", now=datetime.now(UTC))
    (tmp_path / "intel.pem").write_bytes(pki.pem(platform.root.certificate))
    (tmp_path / "amd.pem").write_bytes(pki.pem(chip.ark.certificate))
    (tmp_path / "quote.bin").write_bytes(platform_quote(platform))
    (tmp_path / "report.bin").write_bytes(chip.report(Request(report_data=NONCE)))
    with VendorServer(amd(chip) | intel(platform)) as server:
        server.settings(tmp_path / "home")
        yield server


def platform_quote(platform):
    from casemate.wire.encoding import unb64

    return unb64(FakeTd(platform).collect(Request(report_data=NONCE)).primary["quote"])


def accepted(evidence, anchor, *words):
    code, found = document("verify", evidence, "--anchor", anchor, "--accept", "platform.class", *words)
    return code, found["verdict"]


@pytest.mark.parametrize(("evidence", "anchor", "count"), [("report.bin", "amd.pem", 3), ("quote.bin", "intel.pem", 4)])
def test_fetch_then_verify_offline_then_over_an_air_gap(vendors, tmp_path, evidence, anchor, count):
    store, bundle = tmp_path / "home" / "collateral", tmp_path / "bundle.json"
    assert accepted(evidence, anchor) == (2, "unusable")
    code, found = document("collateral", "fetch", evidence)
    assert (code, len(found["fetched"]), found["kept"]) == (0, count, [])
    asked = len(vendors.asked)
    assert accepted(evidence, anchor, "--collateral", store) == (0, "accepted")
    assert run("collateral", "export", bundle).exit_code == 0
    assert accepted(evidence, anchor, "--collateral", bundle) == (0, "accepted")
    assert document("collateral", "import", bundle, "--store", tmp_path / "far") == (
        0,
        {"bundle": str(bundle), "taken": count, "left": 0},
    )
    assert accepted(evidence, anchor, "--collateral", tmp_path / "far") == (0, "accepted")
    assert len(vendors.asked) == asked
    again = run("collateral", "fetch", evidence)
    assert (again.exit_code, again.stdout.count("kept     https://")) == (0, count)


def test_what_a_store_lacks_is_named_with_the_command(vendors, tmp_path):
    (tmp_path / "empty").mkdir()
    code, found = document("verify", "report.bin", "--anchor", "amd.pem", "--collateral", "empty")
    assert (code, found["verdict"]) == (2, "unusable")
    assert "https://kdsintf.amd.com/vcek/v1/Milan/7777" in json.dumps(found)
    assert "casemate collateral fetch" in json.dumps(found)


def test_show_tells_what_until_when_and_warns(vendors, tmp_path):
    run("collateral", "fetch", "report.bin", "quote.bin")
    soon = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    url = "https://api.trustedservices.intel.com/x"
    vendors.answers[url] = Answer(json.dumps({"id": "soon", "nextUpdate": soon}).encode())
    assert run("collateral", "fetch", "--url", url).exit_code == 0
    shown = run("collateral", "show")
    assert "fmspc=90C06F000000" in shown.stdout
    assert "CN=SEV-VCEK" in shown.stdout
    assert "ends within 7 days" in shown.stderr
    code, found = document("collateral", "show")
    assert (code, len(found["entries"]), found["ending"]) == (0, 8, [url])
    assert set(found["entries"][0]) == {"url", "kind", "about", "digest", "size", "fetched", "expires"}


def test_renew_asks_only_for_what_is_due(vendors, tmp_path):
    run("collateral", "fetch", "report.bin", "quote.bin")
    asked = len(vendors.asked)
    assert document("collateral", "fetch", "--renew")[1]["fetched"] == []
    code, found = document("collateral", "fetch", "--renew", "--refresh")
    assert (code, len(found["fetched"]), len(vendors.asked)) == (0, 7, asked + 7)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["fetch"], 2, "nothing to fetch"),
        (["fetch", "intel.pem"], 2, "no file is evidence"),
        (["fetch", "--url", "https://elsewhere.example/x"], 2, "no known service"),
        (["show"], 2, "no collateral at"),
        (["import", "intel.pem"], 2, "no collateral bundle"),
        (["export", "x.json"], 2, "no collateral at"),
    ],
)
def test_wrong_use(vendors, tmp_path, words, code, message):
    got = run("collateral", *words)
    assert (got.exit_code, message in got.stderr) == (code, True), got.stderr


def test_an_answer_that_is_missing_is_a_sentence(vendors, tmp_path):
    vendors.answers.clear()
    got = run("collateral", "fetch", "quote.bin")
    assert (got.exit_code, "has nothing (404)" in got.stderr) == (1, True)
