"""Key release from the guest's end: one broker, one key, one token; refusals are told, silence is tried again."""

import importlib
import sys
from datetime import timedelta

import pytest

from casemate.boot import initdata
from casemate.drivers import http
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.guest import attest
from casemate.guest.attest import Attester, Session
from casemate.guest.resources import Brokers
from casemate.schema.manifest import Broker
from casemate.testing.tpm import FakeTpm


class World:
    """An app with one secret, and sessions for its manifest."""

    def __init__(self, service):
        self.service = service
        self.app = service.found()
        service.admin.put_resource(self.app.app_id, f"kbs:///{self.app.path}", b"value one")
        self.uri = f"kbs:///{self.app.path}"
        self.document = initdata.document(self.app.manifest)
        self.tpm = FakeTpm(vendor=service.vendor, initdata=self.document)
        self.requests = []

    def collect(self, request):
        self.requests.append(request)
        return self.tpm.collect(request)

    def session(self, url=None, pin=None, **options):
        broker = Broker(url=url or self.service.url, key=pin or self.service.pin)
        return Session(broker, self.document, Attester("tpm", self.collect), attempts=2, backoff=0.01, **options)


@pytest.fixture
def world(service):
    return World(service)


def test_a_session_attests_once_for_many_requests(world):
    session = world.session()
    first = session.resource(world.uri)
    assert (first.value, first.version) == (b"value one", "1")
    assert session.resource(world.uri).value == b"value one"
    assert len(world.requests) == 1
    assert "value one" not in repr(first)


def test_an_unchanged_version_is_not_sent_again(world):
    session = world.session()
    first = session.resource(world.uri)
    assert session.resource(world.uri, known=first.version) is None
    world.service.admin.put_resource(world.app.app_id, world.uri, b"value two")
    assert session.resource(world.uri, known=first.version).value == b"value two"


def test_each_session_has_its_own_key(world):
    one, two = world.session(), world.session()
    one.login()
    two.login()
    assert one._key.public_key() != two._key.public_key()
    assert world.requests[0].report_data != world.requests[1].report_data


def test_an_expired_token_is_renewed(world):
    session = world.session()
    session.login()
    world.service.clock.shift = timedelta(hours=2)
    assert session.resource(world.uri).value == b"value one"
    assert len(world.requests) == 2


def test_a_revoked_release_gets_nothing_more(world):
    session = world.session()
    session.login()
    world.service.admin.revoke_release(world.app.app_id, world.app.digest)
    with pytest.raises(Refused) as refusal:
        session.resource(world.uri)
    assert "release.active" in [finding.rule for finding in refusal.value.findings]


def test_a_nonce_of_another_broker_is_refused_and_nothing_is_collected(world, monkeypatch):
    """A broker in the middle passes on the challenge of another: its nonce was not made with the pinned key."""
    real = http.Connection.request

    def relayed(self, method, path, **options):
        answer = real(self, method, path, **options)
        if path.endswith("/auth"):
            other = "sha256:" + "1" * 64
            import json

            from casemate.release import session as rules

            body = {**answer.json(), "nonce": rules.make_nonce(other, b"s" * 32)}
            answer = http.Response(200, answer.headers, json.dumps(body).encode())
        return answer

    monkeypatch.setattr(http.Connection, "request", relayed)
    with pytest.raises(Refused) as refusal:
        world.session().login()
    assert refusal.value.findings[0].rule == "session.nonce"
    assert world.requests == []


def test_the_pin_is_checked_before_anything_is_sent(world):
    with pytest.raises(Refused) as refusal:
        world.session(pin="sha256:" + "0" * 64).login()
    assert refusal.value.findings[0].rule == "tls.pin"
    assert world.requests == []


def test_silence_is_tried_again_and_then_told(world):
    with pytest.raises(Unavailable) as error:
        world.session(url="https://127.0.0.1:9").login()
    assert "127.0.0.1:9" in str(error.value)


def answer(status, body=b"{}", **headers):
    return http.Response(status, headers, body)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_without_reasons_still_has_a_finding(status):
    error = attest._error(answer(status, b'{"type":"x","detail":"no \\u001b[31m such"}'), "it", "https://b")
    assert isinstance(error, Refused)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"reasons": 5}', b'{"reasons": [1, {"rule": 5}, {}]}', b"\xff"])
def test_error_bodies_of_any_form(body):
    for status in (400, 401, 403, 404, 409, 413, 429, 500, 503):
        error = attest._error(answer(status, body), "it", "https://b")
        assert isinstance(error, Refused | Unavailable | Unusable)


def test_reasons_are_bounded_and_passes_left_out():
    import json

    reasons = [{"rule": f"r{i}", "expected": "e" * 9999, "found": "f", "result": "fail"} for i in range(500)]
    reasons[0]["result"] = "pass"
    error = attest._error(answer(403, json.dumps({"reasons": reasons}).encode()), "it", "https://b")
    assert len(error.findings) == 31
    assert len(error.findings[0].expected) == 400


@pytest.mark.parametrize("header", ["", "other=1", "kbs-session-id=" + "x" * 9000])
def test_a_challenge_without_a_cookie_is_malformed(header):
    with pytest.raises(Malformed):
        attest._cookie(answer(200, **{"set-cookie": header}))


def test_cookies_among_others():
    header = "a=b; Path=/, kbs-session-id=abc.def; Expires=Sat, 21 Nov 2026 00:00:00 GMT"
    assert attest._cookie(answer(200, **{"set-cookie": header})) == "kbs-session-id=abc.def"


