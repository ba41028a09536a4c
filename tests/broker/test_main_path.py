"""The main path over real TLS: challenge, attestation, release; and the ways in which it must be refused."""

import json
from datetime import timedelta

import pytest

from casemate.boot import initdata
from casemate.errors import Malformed, Refused
from casemate.release import session as rcar
from casemate.schema import manifest as manifests
from casemate.testing.broker import Guest, document, rules
from casemate.testing.tpm import FakeTpm, FakeVendor


def ready(service, **parts):
    """An app with a secret, and a guest that attested."""
    app = service.found(**parts)
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"the secret")
    guest = Guest(service, app.manifest)
    got = guest.handshake()
    assert got.status == 200, got.body
    return app, guest


def test_a_secret_reaches_an_attested_guest(service):
    app, guest = ready(service)
    answer = guest.get(app.path)
    assert answer.status == 200, answer.body
    assert guest.open(answer) == b"the secret"
    assert answer.headers["casemate-version"] == "1"
    by_cookie = service.call("GET", f"/kbs/v0/resource/{app.path}", Cookie=guest.cookie)
    assert guest.open(by_cookie) == b"the secret"
    newest = service.admin.decisions(3)
    assert [entry["act"] for entry in newest] == ["release", "release", "attest"]
    assert all(entry["allowed"] and entry["app"] == app.app_id for entry in newest)
    assert "the secret" not in json.dumps(newest)


def test_the_challenge_shows_whose_it_is(service):
    guest = Guest(service)
    asked = guest.auth(**{"extra-params": {"unknown": [1, 2]}})
    salt = asked.headers["casemate-nonce-salt"]
    assert len(guest.nonce) == 44
    assert asked.json()["extra-params"] == ""
    rcar.demand_nonce(guest.nonce, service.pin, salt)
    with pytest.raises(Refused):
        rcar.demand_nonce(guest.nonce, "sha256:" + "0" * 64, salt)


@pytest.mark.parametrize("version", ["0.4.0", "0.4.7"])
def test_the_protocol_and_its_patch_levels(service, version):
    assert Guest(service).auth(version=version).status == 200


@pytest.mark.parametrize("version", ["0.3.0", "0.5.0", "1.4.0", "", "0.40.0", "x"])
def test_other_protocols_are_refused(service, version):
    got = Guest(service).auth(version=version)
    assert (got.status, rules(got)) == (401, ["session.version"])


def test_another_tee_is_unknown(service):
    got = Guest(service).auth(tee="enigma")
    assert got.status == 400
    assert got.json()["type"].endswith("/InvalidRequest")


def test_a_new_version_arrives_and_an_old_one_is_not_sent_again(service):
    app, guest = ready(service)
    unchanged = guest.get(app.path, **{"If-None-Match": '"1"'})
    assert (unchanged.status, unchanged.body) == (304, b"")
    before = service.admin.decisions(1)[0]["id"]
    guest.get(app.path, **{"If-None-Match": '"1"'})
    assert service.admin.decisions(1)[0]["id"] == before
    assert service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"newer") == 2
    changed = guest.get(app.path, **{"If-None-Match": '"1"'})
    assert changed.status == 200
    assert changed.headers["casemate-version"] == "2"
    assert guest.open(changed) == b"newer"


def test_replay_under_the_same_nonce(service):
    app = service.found()
    guest = Guest(service, app.manifest)
    guest.auth()
    cookie, body = guest.cookie, guest.body()
    assert guest.attest(body, cookie).status == 200
    again = guest.attest(body, cookie)
    assert (again.status, rules(again)) == (401, ["session.replay"])
    refused = service.admin.decisions(1)[0]
    assert refused["allowed"] is True  # the quick look refuses before anything is judged


