"""Two brokers on one store: any of them answers any step, a nonce is spent once for all."""

from datetime import timedelta

import pytest

from casemate.broker.assemble import assemble
from casemate.drivers import keyfiles
from casemate.errors import Unusable
from casemate.testing import broker as brokers
from casemate.testing import postgres, programs
from casemate.testing.broker import Guest, rules


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'shared.db'}"
        return
    try:
        with postgres.server() as url:
            yield url
    except programs.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture
def pair(tmp_path, store_url):
    one = brokers.start(tmp_path / "one", store=store_url)
    two_folder = tmp_path / "two"
    for name in ("master.key", "tls.key", "tls.crt", "admin.pub", "admin.key"):  # replicas share their keys
        keyfiles.write(two_folder / name, (tmp_path / "one" / name).read_bytes())
    two = brokers.start(two_folder, store=store_url)
    one.trust()
    two.vendor = one.vendor
    yield one, two
    one.stop()
    two.stop()


def test_any_replica_answers_any_step(pair):
    one, two = pair
    assert one.pin == two.pin
    app = one.found()
    two.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"shared")
    guest = Guest(one, app.manifest)
    guest.auth()
    cookie, body = guest.cookie, guest.body()
    guest.service = two
    assert guest.attest(body, cookie).status == 200
    guest.service = one
    assert guest.open(guest.get(app.path)) == b"shared"
    again = guest.attest(body, cookie)
    assert (again.status, rules(again)) == (401, ["session.replay"])
    two.admin.revoke_release(app.app_id, app.digest)
    assert rules(guest.get(app.path)) == ["release.active"]


def test_a_store_under_another_master_key_is_refused(pair, tmp_path, store_url):
    from casemate.broker import prepare

    stranger = prepare.prepare(tmp_path / "three", tmp_path / "three.key", store=store_url, port=1)
    with pytest.raises(Unusable, match="another master key"):
        assemble(stranger)


def test_a_replica_with_shorter_challenges_forgets_no_nonce_of_another(tmp_path):
    shared = {"store": f"sqlite:///{tmp_path / 'shared.db'}"}
    one = brokers.start(tmp_path / "one", challenge_seconds=3600, **shared)
    for name in ("master.key", "tls.key", "tls.crt", "admin.pub", "admin.key"):
        keyfiles.write(tmp_path / "two" / name, (tmp_path / "one" / name).read_bytes())
    two = brokers.start(tmp_path / "two", challenge_seconds=10, **shared)
    try:
        one.trust()
        two.vendor = one.vendor
        app = one.found()
        guest = Guest(one, app.manifest)
        guest.auth()
        cookie, body = guest.cookie, guest.body()
        assert guest.attest(body, cookie).status == 200
        one.clock.shift = two.clock.shift = timedelta(seconds=1000)
        assert Guest(two, app.manifest).handshake().status == 200  # which forgets what is over
        two.clock.shift = timedelta(hours=1, seconds=2000)  # and so does one whose clock is ahead
        assert Guest(two, app.manifest).handshake().status == 200
        again = guest.attest(body, cookie)
        assert (again.status, rules(again)) == (401, ["session.replay"])
    finally:
        one.stop()
        two.stop()


def test_a_revoked_key_is_worth_nothing_at_any_replica_at_once(pair, monkeypatch):
    one, two = pair
    app = one.found()
    two.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"shared")
    guest, asking = Guest(one, app.manifest), Guest(one, app.manifest)
    assert guest.handshake().status == 200
    by_cookie = {"Cookie": guest.cookie}
    path = f"/kbs/v0/resource/{app.path}"
    assert guest.get(app.path).status == one.call("GET", path, None, **by_cookie).status == 200
    asking.auth()
    for ring in one.broker.keyrings:  # one that has not looked for new keys
        monkeypatch.setattr(ring, "refresh", lambda: False)
    two.admin.call("POST", "/keys/rotate", {"revoke": True})
    for got in (guest.get(app.path), one.call("GET", path, None, **by_cookie), asking.attest()):
        assert (got.status, rules(got)) == (401, ["session.expired"])
    monkeypatch.undo()
    for ring in one.broker.keyrings:
        ring.reload()
    assert guest.handshake().status == 200
    assert guest.get(app.path).status == 200
