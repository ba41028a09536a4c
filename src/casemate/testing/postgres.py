"""A PostgreSQL server for tests: its own data, a UNIX socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from casemate.errors import Unusable


@contextmanager
def server() -> Iterator[str]:
    """A database URL for SQLAlchemy; `Unusable` where a server or a driver is missing."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not installed:
        raise Unusable("no PostgreSQL server is installed (Debian: postgresql)")
    driver = next((name for name in ("psycopg", "pg8000") if find_spec(name)), None)
    if driver is None:
        raise Unusable("no PostgreSQL driver is installed (psycopg or pg8000)")
    with tempfile.TemporaryDirectory(prefix="casemate-pg-") as scratch:
        yield from _serve(installed[-1].parent, Path(scratch).resolve(), driver)


def _serve(programs: Path, folder: Path, driver: str) -> Iterator[str]:
    data, account = folder / "data", _account(folder)
    _run([programs / "initdb", "-D", data, "-U", "casemate", "-E", "UTF8", "--auth=trust"], folder, account)
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    control = [programs / "pg_ctl", "-D", data, "-w", "-t", "30"]
    _run([*control, "-l", folder / "log", "-o", options, "start"], folder, account)
    try:
        key, where = ("host", folder) if driver == "psycopg" else ("unix_sock", folder / ".s.PGSQL.5432")
        yield f"postgresql+{driver}://casemate@/postgres?{key}={where}"
    finally:
        _run([*control, "-m", "immediate", "stop"], folder, account)


def _account(folder: Path) -> dict[str, Any]:
    """Run as the packaged account when we are root, which the server refuses to be."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _run(argv: list[Any], folder: Path, account: dict[str, Any]) -> None:
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    null = subprocess.DEVNULL  # a started server keeps the pipes of its starter
    words = [str(word) for word in argv]
    subprocess.run(words, cwd=folder, env=environment, stdout=null, stderr=null, check=True, **account)
