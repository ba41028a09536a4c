"""The console: who comes in, what of whom it shows, and what it never does. Without a browser."""

import hashlib
import json
from datetime import timedelta

import pytest

from casemate.api.console import logins
from casemate.drivers import collateral
from casemate.testing import broker as brokers

from .conftest import EVIL, Person, admin_of, token

PAGES = ("/apps", "/decisions", "/trust", "/log", "/simulate")


@pytest.fixture
def first(service):
    made = Person(service)
    assert made.enter(service.admin.token(3600, "casemate-console")) == 303
    return made


def test_without_the_setting_there_is_no_console(tmp_path):
    made = brokers.start(tmp_path)
    try:
        assert Person(made).ask("GET", "/login")[0] == 404
        assert made.broker.settings.console is False
    finally:
        made.stop()


def test_the_cookie_is_kept_from_all_but_this_host(service, person):
    status, headers, _ = person.ask("POST", "/login", {"token": service.admin.token(3600, "casemate-console")})
    assert status == 303
    cookie = headers["set-cookie"]
    for part in ("__Host-", "HttpOnly", "Secure", "SameSite=strict", "Max-Age=900", "Path=/"):
        assert part.lower() in cookie.lower(), part
    assert "domain" not in cookie.lower()


@pytest.mark.parametrize("shown", ["", "x", "a.b.c", "ä"])
def test_nobody_comes_in_without_a_token(person, shown):
    status, headers, text = person.ask("POST", "/login", {"token": shown})
    assert status == 401
    assert "set-cookie" not in headers
    assert "admin.token" in text


@pytest.mark.parametrize("path", [*PAGES, "/apps/x", "/log/receipt?id=1"])
def test_strangers_are_led_to_the_login(person, path):
    for cookie in ("", "__Host-casemate-console=AAAA", f"__Host-casemate-console={'A' * 9000}"):
        person.cookie = cookie
        status, headers, _ = person.ask("GET", path)
        assert (status, headers["location"]) == (303, "/console/login")


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_closed_to_scripts_and_frames(first, path):
    status, headers, text = first.ask("GET", path)
    assert status == 200, text
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert "<script" not in text
    assert "style=" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_a_bearer_token_alone_opens_no_page(service, person):
    assert person.ask("GET", "/apps", Authorization=f"Bearer {service.admin.token()}")[0] == 303


def test_a_guests_cookie_is_none_of_ours(service, person):
    guest = brokers.Guest(service, service.acme.manifest)
    assert guest.handshake().status == 200
    person.cookie = f"{logins.COOKIE}={guest.cookie.partition('=')[2]}"
    assert person.ask("GET", "/apps")[0] == 303


def test_a_sign_in_ends_after_fifteen_minutes(service, first):
    try:
        service.clock.shift = timedelta(minutes=14)
        assert first.ask("GET", "/apps")[0] == 200
        service.clock.shift = timedelta(minutes=15, seconds=1)
        assert first.ask("GET", "/apps")[0] == 303
    finally:
        service.clock.shift = timedelta()


def test_a_sign_in_ends_with_its_token(service, person):
    ann = admin_of(service, "acme", "auditor", "brief")
    for shown in (service.admin.token(120), token(ann.key, 120)):
        assert person.enter(shown) == 303
        assert person.ask("GET", "/apps")[0] == 200
        try:
            service.clock.shift = timedelta(seconds=121)
            assert person.ask("GET", "/apps")[0] == 303
        finally:
            service.clock.shift = timedelta()


def test_a_token_for_the_console_opens_nothing_else(service, person):
    shown = service.admin.token(900, "casemate-console")
    assert person.enter(shown) == 303
    assert service.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {shown}").status == 401
    for seconds, audience in ((3700, "casemate-console"), (900, "KBS"), (120, "other")):
        assert person.enter(service.admin.token(seconds, audience)) == 401


