"""Leases: given by attesting and renewed so, ended by time, by a revocation, by an admin; bounded by number."""

from datetime import timedelta

import pytest

from casemate.broker import leases, secrets
from casemate.drivers.secretsclient import Secrets
from casemate.drivers.store import log as stored
from casemate.errors import Unusable
from casemate.testing.broker import Guest, rules


@pytest.fixture
def admin(service):
    return Secrets(service.url, service.pin, service.admin_key)


@pytest.fixture
def app(service, admin):
    made = service.found()
    admin.put(made.app_id, f"kbs:///{made.path}", b"value")
    return made


def attested(service, app, **headers):
    guest = Guest(service, app.manifest)
    guest.auth()
    answer = service.call("POST", "/kbs/v0/attest", guest.body(), Cookie=guest.cookie, **headers)
    if answer.status == 200:
        guest.token = answer.json()["token"]
    return guest, answer


def told(service, app):
    """As an admin sees them, whose own clock is not shifted."""
    return leases.listing(service.broker, app_id=app.app_id, tenant=None, limit=100)


def live(service, app):
    return [one for one in told(service, app) if one["state"] == "live"]


def test_each_answer_says_how_long(service, admin, app):
    guest, answer = attested(service, app)
    lease = answer.headers["casemate-lease-id"]
    assert answer.headers["casemate-lease"] == "600"
    got = guest.get(app.path)
    assert 590 <= int(got.headers["casemate-lease"]) <= 600
    service.clock.shift = timedelta(seconds=200)
    assert 390 <= int(guest.get(app.path).headers["casemate-lease"]) <= 400
    found = told(service, app)
    assert [(one["lease"], one["state"], one["tee"]) for one in found] == [(lease, "live", "tpm")]


def test_attesting_anew_renews_the_lease_that_is_named_and_no_other(service, admin, app):
    other = service.found()
    _, first = attested(service, app)
    lease = first.headers["casemate-lease-id"]
    service.clock.shift = timedelta(seconds=300)
    _, second = attested(service, app, **{"Casemate-Lease-Id": lease})
    assert second.headers["casemate-lease-id"] == lease
    assert len(live(service, app)) == 1
    _, third = attested(service, app)
    assert third.headers["casemate-lease-id"] != lease
    _, foreign = attested(service, other, **{"Casemate-Lease-Id": lease})
    assert foreign.headers["casemate-lease-id"] != lease
    service.clock.shift = timedelta(seconds=2000)
    _, late = attested(service, app, **{"Casemate-Lease-Id": lease})
    assert late.headers["casemate-lease-id"] != lease


@pytest.mark.parametrize("name", ["", "x", "0" * 31, "A" * 32, "0" * 33, "' or 1=1"])
def test_names_that_are_none(service, app, name):
    _, answer = attested(service, app, **{"Casemate-Lease-Id": name})
    assert answer.status == 200


def test_an_admin_ends_leases_and_the_guest_attests_anew(service, admin, app):
    assert admin.leases(app.app_id) == []
    guest, _ = attested(service, app)
    other, _ = attested(service, service.found())
    assert admin.end_leases(app=app.app_id, tee="snp") == 0
    assert admin.end_leases(app=app.app_id) == 1
    got = guest.get(app.path)
    assert (got.status, rules(got)) == (401, ["lease.live"])
    assert [one["why"] for one in told(service, app)] == ["admin"]
    again, _ = attested(service, app)
    assert again.open(again.get(app.path)) == b"value"
    assert other.get("no/such/thing").status == 403  # not 401: its lease lives


def test_a_revoked_release_ends_its_leases_alone(service, admin, app):
    guest, _ = attested(service, app)
    service.admin.revoke_release(app.app_id, app.digest)
    assert [one["why"] for one in told(service, app)] == ["release.revoke"]
    got = guest.get(app.path)
    assert (got.status, rules(got)) == (403, ["release.active"])
    _, refused = attested(service, app)
    assert refused.status == 403
    assert not live(service, app)


def test_other_platforms_end_leases(service, admin, app):
    attested(service, app)
    service.admin.allow(app.app_id, ("production",))
    assert [one["why"] for one in told(service, app)] == ["app.platforms"]


