"""What a child may still do: limits of memory, files and time, no network, no other program, no files of the broker.

Called by the child itself before it reads anything of a tenant. Limits are hard. seccomp (kernel.org: userspace-api/
seccomp_filter) and Landlock (userspace-api/landlock) are used where the kernel has them; `confine` tells which held.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import threading
import time
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_DUMPABLE, _FILTER = 38, 22, 4, 2
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# socket, connect, bind, listen, accept(4), sendto, socketpair, execve(at), ptrace, process_vm_*, kill and its kin,
# mount, bpf, unshare, setns, io_uring_*, keyctl and its kin, perf_event_open, userfaultfd, pidfd_open, pidfd_getfd
_DENIED = {
    "x86_64": (41, 42, 49, 50, 43, 288, 44, 53, 59, 322, 101, 310, 311, 62, 200, 234, 165, 321, 272, 308, 425, 426, 427,
               248, 249, 250, 298, 323, 434, 438, 424, 129, 297),
    "aarch64": (198, 203, 200, 201, 202, 242, 206, 199, 221, 281, 117, 270, 271, 129, 130, 131, 40, 280, 97, 268, 425,
                426, 427, 217, 218, 219, 241, 282, 434, 438, 424, 138, 240),
}  # fmt: skip
TOO_LARGE = 77  # exit code of a process that held too much memory
_LOOK_SECONDS = 0.005
_X32 = 0x40000000
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_FS_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute (which loading a library needs), read a file, read a directory
_FS_WRITE = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8  # write, remove directories and files, make both
_FS_ALL = (1 << 13) - 1


def confine(
    memory: int, *, cpu: int = 0, files: int = 0, writable: str = "", readable: tuple[str, ...] = ()
) -> list[str]:
    """Lay down what is not needed; `memory` and `files` (the size of one) in bytes, `cpu` in seconds (0: no limit).

    `memory` is what may be mapped beside what is mapped now.
    """
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    for what, value in (
        (resource.RLIMIT_AS, mapped + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, files),
    ):
        resource.setrlimit(what, (value, value))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if cpu:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return ["limits"]
    held = ["limits"]
    if _landlock(libc, writable, readable):
        held.append("landlock")
    if _seccomp(libc):
        held.append("seccomp")
    return held


def watch(memory: int) -> None:
    """End this process when it holds more than `memory` bytes: an allocator with its own reserve knows no limit.

    Call it before `confine`, which allows no further thread.
    """
    page = resource.getpagesize()
    place = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def look() -> None:
        while int(os.pread(place, 128, 0).split()[1]) * page < memory:
            time.sleep(_LOOK_SECONDS)
        os._exit(TOO_LARGE)

    threading.Thread(target=look, daemon=True).start()


def _landlock(libc: ctypes.CDLL, writable: str, readable: tuple[str, ...]) -> bool:
    handled = struct.pack("=Q", _FS_ALL)
    ruleset = libc.syscall(_CREATE, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    try:
        for path, access in [
            *((path, _FS_READ) for path in readable),
            *([(writable, _FS_READ | _FS_WRITE)] if writable else []),
        ]:
            if not Path(path).is_dir():
                continue
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            libc.syscall(_ADD, ruleset, 1, struct.pack("=Qi", access, place), 0)
            os.close(place)
        return bool(libc.syscall(_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _seccomp(libc: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in _ARCH:
        return False
    denied = _DENIED[machine]
    program = [_jump(0x20, 0, 0, 4), _jump(0x15, 1, 0, _ARCH[machine]), _jump(0x06, 0, 0, _KILL), _jump(0x20, 0, 0, 0)]
    program += [_jump(0x35, len(denied), 0, _X32)]  # the x32 numbers name the same calls again
    program += [_jump(0x15, len(denied) - place, 0, number) for place, number in enumerate(denied)]
    program += [_jump(0x06, 0, 0, _ALLOW), _jump(0x06, 0, 0, _EPERM)]
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER, head, 0, 0) == 0)


def _jump(code: int, true: int, false: int, value: int) -> bytes:
    """One instruction of classic BPF."""
    return struct.pack("=HBBI", code, true, false, value)