def test_a_removed_admin_is_signed_in_no_more(service, person):
    ann = admin_of(service, "acme", "auditor", "gone")
    assert person.enter(token(ann.key)) == 303
    assert person.ask("GET", "/apps")[0] == 200
    service.admin.call("DELETE", f"/admins?who={ann.who.replace('#', '%23').replace('/', '%2F')}")
    assert person.ask("GET", "/apps")[0] == 303
    admin_of(service, "acme", "owner", "gone")  # the same name, another key
    assert person.ask("GET", "/apps")[0] == 303


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://127.0.0.1"])
def test_forms_of_other_sites_do_nothing(service, first, origin):
    form = {"csrf": first.csrf()}
    assert first.ask("POST", "/logout", form, Origin=origin)[0] == 403
    assert first.ask("POST", "/login", {"token": service.admin.token()}, Origin=origin)[0] == 403
    assert first.ask("POST", "/logout", form, Sec_Fetch_Site="cross-site")[0] == 403


def test_a_form_carries_the_word_of_its_sign_in(service, first):
    other = Person(service)
    assert other.enter(service.admin.token()) == 303
    for form in ({}, {"csrf": ""}, {"csrf": "ä"}, {"csrf": other.csrf()}):
        status, _, text = first.ask("POST", "/logout", form)
        assert (status, "console.form" in text) == (403, True)
    status, headers, _ = first.ask("POST", "/logout", {"csrf": first.csrf()})
    assert status == 303
    assert "max-age=0" in headers["set-cookie"].lower()


def test_bodies_that_are_no_forms(first):
    for kind, body in (("application/json", {"a": "b"}), ("application/x-www-form-urlencoded", [("a", "1")] * 2)):
        assert first.ask("POST", "/logout", body, Content_Type=kind)[0] == 400
    assert first.ask("POST", "/logout", {"csrf": "x" * 70000})[0] == 413


def test_the_why_is_shown_and_the_secret_is_not(service, first):
    _, _, text = first.ask("GET", "/decisions")
    assert "release.active" in text
    assert service.acme.path in text
    every = "".join(first.ask("GET", path)[2] for path in (*PAGES, f"/apps/{service.acme.app_id}"))
    assert "the secret itself" not in every


def test_decisions_are_filtered(service, first):
    refused = first.ask("GET", "/decisions?allowed=no")[2]
    assert "release.active" in refused
    assert '<span class="yes">allowed</span>' not in refused
    acme = first.ask("GET", f"/decisions?app={service.acme.app_id}&allowed=yes")[2]
    assert "release.active" not in acme
    assert '<span class="no">refused</span>' not in acme
    assert first.ask("GET", "/decisions?allowed=perhaps")[0] == 200
    assert first.ask("GET", "/decisions?app=x")[0] == 404


def test_another_tenants_admin_sees_nothing_of_it(service, person):
    assert person.enter(token(admin_of(service, "acme", "auditor", "eve").key)) == 303
    paths = [*PAGES, f"/decisions?app={service.acme.app_id}", f"/apps/{service.acme.app_id}"]
    told = "".join(person.ask("GET", path)[2] for path in paths)
    assert "acme" in told
    for word in ("umbrella", service.umbrella.app_id, service.umbrella.digest, service.umbrella.path, "Collateral"):
        assert word not in told, word
    for path in (f"/apps/{service.umbrella.app_id}", f"/decisions?app={service.umbrella.app_id}"):
        assert person.ask("GET", path)[0] == 404
    for path in ("/simulate?tenant=umbrella", "/simulate?tenant=*"):
        assert person.ask("GET", path)[0] == 403
    form = {"csrf": person.csrf(), "tenant": "umbrella", "policy": "attestation/default_cpu", "text": "package policy"}
    assert person.ask("POST", "/simulate", form)[0] == 403


