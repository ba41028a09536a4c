"""Frames of the control channel between host and guest: one byte stream, both ends hostile to each other.

Layout: ``CMF1`` | length, u32 big-endian | payload (a JSON object). A reader that meets anything else drops bytes until
the next marker, because a virtio-serial port keeps half a frame when one side restarts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from casemate.errors import Malformed
from casemate.wire import jcs

MARKER = b"CMF1"
HEADER = len(MARKER) + 4
MAX_FRAME = 256 << 10


def pack(message: dict[str, Any]) -> bytes:
    """One frame for `message`."""
    payload = jcs.canonical(message)
    if len(payload) > MAX_FRAME:
        raise Malformed(f"frame: {len(payload)} bytes, at most {MAX_FRAME} allowed")
    return MARKER + len(payload).to_bytes(4, "big") + payload


class FrameReader:
    """Collects bytes with `feed` and yields the messages that are whole; never holds more than one frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.dropped = 0

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Add `data`; yield each complete message. What is not a frame is skipped and counted in `dropped`."""
        self._buffer += data
        while (payload := self._next()) is not None:
            try:
                message = jcs.parse_object(payload, "frame", limit=MAX_FRAME)
            except Malformed:
                self.dropped += len(payload)
                continue
            yield message

    def _next(self) -> bytes | None:
        while True:
            start = self._buffer.find(MARKER)
            if start < 0:
                spare = max(0, len(self._buffer) - len(MARKER) + 1)
                self._drop(spare)
                return None
            self._drop(start)
            if len(self._buffer) < HEADER:
                return None
            size = int.from_bytes(self._buffer[len(MARKER) : HEADER], "big")
            if size > MAX_FRAME:
                self._drop(1)
                continue
            if len(self._buffer) < HEADER + size:
                return None
            payload = bytes(self._buffer[HEADER : HEADER + size])
            del self._buffer[: HEADER + size]
            return payload

    def _drop(self, count: int) -> None:
        self.dropped += count
        del self._buffer[:count]