def test_replay_in_parallel_is_decided_by_the_store(service):
    from concurrent.futures import ThreadPoolExecutor

    app = service.found()
    guest = Guest(service, app.manifest)
    guest.auth()
    cookie, body = guest.cookie, guest.body()
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda _: service.call("POST", "/kbs/v0/attest", body, Cookie=cookie), range(6)))
    assert sorted(r.status for r in got) == [200, 401, 401, 401, 401, 401]
    assert {rule for r in got if r.status == 401 for rule in rules(r)} == {"session.replay"}


def test_replay_under_another_nonce(service):
    app = service.found()
    old = Guest(service, app.manifest)
    old.auth()
    recorded = old.body()
    assert old.attest(recorded).status == 200
    new = Guest(service, app.manifest)
    new.auth()
    body = {**new.body(), "tee-evidence": recorded["tee-evidence"]}
    got = new.attest(body)
    assert (got.status, rules(got)) == (401, ["tpm.quote.nonce"])
    logged = service.admin.decisions(1)[0]
    assert (logged["allowed"], logged["tee"]) == (False, "tpm")


def test_evidence_spends_its_nonce_when_it_is_refused(service):
    app = service.found()
    guest = Guest(service, app.manifest, tpm=FakeTpm(vendor=service.vendor, broken="signature"))
    guest.auth()
    assert guest.attest().status == 401
    good = Guest(service, app.manifest)
    good.nonce, good.cookie = guest.nonce, guest.cookie
    assert rules(good.attest()) == ["session.replay"]


def test_a_nonce_of_another_session(service):
    app = service.found()
    one, two = Guest(service, app.manifest), Guest(service, app.manifest)
    one.auth()
    two.auth()
    got = one.attest(cookie=two.cookie)
    assert (got.status, rules(got)) == (401, ["session.nonce"])


@pytest.mark.parametrize("broken", ["signature", "nonce", "pcr-value", "other-root", "expired", "no-chain", "log-cut"])
def test_evidence_that_is_not_genuine(service, broken):
    app = service.found()
    got = Guest(service, app.manifest, tpm=FakeTpm(vendor=service.vendor, broken=broken)).handshake()
    assert got.status == 401
    assert all(rule.startswith("tpm.") for rule in rules(got))
    assert rules(got)


def test_an_untrusted_vendor(service):
    app = service.found()
    got = Guest(service, app.manifest, tpm=FakeTpm(vendor=FakeVendor(name="stranger"))).handshake()
    assert got.status == 401


@pytest.mark.parametrize(
    ("part", "registers"),
    [
        ({"kernel": b"other"}, ["measurement.pcr4"]),
        ({"command_line": "init=/bin/sh"}, ["measurement.pcr9"]),
        ({"initrd": b"other"}, ["measurement.pcr9"]),
        ({"firmware": b"other"}, ["measurement.pcr0"]),
    ],
)
def test_another_guest_image(service, part, registers):
    app = service.found()
    got = Guest(service, app.manifest, tpm=FakeTpm(vendor=service.vendor, **part)).handshake()
    assert (got.status, rules(got)) == (403, registers)
    reason = got.json()["reasons"][0]
    assert reason["expected"] != reason["found"]
    assert reason["hint"]


def test_a_changed_manifest(service):
    app = service.found()
    changed = document(app.app_id, service.pin, host={"logs": True})
    got = Guest(service, manifests.from_builtins(changed)).handshake()
    assert (got.status, rules(got)) == (403, ["release.active"])


def test_a_manifest_that_the_hardware_did_not_measure(service):
    app = service.found()
    guest = Guest(service, app.manifest)
    guest.auth()
    body = guest.body()
    other = manifests.from_builtins(document(app.app_id, service.pin, host={"exec": True}))
    body["init-data"]["body"] = initdata.document(other).decode()
    got = guest.attest(body)
    assert (got.status, rules(got)) == (401, ["tpm.initdata"])


