"""The local API: closed unless granted, and its evidence opens nothing at a broker."""

import base64
import hashlib
import http.client
import json
import socket
import ssl
import threading
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from casemate.boot import initdata
from casemate.crypto import selfsigned
from casemate.errors import Unavailable
from casemate.guest import localapi
from casemate.guest.attest import Attester
from casemate.guest.localapi import Api, Backend, Server
from casemate.release import session
from casemate.schema import manifest as manifests
from casemate.schema.endorsements import Endorsements
from casemate.schema.request import Request
from casemate.tee import room
from casemate.testing.broker import SIGNER, Guest, rules
from casemate.testing.tpm import FakeTpm
from casemate.wire.encoding import b64u, unb64

KEY, VOLUME, LOGIN, SECRET = (f"kbs:///app/{what}/1" for what in ("image", "volume", "registry", "secret"))
NONCE = b64u(bytes(range(32)))


def manifest(**api):
    document = {
        "apiVersion": "casemate/v1",
        "name": "web",
        "app": "sha256:" + "0" * 64,
        "brokers": [{"url": "https://broker.example", "key": "sha256:" + "0" * 64}],
        "signers": [{"key": SIGNER, "images": ["registry.example/*"]}],
        "registries": [{"prefix": "registry.example", "location": "mirror.example", "credentials": LOGIN}],
        "containers": [
            {
                "name": "web",
                "image": "registry.example/web@sha256:" + "0" * 64,
                "image_keys": [KEY],
                "ports": [{"container": 8443, "tls": True}, {"container": 8080}],
                "api": api,
            }
        ],
        "volumes": [{"name": "data", "app": "sha256:" + "0" * 64, "key": VOLUME}],
    }
    return manifests.from_builtins(document)


class World:
    """What the API stands on, with a record of what it asked for."""

    def __init__(self, **api):
        self.manifest = manifest(**api)
        self.document = initdata.document(self.manifest)
        self.tpm = FakeTpm(initdata=self.document)
        self.asked = []
        self.api = Api(
            self.manifest,
            self.manifest.containers[0],
            Backend(self.document, Attester("tpm", self.tpm.collect), self.resource, self.token, self.pin),
        )

    def resource(self, uri):
        self.asked.append(uri)
        return b"value of " + uri.encode()

    def token(self):
        self.asked.append("token")
        return "ey.the.token"

    def pin(self, port):
        self.asked.append(port)
        return "sha256:" + "cd" * 32

    def get(self, target):
        return self.api.answer("GET", target)


def test_a_listed_resource_is_served():
    world = World(resources=[SECRET])
    answer = world.get("/cdh/resource/app/secret/1")
    assert (answer.status, answer.body) == (200, b"value of " + SECRET.encode())
    assert answer.kind == "application/octet-stream"


@pytest.mark.parametrize("path", ["app/secret/2", "app/image/1", "app/volume/1", "app/registry/1"])
def test_a_resource_that_is_not_listed_is_closed(path):
    world = World(resources=[SECRET], token=True, evidence=True)
    assert world.get(f"/cdh/resource/{path}").status == 403
    assert world.asked == []


@pytest.mark.parametrize("uri", [KEY, VOLUME, LOGIN])
def test_keys_and_credentials_are_never_served_even_if_a_manifest_lists_them(uri):
    world = World()
    container = world.manifest.containers[0]
    listed = type(container)(name="web", image=container.image, api=manifests.Api(resources=(uri,)))
    api = Api(
        world.manifest, listed, Backend(b"", Attester("tpm", world.tpm.collect), world.resource, world.token, world.pin)
    )
    assert api.answer("GET", "/cdh/resource/" + uri.removeprefix("kbs:///")).status == 403
    assert world.asked == []


