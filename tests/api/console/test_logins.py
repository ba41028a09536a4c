"""Signing in at the console with a certificate, and with an issuer's token."""

import pytest

from casemate.broker.oidc import Issuer
from casemate.crypto import jws
from casemate.testing import broker as brokers
from casemate.testing import issuer as fakes

from .conftest import Person

ISSUER = fakes.FakeIssuer()


def test_a_certificate_signs_in(tmp_path):
    authority = fakes.client_ca()
    (tmp_path / "clients.pem").write_bytes(fakes.pem(authority[1]))
    made = brokers.start(tmp_path, console=True, client_ca=tmp_path / "clients.pem")
    try:
        key, certificate = fakes.client(authority, "mia")
        (tmp_path / "mia.pem").write_bytes(fakes.pem(key, certificate))
        body = {"name": "mia", "role": "auditor", "certificate": fakes.pem(certificate).decode()}
        made.admin.call("POST", "/admins", body)
        mia = Person(made, tmp_path / "mia.pem")
        assert "with the certificate" in mia.ask("GET", "/login")[2]
        assert mia.ask("GET", "/apps")[0] == 303  # a certificate alone is no sign-in
        assert mia.enter("") == 303
        assert "certificate#mia" in mia.ask("GET", "/apps")[2]
        assert Person(made).enter("") == 401
    finally:
        made.stop()


@pytest.fixture
def claimed(tmp_path):
    (tmp_path / "jwks.json").write_bytes(ISSUER.jwks())
    issuer = Issuer(issuer=ISSUER.url, audience="casemate", jwks=str(tmp_path / "jwks.json"), tenant="*")
    made = brokers.start(tmp_path, console=True, admin_issuers=(issuer,))
    yield made
    made.stop()


def test_an_issuers_admin_stays_no_longer_than_the_issuer_said(claimed):
    ida = Person(claimed)
    status, headers, _ = ida.ask("POST", "/login", {"token": ISSUER.token("ida", role="auditor")})
    assert status == 303
    ends = int(headers["set-cookie"].lower().split("max-age=")[1].split(";")[0])
    said = jws.parse(ISSUER.token("ida", role="auditor")).claims
    assert ends <= min(900, said["exp"] - said["iat"] + 1)
    ida.cookie = headers["set-cookie"].split(";")[0]
    assert "of the whole broker" in ida.ask("GET", "/apps")[2]
    account = {"issuer": ISSUER.url, "subject": "ida", "role": "auditor"}
    claimed.found("acme", "web")
    claimed.admin.call("POST", "/admins?tenant=acme", account)
    assert "auditor of acme" in ida.ask("GET", "/apps")[2]  # what is recorded counts, from the next page on


def test_a_claimed_admin_goes_with_its_issuer(claimed):
    ida = Person(claimed)
    assert ida.enter(ISSUER.token("ida", role="auditor")) == 303
    assert ida.ask("GET", "/apps")[0] == 200
    held = dict(claimed.broker.access.issuers)
    claimed.broker.access.issuers.clear()
    assert ida.ask("GET", "/apps")[0] == 303
    claimed.broker.access.issuers.update(held)


def test_a_recorded_admin_that_was_removed_does_not_live_on_by_claims(claimed):
    claimed.admin.call("POST", "/admins", {"issuer": ISSUER.url, "subject": "una", "role": "owner"})
    una = Person(claimed)
    assert una.enter(ISSUER.token("una", role="auditor")) == 303
    claimed.admin.call("DELETE", f"/admins?who={ISSUER.url}%23una")
    assert una.ask("GET", "/apps")[0] == 303
