"""What AMD's VCEK and VLEK certificates say: product, TCB, chip or provider.

Standard: Versioned Chip Endorsement Key Certificate and KDS Interface (57230), section 3 (extensions below
1.3.6.1.4.1.3704.1). The values are DER integers and strings; hwID is raw, and in some certificates an OCTET STRING.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

from casemate.crypto import chain, der
from casemate.errors import Malformed
from casemate.tee.snp.report import Tcb

_BASE = "1.3.6.1.4.1.3704.1"
_PRODUCT, _HARDWARE, _PROVIDER = f"{_BASE}.2", f"{_BASE}.4", f"{_BASE}.5"
_LEVELS = {"bootloader": "1", "tee": "2", "snp": "3", "microcode": "8", "fmc": "9"}
_SUBJECT = re.compile(r"CN=SEV-(VCEK|VLEK)(?:,|$)")
HARDWARE_SIZES = (8, 64)  # Turin's chip ids have 8 bytes


@dataclass(frozen=True)
class Vek:
    """A versioned endorsement key. `hardware_id` is None for a VLEK, `provider` for a VCEK."""

    kind: str
    product: str
    tcb: Tcb
    hardware_id: bytes | None
    provider: str | None


@lru_cache(maxsize=256)
def read(certificate: bytes) -> Vek:
    """The facts of a VCEK or VLEK certificate (DER)."""
    loaded = chain.load(certificate, "VEK certificate")
    found = {
        e.oid.dotted_string: e.value.value
        for e in loaded.cert.extensions
        if isinstance(e.value, x509.UnrecognizedExtension)
    }
    if _PRODUCT not in found:
        raise Malformed("VEK certificate: it names no product")
    levels = {
        name: _level(found[f"{_BASE}.3.{arc}"], name) for name, arc in _LEVELS.items() if f"{_BASE}.3.{arc}" in found
    }
    if set(levels) - {"fmc"} != {"bootloader", "tee", "snp", "microcode"}:
        raise Malformed("VEK certificate: a TCB level is missing")
    kind = kind_of(loaded)
    if not kind:
        raise Malformed("VEK certificate: its subject is neither SEV-VCEK nor SEV-VLEK")
    hardware = found.get(_HARDWARE)
    provider = found.get(_PROVIDER)
    return Vek(
        kind=kind,
        product=_text(found[_PRODUCT]).partition("-")[0],
        tcb=Tcb(**levels),
        hardware_id=_hardware(hardware) if hardware is not None else None,
        provider=_text(provider) if provider is not None else None,
    )


def kind_of(certificate: chain.Certificate) -> str:
    """`VCEK` or `VLEK` by the subject; "" for every other certificate, AMD's authorities included."""
    found = _SUBJECT.search(certificate.subject)
    return found.group(1) if found else ""


def _level(data: bytes, name: str) -> int:
    value = der.loads(data).integer()
    if value > 255:
        raise Malformed(f"VEK certificate: {name} level {value}")
    return value


def _text(data: bytes) -> str:
    element = der.loads(data)
    if element.tag != der.IA5 or len(element.content) > 256:
        raise Malformed("VEK certificate: a name that is no IA5 string")
    return element.content.decode("ascii", "replace")


def _hardware(data: bytes) -> bytes:
    for size in HARDWARE_SIZES:
        if data[:2] == bytes([der.OCTETS, size]) and len(data) == size + 2:
            return data[2:]
        if len(data) == size:
            return data
    raise Malformed(f"VEK certificate: a hardware id of {len(data)} bytes")
