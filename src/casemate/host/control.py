"""The host's end of the control channel: what the guest says becomes the record, and nothing it says is taken on trust.

The guest may be hostile or broken: each message is bounded, names must be of the manifest, unknown types and fields are
ignored, numbers are clipped, and no word of it reaches a terminal unfiltered. What the guest claims (`running`) is its
own word; proof comes from evidence, never from here.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from typing import Any

from casemate.errors import Malformed, Unavailable
from casemate.host.state import DONE, ContainerState, Phase, State, as_text
from casemate.wire import frames
from casemate.wire.encoding import unb64

PHASES = ("agent", "attest", "keys", "pull", "verify", "unpack", "volume", "run")
GUEST_STATES = frozenset({"starting", "running", "refused", "failed", "stopped"})
EVENTS = frozenset({"started", "exited", "restarting"})
MAX_FINDINGS = 64
MAX_PHASES = 64
MAX_TEXT = 2000
MAX_LOG_BYTES = 128 << 10
_MAX_WAITING = 1 << 20
_MAX_SECONDS = 1e9


class Channel:
    """Frames over QEMU's socket, never blocking: what can't be sent yet waits, up to 1 MiB."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._reader = frames.FrameReader()
        self._waiting = bytearray()

    @property
    def dropped(self) -> int:
        """Bytes that were no frame."""
        return self._reader.dropped

    @property
    def waiting(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._waiting)

    def receive(self) -> Iterator[dict[str, Any]]:
        """The messages that are there now; `Unavailable` when the other end closed."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            raise Unavailable(f"control channel: {error}") from error
        if not data:
            raise Unavailable("control channel: closed")
        yield from self._reader.feed(data)

    def send(self, message: dict[str, Any]) -> None:
        """Queue one message and send what goes through; `Unavailable` when the guest has stopped reading."""
        frame = frames.pack(message)
        if len(self._waiting) + len(frame) > _MAX_WAITING:
            raise Unavailable("control channel: the guest does not read")
        self._waiting += frame
        self.flush()

    def flush(self) -> None:
        """Send as much of the queue as goes through now."""
        try:
            while self._waiting:
                sent = self.socket.send(self._waiting)
                del self._waiting[:sent]
        except BlockingIOError:
            return
        except OSError as error:
            raise Unavailable(f"control channel: {error}") from error


def apply(state: State, message: dict[str, Any], at: float) -> bool:
    """Enter a guest's message into the record; `at` is seconds since QEMU's start. False when it changes nothing."""
    kind = message.get("type")
    if kind == "hello":
        state.agent = as_text(message.get("agent", ""), 200)
        return True
    if kind == "phase":
        return _phase(state, message, at)
    if kind == "state":
        return _state(state, message)
    if kind == "container":
        return _container(state, message)
    return False


def log_line(message: dict[str, Any], containers: frozenset[str]) -> dict[str, Any] | None:
    """The record of a `log` message, or None when it is not one that may be kept."""
    name, stream, data = _word(message, "container"), _word(message, "stream"), _word(message, "data")
    if name not in containers or stream not in {"stdout", "stderr"} or not data:
        return None
    try:
        if len(unb64(data, "log")) > MAX_LOG_BYTES:
            return None
    except Malformed:
        return None
    return {"container": name, "stream": stream, "data": data}


def _phase(state: State, message: dict[str, Any], at: float) -> bool:
    name, since = _word(message, "name"), message.get("t")
    if name not in PHASES or len(state.phases) >= MAX_PHASES:
        return False
    if isinstance(since, bool) or not isinstance(since, int | float):
        return False
    seconds = min(float(since), _MAX_SECONDS) if math.isfinite(since) and since >= 0 else 0.0
    detail = message.get("detail")
    pairs = list(detail.items())[:16] if isinstance(detail, dict) else []
    short = {as_text(key, 64): _plain(value) for key, value in pairs}
    state.phases.append(Phase(name=name, at=round(at, 3), t=round(seconds, 3), detail=short))
    return True


def _state(state: State, message: dict[str, Any]) -> bool:
    said = _word(message, "state")
    if state.state in DONE:  # the first end counts: a refusal stays one when the guest powers off
        return False
    if said not in GUEST_STATES or (state.state == "stopping" and said in {"starting", "running"}):
        return False
    state.state = said
    state.message = as_text(message.get("message", ""), MAX_TEXT)
    found = message.get("findings")
    if isinstance(found, list):
        state.findings = [_finding(item) for item in found[:MAX_FINDINGS] if isinstance(item, dict)]
    return True


def _finding(item: dict[str, Any]) -> dict[str, str]:
    result = "pass" if item.get("result") == "pass" else "fail"
    words = {key: as_text(item.get(key, ""), MAX_TEXT) for key in ("rule", "expected", "found", "hint")}
    return {"rule": words["rule"], "result": result, **{k: words[k] for k in ("expected", "found", "hint")}}


def _container(state: State, message: dict[str, Any]) -> bool:
    name, event, code = _word(message, "name"), _word(message, "event"), message.get("code")
    if name not in state.containers or event not in EVENTS:
        return False
    known = state.containers[name]
    known.event = event
    known.code = code if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 1 << 31 else None
    known.restarts += event == "restarting"
    return True


def expect(names: list[str]) -> dict[str, ContainerState]:
    """The containers of a manifest before the guest said anything of them."""
    return {name: ContainerState(event="waiting") for name in names}


def _word(message: dict[str, Any], key: str) -> str:
    """A string of the message; "" for anything else."""
    value = message.get(key)
    return value if isinstance(value, str) else ""


def _plain(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return max(-(1 << 53), min(value, 1 << 53))
    if isinstance(value, float):
        return value if math.isfinite(value) else 0.0
    return as_text(value, 300)
