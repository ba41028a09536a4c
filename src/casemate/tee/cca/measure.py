"""What a realm's launch shows, and how one is asked. Neither can be made here yet."""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request


def machine(launch: Launch) -> Machine:
    """Not possible: a realm needs an Arm host with the Realm Management Extension, which no driver here starts."""
    del launch
    raise Unusable("an Arm CCA realm cannot be started here", hint="start it with its own host's tools, verify it here")


def measure(launch: Launch) -> Measurement:
    """Not possible yet: the initial measurement follows each call that the host makes to build the realm."""
    del launch
    raise Unusable(
        "an Arm CCA realm is not measured from a launch yet",
        hint="take the initial measurement (RIM) from a tool of the realm's builder and give it as a reference value",
    )


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce`: it is the realm's challenge, with zeros behind it up to 64 bytes."""
    del hint
    return Request(report_data=nonce)
