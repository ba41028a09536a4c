"""Files that hold keys: made once, whole or not at all, readable by their owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from casemate.errors import Unusable

LIMIT = 1 << 20


def read(path: Path) -> bytes:
    """A private file; one that others may read or write is `Unusable`."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise Unusable(f"{path} is open to other users", hint=f"chmod 600 {path}")
            return file.read(LIMIT)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error


def write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step; it is on disk when this returns."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}") from error


def once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a private file, made when it is not there yet."""
    if not path.exists():
        write(path, make())
    return read(path)
