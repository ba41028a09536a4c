"""Admins by client certificates: real TLS, from the handshake to the role."""

import http.client
import json
import ssl
from datetime import timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from casemate.testing import broker as brokers
from casemate.testing import issuer as fakes

BASE = "/casemate/v0/admin"


@pytest.fixture(scope="module")
def clients():
    return fakes.client_ca()


@pytest.fixture(scope="module")
def service(tmp_path_factory, clients):
    folder = tmp_path_factory.mktemp("broker")
    (folder / "clients.pem").write_bytes(fakes.pem(clients[1]))
    made = brokers.start(folder, client_ca="clients.pem")
    made.admin.call("POST", "/tenants", {"name": "acme"})
    yield made
    made.stop()


class Mutual:
    """A connection with a client certificate."""

    def __init__(self, service, tmp_path, *pair):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if pair:
            path = tmp_path / "client.pem"
            path.write_bytes(fakes.pem(*pair))
            context.load_cert_chain(path)
        self.connection = http.client.HTTPSConnection("127.0.0.1", service.broker.settings.port, context=context)

    def ask(self, method="GET", path="/whoami", body=None, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, BASE + path, body, named)
        got = self.connection.getresponse()
        return got.status, json.loads(got.read())


def record(service, name, certificate, role="operator", tenant="acme", **more):
    body = {"name": name, "role": role, "certificate": fakes.pem(certificate).decode(), **more}
    return service.admin.call("POST", f"/admins?tenant={tenant}" if tenant else "/admins", body)


def test_a_recorded_certificate(service, clients, tmp_path):
    key, certificate = fakes.client(clients, "mia")
    mia = Mutual(service, tmp_path, key, certificate)
    assert mia.ask()[0] == 401
    record(service, "mia", certificate)
    assert mia.ask() == (200, {"who": "certificate#acme/mia", "role": "operator", "tenant": "acme"})
    status, _ = mia.ask("POST", "/apps", json.dumps({"tenant": "acme", "name": "mtls"}))
    assert status == 200
    service.clock.shift = timedelta(days=2)  # the connection is older than the certificate lives
    assert mia.ask()[0] == 401


def test_a_token_beside_a_certificate_decides(service, clients, tmp_path):
    key, certificate = fakes.client(clients, "ned")
    record(service, "ned", certificate)
    ned = Mutual(service, tmp_path, key, certificate)
    assert ned.ask(Authorization=f"Bearer {service.admin.token()}")[1]["who"].endswith("#admin")
    assert ned.ask(Authorization="Bearer x.y.z")[0] == 401


def test_a_subject_below_a_ca_keeps_its_role_when_the_certificate_is_renewed(service, clients, tmp_path):
    _, first = fakes.client(clients, "olga")
    record(service, "olga", first, role="auditor", tenant=None, renewable=True)
    key, renewed = fakes.client(clients, "olga")
    assert Mutual(service, tmp_path, key, renewed).ask()[1] == {
        "who": "certificate#olga",
        "role": "auditor",
        "tenant": None,
    }
    key, other = fakes.client(clients, "olga2")
    assert Mutual(service, tmp_path, key, other).ask()[0] == 401


@pytest.mark.parametrize("kind", ["stranger", "expired", "server", "self-signed"])
def test_certificates_that_tls_refuses(service, clients, tmp_path, kind):
    pair = {
        "stranger": lambda: fakes.client(fakes.client_ca(), "mia"),
        "expired": lambda: fakes.client(clients, "mia", ends=timedelta(minutes=-1)),
        "server": lambda: fakes.client(clients, "mia", usage=ExtendedKeyUsageOID.SERVER_AUTH),
        "self-signed": lambda: fakes.client_ca("mia"),
    }[kind]()
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        Mutual(service, tmp_path, *pair).ask()


def test_without_a_certificate_all_is_as_ever(service, tmp_path):
    assert Mutual(service, tmp_path).ask()[0] == 401
    assert Mutual(service, tmp_path).ask(Authorization=f"Bearer {service.admin.token()}")[0] == 200


def test_other_sites_cannot_use_the_certificate_of_a_browser(service, clients, tmp_path):
    key, certificate = fakes.client(clients, "quin")
    record(service, "quin", certificate, role="owner")
    quin, body = Mutual(service, tmp_path, key, certificate), json.dumps({"tenant": "acme", "name": "csrf"})
    for headers in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Origin": "null"}):
        status, said = quin.ask("POST", "/apps", body, **headers)
        assert (status, said["reasons"][0]["rule"]) == (403, "admin.origin")
    host = f"127.0.0.1:{service.broker.settings.port}"
    assert quin.ask("POST", "/apps", body, Origin=f"https://{host}", Sec_Fetch_Site="same-origin")[0] == 200
