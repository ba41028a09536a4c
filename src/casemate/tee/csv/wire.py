"""The JSON that carries CSV evidence: CoCo's forms and ours.

    {"attestation_report": {"magic": [16], "flags": 0 | 1, "data": [4096]}     CoCo
                           {"anonce", "body", "sig", "sig_usage", "sig_algo"}  CoCo, older: version 1 alone
                           base64                                              ours
     "cert_chain": {"hsk_cek": {"hsk", "cek"} or base64 of both, "pek"}, or null
     "serial_number": [ints], "cc_eventlog": base64 or null}

Certificates are objects in the shape of Hygon's library, member by member, or base64 of their bytes. Either way they
are put back into the bytes that were signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from casemate.errors import Malformed
from casemate.tee.csv import report as wire
from casemate.wire.cursor import Cursor
from casemate.wire.encoding import unb64

EXTENDED = b"ATTESTATION_EXT\0"
MAX_TEXT = 3 * wire.PAGE
MAX_LOG = 4 << 20
# Layouts: a number is an integer of that many bytes, minus a number an array of that many bytes.
_POINT = {"g": 4, "x": -72, "y": -72}
_PAIR = {"r": -72, "s": -72}
_SLOT = {"usage": 4, "algo": 4, "signature": _PAIR, "_reserved": -368}
_AUTHORITY: dict[str, Any] = {
    "body": {
        "preamble": {"ver": 4, "data": {"kid": -16, "sid": -16, "usage": 4, "reserved": -24}},
        "pubkey": _POINT,
        "uid_size": 2,
        "user_id": -254,
        "reserved": -108,
    },
    "signature": _PAIR,
    "_reserved": -112,
}
_CERTIFICATE: dict[str, Any] = {
    "body": {
        "ver": 4,
        "data": {
            "firmware": {"major": 1, "minor": 1},
            "reserved1": 2,
            "pubkey": {"usage": 4, "algo": 4, "key": _POINT},
            "uid_size": 2,
            "user_id": -254,
            "sid": -16,
            "reserved2": -608,
        },
    },
    "sigs": [_SLOT, _SLOT],
}
_INFO: dict[str, Any] = {
    "body": {
        "user_pubkey_digest": -32, "vm_id": -16, "vm_version": -16, "report_data": -64, "mnonce": -16, "measure": -32,
        "policy": 4,
    },
    "sig_usage": 4, "sig_algo": 4, "anonce": 4, "sig": _PAIR,
}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """What the primary evidence object holds; `raw` are the report's bytes as they came."""

    raw: bytes
    report: wire.Report
    hsk: wire.Certificate | None
    cek: wire.Certificate | None
    pek: wire.Certificate | None
    serial_number: bytes
    event_log: bytes | None


def parse_evidence(primary: dict[str, Any]) -> Parts:
    """Decode the primary evidence object. Members that are not known are ignored."""
    raw, report = _report(primary.get("attestation_report"))
    chain = primary.get("cert_chain") or {}
    if not isinstance(chain, dict):
        raise Malformed("csv evidence: `cert_chain` is no object")
    hsk, cek = _hsk_cek(chain)
    pek = chain.get("pek")
    number = primary.get("serial_number") or []
    return Parts(
        raw=raw,
        report=report,
        hsk=hsk,
        cek=cek,
        pek=None if pek is None else wire.certificate(_bytes(pek, _CERTIFICATE, "pek")),
        serial_number=report.serial_number or _octets(number, None, "serial_number"),
        event_log=_log(primary.get("cc_eventlog")),
    )


def _log(value: Any) -> bytes | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_LOG:
        raise Malformed("csv evidence: `cc_eventlog` is neither null nor a string, or too long")
    return unb64(value, "csv evidence: cc_eventlog")


