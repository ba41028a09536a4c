"""Files that hold keys: made once, whole or not at all, readable by their owner alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from casemate.drivers import userfiles
from casemate.errors import Unusable

LIMIT = 1 << 20


def read(path: Path) -> bytes:
    """A private file; one that others may read or write is `Unusable`."""
    return userfiles.read(path, LIMIT, private=True)


def write(path: Path, data: bytes, *, mode: int = 0o600, parents: bool = True) -> None:
    """Replace the regular file at `path`, or behind it where it is a link, in one step; on disk when this returns.

    `parents` makes the folders above: not where a user named the file, who may have mistyped it.
    """
    try:
        path = path.resolve() if path.is_symlink() else path
        if path.exists() and not path.is_file():
            raise Unusable(f"{path} is not a regular file and is left alone")
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        if parents:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
