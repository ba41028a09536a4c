"""The two-person rule over HTTP, on both databases: nothing takes effect before another owner said yes to it."""

import json
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import update

from casemate.api.access import Lock
from casemate.broker import approvals
from casemate.drivers.brokerclient import Pending
from casemate.drivers.store import pending
from casemate.drivers.store.tables_access import approvals as table
from casemate.errors import Refused, Unavailable
from casemate.testing import broker as brokers
from casemate.testing import issuer as fakes
from casemate.testing import postgres, programs
from casemate.testing.broker import rules

BASE = "/casemate/v0/admin"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broker")
    if request.param == "sqlite":
        made = brokers.start(folder)
        yield made
        made.stop()
        return
    try:
        with postgres.server() as url:
            made = brokers.start(folder, store=url)
            yield made
            made.stop()
    except programs.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def people(service):
    """Admins of a tenant whose platforms, secrets and releases need two owners; and an owner of another."""
    service.admin.call("POST", "/tenants", {"name": "acme"})
    keys = {}
    for name, role in (("ann", "owner"), ("bea", "owner"), ("opa", "operator"), ("ada", "auditor")):
        keys[name] = _admin(service, name, role, "acme")
    keys["zoe"] = _admin(service, "zoe", "owner", "other")
    acts = ["app.platforms", "resource.put", "release.add"]
    service.admin.call("POST", "/tenants/acme", {"two_person": acts})
    return keys


def _admin(service, name, role, tenant):
    if tenant == "other":
        service.admin.call("POST", "/tenants", {"name": tenant})
    key = fakes.new_key("EdDSA")
    body = {"name": name, "role": role, "key": fakes.public_pem(key)}
    service.admin.call("POST", f"/admins?tenant={tenant}", body)
    return key


def ask(service, key, method, path, body=None):
    now = int(time.time())
    header = {"alg": "EdDSA", "kid": fakes.thumbprint(key)}
    token = fakes.compact(key, header, {"aud": "KBS", "iat": now, "exp": now + 60})
    where = path if path.startswith("/kbs") else BASE + path
    return service.call(method, where, body, Authorization=f"Bearer {token}")


@pytest.fixture
def app(service, people):
    return service.admin.found("acme", "web", ("production",))["app_id"]


def platforms(service, app):
    return next(list(a.platforms) for a in service.admin.apps() if a.app_id == app)


def wanted(service, people, app, who="ann", *names):
    got = ask(service, people[who], "POST", f"/apps/{app}/platforms", {"platforms": names or ["development"]})
    assert got.status == 202, got.body
    return got.json()


def approve(service, key, change, digest=None):
    path = f"/approvals/{change['approval']}/approve"
    return ask(service, key, "POST", path, {"digest": digest or change["digest"]})


def test_a_change_waits_and_takes_effect_when_another_owner_approves(service, people, app):
    change = wanted(service, people, app)
    assert platforms(service, app) == ["production"]
    assert (change["state"], change["who"], change["act"]) == ("pending", "key#acme/ann", "app.platforms")
    shown = ask(service, people["bea"], "GET", f"/approvals/{change['approval']}").json()
    assert shown["body"] == '{"platforms": ["development"]}'
    done = approve(service, people["bea"], change)
    assert (done.status, done.json()["outcome"]["status"], done.json()["state"]) == (200, 200, "approved")
    assert platforms(service, app) == ["development"]


def test_nobody_approves_their_own(service, people, app):
    change = wanted(service, people, app)
    got = approve(service, people["ann"], change)
    assert (got.status, rules(got)) == (403, ["approval.other"])
    assert platforms(service, app) == ["production"]


@pytest.mark.parametrize(("who", "status"), [("opa", 403), ("ada", 403), ("zoe", 404)])
def test_only_owners_of_the_tenant_approve(service, people, app, who, status):
    change = wanted(service, people, app)
    assert approve(service, people[who], change).status == status
    assert platforms(service, app) == ["production"]


def test_an_owner_of_the_broker_may_approve_and_is_bound_too(service, people, app):
    with pytest.raises(Pending) as waits:
        service.admin.allow(app, ("development",))
    change = {"approval": waits.value.approval, "digest": waits.value.digest}
    assert approve(service, people["bea"], change).status == 200
    assert platforms(service, app) == ["development"]


