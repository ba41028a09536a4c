"""Registries for tests: Debian's real one on a free port, and one in this process that can be told to lie."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

Lie = Callable[["Handler"], bool]


@contextmanager
def real(folder: Path, *, htpasswd: str | None = None, tls: Path | None = None) -> Iterator[str]:
    """Debian's docker-registry with its data in `folder`; yields ``127.0.0.1:PORT``. `htpasswd` closes it.

    `tls` is a PEM file with key and certificate: then it speaks HTTPS.
    """
    from casemate.drivers import tools

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config: dict[str, Any] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host},
        "log": {"accesslog": {"disabled": True}, "level": "error"},
    }
    if tls:
        config["http"]["tls"] = {"certificate": str(tls), "key": str(tls)}
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "registry.yml").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            tools.argv("docker-registry", "serve", str(folder / "registry.yml")), stdout=log, stderr=log
        )
        try:
            _wait(host, process)
            yield host
        finally:
            process.terminate()
            process.wait(10)


def tls_key(path: Path) -> str:
    """Write a new key with a certificate of its own to `path` (PEM); the key's pin."""
    from casemate.crypto import pins, selfsigned

    key = ec.generate_private_key(ec.SECP256R1())
    made = selfsigned.certificate(key, ["127.0.0.1"], datetime.now(UTC))
    path.write_bytes(selfsigned.key_pem(key) + made.public_bytes(serialization.Encoding.PEM))
    return pins.certificate_pin(made.public_bytes(serialization.Encoding.DER))


def _wait(host: str, process: subprocess.Popen[bytes]) -> None:
    address, _, port = host.partition(":")
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError(f"the registry ended with {process.returncode}")
        try:
            socket.create_connection((address, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the registry does not answer")


class Handler(BaseHTTPRequestHandler):
    """Enough of the distribution API for push and pull; `lies` by path come first."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Answer a GET; every method comes this way."""
        path = urlsplit(self.path).path
        self.server.seen.append((self.command, path, dict(self.headers)))
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length) if length else b""
        for pattern, lie in list(self.server.lies.items()):
            if re.search(pattern, f"{self.command} {path}") and lie(self):
                return
        self.honest(path)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - as above

    def honest(self, path: str) -> None:
        """What a registry that does its duty answers."""
        store, method = self.server, self.command
        kind, _, name = path.rpartition("/")
        if method == "POST":
            self.answer(202, headers={"Location": f"{path}1?state=x"})
        elif method in ("PATCH", "PUT") and kind.endswith("/uploads"):
            self._upload(path)
        elif method == "PUT":
            store.manifests[name] = store.manifests[digest(self.body)] = self.body
            self.answer(201)
        elif kind.endswith("/manifests") and name in store.manifests:
            self.answer(200, store.manifests[name], {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
        elif kind.endswith("/blobs") and name in store.blobs:
            self._blob(store.blobs[name])
        elif path.endswith("/tags/list"):
            tags = [tag for tag in store.manifests if not tag.startswith("sha256:")]
            self.answer(200, json.dumps({"name": "x", "tags": tags}).encode())
        else:
            self.answer(404, b'{"errors":[{"code":"UNKNOWN"}]}')

    def _blob(self, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            self.answer(200, data)
            return
        start, end = int(asked[1]), int(asked[2])
        self.answer(206, data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _upload(self, path: str) -> None:
        store = self.server
        store.upload += self.body
        if self.command == "PATCH":
            self.answer(202, headers={"Location": f"{path}?state=y"})
            return
        wanted = parse_qs(urlsplit(self.path).query)["digest"][0]
        right = wanted == digest(bytes(store.upload))
        if right:
            store.blobs[wanted] = bytes(store.upload)
        store.upload.clear()
        self.answer(201 if right else 400)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """One answer; a Content-Length among `headers` replaces the true one."""
        given = {"Content-Length": str(len(body)), **(headers or {})}
        self.send_response(status)
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


class Server(ThreadingHTTPServer):
    """A registry on loopback. `lies`: pattern over ``METHOD /path`` -> what answers instead, if it returns true."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.lies: dict[str, Lie] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.upload = bytearray()

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is the purpose of some tests."""

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def lying() -> Iterator[Server]:
    """A running `Server`; honest until told otherwise."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def digest(data: bytes) -> str:
    """``sha256:<hex>`` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def basic(username: str, password: str) -> str:
    """The Authorization header of these credentials."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
