"""A broker with its console, a decision of each outcome, and the admins of two tenants."""

import http.client
import json
import ssl
import time
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from casemate.crypto import jws, signatures
from casemate.drivers.store import record
from casemate.errors import Finding
from casemate.testing import broker as brokers
from casemate.wire.encoding import b64u

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def admin_of(service, tenant, role="owner", name=None):
    """A new admin's key, recorded."""
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    where = f"/admins?tenant={tenant}" if tenant else "/admins"
    body = {"name": name or f"{tenant}-{role}", "role": role, "key": public.decode()}
    made = service.admin.call("POST", where, body)
    return SimpleNamespace(key=key, who=made["who"])


def token(key, seconds=120):
    """A token of an admin's key."""
    now, public = int(time.time()), key.public_key()
    header = {"alg": "EdDSA", "typ": "JWT", "kid": jws.thumbprint(public)}
    claims = {"sub": "admin", "role": "admin", "aud": ["KBS"], "iat": now, "exp": now + seconds}
    signed = ".".join(b64u(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{b64u(signatures.sign_jose(key, signed.encode()))}"


class Person:
    """Somebody with a browser's habits, without the browser."""

    def __init__(self, service, certificate=None):
        self.service, self.port, self.cookie = service, service.broker.settings.port, ""
        self.certificate = certificate

    def ask(self, method, path, form=None, **headers):
        """Status, headers and text of an answer; redirects are not followed."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(self.certificate)
        there = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=20)
        sent = {"Cookie": self.cookie} if self.cookie else {}
        body = None
        if form is not None:
            body = urlencode(form)
            sent |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"https://127.0.0.1:{self.port}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        there.request(method, f"/console{path}", body, {k: v for k, v in sent.items() if v is not None})
        got = there.getresponse()
        found = got.status, got.headers, got.read().decode()
        there.close()
        return found

    def enter(self, shown):
        """Sign in; the status."""
        status, headers, _ = self.ask("POST", "/login", {"token": shown})
        if "set-cookie" in headers:
            self.cookie = headers["set-cookie"].split(";")[0]
        return status

    def csrf(self):
        """The word of this sign-in, as a page has it."""
        return self.ask("GET", "/apps")[2].split('name="csrf" value="')[1].split('"')[0]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("broker"), console=True)
    made.trust()
    made.acme, made.umbrella = made.found("acme", "web"), made.found("umbrella", "shop")
    made.admin.put_resource(made.acme.app_id, f"kbs:///{made.acme.path}", b"the secret itself")
    guest = brokers.Guest(made, made.acme.manifest)
    assert guest.handshake().status == 200
    assert guest.get(made.acme.path).status == 200
    made.admin.call("POST", f"/apps/{made.umbrella.app_id}/releases/{made.umbrella.digest}/revoke")
    refused = brokers.Guest(made, made.umbrella.manifest)
    assert refused.handshake().status == 403
    with made.broker.store.write() as tx:
        told = [Finding("evil.rule", EVIL, EVIL, EVIL)]
        record.decide(tx, made.clock(), "attest", told, genuine=True, app_id=made.acme.app_id, tee="tpm")
    yield made
    made.stop()


@pytest.fixture
def person(service):
    return Person(service)
