"""QMP: QEMU's control protocol over a UNIX socket (QEMU docs/interop/qmp-spec), bounded in time and size.

One JSON object per line; QEMU greets, we answer `qmp_capabilities`, then each command has one reply. Events that arrive
in between are kept (the newest 64). A reply that breaks the format is `Malformed`, silence is `Unavailable`.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from types import TracebackType
from typing import Any

import msgspec

from casemate.errors import Malformed, Unavailable
from casemate.wire import jcs

MAX_LINE = 1 << 20
_MAX_EVENTS = 64


class Qmp:
    """A connection to one QEMU that greets on `connection`."""

    def __init__(self, connection: socket.socket, *, timeout: float = 5.0) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._timeout = timeout
        self._counter = 0
        self.events: deque[dict[str, Any]] = deque(maxlen=_MAX_EVENTS)
        greeting = self._message(time.monotonic() + timeout)
        if "QMP" not in greeting:
            raise Malformed("QMP: no greeting")
        self.execute("qmp_capabilities")

    @classmethod
    def connect(cls, path: str, *, timeout: float = 5.0) -> Qmp:
        """Connect to the socket at `path`."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(path)
            return cls(connection, timeout=timeout)
        except OSError as error:
            connection.close()
            raise Unavailable(f"QMP: {error}") from error
        except BaseException:
            connection.close()
            raise

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run one command and return its value; QEMU's own error becomes `Unavailable`."""
        self._counter += 1
        request = {"execute": command, "id": self._counter, **({"arguments": arguments} if arguments else {})}
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
        except OSError as error:
            raise Unavailable(f"QMP: {error}") from error
        while True:
            reply = self._message(deadline)
            if "event" in reply:
                self.events.append(reply)
            elif reply.get("id") == self._counter:
                break
        if "error" in reply:
            detail = reply["error"].get("desc", "") if isinstance(reply["error"], dict) else ""
            raise Unavailable(f"QMP: {command} failed: {str(detail)[:200]}")
        return reply.get("return")

    def close(self) -> None:
        """End the connection; QEMU goes on."""
        self._socket.close()

    def __enter__(self) -> Qmp:
        """Closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _message(self, deadline: float) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                raise Malformed(f"QMP: a line longer than {MAX_LINE} bytes")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable("QMP: no answer in time")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError as error:
                raise Unavailable("QMP: no answer in time") from error
            except OSError as error:
                raise Unavailable(f"QMP: {error}") from error
            if not data:
                raise Unavailable("QMP: QEMU closed the connection")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return jcs.parse_object(line, "QMP", limit=MAX_LINE)
