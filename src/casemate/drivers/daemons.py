"""Services of the local trust domain: started detached, found again by pid and start time.

A service's folder holds `process.json` (its record), `service.log` and `.lock`. A record whose process is gone (kill
-9, a reboot) counts as none, so that the next start repairs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from casemate.drivers import keyfiles, processes
from casemate.drivers.processes import Process
from casemate.errors import Unavailable

_RECORD, _LOG, _LOCK = "process.json", "service.log", ".lock"
_MAX_LOG = 8 << 20
_POLL_SECONDS = 0.05


def ensure(
    folder: Path, argv: Sequence[str], answers: Callable[[], bool], *, name: str, seconds: float = 30
) -> Process:
    """The running service of `folder`, started when there is none; one that runs and does not answer is replaced."""
    with _locked(folder):
        running = current(folder)
        if running is not None and _until(answers, running, seconds=5):
            return running
        processes.end(running)
        started = _start(folder, argv)
        if not _until(answers, started, seconds):
            alive = processes.alive(started)
            processes.end(started)
            said = "does not answer" if alive else "ended at once"
            raise Unavailable(f"the {name} {said}: {last_words(folder)}", hint=f"see {folder / _LOG}")
        return started


def stop(folder: Path, *, grace: float = 12) -> bool:
    """End the service of `folder`; False when none ran."""
    if not folder.is_dir():
        return False
    with _locked(folder):
        running = current(folder)
        processes.end(running, grace=grace)
        (folder / _RECORD).unlink(missing_ok=True)
        return running is not None


def current(folder: Path) -> Process | None:
    """The service's process, if it still is that process."""
    try:
        record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=Process)
    except (OSError, msgspec.DecodeError):
        return None
    return record if processes.alive(record) else None


def last_words(folder: Path, lines: int = 3) -> str:
    """The end of the service's log, on one line."""
    try:
        with (folder / _LOG).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "it wrote no log"
    return " | ".join(text.strip().splitlines()[-lines:])[:1000] or "its log is empty"


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(folder: Path, argv: Sequence[str]) -> Process:
    log = folder / _LOG
    if log.exists() and log.stat().st_size > _MAX_LOG:
        log.replace(log.with_suffix(".log.1"))
    with os.fdopen(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as out:
        child = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/"
        )
    record = processes.record(child.pid)
    if record is None:
        raise Unavailable(f"{argv[0]} ended at once: {last_words(folder)}", hint=f"see {log}")
    keyfiles.write(folder / _RECORD, msgspec.json.encode(record))
    return record


def _until(answers: Callable[[], bool], process: Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while processes.alive(process):
        if answers():
            return processes.alive(process)
        if time.monotonic() >= deadline:
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        time.sleep(_POLL_SECONDS)
    return False


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
