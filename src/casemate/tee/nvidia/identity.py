"""The device's own certificate: which chip it is, and which firmware its key belongs to (the FWID).

Standard: TCG DICE Attestation Architecture 1.1, section 6.1.1 (`tcg-dice-TcbInfo`, Blackwell); before it, the RIoT
extension of the same arc (Hopper, LS10): version, the ROM's key, digest of the firmware.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from casemate.crypto import der
from casemate.crypto.chain import Certificate
from casemate.errors import Malformed

RIOT, TCB_INFO = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
SHA384 = "2.16.840.1.101.3.4.2.2"
_FWIDS, _FLAGS = 0xA6, 0x87
_DEBUG = 0x10  # bit 3 of the first byte of OperationalFlags


@dataclass(frozen=True)
class Identity:
    """`chip` is ``GH100``, ``GB100``, ``LS10``; `fwid` the SHA-384 of the firmware that the key was derived for."""

    chip: str
    name: str
    fwid: bytes
    debug: bool


def read(leaf: Certificate) -> Identity:
    """What the certificate says; `Malformed` when it names no chip or no firmware."""
    names = leaf.cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    chip = name.split(" ")[0].replace("_", "")
    if not chip.isalnum() or not chip.isascii() or len(chip) > 16:
        raise Malformed("device certificate: its name has no chip")
    for extension in leaf.cert.extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension):
            if extension.oid.dotted_string == RIOT:
                return Identity(chip, name, _riot(extension.value.value), debug=False)
            if extension.oid.dotted_string == TCB_INFO:
                fwid, debug = _tcb_info(extension.value.value)
                return Identity(chip, name, fwid, debug)
    raise Malformed("device certificate: no FWID extension")


def _riot(value: bytes) -> bytes:
    parts = der.loads(value).children()
    if len(parts) != 3:
        raise Malformed("device certificate: FWID extension of another form")
    return _fwid(parts[2])


def _tcb_info(value: bytes) -> tuple[bytes, bool]:
    fwids: list[der.Element] = []
    debug = False
    for part in der.loads(value).children():
        if part.tag == _FWIDS:
            fwids = der.Element(der.SEQUENCE, part.content).children()
        elif part.tag == _FLAGS and len(part.content) >= 2:
            debug = bool(part.content[1] & _DEBUG)
    if not fwids:
        raise Malformed("device certificate: TcbInfo without a FWID")
    return _fwid(fwids[0]), debug


def _fwid(element: der.Element) -> bytes:
    parts = element.children()
    if len(parts) != 2 or parts[0].oid() != SHA384:
        raise Malformed("device certificate: a FWID that is not SHA-384")
    return parts[1].octets(48)
