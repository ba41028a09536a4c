"""Requests of commands to a workload's supervisor: frames over a UNIX socket in the workload's folder (mode 0700).

One request a connection: {"request": "stop" | "signal" | "exec" | "logs" | "ping", ...}, answered by one frame
{"ok": bool, ...} or {"ok": false, "error", "hint"}. Only the folder's owner can connect.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from casemate.errors import Unavailable, Unusable
from casemate.wire import frames

SOCKET = "request.sock"


def ask(folder: Path, request: dict[str, Any], *, timeout: float = 10.0) -> dict[str, Any]:
    """Send one request to the supervisor of the workload in `folder` and return its answer."""
    deadline = time.monotonic() + timeout
    connection = connect(folder, SOCKET, timeout=timeout)
    try:
        connection.sendall(frames.pack(request))
        reader = frames.FrameReader()
        while True:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            data = connection.recv(65536)
            if not data:
                raise Unavailable("the supervisor closed the connection")
            for answer in reader.feed(data):
                return _answer(answer)
            if time.monotonic() > deadline:
                raise Unavailable("the supervisor does not answer")
    except TimeoutError as error:
        raise Unavailable("the supervisor does not answer") from error
    except OSError as error:
        raise Unavailable(f"the supervisor does not answer ({error.strerror})") from error
    finally:
        connection.close()


def connect(folder: Path, name: str, *, timeout: float = 5.0) -> socket.socket:
    """Connect to the socket `name` in `folder`, however deep: sun_path holds only /proc/self/fd/N/name."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    handle = -1
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{handle}/{name}")
    except OSError as error:
        connection.close()
        raise Unavailable(f"no supervisor answers in {folder.name} ({error.strerror})") from error
    finally:
        if handle >= 0:
            os.close(handle)
    return connection


def _answer(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("ok") is True:
        return answer
    raise Unusable(str(answer.get("error", "the supervisor refused"))[:500], hint=str(answer.get("hint", ""))[:500])