def test_a_second_self_of_the_brokers_owner_approves_nothing_of_a_tenant(service, people, app):
    """Nobody holds up who makes owners of the broker, so two of them are no two persons to a tenant."""
    self = _admin(service, f"self{id(app)}", "owner", "*")
    with pytest.raises(Pending) as waits:
        service.admin.allow(app, ("development",))
    got = approve(service, self, {"approval": waits.value.approval, "digest": waits.value.digest})
    assert (got.status, rules(got)) == (403, ["approval.other"])
    assert platforms(service, app) == ["production"]
    assert approve(service, self, wanted(service, people, app)).status == 200


@pytest.fixture
def founding(service):
    """Tenants where an app needs two owners."""
    name = f"founding{time.monotonic_ns()}"
    service.admin.call("POST", "/tenants", {"name": name})
    keys = [_admin(service, who, "owner", name) for who in ("one", "two")]
    service.admin.call("POST", f"/tenants/{name}", {"two_person": ["app.found"]})
    return name, keys


def test_an_app_is_founded_in_the_tenant_that_the_body_names(service, people, founding):
    name, (one, two) = founding
    body = {"tenant": name, "name": "web"}
    token = {"Authorization": f"Bearer {service.admin.token()}"}
    for query in ("", f"?tenant={name}"):
        got = service.call("POST", f"{BASE}/apps{query}", body, **token)
        assert (got.status, got.json().get("tenant")) == (202, name)
        ask(service, two, "POST", f"/approvals/{got.json()['approval']}/reject")
    assert service.call("POST", f"{BASE}/apps?tenant=acme", body, **token).status == 400
    assert not [a for a in service.admin.apps() if a.founding.tenant == name]
    change = ask(service, one, "POST", "/apps", body).json()
    assert approve(service, two, change).json()["outcome"]["status"] == 200
    assert [a.founding.name for a in service.admin.apps() if a.founding.tenant == name] == ["web"]


def test_platforms_of_a_new_app_are_an_owners_choice(service, people):
    def found(who, *platforms):
        body = {"tenant": "acme", "name": f"chosen{who}", "platforms": platforms}
        return ask(service, people[who], "POST", "/apps", body)

    assert [a.founding.name for a in service.admin.apps() if a.founding.name.startswith("chosen")] == []
    for platforms in (("development",), ("production", "development")):
        got = found("opa", *platforms)
        assert (got.status, rules(got)) == (403, ["admin.role"])
    assert found("opa", "production").status == 200
    change = found("ann", "development")  # `app.platforms` needs two, `app.found` does not
    assert (change.status, change.json()["act"]) == (202, "app.found")
    assert approve(service, people["bea"], change.json()).json()["outcome"]["status"] == 200
    allowed = {a.founding.name: a.platforms for a in service.admin.apps()}
    assert (allowed["chosenopa"], allowed["chosenann"]) == (("production",), ("development",))


@pytest.mark.parametrize("act", ["resource.delete", "resource.schedule"])
@pytest.mark.parametrize("query", ["", "?in=60"])
def test_deleting_now_and_later_wait_alike(service, act, query):
    name = f"deleting{time.monotonic_ns()}"
    service.admin.call("POST", "/tenants", {"name": name})
    one, two = (_admin(service, who, "owner", name) for who in ("one", "two"))
    made = service.admin.found(name, "web", ("production",))
    path = f"/kbs/v0/resource/{name}/key/1"
    assert ask(service, one, "POST", f"{path}?app={made['app_id']}", b"v").status == 200
    service.admin.call("POST", f"/tenants/{name}", {"two_person": [act]})
    change = ask(service, one, "DELETE", path + query)
    assert change.status == 202
    (there,) = service.admin.call("GET", f"/apps/{made['app_id']}/resources")["resources"]
    assert there["purged"] is None
    assert approve(service, two, change.json()).json()["outcome"]["status"] == 200


def test_the_digest_is_of_what_was_seen(service, people, app):
    change = wanted(service, people, app)
    for digest in ("sha256:" + "0" * 64, "x"):
        got = approve(service, people["bea"], change, digest)
        assert (got.status, rules(got)) == (409, ["approval.digest"])
    other = wanted(service, people, app)  # the same words, another change
    assert other["digest"] != change["digest"]
    assert approve(service, people["bea"], change, other["digest"]).status == 409
    assert platforms(service, app) == ["production"]


