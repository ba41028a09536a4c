"""A client of the key broker protocol, written from its description alone: it imports nothing of the broker's project.

Protocol 0.4.0 of Confidential Containers' KBS: request, challenge, attestation, response; then resources as JWE. What
makes evidence is given from outside (`attester`): it gets the report data and gives back the TEE's JSON.
"""

import base64
import hashlib
import hmac
import http.client
import json
import ssl

import rfc8785
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HASHES = {"sha384": hashlib.sha384, "sha512": hashlib.sha512}


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64u(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class EcKey:
    """P-256 or P-521; the JWK has kty, crv, alg, x, y and coordinates of fixed width."""

    def __init__(self, curve=None, private=None):
        self.private = private or ec.generate_private_key(curve or ec.SECP256R1())
        numbers = self.private.public_key().public_numbers()
        width = {"secp256r1": 32, "secp521r1": 66}[self.private.curve.name]
        self.jwk = {
            "kty": "EC",
            "crv": {32: "P-256", 66: "P-521"}[width],
            "alg": "ECDH-ES+A256KW",
            "x": b64u(numbers.x.to_bytes(width, "big")),
            "y": b64u(numbers.y.to_bytes(width, "big")),
        }

    def content_key(self, header, wrapped):
        epk = header["epk"]
        assert list(epk) == ["crv", "kty", "x", "y"]
        point = ec.EllipticCurvePublicNumbers(
            int.from_bytes(unb64u(epk["x"]), "big"), int.from_bytes(unb64u(epk["y"]), "big"), self.private.curve
        ).public_key()
        shared = self.private.exchange(ec.ECDH(), point)
        name = b"ECDH-ES+A256KW"
        info = len(name).to_bytes(4, "big") + name + bytes(8) + (256).to_bytes(4, "big")
        kek = hashlib.sha256((1).to_bytes(4, "big") + shared + info).digest()
        return keywrap.aes_key_unwrap(kek, wrapped)


class RsaKey:
    """RSA-OAEP-256."""

    def __init__(self, alg="RSA-OAEP-256"):
        self.private = rsa.generate_private_key(65537, 2048)
        numbers = self.private.public_key().public_numbers()
        self.jwk = {"kty": "RSA", "alg": alg, "n": b64u(numbers.n.to_bytes(256, "big")), "e": b64u(b"\x01\x00\x01")}

    def content_key(self, header, wrapped):
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        return self.private.decrypt(wrapped, oaep)


def runtime_digest(nonce, jwk, additional="", name="sha384"):
    bound = {"additional-evidence": additional, "nonce": nonce, "tee-pubkey": jwk}
    return HASHES[name](rfc8785.dumps(bound)).digest()


def device_digest(nonce, jwk):
    return hashlib.sha384(rfc8785.dumps({"nonce": nonce, "tee-pubkey": jwk})).digest()


def open_jwe(message, key):
    """The plaintext; the header is parsed and written again for the AAD, as the peers' clients do."""
    assert sorted(message) == ["ciphertext", "encrypted_key", "iv", "protected", "tag"]
    header = json.loads(unb64u(message["protected"]))
    again = json.dumps(header, separators=(",", ":")).encode()
    assert list(header)[:2] == ["alg", "enc"]
    assert header["enc"] == "A256GCM"
    assert hmac.compare_digest(again, unb64u(message["protected"]))
    content_key = key.content_key(header, unb64u(message["encrypted_key"]))
    sealed = unb64u(message["ciphertext"]) + unb64u(message["tag"])
    return AESGCM(content_key).decrypt(unb64u(message["iv"]), sealed, b64u(again).encode())


class Answer:
    """Status, headers by lower-case name, body."""

    def __init__(self, response):
        self.status, self.body = response.status, response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def json(self):
        return json.loads(self.body)

    @property
    def variant(self):
        """The last part of ErrorInformation's type."""
        return self.json()["type"].rpartition("/")[2]


class Client:
    """One guest. `authority` is the PEM file of the server's certificate, `port` where it listens."""

    def __init__(self, port, authority, tee, attester, key=None, initdata=None):
        self.port, self.tee, self.attester = port, tee, attester
        self.tls = ssl.create_default_context(cafile=authority)
        self.key = key or EcKey()
        self.initdata = initdata
        self.cookie = self.token = self.nonce = ""
        self.hash = "sha384"

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=60)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            kind = {"Content-Type": "application/json"} if isinstance(body, dict) else {}
            connection.request(method, path, body=data, headers={**kind, **(headers or {})})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def auth(self, version="0.4.0", tee=None, extra=None):
        asked = {"version": version, "tee": tee or self.tee, "extra-params": {} if extra is None else extra}
        answer = self.call("POST", "/kbs/v0/auth", asked)
        if answer.status == 200:
            challenge = answer.json()
            self.nonce = challenge["nonce"]
            params = challenge["extra-params"]
            self.hash = params["selected-hash-algorithm"] if isinstance(params, dict) else "sha384"
            self.keep_cookie(answer)
        return answer

    def keep_cookie(self, answer):
        pair = answer.headers["set-cookie"].split(";")[0]
        assert pair.startswith("kbs-session-id=")
        self.cookie = pair

    def message(self, additional="", jwk=None):
        digest = runtime_digest(self.nonce, self.key.jwk, additional, self.hash)
        return {
            "init-data": None if self.initdata is None else {"format": "toml", "body": self.initdata},
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": jwk or self.key.jwk},
            "tee-evidence": {
                "primary_evidence": self.attester(digest, self.nonce),
                "additional_evidence": additional,
            },
        }

    def attest(self, message=None, cookie=None):
        headers = {"Cookie": self.cookie if cookie is None else cookie} if cookie != "" else {}
        answer = self.call("POST", "/kbs/v0/attest", message or self.message(), headers)
        if answer.status == 200:
            self.token = answer.json()["token"]
            self.keep_cookie(answer)
        return answer

    def handshake(self):
        answer = self.auth()
        return answer if answer.status != 200 else self.attest()

    def get(self, path, *, by="bearer"):
        given = {"Authorization": f"Bearer {self.token}"} if by == "bearer" else {"Cookie": self.cookie}
        return self.call("GET", f"/kbs/v0/resource/{path}", headers=given if by else {})

    def opened(self, answer):
        return open_jwe(answer.json(), self.key)

    def claims(self):
        return json.loads(unb64u(self.token.split(".")[1]))


def make_initdata(body, algorithm="sha384"):
    """CoCo's document with these `[data]` entries, and its digest's bytes."""
    head = f'algorithm = "{algorithm}"\nversion = "0.1.0"\n\n[data]\n'
    text = head + "".join(f"\"{name}\" = '''\n{value}'''\n" for name, value in body.items())
    return text, hashlib.new(algorithm, text.encode()).digest()
