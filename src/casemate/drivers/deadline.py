"""A socket with a deadline over the whole exchange: a drip of bytes would reset a plain timeout for ever."""

from __future__ import annotations

import io
import socket
import time
from typing import Any

CHUNK = 64 << 10


class _Reader(io.RawIOBase):
    """Reads from a socket, never beyond its silence timeout or its deadline."""

    def __init__(self, owner: TimedSocket) -> None:
        self._owner = owner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._owner.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._owner.release()


class TimedSocket:
    """What http.client needs of a socket, with a deadline over everything (a drip of bytes resets a plain timeout)."""

    def __init__(self, sock: socket.socket, timeout: float, deadline: float) -> None:
        self._sock, self._timeout, self.deadline = sock, timeout, deadline
        self._readers, self._closed = 0, False

    def _arm(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the exchange took too long")
        self._sock.settimeout(min(self._timeout, left))

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        while view:
            self._arm()
            view = view[self._sock.send(view[:CHUNK]) :]

    def recv_into(self, buffer: Any) -> int:
        """Bytes read into `buffer`; 0 at the end."""
        self._arm()
        return self._sock.recv_into(buffer)

    def makefile(self, mode: str, *_: object) -> io.BufferedReader:
        """A buffered reader; the socket stays open until it is closed too."""
        self._readers += 1
        return io.BufferedReader(_Reader(self), CHUNK)

    def fileno(self) -> int:
        """For select."""
        return self._sock.fileno()

    def release(self) -> None:
        """A reader was closed."""
        self._readers -= 1
        if self._closed and not self._readers:
            self._sock.close()

    def close(self) -> None:
        """As a socket does: an answer that is still being read keeps it open."""
        self._closed = True
        if not self._readers:
            self._sock.close()
