"""The SEV-SNP launch digest of a direct boot, computed from the files, and the machine that such a launch needs.

Digest: SEV-SNP firmware ABI, section 8.17.2: for each page SHA-384 over PAGE_INFO (the digest so far, the page's
digest, type and address). Order as QEMU launches: the firmware's pages, its metadata's sections, a VMSA for each vCPU.
With `kernel-hashes=on` QEMU puts SHA-256 of command line, initrd and kernel into a page that the firmware compares
before it runs them (QEMU target/i386/sev.c), so the digest covers all of them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from uuid import UUID

from casemate.boot import ovmf
from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.snp import firmware as firmwares
from casemate.tee.snp import vmsa
from casemate.tee.snp.firmware import Kind
from casemate.wire.encoding import b64

DEFAULT_CPU = "EPYC-v4"
MAX_VCPUS = 64
# Guest policy (ABI table 9): bit 17 must be one, bit 16 allows SMT; debugging and migration stay forbidden.
POLICY = 0x30000

_NORMAL, _VMSA, _ZERO, _SECRETS, _CPUID = 1, 2, 3, 5, 6
_VMSA_ADDRESS = 0xFFFFFFFFF000  # the RMP keeps -1, page aligned, without the bits above 51
_NO_CONTENT = bytes(48)

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
    if not 1 <= launch.vcpus <= MAX_VCPUS:
        raise Unusable(f"{launch.vcpus} vCPUs; the digest is computed for 1 to {MAX_VCPUS}")
    signature = vmsa.signature(launch.cpu_type or DEFAULT_CPU)
    found = firmwares.parse(launch.firmware)
    hashed = [section.address for section in found.sections if section.kind is Kind.KERNEL_HASHES]
    if hashed != [found.hashes_table & ~(ovmf.PAGE - 1)] or not found.hashes_table:
        raise Unusable("this firmware does not check a kernel's hashes", hint="SNP needs the AmdSev build of OVMF")
    if launch.vcpus > 1 and not found.reset_eip:
        raise Unusable("this firmware does not say where further vCPUs start")
    digest = _pages(bytes(48), ovmf.address(launch.firmware), launch.firmware)
    for section in found.sections:
        digest = _section(digest, section, lambda: hashes_page(launch, found.hashes_table & (ovmf.PAGE - 1)))
    for number in range(launch.vcpus):
        page = vmsa.page(found.reset_eip if number else vmsa.RESET_EIP, signature)
        digest = _extend(digest, _VMSA, _VMSA_ADDRESS, hashlib.sha384(page).digest())
    return Measurement(tee="snp", values={"measurement": digest.hex()})


def request(nonce: bytes, hint: bytes) -> Request:
    """The nonce itself is the report data."""
    return Request(report_data=nonce)


def hashes_page(launch: Launch, offset: int) -> bytes:
    """The page with the hashes table at `offset`, as QEMU writes it; the table must fit into the page."""
    line = launch.command_line.encode() + b"\0"
    entries = b"".join(
        guid.bytes_le + struct.pack("<H", 50) + hashlib.sha256(content).digest()
        for guid, content in ((_COMMAND_LINE, line), (_INITRD, launch.initrd), (_KERNEL, launch.kernel))
    )
    table = _TABLE.bytes_le + struct.pack("<H", 18 + len(entries)) + entries
    padded = table + bytes(-len(table) % 16)
    if offset + len(padded) > ovmf.PAGE:
        raise Unusable("the firmware's hashes table does not fit into its page")
    return (bytes(offset) + padded).ljust(ovmf.PAGE, b"\0")


def _section(digest: bytes, section: firmwares.Section, hashes: Callable[[], bytes]) -> bytes:
    if section.kind is Kind.KERNEL_HASHES:
        return _pages(digest, section.address, hashes())
    if section.kind in {Kind.SECRETS, Kind.CPUID}:
        return _extend(digest, _SECRETS if section.kind is Kind.SECRETS else _CPUID, section.address, _NO_CONTENT)
    for address in range(section.address, section.address + section.size, ovmf.PAGE):
        digest = _extend(digest, _ZERO, address, _NO_CONTENT)
    return digest


def _pages(digest: bytes, address: int, data: bytes) -> bytes:
    view = memoryview(data)
    for offset in range(0, len(data), ovmf.PAGE):
        content = hashlib.sha384(view[offset : offset + ovmf.PAGE]).digest()
        digest = _extend(digest, _NORMAL, address + offset, content)
    return digest


def _extend(digest: bytes, kind: int, address: int, content: bytes) -> bytes:
    """One page: PAGE_INFO is 0x70 bytes; IMI and VMPL permissions are zero at launch."""
    info = digest + content + struct.pack("<HBBIQ", 0x70, kind, 0, 0, address)
    return hashlib.sha384(info).digest()