def test_a_change_is_carried_out_once(service, people, app):
    change = wanted(service, people, app)
    assert approve(service, people["bea"], change).status == 200
    got = approve(service, people["bea"], change)
    assert (got.status, rules(got)) == (409, ["approval.state"])


def test_rejected_is_rejected_and_one_may_take_back_ones_own(service, people, app):
    for who in ("bea", "ann"):
        change = wanted(service, people, app)
        got = ask(service, people[who], "POST", f"/approvals/{change['approval']}/reject")
        assert got.json()["state"] == "rejected"
        assert approve(service, people["bea"], change).status == 409
    assert platforms(service, app) == ["production"]


def later(service):
    return service.broker.clock() + timedelta(days=1, minutes=1)


def test_a_change_expires(service, people, app):
    change = wanted(service, people, app)
    with service.broker.store.write() as tx:
        assert not pending.decide(tx, change["approval"], "approved", "late", later(service))
        pending.expire(tx, later(service))
    assert approve(service, people["bea"], change).status == 409
    listed = ask(service, people["bea"], "GET", "/approvals").json()["approvals"]
    assert next(a["state"] for a in listed if a["approval"] == change["approval"]) == "expired"


def test_of_many_who_decide_at_once_one_does(service, people, app):
    for round_ in range(4):
        change, answers = wanted(service, people, app, "ann", "development", *(["production"] * (round_ % 2))), []

        def decide(how, key, change=change, answers=answers):
            if how == "approve":
                answers.append(approve(service, key, change).status)
            else:
                answers.append(ask(service, key, "POST", f"/approvals/{change['approval']}/reject").status)

        threads = [
            threading.Thread(target=decide, args=(how, people["bea"])) for how in ("approve", "reject", "approve") * 2
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [200, 409, 409, 409, 409, 409]


def test_a_secret_waits_sealed_and_is_shown_to_nobody(service, people, app):
    secret = b"a very secret value"
    got = ask(service, people["opa"], "POST", f"/kbs/v0/resource/acme/key/1?app={app}", secret)
    assert got.status == 202
    change = got.json()
    shown = ask(service, people["ann"], "GET", f"/approvals/{change['approval']}")
    assert shown.json()["body"] is None
    assert shown.json()["bytes"] == len(secret)
    with service.broker.store.read() as tx:
        assert secret not in pending.get(tx, change["approval"]).sealed
    assert service.admin.resources(app) == []
    assert approve(service, people["ann"], change).json()["outcome"] == {"status": 200, "detail": ""}
    assert [r["version"] for r in service.admin.resources(app)] == [1]


def test_a_change_that_fails_says_why(service, people, app):
    got = ask(service, people["ann"], "POST", f"/apps/{app}/releases", b"{}")
    done = approve(service, people["bea"], got.json()).json()
    assert done["state"] == "approved"
    assert done["outcome"]["status"] == 400
    assert done["outcome"]["detail"]


def test_the_rule_protects_itself(service, people):
    """One owner can neither lift the rule, nor make a second self."""
    lifted = ask(service, people["ann"], "POST", "/tenants/acme", {"two_person": []})
    second = {"name": "ann2", "role": "owner", "key": fakes.public_pem(fakes.new_key("EdDSA"))}
    made = ask(service, people["ann"], "POST", "/admins", second)
    gone = ask(service, people["ann"], "DELETE", "/admins?who=key%23acme%2Fbea")
    assert (lifted.status, made.status, gone.status) == (202, 202, 202)
    for change in (lifted, made, gone):
        ask(service, people["ann"], "POST", f"/approvals/{change.json()['approval']}/reject")


def test_what_a_removed_admin_asked_for_is_rejected(service, people, app):
    key = fakes.new_key("EdDSA")
    now = int(time.time())
    agreed = {"aud": "casemate-admin", "tenant": "acme", "iat": now, "exp": now + 60}
    proof = fakes.compact(key, {"alg": "EdDSA", "kid": fakes.thumbprint(key)}, agreed)
    eve = {"name": "eve", "role": "owner", "key": fakes.public_pem(key), "proof": proof}
    made = ask(service, people["ann"], "POST", "/admins", eve)
    assert approve(service, people["bea"], made.json()).status == 200
    change = wanted(service, {**people, "eve": key}, app, "eve")
    gone = ask(service, people["ann"], "DELETE", "/admins?who=key%23acme%2Feve")
    assert approve(service, people["bea"], gone.json()).status == 200
    assert approve(service, people["bea"], change).status == 409
    assert platforms(service, app) == ["production"]


def test_the_rule_needs_two_owners(service, people):
    service.admin.call("POST", "/tenants", {"name": f"solo{id(service)}"})
    with pytest.raises(Refused) as refusal:
        service.admin.call("POST", f"/tenants/solo{id(service)}", {"two_person": ["policy.set"]})
    assert [f.rule for f in refusal.value.findings] == ["tenant.two_person"]


@pytest.mark.parametrize(
    "acts",
    [
        ["app.list"],
        ["x"],
        ["app.platform"],
        ["policy.sets"],
        ["approval.approve"],
        ["é" * 5],
        ["a" * 100],
        ["policy.set"] * 65,
    ],
)
def test_acts_that_are_none(service, people, acts):
    got = ask(service, people["zoe"], "POST", "/tenants/other", {"two_person": acts})
    assert got.status == 400


def test_only_so_many_wait(service, people, app, monkeypatch):
    monkeypatch.setattr(approvals, "MAX_WAITING", 0)
    got = ask(service, people["ann"], "POST", f"/apps/{app}/platforms", {"platforms": ["development"]})
    assert (got.status, rules(got)) == (409, ["approval.waiting"])


def test_one_who_asks_leaves_room_for_others(service, people, app, monkeypatch):
    monkeypatch.setattr(approvals, "MAX_ASKED", 1)
    asker = {"eli": _admin(service, f"eli{id(app)}", "owner", "*")}
    wanted(service, asker, app, "eli")
    got = ask(service, asker["eli"], "POST", f"/apps/{app}/platforms", {"platforms": ["development"]})
    assert (got.status, rules(got)) == (409, ["approval.waiting"])
    monkeypatch.setattr(approvals, "MAX_ASKED", 100)
    wanted(service, people, app)


def test_other_tenants_changes_push_none_out_of_the_list(service, people, app, founding):
    mine = wanted(service, people, app)
    name, (one, _) = founding
    for _ in range(3):
        assert ask(service, one, "POST", "/apps", {"tenant": name, "name": "web"}).status == 202
    bea = approvals.Admin("key#acme/bea", "owner", "acme")
    assert [a["approval"] for a in approvals.listing(service.broker, bea, 1)] == [mine["approval"]]


def test_a_change_that_was_decided_is_kept_without_its_content(service, people, app):
    decided = [wanted(service, people, app) for _ in range(3)]
    assert approve(service, people["bea"], decided[0]).status == 200
    ask(service, people["bea"], "POST", f"/approvals/{decided[1]['approval']}/reject")
    with service.broker.store.write() as tx:
        tx.execute(update(table).where(table.c.id == decided[2]["approval"]).values(expires=1))
    approvals.sweep(service.broker)
    with service.broker.store.read() as tx:
        assert [pending.get(tx, one["approval"]).sealed for one in decided[:2]] == [b"", b""]
        assert pending.get(tx, decided[2]["approval"]) is None  # it ended in 1970
    shown = ask(service, people["bea"], "GET", f"/approvals/{decided[1]['approval']}").json()
    assert (shown["state"], shown["digest"]) == ("rejected", decided[1]["digest"])
    with service.broker.store.write() as tx:
        pending.expire(tx, service.broker.clock() + pending.KEPT)
        assert pending.get(tx, decided[0]["approval"])
        pending.expire(tx, later(service) + pending.KEPT)
        assert pending.get(tx, decided[0]["approval"]) is None


def test_a_store_that_was_changed_by_hand_gives_no_other_change(service, people, app):
    mine, other = wanted(service, people, app), wanted(service, people, app)
    with service.broker.store.write() as tx:
        foreign = pending.get(tx, other["approval"]).sealed
        tx.execute(update(table).where(table.c.id == mine["approval"]).values(sealed=foreign))
    got = approve(service, people["bea"], mine)
    assert got.status == 400
    assert platforms(service, app) == ["production"]


def _policy(service, people, text):
    return ask(service, people["ann"], "PUT", "/policies/resource/resource-policy", {"text": text})


@pytest.fixture
def policies_wait(service, people):
    boss = service.admin
    for acts in (["app.platforms", "resource.put", "release.add", "policy.set"], ["app.platforms", "resource.put",
                                                                                  "release.add"]):  # fmt: skip
        with pytest.raises(Pending) as waits:
            boss.call("POST", "/tenants/acme", {"two_person": acts})
        change = {"approval": waits.value.approval, "digest": waits.value.digest}
        assert approve(service, people["bea"], change).status == 200
        if "policy.set" in acts:
            yield


def test_an_approver_sees_all_of_a_change(service, people, policies_wait):
    text = "package policy\nimport rego.v1\ndefault allow := false\n" + "# x\n" * 40_000 + "allow := true\n"
    change = _policy(service, people, text)
    assert change.status == 202
    shown = ask(service, people["bea"], "GET", f"/approvals/{change.json()['approval']}").json()
    assert shown["body"].endswith('allow := true\\n"}')
    assert len(shown["body"]) == shown["bytes"]
    ask(service, people["bea"], "POST", f"/approvals/{change.json()['approval']}/reject")


def test_what_is_too_long_to_be_shown_does_not_wait(service, people, app, monkeypatch):
    body = b'{"platforms":["development"]' + b" " * (1 << 20) + b"}"
    got = ask(service, people["ann"], "POST", f"/apps/{app}/platforms", body)
    assert (got.status, "see all of it" in got.json()["detail"]) == (400, True)
    monkeypatch.setattr(approvals, "_MAX_SHOWN", 2 << 20)  # one that an older version kept
    change = ask(service, people["ann"], "POST", f"/apps/{app}/platforms", body).json()
    monkeypatch.undo()
    assert approve(service, people["bea"], change).status == 400
    assert platforms(service, app) == ["production"]


def test_nothing_hides_in_what_is_shown(service, people, app):
    hidden = '{"platforms":["production"],"\u202e\u2066\u200b\u3164\U000e0041":1,"é中":"\x7f"}'.encode()
    change = ask(service, people["ann"], "POST", f"/apps/{app}/platforms", hidden).json()
    shown = ask(service, people["bea"], "GET", f"/approvals/{change['approval']}").json()
    assert shown["body"] == (
        '{"platforms":["production"],"\\u202e\\u2066\\u200b\\u3164\\udb40\\udc41":1,"é中":"\\u007f"}'
    )


def test_spelled_out_json_says_the_same():
    text = json.dumps({"a\u202e": "\x7f\U000e0041 \r\n\t\\ é"}, ensure_ascii=False)
    assert json.loads(approvals.visible(text)) == json.loads(text)
    assert approvals.visible("a\rb\x1b[2K") == "a\\u000db\\u001b[2K"


def test_an_approval_that_finds_no_turn_at_the_compiler_is_repeated(service, people, policies_wait, monkeypatch):
    change = _policy(service, people, "package policy\nimport rego.v1\ndefault allow := true\n").json()
    pool = service.broker.policies.pool
    with monkeypatch.context() as patched:
        patched.setattr(pool, "_fresh", {"acme"})  # one of the tenant's is being compiled
        got = approve(service, people["bea"], change)
    assert (got.status, "waits still" in got.json()["detail"]) == (503, True)
    shown = ask(service, people["bea"], "GET", f"/approvals/{change['approval']}").json()
    assert (shown["state"], shown["decider"], shown["outcome"]) == ("pending", None, None)
    assert shown["digest"] == change["digest"]
    own = approve(service, people["ann"], change)
    assert (own.status, rules(own)) == (403, ["approval.other"])
    done = approve(service, people["bea"], change).json()
    assert (done["state"], done["outcome"]["status"]) == ("approved", 200)
    again = approve(service, people["bea"], change)
    assert (again.status, rules(again)) == (409, ["approval.state"])


def test_an_approval_that_the_store_failed_is_over(service, people, app, monkeypatch):
    """What came of it is not known: it is never done twice."""
    change = wanted(service, people, app)
    with monkeypatch.context() as patched:
        patched.setattr(Lock, "__getattribute__", _failing)
        done = approve(service, people["bea"], change).json()
    assert (done["state"], done["outcome"]["status"]) == ("approved", 503)


def _failing(self, name):
    found = object.__getattribute__(self, name)
    if name != "handle":
        return found

    def act(request, body):
        raise Unavailable("the store does not work at the moment")

    return act