def test_all_brokers_that_refuse_are_told(world):
    manifest = world.app.manifest
    brokers = Brokers(manifest, world.document, Attester("tpm", world.collect), attempts=1, backoff=0.01)
    brokers._sessions = [world.session(pin="sha256:" + "0" * 64), world.session(pin="sha256:" + "1" * 64)]
    with pytest.raises(Refused) as refusal:
        brokers.login()
    assert [finding.rule for finding in refusal.value.findings] == ["tls.pin", "tls.pin"]


def test_the_broker_that_answers_is_asked_first(world):
    brokers = Brokers(world.app.manifest, world.document, Attester("tpm", world.collect), attempts=1, backoff=0.01)
    good, silent = world.session(), world.session(url="https://127.0.0.1:9")
    brokers._sessions = [silent, good]
    assert brokers.resource(world.uri) == b"value one"
    assert brokers._sessions[0] is good


def test_no_tee_is_told(monkeypatch):
    importlib.import_module("casemate.tee.tpm.collect")
    monkeypatch.setattr(sys.modules["casemate.tee.tpm.collect"], "present", lambda: False)
    with pytest.raises(Unusable):
        attest.find_attester()


@pytest.mark.parametrize(
    ("provider", "tee"), [("sev_guest", "snp"), ("tdx_guest", "tdx"), ("other", "tpm"), ("", "tpm")]
)
def test_a_tee_is_found_before_a_tpm(monkeypatch, tmp_path, provider, tee):
    for name in ("snp", "tdx", "tpm"):
        importlib.import_module(f"casemate.tee.{name}.collect")
    tsm = importlib.import_module("casemate.tee.tsm")
    monkeypatch.setattr(tsm, "REPORTS", tmp_path if provider else tmp_path / "none")
    monkeypatch.setattr(tsm, "provider", lambda reports: provider)
    monkeypatch.setattr(sys.modules["casemate.tee.tpm.collect"], "present", lambda: True)
    assert attest.find_attester().tee == tee


def test_sample_is_never_found():
    import casemate.tee

    assert "sample" not in casemate.tee.COLLECTED
    assert casemate.tee.COLLECTED[-1] == "tpm"


def test_the_order_is_that_of_the_peers():
    import casemate.tee

    order = ["tdx", "sgx", "az-tdx-vtpm", "az-snp-vtpm", "snp", "csv", "cca", "se", "tpm"]
    known = [name for name in casemate.tee.COLLECTED if name in order]
    assert known == [name for name in order if name in casemate.tee.COLLECTED]
    assert {*casemate.tee.REPORTED, *casemate.tee.SIGNS, "tpm"} == set(casemate.tee.COLLECTED)


@pytest.mark.parametrize(("found", "tee"), [("sgx", "sgx"), ("az-tdx-vtpm", "az-tdx-vtpm"),
                                            ("az-snp-vtpm", "az-snp-vtpm"), ("", "tpm")])  # fmt: skip
def test_a_room_is_asked_where_its_sign_is(monkeypatch, tmp_path, found, tee):
    """Beside a TPM, and beside reports of the kernel that are another's; without its sign a room is not imported."""
    import casemate.tee

    names = ("tdx", "sgx", "az-tdx-vtpm", "az-snp-vtpm", "snp", "tpm")
    for name in names:
        module = importlib.import_module(f"{casemate.tee.ROOMS[name]}.collect")
        monkeypatch.setattr(sys.modules[module.__name__], "present", lambda name=name: name in (found, "tpm"))
    monkeypatch.setattr(casemate.tee, "SIGNS", dict.fromkeys(casemate.tee.SIGNS, str(tmp_path)))
    assert attest.find_attester().tee == tee
    monkeypatch.setattr(casemate.tee, "SIGNS", dict.fromkeys(casemate.tee.SIGNS, str(tmp_path / "none")))
    for name in casemate.tee.SIGNS:
        monkeypatch.delitem(sys.modules, f"{casemate.tee.ROOMS[name]}.collect", raising=False)
    assert attest.find_attester().tee == "tpm"
    assert not any(f"{casemate.tee.ROOMS[name]}.collect" in sys.modules for name in casemate.tee.SIGNS)


def test_a_room_that_the_image_does_not_carry_is_passed_over(monkeypatch, tmp_path):
    import casemate.tee

    importlib.import_module("casemate.tee.tpm.collect")
    monkeypatch.setattr(sys.modules["casemate.tee.tpm.collect"], "present", lambda: True)
    monkeypatch.setattr(casemate.tee, "COLLECTED", ("gone", "tpm"))
    monkeypatch.setattr(casemate.tee, "ROOMS", casemate.tee.ROOMS | {"gone": "casemate.tee.gone"})
    assert attest.find_attester().tee == "tpm"


def test_a_volume_is_initialised_once(world, service):
    volume = {"name": "data", "app": None, "key": "kbs:///vol/key/1"}
    app_id = str(service.admin.found("t", "vol", ("development",))["app_id"])
    from casemate.schema import manifest as manifests
    from casemate.testing import broker as brokers

    listed = brokers.document(app_id, service.pin, name="vol", volumes=[{**volume, "app": app_id}])
    manifest = manifests.from_builtins(listed)
    service.admin.add_release(app_id, manifest.canonical())
    world.document = initdata.document(manifest)
    world.tpm.initdata = world.document
    session = world.session()
    first = session.open_volume("data", 64 << 20)
    assert (first["initialised"], first["record"]) == (False, None)
    session.volume_initialised("data", first["format_grant"], {"version": 1})
    again = session.open_volume("data", 64 << 20)
    assert (again["initialised"], again["record"], again["format_grant"]) == (True, {"version": 1}, None)
    assert again["key"] == first["key"]
