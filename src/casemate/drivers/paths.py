"""Where Casemate keeps its files.

`home()` holds one local trust domain (keys, context.json, workloads): private to its user. `cache()` holds what can be
fetched or built again, named by content: packages, tool roots, guest images.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from casemate.errors import Unusable

__all__ = ["cache", "home"]


def home() -> Path:
    """`$CASEMATE_HOME`, else `./.casemate`; made with mode 0700. A folder that others may enter is `Unusable`."""
    folder = Path(os.environ.get("CASEMATE_HOME") or ".casemate").absolute()
    if folder.resolve() == Path("/"):
        raise Unusable("the root directory cannot be CASEMATE_HOME", hint="set CASEMATE_HOME to a folder of your own")
    _make(folder, "CASEMATE_HOME")
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise Unusable(f"{folder} belongs to another user", hint="set CASEMATE_HOME to a folder of your own")
    if stat.S_IMODE(status.st_mode) & 0o077:
        if any(folder.iterdir()):
            raise Unusable(f"{folder} holds keys and is open to other users", hint=f"chmod 700 {folder}")
        folder.chmod(0o700)
    return folder


def cache() -> Path:
    """`$CASEMATE_CACHE`, else `$XDG_CACHE_HOME/casemate` or `~/.cache/casemate`; made when absent."""
    named = os.environ.get("CASEMATE_CACHE")
    if named:
        folder = Path(named).absolute()
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "casemate"
    _make(folder, "CASEMATE_CACHE")
    return folder


def _make(folder: Path, variable: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, PermissionError, OSError) as error:
        raise Unusable(f"cannot use {folder} ({error.strerror})", hint=f"set {variable} to a folder") from error
