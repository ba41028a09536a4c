"""Our guest's client against this broker, with real TLS on both ends."""

from datetime import timedelta

import pytest

from casemate.boot import initdata
from casemate.errors import Refused, Unavailable
from casemate.guest.attest import Attester, Session
from casemate.schema.manifest import Broker
from casemate.testing.broker import document
from casemate.testing.tpm import FakeTpm


def session(service, manifest, **changes):
    text = initdata.document(manifest)
    tpm = FakeTpm(initdata=text, vendor=service.vendor, **changes)
    return Session(
        Broker(url=service.url, key=service.pin), text, Attester("tpm", tpm.collect), attempts=2, backoff=0.01
    )


def test_secrets_polls_and_a_new_version(service):
    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"one")
    guest = session(service, app.manifest)
    uri = f"kbs:///{app.path}"
    first = guest.resource(uri)
    assert (first.value, first.version) == (b"one", "1")
    assert guest.resource(uri, known="1") is None
    service.admin.put_resource(app.app_id, uri, b"two")
    assert guest.resource(uri, known="1").value == b"two"
    guest.close()


def test_an_expired_token_is_renewed_by_attesting_again(service):
    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"one")
    guest = session(service, app.manifest)
    before = guest.login()
    service.clock.shift = timedelta(seconds=400)
    assert guest.resource(f"kbs:///{app.path}").value == b"one"
    assert guest.login() != before


def test_a_volume(service):
    app_id = service.admin.found("demo", "web", ("development",))["app_id"]
    from casemate.schema import manifest as manifests

    volume = {"name": "data", "app": app_id, "key": f"kbs:///{app_id[7:17]}/volume/data"}
    manifest = manifests.from_builtins(document(app_id, service.pin, volumes=[volume]))
    service.admin.add_release(app_id, manifest.canonical())
    guest = session(service, manifest)
    opened = guest.open_volume("data", 1 << 26)
    guest.volume_initialised("data", opened["format_grant"], {"made": True})
    again = session(service, manifest).open_volume("data", 1 << 26)
    assert (again["key"], again["initialised"], again["record"]) == (opened["key"], True, {"made": True})


def test_refusals_arrive_with_their_reasons(service):
    app = service.found()
    with pytest.raises(Refused) as refusal:
        session(service, app.manifest, initrd=b"another").login()
    assert [f.rule for f in refusal.value.findings] == ["measurement.pcr9"]
    service.admin.revoke_release(app.app_id, app.digest)
    with pytest.raises(Refused) as refusal:
        session(service, app.manifest).login()
    assert [f.rule for f in refusal.value.findings] == ["release.active"]


def test_a_broker_that_is_down(service):
    app = service.found()
    text = initdata.document(app.manifest)
    nobody = Broker(url="https://127.0.0.1:1", key=service.pin)
    with pytest.raises(Unavailable, match="refused the connection"):
        Session(nobody, text, Attester("tpm", FakeTpm().collect), attempts=2, backoff=0.01).login()
