"""The firmware's event log: TCG2 crypto-agile form, and the older SHA-1 form that starts every log.

Standard: TCG PC Client Platform Firmware Profile (rev 1.06) section 10: TCG_PCR_EVENT (SHA-1), TCG_PCR_EVENT2,
TCG_EfiSpecIdEvent, EV_NO_ACTION events (not extended), the StartupLocality event. TDX's CCEL is the same format over
other registers. All integers are little-endian.

    first event   register u32 | type u32 | SHA-1 digest 20 | size u32 | data (Spec ID Event03 when crypto-agile)
    later events  register u32 | type u32 | count u32 | count x (algorithm u16 | digest) | size u32 | data

A log is hearsay: only what replays to quoted registers is believed, and of an event's data only what its digest covers
(`data_matches`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

ALGORITHMS = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512", 0x0012: "sm3_256"}
SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64, "sm3_256": 32}
MAX_LOG = 1 << 20
MAX_EVENTS = 16384
MAX_REGISTER = 31

EV_NO_ACTION = 0x00000003
EV_SEPARATOR = 0x00000004
EV_EVENT_TAG = 0x00000006
EV_IPL = 0x0000000D
EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
EV_EFI_VARIABLE_BOOT = 0x80000002
EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
EV_EFI_ACTION = 0x80000007
# Types whose digest is the hash of the event data itself (profile section 10.4.1, "digest" column).
_OVER_DATA = {EV_SEPARATOR, EV_EFI_VARIABLE_DRIVER_CONFIG, EV_EFI_VARIABLE_BOOT, EV_EFI_ACTION}
# What firmware measures into PCR 5 when a kernel leaves the boot services (profile section 10.4.5).
EXIT_REGISTER = 5
_EXIT = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")

_SPEC_ID = b"Spec ID Event03\0"
_LOCALITY = b"StartupLocality\0"


@dataclass(frozen=True)
class Event:
    """One event. `register` is the PCR index (or CCEL register number); `digests` maps algorithm name to bytes."""

    register: int
    type: int
    digests: Mapping[str, bytes]
    data: bytes

    @property
    def extended(self) -> bool:
        """Whether the firmware extended a register with it."""
        return self.type != EV_NO_ACTION

    def data_matches(self, algorithm: str) -> bool:
        """Whether `data` is covered by the digest: only then may a reader believe it."""
        digest = self.digests.get(algorithm)
        if digest is None or self.type not in _OVER_DATA or algorithm not in hashlib.algorithms_guaranteed:
            return False
        return hashlib.new(algorithm, self.data).digest() == digest


@dataclass(frozen=True)
class EventLog:
    """A parsed log: `algorithms` in the log's order, `locality` of the TPM's start (0 unless an event says more)."""

    events: tuple[Event, ...]
    algorithms: tuple[str, ...]
    locality: int = 0


def parse(data: bytes, *, limit: int = MAX_LOG, padded: bool = False) -> EventLog:
    """Parse a whole log of at most `limit` bytes.

    `padded` lets it end in bytes 0xFF or 0x00 alone, as memory areas for logs do (CCEL).
    """
    if len(data) > limit:
        raise Malformed(f"event log: {len(data)} bytes, at most {limit} allowed")
    read = Cursor(data, "event log")
    first = _old_event(read)
    sizes = _spec_id(first)
    events = [first]
    while read.remaining and not (padded and _is_padding(data, read.offset)):
        if len(events) >= MAX_EVENTS:
            raise Malformed(f"event log: more than {MAX_EVENTS} events")
        events.append(_new_event(read, sizes) if sizes else _old_event(read))
    return EventLog(tuple(events), tuple(sizes) or ("sha1",), _startup_locality(events))


def replay(log: EventLog, algorithm: str, initial: Mapping[int, bytes] | None = None) -> dict[int, bytes]:
    """Registers after all events. `initial` are their values before; one that is not given starts as zeros.

    `Malformed` when the log, or one event that was extended, has no digest of that algorithm.
    """
    if algorithm not in log.algorithms or algorithm not in hashlib.algorithms_guaranteed:
        raise Malformed(f"event log: has {', '.join(log.algorithms)} but no {algorithm} that can be computed")
    values = dict(initial or {})
    zeros = bytes(SIZES[algorithm])
    for event in log.events:
        if event.extended:
            if algorithm not in event.digests:
                raise Malformed(f"event log: an event of register {event.register} has no {algorithm} digest")
            before = values.get(event.register, zeros)
            values[event.register] = hashlib.new(algorithm, before + event.digests[algorithm]).digest()
    return values


def after_unlogged_exit(log: EventLog, algorithm: str, value: bytes) -> bytes | None:
    """PCR 5 after both extends at the end of the boot services, for firmware that makes them without logging them.

    None when the log has such an event: then nothing is left to explain.
    """
    if any(event.register == EXIT_REGISTER and event.data in _EXIT for event in log.events):
        return None
    for text in _EXIT:
        value = hashlib.new(algorithm, value + hashlib.new(algorithm, text).digest()).digest()
    return value


def tpm_initial(algorithm: str, locality: int = 0) -> dict[int, bytes]:
    """All 24 PCRs of a PC Client TPM after TPM2_Startup(CLEAR).

    Zeros, but all ones in 17 to 22 until a dynamic launch resets them, and the start-up locality in PCR 0 (PC Client
    Platform TPM Profile, section 4.6; Library Part 3 section 9.3).
    """
    size = SIZES[algorithm]
    values = {index: (b"\xff" if 17 <= index <= 22 else b"\0") * size for index in range(24)}
    values[0] = bytes(size - 1) + bytes([locality])
    return values


def _old_event(read: Cursor) -> Event:
    register, kind, digest = read.u32(), read.u32(), read.take(20)
    return _event(register, kind, {"sha1": digest}, read.take(read.u32()))


def _new_event(read: Cursor, sizes: Mapping[str, int]) -> Event:
    register, kind, count = read.u32(), read.u32(), read.u32()
    if not 1 <= count <= len(sizes):
        raise Malformed(f"event log: an event with {count} digests, the header names {len(sizes)}")
    digests: dict[str, bytes] = {}
    for _ in range(count):
        algorithm = _name(read.u16())
        if algorithm not in sizes or algorithm in digests:
            raise Malformed(f"event log: algorithm {algorithm} is doubled or not in the header")
        digests[algorithm] = read.take(sizes[algorithm])
    return _event(register, kind, digests, read.take(read.u32()))


def _event(register: int, kind: int, digests: Mapping[str, bytes], data: bytes) -> Event:
    if register > MAX_REGISTER and kind != EV_NO_ACTION:
        raise Malformed(f"event log: register {register} does not exist")
    return Event(register, kind, digests, data)


def _spec_id(first: Event) -> dict[str, int]:
    """Algorithm → digest size of a crypto-agile log; empty when the first event does not announce one."""
    if first.type != EV_NO_ACTION or not first.data.startswith(_SPEC_ID):
        return {}
    read = Cursor(first.data, "event log header")
    read.take(len(_SPEC_ID) + 8)  # platform class, minor, major, errata, uintn size
    count = read.u32()
    if not 1 <= count <= 8:
        raise Malformed(f"event log: {count} algorithms in the header, 1 to 8 allowed")
    sizes: dict[str, int] = {}
    for _ in range(count):
        algorithm, size = _name(read.u16()), read.u16()
        if algorithm in sizes or size != SIZES.get(algorithm, size) or not 1 <= size <= 64:
            raise Malformed(f"event log: the header gives {algorithm} twice or with {size} bytes")
        sizes[algorithm] = size
    read.take(read.u8())  # vendor information
    read.end()
    return sizes


def _name(algorithm: int) -> str:
    return ALGORITHMS.get(algorithm, f"{algorithm:#06x}")


def _startup_locality(events: list[Event]) -> int:
    """The locality of TPM2_Startup: 0, 3, or 4 after an H-CRTM event; it decides PCR 0's first value."""
    found = [e for e in events if e.type == EV_NO_ACTION and e.register == 0 and e.data.startswith(_LOCALITY)]
    if not found:
        return 0
    if len(found) > 1 or len(found[0].data) != len(_LOCALITY) + 1 or found[0].data[-1] not in (0, 3, 4):
        raise Malformed("event log: StartupLocality is doubled or names no start-up locality")
    return found[0].data[-1]


def _is_padding(data: bytes, offset: int) -> bool:
    rest = memoryview(data)[offset:]
    return rest[0] in (0x00, 0xFF) and bytes(rest) == bytes([rest[0]]) * len(rest)