@pytest.mark.parametrize(
    "target",
    [
        "/aa/token?token_type=kbs",
        "/aa/evidence?runtime_data=eA&encoding=base64",
        f"/.well-known/casemate/evidence?nonce={NONCE}&port=8443",
        "/cdh/resource/app/secret/1",
    ],
)
def test_everything_is_closed_unless_granted(target):
    world = World()
    assert world.get(target).status == 403
    assert world.asked == []


def test_a_token_comes_without_its_key():
    world = World(token=True)
    assert json.loads(world.get("/aa/token?token_type=kbs").body) == {"token": "ey.the.token"}
    assert world.get("/aa/token?token_type=coco_as").status == 400


def test_evidence_binds_the_callers_data_under_a_purpose_tag():
    world = World(evidence=True)
    answer = world.get(f"/aa/evidence?runtime_data={b64u(b'mine')}&encoding=base64")
    assert answer.status == 200
    expected = session.purpose_data("local-api", b"mine")
    verified(world, json.loads(answer.body), expected)
    plain = world.get("/aa/evidence?runtime_data=mine")
    verified(world, json.loads(plain.body), expected)


def verified(world, primary, report_data):
    from casemate.schema.evidence import Evidence

    request = Request(report_data=report_data, initdata_digest=hashlib.sha256(world.document).digest())
    evidence = Evidence(tee="tpm", primary=primary)
    claims = room("tpm").verify(evidence, Endorsements(anchors=(world.tpm.anchor,)), request, datetime.now(UTC))
    assert claims.fresh


def test_service_evidence_binds_nonce_and_tls_key():
    world = World(evidence=True)
    document = json.loads(world.get(f"/.well-known/casemate/evidence?nonce={NONCE}&port=8443").body)
    assert document["tls_key"] == "sha256:" + "cd" * 32
    assert document["port"] == 8443
    assert unb64(document["initdata"]) == world.document
    data = session.purpose_data("service", bytes(range(32)) + bytes.fromhex("cd" * 32))
    verified(world, document["evidence"]["primary"], data)
    alone = json.loads(world.get(f"/.well-known/casemate/evidence?nonce={NONCE}").body)
    assert alone["port"] == 8443


@pytest.mark.parametrize("port", ["8080", "22", "0", "-1", "99999", "8443 ", "٨٤٤٣", "x"])
def test_evidence_only_for_a_tls_port_of_the_manifest(port):
    from urllib.parse import quote

    world = World(evidence=True)
    assert world.get(f"/.well-known/casemate/evidence?nonce={NONCE}&port={quote(port)}").status == 403
    assert world.asked == []


@pytest.mark.parametrize("nonce", ["", "AA", b64u(bytes(31)), b64u(bytes(33)), NONCE + "=", "!" * 43])
def test_a_nonce_of_another_form_is_a_bad_request(nonce):
    assert World(evidence=True).get(f"/.well-known/casemate/evidence?nonce={nonce}&port=8443").status == 400


def test_other_methods_and_paths():
    world = World(resources=[SECRET], token=True, evidence=True)
    assert world.api.answer("POST", "/cdh/resource/app/secret/1").status == 405
    for target in ("/", "/cdh/resource/a/b", "/cdh/resource/a/b/c/d", "/cdh/resource/../a/b", "/aa/aael", "//x"):
        assert world.get(target).status == 404
    assert world.asked == []


def test_a_broker_that_is_silent_is_503():
    world = World(resources=[SECRET])

    def silent(_):
        raise Unavailable("no broker answers")

    backend = Backend(b"", Attester("tpm", world.tpm.collect), silent, world.token, world.pin)
    api = Api(world.manifest, world.manifest.containers[0], backend)
    assert api.answer("GET", "/cdh/resource/app/secret/1").status == 503


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_request_gets_an_answer(method, target):
    world = CLOSED
    assert world.api.answer(method, target).status in (400, 403, 404, 405)
    assert world.api.answer("GET", "/" + target).status in (400, 403, 404)
    assert world.asked == []


CLOSED = World()


# Over the socket


