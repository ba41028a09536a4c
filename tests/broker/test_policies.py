"""Policies at a real broker: what they shape, what they narrow, whose they are, what they break, and replaying."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.drivers.rego import Pool
from casemate.errors import Finding, Refused, Unusable
from casemate.policy.rego import inputs, results, shipped
from casemate.release import ear
from casemate.schema.claims import Claims
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules

HEAD = "package policy\nimport rego.v1\n"
AFFIRM = HEAD + 'trust_claims := {"hardware": 2, "executables": 3, "configuration": 2}\n'
LOOP = HEAD + "trust_claims := {1 | some i in numbers.range(1, 99999); numbers.range(1, i)[_] == -1}\n"
AFFIRMING = HEAD + 'default allow := false\nallow if input.submods.cpu0["ear.status"] == "affirming"\n'


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("policies"), repos={"shared": "acme"})
    made.trust()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _no_policies_left(service):
    yield
    for tenant in ("", "?tenant=acme", "?tenant=other"):
        for policy in service.admin.call("GET", f"/policies{tenant}")["policies"]:
            own = "tenant" if tenant else "broker"
            if policy["from"] == own:
                service.admin.call("DELETE", f"/policies/{policy['kind']}/{policy['name']}{tenant}")


def put(service, text, kind="attestation", name="default_cpu", tenant=None):
    query = f"?tenant={tenant}" if tenant else ""
    return service.admin.call("PUT", f"/policies/{kind}/{name}{query}", {"text": text})


def claims_of(guest):
    body = guest.token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=="))


def guest_of(service, tenant="demo"):
    app = service.found(tenant)
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"value")
    return Guest(service, app.manifest), app


def test_a_policy_shapes_the_result(service):
    guest, _ = guest_of(service)
    assert guest.handshake().status == 200
    assert claims_of(guest)["submods"]["cpu0"]["ear.status"] == "warning"  # a development platform, as shipped
    extension = '{"name": "ear.trustee.identifiers", "key": -18, "value": {"validated": input.init_data}}'
    put(service, AFFIRM + f"extensions := [{extension}]\n")
    assert guest.handshake().status == 200
    cpu = claims_of(guest)["submods"]["cpu0"]
    assert (cpu["ear.status"], cpu["ear.appraisal-policy-id"]) == ("affirming", "default")
    assert cpu["ear.trustworthiness-vector"]["executables"] == 3
    assert cpu["ear.trustee.identifiers"]["validated"]


@pytest.mark.parametrize("text", [LOOP, HEAD + 'trust_claims := {"hardware": 200}', HEAD + "trust_claims := 1 if true\n"
                                  "trust_claims := 2 if true", HEAD + 'trust_claims := {"nonsense": 2}'])  # fmt: skip
def test_a_policy_without_an_answer_refuses_that_request_alone(service, text):
    guest, _ = guest_of(service)
    put(service, text, tenant="other")
    other, _ = guest_of(service, "other")
    got = other.handshake()
    assert got.status == 403
    assert "policy.attestation.error" in rules(got)
    assert guest.handshake().status == 200


def test_a_tenants_policy_comes_before_the_brokers(service):
    put(service, HEAD + 'trust_claims := {"hardware": 97}')
    put(service, AFFIRM, tenant="acme")
    one, _ = guest_of(service)
    two, _ = guest_of(service, "acme")
    assert one.handshake().status == two.handshake().status == 200
    assert claims_of(one)["submods"]["cpu0"]["ear.status"] == "contraindicated"
    assert claims_of(two)["submods"]["cpu0"]["ear.status"] == "affirming"
    listed = service.admin.call("GET", "/policies?tenant=acme")["policies"]
    assert [p["from"] for p in listed if p["name"] == "default_cpu"] == ["tenant"]


def test_a_resource_policy_only_narrows(service):
    guest, app = guest_of(service)
    other = service.found("demo")
    service.admin.put_resource(other.app_id, f"kbs:///{other.path}", b"not yours")
    guest.handshake()
    put(service, HEAD + "default allow := true", "resource", "resource-policy")
    assert guest.get(app.path).status == 200
    assert guest.get(other.path).status == 403  # another app's: the built-in rules hold
    put(service, AFFIRMING, "resource", "resource-policy")
    got = guest.get(app.path)
    assert (got.status, rules(got)) == (403, ["policy.resource"])
    put(service, AFFIRM)
    guest.handshake()
    assert guest.open(guest.get(app.path)) == b"value"


def test_the_query_and_the_path_are_seen(service):
    guest, app = guest_of(service)
    guest.handshake()
    repo = app.path.split("/")[0]
    text = f'allow if {{ data.plugin == "resource"; data["resource-path"][0] == "{repo}"; data.query.why == "x" }}'
    put(service, HEAD + "default allow := false\n" + text, "resource", "resource-policy")
    assert guest.get(app.path).status == 403
    assert guest.get(app.path + "?why=x").status == 200


def test_a_guest_of_coco_gets_what_its_tenants_policy_allows(service):
    holder = service.found("acme")
    service.admin.put_resource(holder.app_id, "kbs:///shared/app/1", b"of an app there")
    bearer = {"Authorization": f"Bearer {service.admin.token()}"}
    assert service.call("POST", "/kbs/v0/resource/shared/key/1", b"for coco", **bearer).status == 200
    service.admin.put_resource(holder.app_id, f"kbs:///{holder.path}", b"of the app")
    guest = Guest(service, text='algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"x" = "y"\n')
    assert guest.handshake().status == 200
    assert guest.get("shared/key/1").status == 403  # nobody said otherwise
    allow = 'default allow := false\nallow if input.submods.cpu0["ear.veraison.annotated-evidence"].tpm\n'
    put(service, HEAD + allow, "resource", "resource-policy", tenant="acme")
    assert guest.open(guest.get("shared/key/1")) == b"for coco"
    assert guest.get(holder.path).status == 403  # not in a repository that the settings give to the tenant
    assert guest.get("shared/app/1").status == 403  # an app's
    assert guest.get("shared/key/none").status in (403, 404)


def test_a_derived_key_is_the_apps_tenants_to_refuse(service):
    listed = ["kbs:///mine/derived.aes-256/1", "kbs:///shared/derived.aes-256/1"]  # `shared` is acme's
    app = service.found("other", resources=listed)
    guest = Guest(service, app.manifest)
    guest.handshake()
    assert len(guest.open(guest.get("mine/derived.aes-256/1"))) == 32
    assert rules(guest.get("shared/derived.aes-256/1")) == ["resource.repo"]
    put(service, HEAD + "default allow := false\n", "resource", "resource-policy", tenant="acme")
    assert guest.get("mine/derived.aes-256/1").status == 200  # not asked about what isn't its own
    put(service, HEAD + "default allow := false\n", "resource", "resource-policy", tenant="other")
    assert rules(guest.get("mine/derived.aes-256/1")) == ["policy.resource"]
    acme = service.found("acme", resources=listed[1:])
    guest = Guest(service, acme.manifest)
    guest.handshake()
    assert rules(guest.get("shared/derived.aes-256/1")) == ["policy.resource"]
    put(service, HEAD + "default allow := true\n", "resource", "resource-policy", tenant="acme")
    assert guest.get("shared/derived.aes-256/1").status == 200


def test_reference_values_reach_policies(service):
    guest, _ = guest_of(service)
    text = (
        'trust_claims := {"executables": 3} if input.casemate.measurement.pcr4 in query_reference_value("tpm/pcr4")\n'
    )
    put(service, HEAD + text)
    guest.handshake()
    assert claims_of(guest)["submods"]["cpu0"]["ear.trustworthiness-vector"]["executables"] == 3


def test_cocos_routes(service):
    bearer = {"Authorization": f"Bearer {service.admin.token()}"}
    packed = base64.urlsafe_b64encode(AFFIRM.encode()).decode().rstrip("=")
    body = {"type": "rego", "policy_id": "default_cpu", "policy": packed}
    assert service.call("POST", "/kbs/v0/attestation-policy", body, **bearer).status == 200
    assert service.call("POST", "/kbs/v0/attestation-policy", body).status == 401
    packed = base64.urlsafe_b64encode(AFFIRMING.encode()).decode()
    assert service.call("POST", "/kbs/v0/resource-policy", {"policy": packed}, **bearer).status == 200
    assert service.call("GET", "/kbs/v0/resource-policy", **bearer).body == b'["resource-policy"]'
    bad = {**body, "policy": base64.urlsafe_b64encode(b"package policy\nx := {").decode()}
    assert service.call("POST", "/kbs/v0/attestation-policy", bad, **bearer).status == 400
    assert service.admin.call("GET", "/policies/attestation/default_cpu")["text"] == AFFIRM


def test_history_and_taking_back(service):
    before = len(service.admin.call("GET", "/policies/attestation/default_gpu")["history"])
    put(service, AFFIRM, name="default_gpu")
    put(service, AFFIRM + "# again\n", name="default_gpu")
    service.admin.call("DELETE", "/policies/attestation/default_gpu")
    found = service.admin.call("GET", "/policies/attestation/default_gpu")
    assert found["from"] == "shipped"
    assert [v["version"] for v in found["history"]] == [before + 3, before + 2, before + 1]
    assert found["history"][0]["digest"] is None
    with pytest.raises(Unusable):
        service.admin.call("DELETE", "/policies/attestation/default_gpu")


def test_what_cannot_be_set(service):
    for text in ("", HEAD + "allow := 1", HEAD + "trust_claims := http.send({})", "package policy\n" + "#" * 300000):
        with pytest.raises((Unusable, Refused)):
            put(service, text)
    with pytest.raises(Unusable):
        put(service, AFFIRMING, "resource", "another")


def test_explain_tells_rules_lines_and_missing_values(service):
    guest, app = guest_of(service)
    text = (HEAD + "default executables := 33\n\n"
            'executables := 3 if input.tpm.pcr4 in query_reference_value("mine")\n\n'
            'trust_claims := {"executables": executables}\n')  # fmt: skip
    put(service, text)
    guest.handshake()
    newest = service.admin.call("GET", "/attestations")["attestations"][0]
    assert newest["app"] == app.app_id
    asked = {"kind": "attestation", "attestation": newest["id"]}
    (answer,) = service.admin.call("POST", "/policies/explain", asked)["answers"]
    told = {rule["rule"]: rule for rule in answer["rules"]}
    assert told["executables"]["value"] == 33
    assert told["executables"]["line"] == 3
    assert answer["missing"] == ["mine"]
    assert answer["result"]["status"] == "warning"
    asked = {"kind": "resource", "attestation": newest["id"], "path": app.path}
    (answer,) = service.admin.call("POST", "/policies/explain", asked)["answers"]
    assert answer["result"] == {"allow": True}
    with pytest.raises(Unusable):
        service.admin.call("POST", "/policies/explain", {"kind": "resource", "attestation": "0" * 32})


def test_simulate_lists_who_would_be_refused_and_changes_nothing(service):
    guest, app = guest_of(service, "acme")
    guest.handshake()
    asked = {"kind": "attestation", "name": "default_cpu", "text": HEAD + 'trust_claims := {"hardware": 97}'}
    found = service.admin.call("POST", "/policies/simulate?tenant=acme", asked)
    assert found["refused"] >= 1
    assert {change["tenant"] for change in found["changed"]} == {"acme"}
    assert found["changed"][0]["after"]["status"] == "contraindicated"
    broken = service.admin.call("POST", "/policies/simulate?tenant=acme", {**asked, "text": LOOP})
    assert "error" in broken["changed"][0]["after"]
    asked = {"kind": "resource", "name": "resource-policy", "text": AFFIRMING, "paths": [app.path]}
    found = service.admin.call("POST", "/policies/simulate?tenant=acme", asked)
    assert found["changed"][0]["before"] == {"allow": True}
    assert guest.handshake().status == 200
    assert guest.get(app.path).status == 200


RULES = st.dictionaries(
    st.sampled_from(["measurement.x", "reference.y", "policy.measurement.z", "platform.tcb", "snp.debug", "a"]),
    st.booleans(),
)


@pytest.fixture(scope="module")
def pool():
    made = Pool(1)
    yield made
    made.close()


@settings(max_examples=60, deadline=None)
@given(RULES, st.sampled_from(["production", "development"]), st.booleans(), st.sampled_from(shipped.CLASSES))
def test_shipped_policies_say_what_the_broker_says(pool, held, platform, encrypted, kind):
    claims = Claims(tee="snp", platform_class=platform, memory_encrypted=encrypted, debug=False, measurement={},
                    report_data="", init_data="", fresh=True, vouched_by="x", values={})  # fmt: skip
    findings = [Finding(rule, "x", "y", ok=ok) for rule, ok in held.items()]
    asked = inputs.attestation(claims, appraisal=inputs.appraisal(claims, findings))
    answer = pool.evaluate(pool.compiled(shipped.text(f"default_{kind}")), given=asked)
    wanted = ear.status(claims, findings)
    vector = results.vector(answer.values["trust_claims"])
    assert vector == wanted["ear.trustworthiness-vector"]
    assert results.status(vector) == wanted["ear.status"]


def test_the_shipped_resource_policy_needs_a_manifest(pool):
    policy = pool.compiled(shipped.text(shipped.RESOURCE))
    data = inputs.resource("resource", "a/b/c", {})
    told = {"casemate": {"app": "sha256:x", "manifest_digest": "sha256:y"}}
    assert pool.evaluate(policy, given=told, data=data).values["allow"] is True
    for other in ({}, {"casemate": {"app": None, "manifest_digest": None}}, {"casemate": {"app": "x"}}):
        assert pool.evaluate(policy, given=other, data=data).values["allow"] is False
