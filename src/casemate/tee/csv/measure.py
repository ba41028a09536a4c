"""What cannot be computed for CSV: its launch digest needs the firmware's own hash of every page as QEMU loads it."""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request


def machine(launch: Launch) -> Machine:
    """Not possible: no QEMU of Debian starts CSV guests."""
    raise Unusable("CSV guests are not started here", hint="start it with Hygon's QEMU and verify its report here")


def measure(launch: Launch) -> Measurement:
    """Not possible: the launch digest is taken by Hygon's firmware over a layout that is not published."""
    raise Unusable("CSV launches are not measured from files", hint="take `measure` from a launch that you trust")


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce`: the report data, zeros behind it."""
    del hint
    return Request(report_data=nonce)
