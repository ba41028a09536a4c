"""Who comes in, as whom, and what of whose they may touch: real HTTP, real TLS, every route."""

import json
import re
import time

import pytest
from starlette.routing import Route

from casemate.api.access import Lock, of_resource, own
from casemate.broker import access
from casemate.broker.oidc import RANK, Issuer
from casemate.testing import broker as brokers
from casemate.testing import issuer as fakes
from casemate.testing.broker import rules
from casemate.testing.issuer import FakeIssuer, compact

BASE = "/casemate/v0/admin"
# Everything that is not an admin's: what anybody, a challenged or an attested guest may ask. A new route is either
# here, or was made by `closed`.
OPEN = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/.well-known/jwks.json",
    "/.well-known/openid-configuration",
    "/kbs/v0/auth",
    "/kbs/v0/attest",
    "/kbs/v0/token",
    "/kbs/v0/token/{repo}/{type}/{tag}",
    "/casemate/v0/info",
    "/casemate/v0/apps/{id}",
    "/casemate/v0/lease",
    "/casemate/v0/volumes/{name}/open",
    "/casemate/v0/volumes/{name}/initialised",
}
OPEN_PREFIXES = ("/casemate/v0/log/", "/casemate/v0/receipts/", "/console", "/casemate/v0/evidence")
GUESTS_READ = {("GET", "/kbs/v0/resource/{repo}/{type}/{tag}")}
PLAIN, CLAIMED, BARE = FakeIssuer("https://plain.example"), FakeIssuer("https://claimed.example"), FakeIssuer()


def settle(folder, issuers, name, **more):
    path = folder / f"{name}.json"
    path.write_bytes(issuers[name].jwks())
    return Issuer(issuer=issuers[name].url, audience="casemate", jwks=str(path), **more)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broker")
    issuers = {"plain": PLAIN, "claimed": CLAIMED, "bare": BARE}
    made = brokers.start(
        folder,
        admin_issuers=(
            settle(folder, issuers, "plain", tenant="*"),
            settle(
                folder,
                issuers,
                "claimed",
                role_claim="realm.roles",
                roles={"boss": "owner", "reader": "auditor"},
                tenant_claim="org",
            ),
            settle(folder, issuers, "bare"),
        ),
        repos={"acme-repo": "acme"},
    )
    made.trust()
    for tenant in ("acme", "umbrella"):
        made.admin.call("POST", "/tenants", {"name": tenant})
    yield made
    made.stop()


def ask(service, token, method="GET", path="/whoami", body=None):
    where = path if path.startswith("/kbs") else BASE + path
    return service.call(method, where, body, Authorization=f"Bearer {token}")


def test_a_token_of_an_issuer(service):
    got = ask(service, PLAIN.token("alice", role="operator"))
    assert (got.status, got.json()) == (
        200,
        {"who": "https://plain.example#alice", "role": "operator", "tenant": None},
    )
    got = ask(service, CLAIMED.token("bob", org="acme", realm={"roles": ["reader", "boss", "x"]}))
    assert got.json() == {"who": "https://claimed.example#bob", "role": "owner", "tenant": "acme"}


def test_a_subject_without_a_role_comes_in_when_it_is_recorded(service):
    assert rules(ask(service, BARE.token("carol", role="owner"))) == ["admin.role"]
    service.admin.call("POST", "/admins?tenant=acme", {"role": "auditor", "issuer": BARE.url, "subject": "carol"})
    assert ask(service, BARE.token("carol", role="owner")).json()["role"] == "auditor"
    service.admin.call("DELETE", "/admins?who=https%3A%2F%2Fidp.example%23carol")
    assert ask(service, BARE.token("carol")).status == 403


