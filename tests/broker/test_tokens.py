"""Tokens and statements: what is in them, and that no other signature or shape is believed."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Challenge, Cookies, Session
from casemate.broker.tokens import Signer
from casemate.crypto import jwk
from casemate.drivers import brokerclient
from casemate.errors import CasemateError, Refused
from casemate.testing.broker import Guest
from casemate.wire.encoding import b64u, unb64u

NOW = datetime.now(UTC)
SIGNER = Signer(ec.generate_private_key(ec.SECP256R1()))
COOKIES = Cookies(b"k" * 32)


def session(**changes):
    values = {
        "tee": "tpm",
        "platform_class": "development",
        "app_id": "sha256:" + "0" * 64,
        "manifest_digest": "sha256:" + "1" * 64,
        "tee_pubkey": jwk.from_public_key(ec.generate_private_key(ec.SECP256R1()).public_key()),
        "expires": float(int((NOW + timedelta(minutes=5)).timestamp())),
    }
    return Session(**{**values, **changes})


def parts(token):
    header, payload, signature = token.split(".")
    return json.loads(unb64u(header)), json.loads(unb64u(payload)), signature


def test_a_token_tells_its_session_back():
    one = session()
    token = SIGNER.token(one, {}, NOW)
    assert SIGNER.session(token, NOW) == one


def test_claims_stand_where_the_peers_look_for_them(service):
    app = service.found()
    guest = Guest(service, app.manifest)
    guest.handshake()
    header, claims, _ = parts(guest.token)
    assert (header["alg"], header["typ"]) == ("ES256", "JWT")
    assert claims["exp"] - claims["iat"] == 300
    cpu = claims["submods"]["cpu0"]
    evidence = cpu["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"]["tee-pubkey"] == guest.jwk
    assert evidence["runtime_data_claims"]["nonce"] == guest.nonce
    assert claims["cnf"]["jwk"] == guest.jwk
    assert evidence["tpm"]["pcr04"] == guest.tpm.pcrs[4].hex()
    assert cpu["ear.status"] == "warning"  # a development platform never affirms
    assert claims["casemate"]["app"] == app.app_id
    info = brokerclient.info(service.url, service.pin)
    key = ECKey.import_key({k: v for k, v in info["signing_key"].items() if k in ("kty", "crv", "x", "y")})
    assert jwt.decode(guest.token, key, algorithms=["ES256"]).claims == claims
    assert len(guest.token) < 64 << 10


def forged():
    good = SIGNER.token(session(), {}, NOW)
    _, claims, signature = parts(good)
    stranger = ECKey.generate_key("P-256")
    public = {k: v for k, v in stranger.as_dict(private=False).items() if k in ("kty", "crv", "x", "y")}
    yield "stranger", jwt.encode({"alg": "ES256", "typ": "JWT", "jwk": public}, claims, stranger)
    none = b64u(json.dumps({"alg": "none", "typ": "JWT"}).encode())
    yield "none", f"{none}.{good.split('.')[1]}."
    secret = OctKey.import_key(json.dumps(SIGNER.jwk).encode())
    yield "hmac with the public key", jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, secret)
    changed = b64u(json.dumps({**claims, "exp": claims["exp"] + 9999}).encode())
    yield "changed", f"{good.split('.')[0]}.{changed}.{signature}"
    yield "cut", good[:-4]
    yield "long", good + "A" * (256 << 10)
    yield "empty", ""


@pytest.mark.parametrize(("what", "token"), list(forged()), ids=lambda v: v if len(v) < 40 else "")
def test_forged_tokens(what, token):
    with pytest.raises(Unauthenticated):
        SIGNER.session(token, NOW)


def test_a_statement_is_no_token(service):
    app = service.found()
    compact = json.loads(service.call("GET", f"/casemate/v0/apps/{app.app_id}").body)["statement"]
    with pytest.raises(Unauthenticated):
        service.broker.signer.session(compact, NOW)


def test_a_token_is_no_statement(service):
    guest = Guest(service, service.found().manifest)
    guest.handshake()
    with pytest.raises(CasemateError):
        brokerclient.open_statement(guest.token, service.broker.signer.jwk)


def test_an_app_statement_and_its_signature(service):
    app = service.found()
    said = brokerclient.app_statement(service.url, service.pin, app.app_id)
    assert said.founding.app_id == app.app_id
    assert [(r.manifest_digest, r.state) for r in said.releases] == [(app.digest, "active")]
    assert said.platforms == ("development",)
    compact = json.loads(service.call("GET", f"/casemate/v0/apps/{app.app_id}").body)["statement"]
    stranger = Signer(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(Refused):
        brokerclient.open_statement(compact, stranger.jwk)


@given(st.text(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_anything_else_is_no_token_no_cookie_no_statement(text):
    with pytest.raises(Unauthenticated):
        SIGNER.session(text, NOW)
    with pytest.raises(Unauthenticated):
        COOKIES.open(text, NOW)
    with pytest.raises(CasemateError):
        brokerclient.open_statement(text, SIGNER.jwk)


@given(st.binary(max_size=120))
def test_bytes_are_no_cookie(data):
    with pytest.raises(Unauthenticated):
        COOKIES.open(b64u(data), NOW)


def test_cookies_come_back_and_not_under_another_key():
    one = Challenge(nonce="n", tee="tpm", expires=NOW.timestamp() + 1)
    sealed = COOKIES.seal(one)
    assert COOKIES.open(sealed, NOW) == one
    assert len(COOKIES.seal(session())) < 1200
    with pytest.raises(Unauthenticated):
        Cookies(b"j" * 32).open(sealed, NOW)
