"""Launch: everything that decides a launch measurement. Machine: what a room asks of the hypervisor for it."""

from __future__ import annotations

import msgspec


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """One VM launch, as bytes: the files are read by the caller, so that measuring needs no I/O.

    `command_line` is the kernel command line exactly as given to QEMU's -append. `initdata_digest` is SHA-256 of the
    initdata document (32 bytes) or None. `cpu_type` is a QEMU model name (`EPYC-v4`) where the measurement needs one.
    `recorded` are register values that cannot be computed from files (`pcr0`, `pcr2`, ...), per firmware build.
    An empty `kernel` or `firmware` is none: what follows from it is not measured. `image` is a whole image where a
    platform boots one (an EIF). `vmm` names the monitor in the room's words ("" is QEMU with KVM); `guest_features` are
    the features that it switches on for the guest (SNP: SEV_FEATURES); None is the room's default. `event_log` is that
    of a machine like this one, for registers that no file decides.
    """

    firmware: bytes = b""
    kernel: bytes = b""
    initrd: bytes = b""
    command_line: str = ""
    initdata_digest: bytes | None = None
    vcpus: int = 1
    cpu_type: str = ""
    memory_mib: int = 512
    recorded: dict[str, str] = {}
    image: bytes = b""
    vmm: str = ""
    guest_features: int | None = None
    event_log: bytes = b""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """QEMU arguments that a TEE needs, in order; the driver adds kernel, disks, channels and network.

    `machine` follows -machine, `cpu` follows -cpu ("" lets the driver choose), `objects` follow -object each.
    `firmware` names the firmware role (`generic`, `amdsev`, `tdx`). `vtpm` asks for a software TPM. `needs_kvm` refuses
    emulation. `protected_memory` says that guest RAM can't be shared with the host.
    """

    machine: str
    cpu: str = ""
    objects: tuple[str, ...] = ()
    firmware: str = "generic"
    vtpm: bool = False
    needs_kvm: bool = False
    protected_memory: bool = False