def wrong():
    now = int(time.time())
    yield "audience", PLAIN.token(role="owner", aud="other")
    yield "audience of an object", PLAIN.token(role="owner", aud={"casemate": 1})
    yield "audience of a longer text", PLAIN.token(role="owner", aud="xcasematex")
    yield "no audience", PLAIN.token(role="owner", aud=None)
    yield "our own audience", PLAIN.token(role="owner", aud="KBS")
    yield "ended", PLAIN.token(role="owner", iat=now - 900, exp=now - 1)
    yield "too long a life", PLAIN.token(role="owner", exp=now + 4000)
    yield "no end", PLAIN.token(role="owner", exp=None)
    yield "no beginning", PLAIN.token(role="owner", iat=None)
    yield "issued tomorrow", PLAIN.token(role="owner", iat=now + 86400, exp=now + 86500)
    yield "not before tomorrow", PLAIN.token(role="owner", nbf=now + 86400)
    yield "nbf of text", PLAIN.token(role="owner", nbf="0")
    yield "nbf of null", compact(PLAIN.key, {"alg": "ES256", "kid": "k1"}, {**PLAIN.claims(role="owner"), "nbf": None})
    yield "exp of text", PLAIN.token(role="owner", exp=str(now + 60))
    yield "exp of true", PLAIN.token(role="owner", exp=True)
    yield "exp beyond floats", PLAIN.token(role="owner", exp=10**400)
    yield "iat beyond floats", PLAIN.token(role="owner", iat=-(10**400))
    yield "no subject", PLAIN.token(None, role="owner")
    yield "a subject of numbers", PLAIN.token(7, role="owner")
    yield "a subject with a newline", PLAIN.token("a\nb", role="owner")
    yield "a long subject", PLAIN.token("a" * 256, role="owner")
    yield "another kid", PLAIN.token(role="owner", header={"kid": "k2"})
    yield "a kid that is a path", PLAIN.token(role="owner", header={"kid": "../../../dev/null"})
    yield "a kid that is SQL", PLAIN.token(role="owner", header={"kid": "' OR 1=1 --"})
    yield "another issuer's key", compact(BARE.key, {"alg": "ES256", "kid": "k1"}, PLAIN.claims(role="owner"))
    yield "an unknown issuer", FakeIssuer("https://other.example").token(role="owner")
    yield "an issuer with a slash", compact(PLAIN.key, {"alg": "ES256", "kid": "k1"}, PLAIN.claims(iss=PLAIN.url + "/"))
    yield "an issuer of a list", compact(PLAIN.key, {"alg": "ES256", "kid": "k1"}, PLAIN.claims(iss=[PLAIN.url]))
    yield "alg none", compact(None, {"alg": "none"}, PLAIN.claims(role="owner"))
    yield "hmac", compact(PLAIN.jwks(), {"alg": "HS256", "kid": "k1"}, PLAIN.claims(role="owner"))
    yield (
        "two roles",
        compact(
            PLAIN.key,
            {"alg": "ES256", "kid": "k1"},
            json.dumps(PLAIN.claims(role="auditor")).replace('"role"', '"role":"owner","role"').encode(),
        ),
    )
    yield "oversized", PLAIN.token(role="owner", pad="x" * 20000)


@pytest.mark.parametrize(("what", "token"), list(wrong()), ids=lambda v: v if len(v) < 40 else "")
def test_tokens_that_are_refused(service, what, token):
    got = ask(service, token, path="/apps")
    assert (got.status, rules(got)) == (401, ["admin.token"])


@pytest.mark.parametrize(
    "claims",
    [
        {"org": "acme"},
        {"org": "acme", "realm": {"roles": ["owner"]}},
        {"org": "acme", "realm": "boss"},
        {"org": "acme", "realm": {"roles": {"boss": 1}}},
        {"org": "*", "realm": {"roles": ["boss"]}},
        {"org": ["acme"], "realm": {"roles": ["boss"]}},
        {"org": "", "realm": {"roles": ["boss"]}},
        {"org": "nobodys", "realm": {"roles": ["boss"]}},
        {"realm": {"roles": ["boss"]}},
    ],
)
def test_claims_that_give_nothing(service, claims):
    got = ask(service, CLAIMED.token(**claims), path="/apps")
    assert got.status == 403
    assert rules(got)[0] in ("admin.role", "admin.tenant")


