"""Which accelerator QEMU can use: KVM only where it runs guest code at the processor's speed, else TCG.

The node /dev/kvm proves nothing: it may hang, or be an interpreter that a kernel never finishes booting under. So a
child process makes a VM and lets it count to four million in 64-bit mode (a few milliseconds on hardware) within two
seconds. The verdict is kept per boot, because a failing probe costs its whole time limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

from casemate.drivers import processes
from casemate.errors import Unusable

KVM = "kvm"
TCG = "tcg"
NODE = Path("/dev/kvm")
PROBE_SECONDS = 2.0
ENVIRONMENT = "CASEMATE_ACCELERATOR"

# ioctl numbers of linux/kvm.h (x86-64)
_CREATE_VM, _GET_VCPU_MMAP_SIZE, _CREATE_VCPU, _RUN = 0xAE01, 0xAE04, 0xAE41, 0xAE80
_SET_MEMORY, _GET_SREGS, _SET_SREGS, _SET_REGS = 0x4020AE46, 0x8138AE83, 0x4138AE84, 0x4090AE82
_EXIT_HLT = 5
_MEMORY = 2 << 20
_CODE = bytes.fromhex("b900004000 ffc9 75fc f4")  # mov ecx, 0x400000; dec ecx; jnz -4; hlt


def choose(cache: Path | None = None) -> str:
    """`kvm` or `tcg`. `CASEMATE_ACCELERATOR` decides when it is set; `cache` keeps the verdict for this boot."""
    wanted = os.environ.get(ENVIRONMENT, "")
    if wanted:
        if wanted not in {KVM, TCG}:
            raise Unusable(f"{ENVIRONMENT} is {wanted[:32]!r}", hint="use kvm or tcg")
        return wanted
    boot = processes.boot_id()
    known = _load(cache, boot)
    if known is None:
        known = KVM if works() else TCG
        _store(cache, boot, known)
    return known


def works(seconds: float = PROBE_SECONDS) -> bool:
    """Whether KVM runs 64-bit guest code at speed. Runs the probe in a child, which may hang or crash."""
    if not os.access(NODE, os.R_OK | os.W_OK):
        return False
    command = [sys.executable, "-I", "-c", "from casemate.drivers.accelerator import probe; probe()"]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return child.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel; it ends when the kernel lets go
            child.wait(1.0)
        return False


def probe() -> None:
    """Make a VM, count in 64-bit mode until HLT; any other outcome is an exception. Called in the child."""
    import ctypes
    import fcntl
    import mmap

    kvm = os.open(NODE, os.O_RDWR | os.O_CLOEXEC)
    machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
    memory = mmap.mmap(-1, _MEMORY)
    # One 2 MiB page, identity mapped: PML4 at 0x2000, PDPT at 0x3000, PD at 0x4000; code at 0x1000.
    for at, entry in ((0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x83)):
        struct.pack_into("<Q", memory, at, entry)
    memory[0x1000 : 0x1000 + len(_CODE)] = _CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, _SET_MEMORY, struct.pack("<IIQQQ", 0, 0, 0, _MEMORY, address))
    cpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    state = mmap.mmap(cpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE, 0))
    special = bytearray(312)
    fcntl.ioctl(cpu, _GET_SREGS, special)
    _long_mode(special)
    fcntl.ioctl(cpu, _SET_SREGS, bytes(special))
    registers = bytearray(144)
    struct.pack_into("<QQ", registers, 128, 0x1000, 2)  # rip, rflags
    fcntl.ioctl(cpu, _SET_REGS, bytes(registers))
    fcntl.ioctl(cpu, _RUN, 0)
    if struct.unpack_from("<I", state, 8)[0] != _EXIT_HLT:
        raise Unusable("KVM did not run the probe to its end")


def _long_mode(special: bytearray) -> None:
    """Put struct kvm_sregs into 64-bit mode: flat segments, then CR0.PE|ET|NE|PG, CR3, CR4.PAE, EFER.LME|LMA."""

    def segment(selector: int, kind: int, wide: int, long: int) -> bytes:
        return struct.pack("<QIHBBBBBBBBBB", 0, 0xFFFFFFFF, selector, kind, 1, 0, wide, 1, long, 1, 0, 0, 0)

    code, data = segment(8, 11, 0, 1), segment(16, 3, 1, 0)
    special[: 24 * 6] = code + data * 5
    struct.pack_into("<6Q", special, 24 * 8 + 16 * 2, 0x80000031, 0, 0x2000, 0x20, 0, 0x500)


def _load(cache: Path | None, boot: str) -> str | None:
    if cache is None:
        return None
    try:
        kept = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("boot") != boot or kept.get("accelerator") not in {KVM, TCG}:
        return None
    return str(kept["accelerator"])


def _store(cache: Path | None, boot: str, accelerator: str) -> None:
    if cache is None:
        return
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"boot": boot, "accelerator": accelerator}), encoding="utf-8")
    temporary.replace(cache)