def test_receipts_of_others_are_not_shown(service, first, person):
    assert person.enter(token(admin_of(service, "acme", "auditor", "rec").key)) == 303

    def links(text):
        return {part.split('"')[0] for part in text.split("/log/receipt?id=")[1:]}

    own, every = (links(one.ask("GET", "/log")[2]) for one in (person, first))
    assert own
    assert own < every
    for number in own:
        assert person.ask("GET", f"/log/receipt?id={number}")[0] == 200
    for number in every - own:
        assert person.ask("GET", f"/log/receipt?id={number}")[0] == 404
        assert first.ask("GET", f"/log/receipt?id={number}")[0] == 200


def test_what_expires_soon_stands_first(service, first):
    ends = (service.clock() + timedelta(days=2)).isoformat()
    values = {"name": "near its end", "tee": "tpm", "values": {"pcr4": "ab" * 32}, "expires": ends}
    service.admin.call("POST", "/reference-values", values)
    text = first.ask("GET", "/trust")[2]
    assert text.index("reference values near its end") < text.index("Guest images</h2>")
    assert "in 47 hours" in text


def test_collateral_and_its_ends(service, first):
    now, body = service.clock(), b"{}"
    kept = collateral.Store.make(service.broker.settings.collateral_store)
    told = {"digest": "sha256:" + hashlib.sha256(body).hexdigest(), "kind": "crl", "chains": {}, "body": body}
    for name, days in (("old", -1), ("young", 90)):
        ends = now + timedelta(days=days, minutes=1)
        url = f"https://vendor.example/{name}"
        kept.put(collateral.Entry(url=url, about=f"{name} <b>", fetched=now, expires=ends, **told))
    text = first.ask("GET", "/trust")[2]
    soon = text[: text.index("Guest images</h2>")]
    assert "crl old &lt;b&gt;" in soon
    assert "expired" in soon
    assert "young" not in soon
    assert "https://vendor.example/young" in text
    assert "in 90 days" in text
    for path in service.broker.settings.collateral_store.glob("*.json"):
        path.write_bytes(b"{")
    status, _, text = first.ask("GET", "/trust")
    assert (status, "is damaged" in text) == (200, True)
    for path in service.broker.settings.collateral_store.glob("*.json"):
        path.unlink()


def test_markup_in_findings_is_text(first):
    text = first.ask("GET", "/decisions")[2]
    assert EVIL not in text
    assert "&lt;script&gt;" in text


DENY = "package policy\nimport rego.v1\ndefault allow := false\n"


def test_a_policy_is_tried_and_not_set(service, first):
    before = service.admin.call("GET", "/policies")
    form = {
        "csrf": first.csrf(),
        "tenant": "",
        "policy": "resource/resource-policy",
        "text": DENY.replace("\n", "\r\n"),
    }
    status, _, text = first.ask("POST", "/simulate", {**form, "paths": ""})
    assert (status, "name one at least" in text) == (400, True)
    status, _, text = first.ask("POST", "/simulate", {**form, "paths": service.acme.path})
    assert status == 200, text
    assert "attestations replayed" in text
    status, _, text = first.ask("POST", "/simulate", {**form, "text": "package policy\nallow := <b>"})
    assert (status, "&lt;b&gt;" in text) == (400, True)
    worse = 'package policy\nimport rego.v1\ntrust_claims := {"executables": 96}\n'
    status, _, text = first.ask("POST", "/simulate", {**form, "policy": "attestation/default_cpu", "text": worse})
    assert status == 200
    assert '<span class="no">refused</span>' in text
    assert service.admin.call("GET", "/policies") == before


def test_a_stored_policy_is_where_one_begins(service, first):
    text = first.ask("GET", "/simulate?policy=attestation/default_cpu")[2]
    assert "package policy" in text
    assert first.ask("GET", "/simulate?policy=attestation/none")[0] == 404
    assert first.ask("GET", "/simulate?policy=x")[0] == 400


def test_pages_are_no_part_of_the_api_document(service):
    assert not [path for path in service.call("GET", "/openapi.json").json()["paths"] if "console" in path]
    assert json.dumps(service.broker.settings.console) == "true"
