"""A stub of a key broker, written from the protocol's description alone: it is no broker, and it is not Trustee.

It speaks RCAR 0.4.0 over TLS as sections 1.1 to 1.8 of the wire reference say, for `sample` evidence: nonce and cookie,
the binding of 1.4, a token of no worth, one resource as a JWE of 1.6, errors of 1.7. `tags` makes nonces; `faults`
makes it misbehave.
"""

import base64
import hashlib
import http.server
import json
import os
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ERRORS = "https://github.com/confidential-containers/kbs/errors/"


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64u(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def seal(plaintext, jwk, *, spaces=False):
    """1.6: `{"alg":..,"enc":"A256GCM","epk":{"crv":..,"kty":"EC","x":..,"y":..}}`, compact, in this order."""
    curve = {"P-256": ec.SECP256R1(), "P-521": ec.SECP521R1()}[jwk["crv"]]
    width = {"P-256": 32, "P-521": 66}[jwk["crv"]]
    x, y = (int.from_bytes(unb64u(jwk[part]), "big") for part in ("x", "y"))
    ephemeral = ec.generate_private_key(curve)
    shared = ephemeral.exchange(ec.ECDH(), ec.EllipticCurvePublicNumbers(x, y, curve).public_key())
    name = b"ECDH-ES+A256KW"
    info = len(name).to_bytes(4, "big") + name + bytes(8) + (256).to_bytes(4, "big")
    kek = hashlib.sha256((1).to_bytes(4, "big") + shared + info).digest()
    numbers = ephemeral.public_key().public_numbers()
    epk = {"crv": jwk["crv"], "kty": "EC"}
    epk |= {part: b64u(getattr(numbers, part).to_bytes(width, "big")) for part in ("x", "y")}
    header = {"alg": name.decode(), "enc": "A256GCM", "epk": epk}
    protected = b64u(json.dumps(header, separators=(", ", ": ") if spaces else (",", ":")).encode())
    key, iv = os.urandom(32), os.urandom(12)
    sealed = AESGCM(key).encrypt(iv, plaintext, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": b64u(keywrap.aes_key_wrap(kek, key)),
        "iv": b64u(iv),
        "ciphertext": b64u(sealed[:-16]),
        "tag": b64u(sealed[-16:]),
    }


class StubKbs:
    """A running stub; `resources` are by path, `seen` are the requests that came."""

    def __init__(self, folder, *, bound=True):
        self.bound = bound
        self.resources = {"default/key/1": b"of the stub"}
        self.sessions, self.tokens, self.seen, self.faults = {}, {}, [], set()
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.pin = "sha256:" + hashlib.sha256(public).hexdigest()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate(folder, key))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def _certificate(self, folder, key):
        name, now = x509.Name([]), datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        certificate = made.add_extension(names, critical=True).sign(key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = folder / "stub.pem"
        path.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def nonce(self):
        """32 bytes; `bound` adds Casemate's header, by which a guest knows whose nonce it is (no part of section 1)."""
        if not self.bound:
            return base64.b64encode(os.urandom(32)).decode(), {}
        salt = os.urandom(32)
        nonce = hashlib.sha256(b"casemate nonce v1\0" + self.pin.encode() + b"\0" + salt).digest()
        return base64.b64encode(nonce).decode(), {"Casemate-Nonce-Salt": base64.b64encode(salt).decode()}

    def auth(self, asked):
        if asked.get("version") != "0.4.0":
            detail = f"KBS Client Protocol Version Mismatch: expect =0.4.0 while the request is {asked.get('version')}"
            return 401, {"type": ERRORS + "AttestationError", "detail": detail}, {}
        nonce, headers = self.nonce()
        session = os.urandom(16).hex()
        self.sessions[session] = (asked["tee"], nonce)
        cookie = {"Set-Cookie": f"kbs-session-id={session}; Expires=Fri, 01 Jan 2100 00:00:00 GMT"}
        return 200, {"nonce": nonce, "extra-params": ""}, {**headers, **cookie}

    def attest(self, said, cookie):
        session = cookie.removeprefix("kbs-session-id=")
        tee, nonce = self.sessions.get(session, (None, None))
        runtime, evidence = said["runtime-data"], said["tee-evidence"]
        if tee != "sample" or runtime["nonce"] != nonce:
            return 401, {"type": ERRORS + "AttestationError", "detail": "no such session"}, {}
        jwk = runtime["tee-pubkey"]
        kept = {name: jwk[name] for name in ("kty", "crv", "alg", "x", "y")}
        bound = {"additional-evidence": evidence["additional_evidence"], "nonce": nonce, "tee-pubkey": kept}
        digest = hashlib.sha384(rfc8785.dumps(bound)).digest()
        if base64.b64decode(evidence["primary_evidence"]["report_data"]) != digest:
            return 401, {"type": ERRORS + "AttestationError", "detail": "REPORT_DATA is different"}, {}
        parts = [{"alg": "ES256", "typ": "JWT"}, {"session": session}]
        token = ".".join([*(b64u(json.dumps(part).encode()) for part in parts), b64u(os.urandom(64))])
        self.tokens[token] = kept
        return 200, {"token": token}, {"Set-Cookie": cookie}

    def resource(self, path, bearer):
        jwk = self.tokens.get(bearer)
        if jwk is None or "expired" in self.faults:
            self.faults.discard("expired")
            return 401, {"type": ERRORS + "TokenNotFound", "detail": "Attestation Token not found"}, {}
        if path not in self.resources:
            return 401, {"type": ERRORS + "PluginInternalError", "detail": "Plugin internal error"}, {}
        return 200, seal(self.resources[path], jwk, spaces="spaces" in self.faults), {}

    def answer(self, method, path, body, headers):
        self.seen.append((method, path, body))
        if (method, path) == ("POST", "/kbs/v0/auth"):
            return self.auth(body)
        if (method, path) == ("POST", "/kbs/v0/attest"):
            return self.attest(body, headers.get("Cookie", ""))
        if method == "GET" and path.startswith("/kbs/v0/resource/"):
            bearer = headers.get("Authorization", "").removeprefix("Bearer ")
            return self.resource(path.removeprefix("/kbs/v0/resource/"), bearer)
        return 404, {"type": ERRORS + "PluginNotFound", "detail": "no such plugin"}, {}

    def _handler(stub):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self):
                length = int(self.headers.get("Content-Length", 0))
                raw = self.rfile.read(length)
                status, document, headers = stub.answer(
                    self.command, self.path, json.loads(raw) if raw else None, self.headers
                )
                data = json.dumps(document).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _serve

            def log_message(self, *_):
                pass

        return Handler
