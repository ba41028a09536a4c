"""The admin's door: closed to everything but a current token of the admin's key."""

import json
import re
import time
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from casemate.drivers import brokerclient
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues
from casemate.testing.broker import rules
from casemate.wire.encoding import b64u

BASE = "/casemate/v0/admin"


def admin_routes(service):
    """(method, a path) of every route that `closed` made."""
    fill = {"id": "sha256:" + "0" * 64, "digest": "sha256:" + "1" * 64, "repo": "a", "type": "b", "tag": "c"}
    for route in service.app.routes:
        if getattr(route.endpoint, "access", None):
            path = re.sub(r"{(\w+)[^}]*}", lambda part: fill.get(part[1], "x"), route.path)
            yield from ((method, path) for method in sorted(route.methods - {"HEAD"}))


def token(key, **changes):
    now = int(time.time())
    claims = {"role": "admin", "aud": ["KBS"], "iat": now, "exp": now + 60, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    head = b64u(json.dumps({"alg": "EdDSA", "typ": "JWT"}).encode())
    signed = f"{head}.{b64u(json.dumps(claims).encode())}"
    return f"{signed}.{b64u(key.sign(signed.encode()))}"


@pytest.fixture(scope="module")
def key(service):
    return serialization.load_pem_private_key(service.admin_key.read_bytes(), password=None)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Bearer a.b.c", "Basic YTpi"])
def test_without_a_token_every_admin_route_is_closed(service, header):
    for method, path in admin_routes(service):
        headers = {"Authorization": header} if header else {}
        got = service.call(method, path, b"{}" if method == "POST" else None, **headers)
        assert (got.status, rules(got)) == (401, ["admin.token"]), (method, path)


def test_the_right_key(service, key):
    got = service.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {token(key)}")
    assert got.status == 200
    text = service.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {token(key, aud='KBS')}")
    assert text.status == 200


def changes():
    now = int(time.time())
    yield {"exp": now - 1, "iat": now - 100}
    yield {"exp": now + 4000}
    yield {"iat": now + 900, "exp": now + 960}
    yield {"iat": None}
    yield {"exp": None}
    yield {"aud": ["other"]}
    yield {"aud": None}
    yield {"exp": "soon"}
    yield {"exp": float(10**30)}


@pytest.mark.parametrize("change", list(changes()))
def test_tokens_that_are_not_current_or_not_for_us(service, key, change):
    got = service.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {token(key, **change)}")
    assert (got.status, rules(got)) == (401, ["admin.token"])


@pytest.mark.parametrize("role", ["auditor", None, ["admin"]])
def test_other_roles(service, key, role):
    got = service.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {token(key, role=role)}")
    assert (got.status, rules(got)) == (403, ["admin.role"])


def test_another_key(service):
    stranger = token(ed25519.Ed25519PrivateKey.generate())
    got = service.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {stranger}")
    assert got.status == 401


def test_a_guests_token_is_no_admins(service):
    from casemate.testing.broker import Guest

    guest = Guest(service, service.found().manifest)
    guest.handshake()
    assert guest.call("GET", "/casemate/v0/admin/apps").status == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tenant": "", "name": "web"},
        {"tenant": "demo", "name": "Web"},
        {"tenant": "demo", "name": "web", "platforms": []},
        {"tenant": "demo", "name": "web", "platforms": ["sandbox"]},
        {"tenant": "demo", "name": "web", "extra": 1},
        {"tenant": "a\nb", "name": "web"},
    ],
)
def test_malformed_apps(service, key, body):
    got = service.call("POST", "/casemate/v0/admin/apps", body, Authorization=f"Bearer {token(key)}")
    assert got.status == 400


def test_an_app_allows_production_alone_unless_told(service, key):
    body = {"tenant": "demo", "name": "web"}
    made = service.call("POST", "/casemate/v0/admin/apps", body, Authorization=f"Bearer {token(key)}").json()
    assert brokerclient.app_statement(service.url, service.pin, made["app_id"]).platforms == ("production",)


def test_releases_must_name_their_app(service):
    one, two = service.found(), service.found(name="other")
    with pytest.raises(Refused) as refusal:
        service.admin.add_release(two.app_id, one.manifest.canonical())
    assert [f.rule for f in refusal.value.findings] == ["manifest.app"]
    with pytest.raises(Unusable):
        service.admin.add_release(one.app_id, b"{}")
    with pytest.raises(Unusable, match="no app"):
        service.admin.add_release("sha256:" + "0" * 64, one.manifest.canonical())
    assert service.admin.add_release(one.app_id, one.manifest.canonical()) == one.digest


def test_unknown_releases_resources_and_apps(service):
    app = service.found()
    with pytest.raises(Unusable, match="no release"):
        service.admin.revoke_release(app.app_id, "sha256:" + "0" * 64)
    with pytest.raises(Unusable, match="no resource"):
        service.admin.delete_resource("kbs:///no/such/thing")
    with pytest.raises(Unusable, match="no app"):
        service.admin.put_resource("sha256:" + "0" * 64, "kbs:///a/b/c", b"x")
    with pytest.raises(Unusable):
        service.admin.put_resource(app.app_id, "https://a/b/c", b"x")


