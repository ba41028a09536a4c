"""The run of Appendix A2 (sample evidence, no hardware) and what Appendix B asks of a server, from outside."""

import base64
import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import keywrap
from tests.interop import rcar_client
from tests.interop.conftest import client, with_key
from tests.interop.rcar_client import RsaKey

from casemate.testing import broker as brokers


def test_a2_the_run(service):
    app, guest = with_key(service)
    challenge = guest.auth()
    assert challenge.json()["extra-params"] == ""
    assert guest.attest().status == 200
    for by in ("cookie", "bearer"):
        answer = guest.get(app.path, by=by)
        assert answer.headers["content-type"] == "application/json"
        assert guest.opened(answer) == b"the key"


def test_a2_a_changed_nonce(service):
    guest = client(service)
    guest.auth()
    message = guest.message()
    message["runtime-data"]["nonce"] = base64.b64encode(bytes(32)).decode()
    assert guest.attest(message).status == 401


def test_a2_an_extra_member_that_was_hashed(service):
    """The server drops it before it hashes, so that whoever hashed it is not believed."""
    guest = client(service)
    guest.auth()
    own, guest.key.jwk = guest.key.jwk, {**guest.key.jwk, "kid": "mine"}
    hashed = guest.message()
    assert guest.attest(hashed).status == 401
    guest.key.jwk = own
    guest.auth()
    assert guest.attest(guest.message(jwk={**own, "kid": "mine"})).status == 200


def test_a2_another_version(service):
    guest = client(service)
    for version in ("0.3.0", "0.5.0", "1.4.0", "0.4", "0.4.x", ""):
        assert guest.auth(version=version).status == 401, version
    for version in ("0.4.0", "0.4.1", "0.4.17"):
        assert guest.auth(version=version).status == 200, version


def test_a2_without_a_cookie(service):
    guest = client(service)
    guest.auth()
    assert guest.attest(cookie="").status == 401
    answer = guest.get("default/key/1", by=None)
    assert (answer.status, answer.variant) == (401, "TokenNotFound")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a2_an_unknown_plugin(service, method):
    for path in ("nebula-ca/a/b/c", "external/x", "nothing"):
        answer = client(service).call(method, f"/kbs/v0/{path}")
        assert (answer.status, answer.variant) == (404, "PluginNotFound"), path


def test_b1_any_extra_params(service):
    guest = client(service)
    for extra in ({"supported-hash-algorithms": ["sha256", "sm3"], "new": [1, {"x": None}]}, "", [], None):
        answer = guest.auth(extra=extra)
        assert answer.status == 200
        assert len(base64.b64decode(answer.json()["nonce"], validate=True)) == 32
        assert len(answer.json()["nonce"]) == 44
        assert answer.json()["extra-params"] == ""


def test_b2_every_401_is_error_information(service):
    guest = client(service)
    guest.auth()
    answers = [
        guest.auth(version="0.3.0"),
        guest.attest(cookie=""),
        guest.attest(cookie="kbs-session-id=" + "0" * 32),
        guest.get("a/b/c", by=None),
        guest.call("GET", "/kbs/v0/resource/a/b/c", headers={"Authorization": "Bearer x.y.z"}),
        guest.call("POST", "/kbs/v0/resource/a/b/c", b"x"),
    ]
    for answer in answers:
        assert answer.status == 401
        assert answer.json()["type"].startswith("https://github.com/confidential-containers/kbs/errors/")
        assert answer.json()["detail"]


def test_b2_a_bad_cookie_beside_a_good_token(service):
    app, guest = with_key(service)
    assert guest.handshake().status == 200
    headers = {"Cookie": "kbs-session-id=stale", "Authorization": f"Bearer {guest.token}"}
    assert guest.call("GET", f"/kbs/v0/resource/{app.path}", headers=headers).status == 200


def test_b2_the_cookie_decides_before_the_token(service):
    app, guest = with_key(service)
    _, other = with_key(service)
    assert guest.handshake().status == other.handshake().status == 200
    headers = {"Cookie": other.cookie, "Authorization": f"Bearer {guest.token}"}
    assert guest.call("GET", f"/kbs/v0/resource/{app.path}", headers=headers).status == 403


def test_b3_the_header_is_byte_exact(service):
    app, guest = with_key(service)
    guest.handshake()
    header = rcar_client.unb64u(guest.get(app.path).json()["protected"]).decode()
    assert header.startswith('{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":"')
    assert " " not in header
    epk = json.loads(header)["epk"]
    assert [len(rcar_client.unb64u(epk[part])) for part in ("x", "y")] == [32, 32]


def test_b6_the_token_carries_the_key_and_verifies_with_the_broker_s_own(service):
    from joserfc import jwt
    from joserfc.jwk import ECKey

    guest = client(service)
    guest.handshake()
    header = json.loads(rcar_client.unb64u(guest.token.split(".")[0]))
    assert (header["alg"], header["typ"], header["jwk"]["crv"]) == ("ES256", "JWT", "P-256")
    claims = jwt.decode(guest.token, ECKey.import_key(header["jwk"]), algorithms=["ES256"]).claims
    runtime = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["runtime_data_claims"]
    assert runtime["tee-pubkey"] == guest.key.jwk
    assert claims["cnf"]["jwk"] == guest.key.jwk
    assert claims["exp"] - claims["iat"] == 300


def test_b9_a_token_over_128_kib_in_a_header(service):
    long = "x" * (200 << 10)
    answer = client(service).call("GET", "/kbs/v0/resource/a/b/c", headers={"Authorization": f"Bearer {long}"})
    assert (answer.status, answer.variant) == (401, "TokenVerifierError")


