"""Counters: Trustee's names, ours, and labels that strangers cannot fill."""

import json
import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from casemate.api.metrics import MAX_RULES, OTHER, Answered, Metrics
from casemate.broker.settings import Settings
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest

# coco-wire 1.12 and Trustee's own page on metrics
TRUSTEE = {
    "kbs_build_info", "kbs_http_requests_total", "kbs_http_request_duration_seconds", "kbs_http_request_size_bytes",
    "kbs_http_response_size_bytes", "kbs_http_active_connections", "kbs_resource_reads_total",
    "kbs_resource_writes_total", "kbs_resource_deletes_total", "kbs_policy_evaluations_total",
    "kbs_policy_approvals_total", "kbs_policy_violations_total", "kbs_policy_errors_total",
    "kbs_attestation_requests_total", "kbs_attestation_successes_total", "kbs_attestation_failures_total",
    "kbs_attestation_errors_total", "kbs_auth_requests_total", "kbs_auth_successes_total", "kbs_auth_errors_total",
}  # fmt: skip


def samples(text):
    """Every sample: (name, labels) to value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(service):
    return samples(service.call("GET", "/metrics").body.decode())


def grown(before, after, name, **labels):
    at = (name, tuple(sorted(labels.items())))
    return after.get(at, 0) - before.get(at, 0)


def test_trustees_names(service):
    text = service.call("GET", "/metrics").body.decode()
    found = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert found >= TRUSTEE
    assert service.call("GET", "/metrics").headers["content-type"].startswith("text/plain")
    assert service.call("POST", "/metrics", b"").status == 405


def test_a_run_is_counted(service):
    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"value")
    before = read(service)
    guest = Guest(service, app.manifest)
    assert guest.handshake().status == 200
    assert guest.get(app.path).status == 200
    assert guest.get("a/b/c").status == 403
    assert guest.attest().status == 401  # again
    assert service.call("POST", "/kbs/v0/attest", {}).status == 401
    after = read(service)
    for name, count in (
        ("kbs_auth_requests_total", 1), ("kbs_auth_successes_total", 1), ("kbs_auth_errors_total", 0),
        ("kbs_attestation_requests_total", 3), ("kbs_attestation_errors_total", 2),
        ("kbs_policy_evaluations_total", 2), ("kbs_policy_approvals_total", 1), ("kbs_policy_violations_total", 1),
        ("kbs_policy_errors_total", 0), ("kbs_http_requests_total", 6),
    ):  # fmt: skip
        assert grown(before, after, name) == count, name
    assert grown(before, after, "kbs_attestation_successes_total", tee_type="tpm") == 1
    assert grown(before, after, "kbs_resource_reads_total", resource_path="*") == 1
    assert grown(before, after, "casemate_decisions_total", act="release", tee_type="tpm", result="refused") == 1
    route = "/kbs/v0/resource/{repo}/{type}/{tag}"
    assert grown(before, after, "casemate_http_requests_total", route=route, method="GET", status="403") == 1
    assert any(name == "casemate_refusals_total" and dict(labels)["route"] == route for name, labels in after)


def test_where_time_goes(service):
    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"value")
    guest = Guest(service, app.manifest)
    guest.handshake()
    guest.get(app.path)
    counted = {
        dict(labels)["act"] + "." + dict(labels)["step"]
        for name, labels in read(service)
        if name == "casemate_step_seconds_count"
    }
    assert counted >= {
        "attest.endorse",
        "attest.verify",
        "attest.consult",
        "attest.appraise",
        "attest.record",
        "attest.token",
        "release.judge",
        "release.record",
    }


def test_evidence_that_is_not_genuine_is_a_failure(service):
    from casemate.testing.tpm import FakeTpm, FakeVendor

    before = read(service)
    guest = Guest(service, service.found().manifest, tpm=FakeTpm(vendor=FakeVendor()))
    assert guest.handshake().status == 401
    after = read(service)
    assert grown(before, after, "kbs_attestation_failures_total", tee_type="tpm") == 1
    assert any(name == "casemate_decision_reasons_total" and dict(labels)["act"] == "attest" for name, labels in after)


def test_what_strangers_send_is_no_label(service):
    for number in range(20):
        service.call("GET", f"/secret-name-{number}")
        service.call("GET", f"/kbs/v0/resource/secret-name-{number}/b/c")
        service.call("BREW", "/healthz")
        service.call("POST", "/kbs/v0/auth", {"version": "0.4.0", "tee": f"secret-name-{number}"})
    text = service.call("GET", "/metrics").body.decode()
    assert "secret-name" not in text
    assert "BREW" not in text


def test_labels_have_a_bound():
    made = Metrics(Settings(folder="/nowhere"))
    for number in range(MAX_RULES + 50):
        made.decided("release", "tpm", False, [f"policy.rule{number}", "Not a rule!"])
    found = {
        dict(labels).get("rule")
        for name, labels in samples(made.text()[0].decode())
        if name == "casemate_decision_reasons_total"
    }
    assert len(found) == MAX_RULES + 1
    assert OTHER in found


@pytest.mark.parametrize(("shown", "label"), [("none", "*"), ("repo", "repo"), ("full", "repo/type/tag")])
def test_paths_of_resources_are_shown_as_far_as_the_operator_says(shown, label):
    made = Metrics(Settings(folder="/nowhere", metrics_paths=shown))
    route = "/kbs/v0/resource/{repo}/{type}/{tag}"
    for method, name in (("GET", "reads"), ("POST", "writes"), ("DELETE", "deletes")):
        made.answered(Answered(route, method, "/kbs/v0/resource/repo/type/tag", 200, 0.1, 1, 1))
        assert samples(made.text()[0].decode())[f"kbs_resource_{name}_total", (("resource_path", label),)] == 1


POLICY = "package policy\nimport rego.v1\n"


@pytest.mark.parametrize(
    ("text", "counted", "rule"),
    [
        ("allow := true if true\nallow := false if true", "errors", "policy.resource.error"),
        ('allow := "yes"', "errors", "policy.resource.error"),
        ("default allow := false", "violations", "policy.resource"),
        ("default allow := true", "approvals", None),
    ],
)
def test_a_policy_that_breaks_is_an_error_and_one_that_says_no_is_a_violation(service, text, counted, rule):
    app = service.found("broken")
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"value")
    service.admin.call("PUT", "/policies/resource/resource-policy?tenant=broken", {"text": POLICY + text})
    guest = Guest(service, app.manifest)
    assert guest.handshake().status == 200
    before = read(service)
    got = guest.get(app.path)
    assert got.status == (403 if rule else 200)
    if rule:
        assert [reason["rule"] for reason in json.loads(got.body)["reasons"]] == [rule]
    after = read(service)
    for name in ("errors", "violations", "approvals"):
        assert grown(before, after, f"kbs_policy_{name}_total") == (name == counted)
    assert grown(before, after, "kbs_policy_evaluations_total") == 1


def test_an_attestation_policy_that_breaks_is_an_error(service):
    service.admin.call(
        "PUT", "/policies/attestation/default_cpu?tenant=odd", {"text": POLICY + 'trust_claims := {"nonsense": 2}'}
    )
    guest = Guest(service, service.found("odd").manifest)
    before = read(service)
    assert guest.handshake().status == 403
    after = read(service)
    assert grown(before, after, "kbs_policy_errors_total") == grown(before, after, "kbs_policy_evaluations_total") == 1


def test_metrics_can_be_an_auditors_alone(tmp_path):
    made = brokers.start(tmp_path, metrics_open=False)
    try:
        assert made.call("GET", "/metrics").status == 401
        assert made.call("GET", "/metrics", Authorization=f"Bearer {made.admin.token()}").status == 200
    finally:
        made.stop()


COUNT = """
import json, sys
from casemate.api.metrics import Metrics
from casemate.broker.settings import Settings
made = Metrics(Settings(folder="/nowhere"))
made.active.inc()
for _ in range(int(sys.argv[1])):
    made.decided("attest", "tpm", True, [])
    made.step("attest", "verify", 0.01)
print(json.dumps(made.text()[0].decode()))
"""


def test_several_processes_are_one_sum(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(count):
        done = subprocess.run(
            [sys.executable, "-c", COUNT, str(count)], env=environment, capture_output=True, check=True
        )
        return samples(json.loads(done.stdout))

    run(3)
    found = run(4)
    assert found["casemate_decisions_total", (("act", "attest"), ("result", "allowed"), ("tee_type", "tpm"))] == 7
    assert found["casemate_step_seconds_count", (("act", "attest"), ("step", "verify"))] == 7
    assert [value for (name, _), value in found.items() if name == "kbs_build_info"] == [1]
