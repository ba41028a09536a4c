"""The log over HTTP: what everybody may fetch, what a receipt opens, whose receipts an auditor sees."""

import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.broker import journal, tokens
from casemate.crypto import jwk, pins
from casemate.drivers import brokerclient, logclient
from casemate.errors import Refused
from casemate.ledger import entry, history, merkle, note, receipt, tiles
from casemate.testing import broker as brokers
from casemate.testing import issuer
from casemate.testing.broker import Guest
from casemate.verifier import log as logs
from casemate.wire import jcs

HEADER = "casemate-receipt"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("broker"), refused_tees=())
    made.trust()
    yield made
    made.stop()


@pytest.fixture
def log(service):
    return history.parse(service.call("GET", "/casemate/v0/log/keys").json())


def fetched(service, number):
    got = service.call("GET", f"/casemate/v0/receipts/{number}")
    assert got.status == 200, got.body
    return receipt.parse(got.body)


def granted(service):
    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"hunter2hunter2")
    guest = Guest(service, app.manifest)
    return app, guest, guest.handshake()


def test_the_broker_says_whose_log_it_has(service, log):
    info = brokerclient.info(service.url, service.pin)
    assert history.parse(info["log"]) == log
    with logclient.reading(service.url, service.pin) as fetch:
        assert logs.newest(fetch, log).checkpoint.origin == log.origin


def test_a_grant_names_its_receipt_and_the_receipt_tells_all(service, log):
    app, guest, attested = granted(service)
    one = receipt.verify(fetched(service, attested.headers[HEADER]), log)
    assert (one.entry.kind, one.entry.allowed) == ("attest", True)
    got = guest.get(app.path)
    two = receipt.verify(fetched(service, got.headers[HEADER]), log)
    assert (two.entry.kind, two.entry.allowed) == ("release", True)
    told = dict(two.fields)
    assert told["app"] == app.app_id
    assert told["release"] == app.digest
    assert told["resource"].removeprefix("kbs:///") == app.path
    assert told["version"] == 1
    assert told["tee"] == "tpm"
    assert told["key"] == journal.thumbprint(guest.jwk)
    assert told["evidence"] == one.fields["evidence"]
    assert told["collateral"] == one.fields["collateral"]
    assert "release.active" in told["passed"]
    assert told["evidence"].startswith("sha256:")
    assert told["id"] == got.headers[HEADER]
    assert "hunter2" not in repr(told)


def test_the_evidence_digest_is_that_of_what_was_sent(service, log):
    app = service.found()
    guest = Guest(service, app.manifest)
    guest.auth()
    body = guest.body()
    got = guest.attest(body)
    sent = {
        "tee": "tpm",
        "primary": body["tee-evidence"]["primary_evidence"],
        "additional": "",
        "initdata": pins.digest(guest.text.encode()),
    }
    told = receipt.verify(fetched(service, got.headers[HEADER]), log).fields
    assert told["evidence"] == pins.digest(jcs.canonical(sent))


def test_a_refusal_is_an_entry_with_its_reasons(service, log):
    _, guest, _ = granted(service)
    before = checkpoint(service, log).size
    assert guest.get("other/key/1").status == 403
    assert checkpoint(service, log).size == before + 1
    since = datetime.fromtimestamp(time.time() - 60, UTC).isoformat()
    rows = service.admin.receipts(since, "2100-01-01T00:00:00Z", after=before - 1)
    found = receipt.verify(receipt.from_document(rows[0]), log)
    assert found.entry.allowed is False
    assert "resource.listed" in [failed["rule"] for failed in found.fields["failed"]]


def test_a_poll_that_hands_over_nothing_is_no_entry(service, log):
    app, guest, _ = granted(service)
    guest.get(app.path)
    before = checkpoint(service, log).size
    again = guest.get(app.path, **{"If-None-Match": '"1"'})
    assert again.status == 304
    assert HEADER not in again.headers
    assert checkpoint(service, log).size == before


def test_strangers_leave_no_entry(service, log):
    before = checkpoint(service, log).size
    guest = Guest(service, service.found().manifest)
    founded = checkpoint(service, log).size
    guest.auth()
    body = guest.body()
    body["tee-evidence"]["primary_evidence"] = {"quote": "none"}
    assert guest.attest(body).status == 401
    for _ in range(3):
        assert service.call("POST", "/kbs/v0/attest", body, Cookie="kbs-session-id=x").status == 401
    assert checkpoint(service, log).size == founded >= before


def test_a_replay_is_refused_and_the_first_receipt_stays(service, log):
    guest = Guest(service, service.found().manifest)
    guest.auth()
    cookie, body = guest.cookie, guest.body()
    first = guest.attest(body, cookie)
    again = guest.attest(body, cookie)
    assert (again.status, HEADER in again.headers) == (401, False)
    receipt.verify(fetched(service, first.headers[HEADER]), log)


