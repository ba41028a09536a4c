"""Replay of a CSV guest's event log (CCEL, SM3 digests): register n of the log is RTMR n of the report.

Standard: TCG PC Client Platform Firmware Profile, crypto-agile log; register numbers as in Trustee's verifier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casemate.crypto import sm3
from casemate.errors import Malformed
from casemate.tee.rules import Rules

if TYPE_CHECKING:
    from casemate.boot.eventlog import EventLog

_ALGORITHM = "sm3_256"


def judge(data: bytes, registers: tuple[bytes, ...], rules: Rules) -> EventLog | None:
    """Rules csv.log.format, .rtmr1 to .rtmr4, .registers: every register but 0 must come out, and no other."""
    from casemate.boot import eventlog

    wanted = "an event log with SM3 digests"
    try:
        log = eventlog.parse(data, padded=True)
        values = replay(log)
    except Malformed as error:
        rules.check("log.format", False, wanted, error, "the log was changed or cut")
        return None
    rules.check("log.format", True, wanted, f"{len(log.events)} events")
    hint = "the log is another boot's, or something extended a register without logging it"
    for index, expected in enumerate(registers[1:], 1):
        rules.equal(f"log.rtmr{index}", expected, values.pop(index, bytes(sm3.SIZE)), hint)
    found = f"registers {sorted(values)}" if values else "only those"
    rules.check("log.registers", not values, "events of RTMR 1 to 4", found)
    return log


def replay(log: EventLog) -> dict[int, bytes]:
    """Registers after all events, from zeros; `Malformed` when an event that was extended has no SM3 digest."""
    values: dict[int, bytes] = {}
    for event in log.events:
        if not event.extended:
            continue
        digest = event.digests.get(_ALGORITHM)
        if digest is None:
            raise Malformed(f"event log: an event of register {event.register} has no SM3 digest")
        values[event.register] = sm3.digest(values.get(event.register, bytes(sm3.SIZE)) + digest)
    return values