def test_init_s_key_cannot_speak_for_an_issuer_nor_an_issuer_for_it(service):
    own = compact(service.admin._key, {"alg": "EdDSA"}, PLAIN.claims(role="owner"))
    assert ask(service, own).status == 401
    forged = compact(PLAIN.key, {"alg": "ES256"}, PLAIN.claims(iss=None, role="admin", aud="KBS"))
    assert ask(service, forged).status == 401


# --- keys and their names


def new_admin(service, name, role, tenant=None, algorithm="EdDSA"):
    key = fakes.new_key(algorithm)
    where = f"/admins?tenant={tenant}" if tenant else "/admins"
    service.admin.call("POST", where, {"name": name, "role": role, "key": fakes.public_pem(key)})
    return key


def of_key(key, **claims):
    now = int(time.time())
    header = {"alg": fakes.jws.of(key.public_key()).algorithm, "kid": fakes.thumbprint(key)}
    return compact(key, header, {"aud": "KBS", "iat": now, "exp": now + 60, **claims})


@pytest.mark.parametrize("algorithm", fakes.ALGORITHMS)
def test_a_recorded_key(service, algorithm):
    key = new_admin(service, f"kim-{algorithm}", "operator", "acme", algorithm)
    told = ask(service, of_key(key, sub="init", role="owner", tenant="*")).json()
    assert told == {"who": f"key#acme/kim-{algorithm}", "role": "operator", "tenant": "acme"}
    service.admin.call("DELETE", f"/admins?who=key%23acme%2Fkim-{algorithm}")
    assert ask(service, of_key(key)).status == 401


def test_a_key_and_a_name_are_one_admins(service):
    key = new_admin(service, "lee", "auditor", "acme")
    for body in (
        {"name": "lee", "role": "owner", "key": fakes.public_pem(fakes.new_key("EdDSA"))},
        {"name": "lee2", "role": "owner", "key": fakes.public_pem(key)},
    ):
        got = ask(service, service.admin.token(), "POST", "/admins?tenant=acme", body)
        assert (got.status, rules(got)) == (409, ["admin.known"])


@pytest.mark.parametrize(
    "body",
    [
        {"role": "owner"},
        {"role": "god", "name": "x", "key": "x"},
        {"role": "owner", "name": "x", "key": "not PEM"},
        {"role": "owner", "name": "a/b", "key": fakes.public_pem(fakes.new_key("EdDSA"))},
        {"role": "owner", "name": "x", "key": "k", "certificate": "c"},
        {"role": "owner", "issuer": "https://other.example", "subject": "x"},
        {"role": "owner", "issuer": PLAIN.url, "subject": "a b"},
        {"role": "owner", "name": "x", "certificate": "not PEM"},
        {"role": "owner", "name": "x", "key": "k" * 20000},
    ],
)
def test_malformed_admins(service, body):
    assert ask(service, service.admin.token(), "POST", "/admins", body).status == 400


# --- every route


def locks(service):
    for route in service.app.routes:
        assert isinstance(route, Route), f"{route} is no plain route"
        yield route, getattr(route.endpoint, "access", None)


def test_every_route_is_closed_or_known_to_be_open(service):
    unknown = []
    for route, lock in locks(service):
        methods = {(method, route.path) for method in route.methods - {"HEAD"}}
        known = route.path in OPEN or route.path.startswith(OPEN_PREFIXES) or methods <= GUESTS_READ
        if not isinstance(lock, Lock) and not known:
            unknown.append((sorted(route.methods), route.path))
        assert not (isinstance(lock, Lock) and known), f"{route.path} is closed: take it out of the list"
    assert unknown == [], "make an admin's route with casemate.api.access.closed"


def test_what_changes_something_is_no_auditors(service):
    for route, lock in locks(service):
        if lock and route.methods - {"GET", "HEAD"} and not lock.act.startswith(("policy.", "evidence.")):
            assert access.ROLES.get(lock.act, "owner") != "auditor", route.path


