"""MRTD, RTMR 1 and RTMR 2 of a direct boot, computed from its files, and the machine that a TDX launch needs.

MRTD (TDX module ABI, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND): one SHA-384 over a record of 128 bytes for each page that is
added, and for each measured chunk of 256 bytes a record and the chunk. RTMR 1 and 2 (TDX Virtual Firmware Design Guide,
section 8; UEFI, section 38: PCR 2 to 6 go to RTMR 1, PCR 8 to 15 to RTMR 2): the kernel and the firmware's actions; the
kernel's load options and the initrd, as the Linux EFI stub measures them. RTMR 0 depends on the machine (rtmr0.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.wire.encoding import b64

if TYPE_CHECKING:
    from casemate.errors import Finding
    from casemate.tee.tdx.firmware import Section

_PAGE, _CHUNK = 4096, 256
# How the monitor builds the domain. KVM since Linux 6.16 adds and measures page by page; the patches before it added
# all pages of a section and then measured them.
_ORDERS = {"": False, "qemu": False, "qemu-two-pass": True}
# What the firmware measures when it starts a kernel and when that leaves the boot services.
_ACTIONS = (
    b"Calling EFI Application from Boot Option",
    bytes(4),
    b"Exit Boot Services Invocation",
    b"Exit Boot Services Returned with Success",
)


def machine(launch: Launch) -> Machine:
    """A q35 machine as a trust domain; MRCONFIGID (48 bytes) carries the initdata digest, padded with zeros."""
    guest = "tdx-guest,id=tee0"
    if launch.initdata_digest is not None:
        guest += f",mrconfigid={b64(launch.initdata_digest.ljust(48, bytes(1)))}"
    return Machine(
        machine="q35,kernel-irqchip=split,confidential-guest-support=tee0",
        cpu=launch.cpu_type or "host",
        objects=(guest,),
        firmware="tdx",
        needs_kvm=True,
        protected_memory=True,
    )


def measure(launch: Launch) -> Measurement:
    """`mrtd` from the firmware; `rtmr1`, `rtmr2` from kernel, command line and initrd, if there is a kernel.

    `rtmr0` is recorded, or replayed from `launch.event_log` when each of its events is accounted for. The kernel is
    the file as QEMU 10 and edk2 2025.02 (both, or newer) load it; older ones write addresses into its header first.
    """
    if launch.vmm not in _ORDERS:
        raise Unusable(f"monitor {launch.vmm[:32]!r} is not known for TDX", hint="known: qemu, qemu-two-pass")
    if launch.guest_features is not None or launch.image:
        raise Unusable("TDX is measured from a firmware and a kernel, without features or a whole image")
    values = {"mrtd": mrtd(launch.firmware, two_pass=_ORDERS[launch.vmm]).hex()}
    if "rtmr0" in launch.recorded:
        values["rtmr0"] = launch.recorded["rtmr0"].lower()
    if launch.kernel:
        from casemate.boot import authenticode

        options = launch.command_line + (" initrd=initrd" if launch.initrd else "")
        loaded = [_sha384((options + "\0").encode("utf-16-le"))]
        loaded += [_sha384(launch.initrd)] if launch.initrd else []
        values["rtmr1"] = rtmr1(authenticode.digest(launch.kernel, "sha384")).hex()
        values["rtmr2"] = replay(loaded).hex()
    if not launch.event_log:
        return Measurement(tee="tdx", values=values)
    replayed, findings = _replayed(launch, values)
    return Measurement(tee="tdx", values=values | replayed, findings=findings)


def _replayed(launch: Launch, values: dict[str, str]) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """(RTMR 0, if the log holds), and what was found: each of its events, and the registers that are computed."""
    from casemate.boot import eventlog
    from casemate.tee.rules import Rules
    from casemate.tee.tdx import firmware, rtmr0

    log = eventlog.parse(launch.event_log, padded=True)
    registers, rules = eventlog.replay(log, "sha384"), Rules("tdx")
    for name in ("rtmr1", "rtmr2"):
        if name in values:
            found = registers.get(int(name[-1]) + 1, bytes(48))
            rules.equal(
                f"{name}.log", bytes.fromhex(values[name]), found, "the log is of another kernel or command line"
            )
    rules.add(rtmr0.account(log, firmware.sections(launch.firmware), launch.memory_mib << 20))
    shown = {} if rules.failed else {"rtmr0": registers[rtmr0.REGISTER].hex()}
    return shown, tuple(rules.checks)


def request(nonce: bytes, hint: bytes) -> Request:
    """The nonce itself is the report data."""
    return Request(report_data=nonce)


def mrtd(firmware: bytes, *, two_pass: bool = False) -> bytes:
    """The build-time measurement (48 bytes) of a domain that starts with this image; `Unusable` when it is no TDVF."""
    from casemate.tee.tdx import firmware as images

    if not firmware:
        raise Unusable("there is no firmware to measure", hint="TDX needs a build of OVMF with TDX metadata")
    found = images.sections(firmware)
    if not any(section.attributes & images.EXTEND for section in found):
        raise Unusable("this firmware can't start a trust domain", hint="TDX needs a build of OVMF with TDX metadata")
    hasher = hashlib.sha384()
    for section in found:
        added = not section.attributes & images.AUGMENT
        measured = bool(section.attributes & images.EXTEND)
        pages = range(0, section.size, _PAGE)
        for steps in ((True, False), (False, True)) if two_pass else ((True, True),):
            for at in pages:
                if added and steps[0]:
                    hasher.update(_record(b"MEM.PAGE.ADD", section.address + at))
                if measured and steps[1]:
                    _extend(hasher.update, section, at)
    return hasher.digest()


def rtmr1(kernel: bytes) -> bytes:
    """RTMR 1 of a direct boot, from the kernel's Authenticode SHA-384."""
    return replay([kernel, *map(_sha384, _ACTIONS)])


def replay(digests: Iterable[bytes]) -> bytes:
    """A register that starts at zero and is extended by each of `digests` (48 bytes) in turn."""
    register = bytes(48)
    for digest in digests:
        register = _sha384(register + digest)
    return register


def _extend(update: Callable[[bytes], None], section: Section, at: int) -> None:
    page = section.data[at : at + _PAGE].ljust(_PAGE, b"\0")
    for chunk in range(0, _PAGE, _CHUNK):
        update(_record(b"MR.EXTEND", section.address + at + chunk))
        update(page[chunk : chunk + _CHUNK])


def _record(name: bytes, address: int) -> bytes:
    return name.ljust(16, b"\0") + address.to_bytes(8, "little") + bytes(104)


def _sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()
