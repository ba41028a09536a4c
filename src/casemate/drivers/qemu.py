"""QEMU: the command line of one VM, and the program that must run it.

Rules
- The same code writes the line for every TEE: what differs comes in as a `Machine` (`Room.machine`), never as a name.
- Nothing of the defaults: every device stands here; network cards carry no option ROM, which would be measured.
- Disks are virtio-blk with a serial, by which the guest finds them; all but volumes are read-only.
- Sockets and logs are relative to the workload's folder, QEMU's working directory: a UNIX socket's path is short.

Lines are pinned by golden files in tests/vectors/qemu.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from casemate.drivers import accelerator
from casemate.errors import Unusable
from casemate.schema.launch import Machine

PROGRAM = "qemu-system-x86_64"
MINIMUM_VERSION = (10, 0)
CONTROL_PORT = "casemate.ctl"
CONTROL_SOCKET = "control.sock"
QMP_SOCKET = "qmp.sock"
CONSOLE_LOG = "console.log"
# TCG keeps translated code, by default a gigabyte of it; 32 MiB cost no measurable time and keep QEMU within 120 MiB
# beside the memory of the guest.
TRANSLATION_CACHE_MIB = 32
_SERIAL = re.compile(r"[a-z0-9-]{1,20}")
_VERSION = re.compile(r"version (\d+)\.(\d+)")


@dataclass(frozen=True)
class Disk:
    """A raw file as virtio-blk; `serial` has at most 20 characters (virtio 1.2 section 5.2.6)."""

    path: Path
    serial: str
    read_only: bool = True


@dataclass(frozen=True)
class Forward:
    """A published port: host address and port to the guest's port."""

    address: str
    host_port: int
    guest_port: int
    protocol: str = "tcp"


@dataclass(frozen=True)
class Vm:
    """Everything that one command line says. Paths of the image are absolute; `tpm_socket` is None without a vTPM."""

    name: str
    machine: Machine
    accelerator: str
    firmware: Path
    kernel: Path
    initrd: Path
    command_line: str
    vcpus: int
    memory_mib: int
    disks: tuple[Disk, ...]
    forwards: tuple[Forward, ...] = ()
    tpm_socket: str | None = None


def arguments(vm: Vm, program: str = PROGRAM) -> list[str]:
    """The whole argv for `vm`; `Unusable` when it asks for what cannot be."""
    if vm.machine.needs_kvm and vm.accelerator != accelerator.KVM:
        raise Unusable(
            "this TEE needs KVM, and KVM does not work here", hint="run it on a host with the TEE's hardware"
        )
    if vm.machine.vtpm and vm.tpm_socket is None:
        raise Unusable("this platform needs a vTPM, and none was given")
    return [program, *_board(vm), *_boot(vm), *_channels(vm), *_disks(vm), *_network(vm), *_tpm(vm)]


def find() -> str:
    """The path of a QEMU that is new enough; `Unusable` says what to install."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise Unusable(f"{PROGRAM} is not installed", hint="run: make setup")
    demand(version(program))
    return program


def version(program: str) -> tuple[int, int]:
    """(major, minor) of a QEMU."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unusable(f"{program} does not run: {error}") from error
    found = _VERSION.search(done.stdout)
    if found is None:
        raise Unusable(f"{program} does not say its version")
    return int(found[1]), int(found[2])


def demand(found: tuple[int, int]) -> None:
    """Refuse a QEMU whose emulation crashes the guest's kernel (7.2 does, in one boot of ten)."""
    if found < MINIMUM_VERSION:
        raise Unusable(
            f"QEMU {found[0]}.{found[1]} is too old: guests crash in its emulation; {MINIMUM_VERSION[0]}.0 is needed",
            hint="run: make setup (on Debian 12 it takes QEMU from backports)",
        )


def _board(vm: Vm) -> list[str]:
    # Guest memory stays out of core dumps and of page merging, both of which would show it to others.
    machine = f"{vm.machine.machine},dump-guest-core=off,mem-merge=off,vmport=off"
    if vm.accelerator == accelerator.KVM:
        chosen, cpu = "kvm", vm.machine.cpu or "host"
    else:
        chosen, cpu = f"tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}", vm.machine.cpu or "max"
    line = ["-name", vm.name, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]
    line += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    line += ["-machine", machine, "-accel", chosen, "-cpu", cpu, "-smp", str(vm.vcpus), "-m", str(vm.memory_mib)]
    for item in vm.machine.objects:
        line += ["-object", item]
    return line


def _boot(vm: Vm) -> list[str]:
    return [
        "-bios", str(vm.firmware), "-kernel", str(vm.kernel), "-initrd", str(vm.initrd), "-append", vm.command_line,
    ]  # fmt: skip


def _channels(vm: Vm) -> list[str]:
    return [
        "-qmp", f"unix:{QMP_SOCKET},server=on,wait=off",
        "-chardev", f"file,id=console,path={CONSOLE_LOG},append=on", "-serial", "chardev:console",
        "-chardev", f"socket,id=control,path={CONTROL_SOCKET},server=on,wait=off",
        "-device", "virtio-serial-pci,id=ports",
        "-device", f"virtserialport,bus=ports.0,chardev=control,name={CONTROL_PORT}",
        "-object", "rng-random,id=entropy,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=entropy",
    ]  # fmt: skip


def _disks(vm: Vm) -> list[str]:
    serials = [disk.serial for disk in vm.disks]
    if len(set(serials)) != len(serials) or not all(_SERIAL.fullmatch(serial) for serial in serials):
        raise Unusable(f"disk serials must be different and short: {', '.join(serials)[:200]}")
    line: list[str] = []
    for disk in vm.disks:
        # Write-back with flushes: what the guest flushed is on the host's disk, which is what a volume needs.
        file = {"driver": "file", "filename": str(disk.path), "read-only": disk.read_only}
        node = {"driver": "raw", "node-name": disk.serial, "read-only": disk.read_only, "file": file}
        line += ["-blockdev", json.dumps(node), "-device", f"virtio-blk-pci,drive={disk.serial},serial={disk.serial}"]
    return line


def _network(vm: Vm) -> list[str]:
    netdev = "user,id=net0,ipv6=off"
    for forward in vm.forwards:
        address = ipaddress.IPv4Address(forward.address)
        netdev += f",hostfwd={forward.protocol}:{address}:{forward.host_port}-:{forward.guest_port}"
    return ["-netdev", netdev, "-device", "virtio-net-pci,netdev=net0,romfile="]


def _tpm(vm: Vm) -> list[str]:
    if not vm.machine.vtpm:
        return []
    return [
        "-chardev", f"socket,id=tpm,path={vm.tpm_socket}", "-tpmdev", "emulator,id=tpm0,chardev=tpm",
        "-device", "tpm-crb,tpmdev=tpm0",
    ]  # fmt: skip
