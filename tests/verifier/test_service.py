"""A stranger's check against a real TLS service: accepted when all holds, and each way to cheat named by its rule."""

import json
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from examples.demo.service import signing_key, tls_pair

from casemate.boot import initdata
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.release.session import purpose_data
from casemate.schema.app import AppStatement, Founding, Release
from casemate.schema.manifest import from_builtins
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.testing.tpm import FakeTpm, FakeVendor
from casemate.verifier import service
from casemate.verifier.trust import Trust, from_document
from casemate.wire.encoding import b64, unb64u

FOUNDING = Founding(tenant="demo", name="web", founded="2026-11-21T00:00:00Z", salt="00" * 16)
PIN = "sha256:" + "ab" * 32
MANIFEST = from_builtins(
    {
        "apiVersion": "casemate/v1",
        "name": "web",
        "app": FOUNDING.app_id,
        "brokers": [{"url": "https://broker.example:8443", "key": PIN}],
        "signers": [{"key": signing_key()[1], "images": ["registry.example/demo/*"]}],
        "containers": [{"name": "web", "image": "registry.example/demo/web@sha256:" + "1" * 64}],
    }
)
DOCUMENT = initdata.document(MANIFEST)


class TrustOf(Trust):
    """A trust file whose broker's statement is at hand; asking a real broker is tested with the broker."""

    def statement(self, app_id):
        releases = (Release(manifest_digest=self.digest, state=self.state, registered="2026-11-21T00:00:00Z"),)
        platforms = ("development",)
        return AppStatement(app_id=app_id, founding=FOUNDING, releases=releases, platforms=platforms)

    digest = MANIFEST.digest
    state = "active"


def trust_of(tpm, *, digest=MANIFEST.digest, state="active", values=None):
    reference = ReferenceValues(name="guest", tee="tpm", values=values or dict(tpm.measurement.values))
    trust = TrustOf("https://broker.example:8443", PIN, (tpm.anchor,), (reference,))
    object.__setattr__(trust, "digest", digest)
    object.__setattr__(trust, "state", state)
    return trust


@pytest.fixture
def tpm():
    return FakeTpm(initdata=DOCUMENT, vendor=FakeVendor())


@pytest.fixture
def serve(tmp_path):
    """Start TLS services that answer with evidence; `bound` is the pin that the guest binds (None: its own)."""
    running = []

    def start(tpm, *, bound=None, status=200, spoil=None):
        _, combined = tls_pair()
        pem = tmp_path / f"{len(running)}.pem"
        pem.write_bytes(combined)
        own = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                nonce = unb64u(parse_qs(urlsplit(self.path).query)["nonce"][0])
                pin = bytes.fromhex((bound or own[0]).removeprefix("sha256:"))
                evidence = tpm.collect(Request(report_data=purpose_data("service", nonce + pin)))
                answer = {
                    "evidence": {"tee": evidence.tee, "primary": evidence.primary, "additional": ""},
                    "initdata": b64(DOCUMENT),
                }
                body = spoil(answer) if spoil else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        endpoint = f"127.0.0.1:{server.server_port}"
        from casemate.drivers import tlspeer

        own.append(tlspeer.pin("127.0.0.1", server.server_port))
        return endpoint

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def failed(verdict):
    return {f.rule for f in verdict.decision.findings if not f.ok}


def test_accepted(tpm, serve):
    verdict = service.judge(service.ask(serve(tpm)), trust_of(tpm), FOUNDING.app_id)
    assert failed(verdict) == set()
    assert verdict.decision.allowed
    page = service.as_json(verdict)
    assert page["verdict"] == "accepted"
    assert page["app"] == {"id": FOUNDING.app_id, "tenant": "demo", "name": "web"}
    assert page["manifest"]["digest"] == MANIFEST.digest
    assert page["memory_encrypted"] is False
    json.dumps(page)


