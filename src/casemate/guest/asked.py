"""What the host may ask, and what comes of it. Closed: only what the manifest's `host` lists is done.

`stop` and `ping` are always heard, because the host can end the VM anyway and a graceful end loses less.
"""

from __future__ import annotations

import signal as signals
import threading
from collections.abc import Callable
from typing import Any

from casemate.errors import CasemateError
from casemate.guest.control import Control
from casemate.guest.supervise import Supervisor
from casemate.schema.manifest import Manifest
from casemate.wire.encoding import b64

MAX_GRACE = 600.0
MAX_WORDS = 64
MAX_WORD = 4096
MAX_OUTPUT = 64 << 10
EXEC_SECONDS = 60.0
_LOG_PART = 48 << 10

Answer = dict[str, Any]


class Asked:
    """Judges each message of the host against the manifest; `stop` is called with the seconds of grace."""

    def __init__(
        self, manifest: Manifest, supervisor: Supervisor, control: Control, stop: Callable[[float], None]
    ) -> None:
        self._manifest, self._supervisor, self._control, self._stop = manifest, supervisor, control, stop
        self._names = frozenset(container.name for container in manifest.containers)
        self._executing = threading.Semaphore(2)

    def __call__(self, message: dict[str, Any]) -> Answer | None:
        """The reply, None where none is due."""
        kind = message.get("type")
        if kind == "ping":
            return {"ok": True, "state": self._control.last_state["state"]}
        if kind == "stop":
            return self._stopping(message)
        if kind not in ("logs", "signal", "exec"):
            return None
        name = message.get("container")
        if not isinstance(name, str) or name not in self._names:
            return _no("no such container")
        return {"logs": self._logs, "signal": self._signal, "exec": self._exec}[str(kind)](name, message)

    def _stopping(self, message: dict[str, Any]) -> Answer:
        grace = message.get("grace", 10)
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= MAX_GRACE:
            return _no("grace: seconds are wanted")
        self._stop(float(grace))
        return {"ok": True}

    def _logs(self, name: str, message: dict[str, Any]) -> Answer:
        if not self._manifest.host.logs:
            return _closed("logs")
        tail = message.get("tail", 100)
        if isinstance(tail, bool) or not isinstance(tail, int) or not 0 <= tail <= 100_000:
            return _no("tail: a number of lines is wanted")
        kept = self._supervisor.output(name)
        parts = [{"stream": stream, "data": b64(data[-_LOG_PART:])} for stream, data in kept.tail(tail)]
        return {"ok": True, "lost": kept.lost, "parts": parts}

    def _signal(self, name: str, message: dict[str, Any]) -> Answer:
        wanted = message.get("signal")
        if not isinstance(wanted, str) or wanted not in self._manifest.host.signals:
            return _closed("signals")
        try:
            self._supervisor.signal(name, signals.Signals[wanted])
        except (KeyError, CasemateError) as error:
            return _no(str(error))
        return {"ok": True}

    def _exec(self, name: str, message: dict[str, Any]) -> Answer | None:
        if not self._manifest.host.exec:
            return _closed("exec")
        command = message.get("command")
        if not _is_command(command):
            return _no("command: a list of words is wanted")
        if not self._executing.acquire(blocking=False):
            return _no("two commands are running already")
        ident = message.get("id")
        threading.Thread(target=self._execute, args=(name, tuple(command), ident), daemon=True).start()  # type: ignore[arg-type] # judged above
        return None

    def _execute(self, name: str, command: tuple[str, ...], ident: Any) -> None:
        try:
            done = self._supervisor.execute(name, command, timeout=EXEC_SECONDS, limit=MAX_OUTPUT)
            answer: Answer = {"ok": True, "code": done.code, "stdout": b64(done.stdout), "stderr": b64(done.stderr)}
        except CasemateError as error:
            answer = _no(str(error))
        finally:
            self._executing.release()
        self._control.reply(ident, answer)


def _is_command(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_WORDS
        and all(isinstance(word, str) and len(word) <= MAX_WORD and "\0" not in word for word in value)
    )


def _no(why: str) -> Answer:
    return {"ok": False, "error": why[:300], "hint": ""}


def _closed(what: str) -> Answer:
    return {
        "ok": False,
        "error": f"the manifest does not let the host use {what}",
        "hint": f"list it under host.{what}",
    }
