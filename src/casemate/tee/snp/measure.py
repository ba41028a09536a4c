"""The SEV-SNP launch digest of a launch, computed from its files, and the machine that a direct boot needs.

Order as the hypervisors launch: the firmware's pages, its metadata's sections, a VMSA for each vCPU (digest.py). With
`kernel-hashes=on` QEMU puts SHA-256 of command line, initrd and kernel into a page that the firmware compares before it
runs them (QEMU target/i386/sev.c), so the digest covers all of them. EC2 and GCE boot no kernel of the caller's.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from types import MappingProxyType
from uuid import UUID

from casemate.boot import ovmf
from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.snp import digest as launch_digest
from casemate.tee.snp import firmware as firmwares
from casemate.tee.snp import vmsa
from casemate.tee.snp.firmware import Kind
from casemate.wire.encoding import b64

DEFAULT_CPU = "EPYC-v4"
MAX_VCPUS = 64
# Guest policy (ABI table 9): bit 17 must be one, bit 16 allows SMT; debugging and migration stay forbidden.
POLICY = 0x30000
MONITORS: Mapping[str, vmsa.Monitor] = MappingProxyType(
    {"": vmsa.QEMU, "qemu": vmsa.QEMU, "ec2": vmsa.EC2, "gce": vmsa.GCE}
)

_TABLE = UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_COMMAND_LINE = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL = UUID("4de79437-abd2-427f-b835-d5b172d2045b")


def machine(launch: Launch) -> Machine:
    """A q35 machine with SNP protection; HOST_DATA carries the initdata digest."""
    guest = f"sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=1,kernel-hashes=on,policy={POLICY:#x}"
    if launch.initdata_digest is not None:
        guest += f",host-data={b64(launch.initdata_digest)}"
    return Machine(
        machine="q35,confidential-guest-support=tee0,memory-backend=ram0",
        cpu=launch.cpu_type or DEFAULT_CPU,
        objects=(f"memory-backend-memfd,id=ram0,size={launch.memory_mib}M,share=true", guest),
        firmware="amdsev",
        needs_kvm=True,
        protected_memory=True,
    )


def measure(launch: Launch) -> Measurement:
    """`measurement`: the launch digest. `Malformed` firmware, or one that checks no kernel (`Unusable`), has none."""
    monitor = MONITORS.get(launch.vmm)
    if monitor is None:
        raise Unusable(f"monitor {launch.vmm[:32]!r} is not known for SNP", hint="known: qemu, ec2, gce")
    if not 1 <= launch.vcpus <= MAX_VCPUS:
        raise Unusable(f"{launch.vcpus} vCPUs; the digest is computed for 1 to {MAX_VCPUS}")
    if launch.image or launch.event_log:
        raise Unusable("SNP is measured from a firmware and a kernel, without a whole image or an event log")
    if not launch.firmware:
        raise Unusable("there is no firmware to measure", hint="SNP needs the AmdSev build of OVMF")
    if launch.kernel and monitor is not vmsa.QEMU:
        raise Unusable(f"{launch.vmm} starts no kernel from a file", hint="leave out kernel, initrd and command line")
    features = vmsa.SNP_ACTIVE if launch.guest_features is None else launch.guest_features
    if not 0 <= features < 1 << 64 or not features & vmsa.SNP_ACTIVE:
        raise Unusable(f"guest features {features:#x} are without SNP", hint="bit 0 is SNP itself")
    signature = vmsa.signature(launch.cpu_type or DEFAULT_CPU)
    found = firmwares.parse(launch.firmware)
    if launch.vcpus > 1 and not found.reset_eip:
        raise Unusable("this firmware does not say where further vCPUs start")
    hashes = _hashes(launch, found) if launch.kernel else None
    areas = (
        vmsa.page(found.reset_eip if number else vmsa.RESET_EIP, signature, features, monitor)
        for number in range(launch.vcpus)
    )
    digest = launch_digest.pages(launch_digest.START, ovmf.address(launch.firmware), launch.firmware)
    digest = launch_digest.sections(
        digest, found.sections, hashes, cpuid_last=monitor is vmsa.EC2, memory_measured=monitor is not vmsa.GCE
    )
    return Measurement(tee="snp", values={"measurement": launch_digest.vcpus(digest, areas).hex()})


def request(nonce: bytes, hint: bytes) -> Request:
    """The nonce itself is the report data."""
    return Request(report_data=nonce)


def hashes_page(launch: Launch, offset: int) -> bytes:
    """The page with the hashes table at `offset`, as QEMU writes it; the table must fit into the page."""
    return hashes_page_from(_sha256(launch.kernel), _sha256(launch.initrd), launch.command_line, offset)


def hashes_page_from(kernel: bytes, initrd: bytes, command_line: str, offset: int) -> bytes:
    """The same from the SHA-256 (32 bytes each) of kernel and initrd."""
    table = hashes_table(kernel, initrd, command_line)
    if offset + len(table) > ovmf.PAGE:
        raise Unusable("the firmware's hashes table does not fit into its page")
    return (bytes(offset) + table).ljust(ovmf.PAGE, b"\0")


def hashes_table(kernel: bytes, initrd: bytes, command_line: str) -> bytes:
    """QEMU's table of hashes, padded to 16 bytes, from the SHA-256 of kernel and initrd."""
    line = _sha256(command_line.encode() + b"\0")
    entries = b"".join(
        guid.bytes_le + struct.pack("<H", 50) + content
        for guid, content in ((_COMMAND_LINE, line), (_INITRD, initrd), (_KERNEL, kernel))
    )
    table = _TABLE.bytes_le + struct.pack("<H", 18 + len(entries)) + entries
    return table + bytes(-len(table) % 16)


def _hashes(launch: Launch, found: firmwares.Firmware) -> bytes:
    """The page of the kernel's hashes; a firmware that would not look at it is `Unusable`."""
    sections = [section.address for section in found.sections if section.kind is Kind.KERNEL_HASHES]
    if sections != [found.hashes_table & ~(ovmf.PAGE - 1)] or not found.hashes_table:
        raise Unusable("this firmware does not check a kernel's hashes", hint="SNP needs the AmdSev build of OVMF")
    return hashes_page(launch, found.hashes_table & (ovmf.PAGE - 1))


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
