"""What a broker remembers between requests never outlives what it was: each act counts at the next request."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest

from casemate.broker import leases
from casemate.broker.assemble import assemble
from casemate.broker.refusals import Unauthenticated
from casemate.broker.tokens import Signer
from casemate.drivers.secretsclient import Secrets
from casemate.drivers.store import registry
from casemate.schema.reference import ReferenceValues
from casemate.testing.broker import Guest, rules
from casemate.testing.tpm import FakeTpm, FakeVendor

HEAD = "package policy\nimport rego.v1\n"
NO, YES = HEAD + "default allow := false\n", HEAD + "default allow := true\n"


@pytest.fixture
def admin(service):
    return Secrets(service.url, service.pin, service.admin_key)


@pytest.fixture
def app(service, admin):
    found = service.found(tenant="acme")
    admin.put(found.app_id, f"kbs:///{found.path}", b"value")
    return found


@pytest.fixture
def guest(service, app):
    """A guest that was given its resource twice: all that is remembered of it is remembered."""
    made = Guest(service, app.manifest)
    assert made.handshake().status == 200
    for _ in range(2):
        assert made.open(made.get(app.path)) == b"value"
    return made


def test_a_revoked_release(service, app, guest):
    service.admin.revoke_release(app.app_id, app.digest)
    assert "release.active" in rules(guest.get(app.path))
    assert rules(guest.handshake()) == ["release.active"]


def test_a_release_that_another_process_revoked(service, app, guest):
    other = assemble(service.broker.settings, clock=service.clock)
    try:
        session = other.signer.session(guest.token, service.clock())
        assert session == service.broker.signer.session(guest.token, service.clock())
        with other.store.write() as tx:
            assert registry.revoke_release(tx, app.app_id, app.digest, service.clock())
    finally:
        other.close()
    assert rules(guest.get(app.path)) == ["release.active"]


def test_a_platform_that_is_not_allowed_any_more(service, app, guest):
    service.admin.allow(app.app_id, ("production",))
    assert "platform.class" in rules(guest.get(app.path))


def test_a_policy_that_is_set_changed_and_taken_back(service, app, guest):
    where = "/policies/resource/resource-policy?tenant=acme"
    try:
        for text, wanted in ((NO, 403), (YES, 200), (NO, 403)):
            service.admin.call("PUT", where, {"text": text})
            for _ in range(2):
                assert guest.get(app.path).status == wanted
    finally:
        service.admin.call("DELETE", where)
    assert guest.open(guest.get(app.path)) == b"value"


def test_an_answer_of_a_policy_is_one_attestations_and_one_paths(service, admin, app, guest):
    where = "/policies/resource/resource-policy?tenant=acme"
    path = app.path
    text = HEAD + f'default allow := false\nallow if data["resource-path"] == {json.dumps(path.split("/"))}\n'
    other = path.rsplit("/", 1)[0] + "/other"
    try:
        service.admin.call("PUT", where, {"text": text})
        for _ in range(2):
            assert guest.get(path).status == 200
            assert guest.get(other).status == 403
    finally:
        service.admin.call("DELETE", where)


def test_a_resource_that_is_replaced_closed_opened_and_deleted(service, admin, app, guest):
    uri = f"kbs:///{app.path}"
    assert admin.put(app.app_id, uri, b"newer") == 2
    assert guest.open(guest.get(app.path)) == b"newer"
    admin.schedule(uri, 3600)
    assert guest.get(app.path).status == 404
    admin.undelete(uri)
    assert guest.open(guest.get(app.path)) == b"newer"
    admin.delete_resource(uri)
    assert guest.get(app.path).status == 404


def test_a_lease_that_ended(service, app, guest):
    leases.end(service.broker, who="local", app_id=app.app_id)
    assert rules(guest.get(app.path)) == ["lease.live"]


def test_time_that_passes(service, app, guest):
    token = guest.token
    service.clock.shift = timedelta(hours=1)
    assert rules(guest.get(app.path)) == ["session.expired"]
    with pytest.raises(Unauthenticated):
        service.broker.signer.session(token, service.clock())


def test_a_key_that_is_retired_takes_its_tokens_along(service, app, guest):
    service.admin.call("POST", "/keys/rotate", {"revoke": True})
    for _ in range(2):
        assert rules(guest.get(app.path)) == ["session.token"]


def test_a_token_that_was_signed_here_says_what_reading_it_says(service, guest):
    found = service.broker.signer.session(guest.token, service.clock())
    signer: Signer = service.broker.signer.current
    key = service.broker.signer.ring.current().name
    assert msgspec.structs.replace(signer._verified(guest.token), key=key) == found
    for change in (guest.token[:-8] + "AAAAAAAA", guest.token + "A", guest.token.replace(".", "..", 1)):
        with pytest.raises(Unauthenticated):
            service.broker.signer.session(change, service.clock())


def test_trust_in_a_vendor_that_is_new(service):
    vendor = FakeVendor()
    app = service.found()
    for status in (401, 200):
        for _ in range(2):
            assert Guest(service, app.manifest, tpm=FakeTpm(vendor=vendor)).handshake().status == status
        service.admin.add_anchor(vendor.anchor)


def test_a_reference_value_that_is_replaced(service):
    app = service.found()
    guest = Guest(service, app.manifest)
    assert guest.handshake().status == 200
    plain = ReferenceValues(name="plain", tee="tpm", values=guest.tpm.measurement.values)
    service.admin.add_reference(msgspec.structs.replace(plain, values={**plain.values, "pcr4": "ff" * 32}))
    try:
        assert Guest(service, app.manifest).handshake().status == 403
    finally:
        service.admin.add_reference(plain)
    assert Guest(service, app.manifest).handshake().status == 200
