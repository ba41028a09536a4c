"""Whose turn it is to write to a SQLite file: processes wait for each other in the kernel.

SQLite itself waits by trying again, with sleeps that grow to a tenth of a second, and whoever comes at the right moment
goes first. Here each writer waits where the kernel wakes it, in order.

Rules
1. It is a courtesy: SQLite's own lock decides. Where the file beside the database can't be had or locked (a folder that
   is read-only, an odd file system), writers wait as SQLite does.
2. Two bytes are locked: who holds `_NEXT` waits for `_NOW`, everybody else for `_NEXT`. So nobody who just wrote comes
   before one who waits.
3. The kernel gives a lock back with the process that had it, and no fork takes one along. A wait for a process that is
   stopped has no end of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

_NEXT, _NOW = 0, 1
_FLOCK = "hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, pid (0 for locks of an open file)


class Turn:
    """The turns at one database; the file `<database>-turn` is made when a turn is first taken."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database.absolute()}-turn")
        self._file: int | None = None
        self._odd = False
        _TURNS.add(self)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn and hold it. Within a turn of the same thread at the same database it does nothing."""
        name = str(self._path)
        if name in _mine() or not self._take():
            yield
            return
        _mine().add(name)
        try:
            yield
        finally:
            _mine().discard(name)
            self._set(fcntl.F_OFD_SETLK, _NOW, fcntl.F_UNLCK)

    def close(self) -> None:
        """Close the file; another turn opens it again."""
        found, self._file = self._file, None
        if found is not None:
            os.close(found)

    def _take(self) -> bool:
        if self._odd:
            return False
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._set(fcntl.F_OFD_SETLKW, _NEXT, fcntl.F_WRLCK)
            try:
                self._set(fcntl.F_OFD_SETLKW, _NOW, fcntl.F_WRLCK)
            finally:
                self._set(fcntl.F_OFD_SETLK, _NEXT, fcntl.F_UNLCK)
        except OSError:
            self._odd = True
            self.close()
        return not self._odd

    def _set(self, command: int, byte: int, kind: int) -> None:
        if self._file is not None:
            fcntl.fcntl(self._file, command, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))


_HELD = threading.local()
_TURNS: weakref.WeakSet[Turn] = weakref.WeakSet()


def _mine() -> set[str]:
    """The turns that this thread has."""
    found: set[str] | None = getattr(_HELD, "names", None)
    if found is None:
        found = _HELD.names = set()
    return found


def _forked() -> None:
    _mine().clear()
    for turn in _TURNS:
        turn.close()  # the parent's lock stays the parent's alone


os.register_at_fork(after_in_child=_forked)
