"""Files that a user names, read with a bound: regular files alone, so that no pipe or device keeps us waiting."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from casemate.errors import Malformed, Unusable

__all__ = ["read"]


def read(path: Path, limit: int, *, private: bool = False, hint: str = "") -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    `Unusable`, with `hint`, where it cannot be read or, when it is `private`, where others may read or write it;
    `Malformed` where it is longer.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise Unusable(f"{path} is not a regular file", hint=hint)
            if private and stat.S_IMODE(mode) & 0o077:
                raise Unusable(f"{path} is open to other users", hint=f"chmod 600 {path}")
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", hint=hint) from error
    if len(data) > limit:
        raise Malformed(f"{path}: more than {limit} bytes", hint=hint)
    return data
