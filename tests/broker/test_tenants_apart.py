"""What one tenant's policies cost is that tenant's: neither others' requests nor the same text elsewhere suffer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from casemate.broker import apps
from casemate.crypto import jws
from casemate.drivers.rego import pool as pools
from casemate.testing import broker as brokers
from casemate.testing import issuer as fakes
from casemate.testing.broker import Guest

HEAD = "package policy\nimport rego.v1\n"
PATTERN = 'regex.match("^(a+)+$", object.get(data.query, "q", ""))'
FRAGILE = HEAD + f"default allow := false\nallow if not {PATTERN}\n"  # endless for some queries
BOMB = "?q=" + "a" * 40 + "b"
PLAIN = 'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"x" = "y"\n'


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("apart"), threads=4, policy_seconds=0.6, repos={"shared": "acme"})
    made.trust()
    yield made
    made.stop()


def put(service, tenant, text=FRAGILE):
    service.admin.call("PUT", f"/policies/resource/resource-policy?tenant={tenant}", {"text": text})


def guest_of(service, tenant):
    """(an attested guest, a path that it may read)."""
    app = service.found(tenant)
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"value")
    guest = Guest(service, app.manifest)
    assert guest.handshake().status == 200
    return guest, app.path


def auditor_of(service, tenant):
    """A token of a new auditor."""
    key, now = fakes.new_key("EdDSA"), int(time.time())
    body = {"name": f"{tenant}-auditor", "role": "auditor", "key": fakes.public_pem(key)}
    service.admin.call("POST", f"/admins?tenant={tenant}", body)
    head = {"alg": "EdDSA", "kid": jws.thumbprint(key.public_key())}
    return fakes.compact(key, head, {"iat": now, "exp": now + 120, "aud": "KBS"})


def found_in(response):
    return " ".join(str(reason["found"]) for reason in response.json().get("reasons", []))


def test_a_slow_policy_keeps_no_other_tenant_waiting(service):
    (slow, path), (quick, other) = guest_of(service, "slow"), guest_of(service, "quick")
    put(service, "slow")
    assert slow.get(path).status == 200  # compiled, and with an evaluator
    answered = []
    threads = [threading.Thread(target=lambda n=n: answered.append(slow.get(f"{path}{BOMB}{n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    while service.app.gate.flight.now < len(threads):
        time.sleep(0.01)
    assert [quick.get(other).status for _ in range(3)] == [200] * 3
    assert service.call("GET", "/casemate/v0/info").status == 200
    assert answered == []  # they wait still, and nobody waited for them
    for thread in threads:
        thread.join()
    assert {got.status for got in answered} <= {403, 503}


def test_admins_keep_no_other_tenant_waiting(service, monkeypatch):
    guest, path = guest_of(service, "quick")
    guest_of(service, "greedy")
    go, read = threading.Event(), apps.decisions

    def slow(broker, limit, app_id=None, tenant=None, allowed=None):
        assert go.wait(60)
        return read(broker, limit, app_id, tenant, allowed)

    monkeypatch.setattr(apps, "decisions", slow)
    bearer, answered = {"Authorization": f"Bearer {auditor_of(service, 'greedy')}"}, []

    def ask():
        answered.append(service.call("GET", "/casemate/v0/admin/decisions?limit=10000", **bearer).status)

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    while service.app.gate.flight.now < len(asking):
        time.sleep(0.01)
    assert [guest.get(path).status for _ in range(3)] == [200] * 3
    assert answered == []
    go.set()
    for thread in asking:
        thread.join()
    assert answered == [200] * 8


def test_those_that_wait_for_an_evaluator_get_their_turn(service):
    guest, path = guest_of(service, "many")
    put(service, "many")
    with ThreadPoolExecutor(24) as threads:
        found = list(threads.map(lambda n: guest.get(f"{path}?n={n}").status, range(48)))
    assert found == [200] * 48


def test_a_text_that_one_tenant_breaks_goes_on_for_others(service):
    (one, path), (other, theirs) = guest_of(service, "breaking"), guest_of(service, "working")
    put(service, "breaking")
    put(service, "working")
    for n in range(pools.PATIENCE):
        assert "longer than" in found_in(one.get(f"{path}{BOMB}{n}"))
    assert "set aside" in found_in(one.get(f"{path}?q=x"))
    assert other.get(theirs).status == 200


def test_a_guest_without_a_manifest_breaks_no_policy_for_the_tenants_own(service):
    own, path = guest_of(service, "acme")
    bearer = {"Authorization": f"Bearer {service.admin.token()}"}
    assert service.call("POST", "/kbs/v0/resource/shared/key/1", b"for coco", **bearer).status == 200
    stranger = Guest(service, text=PLAIN)
    assert stranger.handshake().status == 200
    put(service, "acme")
    assert stranger.get("shared/key/1").status == 200
    for n in range(pools.PATIENCE):
        assert "longer than" in found_in(stranger.get(f"shared/key/1{BOMB}{n}"))
    assert "set aside" in found_in(stranger.get("shared/key/1?q=x"))
    assert own.get(path).status == 200


def test_what_an_auditor_tries_breaks_no_policy_for_guests(service):
    guest, path = guest_of(service, "tried")
    text = FRAGILE.replace('object.get(data.query, "q", "")', 'data["resource-path"][2]')
    put(service, "tried", text)
    (seen,) = service.admin.call("GET", "/attestations?tenant=tried")["attestations"]
    asked = {"kind": "resource", "attestation": seen["id"], "path": "x/y/" + BOMB[3:]}
    for _ in range(pools.PATIENCE + 1):
        told = service.admin.call("POST", "/policies/explain?tenant=tried", asked)
    assert "set aside" in told["answers"][0]["error"]
    assert guest.get(path).status == 200