def test_b9_a_body_over_2_mib(service):
    guest = client(service)
    guest.auth()
    message = guest.message()
    message["tee-evidence"]["primary_evidence"]["more"] = "x" * (3 << 20)
    assert guest.attest(message).status == 200


@pytest.mark.parametrize("name", ["az-snp-vtpm", "azsnpvtpm", "az-tdx-vtpm", "aztdxvtpm"])
def test_b10_old_names(service, name):
    assert client(service).auth(tee=name).status == 200


def test_b10_sample_is_refused_unless_it_is_enabled(tmp_path):
    made = brokers.start(tmp_path)
    try:
        answer = client(made).auth()
        assert (answer.status, answer.variant) == (403, "PolicyDeny")
    finally:
        made.stop()


def test_rsa1_5_is_refused_with_its_reason(service):
    guest = client(service, key=RsaKey("RSA1_5"))
    answer = guest.handshake()
    assert answer.status == 403
    assert answer.json()["reasons"][0]["rule"] == "session.key"


@pytest.mark.parametrize("path", [".hidden/b/c", "a/b", "a/b/c/d", "a/b/%20", "a//c"])
def test_a_path_that_names_nothing(service, path):
    guest = client(service)
    guest.handshake()
    answer = guest.get(path)
    assert (answer.status, answer.variant) == (404, "InvalidRequestPath")


class TestStrict:
    """`strict_trustee`: 401 for all but a path that is none and a plugin that is not there."""

    def test_a_good_run_is_the_same(self, strict):
        app, guest = with_key(strict)
        assert guest.handshake().status == 200
        assert guest.opened(guest.get(app.path)) == b"the key"

    @pytest.mark.parametrize(
        ("make", "variant"),
        [
            (lambda g: g.auth(version="0.4.1"), "AttestationError"),
            (lambda g: g.auth(tee="unknown"), "SerdeError"),
            (lambda g: g.call("POST", "/kbs/v0/auth", b"{"), "SerdeError"),
            (lambda g: g.call("POST", "/kbs/v0/attest", b"{}"), "TokenNotFound"),
            (lambda g: g.get("default/key/1", by=None), "TokenNotFound"),
            (lambda g: g.handshake() and g.get("default/key/1"), "PolicyDeny"),
            (lambda g: g.call("POST", "/kbs/v0/resource/a/b/c", b"x"), "AdminAuthAccess"),
            (lambda g: g.call("GET", "/kbs/v0/reference-value/x"), "AdminAuthAccess"),
        ],
    )
    def test_401(self, strict, make, variant):
        answer = make(client(strict))
        assert (answer.status, answer.variant) == (401, variant), answer.body

    @pytest.mark.parametrize(
        ("method", "path", "variant"),
        [
            ("GET", "nothing/a/b/c", "PluginNotFound"),
            ("GET", "resource/a/b", "InvalidRequestPath"),
            ("GET", "auth", "InvalidRequestPath"),
        ],
    )
    def test_404(self, strict, method, path, variant):
        answer = client(strict).call(method, f"/kbs/v0/{path}")
        assert (answer.status, answer.variant) == (404, variant)

    def test_our_own_api_keeps_its_statuses(self, strict):
        assert client(strict).call("GET", "/casemate/v0/apps/none").status == 404

    def test_an_attested_session_gets_its_token_again(self, strict):
        app, guest = with_key(strict)
        guest.auth()
        question, message = guest.cookie, guest.message()
        assert guest.attest(message).status == 200
        first = guest.claims()
        assert guest.attest({"whatever": 1}).status == 200
        again = guest.claims()
        assert (again["submods"], again["exp"]) == (first["submods"], first["exp"])
        assert guest.opened(guest.get(app.path)) == b"the key"
        assert guest.attest(message, question).status == 401  # its question is answered once all the same


def test_an_attested_session_must_ask_again(service):
    guest = client(service)
    guest.auth()
    message = guest.message()
    assert guest.attest(message).status == 200
    assert guest.attest(message).status == 401


def test_ml_kem_over_the_wire(service):
    """OpenSSL derives the wrapping key: KMAC256 of the shared secret over algorithm and length (draft, 1.6)."""
    mlkem = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mlkem")

    class KemKey:
        def __init__(self):
            self.private = mlkem.MLKEM768PrivateKey.generate()
            pub = rcar_client.b64u(self.private.public_key().public_bytes_raw())
            self.jwk = {"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": pub}

        def content_key(self, header, wrapped):
            shared = self.private.decapsulate(rcar_client.unb64u(header["ek"]))
            name = b"ML-KEM-768+A192KW"
            info = len(name).to_bytes(4, "big") + name + (192).to_bytes(4, "big")
            command = [
                "openssl",
                "mac",
                "-macopt",
                f"hexkey:{shared.hex()}",
                "-macopt",
                "size:24",
                "-in",
                "-",
                "KMAC256",
            ]
            done = subprocess.run(command, input=info, capture_output=True, check=False)
            if done.returncode:
                pytest.skip("this openssl has no KMAC256")
            return keywrap.aes_key_unwrap(bytes.fromhex(done.stdout.decode().strip()), wrapped)

    app, guest = with_key(service, key=KemKey())
    assert guest.handshake().status == 200
    assert guest.opened(guest.get(app.path)) == b"the key"


def test_the_option_of_serve(service):
    folder = str(service.broker.settings.folder)
    command = [sys.executable, "-m", "casemate", "serve", "--home", folder, "--check", "--json"]
    for more, wanted in (([], False), (["--strict-trustee"], True)):
        done = subprocess.run([*command, *more], capture_output=True, check=True, timeout=60)
        assert json.loads(done.stdout)["strict_trustee"] is wanted
