"""A broker for tests on loopback, in this process, and a guest's side of the KBS protocol.

The guest is written from the protocol's description, not from our guest, so that the two can't be wrong together.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette

from casemate.api import server
from casemate.api.answers import Intake
from casemate.boot import initdata
from casemate.broker import prepare
from casemate.broker.assemble import Broker, assemble
from casemate.crypto import jwe, jwk
from casemate.drivers import brokerclient, http
from casemate.drivers.store import accounts
from casemate.schema import manifest as manifests
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.testing.tpm import FakeTpm, FakeVendor

_NUMBERS = itertools.count()
SIGNER = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


class Clock:
    """The broker's time, moved by tests."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def __call__(self) -> datetime:
        """The time that the broker believes."""
        return datetime.now(UTC) + self.shift


@dataclass
class App:
    """A founded app; `path` is a resource that its manifest lists, unlike any other app's."""

    app_id: str
    manifest: manifests.Manifest
    path: str

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return self.manifest.digest


@dataclass
class Service:
    """A running broker with its admin, and a TPM vendor that it trusts."""

    broker: Broker
    clock: Clock
    admin: brokerclient.Admin
    admin_key: Path
    stop: Callable[[], None]
    intake: Intake
    app: Starlette
    server: uvicorn.Server
    vendor: FakeVendor = field(default_factory=FakeVendor)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://127.0.0.1:{self.broker.settings.port}"

    @property
    def pin(self) -> str:
        """The pin of its TLS key."""
        return self.broker.pin

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> http.Response:
        """One request; a body that is not bytes goes as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return http.request(method, self.url + path, headers=headers, body=data, pin=self.pin, timeout=20)

    def trust(self) -> None:
        """Trust the vendor, and accept what its TPM measures in a plain boot."""
        self.admin.add_anchor(self.vendor.anchor)
        plain = FakeTpm(vendor=self.vendor)
        self.admin.add_reference(ReferenceValues(name="plain", tee="tpm", values=plain.measurement.values))

    def found(
        self,
        tenant: str = "demo",
        name: str = "web",
        *,
        platforms: tuple[str, ...] = ("development",),
        register: bool = True,
        resources: Iterable[str] = (),
        **parts: Any,
    ) -> App:
        """Found an app; with `register` its manifest is an active release."""
        path = f"web{next(_NUMBERS)}/key/1"
        app_id = str(self.admin.found(tenant, name, platforms)["app_id"])
        listed = tuple(resources) or (f"kbs:///{path}",)
        manifest = manifests.from_builtins(document(app_id, self.pin, name=name, resources=listed, **parts))
        if register:
            self.admin.add_release(app_id, manifest.canonical())
        return App(app_id, manifest, path)


def start(folder: Path, **options: Any) -> Service:
    """A broker on the keys and the store in `folder`, which are made when absent."""
    clock = Clock()
    given = {"threads": 4, "guest_reasons": "full", **options}
    settings = prepare.prepare(folder, folder / "admin.key", port=_free_port(), **given)
    broker = assemble(settings, clock=clock)
    with broker.store.write() as tx:  # no act of an admin, so that a test's log begins with its own
        if accounts.tenant(tx, None) is None:
            accounts.set_tenant(tx, None, '{"unsigned_references":true}', clock())
    running = server.server(broker)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.01)

    def stop() -> None:
        running.should_exit = True
        thread.join(15)
        broker.close()

    admin = brokerclient.Admin(f"https://127.0.0.1:{settings.port}", broker.pin, folder / "admin.key")
    served: Starlette = running.config.loaded_app
    return Service(broker, clock, admin, folder / "admin.key", stop, served.state.intake, served, running)


def document(
    app: str,
    pin: str,
    *,
    name: str = "web",
    resources: Iterable[str] = (),
    volumes: Iterable[dict[str, Any]] = (),
    **other: Any,
) -> dict[str, Any]:
    """A manifest as plain data."""
    container = {
        "name": "web",
        "image": "registry.example/web@sha256:" + "ab" * 32,
        "secrets": [{"resource": r, "file": f"/run/secrets/{i}"} for i, r in enumerate(resources)],
        "mounts": [{"volume": v["name"], "path": f"/{v['name']}"} for v in volumes],
    }
    return {
        "apiVersion": "casemate/v1",
        "name": name,
        "app": app,
        "brokers": [{"url": "https://10.0.2.2:8443", "key": pin}],
        "signers": [{"key": SIGNER, "images": ["registry.example/web"]}],
        "containers": [container],
        "volumes": list(volumes),
        **other,
    }


class Guest:
    """One guest: an ephemeral key, a TPM that measured its initdata, and the protocol's three calls."""

    def __init__(
        self,
        service: Service,
        manifest: manifests.Manifest | None = None,
        *,
        tpm: FakeTpm | None = None,
        text: str | None = None,
        tee: str = "tpm",
    ) -> None:
        self.service, self.tee = service, tee
        self.text = text if manifest is None else initdata.document(manifest).decode()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.jwk = jwk.from_public_key(self.key.public_key())
        self.tpm = tpm or FakeTpm(vendor=service.vendor)
        self.tpm.initdata = self.text.encode() if self.text is not None else None
        self.token = self.cookie = self.nonce = ""

    def auth(self, **changes: Any) -> http.Response:
        """Ask for a challenge."""
        body = {"version": "0.4.0", "tee": self.tee, "extra-params": {}, **changes}
        got = self.service.call("POST", "/kbs/v0/auth", body)
        if got.status == 200:
            self.nonce = str(got.json()["nonce"])
            self.cookie = got.headers["set-cookie"].split(";")[0]
        return got

    def evidence(self) -> dict[str, Any]:
        """Evidence for the nonce at hand (RFC 8785, then SHA-384)."""
        bound = rfc8785.dumps({"additional-evidence": "", "nonce": self.nonce, "tee-pubkey": self.jwk})
        data = hashlib.sha384(bound).digest()
        if self.tee == "sample":
            from casemate.wire.encoding import b64

            return {"svn": "1", "report_data": b64(data)}
        digest = hashlib.sha256(self.text.encode()).digest() if self.text is not None else None
        return self.tpm.collect(Request(report_data=data, initdata_digest=digest)).primary

    def body(self) -> dict[str, Any]:
        """The attestation message."""
        return {
            "init-data": {"format": "toml", "body": self.text} if self.text is not None else None,
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.jwk},
            "tee-evidence": {"primary_evidence": self.evidence(), "additional_evidence": ""},
        }

    def attest(self, body: Any = None, cookie: str | None = None) -> http.Response:
        """Send evidence."""
        sent = self.body() if body is None else body
        got = self.service.call("POST", "/kbs/v0/attest", sent, Cookie=self.cookie if cookie is None else cookie)
        if got.status == 200:
            self.token = str(got.json()["token"])
            self.cookie = got.headers["set-cookie"].split(";")[0]
        return got

    def handshake(self) -> http.Response:
        """Challenge and attestation; the answer to the latter."""
        asked = self.auth()
        return asked if asked.status != 200 else self.attest()

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> http.Response:
        """A request with the token."""
        return self.service.call(method, path, body, Authorization=f"Bearer {self.token}", **headers)

    def get(self, path: str, **headers: str) -> http.Response:
        """Read a resource."""
        return self.call("GET", f"/kbs/v0/resource/{path}", **headers)

    def open(self, response: http.Response) -> bytes:
        """The content of a JWE answer."""
        return jwe.open_(response.json(), self.key)


def rules(response: http.Response) -> list[str]:
    """The rules that a refusal names."""
    return [str(reason["rule"]) for reason in response.json()["reasons"]]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
