"""mount(2) and umount2(2) from Python: ctypes is loaded when the first mount is made, no program is started."""

from __future__ import annotations

import os
from pathlib import Path

from casemate.errors import Unavailable

READ_ONLY, NO_SUID, NO_DEV, NO_EXEC = 1, 2, 4, 8
_DETACH, _NO_FOLLOW = 2, 8


def mount(source: str, target: Path, kind: str, *, flags: int = 0, options: str = "") -> None:
    """Mount `source` of file system `kind` at `target`, which must exist."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(
        source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    if done != 0:
        code = ctypes.get_errno()
        raise Unavailable(f"cannot mount {kind} at {target}: {os.strerror(code)}") from OSError(code, os.strerror(code))


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Unmount `target`; `lazy` takes it out of the tree now and ends it with its last user."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(target), (_DETACH if lazy else 0) | _NO_FOLLOW) != 0:
        raise Unavailable(f"cannot unmount {target}: {os.strerror(ctypes.get_errno())}")


def is_mounted(target: Path) -> bool:
    """Whether something is mounted at `target`."""
    wanted = str(target.resolve())
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split(" ")[1].encode().decode("unicode_escape") == wanted for line in lines)
