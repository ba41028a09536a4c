"""Messages between the broker and a child: four bytes of length, then JSON. Both ends bound what they read."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

from casemate.errors import Malformed

MAX_FRAME = 24 << 20


class Ended(Exception):
    """The other end closed the pipe."""


class TooLate(Exception):
    """The other end did not do its part before the deadline."""


def packed(message: Any) -> bytes:
    """A message as bytes; `Malformed` when it is too long or not JSON."""
    try:
        body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"policy input: {type(error).__name__}") from error
    if len(body) > MAX_FRAME:
        raise Malformed(f"policy input: at most {MAX_FRAME} bytes are allowed")
    return len(body).to_bytes(4, "big") + body


def send(place: int, frame: bytes, deadline: float) -> None:
    """Write a frame to a non-blocking pipe; `TooLate`, `Ended`."""
    view = memoryview(frame)
    while view:
        _wait(place, select.POLLOUT, deadline)
        try:
            view = view[os.write(place, view) :]
        except BlockingIOError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            raise Ended from None


def receive(place: int, deadline: float) -> Any:
    """The next message from a non-blocking pipe; `TooLate`, `Ended`, `Malformed`."""
    size = int.from_bytes(_exactly(place, 4, deadline), "big")
    if size > MAX_FRAME:
        raise Malformed("policy answer: too long")
    try:
        return json.loads(_exactly(place, size, deadline))
    except (ValueError, RecursionError) as error:
        raise Malformed("policy answer: not JSON") from error


def _exactly(place: int, size: int, deadline: float) -> bytes:
    found = bytearray()
    while len(found) < size:
        try:
            chunk = os.read(place, min(size - len(found), 1 << 20))
        except BlockingIOError:
            _wait(place, select.POLLIN, deadline)
            continue
        if not chunk:
            raise Ended
        found += chunk
    return bytes(found)


def _wait(place: int, what: int, deadline: float) -> None:
    left = deadline - time.monotonic()
    poll = select.poll()
    poll.register(place, what)
    if left <= 0 or not poll.poll(max(1, left * 1000)):
        raise TooLate
