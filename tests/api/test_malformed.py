"""Thousands of malformed requests to a broker that is a process of its own: no 5xx, and its memory stays flat.

Bodies, keys, tokens, cookies, paths and encodings are good ones that were broken by a seeded random source.
"""

import base64
import json
import random
import socket
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.api.test_serving import Running

from casemate.broker import prepare
from casemate.broker import settings as sets
from casemate.crypto import jwk
from casemate.drivers import brokerclient
from casemate.testing.broker import _free_port

KEY = jwk.from_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
MIB = 1 << 20


class Frame(bytes):
    """Bytes that are no whole request of HTTP."""


class Wire:
    """One TLS connection for many requests, opened again when the broker closed it."""

    def __init__(self, port):
        self.port, self.peer = port, None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE

    def ask(self, data):
        """(status, whole answer); status 0 when the broker closed, or waits for more, without a word."""
        if isinstance(data, Frame):  # what follows on this connection would be part of it
            self.drop()
        for _ in range(2):
            fresh = self.peer is None
            if fresh:
                plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                self.peer = self.context.wrap_socket(plain)
            try:
                self.peer.settimeout(0.3 if isinstance(data, Frame) else 10)
                self.peer.sendall(data)
                answer = self._answer(data.startswith(b"HEAD "))
            except OSError:
                answer = b""
            if answer:
                if isinstance(data, Frame) or b"\r\nconnection: close" in answer.lower():
                    self.drop()
                return int(answer.split(b" ", 2)[1]), answer
            self.drop()
            if fresh:
                break
        return 0, b""

    def drop(self):
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def _answer(self, bare):
        found = b""
        while b"\r\n\r\n" not in found:
            piece = self.peer.recv(65536)
            if not piece:
                return found
            found += piece
        head, _, body = found.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length and not bare:
            piece = self.peer.recv(65536)
            if not piece:
                break
            body += piece
        return head + b"\r\n\r\n" + body


