"""Volumes: one grant at a time, one initialisation for ever, only the owning app."""

import json

import pytest

from casemate.broker import resources
from casemate.drivers.store import log as stored
from casemate.drivers.store import vaulted
from casemate.errors import Refused
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules
from casemate.wire.encoding import unb64

SIZE = 64 << 20
RECORD = {"cipher": "aegis128-random", "sectors": 1000}


def attested(service, name="data", owner=None, key=None):
    """(app, guest) of an app with one volume; `owner` is the app that the volume names (default: itself)."""
    app_id = service.admin.found("demo", "web", ("development",))["app_id"]
    from casemate.schema import manifest as manifests
    from casemate.testing.broker import App, document

    path = key or f"kbs:///{app_id[7:19]}/volume/{name}"
    volume = {"name": name, "app": owner or app_id, "key": path}
    manifest = manifests.from_builtins(document(app_id, service.pin, volumes=[volume]))
    service.admin.add_release(app_id, manifest.canonical())
    guest = Guest(service, manifest)
    assert guest.handshake().status == 200
    return App(app_id, manifest, path.removeprefix("kbs:///")), guest


def opened(guest, name="data", size=SIZE):
    got = guest.call("POST", f"/casemate/v0/volumes/{name}/open", {"size": size})
    assert got.status == 200, got.body
    return json.loads(guest.open(got))


def initialise(guest, grant, record=RECORD, name="data"):
    return guest.call("POST", f"/casemate/v0/volumes/{name}/initialised", {"grant": grant, "record": record})


def test_the_life_of_a_volume(service):
    _, guest = attested(service)
    first = opened(guest)
    assert len(unb64(first["key"])) == 32
    assert (first["initialised"], first["record"]) == (False, None)
    assert initialise(guest, first["format_grant"]).status == 200
    later = opened(guest)
    assert later == {"key": first["key"], "initialised": True, "format_grant": None, "record": RECORD}


def test_a_crash_while_formatting_may_be_repeated_with_the_newest_grant_only(service):
    _, guest = attested(service)
    first, second = opened(guest), opened(guest)
    assert first["key"] == second["key"]
    assert first["format_grant"] != second["format_grant"]
    got = initialise(guest, first["format_grant"])
    assert (got.status, rules(got)) == (403, ["volume.grant"])
    assert initialise(guest, second["format_grant"]).status == 200
    assert initialise(guest, first["format_grant"]).status == 403


def test_a_lost_answer_may_be_asked_for_again_and_a_record_never_changes(service):
    _, guest = attested(service)
    grant = opened(guest)["format_grant"]
    assert initialise(guest, grant).status == 200
    assert initialise(guest, grant).status == 200
    got = initialise(guest, grant, {"cipher": "null"})
    assert (got.status, rules(got)) == (409, ["volume.initialised"])
    assert opened(guest)["record"] == RECORD


def test_initialised_before_any_opening(service):
    _, guest = attested(service)
    assert rules(initialise(guest, "")) == ["volume.grant"]


def test_the_key_is_a_resource_of_the_app(service):
    app, guest = attested(service)
    key = unb64(opened(guest)["key"])
    assert guest.open(guest.get(app.path)) == key


def test_a_key_of_another_length_is_a_conflict(service):
    app, guest = attested(service)
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"short")
    got = guest.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
    assert (got.status, rules(got)) == (409, ["volume.key"])


def test_a_deleted_key_is_not_made_anew_under_existing_data(service):
    app, guest = attested(service)
    grant = opened(guest)["format_grant"]
    assert initialise(guest, grant).status == 200
    service.admin.delete_resource(f"kbs:///{app.path}")
    got = guest.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
    assert (got.status, rules(got)) == (409, ["volume.key"])


def test_a_volume_that_the_manifest_does_not_list(service):
    _, guest = attested(service)
    got = guest.call("POST", "/casemate/v0/volumes/other/open", {"size": SIZE})
    assert (got.status, rules(got)) == (403, ["volume.listed"])


def test_another_apps_volume(service):
    victim, mine = attested(service)
    opened(mine)
    _, thief = attested(service, owner=victim.app_id, key=f"kbs:///{victim.path}")
    got = thief.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
    assert (got.status, rules(got)) == (403, ["volume.app", "resource.owner"])
    assert rules(initialise(thief, "x")) == ["volume.app", "resource.owner"]


def test_another_apps_key_under_a_volume_of_ones_own(service):
    victim, mine = attested(service)
    opened(mine)
    _, thief = attested(service, key=f"kbs:///{victim.path}")
    got = thief.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
    assert (got.status, rules(got)) == (403, ["resource.owner"])


def test_a_revoked_release_opens_nothing(service):
    app, guest = attested(service)
    service.admin.revoke_release(app.app_id, app.digest)
    got = guest.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
    assert (got.status, rules(got)) == (403, ["release.active"])


def test_the_same_volume_name_in_two_apps(service):
    _, one = attested(service)
    _, two = attested(service)
    assert opened(one)["key"] != opened(two)["key"]


@pytest.mark.parametrize("body", [{"size": 0}, {"size": -1}, {"size": "1"}, {"size": 1 << 60}, {}, {"size": 1, "x": 2}])
def test_malformed_openings(service, body):
    _, guest = attested(service)
    assert guest.call("POST", "/casemate/v0/volumes/data/open", body).status == 400


