"""RTMR 0 by replay: what a log says of the machine, each event computed from files, judged, or listed with the reason.

RTMR 0 holds what the host configures (PCR 1 and 7; edk2 SecurityPkg, OvmfPkg/Tcg/TdTcg2Dxe), so it can't be computed
from an image alone. Classes of events:
  td_hob     computed: the memory map that QEMU hands over (QEMU hw/i386/tdvf-hob.c), from the memory's size
  cfv        computed: the variable store as the firmware file holds it
  separator  computed: four zero bytes
  variable   judged: Secure Boot and its keys; the digest covers the value, which is shown
  boot       judged: BootOrder and Boot####; the digest covers the value
  authority  judged: what was used to verify an image (also shim's SbatLevel, MokList...); the digest covers it
  action     judged: the text is covered by the digest
  config     listed: ACPI tables and fw_cfg files as the host made them; the log has their digests, not their bytes
  other      not known: the log isn't accepted
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping

from casemate.boot import eventlog
from casemate.boot.eventlog import Event, EventLog
from casemate.errors import Finding, Malformed
from casemate.tee.rules import Rules
from casemate.tee.tdx.firmware import Kind, Section
from casemate.wire.cursor import Cursor

REGISTER = 1  # RTMR 0 in the log's numbers
_HOST_TABLES = "made by the host: not computed; compare the digest with a machine that you trust, or trust no table"
_VARIABLE, _BOOT, _AUTHORITY = "variable", "boot", "authority"
_CLASSES: Mapping[int, str] = {
    0x8000000B: "td_hob",
    0x8000000A: "cfv",
    0x00000004: "separator",
    0x80000001: _VARIABLE,
    0x80000002: _BOOT,
    0x8000000C: _BOOT,
    0x800000E0: _AUTHORITY,
    0x80000007: "action",
    0x0000000A: "config",
}
_LOW, _LOW_SPLIT, _HIGH = 0xB0000000, 0x80000000, 1 << 32


def account(log: EventLog, sections: Iterable[Section], memory: int) -> list[Finding]:
    """One finding for each event of RTMR 0, and one for what is missing. `memory` is the guest's, in bytes."""
    rules, found = Rules("tdx"), tuple(sections)
    stores = [hashlib.sha384(s.data).digest() for s in found if s.kind is Kind.VARIABLES]
    computed = {"td_hob": [hashlib.sha384(hand_off(found, memory)).digest()], "cfv": stores}
    computed["separator"] = [hashlib.sha384(bytes(4)).digest()]
    seen = set()
    for event in log.events:
        if event.register == REGISTER and event.extended:
            seen.add(_event(event, computed, rules))
    missing = {"td_hob", "cfv", _VARIABLE, "separator"} - seen
    rules.check("rtmr0.complete", not missing, "hand-off, variables, separator", ", ".join(sorted(missing)) or "all")
    return rules.checks


def hand_off(sections: Iterable[Section], memory: int) -> bytes:
    """The hand-off block (TD HOB) as it is measured: a header, then QEMU's memory ranges; the end mark is not."""
    taken = sorted((s.address, s.size) for s in sections if s.kind in {Kind.HAND_OFF, Kind.TEMPORARY})
    base = next((s.address for s in sections if s.kind is Kind.HAND_OFF), 0)
    low = min(memory, _LOW if memory < _LOW else _LOW_SPLIT)
    ranges = [_resource(*part) for part in _split(0, low, taken)]
    ranges += [_resource(_UNACCEPTED, _HIGH, memory - low)] if memory > low else []
    body = b"".join(ranges)
    end = base + 56 + len(body) + 8
    return struct.pack("<HHIIIQQQQQ", 1, 56, 0, 9, 0, 0, 0, 0, 0, end) + body


_MEMORY, _UNACCEPTED = 0, 7
_TESTED = 7  # present, initialised, tested


def _split(at: int, end: int, taken: list[tuple[int, int]]) -> Iterable[tuple[int, int, int]]:
    """(type, address, size): what the firmware's sections take is accepted memory, the rest is not yet."""
    for address, size in taken:
        if at < address:
            yield _UNACCEPTED, at, address - at
        yield _MEMORY, address, size
        at = address + size
    if at < end:
        yield _UNACCEPTED, at, end - at


def _resource(kind: int, address: int, size: int) -> bytes:
    return struct.pack("<HHI16sIIQQ", 3, 48, 0, bytes(16), kind, _TESTED, address, size)


def _event(event: Event, computed: Mapping[str, list[bytes]], rules: Rules) -> str:
    """Account for one event; returns its class."""
    kind, digest = _CLASSES.get(event.type, "other"), event.digests.get("sha384", b"")
    if kind in computed:
        wanted = " or ".join(value.hex() for value in computed[kind]) or "nothing: the firmware file has none"
        hint = "another memory size or monitor" if kind == "td_hob" else "another firmware file, or an error was logged"
        rules.check(f"rtmr0.{kind}", digest in computed[kind], f"computed: {wanted}", digest.hex(), hint)
    elif kind == "config":
        label = event.data[:64].split(b"\0")[0].decode("ascii", "replace")
        rules.check("rtmr0.config", True, "listed", f"{label}: {digest.hex()}; {_HOST_TABLES}")
    elif kind == "other":
        rules.check("rtmr0.other", False, "a known class of event", f"{event.type:#010x}", "this log is not understood")
    else:
        text, covered = _covered(event, digest)
        rules.check(f"rtmr0.{kind}", covered, "judged: the digest covers the value", text, "the log was changed")
    return kind


def _covered(event: Event, digest: bytes) -> tuple[str, bool]:
    """(what the event says, whether its digest covers that). Boot variables are hashed by value or as a whole."""
    whole = hashlib.sha384(event.data).digest() == digest
    if event.type == eventlog.EV_EFI_ACTION:
        return event.data[:64].decode("ascii", "replace"), whole
    try:
        read = Cursor(event.data, "variable event")
        read.take(16)
        name_length, size = read.u64(), read.u64()
        name, value = read.take(2 * name_length), read.take(size)
        read.end()
    except Malformed as error:
        return str(error), False
    by_value = _CLASSES[event.type] == _BOOT and hashlib.sha384(value).digest() == digest
    shown = value[:32].hex() + ("..." if len(value) > 32 else "") or "empty"
    return f"{name.decode('utf-16-le', 'replace')}: {shown}", whole or by_value
