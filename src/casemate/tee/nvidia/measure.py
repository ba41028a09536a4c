"""What a launch needs and shows, for NVIDIA devices: nothing that Casemate starts."""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request


def machine(launch: Launch) -> Machine:
    """Not possible: a device is no machine; it is passed through to one."""
    raise Unusable("an NVIDIA device is not launched", hint="pass it through to a confidential VM")


def measure(launch: Launch) -> Measurement:
    """Not possible: a device's measurements are NVIDIA's to state, in signed manifests."""
    raise Unusable("an NVIDIA device is not measured from a launch", hint="its signed manifests (RIMs) have the values")


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce`: the device gets its first 32 bytes."""
    del hint
    return Request(report_data=nonce)