def request(method, path, body=b"", *headers):
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Breaker:
    """Makes malformed requests from good ones."""

    def __init__(self, seed, token, paths):
        self.random, self.token, self.paths = random.Random(seed), token, paths
        self.nonce, self.cookie = "", b""
        self.makers = (self.body, self.key, self.jwt, self.biscuit, self.path, self.encoding, self.head, self.frame)

    def next(self):
        return self.random.choice(self.makers)()

    def junk(self, most=40):
        return self.random.randbytes(self.random.randrange(most))

    def bent(self, data):
        """Bytes with something cut, doubled, flipped or put in."""
        out = bytearray(data)
        for _ in range(self.random.randrange(1, 4)):
            at = self.random.randrange(len(out) + 1)
            kind = self.random.randrange(5)
            if kind == 0:
                del out[at : at + self.random.randrange(1, 9)]
            elif kind == 1:
                out[at:at] = self.junk(9)
            elif kind == 2 and out:
                out[at % len(out)] ^= 1 << self.random.randrange(8)
            elif kind == 3:
                out[at:at] = out[at : at + 20]
            else:
                out[at:at] = self.random.choice(
                    (b"\x00", b"\xff", b"\\ud800", b"[" * 200, b'{"a":' * 60, b"1e999", b"NaN", b"-0", b"9" * 400)
                )
        return bytes(out)

    def value(self, depth=0):
        r = self.random
        plain = (
            None,
            True,
            -1,
            0.5,
            10**30,
            "",
            "a",
            "\u0000",
            "é" * 9,
            "\ud800",
            "A" * 4096,
            base64.b64encode(self.junk()).decode(),
        )
        if depth > 2 or r.random() < 0.7:
            return r.choice(plain)
        if r.random() < 0.5:
            return [self.value(depth + 1) for _ in range(r.randrange(4))]
        return {
            str(r.choice(("a", "nonce", "kty", "tee-pubkey", "", "__proto__"))): self.value(depth + 1)
            for _ in range(r.randrange(4))
        }

    def attestation(self, key):
        return {
            "init-data": self.random.choice(
                (None, {"format": "toml", "body": 'version = "0.1.0"'}, {"format": "toml", "body": "= ["})
            ),
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": key},
            "tee-evidence": {
                "primary_evidence": {"quote": self.value(), "report": self.value()},
                "additional_evidence": self.random.choice(("", "{}", "[", '{"nvidia": 1}')),
            },
        }

    def swapped(self, document):
        """A document with one member, anywhere, that is something else or gone."""
        places = [(document, name) for name in document] + [
            (inner, name) for inner in document.values() if isinstance(inner, dict) for name in inner
        ]
        where, name = self.random.choice(places)
        if self.random.random() < 0.2:
            del where[name]
        else:
            where[name] = self.value()
        return document

    def body(self):
        good = self.random.choice(({"version": "0.4.0", "tee": "tpm", "extra-params": {}}, self.attestation(dict(KEY))))
        path = b"/kbs/v0/auth" if "version" in good else b"/kbs/v0/attest"
        data = json.dumps(self.swapped(good)).encode()
        return request(
            b"POST", path, self.bent(data) if self.random.random() < 0.6 else data, b"Cookie: " + self.cookie
        )

    def key(self):
        r = self.random
        key = dict(KEY)
        for _ in range(r.randrange(1, 3)):
            name = r.choice(("kty", "crv", "alg", "x", "y", "d", "n", "e", "k"))
            key[name] = r.choice(("", "RSA", "EC", "oct", "P-521", "none", "AA", "=", "A" * 700, self.value()))
        return request(
            b"POST", b"/kbs/v0/attest", json.dumps(self.attestation(key)).encode(), b"Cookie: " + self.cookie
        )

    def jwt(self):
        r = self.random
        head = base64.urlsafe_b64encode(
            json.dumps(
                r.choice(
                    (
                        {"alg": "none"},
                        {"alg": "ES256", "kid": "x" * 300},
                        {"alg": "HS256"},
                        {"alg": "EdDSA", "jku": "https://a.example"},
                        {"alg": "ES256", "jwk": KEY},
                        {"alg": 7},
                        [],
                        {"alg": "EdDSA", "crit": ["b64"]},
                    )
                )
            ).encode()
        ).rstrip(b"=")
        parts = [
            head,
            base64.urlsafe_b64encode(json.dumps(self.value()).encode()).rstrip(b"="),
            base64.urlsafe_b64encode(self.junk(100)).rstrip(b"="),
        ]
        token = r.choice(
            (
                b".".join(parts),
                b".".join(parts[: r.randrange(4)]),
                self.bent(self.token.encode()),
                b"." * r.randrange(9),
                b"a" * 9000,
            )
        )
        token = bytes(byte for byte in token if byte >= 32 and byte != 127)
        path = r.choice(self.paths)
        return request(
            r.choice((b"GET", b"POST", b"DELETE")),
            path,
            b"" if r.random() < 0.7 else self.junk(),
            b"Authorization: Bearer " + token,
        )

    def biscuit(self):
        bent = bytes(byte for byte in self.bent(self.cookie) if byte >= 32 and byte != 127)
        cookie = self.random.choice(
            (
                bent,
                self.cookie + b"; " + self.cookie,
                b"kbs-session-id=",
                b"kbs-session-id=" + b"A" * 5000,
                b"; ;=;\xff=\xfe",
            )
        )
        if self.random.random() < 0.5:
            return request(b"GET", b"/kbs/v0/resource/a/b/c", b"", b"Cookie: " + cookie)
        return request(
            b"POST", b"/kbs/v0/attest", json.dumps(self.attestation(dict(KEY))).encode(), b"Cookie: " + cookie
        )

    def path(self):
        r = self.random
        odd = (
            b"%00",
            b"%ff",
            b"..",
            b"%2e%2e",
            b"%2F",
            b"a" * 3000,
            b"%",
            b"%zz",
            b"~",
            b"*",
            b"a?b=%ff&b=" + b"9" * 400,
            b";",
            b"%E2%80%AE",
            b"-1",
            b"'",
            b"",
        )
        start = r.choice(
            (
                b"/kbs/v0/resource/",
                b"/casemate/v0/apps/",
                b"/casemate/v0/admin/",
                b"/casemate/v0/log/tile/",
                b"/casemate/v0/receipts/",
                b"/casemate/v0/volumes/",
                b"/",
                b"//",
                *self.paths,
            )
        )
        path = start.rstrip(b"/") + b"/" + b"/".join(r.choice(odd) for _ in range(r.randrange(5)))
        headers = [b"Authorization: Bearer " + self.token.encode()] if r.random() < 0.5 else []
        return request(r.choice((b"GET", b"POST", b"DELETE", b"PUT", b"HEAD", b"PATCH")), path, b"", *headers)

    def encoding(self):
        r = self.random
        header = r.choice(
            (
                b"Content-Type: text/plain; charset=utf-7",
                b"Content-Encoding: gzip",
                b"Content-Encoding: br",
                b"Content-Type: multipart/form-data",
                b"Accept: \xff",
                b'If-None-Match: W/"' + b"9" * 30,
                b"Transfer-Encoding: gzip, chunked",
                b"Range: bytes=0-",
                b"Expect: 100-continue",
                b"Upgrade: websocket",
                b"Connection: upgrade, close",
            )
        )
        data = json.dumps({"version": "0.4.0", "tee": "tpm"}).encode(
            r.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1"))
        )
        return Frame(request(b"POST", b"/kbs/v0/auth", data, header))

    def head(self):
        r = self.random
        return request(
            r.choice((b"GET", b"POST")),
            r.choice(self.paths),
            b"",
            b"X-Request-Id: " + bytes(byte for byte in self.junk() if byte >= 32 and byte != 127),
            b"X: " + b"a" * r.choice((1, 9000, 70000)),
            b"Authorization: " + r.choice((b"", b"Bearer", b"Basic Og==", b"Bearer  x", b"bearer\tx")),
        )

    def frame(self):
        r = self.random
        return Frame(r.choice((
            b"GET / HTTP/9.9\r\n\r\n",
            self.junk(200) + b"\r\n\r\n",
            b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
            b"\r\n\r\n\r\n",
        )))  # fmt: skip


