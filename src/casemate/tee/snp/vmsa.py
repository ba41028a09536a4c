"""The initial register page (VMSA) of a vCPU as QEMU and KVM set it up, and the CPUID signatures of QEMU's models.

Layout: AMD64 Architecture Programmer's Manual volume 2, table B-4. The values are the reset state (volume 2, section
14.1.3) with what KVM adds: EFER.SVME, CR4.MCE and the SEV features.
"""

from __future__ import annotations

import re
import struct

from casemate.errors import Unusable

SIZE = 4096
RESET_EIP = 0xFFFFFFF0
SNP_ACTIVE = 0x1

# family, model and stepping of QEMU's named models; versions of one model share them
_MODELS = {
    "EPYC": (23, 1, 2),
    "EPYC-IBPB": (23, 1, 2),
    "EPYC-Rome": (23, 49, 0),
    "EPYC-Milan": (25, 1, 1),
    "EPYC-Genoa": (25, 17, 0),
    "EPYC-Turin": (26, 0, 0),
}
_VERSION = re.compile(r"-v[0-9]{1,2}$")

# offset, selector, attributes, limit
_SEGMENTS = (
    (0x000, 0, 0x93, 0xFFFF),  # es
    (0x020, 0, 0x93, 0xFFFF),  # ss
    (0x030, 0, 0x93, 0xFFFF),  # ds
    (0x040, 0, 0x93, 0xFFFF),  # fs
    (0x050, 0, 0x93, 0xFFFF),  # gs
    (0x060, 0, 0x00, 0xFFFF),  # gdtr
    (0x070, 0, 0x82, 0xFFFF),  # ldtr
    (0x080, 0, 0x00, 0xFFFF),  # idtr
    (0x090, 0, 0x8B, 0xFFFF),  # tr
)
_CS = 0x010
_QUADWORDS = (
    (0x0D0, 0x1000),  # efer: SVME
    (0x148, 0x40),  # cr4: MCE
    (0x158, 0x10),  # cr0: ET
    (0x160, 0x400),  # dr7
    (0x168, 0xFFFF0FF0),  # dr6
    (0x170, 0x2),  # rflags
    (0x268, 0x0007040600070406),  # g_pat
    (0x3B0, SNP_ACTIVE),  # sev_features
    (0x3E8, 0x1),  # xcr0
)
_RIP, _RDX, _MXCSR, _FCW = 0x178, 0x310, 0x408, 0x410


def signature(cpu_type: str) -> int:
    """CPUID Fn0000_0001 EAX of a QEMU model (`EPYC-v4`, `EPYC-Milan`); an unknown one is `Unusable`."""
    model = _MODELS.get(_VERSION.sub("", cpu_type))
    if model is None:
        raise Unusable(
            f"CPU type {cpu_type[:40]!r} has no known signature",
            hint=f"known: {', '.join(_MODELS)}, each also with -vN",
        )
    family, number, stepping = model
    base, extended = min(family, 15), max(family - 15, 0)
    return extended << 20 | (number >> 4) << 16 | base << 8 | (number & 15) << 4 | stepping


def page(eip: int, cpu_signature: int) -> bytes:
    """The 4096 bytes for a vCPU that starts at `eip` in real mode."""
    made = bytearray(SIZE)
    for offset, selector, attributes, limit in _SEGMENTS:
        struct.pack_into("<HHIQ", made, offset, selector, attributes, limit, 0)
    struct.pack_into("<HHIQ", made, _CS, 0xF000, 0x9B, 0xFFFF, eip & 0xFFFF0000)
    for offset, value in _QUADWORDS:
        struct.pack_into("<Q", made, offset, value)
    struct.pack_into("<Q", made, _RIP, eip & 0xFFFF)
    struct.pack_into("<Q", made, _RDX, cpu_signature)
    struct.pack_into("<I", made, _MXCSR, 0x1F80)
    struct.pack_into("<H", made, _FCW, 0x37F)
    return bytes(made)