@pytest.mark.parametrize("name", ["%00", "%ff", "Data", "-a", "a" * 64])
def test_names_that_are_no_labels(service, name):
    _, guest = attested(service)
    assert guest.call("POST", f"/casemate/v0/volumes/{name}/open", {"size": SIZE}).status == 400
    assert initialise(guest, "x", name=name).status == 400


def test_a_record_that_is_too_long(service):
    _, guest = attested(service)
    grant = opened(guest)["format_grant"]
    assert initialise(guest, grant, {"x": "y" * 70000}).status == 400


def test_without_a_token(service):
    got = service.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
    assert got.status == 401


def test_openings_are_decisions_and_carry_no_key(service):
    app, guest = attested(service)
    answer = opened(guest)
    entry = service.admin.decisions(1)[0]
    assert (entry["act"], entry["resource"], entry["app"]) == ("volume", "volume data", app.app_id)
    assert answer["key"] not in json.dumps(entry)
    assert answer["format_grant"] not in json.dumps(entry)


def test_a_volume_key_resource_can_not_be_taken_by_another_app(service):
    app, guest = attested(service)
    opened(guest)
    other = service.found()
    with pytest.raises(Refused, match=r"resource\.owner"):
        service.admin.put_resource(other.app_id, f"kbs:///{app.path}", b"x" * 32)


def entries_of(service, app):
    """(kind, fields) of the log's entries on an app."""
    with service.broker.store.read() as tx:
        found = stored.period(tx, since=0, until=1 << 52, after=-1, limit=1000, app_id=app.app_id)
    told = [(json.loads(one.entry)["kind"], service.broker.log.opened(one.id, one.sealed)[1]) for one in found]
    return [(kind, fields) for kind, fields in told]


def test_what_the_policy_does_not_allow_to_read_does_not_open_as_a_volume_either(service):
    app, guest = attested(service)
    opened(guest)
    text = "package policy\nimport rego.v1\ndefault allow := false\n"
    service.admin.call("PUT", "/policies/resource/resource-policy?tenant=demo", {"text": text})
    try:
        assert rules(guest.get(app.path)) == ["policy.resource"]
        got = guest.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
        assert (got.status, rules(got)) == (403, ["policy.resource"])
    finally:
        service.admin.call("DELETE", "/policies/resource/resource-policy?tenant=demo")
    assert guest.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE}).status == 200


def test_the_log_tells_of_a_key_that_the_broker_made_and_of_each_opening(service):
    app, guest = attested(service)
    opened(guest)
    opened(guest)
    told = entries_of(service, app)
    (made,) = [fields for kind, fields in told if kind == "resource.put"]
    assert (made["resource"], made["version"], made["volume"]) == (app.path, 1, "data")
    assert made["who"].startswith("guest#")
    given = [(fields["path"], fields["version"]) for kind, fields in told if kind == "volume"]
    assert given == [(app.path, 1)] * 2


def test_a_key_is_never_made_in_another_tenants_repository(tmp_path):
    """The settings give a repository to a tenant: another's manifest that names a key there claims nothing."""
    made = brokers.start(tmp_path, repos={"acme-repo": "acme", "own-repo": "demo"})
    try:
        made.trust()
        theirs, thief = attested(made, key="kbs:///acme-repo/volume/data")
        got = thief.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
        assert (got.status, rules(got)) == (403, ["resource.repo"])
        with made.broker.store.write() as tx, pytest.raises(Refused):
            resources.put_in(tx, made.broker, theirs.app_id, theirs.path, b"x" * 32)
        with made.broker.store.read() as tx:
            assert vaulted.owner(tx, theirs.path) is None
        _, guest = attested(made, key="kbs:///own-repo/volume/data")
        assert len(unb64(opened(guest)["key"])) == 32
        # A derived key lies nowhere and takes nothing from anybody; its path must not mislead about whose rules hold.
        _, guest = attested(made, key="kbs:///acme-repo/derived.aes-256/data")
        got = guest.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
        assert (got.status, rules(got)) == (403, ["resource.repo"])
        owner = made.found(tenant="acme")
        assert made.admin.put_resource(owner.app_id, f"kbs:///{theirs.path}", b"theirs") == 1
    finally:
        made.stop()


def test_the_policy_of_the_apps_tenant_is_asked_wherever_the_key_is(tmp_path):
    made = brokers.start(tmp_path, repos={"acme-repo": "acme", "own-repo": "demo"})
    try:
        made.trust()
        text = "package policy\nimport rego.v1\ndefault allow := false\n"
        keys = ("own-repo/derived.aes-256/1", "own-repo/volume/1", "nobodys/derived.aes-256/1", "nobodys/volume/1")
        guests = [attested(made, key=f"kbs:///{key}")[1] for key in keys]
        made.admin.call("PUT", "/policies/resource/resource-policy?tenant=acme", {"text": text})
        for guest in guests:
            opened(guest)
        made.admin.call("PUT", "/policies/resource/resource-policy?tenant=demo", {"text": text})
        for guest in guests:
            got = guest.call("POST", "/casemate/v0/volumes/data/open", {"size": SIZE})
            assert (got.status, rules(got)) == (403, ["policy.resource"])
    finally:
        made.stop()