def rss(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")


def challenge(wire, breaker):
    asked = b'{"version":"0.4.0","tee":"tpm","extra-params":{}}'
    status, answer = wire.ask(request(b"POST", b"/kbs/v0/auth", asked))
    assert status == 200, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    breaker.nonce = json.loads(body)["nonce"]
    breaker.cookie = next(
        line.split(b": ", 1)[1].split(b";")[0]
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"set-cookie:")
    )


def storm(folder, count):
    prepare.prepare(folder, folder / "admin.key", port=_free_port(), drain_seconds=1)
    with Running(folder, "--log", str(folder / "broker.log")) as made:
        made.ready()
        token = brokerclient.Admin(made.url, made.pin, folder / "admin.key").token()
        paths = [path.encode() for path in made.call("GET", "/openapi.json").json()["paths"]]
        wire, breaker = Wire(sets.load(folder).port), Breaker(count, token, paths)
        statuses, marks = {}, []
        for number in range(count):
            if number % 50 == 0:
                challenge(wire, breaker)
            if number % 2000 == 0:
                breaker.token = brokerclient.Admin(made.url, made.pin, folder / "admin.key").token()
            sent = breaker.next()
            status, answer = wire.ask(sent)
            assert status < 500, (number, sent[:2000], answer[:2000])
            statuses[status] = statuses.get(status, 0) + 1
            if number % (count // 10) == 0:
                marks.append(rss(made.process.pid))
        challenge(wire, breaker)
        wire.drop()
        assert made.call("GET", "/readyz").status == 200
        marks.append(rss(made.process.pid))
    log = (folder / "broker.log").read_text()
    assert "unexpected" not in log
    assert token not in log
    return statuses, marks


def growth(marks):
    """In the second half: caches and the allocator have what they need by then."""
    return max(marks[len(marks) // 2 :]) - marks[len(marks) // 2 - 1]


def test_1500_malformed_requests(tmp_path):
    statuses, marks = storm(tmp_path, 1500)
    assert statuses.get(400, 0) > 100
    assert statuses.get(401, 0) > 100
    assert growth(marks) < 12 * MIB, [mark // MIB for mark in marks]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_10000_malformed_requests(tmp_path):
    statuses, marks = storm(tmp_path, 10000)
    print(statuses, [mark // MIB for mark in marks])
    assert growth(marks) < 8 * MIB, [mark // MIB for mark in marks]
