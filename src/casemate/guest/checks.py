"""Facts about the machine that decide whether the workload may start, and the agent's one voice on the console."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path

from casemate.boot.initdata import MAX_DOCUMENT
from casemate.errors import Finding, Refused, Unusable
from casemate.schema.manifest import Manifest

IOMEM = Path("/proc/iomem")
MEMINFO = Path("/proc/meminfo")
_FIRMWARE_MIB = 32  # what firmware keeps for itself of the memory that the launch gave
_LINE = 300


def read_initdata(path: Path) -> bytes:
    """The document that the initrd left, at most 4 MiB."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise Unusable(
            f"no initdata ({error.strerror})", hint="the initrd leaves it; start the VM with its disk"
        ) from error
    return data


def demand_minimum(manifest: Manifest, *, cpus: int | None = None, memory_mib: int | None = None) -> None:
    """Refuse a VM that is smaller than the manifest's `minimum`."""
    found_cpus = cpus if cpus is not None else os.cpu_count() or 1
    found_mib = memory_mib if memory_mib is not None else memory()
    hint = "start the workload with more"
    failed = []
    if found_cpus < manifest.minimum.cpus:
        failed.append(Finding("minimum.cpus", str(manifest.minimum.cpus), str(found_cpus), hint))
    if found_mib + _FIRMWARE_MIB < manifest.minimum.memory_mib:
        failed.append(Finding("minimum.memory", f"{manifest.minimum.memory_mib} MiB", f"{found_mib} MiB", hint))
    if failed:
        raise Refused(failed)


def memory(iomem: Path = IOMEM, meminfo: Path = MEMINFO) -> int:
    """MiB of RAM as the firmware told the kernel; what the kernel took for itself counts too."""
    total = 0
    for line in iomem.read_text("ascii", "replace").splitlines():
        place, _, what = line.partition(" : ")
        if what == "System RAM" and not line.startswith(" "):
            first, _, last = place.partition("-")
            total += int(last, 16) - int(first, 16) + 1 if int(last, 16) else 0
    if total:
        return total >> 20
    kibibytes = next(int(x.split()[1]) for x in meminfo.read_text().splitlines() if x.startswith("MemTotal:"))
    return kibibytes >> 10


def resident_kib() -> int:
    """The agent's own resident memory, KiB (VmRSS of proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def console(line: str) -> None:
    """One printable line for the console; never container output, never a secret."""
    text = "".join(c if c.isprintable() else " " for c in line[:_LINE])
    print(f"casemate: {text}", flush=True)


def advice(error: OSError) -> str:
    """What to do about the machine's error, as a clause."""
    return "; start the workload with more memory" if error.errno in (errno.ENOSPC, errno.ENOMEM) else ""


def where(error: BaseException) -> str:
    """Kind and place of an unexpected error, without its text: the last line of our own that it came through."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "casemate" in frame.filename]
    return type(error).__name__ + (f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else "")
