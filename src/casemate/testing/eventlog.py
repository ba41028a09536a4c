"""Writes TCG2 event logs for tests: the inverse of `casemate.boot.eventlog.parse`, with sha256 digests alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from casemate.boot import eventlog

_LOAD_OPTIONS, _INITRD = 0x8F3B22ED, 0x8F3B22EC


class LoggedEvent(NamedTuple):
    """One event to write; `digest` is its sha256."""

    register: int
    type: int
    digest: bytes
    data: bytes


def over_data(register: int, kind: int, data: bytes) -> LoggedEvent:
    """An event whose digest is the hash of its data."""
    return LoggedEvent(register, kind, hashlib.sha256(data).digest(), data)


def direct_boot(firmware: bytes, kernel: bytes, command_line: str, initrd: bytes) -> list[LoggedEvent]:
    """The shape of a measured direct boot: firmware in PCR 0, kernel in PCR 4, command line and initrd in PCR 9."""
    options = (command_line + " initrd=initrd\0").encode("utf-16-le")
    tag = eventlog.EV_EVENT_TAG
    return [
        LoggedEvent(0, 0x80000008, hashlib.sha256(firmware).digest(), bytes(16)),
        *(over_data(register, eventlog.EV_SEPARATOR, bytes(4)) for register in range(8)),
        LoggedEvent(4, eventlog.EV_EFI_BOOT_SERVICES_APPLICATION, hashlib.sha256(kernel).digest(), bytes(32)),
        over_data(4, eventlog.EV_EFI_ACTION, b"Calling EFI Application from Boot Option"),
        LoggedEvent(9, tag, hashlib.sha256(options).digest(), tagged(_LOAD_OPTIONS, b"LOADED_IMAGE::LoadOptions\0")),
        LoggedEvent(9, tag, hashlib.sha256(initrd).digest(), tagged(_INITRD, b"Linux initrd\0")),
    ]


def tagged(identifier: int, text: bytes) -> bytes:
    """TCG_PCClientTaggedEvent."""
    return identifier.to_bytes(4, "little") + len(text).to_bytes(4, "little") + text


def write(events: Iterable[LoggedEvent]) -> bytes:
    """The log as bytes, header first."""
    header = b"Spec ID Event03\0" + bytes(4) + b"\x00\x02\x69\x02" + _u32(1) + b"\x0b\x00\x20\x00" + b"\x00"
    out = _u32(0) + _u32(eventlog.EV_NO_ACTION) + bytes(20) + _u32(len(header)) + header
    for event in events:
        out += _u32(event.register) + _u32(event.type) + _u32(1) + b"\x0b\x00" + event.digest
        out += _u32(len(event.data)) + event.data
    return out


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
