"""`casemate policy`: what can be done on this machine, and at a broker."""

import json

import pytest
from click.testing import CliRunner

import casemate.cli as cli
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest

HEAD = "package policy\nimport rego.v1\n"
GOOD = HEAD + 'trust_claims := {"hardware": 2} if input.tpm\nidle := 1\n'


def run(*words, home=None):
    environment = {"CASEMATE_HOME": str(home)} if home else {}
    return CliRunner().invoke(cli.casemate, ["policy", *map(str, words)], env=environment)


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "p.rego"
    file.write_text(GOOD)
    return file


def test_check(policy, tmp_path):
    done = run("check", policy)
    assert done.exit_code == 0, done.output
    assert "`idle` is asked for by nobody" in done.output
    done = run("check", policy, "--kind", "resource")
    assert done.exit_code == 1
    assert "`allow` is missing" in done.output
    assert "is it one of --kind attestation?" in done.output
    resource = tmp_path / "r.rego"
    resource.write_text(HEAD + "default allow := false\n")
    assert "`trust_claims` is missing, so as attestation policy it says nothing; is it one of --kind resource?" in (
        run("check", resource).output
    )
    policy.write_text(HEAD + "default allow := true\nallow if not input.x in query_reference_value(data.nothing)\n")
    told = json.loads(run("check", policy, "--kind", "resource", "--json").output)
    assert [r["message"].split()[0] for r in told["remarks"]] == ["everything", "`not`", "`data.nothing`"]
    policy.write_text(HEAD + "x := {")
    assert run("check", policy).exit_code == 2
    policy.write_bytes(b"\xff")
    assert run("check", policy).exit_code == 2


def test_test(policy, tmp_path):
    cases = tmp_path / "cases.json"
    case = {"name": "one", "input": {"tpm": {}}, "expect": {"status": "affirming", "rules": {"idle": 1}}}
    cases.write_text(json.dumps({"kind": "attestation", "policy": "p.rego", "cases": [case]}))
    assert run("test", cases).exit_code == 0
    case["expect"] = {"vector": {"hardware": 97}, "missing": ["x"]}
    cases.write_text(json.dumps({"kind": "attestation", "policy": "p.rego", "cases": [case]}))
    done = run("test", cases)
    assert done.exit_code == 1
    assert "expected 97, found 2" in done.output
    cases.write_text(json.dumps({"kind": "attestation", "policy": "p.rego", "cases": [{"nam": 1}]}))
    assert "cases" in run("test", cases).output
    cases.write_text(json.dumps({"kind": "resource", "cases": []}))
    assert run("test", cases).exit_code != 0


def test_explain_a_file(policy, tmp_path):
    given = tmp_path / "input.json"
    given.write_text('{"tpm": {"pcr4": "aa"}}')
    done = run("explain", given, "--policy", policy)
    assert "affirming (hardware 2)" in done.output
    assert "trust_claims" in done.output
    assert "not allowed" in run("explain", given, "--kind", "resource", "--path", "a/b/c").output


def test_at_a_broker(policy, tmp_path):
    service = brokers.start(tmp_path / "broker")
    try:
        service.trust()
        context = {"broker": {"url": service.url, "pin": service.pin}, "admin_key": str(service.admin_key)}
        (tmp_path / "context.json").write_text(json.dumps(context))
        assert Guest(service, service.found().manifest).handshake().status == 200
        done = run("simulate", policy, home=tmp_path)
        assert "1 attestations replayed: 1 answered otherwise, 0 refused" in done.output, done.output
        assert "version 1" in run("set", policy, home=tmp_path).output
        assert GOOD in run("show", home=tmp_path).output
        assert "broker" in run("list", home=tmp_path).output
        listed = json.loads(run("attestations", "--json", home=tmp_path).output)["attestations"]
        done = run("explain", listed[0]["id"], home=tmp_path)
        assert "affirming (hardware 2)" in done.output
        assert "attestation policy default_cpu: taken back" in run("rm", "default_cpu", home=tmp_path).output
        told = run("rm", "resource-policy", home=tmp_path)
        assert told.exit_code == 2
        assert "for resource policies: --kind resource" in told.output
        assert "for resource policies: --kind resource" in run("show", home=tmp_path).output
        policy.write_text(HEAD + "default allow := false\n")
        assert run("set", policy, "--kind", "resource", home=tmp_path).exit_code == 0
        shown = run("show", "--kind", "resource", home=tmp_path).output
        assert "resource policy resource-policy (broker)" in shown
        assert "for attestation policies: --kind attestation" in shown
    finally:
        service.stop()