def test_at_most_so_many_holders(service, admin, app):
    admin.set_holders(app.app_id, 2)
    _, answer = attested(service, app)
    attested(service, app)
    guest, refused = attested(service, app)
    assert (refused.status, rules(refused)) == (403, ["lease.holders"])
    assert guest.get(app.path).status == 401
    lease = answer.headers["casemate-lease-id"]
    first, renewed = attested(service, app, **{"Casemate-Lease-Id": lease})
    assert renewed.status == 200  # who has one may renew it
    assert first.call("DELETE", "/casemate/v0/lease").status == 200
    assert attested(service, app)[1].status == 200  # there is a place again
    assert attested(service, app)[1].status == 403
    admin.set_holders(app.app_id, None)
    assert attested(service, app)[1].status == 200
    with pytest.raises(Unusable):
        admin.set_holders(app.app_id, 0)


def test_many_at_the_same_moment_get_no_more_than_there_are_places(service, admin, app):
    from concurrent.futures import ThreadPoolExecutor

    admin.set_holders(app.app_id, 2)
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _: attested(service, app)[1].status, range(8)))
    assert statuses.count(200) == 2
    assert set(statuses) <= {200, 403, 503}
    assert len(live(service, app)) == 2


def test_a_place_is_free_when_its_lease_is_over(service, admin, app):
    admin.set_holders(app.app_id, 1)
    assert attested(service, app)[1].status == 200
    assert attested(service, app)[1].status == 403
    service.clock.shift = timedelta(seconds=601)
    assert attested(service, app)[1].status == 200


def test_leases_are_forgotten_after_a_day(service, admin, app):
    attested(service, app)
    service.clock.shift = timedelta(hours=25)
    secrets.sweep(service.broker)
    assert told(service, app) == []


def test_a_lease_is_given_back_only_by_who_has_it(service, admin, app):
    attested(service, app)
    stranger, _ = attested(service, service.found())
    assert stranger.call("DELETE", "/casemate/v0/lease").status == 200
    assert len(live(service, app)) == 1
    assert service.call("DELETE", "/casemate/v0/lease").status == 401


def test_a_lease_moves_to_the_key_that_renews_it(service, admin, app):
    """Two guests that share a lease's id are never both its holder."""
    admin.set_holders(app.app_id, 1)
    first, answer = attested(service, app)
    named = {"Casemate-Lease-Id": answer.headers["casemate-lease-id"]}
    assert first.open(first.get(app.path)) == b"value"
    second, _ = attested(service, app, **named)
    assert second.open(second.get(app.path)) == b"value"
    got = first.get(app.path)
    assert (got.status, rules(got)) == (401, ["lease.live"])
    assert first.call("DELETE", "/casemate/v0/lease").status == 200  # which is no longer its own
    assert second.get(app.path).status == 200
    third, _ = attested(service, app, **named)  # the first one again, with its new key
    assert (third.get(app.path).status, second.get(app.path).status) == (200, 401)
    assert len(live(service, app)) == 1


def test_a_token_without_a_lease_takes_no_place_and_opens_nothing(service, admin, app):
    admin.set_holders(app.app_id, 1)
    guest, _ = attested(service, app)
    other, answer = attested(service, app, **{"Casemate-Lease-Id": "none"})
    assert (answer.status, "casemate-lease-id" in answer.headers) == (200, False)
    assert other.get(app.path).status == 401
    assert guest.get(app.path).status == 200
    assert len(live(service, app)) == 1


def test_a_lease_that_is_given_back_is_an_entry(service, admin, app):
    guest, answer = attested(service, app)
    for _ in range(2):
        assert guest.call("DELETE", "/casemate/v0/lease").status == 200
    with service.broker.store.read() as tx:
        found = stored.period(tx, since=0, until=1 << 52, after=-1, limit=1000, app_id=app.app_id)
    told = [service.broker.log.opened(one.id, one.sealed)[1] for one in found if b"lease.release" in one.entry]
    assert [one["lease"] for one in told] == [answer.headers["casemate-lease-id"]]
    assert told[0]["who"].startswith("guest#")