def test_a_revoked_release_ends_running_sessions_too(service):
    app, guest = ready(service)
    service.admin.revoke_release(app.app_id, app.digest)
    got = guest.get(app.path)
    assert (got.status, rules(got)) == (403, ["release.active"])
    got = guest.get(app.path, **{"If-None-Match": '"1"'})
    assert got.status == 403
    assert rules(Guest(service, app.manifest).handshake()) == ["release.active"]
    with pytest.raises(Refused, match=r"release\.revoked"):
        service.admin.add_release(app.app_id, app.manifest.canonical())


def test_a_platform_that_the_app_does_not_allow(service):
    app = service.found(platforms=("production",))
    got = Guest(service, app.manifest).handshake()
    assert (got.status, rules(got)) == (403, ["platform.class"])


def test_a_platform_that_is_not_allowed_any_more(service):
    app, guest = ready(service)
    service.admin.allow(app.app_id, ("production",))
    assert rules(guest.get(app.path)) == ["platform.class"]


def test_a_bare_tpm_is_no_production_platform(service):
    vendor = FakeVendor(name="claims too much", platform_class="production")
    service.admin.add_anchor(vendor.anchor)
    app = service.found(platforms=("production",))
    got = Guest(service, app.manifest, tpm=FakeTpm(vendor=vendor)).handshake()
    assert (got.status, rules(got)) == (403, ["platform.memory"])


def test_a_manifest_for_another_broker(service):
    app = service.found(register=False)
    other = manifests.from_builtins(document(app.app_id, "sha256:" + "1" * 64))
    service.admin.add_release(app.app_id, other.canonical())
    assert rules(Guest(service, other).handshake()) == ["manifest.broker"]


def test_an_app_that_nobody_founded(service):
    manifest = manifests.from_builtins(document("sha256:" + "2" * 64, service.pin))
    got = Guest(service, manifest).handshake()
    assert got.status == 403
    assert set(rules(got)) >= {"app.known", "release.active"}


def test_the_same_name_in_another_tenant_gets_nothing(service):
    victim, _ = ready(service, tenant="one")
    thief = service.found(tenant="two", resources=[f"kbs:///{victim.path}"])
    guest = Guest(service, thief.manifest)
    assert guest.handshake().status == 200
    got = guest.get(victim.path)
    assert (got.status, rules(got)) == (403, ["resource.owner"])


def test_another_apps_path_is_refused_listed_or_not(service):
    victim, _ = ready(service)
    _, guest = ready(service)
    got = guest.get(victim.path)
    assert (got.status, rules(got)) == (403, ["resource.listed", "resource.owner"])


def test_policy_before_existence(service):
    _, guest = ready(service)
    nothing = guest.get("no/such/thing")
    assert (nothing.status, rules(nothing)) == (403, ["resource.listed", "resource.owner"])
    app = service.found()
    other = Guest(service, app.manifest)
    other.handshake()
    never = other.get(app.path)  # listed, but nobody stored it: it looks like somebody else's
    assert (never.status, rules(never)) == (403, ["resource.owner"])
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"x")
    service.admin.delete_resource(f"kbs:///{app.path}")
    assert other.get(app.path).status == 404
    assert service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"y") == 2


def test_a_path_stays_with_its_app(service):
    app, _ = ready(service)
    other = service.found()
    with pytest.raises(Refused, match=r"resource\.owner"):
        service.admin.put_resource(other.app_id, f"kbs:///{app.path}", b"mine now")
    service.admin.delete_resource(f"kbs:///{app.path}")
    with pytest.raises(Refused):
        service.admin.put_resource(other.app_id, f"kbs:///{app.path}", b"mine now")


def test_a_guest_of_coco_attests_and_gets_nothing(service):
    text = 'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"aa.toml" = "x"\n'
    guest = Guest(service, text=text)
    assert guest.handshake().status == 200
    app, _ = ready(service)
    got = guest.get(app.path)
    assert (got.status, rules(got)[0]) == (403, "manifest.present")
    bare = Guest(service)
    assert bare.handshake().status == 200
    assert bare.get(app.path).status == 403


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        '[data]\n"casemate.json" = "{}"\n',
        'algorithm = "sha384"\nversion = "0.1.0"\n[data]\n"casemate.json" = "{}"\n',
        'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"casemate.json" = 1\n',
    ],
)
def test_initdata_that_cannot_be_read(service, text):
    got = Guest(service, text=text).handshake()
    assert (got.status, rules(got)) == (401, ["tpm.evidence"])


