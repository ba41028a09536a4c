"""`casemate verify PATH...` as a person and as a program use it: verdicts, pages, policies, every kind of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey

from casemate.cli import casemate
from casemate.testing import case
from casemate.testing.nitro import FakeEnclave
from casemate.testing.snp import FakeChip

AT = "2026-06-01T12:00:00Z"
ASKED = case.Request(report_data=case.REPORT_DATA, initdata_digest=case.INITDATA)


def written(folder, vendor, request=ASKED):
    root = case.write(folder, vendor.collect(request), vendor.endorsements)
    return [str(folder), "--anchor", str(root), "--at", AT]


@pytest.fixture
def snp(tmp_path):
    return [*written(tmp_path / "case", FakeChip()), "--accept", "platform.class"]


def run(*arguments):
    return CliRunner().invoke(casemate, ["verify", *map(str, arguments)])


def document(*arguments):
    found = run(*arguments, "--json")
    return found.exit_code, json.loads(found.stdout)


def failed(found):
    return {check["rule"] for check in found["checks"] if check["result"] == "fail"}


def test_json_has_the_promised_members(snp):
    code, found = document(*snp, "--report-data", case.REPORT_DATA.hex())
    assert (code, found["verdict"], found["tee"], found["valid_until"]) == (
        0,
        "accepted",
        "snp",
        "2049-01-01T00:00:00Z",
    )
    assert {"measurement", "report_data", "debug", "tcb_status", "init_data", "privilege_level"} <= set(found["claims"])
    assert all(set(check) == {"rule", "result", "expected", "found", "hint"} for check in found["checks"])
    assert (found["freshness"], found["notes"]) == ("checked", [])


def test_without_report_data_it_says_that_freshness_was_not_checked(snp):
    code, found = document(*snp)
    assert (code, found["freshness"]) == (0, "not checked")
    assert "freshness was not checked" in found["notes"][0]
    assert "freshness was not checked" in run(*snp).stdout


def test_the_page_names_what_who_and_every_rule(snp):
    page = run(*snp).stdout
    for part in ("ACCEPTED", "attestation reports", "CN=ARK-Milan (--anchor)", "measured", "VMPL 0", "2049-01-01",
                 "reported: bootloader 4", "✓ snp.signature"):  # fmt: skip
        assert part in page


def test_a_refusal_names_every_failed_rule_of_both_kinds(tmp_path):
    arguments = written(tmp_path / "case", FakeChip(broken="debug"))
    found = run(*arguments)
    assert found.exit_code == 1
    for part in ("REFUSED", "✗ snp.policy.debug", "✗ platform.class", "expected:", "found:", "what to do:"):
        assert part in found.stdout
    assert failed(document(*arguments)[1]) == {"snp.policy.debug", "platform.class"}
    accepted = [*arguments, "--accept", "snp.policy.debug", "--accept", "platform.class"]
    assert document(*accepted)[1]["verdict"] == "accepted"


def test_genuineness_is_never_accepted_by_name(tmp_path):
    arguments = written(tmp_path / "case", FakeChip(broken="signature"))
    accepted = [*arguments, "--accept", "snp.signature", "--accept", "platform.class"]
    code, found = document(*accepted)
    assert (code, found["claims"]) == (1, {})
    assert "snp.signature" in failed(found)


def test_report_data_and_initdata_are_compared(snp, tmp_path):
    (tmp_path / "initdata").write_bytes(b"another")
    code, found = document(*snp, "--report-data", "00" * 32, "--initdata", tmp_path / "initdata")
    assert (code, failed(found)) == (1, {"snp.report_data", "snp.initdata"})


def test_the_shown_policy_is_taken_back(snp, tmp_path):
    shown = run("--show-policy")
    assert shown.exit_code == 0
    path = tmp_path / "policy.toml"
    path.write_text(shown.stdout)
    assert document(*snp, "--policy", path)[1]["verdict"] == "accepted"
    again = run("--show-policy", "--policy", path, "--accept-tcb", "OutOfDate", "--accept", "x.y")
    assert '"OutOfDate"' in again.stdout
    assert '"x.y"' in again.stdout
    path.write_text(again.stdout)
    assert run("--show-policy", "--policy", path).stdout == again.stdout


def test_a_policy_demands_measurements_initdata_and_a_layer(snp, tmp_path):
    path = tmp_path / "policy.toml"
    good = 'version = 1\naccept = ["platform.class"]\nmax_privilege_level = 0\n'
    path.write_text(good + f'init_data = "{"00" * 32}"\n[measurement]\nmeasurement = ["{"00" * 48}", "{"44" * 48}"]\n')
    assert document(*snp, "--policy", path)[1]["verdict"] == "accepted"
    path.write_text(good + f'init_data = "{"01" * 32}"\n[measurement]\nmeasurement = "{"00" * 48}"\nother = "00"\n')
    assert failed(document(*snp, "--policy", path)[1]) == {
        "policy.init_data", "policy.measurement.measurement", "policy.measurement.other",
    }  # fmt: skip


BAD_POLICIES = [
    "", "version = 2", "version = true", "[[", "version = 1\n" + "[" * 5000, "\xff",
    *(f"version = 1\n{line}" for line in (
        "unknown = 1", "accept = 'x'", "accept = [1]", "accept_tcb = ['a b']", "max_privilege_level = -1",
        "max_privilege_level = true", "measurement = 1", "init_data = 'zz'", "[measurement]\na = []",
        "[measurement]\na = 'xyz'", "[measurement]\n'a b' = '00'", "[more]\na = 1",
    )),
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_POLICIES)
def test_bad_policies_are_told(snp, tmp_path, text):
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("latin-1"))
    code, found = document(*snp, "--policy", path)
    assert (code, found["verdict"]) == (2, "unusable")
    assert found["error"].startswith("policy:")


def test_reference_values_signed_unsigned_and_of_another_image(snp, tmp_path):
    from casemate.policy.references import rules, signed

    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "signer.der").write_bytes(spki)
    about = {"name": "image", "scope": {"tee": "snp"}, "signer": rules.key_id(spki)}
    window = {"issued": datetime(2026, 5, 1, tzinfo=UTC), "expires": datetime(2026, 7, 1, tzinfo=UTC)}
    payload = signed.compose(values={"measurement": "44" * 48}, **about, **window)
    other = signed.compose(values={"measurement": "55" * 48}, **about, **window)
    path = tmp_path / "values.json"

    def judged(data, *options):
        path.write_bytes(data)
        return failed(document(*snp, "--reference", path, *options)[1])

    believed = ["--reference-key", tmp_path / "signer.der"]
    assert judged(signed.sign(payload, key), *believed) == set()
    assert judged(signed.sign(payload, key)) == {"reference.signature"}
    assert judged(signed.sign(other, key), *believed) == {"reference.measurement"}
    assert "reference.signature" in judged(payload)
    assert "reference.signature" not in judged(payload, "--accept", "reference.unsigned")
    path.write_bytes(signed.sign(payload, key))
    late = [*snp, "--reference", path, *believed, "--at", "2026-07-02"]
    assert failed(document(*late)[1]) == {"reference.expiry"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nonexistent"], "No such file"),
        (["/dev/null"], "not a regular file"),
        (["{case}", "--at", "yesterday"], "not a time"),
        (["{case}", "--at", "0001-01-01T00:00:00Z"], "out of range"),
        (["{case}", "--report-data", "xyz"], "not hex"),
        (["{case}", "--report-data", ""], "1 to 1024"),
        (["{case}", "--report-data", "00" * 1025], "1 to 1024"),
        (["{case}", "--tee", "vax"], "not known"),
        (["{case}", "--tee", "tdx"], "no file is evidence of tdx"),
        (["{case}", "--anchor", "{case}/evidence.json"], "no certificate"),
        (["{case}", "--policy", "/nonexistent"], "No such file"),
        (["{case}", "--initdata", "/nonexistent"], "No such file"),
        (["{case}", "--reference", "{case}/evidence.json"], "reference values"),
        (["{case}", "--reference-key", "{case}/evidence.json"], "without --reference"),
        (["{case}", "--ear", "{case}/evidence.json"], "not a private key"),
        (["{empty}"], "no files"),
        (["{case}/evidence.json", "{other}"], "name one with --tee"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_2(snp, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    written(tmp_path / "other", FakeEnclave(), case.Request(report_data=b"n"))
    places = {"case": tmp_path / "case", "empty": tmp_path / "empty", "other": tmp_path / "other"}
    given_arguments = [argument.format(**places) for argument in arguments]
    code, found = document(*snp[1:], *given_arguments)
    assert (code, found["verdict"]) == (2, "unusable"), found
    assert sentence in found["error"] + found["hint"]
    page = run(*snp[1:], *given_arguments)
    assert (page.exit_code, page.stdout.split()[0]) == (2, "UNUSABLE")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--service", "a:1"],
        ["--service", "a:1"],
        ["--service", "a:1", "--app", "x", "--at", AT],
        ["x", "--app", "y"],
    ],
)
def test_forms_are_not_mixed(arguments):
    assert run(*arguments).exit_code == 2


def test_two_pieces_of_evidence_must_both_hold(tmp_path):
    vendor = FakeEnclave()
    arguments = written(tmp_path / "case", vendor, case.Request(report_data=b"n"))
    (tmp_path / "case" / "second.cbor").write_bytes(FakeEnclave(root=vendor.root, broken="signature").document(b"n"))
    code, found = document(*arguments, "--accept", "platform.class")
    assert (code, failed(found)) == (1, {"nitro.signature"})
    broken = next(check for check in found["checks"] if check["result"] == "fail")
    assert "(in " in broken["found"]


def test_a_token_carries_the_result(snp, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    found = document(*snp, "--ear", path)[1]
    token = jwt.decode(found["ear"], ECKey.import_key(path.read_bytes()), algorithms=["ES256"])
    cpu = token.claims["submods"]["cpu0"]
    assert cpu["ear.status"] == "warning"  # a development root: never affirming
    assert cpu["ear.trustworthiness-vector"]["executables"] == 0  # nobody compared a measurement
    assert cpu["ear.veraison.annotated-evidence"]["snp"]["measurement"] == "44" * 48
    assert token.header["jwk"]["kid"] == token.header["kid"]
    assert found["ear"] in run(*snp, "--ear", path).stdout or "token" in run(*snp, "--ear", path).stdout
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(other)
    assert document(*snp, "--ear", path)[1]["error"].endswith("not a key on P-256")


def test_a_terminal_without_unicode_gets_letters(snp):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "casemate", "verify", *snp]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"  ok snp.signature: signed" in done.stdout


def test_folders_links_pipes_and_hidden_files(snp, tmp_path):
    folder = tmp_path / "case"
    os.mkfifo(folder / "pipe")
    (folder / ".hidden").write_bytes(b"x")
    (folder / "loop").symlink_to(folder)
    (folder / "dangling").symlink_to(folder / "nothing")
    assert document(*snp)[1]["files"] == ["evidence.json"]
    for index in range(70):
        (folder / f"{index}").write_bytes(b"x")
    code, found = document(*snp)
    assert (code, found["error"]) == (2, "more than 64 files")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000), cut=st.integers(0, 4000), at=st.integers(0, 4000))
def test_whatever_lies_there_ends_in_a_verdict(tmp_path, data, cut, at):
    evidence = tmp_path / "fuzz"
    evidence.write_bytes(data)
    whole = json.dumps({"tee": "snp", "primary": FUZZED.primary}).encode()
    (tmp_path / "paper").write_bytes(whole[:at] + data[:1] + whole[at + 1 : max(cut, at + 1) + 30_000])
    for paths in ([evidence], [tmp_path / "paper"], [evidence, tmp_path / "paper"]):
        found = run(*paths, "--at", AT, "--json")
        assert found.exit_code in (1, 2), found.output
        assert json.loads(found.stdout)["verdict"] in ("refused", "unusable")


FUZZED = FakeChip().collect(ASKED)


def test_what_only_the_relying_party_can_give(tmp_path):
    from casemate.testing import case as cases

    for tee in ("cca", "se"):
        vendor = cases.vendor(tee)
        root = cases.write(tmp_path / tee, vendor.collect(cases.request(tee)), vendor.endorsements)
        given = ["--anchor", root] + (["--anchor", tmp_path / "se.key"] if tee == "se" else [])
        line = (tmp_path / tee, "--at", "2026-06-01T12:00:00Z")
        code, found = document(*line)
        assert (code, found["verdict"], "--anchor" in found["error"]) == (2, "unusable", True)
        for options, expected in (([], {"platform.class"}), (["--anchor-class", "production"], set())):
            code, found = document(*line, *given, *options)
            assert {c["rule"] for c in found["checks"] if c["result"] == "fail"} == expected
            assert code == (1 if expected else 0)


def test_anchors_that_hold_nothing_to_believe(tmp_path, snp):
    (tmp_path / "junk").write_bytes(b"junk")
    code, found = document(*snp, "--anchor", tmp_path / "junk")
    assert (code, "no certificate or public key" in found["error"]) == (2, True)
    code, found = document(*snp, "--device-report-data", "00")
    assert (code, "device" in found["error"]) == (2, True)