def test_acts_that_nobody_named_are_an_owners(service):
    operator = PLAIN.token("op", role="operator")
    for route, lock in locks(service):
        if lock and lock.act not in access.ROLES:
            path = re.sub(r"{[^}]*}", "x", route.path)
            method = min(route.methods - {"HEAD"})
            got = service.call(method, path, b"{}", Authorization=f"Bearer {operator}")
            assert (got.status, rules(got)) == (403, ["admin.role"]), route.path


class Things:
    """What a tenant has, by which a route finds it."""

    def __init__(self, service, tenant):
        self.tenant = tenant
        self.app = service.found(tenant, f"{tenant}-web")
        self.path = f"{tenant}/key/1"
        service.admin.put_resource(self.app.app_id, f"kbs:///{self.path}", b"secret")
        service.admin.add_release(self.app.app_id, self.app.manifest.canonical())
        self.key = new_admin(service, "iso", "owner", tenant)
        self.victim = new_admin(service, "victim", "auditor", tenant)


@pytest.fixture(scope="module")
def acme(service):
    return Things(service, "acme")


@pytest.fixture(scope="module")
def umbrella(service):
    return Things(service, "umbrella")


def filled(route, things):
    repo, kind, tag = things.path.split("/")
    parts = {
        "id": things.app.app_id,
        "digest": things.app.digest,
        "tenant": things.tenant,
        "repo": repo,
        "type": kind,
        "tag": tag,
    }
    path = re.sub(r"{(\w+)[^}]*}", lambda part: parts.get(part[1], "x"), route.path)
    query = f"?tenant={things.tenant}&who=key%23{things.tenant}%2Fvictim&since=2020-01-01T00:00:00Z"
    return path + query + ("&until=2030-01-01T00:00:00Z" if "receipts" in path else "")


def test_isolation_on_every_admin_route(service, acme, umbrella):
    """An owner of one tenant asks every route for another tenant's things: never a yes, never a word about them."""
    for route, lock in locks(service):
        if lock is None:
            continue
        for method in sorted(route.methods - {"HEAD"}):
            body = None if method in ("GET", "DELETE") else b"{}"
            got = service.call(method, filled(route, umbrella), body, Authorization=f"Bearer {of_key(acme.key)}")
            where = (method, route.path, lock.scope.__name__, got.status, got.body[:300])
            if lock.scope is not own:  # the thing is known before the body is read, and so is whose it is
                assert got.status in (403, 404), where
            if got.status == 200:
                assert method == "GET", where
                assert umbrella.app.app_id.encode() not in got.body, where
                assert b"umbrella" not in got.body, where
            else:
                assert got.status in (400, 403, 404), where
    assert service.admin.resources(umbrella.app.app_id)
    assert [r.state for a in service.admin.apps() if a.app_id == umbrella.app.app_id for r in a.releases] == ["active"]
    assert any(a["who"] == "key#umbrella/victim" for a in service.admin.call("GET", "/admins")["admins"])


def test_an_app_of_ones_own_opens_no_resource_of_another(service, acme, umbrella):
    """`app=` says for whom something is stored; it is no key to what is stored already."""
    crossed = set()
    for route, lock in locks(service):
        if lock is None or lock.scope is not of_resource:
            continue
        for method in sorted(route.methods - {"HEAD"}):
            crossed.add((method, lock.act))
            where = f"{filled(route, umbrella)}&app={acme.app.app_id}"
            got = service.call(method, where, b"", Authorization=f"Bearer {of_key(acme.key)}")
            assert got.status == 404, (method, route.path, got.status, got.body[:300])
            assert umbrella.app.app_id.encode() not in got.body
    assert {act for _, act in crossed} >= {"resource.put", "resource.delete", "resource.schedule", "resource.list"}
    stored = {r["resource"]: (r["version"], r["purged"]) for r in service.admin.resources(umbrella.app.app_id)}
    assert stored[f"kbs:///{umbrella.path}"] == (1, None)


