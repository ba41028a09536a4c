"""Versions with a window, deletion that can be taken back, derived keys, on SQLite and on PostgreSQL."""

import base64
import contextlib
import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from casemate.broker import derived, secrets
from casemate.drivers.secretsclient import Secrets
from casemate.errors import Malformed, Refused, Unusable
from casemate.testing import broker as brokers
from casemate.testing import postgres
from casemate.testing.broker import Guest, rules


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        options = {}
        if request.param == "postgresql":
            try:
                options["store"] = stack.enter_context(postgres.server())
            except Unusable as error:
                pytest.skip(str(error))
        made = brokers.start(tmp_path_factory.mktemp("broker"), **options)
        stack.callback(made.stop)
        made.trust()
        yield made


@pytest.fixture
def admin(service):
    return Secrets(service.url, service.pin, service.admin_key)


@pytest.fixture
def app(service):
    return service.found()


def attested(service, app):
    guest = Guest(service, app.manifest)
    assert guest.handshake().status == 200
    return guest


def test_the_version_before_opens_for_its_window(service, admin, app):
    uri = f"kbs:///{app.path}"
    assert admin.put(app.app_id, uri, b"one") == 1
    guest = attested(service, app)
    assert admin.put(app.app_id, uri, b"two", window=60) == 2
    newest, before = guest.get(app.path), guest.get(app.path + "?version=1")
    assert (guest.open(newest), newest.headers["casemate-version"]) == (b"two", "2")
    assert (guest.open(before), before.headers["casemate-version"]) == (b"one", "1")
    assert guest.open(guest.get(app.path, **{"Casemate-Version": "1"})) == b"one"
    told = admin.versions(uri)
    assert [(v["version"], v["state"]) for v in told["versions"]] == [(2, "newest"), (1, "opens")]
    service.clock.shift = timedelta(seconds=61)
    late = guest.get(app.path + "?version=1")
    assert late.status == 404
    assert "no version 1 that opens" in late.json()["detail"]
    assert [v["state"] for v in admin.versions(uri)["versions"]] == ["newest", "closed"]
    secrets.sweep(service.broker)
    assert [v["version"] for v in admin.versions(uri)["versions"]] == [2]
    assert guest.open(guest.get(app.path)) == b"two"


def test_a_window_of_nothing_and_the_default(service, admin, app):
    uri = f"kbs:///{app.path}"
    for value, window in ((b"one", None), (b"two", None), (b"three", 0)):
        admin.put(app.app_id, uri, value, window=window)
    assert [v["state"] for v in admin.versions(uri)["versions"]] == ["newest", "closed", "opens"]
    guest = attested(service, app)
    assert guest.get(app.path + "?version=2").status == 404
    assert guest.open(guest.get(app.path + "?version=1")) == b"one"


@pytest.mark.parametrize("wanted", ["-1", "x", "1.5", "9" * 10, "%00"])
def test_versions_that_are_no_numbers(service, admin, app, wanted):
    admin.put(app.app_id, f"kbs:///{app.path}", b"one")
    assert attested(service, app).get(f"{app.path}?version={wanted}").status == 400


def test_a_deletion_that_is_taken_back(service, admin, app):
    uri = f"kbs:///{app.path}"
    admin.put(app.app_id, uri, b"one")
    guest = attested(service, app)
    at = admin.schedule(uri, 3600)
    closed = guest.get(app.path)
    assert closed.status == 404
    assert "undelete" in closed.json()["hint"]
    assert admin.versions(uri)["purged"] == at
    assert admin.resources(app.app_id)[0]["purged"] == at
    with pytest.raises(Refused, match="to be deleted"):
        admin.put(app.app_id, uri, b"two")
    with pytest.raises(Refused, match="to be deleted"):
        admin.schedule(uri, 60)
    secrets.sweep(service.broker)
    admin.undelete(uri)
    assert guest.open(guest.get(app.path)) == b"one"
    with pytest.raises(Unusable, match="not waiting"):
        admin.undelete(uri)


def test_a_deletion_by_the_brokers_time(service, admin, app):
    uri = f"kbs:///{app.path}"
    admin.put(app.app_id, uri, b"one")
    admin.schedule(uri, 60)
    service.clock.shift = timedelta(seconds=61)
    with pytest.raises(Unusable, match="not waiting"):  # its time is over though nobody swept yet
        admin.undelete(uri)
    secrets.sweep(service.broker)
    with pytest.raises(Unusable, match="no resource"):
        admin.versions(uri)
    assert admin.put(app.app_id, uri, b"two") == 2  # versions are never used twice


def test_acts_are_in_the_log_without_values(service, admin, app):
    uri = f"kbs:///{app.path}"
    admin.put(app.app_id, uri, b"very secret")
    admin.schedule(uri, 60)
    admin.undelete(uri)
    admin.delete_resource(uri)
    told = admin.receipts("2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z", app=app.app_id)
    kinds = {json.loads(base64.b64decode(one["entry"]))["kind"] for one in told}
    assert kinds >= {"resource.put", "resource.schedule", "resource.undelete", "resource.delete"}
    assert "very secret" not in str(told)
    assert base64.b64encode(b"very secret").decode()[:14] not in str(told)


