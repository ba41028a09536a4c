"""The SEV-SNP launch digest, piece by piece: firmware, metadata pages, vCPUs.

Standard: SEV-SNP firmware ABI, section 8.17.2: for each page SHA-384 over PAGE_INFO (the digest so far, the page's
digest, type and address). Each function takes the digest so far (48 bytes) and returns the next.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from casemate.boot import ovmf
from casemate.tee.snp.firmware import Kind, Section

START = bytes(48)
_NORMAL, _VMSA, _ZERO, _UNMEASURED, _SECRETS, _CPUID = 1, 2, 3, 4, 5, 6
_VMSA_ADDRESS = 0xFFFFFFFFF000  # the RMP keeps -1, page aligned, without the bits above 51
_NO_CONTENT = bytes(48)


def pages(digest: bytes, address: int, data: bytes) -> bytes:
    """Pages with content, such as the firmware's own."""
    view = memoryview(data)
    for offset in range(0, len(data), ovmf.PAGE):
        content = hashlib.sha384(view[offset : offset + ovmf.PAGE]).digest()
        digest = _extend(digest, _NORMAL, address + offset, content)
    return digest


def sections(
    digest: bytes,
    found: Iterable[Section],
    hashes: bytes | None,
    *,
    cpuid_last: bool = False,
    memory_measured: bool = True,
) -> bytes:
    """The pages of the firmware's metadata; `hashes` is the page for the kernel's hashes (None: zeros).

    EC2 adds CPUID pages after all others (`cpuid_last`); GCE adds memory unmeasured.
    """
    ordered = sorted(found, key=lambda s: s.kind is Kind.CPUID) if cpuid_last else found
    for section in ordered:
        if section.kind is Kind.KERNEL_HASHES and hashes is not None:
            digest = pages(digest, section.address, hashes)
        elif section.kind is Kind.SECRETS:
            digest = _extend(digest, _SECRETS, section.address, _NO_CONTENT)
        elif section.kind is Kind.CPUID:
            digest = _extend(digest, _CPUID, section.address, _NO_CONTENT)
        else:
            kind = _ZERO if memory_measured or section.kind is not Kind.MEMORY else _UNMEASURED
            for address in range(section.address, section.address + section.size, ovmf.PAGE):
                digest = _extend(digest, kind, address, _NO_CONTENT)
    return digest


def vcpus(digest: bytes, areas: Iterable[bytes]) -> bytes:
    """The register page (VMSA, 4096 bytes) of each vCPU."""
    for area in areas:
        digest = _extend(digest, _VMSA, _VMSA_ADDRESS, hashlib.sha384(area).digest())
    return digest


def before_snp(firmware: bytes, table: bytes, areas: Iterable[bytes] = ()) -> bytes:
    """The launch digest (32 bytes) of SEV, and with the vCPUs' areas of SEV-ES: SHA-256 over all that was encrypted.

    Standard: SEV API (55766), LAUNCH_MEASURE. `table` is that of the kernel's hashes, empty without a kernel; the
    areas have no SEV features. Such guests can't be verified here; the digest is for those who still launch them.
    """
    hasher = hashlib.sha256(firmware + table)
    for area in areas:
        hasher.update(area)
    return hasher.digest()


def _extend(digest: bytes, kind: int, address: int, content: bytes) -> bytes:
    """One page: PAGE_INFO is 0x70 bytes; IMI and VMPL permissions are zero at launch."""
    info = digest + content + struct.pack("<HBBIQ", 0x70, kind, 0, 0, address)
    return hashlib.sha384(info).digest()