def test_a_proxy_with_its_own_key_is_refused(tpm, serve):
    """The host terminates TLS itself and passes the guest's evidence on: the guest bound another key."""
    verdict = service.judge(service.ask(serve(tpm, bound="sha256:" + "cd" * 32)), trust_of(tpm), FOUNDING.app_id)
    assert "tpm.quote.nonce" in failed(verdict)
    assert verdict.claims is None


def test_another_app_is_refused(tpm, serve):
    assert "service.app" in failed(service.judge(service.ask(serve(tpm)), trust_of(tpm), "sha256:" + "9" * 64))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"state": "revoked"}, "release.active"),
        ({"digest": "sha256:" + "8" * 64}, "release.active"),
        ({"values": {"pcr4": "00" * 32, "pcr9": "00" * 32}}, "measurement.pcr4"),
    ],
)
def test_appraisal_rules_are_applied(tpm, serve, changes, rule):
    assert rule in failed(service.judge(service.ask(serve(tpm)), trust_of(tpm, **changes), FOUNDING.app_id))


def test_another_vendor_is_refused(tpm, serve):
    verdict = service.judge(service.ask(serve(tpm)), trust_of(FakeTpm(vendor=FakeVendor())), FOUNDING.app_id)
    assert not verdict.decision.allowed
    assert "tpm.ak.chain" in failed(verdict)


def test_an_old_answer_is_refused(tpm, serve):
    endpoint = serve(tpm)
    old = service.ask(endpoint)
    new = service.Answer(old.evidence, old.initdata, old.tls_pin, b"n" * 32)
    assert "tpm.quote.nonce" in failed(service.judge(new, trust_of(tpm), FOUNDING.app_id, datetime.now(UTC)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"not json",
        lambda _: b"{}",
        lambda a: json.dumps({**a, "initdata": 7}).encode(),
        lambda a: json.dumps({**a, "evidence": {"tee": "tpm"}}).encode(),
        lambda a: json.dumps({**a, "initdata": "!"}).encode(),
    ],
)
def test_malformed_answers(tpm, serve, spoil):
    with pytest.raises(Malformed):
        service.ask(serve(tpm, spoil=spoil))


def test_unusable_services(tpm, serve):
    with pytest.raises(Unusable, match="HTTP 403"):
        service.ask(serve(tpm, status=403))
    with pytest.raises(Unusable, match="HOST:PORT"):
        service.ask("nowhere")
    with pytest.raises(Unavailable):
        service.ask("127.0.0.1:1")


@pytest.mark.parametrize("port", ["0", "65536", "99999999", "\u0663", "x"])
def test_a_port_that_is_none(port):
    with pytest.raises(Unusable, match="HOST:PORT"):
        service.ask(f"127.0.0.1:{port}")


@pytest.mark.parametrize(("stale", "accepted"), [(1, True), (3, True), (4, False)])
def test_a_key_that_changes_is_asked_again(tpm, serve, monkeypatch, stale, accepted):
    """The server changed its key between the pin and the question: three more tries, then a refusal."""
    endpoint = serve(tpm)
    real, asked = service.tlspeer.pin, []

    def pin(host, port):
        asked.append(port)
        return PIN if len(asked) <= stale else real(host, port)

    monkeypatch.setattr(service.tlspeer, "pin", pin)
    if accepted:
        assert service.judge(service.ask(endpoint), trust_of(tpm), FOUNDING.app_id).decision.allowed
    else:
        with pytest.raises(Refused, match=r"tls\.pin"):
            service.ask(endpoint)
    assert len(asked) == min(stale + 1, 4)


def test_trust_file_round_trip_and_errors(tpm):
    trust = trust_of(tpm)
    document = json.loads(json.dumps(trust.as_document()))
    again = from_document(document)
    assert (again.anchors, again.references, again.broker_pin) == (trust.anchors, trust.references, PIN)
    for broken in ({}, {**document, "anchors": []}, {**document, "broker": {"url": "x", "pin": "sha256:1"}}):
        with pytest.raises(Malformed):
            from_document(broken)
    with pytest.raises(Malformed):
        from_document({**document, "reference_values": [msgspec.to_builtins({"name": "x"})]})
