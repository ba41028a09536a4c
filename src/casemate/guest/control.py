"""The guest's end of the control channel: a virtio-serial port, one byte stream of frames (`wire/frames.py`).

Rules
1. The host is hostile: what it asks is answered only as far as the manifest allows (`Asked` decides), each field is of
   the type it must be, and everything else is ignored.
2. A host that does not read never holds the agent up: what can't be sent waits in a bounded queue, oldest log first to
   be dropped.
3. What is said here is never proof of anything; the host's owner verifies evidence.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from casemate.errors import Finding, Malformed
from casemate.wire import frames

PORT = "casemate.ctl"
PORTS = Path("/sys/class/virtio-ports")
VERSION = 1
MAX_TEXT = 1500
MAX_FINDINGS = 48
_MAX_WAITING = 512
_MAX_WAITING_LOGS = 64
_IDLE = 0.2

Handler = Callable[[dict[str, Any]], dict[str, Any] | None]


def find_port(ports: Path = PORTS) -> Path | None:
    """The device of the port that carries our name; None when the VM has none."""
    for entry in sorted(ports.glob("*")):
        try:
            if (entry / "name").read_text("ascii", "replace").strip() == PORT:
                return Path("/dev") / entry.name
        except OSError:
            continue
    return None


class Control:
    """Sends without ever blocking and hands what comes in to `handler`, whose answer goes back as a reply.

    Without a port (`path` None) everything said is dropped: the workload does not depend on the host's ear.
    """

    def __init__(self, path: Path | None, handler: Handler | None = None) -> None:
        self.handler = handler
        self._queue: deque[bytes] = deque()
        self._logs: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._state: dict[str, Any] = {"type": "state", "state": "starting", "findings": [], "message": ""}
        self._closing = False
        self.lost = 0
        self._fd = -1 if path is None else os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        if self._fd >= 0:
            self._thread.start()

    def hello(self, agent: str) -> None:
        """Introduce the agent."""
        self._put({"type": "hello", "version": VERSION, "agent": agent})

    def phase(self, name: str, **detail: str | int | float | bool) -> None:
        """A phase of the start is done; `t` is seconds since the kernel booted."""
        self._put({"type": "phase", "name": name, "t": round(time.monotonic(), 3), "detail": detail})

    def state(self, state: str, message: str = "", findings: Iterable[Finding] = ()) -> None:
        """What the workload is now, with the findings of a refusal."""
        told = [_plain(finding) for finding in list(findings)[:MAX_FINDINGS]]
        self._state = {"type": "state", "state": state, "findings": told, "message": text(message)}
        self._put(self._state)

    def container(self, name: str, event: str, code: int | None = None) -> None:
        """A container started, exited or is about to restart."""
        self._put({"type": "container", "name": name, "event": event, "code": code})

    def log(self, container: str, stream: str, data: str) -> None:
        """Output of a container, base64; the caller has asked the manifest."""
        self._put({"type": "log", "container": container, "stream": stream, "data": data}, log=True)

    def reply(self, ident: Any, answer: dict[str, Any]) -> None:
        """Answer the request `ident`; a request without one gets none."""
        if ident is not None:
            self._put({"type": "reply", "id": ident, **answer})

    @property
    def last_state(self) -> dict[str, Any]:
        """The state as last told."""
        return self._state

    def close(self, wait: float = 2.0) -> None:
        """Send what waits, at most for `wait` seconds, and stop."""
        if self._fd >= 0 and self._thread.is_alive():
            deadline = time.monotonic() + wait
            while (self._queue or self._logs) and time.monotonic() < deadline:
                time.sleep(0.02)
            self._closing = True
            self._wake()
            self._thread.join(1.0)

    def _put(self, message: dict[str, Any], *, log: bool = False) -> None:
        try:
            frame = frames.pack(message)
        except Malformed:
            self.lost += 1
            return
        with self._lock:
            queue, most = (self._logs, _MAX_WAITING_LOGS) if log else (self._queue, _MAX_WAITING)
            queue.append(frame)
            if len(queue) > most:
                queue.popleft()
                self.lost += 1
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            return  # it is awake already

    def _serve(self) -> None:
        """One thread for both directions."""
        reader, pending = frames.FrameReader(), b""
        while not self._closing:
            pending = pending or self._next()
            heard, writable = self._wait(bool(pending))
            try:
                if writable:
                    pending = pending[os.write(self._fd, pending[:65536]) :]
                if heard:
                    for message in reader.feed(os.read(self._fd, 65536)):
                        self._answer(message)
            except BlockingIOError:
                continue
            except OSError:
                time.sleep(_IDLE)

    def _next(self) -> bytes:
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            return self._logs.popleft() if self._logs else b""

    def _wait(self, sending: bool) -> tuple[bool, bool]:
        """(there is something to read, something can be written); returns at once when `_wake` was called."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._fd, select.POLLIN | (select.POLLOUT if sending else 0))
        events = dict(poll.poll(1000))
        if self._wake_read in events:
            os.read(self._wake_read, 4096)
        seen = events.get(self._fd, 0)
        if seen & (select.POLLHUP | select.POLLERR) and not seen & select.POLLIN:
            time.sleep(_IDLE)  # nobody is at the other end; the port would report that without pause
            return False, False
        return bool(seen & select.POLLIN), bool(seen & select.POLLOUT)

    def _answer(self, message: dict[str, Any]) -> None:
        ident = message.get("id")
        if self.handler is None or (ident is not None and not _is_ident(ident)):
            return
        try:
            answer = self.handler(message)
        except Exception as error:  # noqa: BLE001 - nothing that the host says may end the agent
            answer = {"ok": False, "error": f"the request failed ({type(error).__name__})"}
        if answer is not None:
            self.reply(ident, answer)


def text(value: str, limit: int = MAX_TEXT) -> str:
    """One bounded printable line."""
    return "".join(c if c.isprintable() else " " for c in value[:limit])


def _plain(finding: Finding) -> dict[str, str]:
    return {key: text(value, 400) for key, value in finding.as_json().items()}


def _is_ident(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 64
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53