def test_another_tenants_things_and_nobodys_look_alike(service, acme, umbrella):
    token = of_key(acme.key)
    nobodys = "sha256:" + "0" * 64
    for method, path in (
        ("GET", "/apps/{}/resources"),
        ("POST", "/apps/{}/platforms"),
        ("POST", "/apps/{}/releases"),
        ("GET", "/apps/{}/audiences"),
        ("GET", "/decisions?app={}"),
    ):
        theirs = ask(service, token, method, path.format(umbrella.app.app_id), b"{}")
        none = ask(service, token, method, path.format(nobodys), b"{}")
        assert theirs.status == none.status == 404, path
        assert theirs.body.replace(umbrella.app.app_id.encode(), b"") == none.body.replace(nobodys.encode(), b"")
    theirs = ask(service, token, "DELETE", "/kbs/v0/resource/umbrella/key/1")
    none = ask(service, token, "DELETE", "/kbs/v0/resource/umbrella/key/0")
    assert theirs.status == none.status == 404
    for who in ("key%23umbrella%2Fvictim", "key%23umbrella%2Fnobody"):
        assert ask(service, token, "DELETE", f"/admins?who={who}").json()["detail"] == "no admin of that name"
    for tenant in ("umbrella", "nosuch"):
        got = ask(service, token, "POST", f"/tenants/{tenant}", {})
        assert (got.status, got.json()["detail"]) == (404, "no such tenant")


def test_a_tenants_owner_sees_and_changes_its_own(service, acme, umbrella):
    token = of_key(acme.key)
    told = ask(service, token, path="/apps").json()["apps"]
    assert {a["founding"]["tenant"] for a in told} == {"acme"}
    assert {t["tenant"] for t in ask(service, token, path="/tenants").json()["tenants"]} == {"acme"}
    assert {a["tenant"] for a in ask(service, token, path="/admins").json()["admins"]} == {"acme"}
    made = ask(service, token, "POST", "/apps", {"tenant": "acme", "name": "mine"})
    assert made.status == 200
    where = f"/kbs/v0/resource/acme/key/2?app={made.json()['app_id']}"
    assert ask(service, token, "POST", where, b"x").status == 200
    assert ask(service, token, "POST", "/tenants/acme", {"max_decisions": 7}).json()["max_decisions"] == 7
    assert ask(service, token, "POST", "/apps", {"tenant": "umbrella", "name": "mine"}).status == 403
    assert ask(service, token, "POST", "/tenants", {"name": "mine"}).status == 403
    assert ask(service, token, "POST", "/tenants/*", {}).status == 404
    assert ask(service, token, "POST", "/anchors", {}).status == 403
    assert ask(service, token, "POST", "/keys/rotate", {}).status == 403


def proof(key, tenant, seconds=3600, **claims):
    """The word of a key's holder, as `casemate admin proof` makes it."""
    now = int(time.time())
    said = {"aud": "casemate-admin", "tenant": tenant, "iat": now, "exp": now + seconds, **claims}
    return compact(key, {"alg": "EdDSA", "kid": fakes.thumbprint(key)}, said)


def test_a_tenants_owner_records_nobody_who_did_not_agree(service, acme, umbrella):
    key, other = fakes.new_key("EdDSA"), fakes.new_key("EdDSA")
    body = {"name": "bob", "role": "owner", "key": fakes.public_pem(key)}
    refused = [
        {},
        {"proof": "x"},
        {"proof": proof(other, "acme")},
        {"proof": proof(key, "umbrella")},
        {"proof": proof(key, "acme", aud="KBS")},
        {"proof": proof(key, "acme", seconds=8 * 86400)},
        {"proof": proof(key, "acme", iat=1, exp=2)},
        {"proof": of_key(key)},
    ]
    for one in refused:
        got = ask(service, of_key(acme.key), "POST", "/admins", {**body, **one})
        assert (got.status, rules(got)) == (403, ["admin.proof"])
    assert ask(service, proof(key, "acme")).status == 401  # it signs nobody in
    made = ask(service, of_key(umbrella.key), "POST", "/admins", {**body, "proof": proof(key, "umbrella")})
    assert made.status == 200
    assert ask(service, of_key(key)).json()["tenant"] == "umbrella"