def _report(value: Any) -> tuple[bytes, wire.Report]:
    if isinstance(value, str):
        raw = _text(value, "attestation_report")
        return raw, wire.parse(raw)
    if not isinstance(value, dict):
        raise Malformed("csv evidence: `attestation_report` is neither an object nor base64")
    if "data" not in value:
        raw = pack(_INFO, value, "attestation_report")
        return raw, wire.parse_info(raw)
    raw = _octets(value["data"], wire.PAGE, "attestation_report.data")
    magic, flags = _octets(value.get("magic"), 16, "attestation_report.magic"), value.get("flags")
    report = wire.parse(raw)
    known = {1: (not any(magic)) or (magic == EXTENDED and flags == 0), 2: magic == EXTENDED and flags == 1}
    if not known[report.version] or isinstance(flags, bool):
        raise Malformed("csv evidence: magic and flags name another version than the report's")
    return raw, report


def _hsk_cek(chain: dict[str, Any]) -> tuple[wire.Certificate | None, wire.Certificate | None]:
    given = chain.get("hsk_cek", chain)  # the oldest form has the three beside each other
    if isinstance(given, str):
        return split(_text(given, "hsk_cek"))
    if not isinstance(given, dict):
        return None, None
    hsk, cek = given.get("hsk"), given.get("cek")
    return (
        None if hsk is None else wire.authority(_bytes(hsk, _AUTHORITY, "hsk")),
        None if cek is None else wire.certificate(_bytes(cek, _CERTIFICATE, "cek")),
    )


def split(data: bytes) -> tuple[wire.Certificate, wire.Certificate]:
    """HSK and CEK of a chip as Hygon's service gives them: one behind the other."""
    if len(data) != wire.CA_SIZE + wire.CERTIFICATE_SIZE:
        raise Malformed(f"HSK and CEK: {len(data)} bytes, {wire.CA_SIZE + wire.CERTIFICATE_SIZE} wanted")
    return wire.authority(data[: wire.CA_SIZE]), wire.certificate(data[wire.CA_SIZE :])


def certificate_json(data: bytes) -> dict[str, Any]:
    """A CEK or PEK in the shape of CoCo's evidence."""
    found: dict[str, Any] = unpack(_CERTIFICATE, Cursor(data, "Hygon certificate"))
    return found


def authority_json(data: bytes) -> dict[str, Any]:
    """An HRK or HSK in the shape of CoCo's evidence."""
    found: dict[str, Any] = unpack(_AUTHORITY, Cursor(data, "Hygon CA certificate"))
    return found


def pack(layout: Any, value: Any, name: str) -> bytes:
    """The bytes of a JSON value by its layout."""
    if isinstance(layout, int):
        if layout < 0:
            return _octets(value, -layout, name)
        if type(value) is not int or not 0 <= value < 1 << 8 * layout:
            raise Malformed(f"csv evidence: `{name}` is no number of {layout} bytes")
        return value.to_bytes(layout, "little")
    if isinstance(layout, list):
        if not isinstance(value, list) or len(value) != len(layout):
            raise Malformed(f"csv evidence: `{name}` is no list of {len(layout)}")
        return b"".join(pack(part, member, name) for part, member in zip(layout, value, strict=True))
    if not isinstance(value, dict):
        raise Malformed(f"csv evidence: `{name}` is no object")
    return b"".join(pack(part, value.get(member), f"{name}.{member}") for member, part in layout.items())


def unpack(layout: Any, read: Cursor) -> Any:
    """The reverse of `pack`."""
    if isinstance(layout, int):
        return read.uint(layout) if layout > 0 else list(read.take(-layout))
    if isinstance(layout, list):
        return [unpack(part, read) for part in layout]
    return {member: unpack(part, read) for member, part in layout.items()}


def _bytes(value: Any, layout: Any, name: str) -> bytes:
    return _text(value, name) if isinstance(value, str) else pack(layout, value, name)


def _text(value: str, name: str) -> bytes:
    if len(value) > MAX_TEXT:
        raise Malformed(f"csv evidence: `{name}` is too long")
    return unb64(value, f"csv evidence: {name}")


def _octets(value: Any, size: int | None, name: str) -> bytes:
    if not isinstance(value, list) or len(value) > wire.PAGE or (size is not None and len(value) != size):
        raise Malformed(f"csv evidence: `{name}` is no list of {'bytes' if size is None else f'{size} bytes'}")
    if not all(type(byte) is int and 0 <= byte <= 255 for byte in value):
        raise Malformed(f"csv evidence: `{name}` holds something that is no byte")
    return bytes(value)