class Caller(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self.path))


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path / "api" / "api.sock", World(resources=[SECRET]).api)
    yield tmp_path / "api" / "api.sock"
    made.close()


def test_over_the_socket(server):
    caller = Caller(server)
    caller.request("GET", "/cdh/resource/app/secret/1")
    answer = caller.getresponse()
    assert (answer.status, answer.read()) == (200, b"value of " + SECRET.encode())


@pytest.mark.parametrize(
    "raw",
    [b"GET /x HTTP/1.1\r\nA: " + b"x" * 40000, b"\r\n\r\n", b"GET / SPDY/3\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b""],
)
def test_bytes_that_are_no_request_end_the_call_and_nothing_else(server, raw):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as rude:
        rude.connect(str(server))
        try:
            rude.sendall(raw)
            rude.shutdown(socket.SHUT_WR)
            assert rude.recv(100).startswith(b"HTTP/1.1 400 ")
        except (BrokenPipeError, ConnectionResetError):
            pass
    test_over_the_socket(server)


def test_silent_callers_do_not_use_the_api_up(server, monkeypatch):
    monkeypatch.setattr(localapi, "TIMEOUT", 0.2)
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(localapi.MAX_CALLS + 4)]
    for one in silent:
        one.connect(str(server))
    test_over_the_socket(server)
    for one in silent:
        one.close()


def test_the_tls_key_is_taken_from_the_services_own_handshake(tmp_path):
    key, certificate = selfsigned_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            plain, _ = listener.accept()
            with plain, context.wrap_socket(plain, server_side=True):
                pass

        threading.Thread(target=serve, daemon=True).start()
        from casemate.crypto import pins

        der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        assert localapi.local_pin(listener.getsockname()[1]) == pins.certificate_pin(der)


def selfsigned_files(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    made = selfsigned.certificate(key, ["service.example"], datetime.now(UTC))
    (folder / "key.pem").write_bytes(selfsigned.key_pem(key))
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "key.pem", folder / "certificate.pem"


# A container's own handshake


def test_evidence_from_the_local_api_opens_nothing_at_a_broker(service, machine):
    """A container runs the key protocol by itself, with evidence from the API over what it must bind."""
    machine.secret("web/steal/1", b"the secret")
    machine.settings(
        machine.container(api={"evidence": True}, secrets=[{"resource": "kbs:///web/steal/1", "env": "X"}])
    )
    document = initdata.document(machine.manifest)
    backend = Backend(document, Attester("tpm", machine.tpm.collect), None, None, None)
    api = Api(machine.manifest, machine.manifest.containers[0], backend)
    guest = Guest(service, machine.manifest, tpm=machine.tpm)

    class Thief(Guest):
        def evidence(self):
            bound = session.report_data(self.nonce, self.jwk)
            answer = api.answer("GET", f"/aa/evidence?runtime_data={b64u(bound)}&encoding=base64")
            assert answer.status == 200
            return json.loads(answer.body)

    assert guest.handshake().status == 200  # the same guest, asked by the agent itself, is accepted
    thief = Thief(service, machine.manifest, tpm=machine.tpm)
    answer = thief.handshake()
    assert answer.status == 401
    assert any("nonce" in rule or "report" in rule for rule in rules(answer))


def test_over_the_whole_agent(machine, running):
    """A container's socket answers while the workload runs; another container has none."""
    uri = machine.secret("web/api/1", b"asked for")
    settings = machine.settings(
        machine.container(api={"resources": [uri], "token": True}),
        machine.container(name="other"),
    )
    running(settings)
    machine.host.wait_state("running")
    caller = Caller(settings.run / "containers/web/api.sock")
    caller.request("GET", "/cdh/resource/web/api/1")
    assert caller.getresponse().read() == b"asked for"
    caller.request("GET", "/aa/token?token_type=kbs")
    token = json.loads(caller.getresponse().read())["token"]
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims
    assert not (settings.run / "containers/other/api.sock").exists()
