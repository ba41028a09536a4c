"""Processes that outlive the command that started them: named by pid and start time, so that a reused pid is never hit.

A record `Process(pid, started)` is believed only while /proc shows the same start time (proc_pid_stat(5), field 22, in
clock ticks since boot) and the same boot; everything else counts as ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import msgspec

_POLL_SECONDS = 0.02


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its pid, its start time in clock ticks since boot, and the boot it belongs to."""

    pid: int
    started: int
    boot: str = ""


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def record(pid: int) -> Process | None:
    """The record of a living process, or None when it is gone already."""
    started = _start_time(pid)
    return None if started is None else Process(pid=pid, started=started, boot=boot_id())


def alive(process: Process | None) -> bool:
    """Whether exactly this process still runs (a zombie does not)."""
    if process is None or process.pid <= 1:
        return False
    return _start_time(process.pid) == process.started and process.boot == boot_id()


def end(process: Process | None, *, grace: float = 3.0) -> bool:
    """Ask with SIGTERM, wait `grace` seconds, then SIGKILL. True when the process is gone afterwards."""
    if process is None:
        return True
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        if not send(process, number):
            return True
        if wait(process, patience):
            return True
    return not alive(process)


def send(process: Process, number: int) -> bool:
    """Send a signal to exactly this process; False when it is gone. A pidfd closes the gap between look and kill."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def wait(process: Process, seconds: float) -> bool:
    """Wait until the process is gone; False when it is still there after `seconds`."""
    deadline = time.monotonic() + seconds
    while alive(process):
        if time.monotonic() >= deadline:
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        time.sleep(_POLL_SECONDS)
    return True


def memory_mib(process: Process | None) -> tuple[int, int]:
    """(resident now, resident at most) of a process in MiB; zeros when it is gone."""
    if process is None or not alive(process):
        return 0, 0
    try:
        text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0, 0
    sizes = dict(line.split(":", 1) for line in text.splitlines() if line.startswith(("VmRSS:", "VmHWM:")))
    now, most = (int(sizes.get(key, "0").split()[0]) // 1024 for key in ("VmRSS", "VmHWM"))
    return now, most


def _start_time(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command name is in parentheses and may hold anything, so fields are counted from the last one.
    fields = text[text.rfind(")") + 2 :].split()
    if len(fields) < 20 or fields[0] in {"Z", "X", "x"}:
        return None
    return int(fields[19])
