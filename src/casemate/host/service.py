"""The supervisor's door for commands: one request a connection, answered at once or when the guest has replied."""

from __future__ import annotations

import selectors
import socket
import time
from typing import TYPE_CHECKING, Any

from casemate.errors import CasemateError, Malformed
from casemate.host import stopping
from casemate.host.requests import SOCKET
from casemate.wire import frames

if TYPE_CHECKING:
    from casemate.host.supervisor import Supervisor

_MAX_CONNECTIONS = 32
_REPLY_SECONDS = 60.0
_MAX_ARGUMENTS = 64


class Requests:
    """Open connections: readers not done yet, and those that wait for the guest's reply (by message id)."""

    def __init__(self, owner: Supervisor) -> None:
        self._owner = owner
        self._selector: selectors.BaseSelector | None = None
        self._readers: dict[socket.socket, frames.FrameReader] = {}
        self._waiting: dict[int, tuple[socket.socket, float]] = {}
        self._counter = 0

    def listen(self, selector: selectors.BaseSelector) -> None:
        """Open the door in the working directory, which is the workload's folder."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(SOCKET)
        listener.listen(8)
        listener.setblocking(False)
        self._selector = selector
        selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))

    def reply(self, message: dict[str, Any]) -> None:
        """Hand the guest's reply to the command that waits for it."""
        number = message.get("id")
        entry = self._waiting.pop(number, None) if isinstance(number, int) else None
        if entry is not None:
            _answer(entry[0], {"ok": True, "reply": message})

    def expire(self) -> None:
        """Give up on replies that did not come."""
        now = time.monotonic()
        for number in [n for n, (_, deadline) in self._waiting.items() if now > deadline]:
            _answer(self._waiting.pop(number)[0], _error("the guest did not reply"))

    def farewell(self) -> None:
        """Close every connection."""
        for connection in [*self._readers, *(entry[0] for entry in self._waiting.values())]:
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if len(self._readers) + len(self._waiting) >= _MAX_CONNECTIONS or self._selector is None:
            connection.close()
            return
        connection.setblocking(False)
        self._readers[connection] = frames.FrameReader()
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: socket.socket) -> None:
        reader = self._readers[connection]
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        request = next(reader.feed(data), None)
        if request is None and data:
            return
        del self._readers[connection]
        if self._selector is not None:
            self._selector.unregister(connection)
        if request is None:
            connection.close()
            return
        try:
            self._serve(connection, request)
        except CasemateError as error:
            _answer(connection, _error(str(error), error.hint))

    def _serve(self, connection: socket.socket, request: dict[str, Any]) -> None:
        owner, kind = self._owner, str(request.get("request"))
        if kind == "ping":
            _answer(connection, {"ok": True, "state": owner.state.state})
        elif kind == "stop":
            owner.ladder.begin(_number(request.get("grace"), stopping.GRACE_SECONDS))
            _answer(connection, {"ok": True, "state": owner.state.state})
        elif kind in {"signal", "exec", "logs"}:
            self._forward(connection, kind, request)
        else:
            _answer(connection, _error("no such request"))

    def _forward(self, connection: socket.socket, kind: str, request: dict[str, Any]) -> None:
        """Pass a request to the guest if the manifest grants it; the guest decides again by itself."""
        plan, container = self._owner.plan, request.get("container")
        granted = {"exec": plan.exec, "logs": plan.logs, "signal": request.get("signal") in plan.signals}[kind]
        if not granted:
            _answer(connection, _error(f"the manifest does not grant {kind} to the host", "see `host` in the manifest"))
            return
        if container not in plan.containers:
            _answer(connection, _error(f"no such container; there are: {', '.join(plan.containers)}"))
            return
        self._counter += 1
        message: dict[str, Any] = {"type": kind, "id": self._counter, "container": container}
        if kind == "signal":
            message["signal"] = request["signal"]
        elif kind == "logs":
            message["tail"] = int(_number(request.get("tail"), 100))
        else:
            words = request.get("command")
            message["command"] = [str(w) for w in words[:_MAX_ARGUMENTS]] if isinstance(words, list) else []
        if not self._owner.tell(message):
            _answer(connection, _error("the guest's agent is not there"))
            return
        self._waiting[self._counter] = (connection, time.monotonic() + _REPLY_SECONDS)


def _number(value: Any, default: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= stopping.MAX_GRACE
    return float(value) if good else default


def _error(text: str, hint: str = "") -> dict[str, Any]:
    return {"ok": False, "error": text, "hint": hint}


def _answer(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one frame and close; a command that went away misses it. What the guest says may not fit into a frame."""
    try:
        frame = frames.pack(message)
    except Malformed:
        frame = frames.pack(_error("the answer can't be passed on: too long, or not plain JSON", "ask for less"))
    try:
        connection.settimeout(1.0)
        connection.sendall(frame)
    except OSError:
        pass
    finally:
        connection.close()