def test_references_and_anchors_are_read_strictly(service):
    for values in ({}, {"pcr4": ""}, {"pcr4": "XYZ"}, {"pcr4": "AB"}):
        with pytest.raises(Unusable):
            service.admin.add_reference(ReferenceValues(name="x", tee="tpm", values=values))
    with pytest.raises(Unusable):
        service.admin.add_anchor(Anchor(certificate=b"not DER"))
    with pytest.raises(Unusable):
        service.admin.add_anchor(Anchor(certificate=service.vendor.certificate, platform_class="blessed"))


def test_decisions_are_bounded_and_can_be_of_one_app(service, key):
    header = {"Authorization": f"Bearer {token(key)}"}
    for limit in ("0", "-1", "x", "99999999999999999999", "10001"):
        got = service.call("GET", f"/casemate/v0/admin/decisions?limit={limit}", **header)
        assert got.status == 400
    assert len(service.admin.decisions(2)) <= 2
    assert service.admin.decisions(5, service.found().app_id) == []


@pytest.mark.parametrize("odd", ["%00", "%ff", "sha256:" + "0" * 63, "..", "%f0%9f%98%80", "a" * 3000])
def test_odd_ids_are_not_there(service, key, odd):
    header = {"Authorization": f"Bearer {token(key)}"}
    real = service.found().app_id
    base = "/casemate/v0/admin/apps"
    for method, path in (
        ("GET", f"{base}/{odd}/resources"),
        ("POST", f"{base}/{odd}/releases"),
        ("POST", f"{base}/{real}/releases/{odd}/revoke"),
        ("GET", f"/casemate/v0/apps/{odd}"),
        ("GET", f"/casemate/v0/admin/decisions?app={odd}"),
        ("POST", f"/kbs/v0/resource/a/b/c?app={odd}"),
    ):
        assert service.call(method, path, **header).status == 404, path


def test_the_client_says_clearly_that_nobody_answers(service, tmp_path):
    nobody = brokerclient.Admin("https://127.0.0.1:1", service.pin, service.admin_key)
    with pytest.raises(Unavailable, match="the broker does not answer"):
        nobody.apps()


def test_the_client_refuses_another_broker(service):
    other = brokerclient.Admin(service.url, "sha256:" + "0" * 64, service.admin_key)
    with pytest.raises(Refused) as refusal:
        other.apps()
    assert refusal.value.findings[0].rule == "tls.pin"


def test_the_local_admin_needs_a_domain(tmp_path):
    with pytest.raises(Unusable, match="no local trust domain"):
        brokerclient.Admin.local(tmp_path)
    (tmp_path / "context.json").write_text("{}")
    with pytest.raises(Malformed, match="missing"):
        brokerclient.Admin.local(tmp_path)


@pytest.mark.parametrize(
    "limit", ["1" * 7, "10000000001", "9" * 5000, "\u0661", "\u00b2", "-1", "+1", "1_0", " 1", "0", ""]
)
@pytest.mark.parametrize("path", ["decisions", "leases", "receipts"])
def test_numbers_that_are_none(service, path, limit):
    period = "&since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z"
    where = f"/casemate/v0/admin/{path}?limit={quote(limit)}{period}"
    assert service.call("GET", where, Authorization=f"Bearer {service.admin.token()}").status == 400


@pytest.mark.parametrize(
    "after",
    [
        '["keys"]',
        "[" * 1500,
        '["keys", 1]',
        '["keys", true]',
        '["keys", "a\\u0000"]',
        '["keys", "\\ud800"]',
        '["approvals", {}]',
        '[["keys"], "x"]',
        f'["resource_versions", "a/b/c", {1 << 63}]',
        f'["resource_versions", "a/b/c", {"9" * 5000}]',
        '["resource_versions", "a/b/c", -1]',
        '["resource_versions", "a/b/c", "1"]',
    ],
)
def test_places_that_no_step_answered(service, after):
    header = {"Authorization": f"Bearer {service.admin.token()}"}
    got = service.call("POST", "/casemate/v0/admin/master/rewrap", {"after": after}, **header)
    assert got.status == 400


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_at_the_ends_of_the_calendar(service, name, moment):
    header = {"Authorization": f"Bearer {service.admin.token()}"}
    text = "package policy\nimport rego.v1\nallow := true\n"
    body = {"kind": "resource", "name": "resource-policy", "text": text, "paths": ["a/b/c"], name: moment}
    assert service.call("POST", "/casemate/v0/admin/policies/simulate", body, **header).status == 400
    body = {"name": "odd", "tee": "tpm", "values": {"pcr4": "ab"}, "expires": moment}
    assert service.call("POST", "/casemate/v0/admin/reference-values", body, **header).status == 400
    assert service.call("GET", "/casemate/v0/admin/reference-values", **header).status == 200