def test_a_manifest_that_is_not_canonical(service):
    app = service.found()
    text = initdata.document(app.manifest).decode().replace('{\\"api', '{ \\"api', 1)
    assert text != initdata.document(app.manifest).decode()
    assert Guest(service, text=text).handshake().status == 401


def test_the_guests_key_is_what_the_evidence_binds(service):
    app = service.found()
    guest = Guest(service, app.manifest)
    guest.auth()
    body = guest.body()
    body["runtime-data"]["tee-pubkey"] = Guest(service).jwk
    assert rules(guest.attest(body)) == ["tpm.quote.nonce"]
    guest.auth()
    body = guest.body()
    body["runtime-data"]["tee-pubkey"] = {**guest.jwk, "kid": "extra members are not hashed"}
    assert guest.attest(body).status == 200


@pytest.mark.parametrize("change", [{"alg": "RSA1_5"}, {"crv": "P-384"}, {"x": "AAAA"}, {"kty": "RSA"}, {"y": 5}])
def test_other_keys_are_malformed(service, change):
    guest = Guest(service, service.found().manifest)
    guest.auth()
    body = guest.body()
    body["runtime-data"]["tee-pubkey"] = {**guest.jwk, **change}
    assert guest.attest(body).status == 400


def test_no_cookie_a_changed_one_an_old_one(service):
    guest = Guest(service, service.found().manifest)
    guest.auth()
    assert rules(guest.attest(cookie="")) == ["session.absent"]
    name, _, value = guest.cookie.partition("=")
    flipped = value[:-3] + ("A" if value[-3] != "A" else "B") + value[-2:]
    assert rules(guest.attest(cookie=f"{name}={flipped}")) == ["session.cookie"]
    assert rules(guest.attest(cookie=f"{name}=zzz")) == ["session.cookie"]
    service.clock.shift = timedelta(seconds=301)
    got = guest.attest()
    assert (got.status, rules(got)) == (401, ["session.expired"])


def test_reading_without_a_session_and_after_its_time(service):
    app, guest = ready(service)
    path = f"/kbs/v0/resource/{app.path}"
    nothing = service.call("GET", path)
    assert rules(nothing) == ["session.absent"]
    assert nothing.json()["type"].endswith("/TokenNotFound")
    assert rules(service.call("GET", path, Authorization="Bearer x.y.z")) == ["session.token"]
    challenge = Guest(service)
    challenge.auth()
    assert rules(service.call("GET", path, Cookie=challenge.cookie)) == ["session.absent"]
    beside = service.call("GET", path, Cookie=challenge.cookie, Authorization=f"Bearer {guest.token}")
    assert beside.status == 200
    service.clock.shift = timedelta(seconds=301)
    assert rules(guest.get(app.path)) == ["session.expired"]
    assert rules(service.call("GET", path, Cookie=guest.cookie)) == ["session.expired"]


def test_sample_evidence_is_refused(service):
    before = service.admin.decisions(1)
    got = Guest(service, tee="sample").auth()
    assert (got.status, rules(got)) == (403, ["tee.sample"])
    assert service.admin.decisions(1) == before  # who has shown nothing is only counted


def test_a_stolen_token_gives_what_only_the_attested_key_opens(service):
    app, guest = ready(service)
    answer = service.call("GET", f"/kbs/v0/resource/{app.path}", Authorization=f"Bearer {guest.token}")
    stranger = Guest(service)
    with pytest.raises(Malformed, match="cannot be opened"):
        stranger.open(answer)
