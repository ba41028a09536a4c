"""The broker as an issuer: keys that follow each other, and tokens for others that only the attested guest can open."""

import json
from datetime import timedelta

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from casemate.broker import keyring
from casemate.drivers import brokerclient
from casemate.drivers.store import record
from casemate.errors import Refused, Unusable
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules

VAULT = "https://vault.example"


@pytest.fixture
def app(service):
    made = service.found()
    service.admin.call("POST", f"/apps/{made.app_id}/audiences", {"audiences": [VAULT, "sts.example"]})
    return made


@pytest.fixture
def guest(service, app):
    made = Guest(service, app.manifest)
    assert made.handshake().status == 200
    return made


def keys(service):
    return service.call("GET", "/.well-known/jwks.json").json()["keys"]


def verified(service, token):
    """As a vault does: by discovery, then by the key set."""
    found = service.call("GET", "/.well-known/openid-configuration").json()
    assert found["jwks_uri"] == found["issuer"] + "/.well-known/jwks.json"
    assert found["id_token_signing_alg_values_supported"] == ["ES256"]
    made = jwt.decode(token, KeySet.import_key_set({"keys": keys(service)}), algorithms=["ES256"])
    assert made.claims["iss"] == found["issuer"]
    return made


def test_a_token_for_a_vault(service, app, guest):
    got = guest.call("GET", f"/kbs/v0/token?aud={VAULT}")
    assert got.status == 200, got.body
    assert got.headers["casemate-receipt"]
    assert VAULT.encode() not in got.body
    made = verified(service, guest.open(got).decode())
    said = made.claims
    assert {name: said[name] for name in ("sub", "aud", "app", "tenant", "release", "tee")} == {
        "sub": app.app_id,
        "aud": VAULT,
        "app": "web",
        "tenant": "demo",
        "release": app.digest,
        "tee": "tpm",
    }
    assert said["cnf"] == {"jwk": guest.jwk}
    assert said["iat"] == said["nbf"] <= said["exp"] <= said["iat"] + service.broker.settings.token_seconds
    assert "jwk" not in made.header


def test_the_path_of_cocos_resource_uris(service, app, guest):
    got = guest.call("GET", "/kbs/v0/token/default/token/vault?aud=sts.example")
    assert verified(service, guest.open(got).decode()).claims["aud"] == "sts.example"


def test_another_audience_is_refused(guest):
    got = guest.call("GET", "/kbs/v0/token?aud=https://other.example")
    assert (got.status, rules(got)) == (403, ["token.audience"])


@pytest.mark.parametrize("query", ["", "?aud=", "?aud=%00", "?aud=a%20b", "?aud=" + "a" * 257, "?aud=%F0%9F%98%80"])
def test_odd_audiences(guest, query):
    assert guest.call("GET", "/kbs/v0/token" + query).status == 400


def test_without_a_session(service, app):
    got = service.call("GET", f"/kbs/v0/token?aud={VAULT}")
    assert (got.status, rules(got)) == (401, ["session.absent"])


def test_a_guest_without_a_manifest_gets_none(service):
    guest = Guest(service)
    guest.handshake()
    got = guest.call("GET", f"/kbs/v0/token?aud={VAULT}")
    assert got.status == 403
    assert "token.audience" in rules(got)


def test_a_revoked_release_gets_none(service, app, guest):
    service.admin.revoke_release(app.app_id, app.digest)
    got = guest.call("GET", f"/kbs/v0/token?aud={VAULT}")
    assert got.status in (401, 403)


def test_a_token_for_others_is_worth_nothing_here(service, app, guest):
    token = guest.open(guest.call("GET", f"/kbs/v0/token?aud={VAULT}")).decode()
    for path in (f"/kbs/v0/resource/{app.path}", f"/kbs/v0/token?aud={VAULT}"):
        got = service.call("GET", path, Authorization=f"Bearer {token}")
        assert (got.status, rules(got)) == (401, ["session.token"])
    got = service.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {token}")
    assert (got.status, rules(got)) == (401, ["admin.token"])
    got = service.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {guest.token}")
    assert (got.status, rules(got)) == (401, ["admin.token"])


@pytest.mark.parametrize("name", ["KBS", "casemate-console", "casemate-broker", "", "a b", "a" * 257])
def test_audiences_that_no_app_may_have(service, app, name):
    with pytest.raises(Unusable):
        service.admin.call("POST", f"/apps/{app.app_id}/audiences", {"audiences": [name]})
    with pytest.raises(Unusable):
        service.admin.call("POST", f"/apps/{app.app_id}/audiences", {"audiences": [service.broker.settings.issuer_url]})


def test_audiences_are_replaced(service, app):
    where = f"/apps/{app.app_id}/audiences"
    assert service.admin.call("GET", where) == {"audiences": [VAULT, "sts.example"]}
    assert service.admin.call("POST", where, {"audiences": []}) == {"audiences": []}
    assert service.admin.call("GET", where) == {"audiences": []}


# --- keys


@pytest.fixture
def alone(tmp_path):
    made = brokers.start(tmp_path / "broker")
    made.trust()
    yield made
    made.stop()


