"""The local API of one container: HTTP/1.1 on a UNIX socket that only this container sees (CoCo's REST paths).

    GET /cdh/resource/{repository}/{type}/{tag}          a resource that the manifest lists under api.resources
    GET /aa/token?token_type=kbs                         {"token"}: says who this is, opens nothing (its key is gone)
    GET /aa/evidence?runtime_data=..[&encoding=base64]   evidence over the data, under the purpose tag "local-api"
    GET /.well-known/casemate/evidence?nonce=..[&port=..]  evidence over the nonce and the TLS key at that port

Closed unless the manifest grants it to this container. Keys of images and volumes and registry credentials are never
served. Evidence hashes what the caller gives under a purpose tag (`release.session`): no broker releases a key for it.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from casemate.crypto import pins
from casemate.errors import CasemateError, Malformed, Refused, Unavailable
from casemate.guest.attest import Attester
from casemate.release import session
from casemate.schema.manifest import Container, Manifest
from casemate.schema.request import Request
from casemate.wire.encoding import b64, unb64u

MAX_HEAD = 16 << 10
MAX_DATA = 8 << 10
TIMEOUT = 15.0
MAX_CALLS = 8
EVIDENCE_PATH = "/.well-known/casemate/evidence"
_RESOURCE = re.compile(r"/cdh/resource/([A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*){2})")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Answer(NamedTuple):
    """What goes back; errors are one plain sentence."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"


class Backend(NamedTuple):
    """What the API stands on; functions, so that tests need no VM. `tls_pin(port)` makes one handshake to localhost."""

    document: bytes
    attester: Attester
    resource: Callable[[str], bytes]
    token: Callable[[], str]
    tls_pin: Callable[[int], str]


class Api:
    """The API for one container of the manifest."""

    def __init__(self, manifest: Manifest, container: Container, backend: Backend) -> None:
        self._grants, self._backend = container.api, backend
        self._resources = frozenset(container.api.resources) - closed_resources(manifest)
        self._ports = frozenset(rule.container for c in manifest.containers for rule in c.ports if rule.tls)
        self._evidence_lock = threading.Lock()  # a TPM is slow; one caller at a time

    def answer(self, method: str, target: str) -> Answer:
        """The answer to one request; never raises."""
        if method != "GET":
            return Answer(405, b"only GET is served")
        try:
            parts = urlsplit(target)
            query = dict(
                parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=8)
            )
            return self._route(parts.path, query)
        except (Malformed, ValueError, UnicodeError) as error:
            text = str(error) if isinstance(error, Malformed) else "the request cannot be read"
            return Answer(400, text.encode())
        except Refused as error:
            return Answer(403, str(error).encode())
        except Unavailable as error:
            return Answer(503, str(error).encode())
        except CasemateError as error:
            return Answer(500, str(error).encode())

    def _route(self, path: str, query: dict[str, str]) -> Answer:
        if match := _RESOURCE.fullmatch(path):
            return self._resource(f"kbs:///{match[1]}")
        if path == "/aa/token":
            return self._token(query)
        if path == "/aa/evidence":
            return self._evidence(query)
        if path == EVIDENCE_PATH:
            return self._service(query)
        return Answer(404, b"no such path")

    def _resource(self, uri: str) -> Answer:
        if uri not in self._resources:
            return _closed(f"api.resources of this container does not list {uri}")
        return Answer(200, self._backend.resource(uri), "application/octet-stream")

    def _token(self, query: dict[str, str]) -> Answer:
        if not self._grants.token:
            return _closed("api.token is not granted to this container")
        if query.get("token_type") != "kbs":
            return Answer(400, b"token_type=kbs is wanted")
        return _json({"token": self._backend.token()})

    def _evidence(self, query: dict[str, str]) -> Answer:
        if not self._grants.evidence:
            return _closed("api.evidence is not granted to this container")
        text = query.get("runtime_data")
        if text is None or len(text) > MAX_DATA or query.get("encoding", "base64") != "base64":
            return Answer(400, f"runtime_data of at most {MAX_DATA} characters is wanted".encode())
        data = unb64u(text, "runtime_data") if "encoding" in query else text.encode()
        return _json(self._collected("local-api", data).primary)

    def _service(self, query: dict[str, str]) -> Answer:
        if not self._grants.evidence:
            return _closed("api.evidence is not granted to this container")
        nonce = unb64u(query.get("nonce", ""), "nonce", size=32)
        text = query.get("port") or (str(*self._ports) if len(self._ports) == 1 else "")
        if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) not in self._ports:
            return _closed("the manifest lists no such port with tls: true")
        pin = self._backend.tls_pin(int(text))
        evidence = self._collected("service", nonce + bytes.fromhex(pin.removeprefix("sha256:")))
        told = {"tee": evidence.tee, "primary": evidence.primary, "additional": evidence.additional}
        return _json({"evidence": told, "initdata": b64(self._backend.document), "tls_key": pin, "port": int(text)})

    def _collected(self, purpose: str, data: bytes) -> Any:
        digest = hashlib.sha256(self._backend.document).digest()
        request = Request(report_data=session.purpose_data(purpose, data), initdata_digest=digest)
        with self._evidence_lock:
            return self._backend.attester.collect(request)


def granted(container: Container) -> bool:
    """Whether the container gets a socket at all."""
    return bool(container.api.resources or container.api.token or container.api.evidence)


def closed_resources(manifest: Manifest) -> frozenset[str]:
    """What no container may read, whatever it is granted."""
    found = {volume.key for volume in manifest.volumes}
    found |= {registry.credentials for registry in manifest.registries if registry.credentials}
    for container in manifest.containers:
        found |= set(container.image_keys)
    return frozenset(found)


class Server:
    """Serves `api` on the socket `path` until closed; a few calls at a time, each bounded in size and time."""

    def __init__(self, path: Path, api: Api) -> None:
        self._api = api
        self._slots = threading.BoundedSemaphore(MAX_CALLS)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(16)
        threading.Thread(target=self._accept, name="local API", daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._slots.acquire()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(TIMEOUT)
                head = _head(connection)
                words = head.split(b"\r\n", 1)[0].split(b" ") if head else []
                if len(words) == 3 and words[2].startswith(b"HTTP/1."):
                    answer = self._api.answer(words[0].decode("latin-1"), words[1].decode("latin-1"))
                else:
                    answer = Answer(400, b"not an HTTP/1 request")
                connection.sendall(_render(answer))
        except OSError:
            return
        finally:
            self._slots.release()


def _head(connection: socket.socket) -> bytes:
    """The request up to its blank line; empty when it is too long or ends early."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(4096)
        if not part or len(data) > MAX_HEAD:
            return b""
        data += part
    return data


def _render(answer: Answer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nContent-Type: {answer.kind}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + answer.body


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value, separators=(",", ":")).encode(), "application/json")


def _closed(why: str) -> Answer:
    return Answer(403, why.encode())


def local_pin(port: int) -> str:
    """The pin of the TLS key that answers at this VM's own `port`."""
    from casemate.drivers import tlspeer

    found = tlspeer.pin("127.0.0.1", port)
    if not pins.is_digest(found):
        raise Malformed("the service's certificate cannot be read")
    return found
