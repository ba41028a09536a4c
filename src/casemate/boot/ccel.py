"""A confidential VM's event log as claims, in the shape that CoCo's policies read (`uefi_event_logs`).

Standard: UEFI (sections 38.4, CC event log) over the TCG2 format of `casemate.boot.eventlog`; UEFI_VARIABLE_DATA and
tagged events as in the TCG firmware profile section 10. Runtime events of guests ("AAEL") are tagged events whose text
is `domain operation content`.

Call it only after the log has replayed. `digest_matches_event` says whether a digest covers the event's bytes: without
that, `details` are what somebody wrote beside a digest, and a policy should believe only the digest.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

from casemate.boot import eventlog
from casemate.boot.eventlog import Event, EventLog
from casemate.errors import Malformed
from casemate.wire.cursor import Cursor
from casemate.wire.encoding import b64

NAMES = {
    0x00: "EV_PREBOOT_CERT", 0x01: "EV_POST_CODE", 0x02: "EV_UNUSED", 0x03: "EV_NO_ACTION", 0x04: "EV_SEPARATOR",
    0x05: "EV_ACTION", 0x06: "EV_EVENT_TAG", 0x07: "EV_S_CRTM_CONTENTS", 0x08: "EV_S_CRTM_VERSION",
    0x09: "EV_CPU_MICROCODE", 0x0A: "EV_PLATFORM_CONFIG_FLAGS", 0x0B: "EV_TABLE_OF_DEVICES", 0x0C: "EV_COMPACT_HASH",
    0x0D: "EV_IPL", 0x0E: "EV_IPL_PARTITION_DATA", 0x0F: "EV_NONHOST_CODE", 0x10: "EV_NONHOST_CONFIG",
    0x11: "EV_NONHOST_INFO", 0x12: "EV_OMIT_BOOT_DEVICE_EVENTS", 0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT", 0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER", 0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT", 0x80000007: "EV_EFI_ACTION", 0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES", 0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2", 0x8000000C: "EV_EFI_VARIABLE_BOOT2", 0x80000010: "EV_EFI_HCRTM_EVENT",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY", 0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}  # fmt: skip
_VARIABLES = {0x80000001, 0x80000002, 0x8000000C, 0x800000E0}
_IMAGES = {0x80000003, 0x80000004, 0x80000005}
_TEXTS = {0x01, 0x05, 0x08, 0x0A, 0x0D, 0x80000007}
_SHORT_NAMES = {0x8000000A, 0x8000000B}  # start with a length byte and a name
_SPELLING = {"sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}
_AAEL = 0x4141454C


def claims(log: EventLog) -> list[dict[str, Any]]:
    """One entry for each extended event, in order; `index` is the log's register number (RTMR n is n+1)."""
    return [_entry(event) for event in log.events if event.extended]


def _entry(event: Event) -> dict[str, Any]:
    covered = [hashlib.new(name, event.data).digest() == digest for name, digest in _known(event)]
    name = NAMES.get(event.type, f"{event.type:#010x}")
    return {
        "index": event.register,
        "event_type": name,
        "type_name": name,
        "digest_matches_event": bool(covered) and all(covered),
        "digests": [{"alg": _SPELLING.get(alg, alg), "digest": digest.hex()} for alg, digest in event.digests.items()],
        "event": b64(event.data),
        "details": _details(event),
    }


def _known(event: Event) -> list[tuple[str, bytes]]:
    return [(name, digest) for name, digest in event.digests.items() if name in _SPELLING]


def _details(event: Event) -> dict[str, Any]:
    try:
        if event.type in _VARIABLES:
            return _variable(event.data)
        if event.type == eventlog.EV_EVENT_TAG:
            return _tagged(event.data)
        if event.type in _IMAGES:
            return _image(event.data)
        if event.type in _TEXTS:
            return {"string": event.data.split(b"\0")[0].decode("utf-8", "replace")}
        if event.type in _SHORT_NAMES:
            read = Cursor(event.data, "event")
            return {"string": read.take(read.u8()).split(b"\0")[0].decode("utf-8", "replace")}
    except Malformed:
        pass  # what cannot be read has no details; its digest is there all the same
    return {}


def _variable(data: bytes) -> dict[str, Any]:
    read = Cursor(data, "variable event")
    guid, name_length, data_length = read.take(16), read.u64(), read.u64()
    name = read.take(2 * name_length).decode("utf-16-le", "replace")
    value = read.take(data_length)
    return {
        "variable_name": str(UUID(bytes=guid)),  # byte order as it stands in the event, which is how CoCo spells it
        "unicode_name": name,
        "unicode_name_length": name_length,
        "variable_data": b64(value),
        "variable_data_length": data_length,
    }


def _image(data: bytes) -> dict[str, Any]:
    """UEFI_IMAGE_LOAD_EVENT: where the image came from, as device path nodes."""
    read = Cursor(data, "image event")
    read.take(24)  # location, length, link-time address
    path = Cursor(read.take(read.u64()), "device path")
    found: list[str] = []
    while path.remaining and len(found) < 32:
        kind, subkind, size = path.u8(), path.u8(), path.u16()
        node = Cursor(path.take(size - 4), "device path node")
        if kind == 0x7F:
            break
        found.append(_node(kind, subkind, node))
    return {"device_paths": found}


def _node(kind: int, subkind: int, node: Cursor) -> str:
    """A node in text (UEFI section 10.3); one that is not known as type, subtype and hex."""
    if (kind, subkind) == (1, 1):
        return f"Pci({node.u8()},{node.u8()})"
    if (kind, subkind) == (2, 1):
        number = node.u32()
        vendor = "PNP" if number & 0xFFFF == 0x41D0 else f"{number & 0xFFFF:04X}"
        return f"ACPI({vendor}{number >> 16:04X},{node.u32()})"
    if (kind, subkind) == (4, 1):
        partition, start, size = node.u32(), node.u64(), node.u64()
        signature, layout = node.take(16), "GPT" if node.u8() == 2 else "MBR"
        return f"HD({partition},{layout},{str(UUID(bytes_le=signature)).upper()},{start:#x},{size:#x})"
    rest = node.take(node.remaining)
    if (kind, subkind) == (4, 4):
        return f"File({rest.decode('utf-16-le', 'replace').rstrip(chr(0))})"
    return f"Path({kind},{subkind},{rest.hex()})"


def _tagged(data: bytes) -> dict[str, Any]:
    read = Cursor(data, "tagged event")
    tag = read.u32()
    text = read.take(read.u32()).decode("utf-8", "replace")
    if tag != _AAEL:
        return {"string": text.rstrip("\0")}
    found: dict[str, Any] = {"unicode_name": "AAEL", "string": text}
    parts = text.split(" ", 2)
    if len(parts) == 3:
        found["data"] = {"domain": parts[0], "operation": parts[1], "content": _content(parts[2])}
    return found


def _content(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
