"""The main path over real TLS: challenge, attestation, release; and every way in which it must be refused."""

import json

from casemate.release import session as rcar


def test_a_secret_reaches_an_attested_guest(service, found, guest):
    app = found(service)
    assert service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"the secret") == 1
    one = guest(service, app.manifest)
    asked = one.auth()
    rcar.demand_nonce(one.nonce, service.pin, asked.headers["casemate-nonce-salt"])
    assert asked.json()["extra-params"] == ""
    got = one.attest()
    assert got.status == 200, got.body
    answer = one.get(app.path)
    assert answer.status == 200, answer.body
    assert one.open(answer) == b"the secret"
    assert answer.headers["casemate-version"] == "1"
    by_cookie = service.call("GET", f"/kbs/v0/resource/{app.path}", Cookie=one.cookie)
    assert one.open(by_cookie) == b"the secret"
    newest = service.admin.decisions(3)
    assert [entry["act"] for entry in newest] == ["release", "release", "attest"]
    assert all(entry["allowed"] and entry["app"] == app.app_id for entry in newest)
    assert "the secret" not in json.dumps(newest)