def states(service):
    listed = service.admin.call("GET", "/keys")["keys"]
    return [one["state"] for one in listed if one["kind"] == "signing"]


def shift(service, seconds):
    service.clock.shift += timedelta(seconds=seconds)


def kid(token):
    from casemate.wire.encoding import unb64u

    return json.loads(unb64u(token.split(".")[0]))["kid"]


def test_a_rotation_from_beginning_to_end(alone):
    app = alone.found()
    alone.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"x")
    guest = Guest(alone, app.manifest)
    guest.handshake()
    old = guest.token
    (first,) = keys(alone)

    alone.admin.call("POST", "/keys/rotate", {"lead": 60})
    assert states(alone) == ["current", "next"]
    second, still = keys(alone)  # the new one is published, the old one signs
    assert still == first
    guest.handshake()
    assert kid(guest.token) == first["kid"]

    broker = alone.broker
    now = broker.clock() + timedelta(seconds=61)
    ring = broker.signer.ring
    ring._clock = lambda: now
    assert kid(broker.signer.token(*_said(guest), now)) == second["kid"]
    assert guest.get(app.path).status == 200
    assert broker.signer.session(old, broker.clock())
    assert [key["kid"] for key in broker.signer.jwks()] == [second["kid"], first["kid"]]

    now += keyring.KEEP
    assert [key["kid"] for key in broker.signer.jwks()] == [second["kid"]]
    with pytest.raises(Refused):
        broker.signer.session(old, broker.clock())


def _said(guest):
    session = guest.service.broker.signer.session(guest.token, guest.service.broker.clock())
    return session, {}


def test_a_second_rotation_waits_for_the_first(alone):
    alone.admin.call("POST", "/keys/rotate", {})
    with pytest.raises(Refused) as refusal:
        alone.admin.call("POST", "/keys/rotate", {})
    assert [f.rule for f in refusal.value.findings] == ["key.waits"]


def test_revoking_ends_what_the_old_keys_signed_and_sealed(alone):
    app = alone.found()
    guest = Guest(alone, app.manifest)
    guest.handshake()
    assert guest.get(app.path).status in (403, 404)
    waiting = Guest(alone, app.manifest)
    waiting.auth()
    (first,) = keys(alone)
    alone.admin.call("POST", "/keys/rotate", {"revoke": True})
    (second,) = keys(alone)
    assert first["kid"] != second["kid"]
    assert rules(guest.get(app.path)) == ["session.token"]
    got = alone.call("GET", f"/kbs/v0/resource/{app.path}", Cookie=guest.cookie)
    assert rules(got) == ["session.cookie"]
    assert rules(waiting.attest()) == ["session.cookie"]
    assert guest.handshake().status == 200
    with alone.broker.store.read() as tx:
        assert record.key(tx, "signing") is None
        assert record.key(tx, "cookie") is None
    assert brokerclient.app_statement(alone.url, alone.pin, app.app_id).app_id == app.app_id


def test_replicas_see_a_new_key_before_it_is_used(alone):
    from casemate.broker.assemble import assemble

    other = assemble(alone.broker.settings, clock=alone.clock)
    try:
        alone.admin.call("POST", "/keys/rotate", {"revoke": True})
        app = alone.found()
        guest = Guest(alone, app.manifest)
        guest.handshake()
        other.signer.ring._loaded -= keyring.AGAIN + 1
        assert other.signer.session(guest.token, alone.clock())  # a key that it does not know: it looks
        other.cookies.ring._loaded -= keyring.FRESH + 1
        assert other.cookies.open(guest.cookie.split("=", 1)[1], alone.clock())
    finally:
        other.close()


def test_a_restart_keeps_the_keys(tmp_path):
    first = brokers.start(tmp_path / "broker")
    first.admin.call("POST", "/keys/rotate", {"revoke": True})
    before = keys(first)
    first.stop()
    second = brokers.start(tmp_path / "broker")
    assert keys(second) == before
    second.stop()


def test_old_keys_are_forgotten_for_good(alone):
    from sqlalchemy import update

    from casemate.drivers.store.tables_access import signing_keys

    alone.admin.call("POST", "/keys/rotate", {})
    past = int((alone.clock().timestamp() - keyring.KEEP.total_seconds() - 60) * 1000)
    with alone.broker.store.write() as tx:
        tx.execute(update(signing_keys).where(signing_keys.c.begun > 0).values(begun=past))
    alone.admin.call("POST", "/keys/rotate", {})
    with alone.broker.store.read() as tx:
        assert record.key(tx, "signing") is None


def test_a_token_s_kid_only_chooses_among_our_own_keys(service, app, guest):
    from casemate.testing.issuer import compact
    from casemate.wire.encoding import unb64u

    claims = json.loads(unb64u(guest.token.split(".")[1]))
    stranger = brokers.ec.generate_private_key(brokers.ec.SECP256R1())
    for name in (keys(service)[0]["kid"], "x", "../x", 7, None):
        forged = compact(stranger, {"alg": "ES256", "typ": "JWT", "kid": name}, claims)
        got = service.call("GET", f"/kbs/v0/resource/{app.path}", Authorization=f"Bearer {forged}")
        assert (got.status, rules(got)) == (401, ["session.token"])
