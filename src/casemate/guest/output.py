"""What a container wrote, kept in memory: a bounded ring, the newest wins. It never reaches the console."""

from __future__ import annotations

import threading
from collections import deque

MAX_BYTES = 256 << 10
_LINE = 16 << 10


class Ring:
    """Pieces of output in order, each with its stream (`stdout`, `stderr`); at most `limit` bytes."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self._limit = limit
        self._pieces: deque[tuple[str, bytes]] = deque()
        self._held = 0
        self._lock = threading.Lock()
        self.lost = 0

    def add(self, stream: str, data: bytes) -> None:
        """Keep `data`; what no longer fits is counted in `lost`."""
        with self._lock:
            for start in range(0, len(data), _LINE):
                piece = data[start : start + _LINE]
                self._pieces.append((stream, piece))
                self._held += len(piece)
            while self._held > self._limit:
                _, old = self._pieces.popleft()
                self._held -= len(old)
                self.lost += len(old)

    def tail(self, lines: int) -> list[tuple[str, bytes]]:
        """(stream, its last `lines` lines) for each stream that wrote anything."""
        with self._lock:
            pieces = list(self._pieces)
        found = []
        for stream in ("stdout", "stderr"):
            text = b"".join(data for name, data in pieces if name == stream)
            if text and lines:
                found.append((stream, b"".join(text.splitlines(keepends=True)[-lines:])))
        return found
