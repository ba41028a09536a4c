"""The guest's agent, asked by a container through its local API (HTTP/1.1 on a UNIX socket)."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

from casemate.errors import Malformed, Unavailable

TIMEOUT = 30.0
LIMIT = 4 << 20


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


def ask(path: Path, target: str) -> tuple[int, bytes, str]:
    """(status, body, media type) of the agent's answer to GET `target`; `Unavailable` when nobody answers."""
    connection = _Unix(path)
    try:
        connection.request("GET", target)
        got = connection.getresponse()
        body = got.read(LIMIT + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable("the guest's agent does not answer", hint="does the manifest grant api.evidence?") from error
    finally:
        connection.close()
    if len(body) > LIMIT:
        raise Malformed(f"the agent's answer has more than {LIMIT} bytes")
    return got.status, body, got.headers.get_content_type()
