"""The initial register page (VMSA) of a vCPU as a hypervisor sets it up, and the CPUID signatures of QEMU's models.

Layout: AMD64 Architecture Programmer's Manual volume 2, table B-4. The values are the reset state (volume 2, section
14.1.3) with what KVM adds: EFER.SVME, CR4.MCE and the SEV features. EC2 and GCE set some of them in their own way.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

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


class Monitor(NamedTuple):
    """In what a hypervisor's initial registers differ. `rdx` None: the CPUID signature of the model."""

    ss: int = 0x93
    tr: int = 0x8B
    first_cs: int = 0x9B  # the boot vCPU's
    pat: int = 0x0007040600070406
    rdx: int | None = None
    mxcsr: int = 0x1F80
    fcw: int = 0x37F


QEMU = Monitor()
EC2 = Monitor(ss=0x92, tr=0x83, first_cs=0x9A, rdx=0x600, mxcsr=0, fcw=0)
GCE = Monitor(pat=0x00070106, rdx=0x600, mxcsr=0, fcw=0)

# offset, selector, attributes, limit
_SEGMENTS = (
    (0x000, 0, 0x93, 0xFFFF),  # es
    (0x030, 0, 0x93, 0xFFFF),  # ds
    (0x040, 0, 0x93, 0xFFFF),  # fs
    (0x050, 0, 0x93, 0xFFFF),  # gs
    (0x060, 0, 0x00, 0xFFFF),  # gdtr
    (0x070, 0, 0x82, 0xFFFF),  # ldtr
    (0x080, 0, 0x00, 0xFFFF),  # idtr
)
_CS, _SS, _TR = 0x010, 0x020, 0x090
_QUADWORDS = (
    (0x0D0, 0x1000),  # efer: SVME
    (0x148, 0x40),  # cr4: MCE
    (0x158, 0x10),  # cr0: ET
    (0x160, 0x400),  # dr7
    (0x168, 0xFFFF0FF0),  # dr6
    (0x170, 0x2),  # rflags
    (0x3E8, 0x1),  # xcr0
)
_RIP, _PAT, _RDX, _FEATURES, _MXCSR, _FCW = 0x178, 0x268, 0x310, 0x3B0, 0x408, 0x410


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


def page(eip: int, cpu_signature: int, features: int = SNP_ACTIVE, monitor: Monitor = QEMU) -> bytes:
    """The 4096 bytes for a vCPU that starts at `eip` in real mode; `features` is SEV_FEATURES."""
    made = bytearray(SIZE)
    cs = monitor.first_cs if eip == RESET_EIP else 0x9B
    segments = (*_SEGMENTS, (_SS, 0, monitor.ss, 0xFFFF), (_TR, 0, monitor.tr, 0xFFFF))
    for offset, selector, attributes, limit in segments:
        struct.pack_into("<HHIQ", made, offset, selector, attributes, limit, 0)
    struct.pack_into("<HHIQ", made, _CS, 0xF000, cs, 0xFFFF, eip & 0xFFFF0000)
    for offset, value in (*_QUADWORDS, (_PAT, monitor.pat), (_FEATURES, features)):
        struct.pack_into("<Q", made, offset, value)
    struct.pack_into("<Q", made, _RIP, eip & 0xFFFF)
    struct.pack_into("<Q", made, _RDX, cpu_signature if monitor.rdx is None else monitor.rdx)
    struct.pack_into("<I", made, _MXCSR, monitor.mxcsr)
    struct.pack_into("<H", made, _FCW, monitor.fcw)
    return bytes(made)
