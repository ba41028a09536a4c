"""A real broker on loopback, and a guest's side of the KBS protocol written from its description, not from our guest."""

import hashlib
import itertools
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.api import server
from casemate.boot import initdata
from casemate.broker import prepare
from casemate.broker.assemble import assemble
from casemate.crypto import jwe, jwk
from casemate.drivers import brokerclient, http
from casemate.schema import manifest as manifests
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.testing.tpm import FakeTpm, FakeVendor


SIGNER = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
NUMBERS = itertools.count()


class Clock:
    """The broker's time, moved by tests."""

    def __init__(self):
        self.shift = timedelta()

    def __call__(self):
        return datetime.now(UTC) + self.shift


@dataclass
class Service:
    """A running broker with its admin."""

    broker: object
    url: str
    pin: str
    clock: Clock
    admin: brokerclient.Admin
    admin_key: object
    vendor: FakeVendor = field(default_factory=FakeVendor)

    def call(self, method, path, body=None, **headers):
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return http.request(method, self.url + path, headers=headers, body=data, pin=self.pin, timeout=20)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder, **options):
    clock = Clock()
    settings = prepare.prepare(folder, folder / "admin.key", port=free_port(), threads=4, **options)
    broker = assemble(settings, clock=clock)
    running = server.server(broker)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    url = f"https://127.0.0.1:{settings.port}"
    admin = brokerclient.Admin(url, broker.pin, folder / "admin.key")

    def stop():
        running.should_exit = True
        thread.join(10)
        broker.close()

    return Service(broker, url, broker.pin, clock, admin, folder / "admin.key"), stop


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A broker with the test vendor's anchor and the reference values of its plain boot."""
    made, stop = start(tmp_path_factory.mktemp("broker"))
    made.admin.add_anchor(made.vendor.anchor)
    plain = FakeTpm(vendor=made.vendor)
    made.admin.add_reference(ReferenceValues(name="plain", tee="tpm", values=plain.measurement.values))
    yield made
    stop()


@pytest.fixture(autouse=True)
def _time(request):
    yield
    if "service" in request.fixturenames:
        request.getfixturevalue("service").clock.shift = timedelta()


def document(app, pin, *, name="web", resources=("kbs:///web/key/1",), volumes=(), **other):
    """A manifest as plain data."""
    secrets = [{"resource": r, "file": f"/run/secrets/{i}"} for i, r in enumerate(resources)]
    return {
        "apiVersion": "casemate/v1",
        "name": name,
        "app": app,
        "brokers": [{"url": "https://10.0.2.2:8443", "key": pin}],
        "signers": [{"key": SIGNER, "images": ["registry.example/web"]}],
        "containers": [
            {
                "name": "web",
                "image": "registry.example/web@sha256:" + "ab" * 32,
                "secrets": secrets,
                "mounts": [{"volume": v["name"], "path": f"/{v['name']}"} for v in volumes],
            }
        ],
        "volumes": list(volumes),
        **other,
    }


@dataclass
class App:
    """A founded app with one active release; `path` is a resource that its manifest lists, unlike any other app's."""

    app_id: str
    manifest: manifests.Manifest
    path: str

    @property
    def digest(self):
        return self.manifest.digest


def _found(service, tenant="demo", name="web", platforms=("development",), register=True, resources=None, **parts):
    path = f"web{next(NUMBERS)}/key/1"
    resources = resources or (f"kbs:///{path}",)
    app_id = service.admin.found(tenant, name, platforms)["app_id"]
    manifest = manifests.from_builtins(document(app_id, service.pin, name=name, resources=resources, **parts))
    if register:
        service.admin.add_release(app_id, manifest.canonical())
    return App(app_id, manifest, path)


@pytest.fixture(scope="session")
def found():
    """`found(service, ...)` founds an app and registers its manifest."""
    return _found


class Guest:
    """One guest: an ephemeral key, a TPM that measured its initdata, and the protocol's three calls."""

    def __init__(self, service, manifest=None, *, tpm=None, text=None, tee="tpm"):
        self.service = service
        self.tee = tee
        self.text = text if manifest is None else initdata.document(manifest).decode()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.jwk = jwk.from_public_key(self.key.public_key())
        self.tpm = tpm or FakeTpm(initdata=self.text.encode() if self.text else None, vendor=service.vendor)
        self.token = self.cookie = self.nonce = ""

    def auth(self, **changes):
        got = self.service.call(
            "POST", "/kbs/v0/auth", {"version": "0.4.0", "tee": self.tee, "extra-params": {}, **changes}
        )
        if got.status == 200:
            self.nonce = got.json()["nonce"]
            self.cookie = got.headers["set-cookie"].split(";")[0]
        return got

    def evidence(self):
        if self.tee == "sample":
            return {"svn": "1", "report_data": ""}
        bound = rfc8785.dumps({"additional-evidence": "", "nonce": self.nonce, "tee-pubkey": self.jwk})
        request = Request(
            report_data=hashlib.sha384(bound).digest(),
            initdata_digest=hashlib.sha256(self.text.encode()).digest() if self.text else None,
        )
        return self.tpm.collect(request).primary

    def body(self):
        return {
            "init-data": {"format": "toml", "body": self.text} if self.text else None,
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.jwk},
            "tee-evidence": {"primary_evidence": self.evidence(), "additional_evidence": ""},
        }

    def attest(self, body=None, cookie=None):
        got = self.service.call("POST", "/kbs/v0/attest", body or self.body(), Cookie=cookie or self.cookie)
        if got.status == 200:
            self.token = got.json()["token"]
            self.cookie = got.headers["set-cookie"].split(";")[0]
        return got

    def handshake(self):
        assert self.auth().status == 200
        return self.attest()

    def get(self, path, **headers):
        return self.service.call("GET", f"/kbs/v0/resource/{path}", Authorization=f"Bearer {self.token}", **headers)

    def open(self, response):
        return jwe.open_(json.loads(response.body), self.key)


@pytest.fixture(scope="session")
def guest():
    """`guest(service, manifest)` makes a guest."""
    return Guest


@pytest.fixture(scope="session")
def starting():
    """`starting(folder, **settings)` starts another broker: (service, stop)."""
    return start


@pytest.fixture(scope="session")
def writing():
    """`writing(app, pin, ...)`: a manifest as plain data."""
    return document


def rules(response):
    """The rules that a refusal names."""
    return [reason["rule"] for reason in json.loads(response.body)["reasons"]]


@pytest.fixture(scope="session")
def reasons():
    """`reasons(response)`: the rules that a refusal names."""
    return rules