def test_a_tenants_owner_makes_admins_of_its_own_alone(service, acme):
    token, key = of_key(acme.key), fakes.new_key("EdDSA")
    body = {"name": "new", "role": "owner", "key": fakes.public_pem(key)}
    assert ask(service, token, "POST", "/admins?tenant=umbrella", body).status == 403
    assert ask(service, token, "POST", "/admins?tenant=*", body).status == 403
    body["proof"] = proof(key, "acme")
    assert ask(service, token, "POST", "/admins", body).json()["tenant"] == "acme"
    assert ask(service, of_key(key)).json()["tenant"] == "acme"
    for body in ({"role": "owner", "issuer": PLAIN.url, "subject": "alice"},):
        assert rules(ask(service, token, "POST", "/admins", body)) == ["admin.tenant"]


def test_reference_values_are_of_a_tenant_or_of_all(service, acme, umbrella):
    body = {"name": "own", "tee": "tpm", "values": {"pcr4": "ab"}}
    got = ask(service, of_key(acme.key), "POST", "/reference-values", body)
    assert (got.status, rules(got)) == (403, ["reference.signature"])  # this tenant takes signed ones alone
    assert ask(service, of_key(acme.key), "POST", "/tenants/acme", {"unsigned_references": True}).status == 200
    assert ask(service, of_key(acme.key), "POST", "/reference-values", body).status == 200
    operator = fakes.new_key("EdDSA")
    made = {"name": "op", "role": "operator", "key": fakes.public_pem(operator), "proof": proof(operator, "acme")}
    assert ask(service, of_key(acme.key), "POST", "/admins", made).status == 200
    got = ask(service, of_key(operator), "POST", "/reference-values", body)
    assert (got.status, rules(got)) == (403, ["reference.signature"])
    (own,) = [
        r
        for r in ask(service, of_key(acme.key), path="/reference-values").json()["reference_values"]
        if r["name"] == "own"
    ]
    assert own["expires"]
    assert ask(service, of_key(acme.key), "POST", "/reference-values?tenant=*", body).status == 403

    def names(key):
        told = ask(service, of_key(key), path="/reference-values")
        return {r["name"] for r in told.json()["reference_values"]} if told.status == 200 else told.status

    assert names(acme.key) >= {"own"}
    assert "own" not in names(umbrella.key)


def test_repositories_of_a_tenant_take_nothing_of_another(service, acme, umbrella):
    where = "/kbs/v0/resource/acme-repo/key/1?app={}"
    assert ask(service, of_key(acme.key), "POST", where.format(acme.app.app_id), b"x").status == 200
    got = ask(service, service.admin.token(), "POST", where.format(umbrella.app.app_id), b"x")
    assert (got.status, rules(got)) == (403, ["resource.repo"])


def test_roles(service):
    tried = {
        "auditor": {("GET", "/apps"): 200, ("POST", "/apps"): 403, ("POST", "/keys/rotate"): 403},
        "operator": {("GET", "/apps"): 200, ("POST", "/apps"): 400, ("POST", "/keys/rotate"): 403},
        "owner": {("GET", "/apps"): 200, ("POST", "/apps"): 400, ("POST", "/tenants/*"): 400},
    }
    assert set(tried) == set(RANK)
    for role, routes in tried.items():
        for (method, path), status in routes.items():
            assert ask(service, PLAIN.token("r", role=role), method, path, b"[]").status == status, (role, path)


def test_refused_attempts_are_logged_without_the_token(service, acme, umbrella, caplog):
    token = of_key(acme.key)
    ask(service, token, "GET", f"/apps/{umbrella.app.app_id}/resources")
    ask(service, "x.y.z")
    told = [
        (r.fields["rule"], r.fields["who"]) for r in caplog.records if r.name == "casemate.access" and r.levelno > 20
    ]
    assert told == [("admin.tenant", "key#acme/iso"), ("admin.token", None)]
    assert not any(token in repr(record.__dict__) for record in caplog.records)
