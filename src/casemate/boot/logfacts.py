"""Facts from an event log that its digests cover: Secure Boot's state, what was loaded, the kernel stub's inputs.

Call it only after the log was found to replay to quoted registers; even then, only data that `Event.data_matches`
covers is believed, the rest is given as digests. Standard: UEFI_VARIABLE_DATA (firmware profile section 10.2.6); the
tags are those of the Linux EFI stub.
"""

from __future__ import annotations

from typing import Any

from casemate.boot import eventlog
from casemate.boot.eventlog import Event, EventLog
from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

_GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")  # EFI_GLOBAL_VARIABLE
_TAGS = {0x8F3B22ED: "load_options", 0x8F3B22EC: "initrd"}


def facts(log: EventLog, algorithm: str) -> dict[str, Any]:
    """`events` (count), `secure_boot` (None when the log does not say); hex digests of the rest.

    The rest: `applications` (boot services applications), `load_options` (the kernel's command line), `initrd`.
    """
    found: dict[str, Any] = {"events": len(log.events), "secure_boot": None, "applications": []}
    found.update({name: [] for name in _TAGS.values()})
    for event in log.events:
        digest = event.digests.get(algorithm, b"").hex()
        if event.type == eventlog.EV_EFI_BOOT_SERVICES_APPLICATION:
            found["applications"].append(digest)
        elif event.type == eventlog.EV_EVENT_TAG and (name := _TAGS.get(int.from_bytes(event.data[:4], "little"))):
            found[name].append(digest)
        elif event.data_matches(algorithm) and (state := _secure_boot(event)) is not None:
            found["secure_boot"] = state
    return found


def _secure_boot(event: Event) -> bool | None:
    """The state that a SecureBoot variable event shows, None for every other event."""
    if event.type != eventlog.EV_EFI_VARIABLE_DRIVER_CONFIG:
        return None
    read = Cursor(event.data, "variable event")
    try:
        guid, name_length, data_length = read.take(16), read.u64(), read.u64()
        name, data = read.take(2 * name_length), read.take(data_length)
    except Malformed:
        return None
    if guid != _GLOBAL or name != "SecureBoot".encode("utf-16-le"):
        return None
    return data == b"\x01"
