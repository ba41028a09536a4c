"""A PostgreSQL server for tests: its own data, a UNIX socket, gone afterwards. Tests may stop, kill and start it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from casemate.errors import Unusable
from casemate.testing import programs

_ACCOUNTS = ("postgres", "nobody")


@contextmanager
def server() -> Iterator[str]:
    """A database URL for SQLAlchemy; `programs.Missing` where a server can't be had."""
    with running() as made:
        yield made.url


@contextmanager
def running() -> Iterator[Server]:
    """A server, started, that can be stopped and started again."""
    if not find_spec("psycopg"):
        raise Unusable("no PostgreSQL driver is installed (psycopg)")
    initdb = programs.find("initdb")
    with tempfile.TemporaryDirectory(prefix="casemate-pg-") as scratch:
        folder = Path(scratch).resolve()
        made = Server(folder, _within_reach(initdb, folder))
        made.start()
        try:
            yield made
        finally:
            made.stop()


class Server:
    """A server on data in `folder`. What it acknowledged outlives its own death, not that of the machine."""

    def __init__(self, folder: Path, initdb: Path) -> None:
        self.folder, self._control = folder, [initdb.with_name("pg_ctl"), "-D", folder / "data", "-w", "-t", "60"]
        self._prefix = _unprivileged(folder)
        self._run([initdb, "-D", folder / "data", "-U", "casemate", "-E", "UTF8", "--auth=trust", "--no-sync"])

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://casemate@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
        self._run([*self._control, "-l", self.folder / "log", "-o", options, "start"])

    def stop(self, mode: str = "immediate") -> None:
        """End it; every connection breaks."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self._run([*self._control, "-m", mode, "stop"])

    def kill(self) -> None:
        """Kill -9 of the server and all that serve connections, and wait until they are gone."""
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        family = [first, *_children(first)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(_alive(pid) for pid in family):
            signal.sigtimedwait((), 0.01)
        for left in ("data/postmaster.pid", ".s.PGSQL.5432.lock"):  # whoever died may still wait to be buried
            (self.folder / left).unlink(missing_ok=True)

    def _run(self, argv: list[Any]) -> None:
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
        null = subprocess.DEVNULL  # a started server keeps the pipes of its starter
        words = [str(word) for word in (*self._prefix, *argv)]
        try:
            subprocess.run(words, cwd=self.folder, env=environment, stdout=null, stderr=null, check=True)
        except subprocess.CalledProcessError as error:
            log = self.folder / "log"
            said = log.read_text("utf-8", "replace")[-500:] if log.exists() else "no log"
            raise RuntimeError(f"{argv[0].name} ended with {error.returncode}: {said}") from error


def _within_reach(program: Path, folder: Path) -> Path:
    """The program, or as root a copy of what was unpacked: another account has no way into root's own cache."""
    if os.geteuid() != 0 or programs.installed(program.name) == program:
        return program
    shutil.copytree(program.parents[1], folder / "tree", symlinks=True)
    (folder / "tree").chmod(0o755)  # what lies within has the packages' own modes
    (folder / "tree" / "starters").chmod(0o755)
    return folder / "tree" / "starters" / program.name


def _unprivileged(folder: Path) -> list[str]:
    """As root: the words that run a program as another account, which the server demands."""
    if os.geteuid() != 0:
        return []
    user = next(entry for entry in map(_entry, _ACCOUNTS) if entry is not None)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]


def _entry(account: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(account)
    except KeyError:
        return None


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