def volume_of(service, key):
    app_id = str(service.admin.found("demo", "web", ("development",))["app_id"])
    from casemate.schema import manifest as manifests

    volume = {"name": "data", "app": app_id, "key": f"kbs:///v{app_id[7:17]}/{key}/data"}
    manifest = manifests.from_builtins(brokers.document(app_id, service.pin, volumes=[volume]))
    service.admin.add_release(app_id, manifest.canonical())
    return brokers.App(app_id, manifest, volume["key"].removeprefix("kbs:///"))


def opened(guest):
    return json.loads(guest.open(guest.call("POST", "/casemate/v0/volumes/data/open", {"size": 1 << 26})))


def test_a_volume_keeps_the_key_that_it_was_made_with(service, admin):
    app = volume_of(service, "key")
    guest = attested(service, app)
    first = opened(guest)
    body = {"grant": first["format_grant"], "record": {"made": True}}
    assert guest.call("POST", "/casemate/v0/volumes/data/initialised", body).status == 200
    admin.put(app.app_id, f"kbs:///{app.path}", b"k" * 32, window=0)
    service.clock.shift = timedelta(seconds=60)
    secrets.sweep(service.broker)
    assert opened(guest)["key"] == first["key"]
    held = admin.versions(f"kbs:///{app.path}")["versions"]
    assert [(v["version"], v["volume"]) for v in held] == [(2, None), (1, "data")]
    admin.schedule(f"kbs:///{app.path}", 60)
    got = guest.call("POST", "/casemate/v0/volumes/data/open", {"size": 1 << 26})
    assert (got.status, rules(got)) == (409, ["volume.key"])


def test_a_new_volume_takes_the_newest_key(service, admin):
    app = volume_of(service, "key")
    admin.put(app.app_id, f"kbs:///{app.path}", b"1" * 32)
    admin.put(app.app_id, f"kbs:///{app.path}", b"2" * 32)
    from casemate.wire.encoding import unb64

    assert unb64(opened(attested(service, app))["key"]) == b"2" * 32


def test_a_derived_volume_key_is_the_same_again_and_on_another_app_another(service):
    app, other = volume_of(service, "derived.aes-256"), volume_of(service, "derived.aes-256")
    keys = [opened(attested(service, one))["key"] for one in (app, app, other)]
    assert keys[0] == keys[1] != keys[2]


def test_derived_resources_by_their_documented_label(service, app):
    path = "web/derived.aes-256/cache"
    app = service.found(resources=[f"kbs:///{path}", "kbs:///web/derived.ed25519/id"])
    guest = attested(service, app)
    got = guest.get(path)
    info = b"\0".join([b"casemate derived key v1", app.app_id.encode(), path.encode(), b"resource", b"aes-256"])
    root = service.broker.deriver.root
    wanted = HKDF(hashes.SHA256(), 32, b"casemate derived keys v1", info).derive(root)
    assert guest.open(got) == wanted
    assert guest.get(path, **{"If-None-Match": got.headers["etag"]}).status == 304
    assert guest.get(path + "?version=2").status == 404
    assert guest.get("web/derived.aes-256/unlisted").status == 403
    key = serialization.load_pem_private_key(guest.open(guest.get("web/derived.ed25519/id")), password=None)
    assert key.sign(b"x")


def test_nothing_is_stored_at_derived_paths(service, admin, app):
    with pytest.raises(Refused, match="derived"):
        admin.put(app.app_id, "kbs:///web/derived.aes-256/cache", b"x")
    with pytest.raises(Unusable):
        admin.schedule("kbs:///web/derived.aes-256/cache", 60)


@pytest.mark.parametrize("algorithm", sorted(derived.SIZES))
def test_every_algorithm_and_every_part_of_the_label_counts(algorithm):
    deriver, path = derived.Deriver(b"r" * 32), f"repo/derived.{algorithm}/tag"
    made = {
        deriver.key("app", path, "resource"),
        deriver.key("app", path, "volume"),
        deriver.key("app2", path, "resource"),
        deriver.key("app", path + "2", "resource"),
        derived.Deriver(b"s" * 32).key("app", path, "resource"),
    }
    assert len(made) == 5
    if not next(iter(made)).startswith(b"-----BEGIN"):
        assert {len(key) for key in made} == {derived.SIZES[algorithm]}


def test_labels_that_could_be_read_in_two_ways_do_not_exist():
    with pytest.raises(Malformed):
        derived.Deriver(b"r" * 32).raw("a\0b", "x/y/z", "resource", "aes-256", 32)
    with pytest.raises(Malformed, match="not known"):
        derived.algorithm_of("a/derived.rot13/b")
    assert derived.algorithm_of("a/key/b") is None
