"""An OIDC issuer for tests: a key of any kind, tokens that say anything, its key set in a file or over real https."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from casemate.crypto import jws, selfsigned, signatures
from casemate.wire.encoding import b64u

Key = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
ALGORITHMS = ("EdDSA", "ES256", "RS256")


def new_key(algorithm: str) -> Key:
    """A new key for an algorithm."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def sign(key: Key, message: bytes) -> bytes:
    """A JOSE signature under the algorithm that fits the key."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return signatures.sign_jose(key, message)


def compact(key: Key | bytes | None, header: Any, claims: Any) -> str:
    """A compact JWS of whatever; a key of bytes makes an HMAC, None an empty signature. Bytes go as they are."""
    parts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in (header, claims)]
    signed = f"{b64u(parts[0])}.{b64u(parts[1])}"
    if key is None:
        return f"{signed}."
    made = hmac.digest(key, signed.encode(), hashlib.sha256) if isinstance(key, bytes) else sign(key, signed.encode())
    return f"{signed}.{b64u(made)}"


class FakeIssuer:
    """An issuer at `url` with one key."""

    def __init__(self, url: str = "https://idp.example", algorithm: str = "ES256", audience: str = "casemate") -> None:
        self.url, self.algorithm, self.audience = url, algorithm, audience
        self.key, self.kid = new_key(algorithm), "k1"

    def jwk(self) -> dict[str, Any]:
        """Its public key."""
        public = self.key.public_key()
        shared: dict[str, Any] = {"kid": self.kid, "use": "sig", "alg": self.algorithm}
        if isinstance(public, ed25519.Ed25519PublicKey):
            return {**shared, "kty": "OKP", "crv": "Ed25519", "x": b64u(public.public_bytes_raw())}
        if isinstance(public, rsa.RSAPublicKey):
            n, e = public.public_numbers().n, public.public_numbers().e
            return {**shared, "kty": "RSA", "n": b64u(n.to_bytes(256, "big")), "e": b64u(e.to_bytes(3, "big"))}
        point = public.public_numbers()
        x, y = (b64u(part.to_bytes(32, "big")) for part in (point.x, point.y))
        return {**shared, "kty": "EC", "crv": "P-256", "x": x, "y": y}

    def jwks(self) -> bytes:
        """Its key set."""
        return json.dumps({"keys": [self.jwk()]}).encode()

    def claims(self, subject: str = "alice", **more: Any) -> dict[str, Any]:
        """What a good token says; a value of None leaves a claim out."""
        now = int(time.time())
        said = {"iss": self.url, "sub": subject, "aud": self.audience, "iat": now, "exp": now + 600, **more}
        return {name: value for name, value in said.items() if value is not None}

    def token(self, subject: str = "alice", header: dict[str, Any] | None = None, **more: Any) -> str:
        """A token that it signed."""
        said = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **(header or {})}
        return compact(self.key, said, self.claims(subject, **more))


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer with what the server holds for the path."""
        server: Any = self.server
        server.asked.append(self.path)
        body = server.pages.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Site(http.server.ThreadingHTTPServer):
    """A real https server on loopback: `pages` by path, `asked` paths, its own certificate in `ca` (PEM)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = selfsigned.certificate(key, ["127.0.0.1"], datetime.now(UTC))
        self.ca = certificate.public_bytes(serialization.Encoding.PEM)
        self._key = selfsigned.key_pem(key)

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.server_address[1]}"


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A running `Site`; its key is kept in `folder` for as long."""
    made = Site()
    pair = folder / "site.pem"
    pair.write_bytes(made._key + made.ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    made.socket = context.wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def client_ca(name: str = "clients") -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A CA for clients' certificates."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _certificate(key, name, key, name, ca=True)


def client(
    ca: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
    name: str,
    *,
    ends: timedelta = timedelta(days=1),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A client's key and certificate from a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = ca[1].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    return key, _certificate(key, name, ca[0], str(issuer), ca=False, ends=ends, usage=usage)


def pem(*parts: ec.EllipticCurvePrivateKey | x509.Certificate) -> bytes:
    """Keys and certificates in PEM, one after another."""
    encoding = serialization.Encoding.PEM
    return b"".join(
        selfsigned.key_pem(one) if isinstance(one, ec.EllipticCurvePrivateKey) else one.public_bytes(encoding)
        for one in parts
    )


def thumbprint(key: Key) -> str:
    """The public key's thumbprint."""
    return jws.thumbprint(key.public_key())


def public_pem(key: Key) -> str:
    """The public key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    signer: ec.EllipticCurvePrivateKey,
    issuer: str,
    *,
    ca: bool,
    ends: timedelta = timedelta(days=1),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject, of = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (name, issuer))
    made = x509.CertificateBuilder(of, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + ends)
    made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if not ca:
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return made.sign(signer, hashes.SHA256())
