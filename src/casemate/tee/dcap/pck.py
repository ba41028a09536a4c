"""The SGX extension of PCK certificates: what hardware the key belongs to and its TCB.

Standard: Intel SGX PCK Certificate and CRL Profile, section 1.3.5 (OID 1.2.840.113741.1.13.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

from casemate.crypto import chain, der
from casemate.errors import Malformed

OID = "1.2.840.113741.1.13.1"


@dataclass(frozen=True)
class Pck:
    """Facts of a PCK certificate. `components` are the 16 SGX TCB component SVNs; flags are None where not stated."""

    ppid: bytes
    components: tuple[int, ...]
    pce_svn: int
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance_id: bytes | None = None
    dynamic_platform: bool | None = None
    cached_keys: bool | None = None
    smt_enabled: bool | None = None


@lru_cache(maxsize=256)
def read(certificate: bytes) -> Pck:
    """The facts of a PCK certificate (DER)."""
    extensions = chain.load(certificate, "PCK certificate").cert.extensions
    try:
        value = extensions.get_extension_for_oid(x509.ObjectIdentifier(OID)).value
    except x509.ExtensionNotFound as error:
        raise Malformed("PCK certificate: it has no SGX extension") from error
    if not isinstance(value, x509.UnrecognizedExtension):
        raise Malformed("PCK certificate: its SGX extension is of another kind")
    return parse(value.value)


def parse(data: bytes) -> Pck:
    """Parse the extension's value."""
    fields = _table(der.loads(data), OID)
    tcb = _table(_need(fields, 2), f"{OID}.2")
    config = _table(fields[7], f"{OID}.7") if 7 in fields else {}
    components = tuple(_need(tcb, i).integer() for i in range(1, 17))
    if max(components) > 255:
        raise Malformed("PCK certificate: a component SVN above 255")
    return Pck(
        ppid=_need(fields, 1).octets(16),
        components=components,
        pce_svn=_need(tcb, 17).integer(),
        cpu_svn=_need(tcb, 18).octets(16),
        pce_id=_need(fields, 3).octets(2),
        fmspc=_need(fields, 4).octets(6),
        sgx_type=_need(fields, 5).integer(),
        platform_instance_id=fields[6].octets(16) if 6 in fields else None,
        dynamic_platform=_flag(config.get(1)),
        cached_keys=_flag(config.get(2)),
        smt_enabled=_flag(config.get(3)),
    )


def _table(element: der.Element, prefix: str) -> dict[int, der.Element]:
    """Last arc → value of a sequence of (OID below `prefix`, value); the same arc twice is refused."""
    found: dict[int, der.Element] = {}
    for entry in element.children():
        pair = entry.children()
        if len(pair) != 2:
            raise Malformed("PCK certificate: an entry of the SGX extension is no pair")
        base, _, arc = pair[0].oid().rpartition(".")
        if base != prefix or int(arc) in found:
            raise Malformed("PCK certificate: an entry of the SGX extension is foreign or doubled")
        found[int(arc)] = pair[1]
    return found


def _need(table: dict[int, der.Element], arc: int) -> der.Element:
    if arc not in table:
        raise Malformed(f"PCK certificate: entry {arc} of the SGX extension is missing")
    return table[arc]


def _flag(element: der.Element | None) -> bool | None:
    if element is None:
        return None
    if element.tag != der.BOOLEAN or len(element.content) != 1:
        raise Malformed("PCK certificate: a flag that is not a boolean")
    return element.content != b"\0"