def test_volumes_have_receipts_too(service, log):
    app_id = str(service.admin.found("demo", "web", ("development",))["app_id"])
    volume = {"name": "data", "app": app_id, "key": f"kbs:///vol{time.time_ns()}/key/1"}
    manifest = brokers.manifests.from_builtins(brokers.document(app_id, service.pin, volumes=[volume]))
    service.admin.add_release(app_id, manifest.canonical())
    guest = Guest(service, manifest)
    guest.handshake()
    got = guest.call("POST", "/casemate/v0/volumes/data/open", {"size": 1 << 30})
    assert got.status == 200, got.body
    told = receipt.verify(fetched(service, got.headers[HEADER]), log)
    assert told.entry.kind == "volume"
    assert "data" in told.fields["resource"]


def test_everybody_can_audit_the_whole_log(service, log):
    granted(service)
    with logclient.reading(service.url, service.pin) as fetch:
        first = logs.check(fetch, log, None, every=True)
        granted(service)
        second = logs.check(fetch, log, first.now.note, every=True)
        assert second.before == first.now.checkpoint
        assert second.now.checkpoint.size > first.now.checkpoint.size
        _, newest = logs.tail(fetch, log, 3)
    assert [entry.parse(one.entry).kind for one in newest][-1] in ("attest", "release.add")


def test_tiles_are_cut_to_size_and_never_change(service, log):
    granted(service)
    size = checkpoint(service, log).size
    data = service.call("GET", f"/casemate/v0/log/{tiles.path(0, 0, size)}")
    assert data.headers["cache-control"].endswith("immutable")
    assert len(data.body) == size * merkle.SIZE
    granted(service)
    assert service.call("GET", f"/casemate/v0/log/{tiles.path(0, 0, size)}").body == data.body
    bundle = service.call("GET", f"/casemate/v0/log/{tiles.path(None, 0, size)}").body
    leaves = b"".join(merkle.leaf(one) for one in tiles.unbundle(bundle))
    assert leaves == data.body


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("log/tile/0/000", 404),
        ("log/tile/0/000.p/255", 404),
        ("log/tile/9/000", 400),
        ("log/tile/0/0", 400),
        ("log/tile/entries/x999/999", 404),
        ("log/tile/..%2f..%2fetc", 400),
        ("receipts/" + "0" * 32, 404),
        ("receipts/x", 404),
        ("admin/receipts?since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z", 401),
    ],
)
def test_other_paths(service, path, status):
    assert service.call("GET", f"/casemate/v0/{path}").status == status


@pytest.mark.parametrize(
    "query",
    [
        "",
        "since=x&until=y",
        "since=2026-01-01T00:00:00&until=2027-01-01T00:00:00Z",
        "since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z&limit=0",
        "since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z&after=-2",
        "since=2027-01-01T00:00:00Z&until=2026-01-01T00:00:00Z",
    ],
)
def test_periods_that_cannot_be_read(service, query):
    headers = {"Authorization": f"Bearer {service.admin.token()}"}
    assert service.call("GET", f"/casemate/v0/admin/receipts?{query}", **headers).status == 400


def test_a_thumbprint_is_that_of_rfc_7638(service):
    key = ec.generate_private_key(ec.SECP256R1())
    expected = tokens.Signer(key).jwk["kid"]
    assert journal.thumbprint({**jwk.from_public_key(key.public_key()), "alg": "x", "use": "y"}) == expected
    published = {  # RFC 7638 section 3.1
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert journal.thumbprint(published) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_another_log_is_refused(service, log):
    stranger = note.Verifier("casemate-log/other", b"\1" * 32)
    other = history.History(stranger.name, (history.Key(stranger, 1),))
    with logclient.reading(service.url, service.pin) as fetch, pytest.raises(Refused):
        logs.newest(fetch, other)


def checkpoint(service, log):
    with logclient.reading(service.url, service.pin) as fetch:
        return logs.newest(fetch, log).checkpoint


def test_an_auditor_of_a_tenant_sees_that_tenants_entries_alone(service, log):
    for tenant in ("acme", "umbrella"):
        service.admin.call("POST", "/tenants", {"name": tenant})
    key = issuer.new_key("EdDSA")
    service.admin.call("POST", "/admins?tenant=acme", {"name": "kim", "role": "auditor", "key": issuer.public_pem(key)})
    now = int(time.time())
    head = {"alg": issuer.jws.of(key.public_key()).algorithm, "kid": issuer.thumbprint(key)}
    token = issuer.compact(key, head, {"aud": "KBS", "iat": now, "exp": now + 60})
    apps = {tenant: service.found(tenant=tenant) for tenant in ("acme", "umbrella")}

    def seen(query=""):
        period = "since=2026-01-01T00:00:00Z&until=2100-01-01T00:00:00Z"
        path = f"/casemate/v0/admin/receipts?{period}{query}"
        got = service.call("GET", path, Authorization=f"Bearer {token}")
        if got.status != 200:
            return got.status
        rows = [receipt.verify(receipt.from_document(row), log) for row in got.json()["receipts"]]
        return {(row.entry.kind, row.fields.get("app")) for row in rows}

    assert ("release.add", apps["acme"].app_id) in seen()
    assert ("release.add", apps["umbrella"].app_id) not in seen() | seen(f"&app={apps['umbrella'].app_id}")
    assert seen("&tenant=acme") == seen()
    assert seen("&tenant=umbrella") == 403
    rotate = service.call("POST", "/casemate/v0/admin/log/rotate", {}, Authorization=f"Bearer {token}")
    assert rotate.status == 403
